/* SPDX-License-Identifier: MIT */
/*
 * Snapshots against fork(): the tables, what is promised, and from which rate
 * of writes on fork() is the better one.
 *
 * What is promised is judged by medians over pairs of runs in alternation.
 * Every run has verified its image, or there is no figure.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/driver.h"

static const struct column moment[] = {
	{"begin ms", "begin_ns", 1e6, 3}, {"stop ms", "stop_ns", 1e6, 3},
	{"hot pages", "hot", 1, 0},       {"prepare ms", "prepare_ns", 1e6, 1},
	{"save ms", "save_ns", 1e6, 0},   {NULL, NULL, 0, 0},
};

static const struct column responses[] = {
	{"p50 us", "p50_ns", 1e3, 2},
	{"p99 us", "p99_ns", 1e3, 1},
	{"p99.9 us", "p999_ns", 1e3, 1},
	{"max ms, save", "max_ns", 1e6, 3},
	{"max ms, prepare", "prepare_max_ns", 1e6, 3},
	{NULL, NULL, 0, 0},
};

static const struct column noise[] = {
	{"before: p50 us", "before_p50_ns", 1e3, 2},
	{"p99 us", "before_p99_ns", 1e3, 1},
	{"p99.9 us", "before_p999_ns", 1e3, 1},
	{"max ms", "before_max_ns", 1e6, 3},
	{"kops/s", "before_throughput", 1e3, 1},
	{NULL, NULL, 0, 0},
};

static const struct column cost[] = {
	{"kops/s in save", "throughput", 1e3, 1},
	{"faults", "faults", 1, 0},
	{"waits for the pool", "waits", 1, 0},
	{"MiB again", "again_bytes", 1 << 20, 1},
	{"extra MiB", "extra_bytes", 1 << 20, 1},
	{"of page tables", "extra_tables", 1 << 20, 1},
	{NULL, NULL, 0, 0},
};

static const struct column ratios[] = {
	{"begin", "begin_ns", 1, 4},
	{"CPU of it", "begin_cpu_ns", 1, 4},
	{"longest response", "longest_ns", 1, 4},
	{"p99.9", "p999_ns", 1, 4},
	{"p99", "p99_ns", 1, 4},
	{"throughput", "throughput", 1, 3},
	{"CPU of the save", "save_cpu_ns", 1, 3},
	{"save", "save_ns", 1, 3},
	{"extra memory", "extra_bytes", 1, 3},
	{NULL, NULL, 0, 0},
};

static const struct column *const rows[] = {moment, responses, noise, cost,
					    NULL};
const struct table snapshot_table = {rows, ratios};

/* ---- What is promised ---------------------------------------------------- */

/* One of weir's methods, then fork. */
static struct series pair_of(unsigned rounds, const char *mine,
			     const char *const *args)
{
	struct series s = {.args = args,
			   .rounds = rounds,
			   .peers = 2,
			   .table = &snapshot_table};

	s.peer[0] = peer_find(mine);
	s.peer[1] = peer_find("snapshot-fork");
	return s;
}

/* 4 GiB, and threads that write to some pages more than to others. */
static bool stall(unsigned rounds, snapshot_judge_fn *judge,
		  snapshot_tell_fn *tell)
{
	const char *args[] = {"snapshot", "--size", "4g", NULL};
	struct series s = pair_of(rounds, "snapshot-weir", args);

	s.peer[s.peers++] = peer_find("snapshot-end");
	if (!series_run(&s))
		return false;
	tell(&s);
	judge("snapshot 4 GiB", "begin / fork's",
	      series_ratio(&s, 0, 1, "begin_ns"), 1.0 / 20);
	judge("snapshot 4 GiB", "longest response / fork's",
	      series_ratio(&s, 0, 1, "longest_ns"), 1.0 / 10);
	judge("end kind, 4 GiB", "held off / fork's",
	      series_ratio(&s, 2, 1, "begin_ns"), 1.0 / 20);
	judge("end kind, 4 GiB", "longest response / fork's",
	      series_ratio(&s, 2, 1, "longest_ns"), 1.0 / 10);
	return true;
}

/* A slow sink, and writes to any page: what fork copies, weir keeps in a pool
 * of a size that was chosen. */
static bool memory(unsigned rounds, snapshot_judge_fn *judge,
		   snapshot_tell_fn *tell)
{
	const char *args[] = {"snapshot", "--size",      "1g",   "--where",
			      "uniform",  "--sink-rate", "200m", NULL};
	struct series s = pair_of(rounds, "snapshot-weir", args);
	double mib[MAX_ROUNDS];
	unsigned i;

	if (!series_run(&s))
		return false;
	tell(&s);
	for (i = 0; i < rounds; i++)
		mib[i] = record_number(&s.run[0][i].record[0], "extra_bytes") /
			 (1 << 20);
	judge("snapshot slow sink", "extra memory, MiB, pool 64",
	      spread_of(mib, rounds), 64 + 8);
	judge("snapshot slow sink", "extra memory / fork's",
	      series_ratio(&s, 0, 1, "extra_bytes"), 0.5);
	return true;
}

