/* SPDX-License-Identifier: MIT */
/*
 * write-storm: references are stored all over a live graph as fast as can be,
 * nothing is allocated, and with --collect continual a second thread makes
 * the collector run cycle after cycle.  What a store costs beside the
 * collector, against --collect off, is the price of the write barrier and of
 * stops.
 */
#include <string.h>

#include "benchmarks/graph.h"

#define TICK_WRITES 256u

static bool stop; /* atomic: set by the main thread, read by collect_all */

static void collect_all(bench_mutator *m, void *arg)
{
	uint64_t *cycles = arg;

	(void)m;
	do {
		bench_collect();
		++*cycles;
		/* Relaxed: nothing else is published by it. */
	} while (!__atomic_load_n(&stop, __ATOMIC_RELAXED));
}

static void run_storm(struct bench_run *run)
{
	const char *collect = bench_text(run, "collect");
	struct bench_random r = {0x9e3779b97f4a7c15ull};
	struct bench_thread collector = {.fn = collect_all};
	bool continual = !strcmp(collect, "continual");
	uint64_t cycles = 0, i, from, to, deadline, storm_ns;

	if (!continual && strcmp(collect, "off"))
		bench_die("--collect is continual or off, not \"%s\"", collect);
	/* Told to be idle, or without a collector: the storm alone. */
	if (run->idle || !BENCH_COLLECTS)
		continual = false;
	run->may_not_collect = !continual;
	graph_build(run->mutator, bench_number(run, "live"), &r);
	run->live_bytes = graph_bytes();
	bench_meter_create(&run->meter, 0);
	collector.arg = &cycles;

	bench_begin(run);
	deadline = run->begin_ns + bench_number(run, "ms") * 1000000u;
	if (continual)
		bench_thread_start(&collector);
	do {
		for (i = 0; i < TICK_WRITES; i++) {
			from = bench_random_below(&r, graph.slots);
			to = bench_random_below(&r, graph.slots);
			graph_anchor(from)->ref[i % GRAPH_REFS] =
				graph_anchor(to);
		}
		run->ops += TICK_WRITES;
		bench_meter_tick(&run->meter, bench_now());
	} while (run->meter.last < deadline);
	/* Waiting for the last cycle is no part of the storm. */
	storm_ns = run->meter.last - run->begin_ns;
	if (continual) {
		__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
		bench_thread_join(run->mutator, &collector);
	}
	bench_end(run);
	run->wall_ns = storm_ns;
	/* How far the storm got differs from run to run: what it wrote is
	 * checked, but has no place in a checksum that all peers share. */
	graph_check();
	run->checksum = graph.slots;
}

static struct bench_option options[] = {
	{"live", "256m", "bytes of the live graph"},
	{"ms", "4000", "length of the storm, milliseconds"},
	{"collect", "continual", "the collector: continual, off"},
	{NULL, NULL, NULL},
};

const struct bench_workload bench_write_storm = {
	.name = "write-storm",
	.about = "stores all over a live graph beside a busy collector",
	.option = options,
	.run = run_storm,
};
