/* SPDX-License-Identifier: MIT */
/*
 * weir_thread_watch_stack(): the program writes the base to a word of its own.
 * Wherever the thread stands and whatever the word says, the objects of the
 * stack that it stands on and of the one that it tells of live: a stack that is
 * half switched is scanned in full.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <unistd.h>

#include <weir/alloc.h>
#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/fiber.h"
#include "tests/short.h"

#define OBJECTS 64 /* of each stack */
#define OPTIONS "verify=on,poison=on,heap-min=64m,heap-max=512m"

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)

static weir_heap *the_heap;
static weir_mutator *m;
static void *volatile word; /* the base that the thread tells of */
static bool ready, over;    /* atomic */

/* How the thread is stopped. */
enum how { COMPUTES, POLLS, BLOCKED };
/* The stacks: the thread's own, which word may have as NULL too, and two. */
enum stack { OWN, ONE, TWO, OWN_AS_NULL };

struct way {
	enum how how;
	enum stack on;   /* where it stands */
	enum stack told; /* what the word says */
};

static struct way way;
static struct fiber fiber[3];
static weir_weak *weak[3][OBJECTS];
static bool intact[3];

static weir_heap *open_heap(enum how how)
{
	bool polls = how == POLLS;

#ifdef __SANITIZE_THREAD__
	polls = true; /* see heap_util.h */
#endif
	return hidden_heap(polls ? "stop=safepoints," OPTIONS : OPTIONS);
}

static void *base_of(enum stack s)
{
	switch (s) {
	case OWN:
		return (void *)m->thread.stack_base;
	case OWN_AS_NULL:
		return NULL;
	default:
		return fiber[s].base;
	}
}

static void *wait_blocked(void *arg)
{
	(void)arg;
	STORE(ready, true);
	while (!LOAD(over))
		usleep(100);
	return NULL;
}

static void stay(void)
{
	if (way.how == BLOCKED) {
		weir_blocking_call(m, wait_blocked, NULL);
		return;
	}
	STORE(ready, true);
	while (!LOAD(over))
		if (way.how == POLLS)
			weir_safepoint(m);
}

/* Hold objects that nothing else refers to; go on to the next stack, or to the
 * one where the thread is to stand. */
static __attribute__((noinline)) void hold_some(enum stack s)
{
	uintptr_t *volatile hold[OBJECTS];
	bool whole = true;

	for (unsigned i = 0; i < OBJECTS; i++) {
		hold[i] = weir_alloc(m, 64);
		must(hold[i]);
		*hold[i] = 1000 + i;
		must(weir_weak_create(the_heap, hold[i], &weak[s][i]) == 0);
	}
	if (s != TWO) {
		word = base_of(s + 1);
		fiber_switch(&fiber[s], &fiber[s + 1]);
	} else if (way.on != TWO) {
		word = base_of(way.on);
		fiber_switch(&fiber[TWO], &fiber[way.on]);
	}
	word = base_of(way.told);
	stay();
	for (unsigned i = 0; i < OBJECTS; i++)
		whole &= *hold[i] == 1000 + i;
	intact[s] = whole;
}

static void fiber_main(enum stack s)
{
	hold_some(s);
	word = base_of(OWN);
	fiber_switch(&fiber[s], &fiber[OWN]);
	abort();
}

static void one_main(void)
{
	fiber_main(ONE);
}

static void two_main(void)
{
	fiber_main(TWO);
}

static void *run(void *arg)
{
	(void)arg;
	must(weir_thread_attach(the_heap, &m) == 0);
	must(weir_thread_watch_stack(m, &word) == 0);
	fiber_own(&fiber[OWN]);
	fiber_open(&fiber[ONE], one_main);
	fiber_open(&fiber[TWO], two_main);
	hold_some(OWN);
	fiber_close(&fiber[ONE]);
	fiber_close(&fiber[TWO]);
	must(weir_thread_detach(m) == 0);
	return NULL;
}

static unsigned living(enum stack s)
{
	unsigned n = 0;

	for (int i = 0; i < OBJECTS; i++)
		n += alive(the_heap, weak[s][i]);
	return n;
}

static void check_alive(const char *after)
{
	enum stack told = way.told == OWN_AS_NULL ? OWN : way.told;

	cr_assert_eq(living(way.on), OBJECTS, "here, %s: %u", after,
		     living(way.on));
	cr_assert_eq(living(told), OBJECTS, "there, %s: %u", after,
		     living(told));
}

ParameterizedTestParameters(fiber_watch, both_stacks_are_scanned)
{
	static struct way ways[3 * 3 * 4];
	size_t n = 0;

	for (enum how how = COMPUTES; how <= BLOCKED; how++)
		for (enum stack on = OWN; on <= TWO; on++)
			for (enum stack told = OWN; told <= OWN_AS_NULL; told++)
				ways[n++] = (struct way){how, on, told};
	return cr_make_param_array(struct way, ways, n);
}

