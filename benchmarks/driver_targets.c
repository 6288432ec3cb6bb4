/* SPDX-License-Identifier: MIT */
/*
 * What the project promises, measured: weir-bench targets.
 *
 * A ratio is judged by its median over the pairs.  A longest pause or stall
 * is judged by the longest of weir's over all rounds, against the median of
 * libgc's longest, and against the longest of the idle loop's.  A figure that
 * is missing is a target missed.
 *
 * libgc is taken at its best: of its configurations the one with the best
 * median of three runs or of all rounds, for each figure.
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/driver.h"

#define MAX_TARGETS 128

/* One promise and what came of it. */
struct target {
	char bench[48];   /* workload and shape */
	const char *what; /* the figure */
	double value;     /* measured; NAN: it could not be */
	double limit;     /* of the value */
	bool at_least;    /* the limit is a lower one */
	char note[96];    /* the figures behind it */
};

static struct target target[MAX_TARGETS];
static size_t targets;
static bool json, first_series;
static unsigned rounds;

static bool is_met(const struct target *t)
{
	/* False of NAN either way. */
	return t->at_least ? t->value >= t->limit : t->value <= t->limit;
}

static struct target *judge(const char *bench, const char *what, double value,
			    bool at_least, double limit)
{
	struct target *t = &target[targets];

	if (targets + 1 < MAX_TARGETS)
		targets++;
	snprintf(t->bench, sizeof(t->bench), "%s", bench);
	t->what = what;
	t->value = value;
	t->at_least = at_least;
	t->limit = limit;
	return t;
}

static void judge_ratio(const char *bench, const char *what,
			const struct series *s, int a, int b, const char *key,
			bool at_least, double limit)
{
	struct spread r = series_ratio(s, a, b, key);
	struct target *t;

	t = judge(bench, what, r.n ? r.median : NAN, at_least, limit);
	if (r.n)
		snprintf(t->note, sizeof(t->note), "%.3f..%.3f", r.min, r.max);
}

/* Longest of weir's (peer a) against a figure of another peer, in ms. */
static void judge_longest(const char *bench, const char *what, double ours,
			  double theirs, double limit)
{
	struct target *t = judge(bench, what, ours / theirs, false, limit);

	snprintf(t->note, sizeof(t->note), "%.3f ms against %.3f ms",
		 ours / 1e6, theirs / 1e6);
}

static void tell(const struct series *s)
{
	if (!json) {
		table_print(s, stdout);
		return;
	}
	printf("%s", first_series ? "" : ",\n");
	first_series = false;
	table_json(s, stdout);
}

/* The trees: faster than libgc's best, not much larger. */
static bool trees(const char *const *args, const char *name)
{
	struct series s = {.args = args, .rounds = rounds, .peers = 3};

	s.peer[0] = peer_find("weir");
	s.peer[1] = series_choose_gc(&s, "wall_s");
	s.peer[2] = peer_find("weir-idle");
	if (!s.peer[1] || !series_run(&s))
		return false;
	tell(&s);
	judge_ratio(name, "wall time / libgc's best", &s, 0, 1, "wall_s", false,
		    0.67);
	judge_ratio(name, "peak memory / libgc's", &s, 0, 1, "peak_rss", false,
		    1.2);
	return true;
}

#define GRAPH_OPS "1500000"
#define GRAPH_RATE "150000"

/* The configurations of libgc that differ on large heaps.  One that died once
 * is of no use in later rounds, but costs little. */
