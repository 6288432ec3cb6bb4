/* SPDX-License-Identifier: MIT */
/*
 * runtime/thread.h: who runs and who does not.  What is found of a thread
 * that is held is in test_thread_found.c, threads that come and go are in
 * test_thread_churn.c.
 */
#define _GNU_SOURCE

#include "tests/test_thread.h"

#include <poll.h>
#include <sched.h>

/* ---- Stops -------------------------------------------------------------- */

#define WORKERS 6

EACH_MODE(thread, held_threads_do_not_run)
{
	static struct mutator m[WORKERS];
	uint64_t before[WORKERS];

	make(*mode, NULL);
	start_all(m, WORKERS, count_up);
	for (int round = 0; round < 20; round++) {
		struct wr_stop_times times = {0};
		int n = 0;

		wait_moving(&m[round % WORKERS]);
		wr_threads_stop_world(registry, &times);
		cr_assert_leq(times.requested_ns, times.stopped_ns);
		for (int i = 0; i < WORKERS; i++)
			before[i] = LOAD(m[i].counter);
		pause_us(3000);
		for (int i = 0; i < WORKERS; i++)
			cr_assert_eq(before[i], LOAD(m[i].counter),
				     "thread %d ran in a stop", i);
		wr_threads_for_each(registry, count_one, &n);
		cr_assert_eq(n, WORKERS);
		wr_threads_resume_world(registry);
	}
	for (int i = 0; i < WORKERS; i++)
		wait_moving(&m[i]);
	end_all(m, WORKERS);
}

EACH_MODE(thread, stops_follow_each_other_closely)
{
	static struct mutator m[WORKERS];

	make(*mode, NULL);
	start_all(m, WORKERS, count_up);
	for (int round = 0; round < 5000; round++) {
		uint64_t sum[2] = {0, 0};

		wr_threads_stop_world(registry, NULL);
		for (int k = 0; k < 2; k++)
			for (int i = 0; i < WORKERS; i++)
				sum[k] += LOAD(m[i].counter);
		wr_threads_resume_world(registry);
		cr_assert_eq(sum[0], sum[1]);
	}
	for (int i = 0; i < WORKERS; i++)
		wait_moving(&m[i]);
	end_all(m, WORKERS);
}

/* Counts, and lets others run. */
static void *count_slowly(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	while (LOAD(m->go_on)) {
		ADD(m->counter, 1);
		safepoint(m);
		sched_yield();
	}
	wr_thread_detach(&m->thread);
	return NULL;
}

/* Every thread must come out of every stop, with no later one to wake it. */
EACH_MODE(thread, no_release_is_lost)
{
	static struct mutator m[2];
	time_t end = time(NULL) + rounds(3);

	make(*mode, NULL);
	start_all(m, 2, count_slowly);
	do {
		uint64_t before[2];

		wr_threads_stop_world(registry, NULL);
		for (int i = 0; i < 2; i++)
			before[i] = LOAD(m[i].counter);
		wr_threads_resume_world(registry);
		for (int i = 0; i < 2; i++)
			while (LOAD(m[i].counter) == before[i])
				sched_yield();
	} while (time(NULL) < end);
	end_all(m, 2);
}

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A stop is over no earlier than it is being ended, and no later than the call
 * returns; with threads held it takes some time to end it. */
EACH_MODE(thread, resume_tells_when)
{
	static struct mutator m[WORKERS];

	make(*mode, NULL);
	start_all(m, WORKERS, count_up);
	for (int round = 0; round < 50; round++) {
		uint64_t from, over;

		wait_moving(&m[round % WORKERS]);
		wr_threads_stop_world(registry, NULL);
		from = clock_ns();
		over = wr_threads_resume_world(registry);
		cr_assert_gt(over, from);
		cr_assert_leq(over, clock_ns());
	}
	end_all(m, WORKERS);
	make(*mode, NULL);
	wr_threads_stop_world(registry, NULL);
	cr_assert_leq(wr_threads_resume_world(registry), clock_ns());
	end_all(m, 0);
}

static struct mutator workers[WORKERS];
static int visited[WORKERS];
static unsigned times_called;

static void hold_one(struct wr_thread *t, void *arg)
{
	struct mutator *m = (struct mutator *)t;
	uint64_t before = LOAD(m->counter);
	struct mutator *other = m == workers ? &workers[1] : &workers[0];

	visited[m - workers]++;
	if (arg)
		wait_moving(other); /* only one is held at a time */
	cr_assert_eq(before, LOAD(m->counter));
}

