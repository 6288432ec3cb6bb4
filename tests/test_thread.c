/* SPDX-License-Identifier: MIT */
/*
 * runtime/thread.h: who runs and who does not, what is found of a held
 * thread, and that no request or release is lost while threads come and go.
 *
 * Most tests run once for each way to stop.  ThreadSanitizer puts a signal
 * off until the thread makes a system call through the C library, so there a
 * thread that only computes cannot be stopped by signal, and what a handler
 * sees is not the interrupted frame; under it only the safepoints are tested.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/thread.h"

#if defined(__SANITIZE_THREAD__)
#define MODES                      \
	{                          \
		WR_STOP_SAFEPOINTS \
	}
#define UNDER_TSAN 1
#else
#define MODES                                       \
	{                                           \
		WR_STOP_SIGNALS, WR_STOP_SAFEPOINTS \
	}
#define UNDER_TSAN 0
#endif

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)
#define ADD(x, v) __atomic_add_fetch(&(x), v, __ATOMIC_ACQ_REL)

#define EACH_MODE(suite, name)                                                \
	ParameterizedTestParameters(suite, name)                              \
	{                                                                     \
		static enum wr_stop_mode modes[] = MODES;                     \
		return cr_make_param_array(enum wr_stop_mode, modes,          \
					   sizeof(modes) / sizeof(modes[0])); \
	}                                                                     \
	ParameterizedTest(enum wr_stop_mode *mode, suite, name, .timeout = 120)

/* ---- A mutator for tests ------------------------------------------------ */

struct mutator {
	struct wr_thread thread; /* first: the registry hands it back */
	uint32_t critical;       /* gate */
	uint32_t pending;        /* gate */
	uint64_t counter;        /* atomic: moves while the thread runs */
	pthread_t id;            /* to join */
	int go_on;               /* atomic: 0 ends it */
	int ready;               /* atomic: attached */
	int pipe[2];             /* for those that block */
	int result;              /* atomic: what the body found */
};

static struct wr_threads *registry;

static struct wr_threads *make(enum wr_stop_mode mode,
			       void (*on_exit)(struct wr_thread *, void *))
{
	struct wr_threads_config config = {.mode = mode, .on_exit = on_exit};

	cr_assert_eq(wr_threads_create(&config, &registry), 0);
	return registry;
}

static void attach(struct mutator *m)
{
	m->thread.gate.critical = &m->critical;
	m->thread.gate.pending = &m->pending;
	cr_assert_eq(wr_thread_attach(registry, &m->thread), 0);
	STORE(m->ready, 1);
}

static void safepoint(struct mutator *m)
{
	if (__atomic_load_n(&m->pending, __ATOMIC_RELAXED))
		wr_thread_poll(&m->thread);
}

static void pause_us(unsigned us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static void wait_for(int *flag)
{
	while (!LOAD(*flag))
		pause_us(100);
}

/* Counts as fast as it can until told to end. */
static void *count_up(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	while (LOAD(m->go_on)) {
		ADD(m->counter, 1);
		safepoint(m);
	}
	wr_thread_detach(&m->thread);
	return NULL;
}

static void start(struct mutator *m, void *(*body)(void *))
{
	m->go_on = 1;
	cr_assert_eq(pthread_create(&m->id, NULL, body, m), 0);
}

static void start_all(struct mutator *m, int n, void *(*body)(void *))
{
	for (int i = 0; i < n; i++)
		start(&m[i], body);
	for (int i = 0; i < n; i++)
		wait_for(&m[i].ready);
}

static void end_all(struct mutator *m, int n)
{
	for (int i = 0; i < n; i++)
		STORE(m[i].go_on, 0);
	for (int i = 0; i < n; i++)
		pthread_join(m[i].id, NULL);
	cr_assert_eq(wr_threads_count(registry), 0);
	wr_threads_destroy(registry);
}

/* Wait until the counter has moved. */
static void wait_moving(struct mutator *m)
{
	uint64_t before = LOAD(m->counter);

	while (LOAD(m->counter) == before)
		pause_us(100);
}

static void count_one(struct wr_thread *t, void *arg)
{
	cr_assert_lt(t->stack_sp, t->stack_base);
	++*(int *)arg;
}

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

static void note_time(uint64_t ns, void *arg)
{
	(void)arg;
	cr_assert_gt(ns, 0);
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
	cr_assert_eq(times_called, 10 * WORKERS);
	for (int i = 0; i < WORKERS; i++)
		wait_moving(&workers[i]);
	end_all(workers, WORKERS);
}
