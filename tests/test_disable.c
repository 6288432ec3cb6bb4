/* SPDX-License-Identifier: MIT */
/*
 * weir_collect_disable(): no cycle begins, nobody waits for one for ever, and
 * none that was due is forgotten.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "gc/weak.h"
#include "tests/heap_util.h"
#include "tests/must.h"

#define MIB ((size_t)1 << 20)
#define THREADS 3

static int over;

static bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

static uint64_t cycles(void)
{
	struct weir_stats s = heap_stats();

	return s.cycles_full + s.cycles_minor;
}

static void garbage(size_t mib)
{
	for (size_t i = 0; i < mib << 10; i++)
		cr_assert_not_null(weir_alloc(self, 1000), "%s",
				   weir_error_text());
}

static void disable(void)
{
	cr_assert_eq(weir_collect_disable(heap), 0, "%s", weir_error_text());
}

static void enable(void)
{
	cr_assert_eq(weir_collect_enable(heap), 0, "%s", weir_error_text());
}

static void *nap(void *arg)
{
	usleep(200);
	return arg;
}

/* Within a minute; nothing is allocated meanwhile. */
static bool cycle_comes(uint64_t before)
{
	for (int i = 0; i < 300000 && cycles() == before; i++)
		weir_blocking_call(self, nap, NULL);
	return cycles() != before;
}

/* With the collector asleep before and after. */
static void settle(void)
{
	cr_assert_eq(weir_collect(heap, 0), 0, "%s", weir_error_text());
}

/* ---- Nesting ------------------------------------------------------------- */

Test(disable, nests, .timeout = 180)
{
	uint64_t before;

	heap_open("heap-max=512m,heap-min=4m");
	settle();
	before = cycles();
	for (int i = 0; i < 3; i++)
		disable();
	for (int i = 0; i < 3; i++) {
		garbage(16);
		cr_assert_eq(weir_collect(heap, 0), -EBUSY);
		cr_assert_eq(cycles(), before);
		enable();
	}
	cr_assert_eq(weir_collect(heap, 0), 0);
	cr_assert_geq(cycles(), before + 1);
	/* And once more. */
	disable();
	cr_assert_eq(weir_collect(heap, 0), -EBUSY);
	enable();
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

Test(disable, the_refusal_names_the_cure)
{
	static const unsigned flags[] = {
		WEIR_COLLECT_FULL, WEIR_COLLECT_MINOR, WEIR_COLLECT_STOPPED,
		WEIR_COLLECT_NOWAIT, WEIR_COLLECT_NOWAIT | WEIR_COLLECT_MINOR};
	uint64_t before;

	heap_open(NULL);
	settle();
	before = cycles();
	disable();
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		cr_assert_eq(weir_collect(heap, flags[i]), -EBUSY);
		cr_assert(strstr(weir_error_text(), "weir_collect_enable()"),
			  "%s", weir_error_text());
	}
	usleep(20000);
	cr_assert_eq(cycles(), before);
	enable();
	heap_close();
}

Test(disable, the_heap_can_be_destroyed)
{
	heap_open("heap-min=1m");
	disable();
	garbage(8);
	heap_close();
	/* The next one knows nothing of it. */
	heap_open("heap-min=1m");
	cr_assert_eq(weir_collect(heap, 0), 0);
#if !WEIR_CHECKING
	cr_assert_eq(weir_collect_enable(heap), -EINVAL);
#endif
	heap_close();
}

#if !WEIR_CHECKING
Test(disable, enable_without_disable)
{
	heap_open(NULL);
	cr_assert_eq(weir_collect_enable(heap), -EINVAL);
	disable();
	enable();
	cr_assert_eq(weir_collect_enable(heap), -EINVAL);
	cr_assert(strstr(weir_error_text(), "not disabled"), "%s",
		  weir_error_text());
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}
#endif

/* ---- A cycle that was due ------------------------------------------------ */

