/* SPDX-License-Identifier: MIT */
/* Tables and JSON of a series. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/driver.h"

static const struct column work[] = {
	{"wall s", "wall_s", 1, 2},
	{"kops/s", "throughput", 1e3, 1},
	{"peak MiB", "peak_rss", 1 << 20, 0},
	{"CPU s", "cpu_s", 1, 2},
	{"of it coll.", "collector_cpu_s", 1, 2},
	{"cycles", "cycles", 1, 0},
	{NULL, NULL, 0, 0},
};

static const struct column latency[] = {
	{"p50 us", "p50_ns", 1e3, 2},
	{"p99 us", "p99_ns", 1e3, 1},
	{"p99.9 us", "p999_ns", 1e3, 1},
	{"max ms", "max_ns", 1e6, 3},
	{NULL, NULL, 0, 0},
};

/* Own figures of the collector, and what was seen from outside. */
static const struct column holds[] = {
	{"pause ms (own)", "pause_max_ns", 1e6, 3},
	{"of it assist", "assist_max_ns", 1e6, 3},
	{"handshake", "handshake_max_ns", 1e6, 3},
	{"stall ms (seen)", "stall_max_ns", 1e6, 3},
	{"seen less own", "stall_over_pause_ns", 1e6, 3},
	{"MMU 10 ms, %", "mmu10", 0.01, 1},
	{NULL, NULL, 0, 0},
};

static const struct column ratios[] = {
	{"wall", "wall_s", 1, 3},
	{"throughput", "throughput", 1, 3},
	{"CPU", "cpu_s", 1, 3},
	{"peak memory", "peak_rss", 1, 3},
	{"p99.9", "p999_ns", 1, 3},
	{"longest pause", "pause_max_ns", 1, 5},
	{"longest stall", "stall_max_ns", 1, 5},
	{NULL, NULL, 0, 0},
};

static const struct column *const rows_of_all[] = {work, latency, holds, NULL};
static const struct table standard = {rows_of_all, ratios};

static const struct table *table_of(const struct series *s)
{
	return s->table ? s->table : &standard;
}

#define CELL 28

static void format(char *cell, struct spread v, const struct column *c)
{
	if (v.n == 0)
		snprintf(cell, CELL, "-");
	else if (v.n == 1)
		snprintf(cell, CELL, "%.*f", c->digits, v.median / c->divisor);
	else
		snprintf(cell, CELL, "%.*f (%.*f..%.*f)", c->digits,
			 v.median / c->divisor, c->digits, v.min / c->divisor,
			 c->digits, v.max / c->divisor);
}

static void heads(FILE *f, const char *first, const struct column *c)
{
	fprintf(f, "\n%-24s", first);
	for (; c->head; c++)
		fprintf(f, " %-27s", c->head);
	fprintf(f, "\n");
}

static const char *aborted(const struct outcome *o)
{
	static char text[64];

	snprintf(text, sizeof(text), "aborted: %s", strsignal(o->signal));
	return text;
}

/* The first outcome that is none, or NULL. */
static const struct outcome *first_aborted(const struct series *s, size_t peer)
{
	unsigned i;

	for (i = 0; i < s->rounds; i++) {
		if (s->run[peer][i].kind == OUTCOME_ABORTED)
			return &s->run[peer][i];
	}
	return NULL;
}

static void rows(const struct series *s, FILE *f, const struct column *columns)
{
	const struct outcome *dead;
	const struct column *c;
	char cell[CELL];
	size_t i;

	heads(f, "median (min..max)", columns);
	for (i = 0; i < s->peers; i++) {
		fprintf(f, "%-24.24s", s->peer[i]->name);
		dead = first_aborted(s, i);
		if (dead) {
			fprintf(f, " %s\n", aborted(dead));
			continue;
		}
		for (c = columns; c->head; c++) {
			format(cell, series_field(s, (int)i, c->key), c);
			fprintf(f, " %-27s", cell);
		}
		fprintf(f, "\n");
	}
}

static void trials(const struct series *s, FILE *f)
{
	const struct outcome *o;
	size_t i;

	if (!s->trials)
		return;
	fprintf(f, "\nlibgc's configurations, medians of %u runs each\n",
		s->trial_runs);
	for (i = 0; i < s->trials; i++) {
		fprintf(f, "  %-18s ", s->tried[i]->name);
		/* The last: one that died is not run again. */
		o = &s->trial[i][s->trial_runs - 1];
		if (o->kind == OUTCOME_ABORTED) {
			fprintf(f, "%s\n", aborted(o));
			continue;
		}
		fprintf(f,
			"%8.3f s, peak %.0f MiB, longest stop %.3f ms, "
			"longest stall %.3f ms, %.0f cycles%s\n",
			series_trial(s, i, "wall_s"),
			series_trial(s, i, "peak_rss") / (1 << 20),
			series_trial(s, i, "pause_max_ns") / 1e6,
			series_trial(s, i, "stall_max_ns") / 1e6,
			series_trial(s, i, "cycles"),
			s->tried[i]->not_chosen
				? " (never chosen: interior references in the "
				  "heap do not hold)"
				: "");
	}
}

