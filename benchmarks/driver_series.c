/* SPDX-License-Identifier: MIT */
/* The peers, and running them in turn. */
#define _GNU_SOURCE /* asprintf() */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/driver.h"

static const struct peer peers[] = {
	{.name = "weir", .program = "bench-weir"},
	{.name = "weir-idle", .program = "bench-weir", .word = {"--idle"}},
	{.name = "libgc", .program = "bench-gc", .is_gc = true},
	{.name = "libgc-incremental",
	 .program = "bench-gc",
	 .env = {"GC_ENABLE_INCREMENTAL=1"},
	 .may_abort = true,
	 .is_gc = true},
	{.name = "libgc-markers=1",
	 .program = "bench-gc",
	 .env = {"GC_MARKERS=1"},
	 .is_gc = true},
	{.name = "libgc-markers=2",
	 .program = "bench-gc",
	 .env = {"GC_MARKERS=2"},
	 .is_gc = true},
	{.name = "libgc-nprocs=1",
	 .program = "bench-gc",
	 .env = {"GC_NPROCS=1"},
	 .is_gc = true},
	{.name = "libgc-single",
	 .program = "bench-gc",
	 .word = {"--single"},
	 .is_gc = true},
	{.name = "libgc-no-interior",
	 .program = "bench-gc",
	 .word = {"--no-interior"},
	 .is_gc = true,
	 .not_chosen = true},
	{.name = "libgc-idle", .program = "bench-gc", .word = {"--idle"}},
	{.name = "guile-weir", .program = "bench-guile", .word = {"weir"}},
	{.name = "guile-libgc", .program = "bench-guile", .word = {"libgc"}},
	{.name = "malloc", .program = "bench-malloc"},
	{.name = "jemalloc", .program = "bench-jemalloc"},
	{.name = "snapshot-weir",
	 .program = "bench-snapshot",
	 .word = {"--method", "weir"}},
	{.name = "snapshot-sigbus",
	 .program = "bench-snapshot",
	 .word = {"--method", "sigbus"}},
	{.name = "snapshot-end",
	 .program = "bench-snapshot",
	 .word = {"--method", "end"}},
	{.name = "snapshot-fork",
	 .program = "bench-snapshot",
	 .word = {"--method", "fork"}},
};
#define PEERS (sizeof(peers) / sizeof(peers[0]))

const struct peer *peer_find(const char *name)
{
	size_t i;

	for (i = 0; i < PEERS; i++) {
		if (!strcmp(peers[i].name, name))
			return &peers[i];
	}
	return NULL;
}

void peers_print(FILE *f)
{
	size_t i, k;

	for (i = 0; i < PEERS; i++) {
		fprintf(f, "  %-18s ", peers[i].name);
		for (k = 0; k < PEER_WORDS && peers[i].env[k]; k++)
			fprintf(f, "%s ", peers[i].env[k]);
		fprintf(f, "%s", peers[i].program);
		for (k = 0; k < PEER_WORDS && peers[i].word[k]; k++)
			fprintf(f, " %s", peers[i].word[k]);
		fprintf(f, "\n");
	}
}

