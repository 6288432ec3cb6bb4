/* SPDX-License-Identifier: MIT */
/* The table of bench-barrier's figures: each back end of the write barrier
 * against a bare loop of the same system calls and faults, in one process. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/driver.h"

static const struct {
	const char *key;  /* in the records */
	const char *head; /* in the table */
	double divisor;   /* from nanoseconds */
} figures[] = {
	{"write_ns", "first write, us", 1e3},
	{"arm_ns_per_gib", "arm, ms/GiB", 1e6},
	{"clean_ns_per_gib", "scan clean, ms/GiB", 1e6},
	{"fetch_ns_per_gib", "scan dirty, ms/GiB", 1e6},
};
#define FIGURES (sizeof(figures) / sizeof(figures[0]))

/* Figures of one back end by one implementation, over the rounds. */
static size_t values_of(const struct outcome *o, const char *barrier,
			const char *peer, const char *key, double *values)
{
	const struct record *r;
	size_t i, n = 0;

	for (i = 0; i < o->records && n < MAX_ROUNDS; i++) {
		r = &o->record[i];
		if (!strcmp(record_text(r, "barrier"), barrier) &&
		    !strcmp(record_text(r, "peer"), peer))
			values[n++] = record_number(r, key);
	}
	return n;
}

static struct spread ratio_of(const struct outcome *o, const char *barrier,
			      const char *key)
{
	double weir[MAX_ROUNDS], bare[MAX_ROUNDS];
	size_t n = values_of(o, barrier, "weir", key, weir), i;

	if (n == 0 || values_of(o, barrier, "bare", key, bare) != n)
		return spread_of(weir, 0);
	for (i = 0; i < n; i++)
		weir[i] /= bare[i];
	return spread_of(weir, n);
}

/* One figure of one back end. */
static void line(const struct outcome *o, const char *barrier, size_t k,
		 struct spread ratio)
{
	const char *key = figures[k].key;
	double values[MAX_ROUNDS], unit = figures[k].divisor;
	struct spread weir, bare;

	weir = spread_of(values, values_of(o, barrier, "weir", key, values));
	bare = spread_of(values, values_of(o, barrier, "bare", key, values));
	printf("%-10s %-20s", barrier, figures[k].head);
	printf(" %8.3f (%.3f..%.3f)", weir.median / unit, weir.min / unit,
	       weir.max / unit);
	printf("  bare %8.3f (%.3f..%.3f)", bare.median / unit, bare.min / unit,
	       bare.max / unit);
	printf("  ratio %.3f (%.3f..%.3f)\n", ratio.median, ratio.min,
	       ratio.max);
}

static void json(const struct outcome *o)
{
	size_t i;

	printf("{\"workload\":\"barrier\",\"runs\":[");
	for (i = 0; i < o->records; i++)
		printf("%s%s", i ? "," : "", o->record[i].json);
	printf("]}");
}

/* Back ends in the order of their records; tell each once. */
static void table(const struct outcome *o, bool print, barrier_fn *fn)
{
	const char *barrier, *last = "";
	struct spread ratio;
	size_t i, k;

	for (i = 0; i < o->records; i++) {
		barrier = record_text(&o->record[i], "barrier");
		if (!strcmp(barrier, last))
			continue;
		last = barrier;
		for (k = 0; k < FIGURES; k++) {
			ratio = ratio_of(o, barrier, figures[k].key);
			if (print)
				line(o, barrier, k, ratio);
			if (fn)
				fn(barrier, figures[k].head, ratio);
		}
	}
}

bool barrier_run(unsigned rounds, const char *const *args, bool as_json,
		 barrier_fn *fn)
{
	char text[16];
	struct peer peer = {.name = "barrier", .program = "bench-barrier"};
	struct outcome o;

	snprintf(text, sizeof(text), "%u", rounds);
	peer.word[0] = "--rounds";
	peer.word[1] = text;
	run_peer(&peer, args + 1, &o);
	if (o.kind != OUTCOME_DONE) {
		fprintf(stderr, "weir-bench: barrier: %s\n", o.why);
		return false;
	}
	if (!as_json)
		printf("== barrier: %s, %u rounds\n   other processes had "
		       "%.0f %% of the machine%s\n",
		       record_text(&o.record[0], "params"), rounds,
		       100 * o.foreign,
		       o.foreign > 0.05 ? ": THE FIGURES ARE DISTURBED" : "");
	else
		json(&o);
	table(&o, !as_json, fn);
	if (!as_json)
		printf("\n");
	return true;
}