static void due(const char *options, size_t mib)
{
	uint64_t before;

	heap_open(options);
	for (int i = 0; i < 3; i++) {
		settle();
		before = cycles();
		disable();
		garbage(mib);
		usleep(10000);
		cr_assert_eq(cycles(), before);
		enable();
		/* Enabling alone does not begin one. */
		cr_assert_eq(cycles(), before);
		/* One block's worth makes a thread look. */
		garbage(1);
		cr_assert(cycle_comes(before), "round %d", i);
	}
	heap_close();
}

Test(disable, the_trigger_was_hit_meanwhile, .timeout = 240)
{
	due("heap-max=512m,heap-min=4m", 64);
}

Test(disable, the_trigger_was_hit_meanwhile_no_barrier, .timeout = 240)
{
	due("heap-max=512m,heap-min=4m,barrier=none", 64);
}

Test(disable, the_trigger_was_not_hit_meanwhile, .timeout = 180)
{
	uint64_t before;

	heap_open("heap-max=512m,heap-min=32m");
	settle();
	before = cycles();
	disable();
	garbage(1);
	enable();
	/* It is where it was. */
	garbage(1);
	usleep(10000);
	cr_assert_eq(cycles(), before);
	garbage(200);
	cr_assert(cycle_comes(before));
	heap_close();
}

/* A request that is refused takes the trigger away, too. */
Test(disable, a_request_was_refused_meanwhile, .timeout = 180)
{
	uint64_t before;

	heap_open("heap-max=512m,heap-min=32m");
	settle();
	before = cycles();
	disable();
	wg_cycle_ask(heap, self, WG_REQ_MINOR);
	enable();
	garbage(1);
	cr_assert(cycle_comes(before));
	heap_close();
}

/* The program does not wait for a collector that must not run, nor makes it up
 * for what it allocated meanwhile. */
Test(disable, nobody_assists, .timeout = 180)
{
	uint64_t assists;

	heap_open("heap-max=512m,heap-min=4m");
	settle();
	assists = heap_stats().assist.count;
	disable();
	garbage(128);
	cr_assert_eq(heap_stats().assist.count, assists);
	enable();
	garbage(1);
	cr_assert_eq(heap_stats().assist.count, assists);
	heap_close();
}

/* ---- Beside other threads ------------------------------------------------ */

static size_t refused, collected; /* atomic */

static void *collects(void *arg)
{
	static const unsigned flags[] = {WEIR_COLLECT_FULL, WEIR_COLLECT_MINOR,
					 WEIR_COLLECT_STOPPED,
					 WEIR_COLLECT_NOWAIT};
	weir_mutator *m = NULL;

	if (arg)
		must(!weir_thread_attach(heap, &m));
	for (int i = 0; !is_over(); i++) {
		int err = weir_collect(heap, flags[i % 4]);

		must(!err || err == -EBUSY);
		__atomic_add_fetch(err ? &refused : &collected, 1,
				   __ATOMIC_RELAXED);
		if (err)
			usleep(100);
	}
	if (m)
		must(!weir_thread_detach(m));
	return NULL;
}

static void *allocates(void *arg)
{
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	while (!is_over()) {
		for (int i = 0; i < 100; i++)
			must(weir_alloc(m, 200));
		weir_safepoint(m);
		/* So that an hour of it does not fill the heap. */
		usleep(100);
	}
	must(!weir_thread_detach(m));
	return arg;
}

static void *disables(void *arg)
{
	weir_mutator *m = NULL;

	if (arg)
		must(!weir_thread_attach(heap, &m));
	while (!is_over()) {
		uint64_t before;
		struct weir_stats s = {.size = sizeof(s)};

		must(!weir_collect_disable(heap));
		must(!weir_heap_stats(heap, &s));
		before = s.cycles_full + s.cycles_minor;
		usleep(500);
		must(!weir_heap_stats(heap, &s));
		must(s.cycles_full + s.cycles_minor == before);
		must(!weir_collect_enable(heap));
		usleep(100);
	}
	if (m)
		must(!weir_thread_detach(m));
	return NULL;
}

