/* SPDX-License-Identifier: MIT */
/*
 * weir_thread_set_stack(): what only the stack of a running fiber refers to
 * lives, wherever its thread is when it is stopped.  Told of too late or never,
 * it is lost.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/alloc.h>
#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/fiber.h"
#include "tests/short.h"

#define OBJECTS 64
#define OPTIONS "verify=on,poison=on,heap-min=64m,heap-max=512m"

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)

/* When a fiber's stack is told of. */
enum told { BEFORE, AFTER, NEVER, BY_ANOTHER, IN_PAUSES };
/* Where its thread is meanwhile. */
enum spot {
	COMPUTES,     /* stopped by a signal */
	POLLS,        /* stopped at safepoints */
	BLOCKED,      /* in a blocking region */
	IN_HANDLER,   /* in a handler on the alternate signal stack */
	FROM_A_FIBER, /* computes, came from another fiber, which is gone */
	AS_IF_ABOVE,  /* polls, what is told of is another's, above this one */
	AS_IF_BELOW   /* the same, below */
};

struct way {
	enum told told;
	enum spot spot;
};

static weir_heap *the_heap;
static struct way way;
static struct fiber own, one, other;
static weir_mutator *m;
static weir_weak *weak[OBJECTS];
static bool ready, over, lived_on;
static uintptr_t own_frame; /* of the thread, on its own stack */

static bool as_if(void)
{
	return way.spot == AS_IF_ABOVE || way.spot == AS_IF_BELOW;
}

/* Whether the thread goes to `other` first. */
static bool by_other(void)
{
	return way.spot == FROM_A_FIBER || as_if();
}

static weir_heap *open_heap(void)
{
	bool polls = way.spot == POLLS || as_if();

#ifdef __SANITIZE_THREAD__
	polls = true; /* see heap_util.h */
#endif
	return hidden_heap(polls ? "stop=safepoints," OPTIONS : OPTIONS);
}

static void *wait_blocked(void *arg)
{
	(void)arg;
	STORE(ready, true);
	while (!LOAD(over))
		usleep(100);
	return NULL;
}

static void on_usr1(int sig)
{
	(void)sig;
	STORE(ready, true);
	while (!LOAD(over))
		;
}

static __attribute__((noinline)) void stay(void)
{
	switch (way.spot) {
	case BLOCKED:
		weir_blocking_call(m, wait_blocked, NULL);
		break;
	case IN_HANDLER:
		pthread_kill(pthread_self(), SIGUSR1);
		break;
	case AS_IF_ABOVE:
	case AS_IF_BELOW:
		/* About to switch there; else it came from there. */
		if (way.told == BEFORE)
			must(weir_thread_set_stack(m, other.base) == 0);
		/* fall through */
	default:
		STORE(ready, true);
		while (!LOAD(over))
			weir_safepoint(m);
	}
}

/* Hold objects that nothing else refers to, and see what has become of them. */
static __attribute__((noinline)) void hold_some(void)
{
	uintptr_t *volatile hold[OBJECTS];
	bool whole = true;

	for (unsigned i = 0; i < OBJECTS; i++) {
		hold[i] = weir_alloc(m, 64);
		must(hold[i]);
		*hold[i] = 1000 + i;
		must(weir_weak_create(the_heap, hold[i], &weak[i]) == 0);
	}
	stay();
	for (unsigned i = 0; i < OBJECTS; i++)
		if (way.told != NEVER)
			whole &= *hold[i] == 1000 + i;
	lived_on = whole;
}

static void go(struct fiber *from, struct fiber *to)
{
	if (way.told == BEFORE)
		must(weir_thread_set_stack(m, to->base) == 0);
	fiber_switch(from, to);
}

static void arrive(struct fiber *at)
{
	if (way.told == AFTER)
		must(weir_thread_set_stack(m, at->base) == 0);
}

static void one_main(void)
{
	if (!as_if())
		arrive(&one);
	if (way.spot == FROM_A_FIBER)
		fiber_close(&other);
	hold_some();
	go(&one, &own);
	abort();
}

static void other_main(void)
{
	arrive(&other);
	go(&other, &one);
	abort();
}