static uint64_t asked_at; /* begin of the handshake under way, 0: none */

static void note_time(uint64_t begin_ns, uint64_t end_ns, void *arg)
{
	(void)arg;
	if (!end_ns) {
		cr_assert_eq(asked_at, 0);
		asked_at = begin_ns;
		return;
	}
	cr_assert_eq(asked_at, begin_ns);
	cr_assert_gt(end_ns, begin_ns);
	cr_assert_leq(end_ns, clock_ns());
	asked_at = 0;
	times_called++;
}

EACH_MODE(thread, hold_each_holds_one_at_a_time)
{
	make(*mode, NULL);
	start_all(workers, WORKERS, count_up);
	for (int round = 0; round < 10; round++)
		wr_threads_hold_each(registry, hold_one, workers, note_time);
	for (int i = 0; i < WORKERS; i++)
		cr_assert_eq(visited[i], 10);
	/* One that did not run since it was let go is held without ado. */
	cr_assert(times_called > 0 && times_called <= 10 * WORKERS);
	for (int i = 0; i < WORKERS; i++)
		wait_moving(&workers[i]);
	end_all(workers, WORKERS);
}

/* A thread that is attached and blocked may stop the others. */
static void *stopper_attached(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	for (int i = 0; i < 200; i++) {
		bool entered = wr_thread_block_enter(&m->thread);
		int n = 0;

		cr_assert(entered);
		cr_assert_not(wr_thread_block_enter(&m->thread));
		wr_threads_stop_world(registry, NULL);
		wr_threads_for_each(registry, count_one, &n);
		cr_assert_eq(n, WORKERS);
		wr_threads_resume_world(registry);
		wr_thread_block_leave(&m->thread);
		safepoint(m);
	}
	wr_thread_detach(&m->thread);
	return NULL;
}

EACH_MODE(thread, several_stoppers_take_turns)
{
	static struct mutator m[WORKERS];

	make(*mode, NULL);
	for (int i = 0; i < WORKERS; i++)
		m[i].go_on = 1;
	start_all(m, WORKERS - 2, count_up);
	/* These see WORKERS threads only while both are there. */
	attach(&m[WORKERS - 1]);
	cr_assert(wr_thread_block_enter(&m[WORKERS - 1].thread));
	start(&m[WORKERS - 2], stopper_attached);
	pthread_join(m[WORKERS - 2].id, NULL);
	for (int i = 0; i < 200; i++) {
		wr_threads_stop_world(registry, NULL);
		wr_threads_resume_world(registry);
	}
	wr_thread_block_leave(&m[WORKERS - 1].thread);
	wr_thread_detach(&m[WORKERS - 1].thread);
	end_all(m, WORKERS - 2);
}

/* ---- Critical sections, system calls, blocking regions ------------------ */

