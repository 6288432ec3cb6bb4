/* SPDX-License-Identifier: MIT */
/* Creating, limiting and destroying heaps; threads; bad input. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

Test(heap, one_at_a_time_and_again)
{
	weir_heap *second;

	for (int i = 0; i < 20; i++) {
		heap_open(i % 2 ? "barrier=none" : NULL);
		cr_assert_eq(weir_heap_create(NULL, &second), -EBUSY);
		cr_assert(strstr(weir_error_text(), "destroy"));
		cr_assert_not_null(weir_alloc(self, 100));
		heap_close();
	}
	cr_assert_eq(weir_heap_destroy(NULL), 0);
}

Test(heap, bad_options_are_named)
{
	static const char *const bad[][2] = {
		{"no-such-key=1", "no-such-key"},
		{"heap-max=lots", "heap-max"},
		{"barrier=wishful", "barrier"},
		{"heap-max=64m,heap-soft=65m", "heap-soft"},
		{"log=verbose", "verbose"},
		{"trace=/nonexistent/dir/file", "/nonexistent/dir/file"},
	};
	struct weir_heap_options o = {.size = sizeof(o)};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		o.options = bad[i][0];
		cr_assert_lt(weir_heap_create(&o, &heap), 0, "%s", bad[i][0]);
		cr_assert(strstr(weir_error_text(), bad[i][1]), "%s: %s",
			  bad[i][0], weir_error_text());
	}
	o.options = NULL;
	o.size = 3;
	cr_assert_eq(weir_heap_create(&o, &heap), -EINVAL);
	setenv("WEIR_OPTIONS", "markers=many", 1);
	cr_assert_eq(weir_heap_create(NULL, &heap), -EINVAL);
	cr_assert(strstr(weir_error_text(), "WEIR_OPTIONS"));
	unsetenv("WEIR_OPTIONS");
	heap_open(NULL);
	heap_close();
}

Test(heap, the_environment_overrides_the_program)
{
	setenv("WEIR_OPTIONS", "barrier=none", 1);
	heap_open("barrier=async");
	cr_assert_str_eq(heap_stats().barrier, "none");
	heap_close();
}

Test(heap, limits)
{
	heap_open("heap-max=256m");
	cr_assert_eq(weir_heap_set_limits(heap, 0, (size_t)1 << 40), -EINVAL);
	cr_assert_eq(weir_heap_set_limits(heap, 200 << 20, 100 << 20), -EINVAL);
	cr_assert_eq(weir_heap_set_limits(heap, 16 << 20, 32 << 20), 0);
	cr_assert_null(weir_alloc(self, 33 << 20));
	cr_assert_eq(weir_heap_set_limits(heap, 0, 64 << 20), 0);
	cr_assert_not_null(weir_alloc(self, 33 << 20));
	heap_close();
}

/* A limit on addresses: a smaller range if the size was not asked for, an
 * error that names the limit if it was. */
Test(heap, rlimit_as)
{
	struct rlimit r = {(rlim_t)3 << 30, (rlim_t)3 << 30};
	struct weir_heap_options o = {.size = sizeof(o),
				      .options = "heap-max=16g"};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer needs addresses of its own");
#endif
	cr_assert_eq(setrlimit(RLIMIT_AS, &r), 0);
	cr_assert_eq(weir_heap_create(&o, &heap), -ENOMEM);
	cr_assert(strstr(weir_error_text(), "RLIMIT_AS"), "%s",
		  weir_error_text());
	heap_open(NULL);
	for (int i = 0; i < 200000; i++)
		cr_assert_not_null(weir_alloc(self, 1000), "%s",
				   weir_error_text());
	heap_close();
}

/* However the sizes fall, the parts of the heap leave room for each other. */
Test(heap, rlimit_as_of_any_size)
{
	struct weir_heap_options o = {.size = sizeof(o)};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer needs addresses of its own");
#endif
	for (rlim_t mib = 8192; mib >= 1024; mib -= 256) {
		struct rlimit r = {mib << 20, RLIM_INFINITY};

		cr_assert_eq(setrlimit(RLIMIT_AS, &r), 0);
		cr_assert_eq(weir_heap_create(&o, &heap), 0, "%lu MiB: %s",
			     (unsigned long)mib, weir_error_text());
		cr_assert_eq(weir_thread_attach(heap, &self), 0);
		for (int i = 0; i < 1000; i++)
			cr_assert_not_null(weir_alloc(self, 1000), "%lu MiB",
					   (unsigned long)mib);
		heap_close();
	}
}

static void *attach_twice(void *arg)
{
	weir_mutator *a, *b;

	(void)arg;
	cr_assert_null(weir_thread_self(heap));
	cr_assert_eq(weir_thread_attach(heap, &a), 0);
	cr_assert_eq(weir_thread_attach(heap, &b), 0);
	cr_assert_eq(a, b);
	cr_assert_eq(weir_thread_self(heap), a);
	cr_assert_eq(weir_thread_detach(a), 0);
	cr_assert_not_null(weir_alloc(a, 10));
	cr_assert_eq(weir_thread_detach(a), 0);
	cr_assert_null(weir_thread_self(heap));
	return NULL;
}

static void *exits_attached(void *arg)
{
	weir_mutator *m;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	cr_assert_not_null(weir_alloc(m, 10));
	return NULL;
}

Test(heap, threads_attach_and_leave)
{
	heap_open(NULL);
	run_thread(attach_twice, NULL);
	for (int i = 0; i < 100; i++)
		run_thread(exits_attached, NULL);
	cr_assert_eq(wr_threads_count(heap->threads), 1);
	heap_close();
}

static void *sleeps_attached(void *arg)
{
	weir_mutator *m;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	pause();
	return NULL;
}

Test(heap, destroy_refuses_while_others_are_attached)
{
	pthread_t t;

	heap_open(NULL);
	cr_assert_eq(pthread_create(&t, NULL, sleeps_attached, NULL), 0);
	while (wr_threads_count(heap->threads) < 2)
		usleep(1000);
	cr_assert_eq(weir_heap_destroy(heap), -EBUSY);
	cr_assert(strstr(weir_error_text(), "attached"));
}

static void *in_region(void *arg)
{
	/* The collector does not wait for this thread. */
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	return arg;
}

static void *back_in(void *arg)
{
	return weir_alloc(arg, 64);
}

static void *region_with_call(void *arg)
{
	void *p = weir_unblocked_call(arg, back_in, arg);

	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	return p;
}

Test(heap, blocking_regions)
{
	static int x;

	heap_open("verify=on");
	cr_assert_eq(weir_blocking_call(self, in_region, &x), &x);
	cr_assert_not_null(weir_blocking_call(self, region_with_call, self));
	heap_close();
}

static void *loops(void *arg)
{
	weir_mutator *m;
	int *stop = arg;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		weir_safepoint(m);
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

Test(heap, safepoints_instead_of_signals)
{
	static int stop;
	pthread_t t;

	heap_open("stop=safepoints,verify=on,heap-min=1m");
	cr_assert_eq(pthread_create(&t, NULL, loops, &stop), 0);
	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < 20000; k++)
			cr_assert_not_null(weir_alloc(self, 100));
		cr_assert_eq(weir_collect(heap, i % 2), 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	heap_close();
}
