/* SPDX-License-Identifier: MIT */
/*
 * sqlite-snapshot: an SQLite database in memory that is saved to a file while
 * it is written to, by a snapshot of the memory in which its bytes lie.  The
 * file is a database like any other.  SQLite is Debian's, unpatched; no
 * privilege is needed.
 *
 *	sqlite-snapshot --out bank.db --keep      a 64 MiB database, one save
 *	sqlite3 bank.db 'SELECT count(*) FROM log'
 *	sqlite-snapshot --from bank.db            go on from there
 *	sqlite-snapshot --method fork --mb 1024   another way to save
 *	sqlite-snapshot --compare 5 --mb 1024     all of them, with a table
 *
 * What a program of one's own needs of it is in sqlite_weir.c and, for the
 * database in a region, in sqlite_store.c.  Every file is checked: it is to
 * hold just the transactions that were committed at the snapshot's moment.
 *
 * Known limits: a transaction larger than the room that the region has ready
 * (16 MiB) fails with SQLITE_FULL, as does what outgrows the region's limit (a
 * quarter and 128 MiB more than the database began with).  With units of 2 MiB,
 * as --huge has them, the first write to each that is not saved yet copies 2
 * MiB, so that writers at random soon wait for room in the pool.
 *
 * Exit status: 0 all is well, 1 a file was not what it was to be, 2 wrong use,
 * 3 it could not be done.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "examples/sqlite_report.h"

#define ROUNDS 64u

struct settings {
	struct run_options run; /* a run */
	unsigned compare;       /* rounds of a comparison; 0: none */
	bool json;              /* JSON instead of text */
};

static void usage(FILE *out)
{
	fprintf(out,
		"usage: sqlite-snapshot [option...]\n"
		"\n"
		"Write to an SQLite database in memory and save it meanwhile.\n"
		"\n"
		"  --method NAME   how to save it (weir):\n");
#define X(name, text, what) fprintf(out, "      %-14s%s\n", text, what);
	SAVE_METHODS(X)
#undef X
	fprintf(out,
		"  --huge          its memory in huge pages\n"
		"  --small-units   with --huge, weir saves 4 KiB at a time\n"
		"  --barrier NAME  weir: auto, sync or sigbus (auto)\n"
		"  --mb N          MiB of rows to begin with (64)\n"
		"  --from FILE     begin with a database that was saved\n"
		"  --out FILE      the file to save to "
		"(sqlite-snapshot.db)\n"
		"  --keep          leave it there\n"
		"  --writers N     threads that make transactions (1)\n"
		"  --rate N        transactions a second (0: all they can)\n"
		"  --seconds N     of the stretch before a save (2)\n"
		"  --quick         for the check alone: 50 ms, and nothing "
		"after it\n"
		"  --snapshots N   saves, one after another (1)\n"
		"  --pool N        weir: MiB for pages written meanwhile (64)\n"
		"  --full NAME     weir, pool full: stall or write-through "
		"(stall)\n"
		"  --save-rate N   weir: MiB a second to save (0: any)\n"
		"  --step-pages N  backup-steps: pages of a step (1024)\n"
		"  --step-pause N  backup-steps: us between steps (1000)\n"
		"  --no-memory     do not measure how much more there is, "
		"which costs time\n"
		"  --no-sync       do not sync the file\n"
		"  --flip          change a byte of the file before the check\n"
		"  --compare N     all methods in turn, N rounds\n"
		"  --json          a JSON object a line for each save\n");
}

static uint64_t number(const char *name, const char *text, uint64_t min,
		       uint64_t max)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || v < min ||
	    v > max) {
		fprintf(stderr,
			"sqlite-snapshot: --%s %s: not a number from %llu to "
			"%llu\n",
			name, text, (unsigned long long)min,
			(unsigned long long)max);
		exit(2);
	}
	return v;
}

/* The place of `text` among `names`. */
static unsigned choice(const char *name, const char *text,
		       const char *const *names, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(text, names[i]))
			return i;
	fprintf(stderr, "sqlite-snapshot: --%s %s: it is one of", name, text);
	for (unsigned i = 0; i < count; i++)
		fprintf(stderr, " %s", names[i]);
	fputc('\n', stderr);
	exit(2);
}

static const char *const methods[] = {
#define X(name, text, what) text,
	SAVE_METHODS(X)
#undef X
};