static void *run_fiber(void *arg)
{
	stack_t alternate = {.ss_size = 65536};

	(void)arg;
	alternate.ss_sp = malloc(alternate.ss_size);
	must(alternate.ss_sp && sigaltstack(&alternate, NULL) == 0);
	must(weir_thread_attach(the_heap, &m) == 0);
	own_frame = (uintptr_t)__builtin_frame_address(0);
	fiber_own(&own);
	fiber_map(&one);
	fiber_map(&other);
	if ((other.base > one.base) != (way.spot == AS_IF_ABOVE)) {
		struct fiber swap = one;

		one = other;
		other = swap;
	}
	fiber_set(&one, one_main);
	fiber_set(&other, other_main);
	go(&own, by_other() ? &other : &one);
	arrive(&own); /* its base is NULL */
	fiber_close(&one);
	if (other.map)
		fiber_close(&other);
	must(weir_thread_detach(m) == 0);
	alternate.ss_flags = SS_DISABLE;
	sigaltstack(&alternate, NULL);
	free(alternate.ss_sp);
	return NULL;
}

/* What a handshake sees of the only thread. */
static void see_stack(struct wr_thread *t, void *arg)
{
	uintptr_t low = (uintptr_t)one.map + FIBER_GUARD;

	*(bool *)arg =
		t->more[1].start >= low && t->more[1].start < t->more[1].end &&
		t->more[1].end == (uintptr_t)one.base &&
		(way.told == BEFORE ? t->stack_sp < own_frame &&
					      own_frame - t->stack_sp < 16384
				    : t->stack_sp == t->stack_base);
}

static void start(pthread_t *t)
{
	struct sigaction action = {.sa_handler = on_usr1,
				   .sa_flags = SA_ONSTACK};

	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	the_heap = open_heap();
	cr_assert_eq(pthread_create(t, NULL, run_fiber, NULL), 0);
	while (!LOAD(ready))
		usleep(100);
}

static unsigned living(void)
{
	unsigned n = 0;

	for (int i = 0; i < OBJECTS; i++)
		n += alive(the_heap, weak[i]);
	return n;
}

static void end(pthread_t t)
{
	STORE(over, true);
	pthread_join(t, NULL);
	for (int i = 0; i < OBJECTS; i++)
		weir_weak_destroy(weak[i]);
	cr_assert_eq(weir_heap_destroy(the_heap), 0);
}

static const enum spot spots[] = {
#ifndef __SANITIZE_THREAD__
	COMPUTES, IN_HANDLER, FROM_A_FIBER,
#endif
	POLLS,    BLOCKED,    AS_IF_ABOVE,  AS_IF_BELOW};

#define SPOTS (sizeof(spots) / sizeof(spots[0]))

static struct criterion_test_params ways_of(enum told from, enum told to)
{
	static struct way ways[3 * SPOTS];
	size_t n = 0;

	for (enum told told = from; told <= to; told++)
		for (size_t i = 0; i < SPOTS; i++)
			ways[n++] = (struct way){told, spots[i]};
	return cr_make_param_array(struct way, ways, n);
}

ParameterizedTestParameters(fiber, objects_of_a_running_fiber_live)
{
	return ways_of(BEFORE, AFTER);
}

ParameterizedTest(struct way *w, fiber, objects_of_a_running_fiber_live)
{
	bool seen = false;
	pthread_t t;

	way = *w;
	start(&t);
	for (int k = 0; k < 3; k++) {
		minor(the_heap);
		cr_assert_eq(living(), OBJECTS, "minor, %u", living());
		full(the_heap);
		cr_assert_eq(living(), OBJECTS, "full, %u", living());
		stopped(the_heap);
		cr_assert_eq(living(), OBJECTS, "stopped, %u", living());
	}
	if (way.spot != IN_HANDLER && !as_if()) {
		wr_threads_hold_each(the_heap->threads, see_stack, &seen, NULL);
		cr_assert(seen, "not in a handshake");
	}
	end(t);
	cr_assert(lived_on);
}

ParameterizedTestParameters(fiber, but_not_untold)
{
	return ways_of(NEVER, NEVER);
}

