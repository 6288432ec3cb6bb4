/* SPDX-License-Identifier: MIT */
/* weir_heap_on_event(): which events come, in which order, and not once the
 * handler was replaced. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

#define LOG 64

struct record {
	enum weir_event event[LOG];
	unsigned n; /* atomic: in use */
};

static struct record first, second;

/* Release: partner of the acquire load in whoever looks at the record. */
static void note(weir_heap *h, enum weir_event event, void *arg)
{
	struct record *r = arg;
	unsigned n = __atomic_load_n(&r->n, __ATOMIC_RELAXED);

	if (h != heap || n == LOG)
		abort();
	r->event[n] = event;
	__atomic_store_n(&r->n, n + 1, __ATOMIC_RELEASE);
}

/* Whether r has the events of `cycles` whole cycles. */
static bool has_cycles(const struct record *r, unsigned cycles)
{
	static const enum weir_event order[] = {
		WEIR_EVENT_CYCLE_BEGIN, WEIR_EVENT_STOPPING, WEIR_EVENT_STOPPED,
		WEIR_EVENT_RESUMING, WEIR_EVENT_CYCLE_END};

	if (__atomic_load_n(&r->n, __ATOMIC_ACQUIRE) != 5 * cycles)
		return false;
	for (unsigned i = 0; i < 5 * cycles; i++)
		if (r->event[i] != order[i % 5])
			return false;
	return true;
}

Test(event, five_of_each_cycle)
{
	heap_open("verify=on");
	cr_assert_eq(weir_heap_on_event(heap, note, &first), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert(has_cycles(&first, 1));
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	cr_assert(has_cycles(&first, 2));
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_STOPPED), 0);
	cr_assert(has_cycles(&first, 3));
	heap_close();
}

Test(event, of_the_handler_that_is_set)
{
	heap_open(NULL);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_heap_on_event(heap, note, &first), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_heap_on_event(heap, note, &second), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert(has_cycles(&first, 1));
	cr_assert(has_cycles(&second, 2));
	heap_close();
}

/* ---- Between STOPPED and RESUMING ---------------------------------------- */

static int over;
static uint64_t counter, at_stop, moved, cycles;

/* Atomic only for the thread sanitizer. */
static void *counts(void *arg)
{
	weir_mutator *m;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		__atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
		weir_safepoint(m);
	}
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

static uint64_t count_after(useconds_t us)
{
	usleep(us);
	return __atomic_load_n(&counter, __ATOMIC_RELAXED);
}

static void watch(weir_heap *h, enum weir_event event, void *arg)
{
	(void)arg;
	if (event == WEIR_EVENT_CYCLE_END)
		cycles++;
	if (event == WEIR_EVENT_STOPPED) {
		struct weir_stats s = {.size = sizeof(s)};

		at_stop = count_after(0);
		/* What is allowed. */
		if (weir_heap_stats(h, &s) || s.cycles_full > 1000)
			abort();
		usleep(2000);
	} else if (event == WEIR_EVENT_RESUMING) {
		moved += count_after(0) != at_stop;
	} else {
		/* Does run, at some time. */
		uint64_t n = count_after(0);

		while (count_after(100) == n)
			;
	}
}

Test(event, mutators_stand_still_in_between)
{
	pthread_t t;

	heap_open(NULL);
	cr_assert_eq(pthread_create(&t, NULL, counts, NULL), 0);
	cr_assert_eq(weir_heap_on_event(heap, watch, NULL), 0);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(weir_collect(heap, i % 2 ? WEIR_COLLECT_FULL
						      : WEIR_COLLECT_MINOR),
			     0);
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	cr_assert_eq(cycles, 20);
	cr_assert_eq(moved, 0);
	heap_close();
}

/* ---- Replacing ----------------------------------------------------------- */

static int in;      /* atomic: the handler runs for this event, from 1 */
static int awaited; /* atomic: it stays in this one, from 1, until it is 0 */

static void linger(weir_heap *h, enum weir_event event, void *arg)
{
	int this = (int)event + 1;

	(void)h;
	(void)arg;
	__atomic_store_n(&in, this, __ATOMIC_RELAXED);
	while (__atomic_load_n(&awaited, __ATOMIC_RELAXED) == this)
		usleep(100);
	usleep(30000);
	__atomic_store_n(&in, 0, __ATOMIC_RELAXED);
}

static void await_in(enum weir_event event)
{
	__atomic_store_n(&awaited, (int)event + 1, __ATOMIC_RELAXED);
}

