/* SPDX-License-Identifier: MIT */
/*
 * weir-bench: runs the peers' programs in turn and compares.
 *
 *   record   one line of JSON that a peer printed
 *   outcome  what became of one run of one peer: its records, or why not
 *   peer     a program with its switches and environment
 *   series   the outcomes of all peers over all rounds of one benchmark
 *
 * Everything here runs on one thread.  Memory is freed by exit.
 */
#ifndef WEIR_BENCH_DRIVER_H
#define WEIR_BENCH_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- driver_record.c ----------------------------------------------------- */

struct field {
	char *key;
	char *text;     /* as it stands in the JSON, strings without quotes */
	bool is_number; /* `number` is its value */
	double number;  /* 0 if it is none */
};

struct record {
	char *json;          /* the line, for --json */
	struct field *field; /* in the order of the line */
	size_t fields;
};

/* Parse a line holding one flat JSON object.  False if it is none. */
bool record_parse(const char *line, struct record *r);
/* The value of a number, or NAN if it is null or not there. */
double record_number(const struct record *r, const char *key);
/* The value of any field as text, or "" if it is not there. */
const char *record_text(const struct record *r, const char *key);

/* ---- driver_run.c -------------------------------------------------------- */

#define PEER_WORDS 8

struct peer {
	const char *name;             /* in tables */
	const char *program;          /* bench-... */
	const char *word[PEER_WORDS]; /* switches, up to a NULL */
	const char *env[PEER_WORDS];  /* NAME=VALUE, up to a NULL */
	const char *arg[PEER_WORDS];  /* last parameters, up to a NULL */
	bool may_abort;  /* death by a signal is a result, not a failure */
	bool is_gc;      /* a configuration of libgc */
	bool not_chosen; /* never libgc's best: it promises less */
};

enum outcome_kind {
	OUTCOME_DONE,    /* records are there, status 0 */
	OUTCOME_ABORTED, /* died by `signal`, which the peer may */
	OUTCOME_FAILED,  /* anything else: the benchmark fails */
};

struct outcome {
	enum outcome_kind kind;
	int signal;            /* of OUTCOME_ABORTED */
	char why[256];         /* of OUTCOME_FAILED */
	struct record *record; /* of OUTCOME_DONE, at least one */
	size_t records;
	double foreign;   /* CPU time others took meanwhile, of all there was */
	double stolen_ms; /* CPU time the hypervisor gave to other machines */
};

/* Run a peer's program to its end, with its last standard output parsed.
 * args: workload and parameters, NULL-terminated. */
void run_peer(const struct peer *peer, const char *const *args,
	      struct outcome *out);
double seconds(void);             /* CLOCK_MONOTONIC */
extern const char *run_directory; /* where the peers' programs are */
extern unsigned run_timeout_s;    /* how long one may take */

/* ---- driver_series.c ----------------------------------------------------- */

#define MAX_PEERS 16
#define MAX_ROUNDS 100

/* What is told of each peer, and how. */
struct column {
	const char *head; /* of the table; NULL ends them */
	const char *key;  /* in the records */
	double divisor;   /* from the record's unit to the table's */
	int digits;       /* after the point */
};

/* What is told of a benchmark. */
struct table {
	const struct column *const *rows; /* one below the other, up to NULL */
	const struct column *ratios;      /* of each peer to the first */
};

struct series {
	const char *const *args;   /* workload and parameters */
	const struct table *table; /* NULL: as the collector's benchmarks */
	const struct peer *peer[MAX_PEERS];
	size_t peers;
	unsigned rounds;                     /* pairs */
	struct outcome *run[MAX_PEERS];      /* [peer][round] */
	const struct peer *tried[MAX_PEERS]; /* libgc's configurations */
	struct outcome *trial[MAX_PEERS];    /* [tried][trial_runs] */
	size_t trials;
	unsigned trial_runs; /* of each */
	char checksum[32];   /* of the first run: all must have the same */
};

/* Median and borders of some values. */
struct spread {
	double median, min, max;
	size_t n; /* 0: nothing to tell */
};

struct spread spread_of(double *values, size_t n);

/* The peers that a word of --peers stands for.  NULL: unknown. */
const struct peer *peer_find(const char *name);
const struct peer *peer_weir_options(const char *options); /* WEIR_OPTIONS */
void peers_print(FILE *f);

/* Run each configuration of libgc three times, in turn.  The one with the
 * least median of `key` among those that ended, or NULL.  One that died is not
 * run again. */
const struct peer *series_choose_gc(struct series *s, const char *key);
/* Median of a field over the trials of a configuration; NAN: it died. */
double series_trial(const struct series *s, size_t tried, const char *key);
/* Run all rounds.  False if a peer failed; it was told on standard error. */
bool series_run(struct series *s);
int series_index(const struct series *s, const char *name); /* -1: no such */
/* A field of a peer over its rounds; of the ratio of two peers, round by
 * round.  n is 0 if a value is missing. */
struct spread series_field(const struct series *s, int peer, const char *key);
struct spread series_ratio(const struct series *s, int a, int b,
			   const char *key);
/* Of the configurations of libgc among the peers, the one with the least
 * median of a field, or the largest; -1: none ended in all rounds. */
int series_best_gc(const struct series *s, const char *key, bool largest);
/* The largest value of a field over the rounds; NAN if one is missing. */
double series_max(const struct series *s, int peer, const char *key);

/* ---- driver_table.c ------------------------------------------------------ */

void table_print(const struct series *s, FILE *f);
/* The same as one JSON object, without a line end. */
void table_json(const struct series *s, FILE *f);

/* ---- driver_barrier.c ---------------------------------------------------- */

/* Told of each figure of each back end: weir's cost over the bare loop's. */
typedef void barrier_fn(const char *barrier, const char *what,
			struct spread ratio);

/* The cost of the barrier, each back end against a bare loop.  False if it
 * could not be measured.  fn may be NULL. */
bool barrier_run(unsigned rounds, const char *const *args, bool json,
		 barrier_fn *fn);

/* ---- driver_snapshot.c --------------------------------------------------- */

extern const struct table snapshot_table;

/* Told of each promise about snapshots: the value and its limit, at most. */
typedef void snapshot_judge_fn(const char *bench, const char *what,
			       struct spread value, double limit);
/* Told of each series that was run. */
typedef void snapshot_tell_fn(const struct series *s);

/* Run what the promises about snapshots need.  False if it could not be. */
bool snapshot_targets(unsigned rounds, snapshot_judge_fn *judge,
		      snapshot_tell_fn *tell);

/* Peer `mine`, which is one of weir's, and fork at one rate of writes after the
 * other: from where on fork is the better one.  args: parameters of all runs.
 * False if it could not be. */
bool snapshot_rates(unsigned rounds, const char *mine, const char *const *args,
		    bool json);

/* ---- driver_targets.c ---------------------------------------------------- */

/* Run what the project's targets need and say which are met.  names: those
 * wanted, NULL-terminated, none: all.  The exit status. */
int targets_run(unsigned rounds, const char *const *names, bool json);

#endif
