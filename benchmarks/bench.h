/* SPDX-License-Identifier: MIT */
/*
 * What a workload is given and what it must deliver.
 *
 * Each peer (weir, libgc, glibc's malloc, jemalloc) is a program of its own,
 * made of the same workload sources over benchmarks/shim.h.  It runs one
 * workload and prints one line of JSON; benchmarks/weir_bench.c runs the
 * peers in turn and compares.
 *
 * A run has two phases.  Up to bench_begin() the workload builds what is to
 * live; between bench_begin() and bench_end() it does what is measured.  All
 * figures are of the second phase but for the peak memory, which is the
 * process's, and those that say `all` in their names.
 *
 * The collector's CPU time is that of its own threads and of stops.  What a
 * mutator sweeps while it allocates counts as the mutator's, with weir and with
 * libgc alike, and weir's is known only up to the last cycle that ended.  So no
 * judgement rests on it: the CPU time of the whole process stands beside it in
 * every table.
 */
#ifndef WEIR_BENCH_BENCH_H
#define WEIR_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "benchmarks/latency.h"
#include "benchmarks/shim.h"

/* A parameter of a workload, given as --name value. */
struct bench_option {
	const char *name;  /* without the dashes; NULL ends a table */
	const char *value; /* the default, then what was given */
	const char *help;  /* one line */
};

/* One run, and its results. */
struct bench_run {
	bench_mutator *mutator;      /* of the main thread */
	struct bench_option *option; /* the workload's table */
	bool idle;                   /* the collector was told to stay idle */
	uint64_t begin_ns;           /* clock at bench_begin() */
	uint64_t wall_ns;            /* length of the measured phase */
	uint64_t setup_ns;           /* length of what came before it */
	uint64_t ops;                /* operations done; set by the workload */
	uint64_t checksum;           /* the same for every peer; ditto */
	uint64_t live_bytes;         /* built before bench_begin(), or 0 */
	struct bench_meter meter;    /* latencies and gaps, see latency.h */
	bool has_latency;            /* meter.latency was filled */
	bool may_not_collect;        /* no cycle is no error */
};

struct bench_workload {
	const char *name;            /* as given on the command line */
	const char *about;           /* one line */
	struct bench_option *option; /* its parameters */
	void (*run)(struct bench_run *run);
};

extern const struct bench_workload bench_gcbench;
extern const struct bench_workload bench_binary_trees;
extern const struct bench_workload bench_mt_trees;
extern const struct bench_workload bench_graph_latency;
extern const struct bench_workload bench_churn;
extern const struct bench_workload bench_write_storm;

/* Print to standard error and exit with status 2. */
void bench_die(const char *format, ...)
	__attribute__((noreturn, format(printf, 1, 2), cold));

/* The value of a parameter.  Sizes may end in k, m, g.  Dies if the value is
 * malformed, and if the workload has no such parameter. */
const char *bench_text(const struct bench_run *run, const char *name);
uint64_t bench_number(const struct bench_run *run, const char *name);

/* The borders of the measured phase; on the main thread, once each. */
void bench_begin(struct bench_run *run);
void bench_end(struct bench_run *run);

static inline uint64_t bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A small, fast generator (xorshift64*): the same series for every peer. */
struct bench_random {
	uint64_t state; /* never 0 */
};

static inline uint64_t bench_random_next(struct bench_random *r)
{
	uint64_t x = r->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	r->state = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* Uniform in [0, n), n < 2^32. */
static inline uint64_t bench_random_below(struct bench_random *r, uint64_t n)
{
	return (bench_random_next(r) >> 32) * n >> 32;
}

#endif