/* It is in that event now, and goes on, not at once. */
static bool is_in(enum weir_event event)
{
	if (__atomic_load_n(&in, __ATOMIC_RELAXED) != (int)event + 1)
		return false;
	__atomic_store_n(&awaited, 0, __ATOMIC_RELAXED);
	return true;
}

/* Attached, at safepoints only: the stop that comes while this thread waits for
 * the handler would wait for it. */
static void waits_for(enum weir_event event)
{
	heap_open("stop=safepoints");
	await_in(event);
	cr_assert_eq(weir_heap_on_event(heap, linger, NULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	while (!is_in(event))
		weir_safepoint(self);
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	cr_assert_eq(__atomic_load_n(&in, __ATOMIC_RELAXED), 0);
	usleep(100000);
	cr_assert_eq(__atomic_load_n(&in, __ATOMIC_RELAXED), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

Test(event, removal_waits_for_the_beginning, .timeout = 180)
{
	waits_for(WEIR_EVENT_CYCLE_BEGIN);
}

Test(event, removal_waits_for_the_stop, .timeout = 180)
{
	waits_for(WEIR_EVENT_STOPPING);
}

Test(event, removal_waits_for_the_end, .timeout = 180)
{
	waits_for(WEIR_EVENT_CYCLE_END);
}

static void *unattached_remove(void *arg)
{
	while (!is_in(WEIR_EVENT_STOPPED))
		usleep(100);
	*(int *)arg = weir_heap_on_event(heap, NULL, NULL);
	return __atomic_load_n(&in, __ATOMIC_RELAXED) ? arg : NULL;
}

Test(event, removal_waits_for_the_pause, .timeout = 180)
{
	void *early;
	int err = 1;
	pthread_t t;

	heap_open(NULL);
	await_in(WEIR_EVENT_STOPPED);
	cr_assert_eq(weir_heap_on_event(heap, linger, NULL), 0);
	cr_assert_eq(pthread_create(&t, NULL, unattached_remove, &err), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	pthread_join(t, &early);
	cr_assert_null(early);
	cr_assert_eq(err, 0);
	heap_close();
}

static void *collects(void *arg)
{
	(void)arg;
	for (int i = 0; !__atomic_load_n(&over, __ATOMIC_RELAXED); i++)
		weir_collect(heap,
			     i % 3 ? WEIR_COLLECT_MINOR : WEIR_COLLECT_FULL);
	return NULL;
}

struct token {
	int live; /* atomic: this one's handler is set */
	unsigned calls;
};

static void look(weir_heap *h, enum weir_event event, void *arg)
{
	struct token *t = arg;

	(void)h;
	(void)event;
	if (!__atomic_load_n(&t->live, __ATOMIC_RELAXED))
		abort();
	/* Not atomic: the thread sanitizer looks at it. */
	t->calls++;
}

static void replace_beside_cycles(const char *options)
{
	static struct token token[2000];
	unsigned calls = 0;
	pthread_t t;

	heap_open(options);
	cr_assert_eq(pthread_create(&t, NULL, collects, NULL), 0);
	for (int i = 0; i < 2000; i++) {
		token[i].live = 1;
		cr_assert_eq(weir_heap_on_event(heap, look, &token[i]), 0);
		if (i) {
			__atomic_store_n(&token[i - 1].live, 0,
					 __ATOMIC_RELAXED);
			calls += token[i - 1].calls;
		}
		if (i % 8 == 0)
			usleep(200);
		weir_safepoint(self);
	}
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	token[1999].live = 0;
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	cr_assert_gt(calls, 10);
	heap_close();
}

Test(event, replaced_beside_cycles, .timeout = 240)
{
	replace_beside_cycles(NULL);
}

/* A delay comes between the pause's lock and its stop, which would wait for a
 * mutator that waits for the lock and is not blocked. */
Test(event, replaced_beside_cycles_at_safepoints, .timeout = 240)
{
	replace_beside_cycles("stop=safepoints,delay=500,seed=11");
}

static int inside[5];

static void replaces(weir_heap *h, enum weir_event event, void *arg)
{
	inside[event] = weir_heap_on_event(h, NULL, arg);
	if (weir_collect(h, 0) != -EDEADLK)
		abort();
}

Test(event, not_replaced_by_itself)
{
	heap_open(NULL);
	cr_assert_eq(weir_heap_on_event(heap, replaces, NULL), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(inside[i], -EDEADLK);
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	heap_close();
}

#if !WEIR_CHECKING
Test(event, of_no_heap)
{
	cr_assert_eq(weir_heap_on_event(NULL, note, NULL), -EINVAL);
	cr_assert_eq(weir_finalizers_queued(NULL), 0);
}
#endif

/* ---- fork ---------------------------------------------------------------- */

/* While the handler runs, which fork does not wait for. */
Test(event, the_child_has_the_handler, .timeout = 180)
{
	int status;
	pid_t pid;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("fork with threads: not under the sanitizer");
#endif
	heap_open(NULL);
	await_in(WEIR_EVENT_CYCLE_BEGIN);
	cr_assert_eq(weir_heap_on_event(heap, linger, NULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	while (!__atomic_load_n(&in, __ATOMIC_RELAXED))
		usleep(100);
	pid = fork();
	if (pid)
		__atomic_store_n(&awaited, 0, __ATOMIC_RELAXED);
	if (!pid) {
		alarm(60);
		if (!__atomic_load_n(&in, __ATOMIC_RELAXED) ||
		    weir_heap_on_event(heap, note, &first) ||
		    weir_collect(heap, WEIR_COLLECT_FULL))
			_exit(1);
		if (has_cycles(&first, 1) && !weir_heap_destroy(heap))
			_exit(0);
		/* A cycle may be gone on with before the one asked for. */
		_exit(has_cycles(&first, 2) ? 0 : 2);
	}
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%x", status);
	pid = fork();
	if (!pid) {
		alarm(60);
		__atomic_store_n(&in, 0, __ATOMIC_RELAXED);
		weir_collect(heap, WEIR_COLLECT_NOWAIT);
		while (!__atomic_load_n(&in, __ATOMIC_RELAXED))
			usleep(100);
		_exit(0);
	}
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%x", status);
	heap_close();
}

/* ---- Finalizers ---------------------------------------------------------- */

static void finalizer(void *object, void *arg)
{
	(void)object;
	(void)arg;
}

static void *make_dead(void *arg)
{
	weir_mutator *m;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	for (int i = 0; i < 500; i++)
		cr_assert_eq(weir_finalizer_set(heap, weir_alloc(m, 32),
						finalizer, NULL, 0),
			     0);
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

Test(event, queued_finalizers_are_counted)
{
	pthread_t t;
	size_t n;

	heap_open(NULL);
	cr_assert_eq(weir_finalizers_queued(heap), 0);
	cr_assert_eq(pthread_create(&t, NULL, make_dead, NULL), 0);
	weir_blocking_call(self, join, &t);
	cr_assert_eq(weir_finalizers_queued(heap), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	n = weir_finalizers_queued(heap);
	cr_assert(n > 400 && n <= 500, "%zu", n);
	cr_assert_eq(weir_finalizers_run(self, 100), 100);
	cr_assert_eq(weir_finalizers_queued(heap), n - 100);
	cr_assert_eq(weir_finalizers_run(self, 0), (long)n - 100);
	cr_assert_eq(weir_finalizers_queued(heap), 0);
	heap_close();
}

/* ---- Which threads are held -----------------------------------------------
 */

static pthread_t running;
static unsigned held_running, held_others, bad;

static void is_held(pthread_t t, void *arg)
{
	if (arg != &running)
		abort();
	if (pthread_equal(t, running))
		held_running++;
	else
		held_others++;
}

static void who_is_held(weir_heap *h, enum weir_event event, void *arg)
{
	if (event == WEIR_EVENT_STOPPED || event == WEIR_EVENT_RESUMING)
		bad += weir_thread_each_held(h, is_held, arg) != 0;
#if !WEIR_CHECKING
	else
		bad += weir_thread_each_held(h, is_held, arg) != -EINVAL;
#endif
}

Test(event, each_thread_that_is_held)
{
	heap_open(NULL);
	cr_assert_eq(pthread_create(&running, NULL, counts, NULL), 0);
	while (!__atomic_load_n(&counter, __ATOMIC_RELAXED))
		weir_safepoint(self);
	cr_assert_eq(weir_heap_on_event(heap, who_is_held, &running), 0);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(weir_collect(heap, i % 2 ? WEIR_COLLECT_FULL
						      : WEIR_COLLECT_MINOR),
			     0);
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &running);
	cr_assert_eq(held_running, 20);
	/* This one waits in a region. */
	cr_assert_eq(held_others, 0);
	cr_assert_eq(bad, 0);
#if !WEIR_CHECKING
	cr_assert_eq(weir_thread_each_held(heap, is_held, NULL), -EINVAL);
#endif
	heap_close();
}
