/* SPDX-License-Identifier: MIT */
/*
 * An SQLite database whose bytes lie in one piece of memory, a region of weir
 * or plain memory, and the transactions that are made in it.
 *
 * What it holds is a function of the number of its last transaction alone:
 * transaction t writes a row of `log` and gives STORE_ITEMS rows of `item`,
 * drawn by t, content that is drawn by t and the row.  So a copy of it can be
 * checked to the byte: see sqlite_check.h.
 *
 *   store_transact     one thread at a time, in the gate
 *   gate_enter, leave  writers; the thread that holds the gate must not
 *   gate_hold, release one saver
 */
#ifndef WEIR_EXAMPLES_SQLITE_STORE_H
#define WEIR_EXAMPLES_SQLITE_STORE_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <weir/snapshot.h>

#define STORE_PAGE 4096u /* bytes of a page of the database */
#define STORE_ITEMS 4u   /* rows of `item` that a transaction writes */
#define STORE_WORDS 120u /* eight-byte words in such a row */

/*
 * Between transactions: a writer enters for each, the saver holds all of them
 * off for a moment.  The saver comes first, or a writer at full speed would
 * never let it in.
 */
struct gate {
	pthread_mutex_t lock;   /* of what follows */
	pthread_cond_t writers; /* the gate is open, nobody inside */
	pthread_cond_t saver;   /* nobody inside */
	bool inside;            /* a writer is */
	bool held;              /* by the saver, or it waits for that */
	uint64_t held_at;       /* first since a writer was in, ns; or 0 */
	uint64_t released_at;   /* when last */
};

struct store_options {
	size_t bytes;     /* size of a database that is made anew */
	const char *from; /* a database file to begin with, or NULL */
	bool region;      /* in a region of weir; else plain memory */
	bool huge;        /* in transparent huge pages */
	bool small_units; /* region, huge: save units of 4 KiB all the same */
	unsigned barrier; /* enum weir_region_barrier */
};

struct store {
	sqlite3 *db;            /* the one connection */
	weir_region *region;    /* that the bytes lie in, or NULL */
	char *memory;           /* the database's first byte */
	char *mapping;          /* plain memory: as mapped; else NULL */
	size_t mapped;          /* bytes of it */
	size_t room;            /* bytes at `memory` that may be used now */
	size_t limit;           /* to which that may grow */
	uint64_t rows;          /* of `item` */
	uint64_t last;          /* number of the last transaction; gate */
	struct gate gate;       /* around each transaction */
	sqlite3_stmt *begin;    /* BEGIN IMMEDIATE */
	sqlite3_stmt *commit;   /* COMMIT */
	sqlite3_stmt *rollback; /* ROLLBACK */
	sqlite3_stmt *log;      /* (number, checksum) into `log` */
	sqlite3_stmt *item;     /* (row, number, content) into `item` */
};

/* The state that a copy is to have. */
struct moment {
	uint64_t last; /* number of the last transaction */
	size_t bytes;  /* of the database */
};

/* All of these return 0, or -1 and have said why on standard error. */
int store_open(struct store *s, const struct store_options *options);
int store_transact(struct store *s);
void store_close(struct store *s);

/* The gate is held, or nobody writes.  -1: SQLite has moved it. */
int store_moment(const struct store *s, struct moment *moment);

/* Print `what`, and SQLite's own words if db is not NULL.  Returns -1. */
int store_complain(sqlite3 *db, const char *what);

void gate_open(struct gate *g);
/* Returns how long the saver has kept the caller, which wanted in at `start`:
 * from then, or when it held the gate, until it is in; ns. */
uint64_t gate_enter(struct gate *g, uint64_t start);
void gate_leave(struct gate *g);
void gate_hold(struct gate *g);
void gate_release(struct gate *g);

/* ---- What a transaction writes ------------------------------------------ */

static inline uint64_t store_mix(uint64_t v)
{
	/* SplitMix64 (Steele, Lea, Flood 2014). */
	v += 0x9e3779b97f4a7c15u;
	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
	v = (v ^ v >> 27) * 0x94d049bb133111ebu;
	return v ^ v >> 31;
}

/* Row i of the STORE_ITEMS of transaction t, 1 to `rows`. */
static inline uint64_t store_row(uint64_t t, unsigned i, uint64_t rows)
{
	return 1 + store_mix(t * STORE_ITEMS + i) % rows;
}

/* What row `row` holds once transaction t (0: when it was made) wrote it.
 * Returns a checksum of it. */
static inline uint64_t store_content(uint64_t row, uint64_t t,
				     uint64_t content[STORE_WORDS])
{
	uint64_t v = store_mix(row ^ store_mix(t)), sum = 0;

	for (unsigned i = 0; i < STORE_WORDS; i++) {
		content[i] = v ^ v >> 29;
		sum = (sum ^ content[i]) * 0x100000001b3u;
		v = v * 6364136223846793005u + 1442695040888963407u;
	}
	return sum;
}

static inline uint64_t store_clock(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t store_now(void)
{
	return store_clock(CLOCK_MONOTONIC);
}

/* Processor time of the calling thread. */
static inline uint64_t store_cpu(void)
{
	return store_clock(CLOCK_THREAD_CPUTIME_ID);
}

#endif
