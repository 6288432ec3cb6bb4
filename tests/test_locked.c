/* SPDX-License-Identifier: MIT */
/* weir_locked_call(): one thread at a time, and no pause. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

#define THREADS 4

static unsigned long counter; /* under the lock only */
static int over;
static unsigned begun, stopped; /* atomic: events */

static void note(weir_heap *h, enum weir_event event, void *arg)
{
	(void)h;
	(void)arg;
	if (event == WEIR_EVENT_CYCLE_BEGIN)
		__atomic_add_fetch(&begun, 1, __ATOMIC_RELAXED);
	if (event == WEIR_EVENT_STOPPED)
		__atomic_add_fetch(&stopped, 1, __ATOMIC_RELAXED);
}

static unsigned pauses(void)
{
	return __atomic_load_n(&stopped, __ATOMIC_RELAXED);
}

static bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

static void *collects(void *arg)
{
	for (int i = 0; !is_over(); i++)
		weir_collect(heap, arg && i % 4 == 0 ? WEIR_COLLECT_STOPPED
				   : i % 3           ? WEIR_COLLECT_MINOR
						     : WEIR_COLLECT_FULL);
	return NULL;
}

static void end(pthread_t *t, int n)
{
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < n; i++)
		weir_blocking_call(self, join, &t[i]);
}

/* ---- One at a time ------------------------------------------------------- */

static void *count(void *arg)
{
	volatile unsigned long *c = arg;
	unsigned long was = *c;

	if (was % 16 == 0)
		sched_yield();
	*c = was + 1;
	return NULL;
}

