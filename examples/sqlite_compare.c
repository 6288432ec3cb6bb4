/* SPDX-License-Identifier: MIT */
/*
 * The ways to save beside each other.  A run of each in turn makes a round, and
 * each round begins with another one, so that what the machine does meanwhile
 * meets all of them.  Ratios are of two runs of one round.  All begin with the
 * same database, a file that is made once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/sqlite_report.h"

#define ROUNDS 64u /* at most */

/* Rows of the table. */
static const struct {
	enum save_method method; /* as in the options */
	bool huge;               /* likewise */
	bool small_units;        /* likewise */
} ways[] = {
	{SAVE_WEIR, false, false},   {SAVE_WEIR, true, false},
	{SAVE_WEIR, true, true},     {SAVE_FORK, false, false},
	{SAVE_FORK, true, false},    {SAVE_SERIALIZE, false, false},
	{SAVE_BACKUP, false, false}, {SAVE_STEPS, false, false},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))
enum { WEIR_4K, WEIR_HUGE, WEIR_MIXED, FORK_4K, FORK_HUGE, SERIALIZE };

static struct result results[WAYS][ROUNDS];

/* ---- Runs --------------------------------------------------------------- */

static void options_of(const struct run_options *o, size_t way,
		       struct run_options *out)
{
	*out = *o;
	out->method = ways[way].method;
	out->store.huge = ways[way].huge;
	out->store.small_units = ways[way].small_units;
	out->store.region = out->method == SAVE_WEIR;
	out->rounds = 1;
}

/* In a child: `work`, whose result comes through a pipe. */
static int in_child(int (*work)(const struct run_options *, struct result *),
		    const struct run_options *o, struct result *out)
{
	int ends[2], status = -1;
	ssize_t n;
	pid_t child;

	fflush(NULL);
	if (pipe(ends))
		return store_complain(NULL, strerror(errno));
	child = fork();
	if (!child) {
		int err = work(o, out);

		if (write(ends[1], out, sizeof(*out)) != sizeof(*out))
			err = -1;
		_exit(err ? 1 : 0);
	}
	close(ends[1]);
	/* It fits a pipe's buffer, so it comes whole. */
	n = child < 0 ? -1 : read(ends[0], out, sizeof(*out));
	close(ends[0]);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (n != sizeof(*out) || status)
		return store_complain(NULL, "a run failed");
	return 0;
}

/* The file that all begin with. */
static int make_file(const struct run_options *o, struct result *out)
{
	struct store store;
	struct memory memory;
	struct save v = o->save;
	int err = store_open(&store, &o->store);

	memset(out, 0, sizeof(*out));
	if (!err)
		err = memory_start(&memory, true);
	if (!err) {
		v.store = &store;
		v.memory = &memory;
		v.method = SAVE_TORN; /* nobody writes */
		v.path = o->path;
		err = save_run(&v);
		memory_stop(&memory);
	}
	return err;
}

static int make_first(const struct run_options *o, const char *path)
{
	struct run_options first = *o;
	struct result ignored;

	first.store.region = false;
	first.path = path;
	return in_child(make_file, &first, &ignored);
}

static int run_all(const struct run_options *o, unsigned rounds, bool json)
{
	for (unsigned i = 0; i < rounds; i++)
		for (size_t k = 0; k < WAYS; k++) {
			size_t way = (i + k) % WAYS;
			struct run_options one;

			options_of(o, way, &one);
			if (in_child(run, &one, &results[way][i]))
				return -1;
			if (json)
				report_json(&one, &results[way][i], stdout);
		}
	return 0;
}

/* ---- The table ---------------------------------------------------------- */

struct spread {
	double median; /* of the rounds */
	double least;  /* likewise */
	double most;   /* likewise */
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static struct spread spread(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_value);
	return (struct spread){(v[(n - 1) / 2] + v[n / 2]) / 2, v[0], v[n - 1]};
}

typedef double figure_fn(const struct result *r);

static double held(const struct result *r)
{
	return r->held_ms;
}

static double held_cpu(const struct result *r)
{
	return r->held_cpu_ms;
}

static double stall(const struct result *r)
{
	return r->save.stall_ms;
}

static double longest(const struct result *r)
{
	return r->save.longest_ms;
}

static double own(const struct result *r)
{
	return r->save.own_ms;
}

static double own_noise(const struct result *r)
{
	return r->noise.own_ms;
}

static double noise(const struct result *r)
{
	return r->noise.longest_ms;
}

static double p99(const struct result *r)
{
	return r->save.p99_ms;
}

static double p999(const struct result *r)
{
	return r->save.p999_ms;
}

static double throughput(const struct result *r)
{
	return 100 * r->save.per_second /
	       (r->before.per_second > 0 ? r->before.per_second : 1);
}

static double seconds(const struct result *r)
{
	return r->save_ms / 1e3;
}

static double memory(const struct result *r)
{
	return r->memory_mib;
}

