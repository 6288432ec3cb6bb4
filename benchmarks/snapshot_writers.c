/* SPDX-License-Identifier: MIT */
/*
 * bench-snapshot's writers and the gate at which they are kept quiet.
 *
 * With a rate, operation i of a thread is to start at start + i * interval,
 * whatever became of those before it: the response is counted from there.
 * Without one it is counted from the end of the one before.
 *
 * A writer looks at the gate between operations and while it waits for the
 * next one.  quiet and parked change under `lock`; `quiet` is read without it.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "benchmarks/snapshot_bench.h"

#define NAP_NS 200000u /* longer waits sleep, but for so much of them */

struct snap_writer snap_writer[SNAP_WRITERS];
uint64_t snap_phase_ns[SNAP_PHASES];

static char *memory;    /* that they write to */
static unsigned phase;  /* enum snap_phase; atomic */
static int quiet;       /* they are to be, or to end; atomic */
static bool end;        /* they are to end */
static unsigned parked; /* those that are quiet */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_parked = PTHREAD_COND_INITIALIZER;
static pthread_cond_t may_go = PTHREAD_COND_INITIALIZER;

void snap_phase_set(enum snap_phase next)
{
	snap_phase_ns[next] = bench_now();
	__atomic_store_n(&phase, next, __ATOMIC_RELAXED);
}

/* False: it is to end. */
static bool pass_gate(void)
{
	bool go_on;

	pthread_mutex_lock(&lock);
	if (++parked == snap_want.writers)
		pthread_cond_signal(&all_parked);
	while (quiet && !end)
		pthread_cond_wait(&may_go, &lock);
	parked--;
	go_on = !end;
	pthread_mutex_unlock(&lock);
	return go_on;
}

/* Acquire: what was done while they were quiet is seen. */
static bool is_quiet(void)
{
	return __atomic_load_n(&quiet, __ATOMIC_ACQUIRE);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* Until it is time, or the gate shuts. */
static void wait_until(uint64_t time)
{
	uint64_t now;

	while ((now = bench_now()) < time && !is_quiet()) {
		struct timespec t = {.tv_nsec = NAP_NS / 2};

		if (time - now > NAP_NS)
			nanosleep(&t, NULL);
		else
			relax();
	}
}

static void operate(struct snap_writer *w, uint64_t *last)
{
	uint64_t interval = snap_want.rate ? snap_want.writers * 1000000000u /
						     snap_want.rate
					   : 0;
	struct snap_op op;
	uint64_t intended = *last, now;
	unsigned in;

	if (interval) {
		intended = w->start_ns + w->stream.made * interval;
		wait_until(intended);
		if (is_quiet())
			return;
	}
	op = snap_stream_next(&w->stream);
	snap_store(memory, &op);
	now = bench_now();
	in = __atomic_load_n(&phase, __ATOMIC_RELAXED);
	w->ops[in]++;
	bench_histogram_add(w->hist[in], now - intended);
	*last = now;
}

static void *write_main(void *arg)
{
	struct snap_writer *w = arg;
	uint64_t last;

	prctl(PR_SET_TIMERSLACK, 1);
	w->start_ns = last = bench_now();
	do {
		while (!is_quiet())
			operate(w, &last);
	} while (pass_gate());
	return NULL;
}

void snap_writers_setup(char *to)
{
	unsigned i, k;

	memory = to;
	for (i = 0; i < snap_want.writers; i++) {
		snap_stream_open(&snap_writer[i].stream, i);
		for (k = 0; k < SNAP_PHASES; k++)
			snap_writer[i].hist[k] = bench_histogram_create();
	}
}

void snap_writers_start(void)
{
	unsigned i;

	snap_phase_set(SNAP_BEFORE);
	for (i = 0; i < snap_want.writers; i++) {
		if (pthread_create(&snap_writer[i].thread, NULL, write_main,
				   &snap_writer[i]))
			bench_die("no thread for a writer");
	}
}

void snap_writers_stop(void)
{
	unsigned i;

	pthread_mutex_lock(&lock);
	__atomic_store_n(&quiet, 1, __ATOMIC_RELEASE);
	while (parked < snap_want.writers)
		pthread_cond_wait(&all_parked, &lock);
	/* The lock orders it after their last operation. */
	for (i = 0; i < snap_want.writers; i++)
		snap_writer[i].at_moment = snap_writer[i].stream.made;
	pthread_mutex_unlock(&lock);
}

void snap_writers_resume(void)
{
	pthread_mutex_lock(&lock);
	/* Release: see is_quiet(). */
	__atomic_store_n(&quiet, 0, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&may_go);
	pthread_mutex_unlock(&lock);
}

void snap_writers_end(void)
{
	unsigned i;

	pthread_mutex_lock(&lock);
	end = true;
	__atomic_store_n(&quiet, 1, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&may_go);
	pthread_mutex_unlock(&lock);
	for (i = 0; i < snap_want.writers; i++)
		pthread_join(snap_writer[i].thread, NULL);
}