ParameterizedTest(struct way *w, fiber, but_not_untold)
{
	pthread_t t;

	way = *w;
	start(&t);
	full(the_heap);
	full(the_heap);
	cr_assert_leq(living(), OBJECTS / 2, "%u live", living());
	end(t);
}

/* ---- Told of by others ----------------------------------------------------
 */

static void tell_of_it(weir_visitor *v, void *arg)
{
	(void)v;
	must(arg == &one);
	must(weir_thread_set_stack_of(the_heap, m, one.base) == 0);
}

ParameterizedTestParameters(fiber, told_of_by_others)
{
	return ways_of(BY_ANOTHER, IN_PAUSES);
}

ParameterizedTest(struct way *w, fiber, told_of_by_others)
{
	pthread_t t;

	way = *w;
	/* What the handler interrupts, or where it came from, is not for
	 * others to know. */
	if (way.spot != COMPUTES && way.spot != POLLS && way.spot != BLOCKED)
		return;
	start(&t);
	if (way.told == BY_ANOTHER)
		cr_assert_eq(weir_thread_set_stack_of(the_heap, m, one.base),
			     0);
	else
		cr_assert_eq(
			weir_root_add_callback(the_heap, tell_of_it, &one, 0),
			0);
	for (int k = 0; k < 3; k++) {
		minor(the_heap);
		cr_assert_eq(living(), OBJECTS, "minor, %u", living());
		full(the_heap);
		cr_assert_eq(living(), OBJECTS, "full, %u", living());
		stopped(the_heap);
		cr_assert_eq(living(), OBJECTS, "stopped, %u", living());
	}
	if (way.told == IN_PAUSES)
		cr_assert_eq(
			weir_root_remove_callback(the_heap, tell_of_it, &one),
			0);
	end(t);
	cr_assert(lived_on);
}

/* ---- Back, and the stack that was left ----------------------------------- */

static int stage;      /* atomic: what the thread is to do next */
static bool told_late; /* NULL is told of before the switch back */

static void await(int n)
{
	while (LOAD(stage) != n)
		weir_safepoint(m);
}

static void wait_main(void)
{
	STORE(ready, true);
	await(1);
	if (!told_late)
		must(weir_thread_set_stack(m, NULL) == 0);
	/* With NULL set, still here. */
	STORE(ready, true);
	await(2);
	fiber_switch(&one, &own);
	abort();
}

static __attribute__((noinline)) void make_here(uintptr_t *volatile *hold)
{
	for (unsigned i = 0; i < OBJECTS; i++) {
		hold[i] = weir_alloc(m, 64);
		must(hold[i]);
		must(weir_weak_create(the_heap, hold[i], &weak[i]) == 0);
	}
}

static void *leave_own(void *arg)
{
	uintptr_t *volatile hold[OBJECTS];

	(void)arg;
	must(weir_thread_attach(the_heap, &m) == 0);
	fiber_own(&own);
	fiber_open(&one, wait_main);
	make_here(hold);
	must(weir_thread_set_stack(m, one.base) == 0);
	fiber_switch(&own, &one);
	if (told_late)
		must(weir_thread_set_stack(m, NULL) == 0);
	STORE(ready, true);
	await(3);
	fiber_close(&one);
	must(weir_thread_detach(m) == 0);
	lived_on = hold[0] != NULL;
	return NULL;
}

ParameterizedTestParameters(fiber, the_stack_that_was_left_is_scanned)
{
	static bool late[] = {false, true};

	return cr_make_param_array(bool, late, 2);
}

ParameterizedTest(bool *late, fiber, the_stack_that_was_left_is_scanned)
{
	pthread_t t;

	told_late = *late;
	way.spot = POLLS;
	the_heap = open_heap();
	cr_assert_eq(pthread_create(&t, NULL, leave_own, NULL), 0);
	for (int n = 1; n <= 3; n++) {
		while (!LOAD(ready))
			usleep(100);
		STORE(ready, false);
		minor(the_heap);
		full(the_heap);
		stopped(the_heap);
		cr_assert_eq(living(), OBJECTS, "stage %d, %u", n, living());
		STORE(stage, n);
	}
	end(t);
	cr_assert(lived_on);
}

