/* SPDX-License-Identifier: MIT */
/* A mutator for the tests of runtime/thread.h. */
#ifndef WEIR_TESTS_TEST_THREAD_H
#define WEIR_TESTS_TEST_THREAD_H

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "runtime/thread.h"
#include "tests/short.h"

/* Most tests run once for each way to stop.  ThreadSanitizer puts a signal off
 * until the thread calls into the C library, so there a thread that computes
 * cannot be stopped by signal, and a handler does not run on the interrupted
 * frame; under it only the safepoints are tested. */
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
	ParameterizedTest(enum wr_stop_mode *mode, suite, name)

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

static inline struct wr_threads *
make(enum wr_stop_mode mode, void (*on_exit)(struct wr_thread *, void *))
{
	struct wr_threads_config config = {.mode = mode, .on_exit = on_exit};

	cr_assert_eq(wr_threads_create(&config, &registry), 0);
	return registry;
}

/* Not inlined: the frame of a thread that is cancelled must have nothing that
 * AddressSanitizer would have to unpoison. */
static __attribute__((noinline, unused)) void attach(struct mutator *m)
{
	m->thread.gate.critical = &m->critical;
	m->thread.gate.pending = &m->pending;
	cr_assert_eq(wr_thread_attach(registry, &m->thread), 0);
	STORE(m->ready, 1);
}

static inline void safepoint(struct mutator *m)
{
	if (__atomic_load_n(&m->pending, __ATOMIC_RELAXED))
		wr_thread_poll(&m->thread);
}

static inline void pause_us(unsigned us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static inline void wait_for(int *flag)
{
	while (!LOAD(*flag))
		pause_us(100);
}

/* Counts as fast as it can until told to end. */
static inline void *count_up(void *arg)
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

static inline void start(struct mutator *m, void *(*body)(void *))
{
	m->go_on = 1;
	cr_assert_eq(pthread_create(&m->id, NULL, body, m), 0);
}

static inline void start_all(struct mutator *m, int n, void *(*body)(void *))
{
	for (int i = 0; i < n; i++)
		start(&m[i], body);
	for (int i = 0; i < n; i++)
		wait_for(&m[i].ready);
}

static inline void end_all(struct mutator *m, int n)
{
	for (int i = 0; i < n; i++)
		STORE(m[i].go_on, 0);
	for (int i = 0; i < n; i++)
		pthread_join(m[i].id, NULL);
	cr_assert_eq(wr_threads_count(registry), 0);
	wr_threads_destroy(registry);
}

/* Wait until the counter has moved. */
static inline void wait_moving(struct mutator *m)
{
	uint64_t before = LOAD(m->counter);

	while (LOAD(m->counter) == before)
		pause_us(100);
}

static inline void count_one(struct wr_thread *t, void *arg)
{
	cr_assert_lt(t->stack_sp, t->stack_base);
	++*(int *)arg;
}

#endif
