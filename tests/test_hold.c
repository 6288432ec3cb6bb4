/* SPDX-License-Identifier: MIT */
/*
 * weir_collect_hold(): it does not wait for a cycle under way, which finds
 * nothing dead until it is released.
 *
 * `keeper` has a trace function that a test can make take as long as it likes,
 * so that the cycle is sure to be marking.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/must.h"
#include "tests/quiet.h"
#include "tests/short.h"

#define MANY 100
#define VALUE 0x5eed5eed5eedu
#define HIDE(p) (~(uintptr_t)(p))

static void *keeper;            /* root */
static uint64_t *objects[MANY]; /* root: what is hidden */
static uintptr_t hidden[MANY];
static unsigned whole; /* of them, when they were shown */
static int tracing;    /* atomic: the trace function is in */
static int stay;       /* atomic: and stays there */
static int traces;     /* atomic: calls of the kind that pauses trace */

static int get(const int *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void set(int *p, int value)
{
	__atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}

static void trace_slowly(void *o, size_t size, weir_visitor *v, void *arg)
{
	(void)o;
	(void)size;
	(void)v;
	(void)arg;
	set(&tracing, 1);
	while (get(&stay))
		usleep(100);
}

static void trace_always(void *o, size_t size, weir_visitor *v, void *arg)
{
	(void)o;
	(void)size;
	(void)v;
	(void)arg;
	__atomic_add_fetch(&traces, 1, __ATOMIC_SEQ_CST);
}

/* These run on threads of their own, so that no stack keeps an object. */

static void *make_objects(void *arg)
{
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	for (int i = 0; i < MANY; i++) {
		objects[i] = weir_alloc(m, 48);
		must(objects[i]);
		objects[i][1] = VALUE;
	}
	must(!weir_thread_detach(m));
	return arg;
}

static void *hide(void *arg)
{
	for (int i = 0; i < MANY; i++) {
		hidden[i] = HIDE(objects[i]);
		objects[i] = NULL;
	}
	return arg;
}

static void *show(void *arg)
{
	whole = 0;
	for (int i = 0; i < MANY; i++) {
		objects[i] = (uint64_t *)HIDE(hidden[i]);
		whole += objects[i][1] == VALUE;
	}
	return arg;
}

static void open(const char *options)
{
	weir_kind kind;

	heap_open(options);
	need_barrier(heap);
	cr_assert_eq(weir_kind_trace(heap, trace_slowly, NULL,
				     WEIR_TRACE_CONCURRENT, &kind),
		     0);
	cr_assert_eq(weir_root_add(heap, &keeper, sizeof(keeper)), 0);
	cr_assert_eq(weir_root_add(heap, objects, sizeof(objects)), 0);
	keeper = weir_alloc_kind(self, 16, kind);
	run_thread(make_objects, NULL);
	cr_assert_eq(weir_collect(heap, 0), 0);
}

static uint64_t cycles(void)
{
	struct weir_stats s = heap_stats();

	return s.cycles_full + s.cycles_minor;
}

/* A cycle that marks until `stay` is 0. */
static void begin(void)
{
	set(&tracing, 0);
	set(&stay, 1);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	while (!get(&tracing))
		weir_safepoint(self);
}

static void *nap(void *arg)
{
	usleep(20000);
	return arg;
}

static bool is_parked(void)
{
	bool parked;

	wr_mutex_lock(&heap->ctl_lock);
	parked = heap->parked;
	wr_mutex_unlock(&heap->ctl_lock);
	return parked;
}

static void until_parked(void)
{
	while (!is_parked())
		weir_blocking_call(self, nap, NULL);
}

/* Objects that no root scan has seen, hidden for as long as the cycle has time
 * to find them dead.  How many are whole. */
static unsigned hidden_for_a_while(bool hold)
{
	uint64_t before = cycles();

	begin();
	run_thread(make_objects, NULL);
	if (hold)
		cr_assert_eq(weir_collect_hold(heap), 0);
	run_thread(hide, NULL);
	set(&stay, 0);
	if (hold) {
		until_parked();
		weir_blocking_call(self, nap, NULL);
		cr_assert_eq(cycles(), before);
	} else {
		/* Dead ones are poisoned by the sweep.  Acquire: that is seen.
		 */
		while (cycles() == before ||
		       __atomic_load_n(&heap->phase, __ATOMIC_ACQUIRE) !=
			       WG_IDLE)
			weir_blocking_call(self, nap, NULL);
	}
	run_thread(show, NULL);
	if (hold)
		cr_assert_eq(weir_collect_release(heap), 0);
	while (cycles() == before)
		weir_blocking_call(self, nap, NULL);
	run_thread(hide, NULL);
	run_thread(show, NULL);
	return whole;
}

Test(hold, what_is_hidden_meanwhile_lives, .timeout = 180)
{
	open("poison=on,verify=on");
	for (int i = 0; i < 5; i++)
		cr_assert_eq(hidden_for_a_while(true), MANY, "round %d", i);
	heap_close();
}

/* That this can fail. */
Test(hold, without_it_dies, .timeout = 180)
{
	open("poison=on");
	cr_assert_lt(hidden_for_a_while(false), MANY / 2);
	memset(objects, 0, sizeof(objects));
	heap_close();
}

Test(hold, does_not_wait, .timeout = 180)
{
	open(NULL);
	begin();
	for (int i = 0; i < 3; i++)
		cr_assert_eq(weir_collect_hold(heap), 0);
	cr_assert(get(&stay));
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(weir_collect(heap, 0), -EBUSY);
		cr_assert_eq(weir_collect_release(heap), 0);
	}
	set(&stay, 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

#if !WEIR_CHECKING
Test(hold, one_is_not_taken_for_the_other)
{
	open(NULL);
	cr_assert_eq(weir_collect_release(heap), -EINVAL);
	cr_assert(strstr(weir_error_text(), "not held"), "%s",
		  weir_error_text());
	cr_assert_eq(weir_collect_disable(heap), 0);
	cr_assert_eq(weir_collect_release(heap), -EINVAL);
	cr_assert_eq(weir_collect_enable(heap), 0);
	cr_assert_eq(weir_collect_hold(heap), 0);
	cr_assert_eq(weir_collect_enable(heap), -EINVAL);
	cr_assert_eq(weir_collect_release(heap), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}
#endif

/* Neither waits for the other, and the cycle waits for both. */
Test(hold, beside_disable, .timeout = 180)
{
	uint64_t before;

	open(NULL);
	before = cycles();
	begin();
	cr_assert_eq(weir_collect_hold(heap), 0);
	set(&stay, 0);
	cr_assert_eq(weir_collect_disable(heap), 0);
	cr_assert(is_parked());
	cr_assert_eq(weir_collect_release(heap), 0);
	weir_blocking_call(self, nap, NULL);
	cr_assert_eq(cycles(), before);
	cr_assert_eq(weir_collect_enable(heap), 0);
	while (cycles() == before)
		weir_blocking_call(self, nap, NULL);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

static void *collect_once(void *result)
{
	set(result, weir_collect(heap, WEIR_COLLECT_FULL));
	return NULL;
}

Test(hold, who_waits_for_the_cycle_is_refused, .timeout = 180)
{
	int result = 1;
	pthread_t t;

	open(NULL);
	begin();
	cr_assert_eq(pthread_create(&t, NULL, collect_once, &result), 0);
	while (!__atomic_load_n(&heap->requests, __ATOMIC_RELAXED))
		weir_blocking_call(self, nap, NULL);
	cr_assert_eq(weir_collect_hold(heap), 0);
	set(&stay, 0);
	weir_blocking_call(self, join, &t);
	cr_assert_eq(result, -EBUSY);
	cr_assert_eq(weir_collect_release(heap), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

/* No function that only a stop may call. */
Test(hold, nothing_is_traced_that_takes_a_stop, .timeout = 180)
{
	static void *owner;
	weir_kind kind;
	int before;

	open(NULL);
	cr_assert_eq(weir_kind_trace(heap, trace_always, NULL,
				     WEIR_TRACE_ALWAYS, &kind),
		     0);
	cr_assert_eq(weir_root_add(heap, &owner, sizeof(owner)), 0);
	owner = weir_alloc_kind(self, 16, kind);
	cr_assert_eq(weir_collect(heap, 0), 0);
	cr_assert_gt(get(&traces), 0);
	begin();
	cr_assert_eq(weir_collect_hold(heap), 0);
	before = get(&traces);
	set(&stay, 0);
	until_parked();
	weir_blocking_call(self, nap, NULL);
	cr_assert_eq(get(&traces), before);
	cr_assert_eq(weir_collect_release(heap), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	cr_assert_gt(get(&traces), before);
	heap_close();
}

static void **list; /* a root */

static void *fill(void *arg)
{
	weir_mutator *m;
	void **p;

	must(!weir_thread_attach(heap, &m));
	while ((p = weir_alloc(m, 4096))) {
		p[0] = list;
		list = p;
	}
	must(strstr(weir_error_text(), "disabled"));
	must(!weir_thread_detach(m));
	return arg;
}

/* Allocation fails and says why, rather than wait for what the program holds
 * itself. */
Test(hold, the_limit, .timeout = 180)
{
	open("heap-max=32m");
	cr_assert_eq(weir_root_add(heap, &list, sizeof(list)), 0);
	begin();
	cr_assert_eq(weir_collect_hold(heap), 0);
	set(&stay, 0);
	until_parked();
	run_thread(fill, NULL);
	list = NULL;
	cr_assert_eq(weir_collect_release(heap), 0);
	cr_assert_not_null(weir_alloc(self, 4096), "%s", weir_error_text());
	heap_close();
}

Test(hold, the_heap_can_be_destroyed, .timeout = 180)
{
	open(NULL);
	begin();
	cr_assert_eq(weir_collect_hold(heap), 0);
	set(&stay, 0);
	until_parked();
	heap_close();
}

static void *hold_and_release(void *arg)
{
	must(!weir_collect_hold(heap));
	must(weir_collect(heap, WEIR_COLLECT_NOWAIT) == -EBUSY);
	must(!weir_collect_release(heap));
	return arg;
}

Test(hold, within_a_locked_call, .timeout = 180)
{
	open(NULL);
	begin();
	cr_assert_eq(weir_locked_call(heap, hold_and_release, heap), heap);
	set(&stay, 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

Test(hold, a_child_of_fork_has_it_too, .timeout = 180)
{
	int status;
	pid_t pid;

	open("verify=on");
	begin();
	cr_assert_eq(weir_collect_hold(heap), 0);
	set(&stay, 0);
	until_parked();
	quiet_before_fork();
	pid = fork();
	if (!pid) {
		alarm(60);
		must(weir_collect(heap, 0) == -EBUSY);
		must(!weir_collect_release(heap));
		must(!weir_collect(heap, 0));
		must(objects[0][1] == VALUE);
		_exit(0);
	}
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%x", status);
	cr_assert_eq(weir_collect_release(heap), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

/* ---- Beside cycles ------------------------------------------------------- */

static int over;

/* Hide an object while cycles are held, again and again. */
static void *hides(void *arg)
{
	weir_mutator *m;
	static _Thread_local uint64_t mine;
	uint64_t *volatile p;

	must(!weir_thread_attach(heap, &m));
	for (uint64_t i = 0; !get(&over); i++) {
		p = weir_alloc(m, 48);
		must(p);
		p[1] = i;
		must(!weir_collect_hold(heap));
		mine = HIDE(p);
		p = NULL;
		scrub();
		for (int k = 0; k < 200; k++)
			must(weir_alloc(m, 48));
		if (i % 64 == 0)
			weir_blocking_call(m, nap, NULL);
		p = (uint64_t *)HIDE(mine);
		must(!weir_collect_release(heap));
		must(p[1] == i);
	}
	must(!weir_thread_detach(m));
	return arg;
}

static void hide_beside_cycles(const char *options)
{
	struct timespec until, now;
	pthread_t t[2];

	open(options);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, hides, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += rounds(2);
	do {
		int err = weir_collect(heap, WEIR_COLLECT_FULL);

		cr_assert(!err || err == -EBUSY);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < until.tv_sec);
	set(&over, 1);
	for (int i = 0; i < 2; i++)
		weir_blocking_call(self, join, &t[i]);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

Test(hold, beside_cycles, .timeout = 240)
{
	hide_beside_cycles("poison=on,verify=on,heap-min=1m");
}

Test(hold, beside_cycles_with_delays, .timeout = 240)
{
	hide_beside_cycles("poison=on,heap-min=1m,delay=300");
}

Test(hold, beside_cycles_at_safepoints, .timeout = 240)
{
	hide_beside_cycles("poison=on,heap-min=1m,stop=safepoints");
}