/* ---- fork ---------------------------------------------------------------- */

#ifndef __SANITIZE_THREAD__ /* it allows no thread in the child */
static int status;

static void *full_blocked(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)weir_collect(the_heap, WEIR_COLLECT_FULL);
}

static void fork_main(void)
{
	uintptr_t *volatile hold[OBJECTS];
	pid_t pid;

	make_here(hold);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		alarm(60);
		for (int k = 0; k < 3; k++)
			if (weir_collect(the_heap, k == 1))
				_exit(1);
		if (weir_blocking_call(m, full_blocked, NULL))
			_exit(2);
		for (int i = 0; i < OBJECTS; i++)
			if (weir_weak_get(weak[i]) != hold[i])
				_exit(3);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid);
	for (int i = 0; i < OBJECTS; i++)
		must(weir_weak_get(weak[i]) == hold[i]);
	fiber_switch(&one, &own);
	abort();
}

static void *fork_on_fiber(void *arg)
{
	(void)arg;
	must(weir_thread_attach(the_heap, &m) == 0);
	fiber_own(&own);
	fiber_open(&one, fork_main);
	must(weir_thread_set_stack(m, one.base) == 0);
	fiber_switch(&own, &one);
	must(weir_thread_set_stack(m, NULL) == 0);
	fiber_close(&one);
	must(weir_thread_detach(m) == 0);
	return NULL;
}

Test(fiber, forked_on_a_fiber)
{
	pthread_t t;

#ifdef __SANITIZE_ADDRESS__
	cr_skip("fork with threads: not under the address sanitizer");
#endif
	the_heap = open_heap();
	cr_assert_eq(pthread_create(&t, NULL, fork_on_fiber, NULL), 0);
	end(t);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "status %x",
		  status);
}
#endif

/* ---- Errors -------------------------------------------------------------- */

static void *with_the_others(void *mutator)
{
	weir_mutator *mine;

	must(weir_thread_attach(the_heap, &mine) == 0);
	must(weir_thread_set_stack(mutator, &mine) == -EINVAL);
	must(weir_thread_detach(mine) == 0);
	must(weir_thread_set_stack(mutator, &mine) == -EINVAL);
	return NULL;
}

Test(fiber, only_the_own_mutator)
{
	pthread_t t;

#if WEIR_CHECKING > 0
	cr_skip("checking builds abort on bad input");
#endif
	the_heap = open_heap();
	cr_assert_eq(weir_thread_attach(the_heap, &m), 0);
	cr_assert_eq(weir_thread_set_stack(NULL, &t), -EINVAL);
	cr_assert_eq(pthread_create(&t, NULL, with_the_others, m), 0);
	pthread_join(t, NULL);
	cr_assert_eq(weir_thread_set_stack(m, NULL), 0);
	cr_assert_eq(weir_heap_destroy(the_heap), 0);
}

/* ---- Many ---------------------------------------------------------------- */

#define THREADS 4
#define FIBERS 8
#define SECONDS rounds(3)

struct runner {
	struct fiber own;           /* of the thread */
	struct fiber fiber[FIBERS]; /* that it switches among */
	weir_mutator *m;            /* attached */
	int on;                     /* index of the one that runs */
	int ended;                  /* the one that ran to its end, -1: none */
	unsigned seed;              /* of its choices */
	unsigned long switches;     /* done */
	unsigned long closed;       /* fibers that ended */
};

static struct runner runners[THREADS];
static __thread struct runner *runner;

static void fiber_main(void);

/* Not inlined, and no address of a thread-local kept over a switch: all fibers
 * of a runner stay on its thread, but the compiler may not know. */
static __attribute__((noinline)) struct runner *me(void)
{
	return runner;
}

static void landed(struct runner *r)
{
	if (way.told == AFTER)
		must(weir_thread_set_stack(r->m, r->fiber[r->on].base) == 0);
	if (r->ended < 0)
		return;
	fiber_close(&r->fiber[r->ended]);
	fiber_open(&r->fiber[r->ended], fiber_main);
	r->ended = -1;
	r->closed++;
}

