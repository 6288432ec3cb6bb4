/* SPDX-License-Identifier: MIT */
/*
 * What this system offers, found by doing: a table of {name, probe}.
 *
 * Every probe works on scratch memory of its own and leaves nothing behind.
 * They may run in any thread, beside anything, but not in a signal handler;
 * each takes less than a few milliseconds.
 */
#ifndef WEIR_RUNTIME_PROBE_H
#define WEIR_RUNTIME_PROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/barrier.h"

struct wr_probe_result {
	bool available;   /* works for this process, now */
	char detail[192]; /* what was found, "" for no more than that */
	char cause[256];  /* why it is not available; "" if it is */
	char cure[256];   /* what would make it so; "" if available */
};

struct wr_probe {
	const char *name; /* a word, for machines and people */
	const char *use;  /* what it is for, a phrase */
	/* `root` is put before the paths of /proc and /sys files that are read
	 * for settings: "" for the system, a directory in tests.  Settings only
	 * explain what was found by doing. */
	void (*run)(const char *root, struct wr_probe_result *result);
};

/* The table; *count entries, static. */
const struct wr_probe *wr_probes(size_t *count);
/* NULL: no such probe. */
const struct wr_probe *wr_probe_find(const char *name);

/* How each barrier kind fares, and what AUTO makes of it. */
struct wr_probe_kind {
	enum wr_barrier_kind kind; /* not AUTO */
	bool available;            /* can be made */
	bool safe;                 /* and system calls may write to pages */
	char reason[512];          /* why not available, or not safe; or "" */
};

struct wr_probe_choice {
	enum wr_barrier_kind kind; /* what AUTO takes */
	char why[640];             /* a sentence or two */
	char better[640];          /* what to change to get a better one */
	struct wr_probe_kind kinds[WR_BARRIER_KINDS - 1]; /* all, best first */
};

void wr_probe_choose(struct wr_probe_choice *choice);

#endif