static void add_gc_peers(struct series *s)
{
	static const char *const names[] = {"libgc", "libgc-incremental",
					    "libgc-markers=1",
					    "libgc-markers=2"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		s->peer[s->peers++] = peer_find(names[i]);
}

/* 1 GiB, as fast as possible, with all configurations of libgc.  *calmest is
 * the one whose longest stop was shortest, for the next series. */
static bool graph_fast(const char *shape, const char *name,
		       const struct peer **calmest)
{
	const char *args[] = {"graph-latency", "--live", "1g",      "--shape",
			      shape,           "--ops",  GRAPH_OPS, NULL};
	struct series s = {.args = args, .rounds = rounds, .peers = 1};
	int best, calm;

	s.peer[0] = peer_find("weir");
	/* What stops libgc for long is the live heap: where operations go makes
	 * no difference, so one shape tells. */
	if (*calmest)
		s.peer[s.peers++] = *calmest;
	else
		add_gc_peers(&s);
	if (!series_run(&s))
		return false;
	tell(&s);
	best = series_best_gc(&s, "throughput", true);
	calm = series_best_gc(&s, "pause_max_ns", false);
	if (best < 0 || calm < 0) {
		fprintf(stderr, "weir-bench: no configuration of libgc could "
				"be run\n");
		return false;
	}
	*calmest = s.peer[calm];
	judge_ratio(name, "throughput / libgc's best", &s, 0, best,
		    "throughput", true, 0.9);
	return true;
}

/* 1 GiB, operations arriving at a fixed rate. */
static bool graph_rated(const char *shape, const char *name,
			const struct peer *libgc)
{
	const char *args[] = {"graph-latency", "--live", "1g",      "--shape",
			      shape,           "--ops",  GRAPH_OPS, "--rate",
			      GRAPH_RATE,      NULL};
	struct series s = {.args = args, .rounds = rounds, .peers = 3};
	double pause, stall, idle;

	s.peer[0] = peer_find("weir");
	s.peer[1] = libgc;
	s.peer[2] = peer_find("weir-idle");
	if (!series_run(&s))
		return false;
	tell(&s);
	pause = series_max(&s, 0, "pause_max_ns");
	stall = series_max(&s, 0, "stall_max_ns");
	idle = series_max(&s, 2, "stall_max_ns");
	judge_longest(name, "longest pause / libgc's longest stop", pause,
		      series_field(&s, 1, "pause_max_ns").median, 1.0 / 500);
	judge_longest(name, "longest stall seen / libgc's", stall,
		      series_field(&s, 1, "stall_max_ns").median, 1.0 / 100);
	judge_longest(name, "longest stall seen / noise", stall, idle, 2);
	judge_ratio(name, "peak memory / libgc's", &s, 0, 1, "peak_rss", false,
		    1);
	judge_ratio(name, "p99.9 / collector idle", &s, 0, 2, "p999_ns", false,
		    2);
	return true;
}

/* weir alone: pauses at 4 GiB against those at 256 MiB. */
static bool graph_sizes(const char *shape, const char *name)
{
	const char *args[] = {"graph-latency", "--shape", shape,      "--ops",
			      GRAPH_OPS,       "--rate",  GRAPH_RATE, NULL};
	struct peer big = {.name = "weir at 4 GiB",
			   .program = "bench-weir",
			   .arg = {"--live", "4g"}};
	struct peer small = {.name = "weir at 256 MiB",
			     .program = "bench-weir",
			     .arg = {"--live", "256m"}};
	struct series s = {.args = args, .rounds = rounds, .peers = 2};

	s.peer[0] = &big;
	s.peer[1] = &small;
	if (!series_run(&s))
		return false;
	tell(&s);
	judge_longest(name, "longest pause at 4 GiB / at 256 MiB",
		      series_max(&s, 0, "pause_max_ns"),
		      series_max(&s, 1, "pause_max_ns"), 2);
	return true;
}

static bool graph(const char *shape, const struct peer **calmest)
{
	char name[48];

	snprintf(name, sizeof(name), "graph-latency %s", shape);
	return graph_fast(shape, name, calmest) &&
	       graph_rated(shape, name, *calmest) && graph_sizes(shape, name);
}

static bool storm(void)
{
	const char *args[] = {"write-storm", "--ms", "8000", NULL};
	struct series s = {.args = args, .rounds = rounds, .peers = 3};
	int calm;

	s.peer[0] = peer_find("weir");
	s.peer[1] = peer_find("weir-idle");
	s.peer[2] = peer_find("libgc-idle");
	add_gc_peers(&s);
	if (!series_run(&s))
		return false;
	tell(&s);
	judge_ratio("write-storm", "throughput / collector off", &s, 0, 1,
		    "throughput", true, 0.8);
	calm = series_best_gc(&s, "pause_max_ns", false);
	judge_longest("write-storm", "longest pause / libgc's longest stop",
		      series_max(&s, 0, "pause_max_ns"),
		      calm < 0 ? NAN
			       : series_field(&s, calm, "pause_max_ns").median,
		      1.0 / 500);
	return true;
}

static void judge_barrier(const char *name, const char *what,
			  struct spread ratio)
{
	struct target *t;
	char bench[48];

	snprintf(bench, sizeof(bench), "barrier %s", name);
	t = judge(bench, what, ratio.median, false, 1.2);
	snprintf(t->note, sizeof(t->note), "of the bare loop's, %.3f..%.3f",
		 ratio.min, ratio.max);
}

static bool barrier(void)
{
	const char *args[] = {"barrier", NULL};

	if (json && !first_series)
		printf(",\n");
	first_series = false;
	return barrier_run(rounds, args, json, judge_barrier);
}

static void judge_snapshot(const char *bench, const char *what,
			   struct spread value, double limit)
{
	struct target *t =
		judge(bench, what, value.n ? value.median : NAN, false, limit);

	if (value.n)
		snprintf(t->note, sizeof(t->note), "%.4g..%.4g", value.min,
			 value.max);
}

static bool wanted(const char *const *names, const char *name)
{
	if (!names[0])
		return true;
	for (; *names; names++) {
		if (!strcmp(*names, name))
			return true;
	}
	return false;
}

static void summary(void)
{
	const struct target *t;
	char value[32];
	size_t i;

	for (i = 0; i < targets; i++) {
		t = &target[i];
		if (json) {
			snprintf(value, sizeof(value), "%.6g", t->value);
			printf("%s{\"bench\":\"%s\",\"what\":\"%s\","
			       "\"value\":%s,\"%s\":%.6g,\"met\":%s}",
			       i ? ",\n" : "", t->bench, t->what,
			       isfinite(t->value) ? value : "null",
			       t->at_least ? "at_least" : "at_most", t->limit,
			       is_met(t) ? "true" : "false");
		} else {
			printf("%-7s %-19s %-38s %8.4f, %s %.4f  (%s)\n",
			       is_met(t) ? "met" : "MISSED", t->bench, t->what,
			       t->value, t->at_least ? "at least" : "at most",
			       t->limit, t->note);
		}
	}
}

#define NOISE_S 5

/* Looks at the clock all the time; *gap: the longest between two looks. */
static void *look_at_clock(void *gap)
{
	double begin = seconds(), last = begin, now;

	do {
		now = seconds();
		if (now - last > *(double *)gap)
			*(double *)gap = now - last;
		last = now;
	} while (now - begin < NOISE_S);
	return NULL;
}

/* The longest time for which the machine keeps one of two threads from running
 * that do nothing else: no pause can be told from that. */
static double noise_ns(void)
{
	double gap[2] = {0, 0};
	pthread_t other;

	if (pthread_create(&other, NULL, look_at_clock, &gap[0]))
		return NAN;
	look_at_clock(&gap[1]);
	pthread_join(other, NULL);
	return fmax(gap[0], gap[1]) * 1e9;
}

/* Like judge_longest(), less what the machine took from a loop that does
 * nothing. */
static void judge_less_noise(const char *bench, const char *what, double ours,
			     double theirs, double limit)
{
	double noise = noise_ns();
	struct target *t =
		judge(bench, what, ours > noise ? (ours - noise) / theirs : 0,
		      false, limit);

	if (isnan(ours) || isnan(theirs) || isnan(noise))
		t->value = NAN;
	snprintf(t->note, sizeof(t->note),
		 "%.3f ms, the machine's own %.3f, against %.3f ms", ours / 1e6,
		 noise / 1e6, theirs / 1e6);
}

/* Guile on weir's libgc.so.1 against Debian's, both by default. */
static bool guile(const char *workload, const char *live, const char *make,
		  const char *name, bool large)
{
	const char *args[] = {workload,     "--live-mib", live,
			      "--make-mib", make,         NULL};
	struct series s = {.args = args, .rounds = rounds, .peers = 2};

	s.peer[0] = peer_find("guile-weir");
	s.peer[1] = peer_find("guile-libgc");
	if (!series_run(&s))
		return false;
	tell(&s);
	judge_ratio(name, "wall time / libgc's", &s, 0, 1, "wall_s", false,
		    0.8);
	judge_ratio(name, "peak memory / libgc's", &s, 0, 1, "peak_rss", false,
		    1.25);
	if (large)
		judge_less_noise(name, "longest pause less noise / libgc's",
				 series_max(&s, 0, "pause_max_ns"),
				 series_field(&s, 1, "pause_max_ns").median,
				 0.01);
	return true;
}

int targets_run(unsigned pairs, const char *const *names, bool as_json)
{
	static const char *const known[] = {
		"gcbench",     "binary-trees", "mt-trees", "graph-latency",
		"write-storm", "barrier",      "guile",    "snapshot"};
	enum { KNOWN = sizeof(known) / sizeof(known[0]) };
	static const char *const one[] = {"gcbench", NULL};
	static const char *const two[] = {"binary-trees", NULL};
	static const char *const mt1[] = {"mt-trees", "--mutators", "1", NULL};
	static const char *const mt2[] = {"mt-trees", "--mutators", "2", NULL};
	bool ok = true;
	size_t i, k;

	for (i = 0; names[i]; i++) {
		for (k = 0; k < KNOWN && strcmp(names[i], known[k]); k++)
			;
		if (k == KNOWN) {
			fprintf(stderr, "weir-bench: no target named \"%s\"\n",
				names[i]);
			return 2;
		}
	}
	rounds = pairs ? pairs : 3;
	json = as_json;
	first_series = true;
	if (json)
		printf("{\"series\":[");
	if (wanted(names, "gcbench"))
		ok = trees(one, "gcbench") && ok;
	if (wanted(names, "binary-trees"))
		ok = trees(two, "binary-trees") && ok;
	if (wanted(names, "mt-trees")) {
		ok = trees(mt1, "mt-trees 1") && ok;
		ok = trees(mt2, "mt-trees 2") && ok;
	}
	if (wanted(names, "graph-latency")) {
		const struct peer *calmest = NULL;

		ok = graph("wide", &calmest) && ok;
		ok = graph("hot", &calmest) && ok;
	}
	if (wanted(names, "write-storm"))
		ok = storm() && ok;
	if (wanted(names, "barrier"))
		ok = barrier() && ok;
	if (wanted(names, "guile")) {
		ok = guile("guile-trees", "50", "4096", "guile-trees, 50 MiB",
			   false) &&
		     ok;
		ok = guile("guile-trees", "1024", "8192", "guile-trees, 1 GiB",
			   true) &&
		     ok;
		ok = guile("guile-lists", "1024", "1024", "guile-lists, 1 GiB",
			   true) &&
		     ok;
	}
	if (wanted(names, "snapshot"))
		ok = snapshot_targets(pairs ? pairs : 5, judge_snapshot,
				      tell) &&
		     ok;
	if (json)
		printf("],\n\"targets\":[");
	summary();
	if (json)
		printf("],\n\"complete\":%s}\n", ok ? "true" : "false");
	if (!ok) {
		fprintf(stderr, "weir-bench: not all could be measured\n");
		return 2;
	}
	for (i = 0; i < targets; i++) {
		if (!is_met(&target[i]))
			return 1;
	}
	return 0;
}