static void *counts_attached(void *arg)
{
	weir_mutator *m;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	for (int i = 0; i < 3000; i++) {
		weir_locked_call(heap, count, &counter);
		cr_assert_not_null(weir_alloc(m, 32));
		weir_safepoint(m);
	}
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

static void *counts_unattached(void *arg)
{
	for (int i = 0; i < 3000; i++)
		weir_locked_call(heap, count, &counter);
	return arg;
}

static void *counts_blocked(void *arg)
{
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	weir_blocking_call(m, counts_unattached, arg);
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

static void excludes(void *(*fn)(void *), void *(*other)(void *),
		     const char *options)
{
	pthread_t t[THREADS], c;

	heap_open(options);
	cr_assert_eq(pthread_create(&c, NULL, collects, &over), 0);
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(
			pthread_create(&t[i], NULL, i % 2 ? fn : other, NULL),
			0);
	for (int i = 0; i < THREADS; i++)
		weir_blocking_call(self, join, &t[i]);
	end(&c, 1);
	cr_assert_eq(counter, THREADS * 3000);
	heap_close();
}

Test(locked, one_at_a_time, .timeout = 240)
{
	excludes(counts_attached, counts_attached, "verify=on");
}

/* A thread that waited for the lock and was not blocked would keep the pause,
 * which has the lock, from beginning. */
Test(locked, one_at_a_time_at_safepoints, .timeout = 240)
{
	excludes(counts_attached, counts_attached, "stop=safepoints");
}

static void *counts_from_begin_to_end(void *arg)
{
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	for (int i = 0; i < 3000; i++) {
		cr_assert_eq(weir_locked_begin(heap), 0);
		cr_assert_eq(weir_locked_begin(heap), 0);
		count(&counter);
		cr_assert_eq(weir_locked_end(heap), 0);
		cr_assert_eq(weir_locked_end(heap), 0);
		cr_assert_not_null(weir_alloc(m, 32));
		weir_safepoint(m);
	}
#if !WEIR_CHECKING
	cr_assert_eq(weir_locked_end(heap), -EINVAL);
#endif
	cr_assert_eq(weir_thread_detach(m), 0);
	return arg;
}

Test(locked, from_begin_to_end, .timeout = 240)
{
	excludes(counts_from_begin_to_end, counts_attached, "verify=on");
}

Test(locked, from_begin_to_end_at_safepoints, .timeout = 240)
{
	excludes(counts_from_begin_to_end, counts_from_begin_to_end,
		 "stop=safepoints");
}

Test(locked, one_at_a_time_with_delays, .timeout = 240)
{
	excludes(counts_attached, counts_blocked, "delay=5000,seed=3");
}

Test(locked, unattached_threads_too, .timeout = 240)
{
	excludes(counts_attached, counts_unattached, NULL);
}

/* ---- No pause ------------------------------------------------------------ */

struct stay {
	unsigned ms;    /* how long */
	unsigned moved; /* pauses meanwhile */
};

/* Until a cycle has begun, and then some. */
static void *stay(void *arg)
{
	struct stay *s = arg;
	unsigned before = pauses();
	unsigned was = __atomic_load_n(&begun, __ATOMIC_RELAXED);

	if (weir_collect(heap, WEIR_COLLECT_NOWAIT))
		abort();
	while (__atomic_load_n(&begun, __ATOMIC_RELAXED) == was &&
	       was == before)
		usleep(100);
	usleep(s->ms * 1000);
	s->moved += pauses() - before;
	return s;
}

static void *unattached_stay(void *arg)
{
	return weir_locked_call(heap, stay, arg);
}

static void *region_stay(void *arg)
{
	return weir_blocking_call(self, unattached_stay, arg);
}

static void *nap(void *arg)
{
	usleep(100);
	return arg;
}

static void no_pause(void *(*fn)(void *), const char *options, bool elsewhere)
{
	struct stay s = {.ms = 50};
	pthread_t c, t;
	void *result;

	heap_open(options);
	cr_assert_eq(weir_heap_on_event(heap, note, NULL), 0);
	cr_assert_eq(pthread_create(&c, NULL, collects, NULL), 0);
	for (int i = 0; i < 5; i++) {
		unsigned before = pauses();

		if (elsewhere) {
			cr_assert_eq(pthread_create(&t, NULL, fn, &s), 0);
			weir_blocking_call(self, join, &t);
		} else {
			result = fn(&s);
			cr_assert_eq(result, &s);
		}
		/* There are pauses when nobody stays. */
		while (pauses() < before + 2)
			weir_blocking_call(self, nap, NULL);
	}
	cr_assert_eq(s.moved, 0);
	end(&c, 1);
	heap_close();
}

Test(locked, no_pause_meanwhile, .timeout = 180)
{
	no_pause(unattached_stay, NULL, false);
}

Test(locked, no_pause_meanwhile_unattached, .timeout = 180)
{
	no_pause(unattached_stay, NULL, true);
}

Test(locked, no_pause_meanwhile_in_a_region, .timeout = 180)
{
	no_pause(region_stay, "stop=safepoints", false);
}

static weir_weak *weak;

static void *make_weak(void *arg)
{
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	cr_assert_eq(weir_weak_create(heap, weir_alloc(m, 64), &weak), 0);
	cr_assert_eq(weir_thread_detach(m), 0);
	return arg;
}

/* The number of looks that found the target before it was gone. */
static void *target_stays(void *arg)
{
	bool there = weir_weak_get(weak) != NULL;

	for (int i = 0; i < 100; i++) {
		usleep(100);
		/* What was seen may be on the stack; that it was not there
		 * must stay so. */
		if (!there && weir_weak_get(weak))
			abort();
	}
	return there ? arg : NULL;
}

Test(locked, may_use_weak_references, .timeout = 180)
{
	pthread_t t[2];

	heap_open(NULL);
	cr_assert_eq(pthread_create(&t[0], NULL, collects, NULL), 0);
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(pthread_create(&t[1], NULL, make_weak, NULL), 0);
		weir_blocking_call(self, join, &t[1]);
		weir_locked_call(heap, target_stays, &t);
		weir_weak_destroy(weak);
	}
	end(t, 1);
	heap_close();
}

/* ---- Nesting, errors ----------------------------------------------------- */

static void *nested(void *arg)
{
	struct stay *s = arg;

	if (!s->ms--)
		return s;
	if (weir_locked_call(heap, nested, s) != s)
		abort();
	/* Still locked. */
	stay(&(struct stay){.ms = 10});
	return s;
}

static void *nest(void *arg)
{
	struct stay *s = arg;
	unsigned before = pauses();
	void *result = weir_locked_call(heap, nested, s);

	s->moved = pauses() - before;
	return result;
}

Test(locked, nests, .timeout = 180)
{
	struct stay s = {.ms = 4};
	pthread_t c;

	heap_open(NULL);
	cr_assert_eq(weir_heap_on_event(heap, note, NULL), 0);
	cr_assert_eq(pthread_create(&c, NULL, collects, NULL), 0);
	cr_assert_eq(weir_locked_call(heap, nest, &s), &s);
	cr_assert_eq(s.moved, 0);
	end(&c, 1);
	/* And it is free again. */
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

static void *refused(void *arg)
{
	weir_heap *h = NULL;

	(void)arg;
	/* Out of line. */
	errno = 0;
	cr_assert_null(weir_alloc_kind(self, 5000, 0));
	cr_assert_eq(errno, EDEADLK);
	cr_assert(strstr(weir_error_text(), "weir_locked_call"), "%s",
		  weir_error_text());
	cr_assert_null(weir_alloc_kind(self, 1 << 20, 0));
	cr_assert_eq(weir_collect(heap, 0), -EDEADLK);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), -EDEADLK);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	cr_assert_eq(weir_heap_create(NULL, &h), -EDEADLK);
	cr_assert_eq(weir_heap_destroy(heap), -EDEADLK);
	return &over;
}