static const struct {
	const char *name; /* what it is */
	figure_fn *of;    /* of a result */
} columns[] = {
	{"writers held off for the moment, ms", held},
	{"the same, processor time of the saver, ms", held_cpu},
	{"longest wait of a writer for it, ms", stall},
	{"longest transaction in the save, ms", longest},
	{"the same without a save (noise), ms", noise},
	{"longest without waits for a processor, ms", own},
	{"the same without a save (noise), ms", own_noise},
	{"p99 of transactions in the save, ms", p99},
	{"p99.9 likewise, ms", p999},
	{"transactions/s, percent of before", throughput},
	{"save, s", seconds},
	{"more memory at the peak, MiB", memory},
};

static struct spread spread_of(size_t way, unsigned rounds, figure_fn *of)
{
	double v[ROUNDS];

	for (unsigned i = 0; i < rounds; i++)
		v[i] = of(&results[way][i]);
	return spread(v, rounds);
}

static void print_table(const struct run_options *o, unsigned rounds)
{
	for (size_t c = 0; c < sizeof(columns) / sizeof(columns[0]); c++) {
		printf("%s: median (least to most)\n", columns[c].name);
		for (size_t w = 0; w < WAYS; w++) {
			struct spread s = spread_of(w, rounds, columns[c].of);
			struct run_options one;
			char name[64];

			options_of(o, w, &one);
			report_name(&one, name, sizeof(name));
			printf("  %-22s %12.3f  (%.3f to %.3f)\n", name,
			       s.median, s.least, s.most);
		}
	}
}

static void print_ratio(size_t a, size_t b, unsigned rounds, const char *what,
			figure_fn *of)
{
	double v[ROUNDS];
	struct spread s;

	for (unsigned i = 0; i < rounds; i++) {
		double below = of(&results[b][i]);

		/* A microsecond: nothing is measured better. */
		v[i] = of(&results[a][i]) / (below > 0.001 ? below : 0.001);
	}
	s = spread(v, rounds);
	printf("  %-44s %8.4f  (%.4f to %.4f)\n", what, s.median, s.least,
	       s.most);
}

static void print_ratios(unsigned rounds, figure_fn *of)
{
	static const struct {
		size_t a, b;      /* ways */
		const char *what; /* in words */
	} pairs[] = {
		{WEIR_4K, FORK_4K, "weir / fork, 4 KiB pages"},
		{WEIR_HUGE, FORK_HUGE, "weir / fork, both on huge pages"},
		{WEIR_HUGE, FORK_4K, "weir huge / fork on 4 KiB pages"},
		{WEIR_MIXED, FORK_HUGE, "weir huge, 4K units / fork huge"},
		{WEIR_MIXED, FORK_4K, "weir huge, 4K units / fork on 4 KiB"},
		{WEIR_4K, SERIALIZE, "weir / serialize"},
		{WEIR_HUGE, SERIALIZE, "weir huge / serialize"},
		{WEIR_MIXED, SERIALIZE, "weir huge, 4K units / serialize"},
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		print_ratio(pairs[i].a, pairs[i].b, rounds, pairs[i].what, of);
}

static int print(const struct run_options *o, unsigned rounds)
{
	const struct result *first = &results[WEIR_4K][0];
	int wrong = 0;

	printf("%.0f MiB, %u writer%s, ", (double)first->bytes / (1 << 20),
	       o->writers, o->writers > 1 ? "s" : "");
	if (o->rate)
		printf("%llu transactions a second",
		       (unsigned long long)o->rate);
	else
		printf("as fast as they can");
	printf(", %u rounds, weir's barrier: %s\n", rounds, first->barrier);
	print_table(o, rounds);
	printf("ratios of the time that writers are held off: median (least to "
	       "most) of the rounds\n");
	print_ratios(rounds, held);
	printf("ratios of that, processor time of the saver\n");
	print_ratios(rounds, held_cpu);
	printf("ratios of the longest wait for it, waking up included\n");
	print_ratios(rounds, stall);
	printf("ratios of the longest transaction\n");
	print_ratios(rounds, longest);
	printf("ratios of the longest transaction without waits for a "
	       "processor\n");
	print_ratios(rounds, own);
	for (size_t w = 0; w < WAYS; w++)
		for (unsigned i = 0; i < rounds; i++)
			if (!results[w][i].ok) {
				printf("WRONG: %s, round %u: %s\n",
				       save_name(ways[w].method), i + 1,
				       results[w][i].why);
				wrong = 1;
			}
	if (!wrong)
		printf("all %zu files are what they are to be\n",
		       WAYS * rounds);
	return wrong;
}

int compare(const struct run_options *o, unsigned rounds, bool json)
{
	struct run_options all = *o;
	char path[4096];
	int err = 0;

	if (rounds > ROUNDS)
		rounds = ROUNDS;
	snprintf(path, sizeof(path), "%s.first", o->path);
	if (!o->store.from) {
		err = make_first(o, path);
		all.store.from = path;
	}
	if (!err)
		err = run_all(&all, rounds, json);
	if (!o->store.from)
		unlink(path);
	if (err || json)
		return err;
	return print(&all, rounds);
}