static void beside(void *(*fn)(void *), const char *options)
{
	pthread_t t[THREADS];
	uint64_t before;

	heap_open(options);
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(
			pthread_create(&t[i], NULL, fn, i % 2 ? &over : NULL),
			0);
	for (int i = 0; i < 40; i++) {
		/* However fast the others ask. */
		disable();
		before = cycles();
		garbage(2);
		cr_assert_eq(cycles(), before);
		enable();
		/* Something goes on in between. */
		if (i % 8 == 0) {
			garbage(1);
			cr_assert(fn == disables || cycle_comes(before));
		}
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++)
		weir_blocking_call(self, join, &t[i]);
	settle();
	heap_close();
}

Test(disable, beside_threads_that_collect, .timeout = 240)
{
	beside(collects, "heap-max=512m,heap-min=1m");
	cr_assert_gt(collected, 0);
	cr_assert_gt(refused, 0);
}

Test(disable, beside_threads_that_collect_at_safepoints, .timeout = 240)
{
	beside(collects, "heap-max=512m,heap-min=1m,stop=safepoints");
}

Test(disable, beside_threads_that_collect_with_delays, .timeout = 240)
{
	beside(collects, "heap-max=512m,heap-min=1m,delay=5000,seed=7");
}

Test(disable, beside_threads_that_allocate, .timeout = 240)
{
	beside(allocates, "heap-max=512m,heap-min=1m,verify=on");
}

Test(disable, beside_threads_that_disable, .timeout = 240)
{
	beside(disables, "heap-max=512m,heap-min=1m");
}

/* ---- A cycle that is under way ------------------------------------------- */

static int begun, ended, hold; /* atomic */

static void holds(weir_heap *h, enum weir_event event, void *arg)
{
	(void)h;
	(void)arg;
	if (event == WEIR_EVENT_CYCLE_BEGIN)
		__atomic_add_fetch(&begun, 1, __ATOMIC_RELAXED);
	if (event == WEIR_EVENT_CYCLE_END) {
		while (__atomic_load_n(&hold, __ATOMIC_RELAXED))
			usleep(100);
		__atomic_add_fetch(&ended, 1, __ATOMIC_RELAXED);
	}
}