/* Of all runs: what others took, or the hypervisor. */
static struct spread disturbance(const struct series *s, bool stolen)
{
	double values[MAX_PEERS * MAX_ROUNDS];
	size_t n = 0, i;
	unsigned k;

	for (i = 0; i < s->peers; i++) {
		for (k = 0; k < s->rounds; k++)
			values[n++] = stolen ? s->run[i][k].stolen_ms
					     : s->run[i][k].foreign;
	}
	return spread_of(values, n);
}

/* Workload and parameters as some peer took them. */
static const char *params(const struct series *s)
{
	const struct outcome *o;
	unsigned k;
	size_t i;

	for (i = 0; i < s->peers; i++) {
		for (k = 0; k < s->rounds; k++) {
			o = &s->run[i][k];
			if (o->kind == OUTCOME_DONE)
				return record_text(&o->record[0], "params");
		}
	}
	return "every run aborted";
}

void table_print(const struct series *s, FILE *f)
{
	const struct column *const *part;
	const struct column *c;
	struct spread busy = disturbance(s, false);
	struct spread stolen = disturbance(s, true);
	char cell[CELL], pair[128];
	size_t i;

	fprintf(f, "== %s: %s, %u pair%s\n", s->args[0], params(s), s->rounds,
		s->rounds == 1 ? "" : "s");
	fprintf(f,
		"   other processes had %.0f %% of the machine "
		"(%.0f..%.0f)%s\n",
		100 * busy.median, 100 * busy.min, 100 * busy.max,
		busy.max > 0.05 ? ": THE FIGURES ARE DISTURBED" : "");
	if (stolen.max > 0)
		fprintf(f,
			"   the hypervisor took %.0f ms (%.0f..%.0f) of a "
			"run's processors: longest waits may be its\n",
			stolen.median, stolen.min, stolen.max);
	trials(s, f);
	for (part = table_of(s)->rows; *part; part++)
		rows(s, f, *part);
	if (s->peers < 2) {
		fprintf(f, "\n");
		return;
	}
	heads(f, "ratio to the first", table_of(s)->ratios);
	for (i = 1; i < s->peers; i++) {
		snprintf(pair, sizeof(pair), "%s/%s", s->peer[0]->name,
			 s->peer[i]->name);
		fprintf(f, "%-24.24s", pair);
		for (c = table_of(s)->ratios; c->head; c++) {
			format(cell, series_ratio(s, 0, (int)i, c->key), c);
			fprintf(f, " %-27s", cell);
		}
		fprintf(f, "\n");
	}
	fprintf(f, "\n");
	fflush(f);
}

static void json_outcome(const struct outcome *o, FILE *f)
{
	if (o->kind == OUTCOME_DONE)
		fprintf(f, "%s", o->record[0].json);
	else
		fprintf(f, "{\"aborted\":%d}", o->signal);
}

static void json_spread(const char *key, struct spread v, FILE *f)
{
	if (v.n == 0)
		fprintf(f, "\"%s\":null", key);
	else
		fprintf(f, "\"%s\":{\"median\":%.9g,\"min\":%.9g,\"max\":%.9g}",
			key, v.median, v.min, v.max);
}

void table_json(const struct series *s, FILE *f)
{
	const struct column *c;
	struct spread busy = disturbance(s, false);
	struct spread stolen = disturbance(s, true);
	unsigned k;
	size_t i;

	fprintf(f, "{\"workload\":\"%s\",\"pairs\":%u,", s->args[0], s->rounds);
	json_spread("foreign_cpu", busy, f);
	fprintf(f, ",");
	json_spread("stolen_ms", stolen, f);
	fprintf(f, ",\"trials\":{");
	for (i = 0; i < s->trials; i++) {
		fprintf(f, "%s\"%s\":[", i ? "," : "", s->tried[i]->name);
		for (k = 0; k < s->trial_runs; k++) {
			fprintf(f, "%s", k ? "," : "");
			json_outcome(&s->trial[i][k], f);
		}
		fprintf(f, "]");
	}
	fprintf(f, "},\"runs\":{");
	for (i = 0; i < s->peers; i++) {
		fprintf(f, "%s\"%s\":[", i ? "," : "", s->peer[i]->name);
		for (k = 0; k < s->rounds; k++) {
			fprintf(f, "%s", k ? "," : "");
			json_outcome(&s->run[i][k], f);
		}
		fprintf(f, "]");
	}
	fprintf(f, "},\"ratios\":{");
	for (i = 1; i < s->peers; i++) {
		fprintf(f, "%s\"%s/%s\":{", i > 1 ? "," : "", s->peer[0]->name,
			s->peer[i]->name);
		for (c = table_of(s)->ratios; c->head; c++) {
			fprintf(f, "%s", c == table_of(s)->ratios ? "" : ",");
			json_spread(c->key, series_ratio(s, 0, (int)i, c->key),
				    f);
		}
		fprintf(f, "}");
	}
	fprintf(f, "}}");
}
