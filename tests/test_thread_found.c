/* SPDX-License-Identifier: MIT */
/*
 * runtime/thread.h: every register and every live part of a stack of a held
 * thread is found, however it is held.  Markers are made in registers, so that
 * they are in memory only where the code under test has put them.
 */
#define _GNU_SOURCE
#include "tests/test_thread.h"

#include <signal.h>
#include <stdlib.h>

#include "tests/markers.h"

struct search {
	uintptr_t inverse;         /* ~(first marker); markers follow on it */
	unsigned stack[MARKERS];   /* found in [sp, base) */
	unsigned more[2][MARKERS]; /* found in more[] */
	uintptr_t stack_words;     /* of [sp, base) */
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RAW __attribute__((no_sanitize_address, no_sanitize_thread))
#else
#define RAW
#endif

RAW static void look(uintptr_t start, uintptr_t end, uintptr_t inverse,
		     unsigned *found)
{
	const volatile uintptr_t *p = (const volatile uintptr_t *)start;

	cr_assert_eq(start % sizeof(*p), 0);
	cr_assert_eq(end % sizeof(*p), 0);
	for (; p < (const volatile uintptr_t *)end; p++)
		for (unsigned i = 0; i < MARKERS; i++)
			found[i] += *p == ~inverse + i;
}

static void search_thread(struct wr_thread *t, void *arg)
{
	struct search *s = arg;

	look(t->stack_sp, t->stack_base, s->inverse, s->stack);
	for (int k = 0; k < 2; k++)
		look(t->more[k].start, t->more[k].end, s->inverse, s->more[k]);
	s->stack_words = (t->stack_base - t->stack_sp) / sizeof(uintptr_t);
}

static struct search search_all(uintptr_t inverse)
{
	struct search s = {.inverse = inverse};