static void set(struct settings *s, int o, const char *n)
{
	static const char *const barriers[] = {"auto", "sync", "sigbus"};
	static const char *const fulls[] = {"stall", "write-through"};
	struct run_options *r = &s->run;

	if (o == 'm')
		r->method = choice(n, optarg, methods, SAVE_METHOD_COUNT);
	else if (o == 'h')
		r->store.huge = true;
	else if (o == 'u')
		r->store.small_units = true;
	else if (o == 'b')
		r->store.barrier = choice(n, optarg, barriers, 3);
	else if (o == 'M')
		r->store.bytes = (size_t)number(n, optarg, 1, 1 << 20) << 20;
	else if (o == 'F')
		r->store.from = optarg;
	else if (o == 'o')
		r->path = optarg;
	else if (o == 'k')
		r->keep = true;
	else if (o == 'w')
		r->writers = (unsigned)number(n, optarg, 1, RUN_WRITERS);
	else if (o == 'r')
		r->rate = number(n, optarg, 0, 100000000);
	else if (o == 's')
		r->seconds = (double)number(n, optarg, 1, 3600);
	else if (o == 'q')
		r->quick = true;
	else if (o == 'n')
		r->rounds = (unsigned)number(n, optarg, 1, ROUNDS);
	else if (o == 'p')
		r->save.pool = (size_t)number(n, optarg, 4, 1 << 20) << 20;
	else if (o == 'f')
		r->save.full = choice(n, optarg, fulls, 2);
	else if (o == 'R')
		r->save.rate = number(n, optarg, 0, 1 << 20) << 20;
	else if (o == 'g')
		r->save.step_pages = (unsigned)number(n, optarg, 1, 1 << 30);
	else if (o == 'G')
		r->save.step_pause_us = (unsigned)number(n, optarg, 0, 1000000);
	else if (o == 'N')
		r->save.sync = false;
	else if (o == 'Z')
		r->no_memory = true;
	else if (o == 'x')
		r->flip = true;
	else if (o == 'c')
		s->compare = (unsigned)number(n, optarg, 1, ROUNDS);
	else if (o == 'j')
		s->json = true;
	else {
		usage(o == 'H' ? stdout : stderr);
		exit(o == 'H' ? 0 : 2);
	}
}

static void parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {
		{"method", required_argument, NULL, 'm'},
		{"huge", no_argument, NULL, 'h'},
		{"small-units", no_argument, NULL, 'u'},
		{"barrier", required_argument, NULL, 'b'},
		{"mb", required_argument, NULL, 'M'},
		{"from", required_argument, NULL, 'F'},
		{"out", required_argument, NULL, 'o'},
		{"keep", no_argument, NULL, 'k'},
		{"writers", required_argument, NULL, 'w'},
		{"rate", required_argument, NULL, 'r'},
		{"seconds", required_argument, NULL, 's'},
		{"quick", no_argument, NULL, 'q'},
		{"snapshots", required_argument, NULL, 'n'},
		{"pool", required_argument, NULL, 'p'},
		{"full", required_argument, NULL, 'f'},
		{"save-rate", required_argument, NULL, 'R'},
		{"step-pages", required_argument, NULL, 'g'},
		{"step-pause", required_argument, NULL, 'G'},
		{"no-memory", no_argument, NULL, 'Z'},
		{"no-sync", no_argument, NULL, 'N'},
		{"flip", no_argument, NULL, 'x'},
		{"compare", required_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'H'},
		{NULL, 0, NULL, 0},
	};
	int i = 0, o;

	s->run = (struct run_options){
		.store = {.bytes = (size_t)64 << 20},
		.path = "sqlite-snapshot.db",
		.writers = 1,
		.seconds = 2,
		.rounds = 1,
		.save = {.step_pages = 1024,
			 .step_pause_us = 1000,
			 .sync = true},
	};
	while ((o = getopt_long(argc, argv, "", options, &i)) != -1)
		set(s, o, o == '?' ? "" : options[i].name);
	if (optind < argc) {
		usage(stderr);
		exit(2);
	}
	s->run.store.region = s->run.method == SAVE_WEIR;
	if (s->run.store.small_units && !s->run.store.region) {
		fprintf(stderr, "sqlite-snapshot: --small-units is of weir\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static struct result results[ROUNDS];
	struct settings s = {.compare = 0};
	int err, status = 0;

	parse(argc, argv, &s);
	if (s.compare) {
		status = compare(&s.run, s.compare, s.json);
	} else {
		err = run(&s.run, results);
		for (unsigned i = 0; i < s.run.rounds && !err; i++) {
			if (s.json)
				report_json(&s.run, &results[i], stdout);
			else
				report_text(&s.run, &results[i], stdout);
			if (!results[i].ok)
				status = 1;
		}
		if (err)
			status = -1;
	}
	if (fflush(stdout) || ferror(stdout))
		status = -1;
	return status < 0 ? 3 : status;
}