static int read_int(const int *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* Begin a cycle that does not end before `hold` is 0. */
static void begin_and_hold(void)
{
	__atomic_store_n(&hold, 1, __ATOMIC_RELAXED);
	cr_assert_eq(weir_heap_on_event(heap, holds, NULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	while (!read_int(&begun))
		weir_blocking_call(self, nap, NULL);
}

static void *lets_go(void *arg)
{
	usleep(30000);
	__atomic_store_n(&hold, 0, __ATOMIC_RELAXED);
	return arg;
}

Test(disable, waits_for_the_cycle_under_way, .timeout = 180)
{
	pthread_t t;

	heap_open(NULL);
	begin_and_hold();
	cr_assert_eq(pthread_create(&t, NULL, lets_go, NULL), 0);
	disable();
	cr_assert_eq(read_int(&ended), read_int(&begun));
	/* Nested, it has nothing to wait for. */
	disable();
	enable();
	cr_assert_eq(weir_heap_on_event(heap, NULL, NULL), 0);
	enable();
	weir_blocking_call(self, join, &t);
	heap_close();
}

Test(disable, waits_for_a_cycle_that_was_asked_for, .timeout = 180)
{
	heap_open(NULL);
	cr_assert_eq(weir_heap_on_event(heap, holds, NULL), 0);
	for (int i = 1; i <= 50; i++) {
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
		disable();
		cr_assert_eq(read_int(&ended), i);
		enable();
	}
	heap_close();
}

static int disabled_now; /* atomic */

static void *disables_once(void *arg)
{
	must(!weir_collect_disable(heap));
	__atomic_store_n(&disabled_now, 1, __ATOMIC_RELAXED);
	return arg;
}

static void *collects_once(void *arg)
{
	*(int *)arg = weir_collect(heap, WEIR_COLLECT_FULL);
	return NULL;
}

static void until_disabled_is(unsigned n)
{
	while (__atomic_load_n(&heap->disabled, __ATOMIC_RELAXED) != n)
		weir_blocking_call(self, nap, NULL);
}

/* Who waits for a cycle when another thread disables has it; who comes later
 * is refused, however long that one takes; neither waits for ever. */
Test(disable, comes_while_others_wait, .timeout = 180)
{
	int early = 1, late = 1;
	pthread_t t[4];

	heap_open(NULL);
	begin_and_hold();
	cr_assert_eq(pthread_create(&t[0], NULL, collects_once, &early), 0);
	while (!__atomic_load_n(&heap->requests, __ATOMIC_RELAXED))
		weir_blocking_call(self, nap, NULL);
	cr_assert_eq(pthread_create(&t[1], NULL, disables_once, NULL), 0);
	until_disabled_is(1);
	cr_assert_eq(pthread_create(&t[2], NULL, collects_once, &late), 0);
	weir_blocking_call(self, join, &t[2]);
	cr_assert_eq(late, -EBUSY);
	cr_assert_eq(read_int(&ended), 0);
	cr_assert_eq(read_int(&disabled_now), 0);
	__atomic_store_n(&hold, 0, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t[0]);
	weir_blocking_call(self, join, &t[1]);
	cr_assert_eq(early, 0);
	cr_assert_eq(read_int(&begun), 2);
	cr_assert_eq(read_int(&ended), 2);
	cr_assert_eq(weir_collect(heap, 0), -EBUSY);
	enable();
	heap_close();
}

/* The same past the check without the lock. */
Test(disable, a_wait_that_is_refused_is_told, .timeout = 180)
{
	heap_open(NULL);
	disable();
	cr_assert_not(wg_cycle_wait(heap, self, WG_REQ_FULL));
	cr_assert_not(wg_cycle_ask(heap, self, WG_REQ_FULL));
	enable();
	cr_assert(wg_cycle_wait(heap, self, WG_REQ_FULL));
	heap_close();
}

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

Test(disable, allocation_fails_at_the_limit, .timeout = 180)
{
	fails(1000);
}

Test(disable, large_allocation_fails_at_the_limit, .timeout = 180)
{
	fails(3 * MIB);
}

/* What can never fit has another cure. */
Test(disable, what_never_fits_is_told_so)
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

Test(disable, allocation_waits_for_the_last_cycle, .timeout = 180)
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
	cr_assert_eq(read_int(&begun), 1);
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

Test(disable, the_program_is_asked, .timeout = 180)
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

Test(disable, the_program_may_raise_the_limit, .timeout = 180)
{
	raise_limit(1000);
}

Test(disable, the_program_may_raise_the_limit_for_large_objects, .timeout = 180)
{
	raise_limit(MIB);
}

Test(disable, the_program_may_enable, .timeout = 180)
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

Test(disable, the_child_is_disabled_too, .timeout = 180)
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
Test(disable, the_child_does_not_have_who_waits, .timeout = 180)
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
Test(disable, finalizers_run_and_their_requests_do_not_hang, .timeout = 180)
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

Test(disable, not_in_callbacks)
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

Test(disable, not_in_locked_calls, .timeout = 180)
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

Test(disable, in_a_region_and_unattached, .timeout = 180)
{
	pthread_t t;

	heap_open(NULL);
	cr_assert_eq(weir_blocking_call(self, region, &over), &over);
	cr_assert_eq(pthread_create(&t, NULL, region, NULL), 0);
	weir_blocking_call(self, join, &t);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}