	wr_threads_stop_world(registry, NULL);
	wr_threads_for_each(registry, search_thread, &s);
	wr_threads_resume_world(registry);
	return s;
}

static uintptr_t inverse_marker(void)
{
	return ~((uintptr_t)getpid() << 20 | 0x5a5a000000000000);
}

static int inside; /* attaching says ready before there are any markers */

static void *block_with_markers(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	call_with_markers(&m->thread, (void *)(uintptr_t)wr_thread_block_enter,
			  inverse_marker());
	CLEAR_MARKER_REGISTERS(); /* or what is called next may save them */
	STORE(inside, 1);
	wait_for(&m->result);
	wr_thread_block_leave(&m->thread);
	wr_thread_detach(&m->thread);
	return NULL;
}

EACH_MODE(thread, registers_of_blocked_threads_are_found)
{
	static struct mutator m;
	struct search s;

	make(*mode, NULL);
	STORE(inside, 0);
	start(&m, block_with_markers);
	wait_for(&inside);
	s = search_all(inverse_marker());
	for (int i = 0; i < MARKERS; i++) {
		cr_assert_geq(s.more[0][i], 1, "marker %d", i);
		/* Its own frames do not have them: more[] is needed. */
		cr_assert_eq(s.stack[i], 0, "marker %d", i);
	}
	STORE(m.result, 1);
	end_all(&m, 1);
}

/* A region whose function is about to return: what it saved of its caller's
 * registers must be found until it has left. */
static struct mutator *leaving;
static __attribute__((noinline)) void enter_and_leave(struct wr_thread *t)
{
	bool entered;

	CLEAR_MARKER_REGISTERS();
	entered = wr_thread_block_enter(t);
	STORE(inside, 1);
	wait_for(&leaving->result);
	if (entered)
		wr_thread_block_leave(t);
}

static void *leave_with_markers(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	call_with_markers(&m->thread, (void *)(uintptr_t)enter_and_leave,
			  inverse_marker());
	wr_thread_detach(&m->thread);
	return NULL;
}

EACH_MODE(thread, registers_of_leaving_threads_are_found)
{
	static struct mutator m;
	struct search s = {.inverse = inverse_marker()};

	make(*mode, NULL);
	leaving = &m;
	STORE(inside, 0);
	start(&m, leave_with_markers);
	wait_for(&inside);
	wr_threads_stop_world(registry, NULL);
	STORE(m.result, 1);
	pause_us(20000); /* it waits for the end of the stop */
	wr_threads_for_each(registry, search_thread, &s);
	wr_threads_resume_world(registry);
	for (int i = 0; i < MARKERS; i++)
		cr_assert_geq(s.stack[i] + s.more[0][i], 1, "marker %d", i);
	end_all(&m, 1);
}

static void *poll_with_markers(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	while (LOAD(m->go_on))
		call_with_markers(&m->thread, (void *)(uintptr_t)wr_thread_poll,
				  inverse_marker());
	wr_thread_detach(&m->thread);
	return NULL;
}

Test(thread, registers_of_polling_threads_are_found)
{
	static struct mutator m;

	make(WR_STOP_SAFEPOINTS, NULL);
	start_all(&m, 1, poll_with_markers);
	for (int round = 0; round < 100; round++) {
		struct search s = search_all(inverse_marker());

		for (int i = 0; i < MARKERS; i++)
			cr_assert_geq(s.stack[i], 1, "marker %d", i);
	}
	end_all(&m, 1);
}

#if !UNDER_TSAN
static void *spin(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	spin_with_markers(&m->go_on, inverse_marker());
	wr_thread_detach(&m->thread);
	return NULL;
}

Test(thread, registers_of_interrupted_threads_are_found)
{
	static struct mutator m;

	make(WR_STOP_SIGNALS, NULL);
	start_all(&m, 1, spin);
	pause_us(10000);
	for (int round = 0; round < 100; round++) {
		struct search s = search_all(inverse_marker());

		for (int i = 0; i < MARKERS; i++)
			cr_assert_geq(s.stack[i], 1, "marker %d", i);
		cr_assert_lt(s.stack_words, 8192 / 8 + 16384 / 8);
	}
	end_all(&m, 1);
}
#endif

#if !UNDER_TSAN
/* A handler on an alternate stack spins; below it, on the thread's own stack,
 * is one marker, on the alternate stack another. */
static struct mutator *on_alternate;

static void spin_in_handler(int sig)
{
	volatile uintptr_t marker = ~(inverse_marker() - 1);

	(void)sig;
	STORE(on_alternate->result, 1);
	while (LOAD(on_alternate->go_on))
		;
	cr_assert_eq(marker, ~inverse_marker() + 1);
	marker = 0;
}

static void *use_alternate_stack(void *arg)
{
	struct mutator *m = arg;
	volatile uintptr_t marker = ~inverse_marker();
	stack_t alternate = {.ss_size = 65536};

	alternate.ss_sp = malloc(alternate.ss_size);
	cr_assert_eq(sigaltstack(&alternate, NULL), 0);
	attach(m);
	pthread_kill(pthread_self(), SIGUSR1);
	cr_assert_eq(marker, ~inverse_marker());
	wr_thread_detach(&m->thread);
	alternate.ss_flags = SS_DISABLE;
	sigaltstack(&alternate, NULL);
	free(alternate.ss_sp);
	return NULL;
}

Test(thread, alternate_signal_stacks_are_found)
{
	static struct mutator m;
	struct sigaction action = {.sa_handler = spin_in_handler,
				   .sa_flags = SA_ONSTACK};
	struct search s;

	on_alternate = &m;
	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	make(WR_STOP_SIGNALS, NULL);
	start(&m, use_alternate_stack);
	wait_for(&m.result);
	s = search_all(inverse_marker());
	cr_assert_geq(s.stack[0], 1);
	cr_assert_eq(s.stack[1], 0);
	cr_assert_geq(s.more[1][1], 1);
	cr_assert_eq(s.more[1][0], 0);
	end_all(&m, 1);
}

/* The same on the main thread, whose stack has no fixed low end, stopped by
 * another thread. */
static struct search found_on_main;

static void *stop_main(void *arg)
{
	struct mutator *m = arg;

	wait_for(&m->result);
	found_on_main = search_all(inverse_marker());
	STORE(m->go_on, 0);
	return NULL;
}

Test(thread, alternate_stack_of_the_main_thread_is_found)
{
	static struct mutator m = {.go_on = 1};
	struct sigaction action = {.sa_handler = spin_in_handler,
				   .sa_flags = SA_ONSTACK};
	pthread_t stopper;

	on_alternate = &m;
	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	make(WR_STOP_SIGNALS, NULL);
	pthread_create(&stopper, NULL, stop_main, &m);
	use_alternate_stack(&m);
	pthread_join(stopper, NULL);
	cr_assert_geq(found_on_main.stack[0], 1);
	cr_assert_geq(found_on_main.more[1][1], 1);
	wr_threads_destroy(registry);
}
#endif