const struct peer *peer_weir_options(const char *options)
{
	struct peer *p = calloc(1, sizeof(*p));
	char *name = NULL, *env = NULL;

	if (!p || asprintf(&name, "weir:%s", options) < 0 ||
	    asprintf(&env, "WEIR_OPTIONS=%s", options) < 0)
		abort();
	p->name = name;
	p->program = "bench-weir";
	p->env[0] = env;
	return p;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct spread spread_of(double *values, size_t n)
{
	struct spread s = {NAN, NAN, NAN, 0};

	if (n == 0)
		return s;
	qsort(values, n, sizeof(*values), by_value);
	s.median = (values[(n - 1) / 2] + values[n / 2]) / 2;
	s.min = values[0];
	s.max = values[n - 1];
	s.n = n;
	return s;
}

/* All peers of a workload must do the same work, but for those that have
 * parameters of their own.  False if they did not. */
static bool same_work(struct series *s, const struct outcome *o,
		      const struct peer *peer)
{
	const char *sum = record_text(&o->record[0], "checksum");

	if (peer->arg[0])
		return true;
	if (!s->checksum[0])
		snprintf(s->checksum, sizeof(s->checksum), "%s", sum);
	if (!strcmp(sum, s->checksum))
		return true;
	fprintf(stderr,
		"weir-bench: %s: %s did other work than the first peer: "
		"checksum %s, not %s\n",
		s->args[0], peer->name, sum, s->checksum);
	return false;
}

static bool run_one(struct series *s, const struct peer *peer,
		    struct outcome *o)
{
	run_peer(peer, s->args, o);
	if (o->kind == OUTCOME_FAILED) {
		fprintf(stderr, "weir-bench: %s: %s\n", s->args[0], o->why);
		return false;
	}
	if (o->kind == OUTCOME_ABORTED)
		return true;
	return same_work(s, o, peer);
}

static double value_of(const struct outcome *o, const char *key)
{
	if (o->kind != OUTCOME_DONE)
		return NAN;
	return record_number(&o->record[0], key);
}

#define TRIAL_RUNS 3

double series_trial(const struct series *s, size_t tried, const char *key)
{
	double values[TRIAL_RUNS];
	unsigned k;

	for (k = 0; k < s->trial_runs; k++) {
		values[k] = value_of(&s->trial[tried][k], key);
		if (isnan(values[k]))
			return NAN;
	}
	return spread_of(values, s->trial_runs).median;
}

static const struct peer *chosen_gc(const struct series *s, const char *key)
{
	const struct peer *best = NULL;
	double value, least = INFINITY;
	size_t i;

	for (i = 0; i < s->trials; i++) {
		value = series_trial(s, i, key);
		/* False of NAN. */
		if (!s->tried[i]->not_chosen && value < least) {
			least = value;
			best = s->tried[i];
		}
	}
	return best;
}

const struct peer *series_choose_gc(struct series *s, const char *key)
{
	struct outcome *o;
	unsigned k;
	size_t i;

	s->trial_runs = TRIAL_RUNS;
	for (i = 0; i < PEERS; i++) {
		if (!peers[i].is_gc)
			continue;
		s->tried[s->trials] = &peers[i];
		s->trial[s->trials] = calloc(TRIAL_RUNS, sizeof(*o));
		if (!s->trial[s->trials++])
			abort();
	}
	for (k = 0; k < TRIAL_RUNS; k++) {
		for (i = 0; i < s->trials; i++) {
			o = s->trial[i];
			if (k && o[k - 1].kind == OUTCOME_ABORTED)
				o[k] = o[k - 1];
			else if (!run_one(s, s->tried[i], &o[k]))
				return NULL;
		}
	}
	return chosen_gc(s, key);
}

bool series_run(struct series *s)
{
	unsigned round;
	size_t i, k;

	for (i = 0; i < s->peers; i++) {
		s->run[i] = calloc(s->rounds, sizeof(*s->run[i]));
		if (!s->run[i])
			abort();
	}
	for (round = 0; round < s->rounds; round++) {
		for (i = 0; i < s->peers; i++) {
			/* Every other round the other way around, so that
			 * none always runs just after the same neighbour. */
			k = round % 2 ? s->peers - 1 - i : i;
			if (!run_one(s, s->peer[k], &s->run[k][round]))
				return false;
		}
	}
	return true;
}

int series_index(const struct series *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->peers; i++) {
		if (!strcmp(s->peer[i]->name, name))
			return (int)i;
	}
	return -1;
}

struct spread series_field(const struct series *s, int peer, const char *key)
{
	double values[MAX_ROUNDS];
	unsigned i;

	for (i = 0; i < s->rounds; i++) {
		values[i] = value_of(&s->run[peer][i], key);
		if (isnan(values[i]))
			return spread_of(values, 0);
	}
	return spread_of(values, s->rounds);
}

struct spread series_ratio(const struct series *s, int a, int b,
			   const char *key)
{
	double values[MAX_ROUNDS];
	unsigned i;

	for (i = 0; i < s->rounds; i++) {
		values[i] = value_of(&s->run[a][i], key) /
			    value_of(&s->run[b][i], key);
		if (!isfinite(values[i]))
			return spread_of(values, 0);
	}
	return spread_of(values, s->rounds);
}

int series_best_gc(const struct series *s, const char *key, bool largest)
{
	struct spread v;
	double most = -INFINITY, value;
	int best = -1;
	size_t i;

	for (i = 0; i < s->peers; i++) {
		v = series_field(s, (int)i, key);
		if (!s->peer[i]->is_gc || s->peer[i]->not_chosen || v.n == 0)
			continue;
		value = largest ? v.median : -v.median;
		if (value > most) {
			most = value;
			best = (int)i;
		}
	}
	return best;
}

double series_max(const struct series *s, int peer, const char *key)
{
	struct spread v = series_field(s, peer, key);

	return v.n ? v.max : NAN;
}
