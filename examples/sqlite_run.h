/* SPDX-License-Identifier: MIT */
/*
 * A measured run: writers make transactions all the time, and in each of its
 * rounds there is a stretch before the save, the save, and a stretch as long
 * as that without one, which says what the machine does by itself.
 *
 * A transaction's time is counted from its intended start: with a rate, when it
 * was due; without, when the one before it ended.  It belongs to the save if it
 * began or ended in it.
 */
#ifndef WEIR_EXAMPLES_SQLITE_RUN_H
#define WEIR_EXAMPLES_SQLITE_RUN_H

#include "examples/sqlite_save.h"

#define RUN_WRITERS 16u   /* at most */
#define RUN_WINDOWS 800u  /* from the beginning of the stretch before */
#define RUN_WINDOW_MS 5.0 /* each */

struct run_options {
	struct store_options store; /* the database */
	enum save_method method;    /* how to save it */
	const char *path;           /* the file */
	unsigned writers;           /* threads */
	uint64_t rate;              /* transactions a second, of all; 0: as
				     * many as they can */
	double seconds;             /* of the stretch before the save */
	bool no_memory;             /* how much more memory is not measured */
	bool quick;                 /* for the check alone: no stretches */
	unsigned rounds;            /* saves, one after another */
	bool flip;                  /* change a byte of the file */
	bool keep;                  /* the file stays */
	struct save save;           /* pool and the like, as in there */
};

/* Figures of a stretch. */
struct stretch {
	double per_second; /* transactions */
	double longest_ms; /* transaction */
	double own_ms;     /* longest, without waits for a processor */
	double p50_ms;     /* quantiles of them */
	double p99_ms;
	double p999_ms;
	double stall_ms; /* longest that a writer waited for the saver */
};

/* What a save was like.  Of plain values: it goes through a pipe. */
struct result {
	bool ok;                     /* the file is the state of the moment */
	char why[160];               /* why not */
	char barrier[8];             /* weir: by which faults are noticed */
	double held_ms;              /* see struct save */
	double held_cpu_ms;          /* likewise */
	double prepare_ms;           /* likewise */
	double save_ms;              /* until the file had its name */
	double write_ms;             /* until its bytes were written */
	double memory_mib;           /* growth of Pss_Anon at its peak */
	double pool_mib;             /* weir: size of the pool */
	double pool_peak_mib;        /* most of it in use */
	uint64_t transactions;       /* in the file */
	uint64_t bytes;              /* of the file */
	uint64_t faults;             /* weir: see weir_snapshot_progress */
	uint64_t kept;               /* likewise */
	uint64_t hot;                /* likewise */
	uint64_t waits;              /* likewise */
	struct stretch before, save; /* see above */
	struct stretch noise;        /* without a save, as long as it */
	double save_at_ms;           /* since the first window's beginning */
	uint32_t window_us[RUN_WINDOWS]; /* longest transaction of those that
					  * began in each; 0: none did */
};

/* Fills result[options->rounds].  0; -1: it could not be done, which was said.
 * That a check failed is in the results. */
int run(const struct run_options *options, struct result *results);

#endif