static void *mostly_critical(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	while (LOAD(m->go_on)) {
		__atomic_store_n(&m->critical, 1, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		STORE(m->result, 1);
		for (int i = 0; i < 20000; i++)
			ADD(m->counter, 1);
		STORE(m->result, 0);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		__atomic_store_n(&m->critical, 0, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		safepoint(m);
	}
	wr_thread_detach(&m->thread);
	return NULL;
}

EACH_MODE(thread, critical_sections_are_not_interrupted)
{
	static struct mutator m[2];

	make(*mode, NULL);
	start_all(m, 2, mostly_critical);
	for (int round = 0; round < 300; round++) {
		wr_threads_stop_world(registry, NULL);
		for (int i = 0; i < 2; i++) {
			cr_assert_eq(LOAD(m[i].result), 0);
			cr_assert_eq(LOAD(m[i].counter) % 20000, 0);
		}
		wr_threads_resume_world(registry);
	}
	end_all(m, 2);
}

#if !UNDER_TSAN
/* Outside a blocking region: read() goes on after a stop, poll() is told. */
static void *read_then_poll(void *arg)
{
	struct mutator *m = arg;
	struct pollfd fd = {.fd = m->pipe[0], .events = POLLIN};
	char c = 0;

	attach(m);
	cr_assert_eq(read(m->pipe[0], &c, 1), 1);
	cr_assert_eq(c, 'r');
	STORE(m->result, 1);
	cr_assert_eq(poll(&fd, 1, -1), -1);
	cr_assert_eq(errno, EINTR);
	STORE(m->result, 2);
	wr_thread_detach(&m->thread);
	return NULL;
}

/* In a region, and out of it when told. */
static void *leaves_when_told(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	wr_thread_block_enter(&m->thread);
	STORE(m->result, 1);
	wait_for(&m->go_on);
	STORE(m->result, 2);
	wr_thread_block_leave(&m->thread);
	wr_thread_detach(&m->thread);
	return NULL;
}

/* Look at it for long: it wants to leave meanwhile. */
static void look_for_long(struct wr_thread *t, void *arg)
{
	struct mutator *m = (struct mutator *)t;

	(void)arg;
	STORE(m->go_on, 1);
	while (LOAD(m->result) != 2)
		pause_us(100);
	pause_us(20000);
}

static uint64_t waits, longest_wait;

static void note_wait(uint64_t begin_ns, uint64_t end_ns, void *arg)
{
	cr_assert_eq(arg, &waits);
	if (end_ns - begin_ns > longest_wait)
		longest_wait = end_ns - begin_ns;
	waits++;
}

Test(thread, waits_to_leave_a_region_are_told_of)
{
	struct wr_threads_config config = {
		.mode = WR_STOP_SAFEPOINTS, .waited = note_wait, .arg = &waits};
	struct mutator m = {0};
	struct wr_stop_times times;

	cr_assert_eq(wr_threads_create(&config, &registry), 0);
	for (int i = 0; i < 2; i++) {
		m.go_on = m.result = m.ready = 0;
		cr_assert_eq(pthread_create(&m.id, NULL, leaves_when_told, &m),
			     0);
		while (LOAD(m.result) != 1)
			pause_us(100);
		if (i == 0) {
			wr_threads_hold_each(registry, look_for_long, NULL,
					     NULL);
		} else {
			/* That is what a stop of all counts for all. */
			wr_threads_stop_world(registry, &times);
			look_for_long(&m.thread, NULL);
			wr_threads_resume_world(registry);
		}
		pthread_join(m.id, NULL);
		cr_assert_eq(waits, 1);
	}
	cr_assert_geq(longest_wait, 1000000);
	wr_threads_destroy(registry);
}

Test(thread, stops_interrupt_system_calls_as_any_signal)
{
	static struct mutator m;

	cr_assert_eq(pipe(m.pipe), 0);
	make(WR_STOP_SIGNALS, NULL);
	start_all(&m, 1, read_then_poll);
	for (int round = 0; round < 200; round++) {
		pause_us(100);
		wr_threads_stop_world(registry, NULL);
		wr_threads_resume_world(registry);
		cr_assert_eq(LOAD(m.result), 0);
	}
	cr_assert_eq(write(m.pipe[1], "r", 1), 1);
	while (LOAD(m.result) != 2) {
		pause_us(1000);
		wr_threads_stop_world(registry, NULL);
		wr_threads_resume_world(registry);
	}
	end_all(&m, 1);
}
#endif

static void *poll_in_region(void *arg)
{
	struct mutator *m = arg;
	struct pollfd fd = {.fd = m->pipe[0], .events = POLLIN};

	attach(m);
	STORE(m->ready, 0);
	cr_assert(wr_thread_block_enter(&m->thread));
	STORE(m->ready, 2);
	cr_assert_eq(poll(&fd, 1, -1), 1); /* never EINTR */
	STORE(m->result, 1);
	errno = 77;
	wr_thread_block_leave(&m->thread);
	cr_assert_eq(errno, 77);
	STORE(m->result, 2);
	wr_thread_detach(&m->thread);
	return NULL;
}

EACH_MODE(thread, blocking_regions_are_left_alone)
{
	static struct mutator m;

	cr_assert_eq(pipe(m.pipe), 0);
	make(*mode, NULL);
	start(&m, poll_in_region);
	while (LOAD(m.ready) != 2)
		pause_us(100);
	for (int round = 0; round < 200; round++) {
		pause_us(50);
		wr_threads_stop_world(registry, NULL);
		wr_threads_resume_world(registry);
	}
	cr_assert_eq(LOAD(m.result), 0);
	/* It may return from poll in a stop, but not leave the region. */
	wr_threads_stop_world(registry, NULL);
	cr_assert_eq(write(m.pipe[1], "x", 1), 1);
	while (LOAD(m.result) != 1)
		pause_us(100);
	pause_us(10000);
	cr_assert_eq(LOAD(m.result), 1);
	wr_threads_resume_world(registry);
	end_all(&m, 1);
	cr_assert_eq(m.result, 2);
}