Test(locked, what_would_wait_for_a_pause_is_refused)
{
	heap_open(NULL);
	cr_assert_eq(weir_locked_call(heap, refused, NULL), &over);
	cr_assert_not_null(weir_alloc_kind(self, 5000, 0));
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

static void *never(void *arg)
{
	abort();
	return arg;
}

static void in_event(weir_heap *h, enum weir_event event, void *arg)
{
	(void)event;
	errno = 0;
	if (weir_locked_call(h, never, NULL) || errno != EDEADLK)
		abort();
	++*(int *)arg;
}

Test(locked, not_in_callbacks)
{
	int calls = 0;

	heap_open(NULL);
	cr_assert_eq(weir_heap_on_event(heap, in_event, &calls), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	cr_assert_eq(calls, 5);
	heap_close();
}

#if !WEIR_CHECKING
Test(locked, bad_arguments)
{
	heap_open(NULL);
	errno = 0;
	cr_assert_null(weir_locked_call(heap, NULL, NULL));
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_null(weir_locked_call(NULL, never, NULL));
	cr_assert_eq(errno, EINVAL);
	heap_close();
}
#endif

/* ---- Stops in the middle ------------------------------------------------- */

static void *uses_malloc(void *arg)
{
	for (int i = 0; i < 20; i++)
		free(malloc(16 + (size_t)i * 5000));
	return arg;
}

static void *writes(void *arg)
{
	weir_mutator *m;
	void **array;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	array = weir_alloc(m, 1 << 20);
	while (!is_over()) {
		for (size_t i = 0; i < (1 << 20) / sizeof(*array); i += 512)
			array[i] = array;
		uses_malloc(NULL);
		weir_safepoint(m);
	}
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

/* Delays make slices likely, which stop threads with malloc()'s lock in their
 * hands; who is in a call must not keep them from ending. */
Test(locked, malloc_within, .timeout = 180)
{
	pthread_t t[3];

	heap_open("delay=10000,seed=5,heap-min=64m");
	cr_assert_eq(pthread_create(&t[0], NULL, collects, NULL), 0);
	cr_assert_eq(pthread_create(&t[1], NULL, writes, NULL), 0);
	cr_assert_eq(pthread_create(&t[2], NULL, writes, NULL), 0);
	for (int i = 0; i < 5000; i++) {
		cr_assert_eq(weir_locked_call(heap, uses_malloc, &t), &t);
		weir_safepoint(self);
	}
	end(t, 3);
	heap_close();
}

/* ---- fork ---------------------------------------------------------------- */

static void *makes_equal(void *arg)
{
	volatile unsigned long *pair = arg;

	pair[0]++;
	sched_yield();
	pair[1]++;
	return arg;
}

static unsigned long pair[2];

static void *keeps_equal(void *arg)
{
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	while (!is_over()) {
		weir_locked_call(heap, makes_equal, pair);
		weir_safepoint(m);
	}
	cr_assert_eq(weir_thread_detach(m), 0);
	return arg;
}

/* The child finds no call in the middle, and the lock free. */
Test(locked, fork_waits_for_calls, .timeout = 180)
{
	pthread_t t[3];

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("fork with threads: not under the sanitizer");
#endif
	heap_open(NULL);
	cr_assert_eq(pthread_create(&t[0], NULL, collects, NULL), 0);
	for (int i = 1; i < 3; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, keeps_equal, NULL), 0);
	for (int i = 0; i < 100; i++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			alarm(60);
			if (pair[0] != pair[1])
				_exit(1);
			if (weir_locked_call(heap, makes_equal, pair) != pair)
				_exit(2);
			_exit(i % 10 || !weir_collect(heap, 0) ? 0 : 3);
		}
		cr_assert_gt(pid, 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "%x", status);
	}
	end(t, 3);
	heap_close();
}