static void hop(struct runner *r, bool ends)
{
	int from = r->on;
	int to = (from + 1 + rand_r(&r->seed) % (FIBERS - 1)) % FIBERS;

	r->on = to;
	r->ended = ends ? from : -1;
	r->switches++;
	if (way.told == BEFORE)
		must(weir_thread_set_stack(r->m, r->fiber[to].base) == 0);
	fiber_switch(&r->fiber[from], &r->fiber[to]);
	landed(r);
}

/* Frames with a list each; the deepest switches. */
static __attribute__((noinline)) void dive(struct runner *r, unsigned depth)
{
	unsigned length = 1 + rand_r(&r->seed) % 20;
	uint64_t value = (uint64_t)rand_r(&r->seed) << 8;
	struct node *volatile list = make_list(r->m, length, value);

	if (depth)
		dive(r, depth - 1);
	else if (!LOAD(over))
		hop(r, false);
	for (int i = 0; i < 3; i++) {
		make_list(r->m, 20, 0);
		weir_safepoint(r->m);
		check_list(list, length, value);
	}
}

static void fiber_main(void)
{
	struct runner *r = me();
	int rounds;

	landed(r);
	for (rounds = 1 + rand_r(&r->seed) % 8; rounds && !LOAD(over); rounds--)
		dive(r, rand_r(&r->seed) % 6);
	if (!LOAD(over)) {
		hop(r, true);
		abort();
	}
	if (way.told == BEFORE)
		must(weir_thread_set_stack(r->m, NULL) == 0);
	fiber_switch(&r->fiber[r->on], &r->own);
	abort();
}

static void *run_many(void *arg)
{
	struct runner *r = runner = arg;

	must(weir_thread_attach(the_heap, &r->m) == 0);
	fiber_own(&r->own);
	for (int i = 0; i < FIBERS; i++)
		fiber_open(&r->fiber[i], fiber_main);
	if (way.told == BEFORE)
		must(weir_thread_set_stack(r->m, r->fiber[0].base) == 0);
	fiber_switch(&r->own, &r->fiber[0]);
	must(weir_thread_set_stack(r->m, NULL) == 0);
	for (int i = 0; i < FIBERS; i++)
		fiber_close(&r->fiber[i]);
	must(weir_thread_detach(r->m) == 0);
	return NULL;
}

static void report_parked(weir_visitor *visitor, void *arg)
{
	(void)arg;
	for (int i = 0; i < THREADS; i++)
		for (int k = 0; k < FIBERS; k++)
			fiber_report(&runners[i].fiber[k], visitor);
}

ParameterizedTestParameters(fiber, many_fibers_come_and_go)
{
	static struct way ways[] = {
#ifndef __SANITIZE_THREAD__
		{BEFORE, COMPUTES},
		{AFTER, COMPUTES},
#endif
		{BEFORE, POLLS},
		{AFTER, POLLS}};

	return cr_make_param_array(struct way, ways,
				   sizeof(ways) / sizeof(ways[0]));
}

ParameterizedTest(struct way *w, fiber, many_fibers_come_and_go, .timeout = 240)
{
	pthread_t t[THREADS];
	time_t begin = time(NULL);
	unsigned long cycles = 0;

	way = *w;
	the_heap = open_heap();
	cr_assert_eq(weir_root_add_callback(the_heap, report_parked, NULL, 0),
		     0);
	for (int i = 0; i < THREADS; i++) {
		runners[i].ended = -1;
		runners[i].seed = (unsigned)i + 1;
		cr_assert_eq(pthread_create(&t[i], NULL, run_many, &runners[i]),
			     0);
	}
	/* Threads that poll are slow to stop where processors are few. */
	while (time(NULL) - begin < SECONDS || cycles < 4) {
		minor(the_heap);
		minor(the_heap);
		full(the_heap);
		if (++cycles % 4 == 0)
			stopped(the_heap);
	}
	STORE(over, true);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		cr_assert_gt(runners[i].switches, 20);
		cr_assert_gt(runners[i].closed, 2);
	}
	cr_assert_eq(weir_heap_destroy(the_heap), 0);
}