ParameterizedTest(struct way *w, fiber_watch, both_stacks_are_scanned)
{
	pthread_t t;

	way = *w;
#ifdef __SANITIZE_THREAD__
	if (way.how == COMPUTES)
		cr_skip("threads poll there");
#endif
	the_heap = open_heap(way.how);
	cr_assert_eq(pthread_create(&t, NULL, run, NULL), 0);
	while (!LOAD(ready))
		usleep(100);
	for (int k = 0; k < 2; k++) {
		minor(the_heap);
		check_alive("minor");
		full(the_heap);
		check_alive("full");
		stopped(the_heap);
		check_alive("stopped");
	}
	STORE(over, true);
	/* Whoever comes back to the own stack has lost its objects there, if
	 * these were not told of. */
	pthread_join(t, NULL);
	cr_assert(intact[way.on]);
	for (int s = OWN; s <= TWO; s++)
		for (int i = 0; i < OBJECTS; i++)
			weir_weak_destroy(weak[s][i]);
	cr_assert_eq(weir_heap_destroy(the_heap), 0);
}

/* ---- A program that switches as fast as it can --------------------------- */

#define FIBERS 8
#define SECONDS rounds(3)

static struct fiber many[FIBERS + 1]; /* the last is the thread's own */
static void *bases[FIBERS + 1];
static int on;                 /* the one that runs */
static unsigned long switches; /* done */
static unsigned seed = 1;

static void hop(int to)
{
	int from = on;

	if (from == to)
		return;
	on = to;
	switches++;
	word = bases[to];
	fiber_switch(&many[from], &many[to]);
}

/* Frames with a list each; the deepest switches, the thread's own stack being
 * one of all. */
static __attribute__((noinline)) void dive(unsigned depth)
{
	unsigned length = 1 + rand_r(&seed) % 20;
	uint64_t value = (uint64_t)rand_r(&seed) << 8;
	struct node *volatile list = make_list(m, length, value);

	if (depth)
		dive(depth - 1);
	else
		hop(rand_r(&seed) % (FIBERS + 1));
	for (int i = 0; i < 3; i++) {
		make_list(m, 20, 0);
		weir_safepoint(m);
		check_list(list, length, value);
	}
}

static void many_main(void)
{
	for (;;) {
		dive(rand_r(&seed) % 6);
		if (LOAD(over))
			hop(FIBERS);
	}
}

static void *run_many(void *arg)
{
	(void)arg;
	fiber_own(&many[FIBERS]);
	must(weir_thread_attach(the_heap, &m) == 0);
	bases[FIBERS] = base_of(OWN);
	must(weir_thread_watch_stack(m, &word) == 0);
	while (!LOAD(over))
		dive(rand_r(&seed) % 6);
	must(weir_thread_detach(m) == 0);
	return NULL;
}

static void report_parked(weir_visitor *visitor, void *arg)
{
	struct fiber *own = &many[FIBERS];

	(void)arg;
	for (int i = 0; i < FIBERS; i++)
		fiber_report(&many[i], visitor);
	if (LOAD(own->parked)) {
		weir_visit_range(visitor, &own->context, &own->context + 1);
		weir_visit_range(visitor, (void *)wr_context_sp(&own->context),
				 bases[FIBERS]);
	}
}

ParameterizedTestParameters(fiber_watch, switching)
{
	static enum how ways[] = {
#ifndef __SANITIZE_THREAD__
		COMPUTES,
#endif
		POLLS};

	return cr_make_param_array(enum how, ways,
				   sizeof(ways) / sizeof(ways[0]));
}

ParameterizedTest(enum how *how, fiber_watch, switching, .timeout = 240)
{
	time_t begin = time(NULL);
	unsigned long cycles = 0;
	pthread_t t;

	the_heap = open_heap(*how);
	on = FIBERS;
	for (int i = 0; i < FIBERS; i++) {
		fiber_open(&many[i], many_main);
		bases[i] = many[i].base;
	}
	cr_assert_eq(weir_root_add_callback(the_heap, report_parked, NULL, 0),
		     0);
	cr_assert_eq(pthread_create(&t, NULL, run_many, NULL), 0);
	while (time(NULL) - begin < SECONDS || cycles < 4) {
		minor(the_heap);
		minor(the_heap);
		full(the_heap);
		if (++cycles % 4 == 0)
			stopped(the_heap);
	}
	STORE(over, true);
	pthread_join(t, NULL);
	cr_assert_gt(switches, 20);
	for (int i = 0; i < FIBERS; i++)
		fiber_close(&many[i]);
	cr_assert_eq(weir_heap_destroy(the_heap), 0);
}