/* weir alone, the same threads on a small region and on a large one. */
static bool sizes(unsigned rounds, snapshot_judge_fn *judge,
		  snapshot_tell_fn *tell)
{
	const char *args[] = {"snapshot", NULL};
	struct peer large = {.name = "snapshot-weir at 8 GiB",
			     .program = "bench-snapshot",
			     .arg = {"--size", "8g"}};
	struct peer small = {.name = "snapshot-weir at 1 GiB",
			     .program = "bench-snapshot",
			     .arg = {"--size", "1g"}};
	struct series s = {.args = args,
			   .rounds = rounds,
			   .peers = 2,
			   .table = &snapshot_table};

	s.peer[0] = &large;
	s.peer[1] = &small;
	if (!series_run(&s))
		return false;
	tell(&s);
	judge("snapshot", "begin at 8 GiB / at 1 GiB",
	      series_ratio(&s, 0, 1, "begin_ns"), 1.5);
	return true;
}

bool snapshot_targets(unsigned rounds, snapshot_judge_fn *judge,
		      snapshot_tell_fn *tell)
{
	bool ok = stall(rounds, judge, tell);

	ok = memory(rounds, judge, tell) && ok;
	return sizes(rounds, judge, tell) && ok;
}

/* ---- From where on fork is the better one -------------------------------- */

static const char *const rates[] = {"10000",  "30000",   "100000",
				    "300000", "1000000", "0"};
#define RATES (sizeof(rates) / sizeof(rates[0]))

static const struct column compared[] = {
	{"begin", "begin_ns", 1, 0},        {"longest", "longest_ns", 1, 0},
	{"p99.9", "p999_ns", 1, 0},         {"p99", "p99_ns", 1, 0},
	{"throughput", "throughput", 1, 0}, {"save", "save_ns", 1, 0},
	{"memory", "extra_bytes", 1, 0},
};
#define COMPARED (sizeof(compared) / sizeof(compared[0]))

static void rates_head(const struct series *s)
{
	size_t i;

	printf("== snapshot-rates: %s/fork, medians of %u pair%s: %s\n",
	       s->peer[0]->name, s->rounds, s->rounds == 1 ? "" : "s",
	       record_text(&s->run[0][0].record[0], "params"));
	printf("%-12s", "writes/s");
	for (i = 0; i < COMPARED; i++)
		printf(" %11s", compared[i].head);
	printf("\n");
}

static void rates_line(const struct series *s, const char *rate)
{
	size_t i;

	printf("%-12s", strcmp(rate, "0") ? rate : "no limit");
	for (i = 0; i < COMPARED; i++)
		printf(" %11.4f",
		       series_ratio(s, 0, 1, compared[i].key).median);
	printf("\n");
	fflush(stdout);
}

/* The first rate at which weir's is the worse one, all above it too. */
static void crossover(const double (*ratio)[COMPARED], size_t figure)
{
	bool more_is_better = !strcmp(compared[figure].key, "throughput");
	size_t i = RATES;
	double r;

	while (i > 0) {
		r = ratio[i - 1][figure];
		if (more_is_better ? !(r < 1) : !(r > 1))
			break;
		i--;
	}
	if (i == RATES)
		printf("   %s: weir's is the better one, or as good, at the "
		       "highest rate\n",
		       compared[figure].head);
	else
		printf("   %s: fork's is the better one from %s writes/s on\n",
		       compared[figure].head,
		       strcmp(rates[i], "0") ? rates[i] : "unlimited");
}

bool snapshot_rates(unsigned rounds, const char *mine, const char *const *given,
		    bool json)
{
	static double ratio[RATES][COMPARED];
	const char *args[32] = {"snapshot", "--rate", NULL};
	struct series s;
	size_t i, k, n = 3;

	for (i = 0; given[i] && n < 31; i++)
		args[n++] = given[i];
	if (json)
		printf("[");
	for (i = 0; i < RATES; i++) {
		args[2] = rates[i];
		s = pair_of(rounds, mine, args);
		if (!series_run(&s))
			return false;
		for (k = 0; k < COMPARED; k++)
			ratio[i][k] =
				series_ratio(&s, 0, 1, compared[k].key).median;
		if (json) {
			printf("%s", i ? ",\n" : "");
			table_json(&s, stdout);
			continue;
		}
		if (i == 0)
			rates_head(&s);
		rates_line(&s, rates[i]);
	}
	if (json)
		printf("]\n");
	for (k = 0; k < COMPARED && !json; k++)
		crossover(ratio, k);
	return true;
}
