/* SPDX-License-Identifier: MIT */
/*
 * weir_collect_disable(): no cycle begins, nobody waits for one for ever, and
 * none that was due is forgotten.
 */
#define _GNU_SOURCE
#include "tests/disable.h"

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

static void *collects_once(void *arg)
{
	*(int *)arg = weir_collect(heap, WEIR_COLLECT_FULL);
	return NULL;
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
