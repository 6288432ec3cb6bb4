/* SPDX-License-Identifier: MIT */
/*
 * weir_collect_disable() at the limit of the heap, in children of fork(), with
 * finalizers, and where it must not be called.
 */
#define _GNU_SOURCE
#include "tests/disable.h"

/* ---- The limit ----------------------------------------------------------- */

static unsigned asked;
static void **list;

static void *link_up(size_t size)
{
	void **p = weir_alloc(self, size);

	if (p) {
		p[0] = list;
		list = p;
	}
	return p;
}

static void open_oom(const char *options, weir_oom_fn *oom)
{
	struct weir_heap_options o = {.size = sizeof(o), .oom = oom};
	char text[256] = "";

#ifdef __SANITIZE_THREAD__
	strcat(text, "stop=safepoints,");
#endif
	strncat(text, options, sizeof(text) - strlen(text) - 1);
	o.options = text;
	cr_assert_eq(weir_heap_create(&o, &heap), 0, "%s", weir_error_text());
	cr_assert_eq(weir_thread_attach(heap, &self), 0);
	cr_assert_eq(weir_root_add(heap, &list, sizeof(list)), 0);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void fails(size_t size)
{
	uint64_t before, begin, took;

	open_oom("heap-max=32m", NULL);
	settle();
	before = cycles();
	disable();
	errno = 0;
	while (weir_alloc(self, size))
		;
	cr_assert_eq(errno, ENOMEM);
	cr_assert(strstr(weir_error_text(), "weir_collect_enable()"), "%s",
		  weir_error_text());
	cr_assert(strstr(weir_error_text(), "raise heap-max"), "%s",
		  weir_error_text());
	/* At once, again and again. */
	begin = now_ms();
	for (int i = 0; i < 100; i++)
		cr_assert_null(weir_alloc(self, size));
	took = now_ms() - begin;
	cr_assert_lt(took, 5000, "%lu ms", (unsigned long)took);
	cr_assert_eq(cycles(), before);
	enable();
	/* All of it was garbage. */
	cr_assert_not_null(weir_alloc(self, size), "%s", weir_error_text());
	heap_close();
}

Test(disable_limit, allocation_fails_at_the_limit, .timeout = 180)
{
	fails(1000);
}

Test(disable_limit, large_allocation_fails_at_the_limit, .timeout = 180)
{
	fails(3 * MIB);
}

/* What can never fit has another cure. */
Test(disable_limit, what_never_fits_is_told_so)
{
	open_oom("heap-max=32m", NULL);
	disable();
	cr_assert_null(weir_alloc(self, 100 * MIB));
	cr_assert_not(strstr(weir_error_text(), "weir_collect_enable()"), "%s",
		      weir_error_text());
	enable();
	heap_close();
}

/* Nor does a cycle that is under way count as none: what it frees is waited
 * for. */
static void *fills(void *arg)
{
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	/* The allocation that finds no room. */
	*(void **)arg = weir_alloc(m, 20 * MIB);
	must(!weir_thread_detach(m));
	return NULL;
}

static void ends_late(weir_heap *h, enum weir_event event, void *arg)
{
	(void)h;
	(void)arg;
	/* Before the sweep. */
	if (event != WEIR_EVENT_CYCLE_BEGIN)
		return;
	__atomic_add_fetch(&begun, 1, __ATOMIC_RELAXED);
	while (__atomic_load_n(&hold, __ATOMIC_RELAXED))
		usleep(100);
}

/* Garbage of a thread that has ended; its address was below the stack that is
 * in use when the cycle comes. */
static __attribute__((noinline)) void half_full(void)
{
	pthread_t t;
	void *p = NULL;

	cr_assert_eq(pthread_create(&t, NULL, fills, &p), 0);
	weir_blocking_call(self, join, &t);
	cr_assert_not_null(p);
}

Test(disable_limit, allocation_waits_for_the_last_cycle, .timeout = 180)
{
	pthread_t t[3];
	void *p = NULL;

	open_oom("heap-max=32m,heap-min=32m", NULL);
	half_full();
	scrub();
	__atomic_store_n(&hold, 1, __ATOMIC_RELAXED);
	cr_assert_eq(weir_heap_on_event(heap, ends_late, NULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	while (!read_int(&begun))
		weir_blocking_call(self, nap, NULL);
	cr_assert_eq(pthread_create(&t[0], NULL, disables_once, NULL), 0);
	until_disabled_is(1);
	cr_assert_eq(pthread_create(&t[1], NULL, fills, &p), 0);
	cr_assert_eq(pthread_create(&t[2], NULL, lets_go, NULL), 0);
	for (int i = 0; i < 3; i++)
		weir_blocking_call(self, join, &t[i]);
	cr_assert_not_null(p);
	/* The one that was asked for, and before it the pacer's if that came
	 * late; the allocation asked for none. */
	cr_assert_leq(read_int(&begun), 2);
	enable();
	heap_close();
}

static int no(weir_heap *h, size_t bytes, void *arg)
{
	(void)h;
	(void)bytes;
	(void)arg;
	asked++;
	return 0;
}

static int raises(weir_heap *h, size_t bytes, void *arg)
{
	no(h, bytes, arg);
	if (asked > 1)
		return 0;
	cr_assert_eq(weir_heap_set_limits(h, 0, 48 * MIB), 0);
	return 1;
}

static int enables(weir_heap *h, size_t bytes, void *arg)
{
	no(h, bytes, arg);
	/* Piece by piece: the stack may still have one of them. */
	while (list) {
		void **next = list[0];

		list[0] = NULL;
		list = next;
	}
	cr_assert_eq(weir_collect_enable(h), 0);
	return 1;
}

static size_t fill_limit(weir_oom_fn *oom, size_t size, size_t stop)
{
	size_t n = 0;

	open_oom("heap-max=64m", oom);
	cr_assert_eq(weir_heap_set_limits(heap, 0, 32 * MIB), 0);
	settle();
	disable();
	while (n < stop && link_up(size))
		n += size;
	return n;
}

Test(disable_limit, the_program_is_asked, .timeout = 180)
{
	size_t n = fill_limit(no, 1000, SIZE_MAX);

	cr_assert_leq(n, 32 * MIB);
	cr_assert_geq(n, 24 * MIB);
	cr_assert_eq(asked, 1);
	cr_assert(strstr(weir_error_text(), "weir_collect_enable()"), "%s",
		  weir_error_text());
	enable();
	heap_close();
}

static void raise_limit(size_t size)
{
	uint64_t before;
	size_t n = fill_limit(raises, size, SIZE_MAX);

	before = cycles();
	cr_assert_gt(n, 36 * MIB);
	cr_assert_leq(n, 48 * MIB);
	cr_assert_eq(asked, 2);
	cr_assert_eq(cycles(), before);
	cr_assert_eq(weir_collect(heap, 0), -EBUSY);
	enable();
	heap_close();
}

Test(disable_limit, the_program_may_raise_the_limit, .timeout = 180)
{
	raise_limit(1000);
}

Test(disable_limit, the_program_may_raise_the_limit_for_large_objects,
     .timeout = 180)
{
	raise_limit(MIB);
}

Test(disable_limit, the_program_may_enable, .timeout = 180)
{
	/* The callback lets go of all there is. */
	cr_assert_geq(fill_limit(enables, 1000, 40 * MIB), 40 * MIB);
	cr_assert_eq(asked, 1);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

/* ---- fork ---------------------------------------------------------------- */

/* See tests/test_fork.c for why. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NEED_FORK() cr_skip("fork with threads: not under the sanitizer")
#else
#define NEED_FORK()
#endif

static void child_did_well(pid_t pid)
{
	int status;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "status %#x",
		  (unsigned)status);
}

Test(disable_limit, the_child_is_disabled_too, .timeout = 180)
{
	uint64_t before;
	pid_t pid;

	NEED_FORK();
	heap_open("heap-max=256m,heap-min=4m");
	settle();
	disable();
	disable();
	garbage(16);
	before = cycles();
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		alarm(60);
		must(weir_collect(heap, 0) == -EBUSY);
		for (int i = 0; i < 32 << 10; i++)
			must(weir_alloc(self, 1000));
		must(cycles() == before);
		must(!weir_collect_enable(heap));
		must(weir_collect(heap, 0) == -EBUSY);
		must(!weir_collect_enable(heap));
		/* It was not forgotten. */
		for (int i = 0; i < 32 << 10; i++)
			must(weir_alloc(self, 1000));
		must(cycle_comes(before));
		must(!weir_collect(heap, 0));
		must(!weir_collect_disable(heap));
		must(weir_collect(heap, 0) == -EBUSY);
		must(!weir_collect_enable(heap));
		must(!weir_heap_destroy(heap));
		_exit(0);
	}
	child_did_well(pid);
	/* The parent's is its own. */
	cr_assert_eq(weir_collect(heap, 0), -EBUSY);
	enable();
	enable();
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

/* Who was about to disable is not in the child, and could not enable there. */
Test(disable_limit, the_child_does_not_have_who_waits, .timeout = 180)
{
	pthread_t t;
	pid_t pid;

	NEED_FORK();
	heap_open(NULL);
	begin_and_hold();
	cr_assert_eq(pthread_create(&t, NULL, disables_once, NULL), 0);
	until_disabled_is(1);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		alarm(60);
		__atomic_store_n(&hold, 0, __ATOMIC_RELAXED);
		must(!weir_collect(heap, 0));
		must(!weir_collect_disable(heap));
		must(weir_collect(heap, 0) == -EBUSY);
		must(!weir_collect_enable(heap));
		_exit(0);
	}
	__atomic_store_n(&hold, 0, __ATOMIC_RELAXED);
	child_did_well(pid);
	weir_blocking_call(self, join, &t);
	cr_assert_eq(weir_collect(heap, 0), -EBUSY);
	enable();
	heap_close();
}

/* ---- Finalizers ---------------------------------------------------------- */

static int finalized; /* atomic */

static void finalizer(void *p, void *arg)
{
	int err;

	(void)p;
	(void)arg;
	__atomic_add_fetch(&finalized, 1, __ATOMIC_RELAXED);
	/* All of these may be asked for here. */
	err = weir_collect(heap, WEIR_COLLECT_MINOR);
	must(!err || err == -EBUSY);
	must(!weir_collect_disable(heap));
	must(!weir_collect_enable(heap));
}

static __attribute__((noinline)) void drop_objects(int n)
{
	for (int i = 0; i < n; i++)
		cr_assert_eq(weir_finalizer_set(heap, weir_alloc(self, 48),
						finalizer, NULL, 0),
			     0);
	scrub();
}

static void *attached(void *arg)
{
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	while (!is_over()) {
		usleep(200);
		weir_safepoint(m);
	}
	must(!weir_thread_detach(m));
	return arg;
}

/* A heap that cannot be destroyed asks for a cycle, which starts the thread of
 * the finalizers anew: in vain, while it is disabled. */
Test(disable_limit, finalizers_run_and_their_requests_do_not_hang,
     .timeout = 180)
{
	uint64_t before;
	int ran;
	pthread_t t;

	heap_open("heap-min=32m");
	drop_objects(200);
	settle();
	cr_assert_gt(weir_finalizers_queued(heap), 20);
	disable();
	before = cycles();
	cr_assert_eq(weir_finalizers_run(self, 10), 10);
	cr_assert_eq(read_int(&finalized), 10);
	heap->opt.finalizer_thread = true;
	wg_weak_thread_allow(heap);
	cr_assert_eq(pthread_create(&t, NULL, attached, NULL), 0);
	while (wr_threads_count(heap->threads) < 2)
		weir_blocking_call(self, nap, NULL);
	cr_assert_eq(weir_heap_destroy(heap), -EBUSY);
	weir_blocking_call(self, nap, NULL);
	cr_assert_eq(cycles(), before);
	ran = read_int(&finalized);
	enable();
	/* The request was not forgotten: the thread starts. */
	disable();
	enable();
	garbage(1);
	cr_assert(cycle_comes(before));
	disable();
	while (read_int(&finalized) == ran)
		weir_blocking_call(self, nap, NULL);
	while (weir_finalizers_queued(heap))
		weir_blocking_call(self, nap, NULL);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	heap_close();
}

/* ---- Where it must not be called ----------------------------------------- */

static unsigned calls;

static void is_refused(void)
{
	must(weir_collect_disable(heap) == -EDEADLK);
	must(strstr(weir_error_text(), "weir_collect_disable"));
	must(weir_collect_enable(heap) == -EDEADLK);
	calls++;
}

static void root(weir_visitor *v, void *arg)
{
	(void)v;
	(void)arg;
	is_refused();
}

static void traces(void *p, size_t size, weir_visitor *v, void *arg)
{
	(void)p;
	(void)size;
	root(v, arg);
}

static void event_is_refused(weir_heap *h, enum weir_event event, void *arg)
{
	(void)h;
	(void)event;
	(void)arg;
	is_refused();
}

Test(disable_limit, not_in_callbacks)
{
	void *volatile p;
	weir_kind k;

	heap_open("markers=1,pause-markers=1");
	cr_assert_eq(weir_root_add_callback(heap, root, NULL, 0), 0);
	settle();
	cr_assert_geq(calls, 1);
	cr_assert_eq(weir_root_remove_callback(heap, root, NULL), 0);
	calls = 0;
	cr_assert_eq(weir_kind_trace(heap, traces, NULL, 0, &k), 0);
	p = weir_alloc_kind(self, 64, k);
	settle();
	cr_assert(p);
	cr_assert_geq(calls, 1);
	calls = 0;
	p = NULL;
	cr_assert_eq(weir_heap_on_event(heap, event_is_refused, NULL), 0);
	settle();
	cr_assert_geq(calls, 4);
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	settle();
	heap_close();
}

/* It would wait for a cycle, whose pause waits for the call. */
static void *in_locked_call(void *arg)
{
	must(weir_collect_disable(heap) == -EDEADLK);
	must(strstr(weir_error_text(), "weir_locked_call"));
	/* This waits for nothing. */
	must(!weir_collect_enable(heap));
	return arg;
}

Test(disable_limit, not_in_locked_calls, .timeout = 180)
{
	heap_open(NULL);
	disable();
	cr_assert_eq(weir_locked_call(heap, in_locked_call, &over), &over);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

static void *region(void *arg)
{
	must(!weir_collect_disable(heap));
	must(weir_collect(heap, 0) == -EBUSY);
	must(!weir_collect_enable(heap));
	return arg;
}

Test(disable_limit, in_a_region_and_unattached, .timeout = 180)
{
	pthread_t t;

	heap_open(NULL);
	cr_assert_eq(weir_blocking_call(self, region, &over), &over);
	cr_assert_eq(pthread_create(&t, NULL, region, NULL), 0);
	weir_blocking_call(self, join, &t);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}
