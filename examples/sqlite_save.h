/* SPDX-License-Identifier: MIT */
/*
 * Ways to save an in-memory database to a file while it is written to.  Each
 * writes a temporary file that is synced and then takes the name, and says
 * which state it saved.
 */
#ifndef WEIR_EXAMPLES_SQLITE_SAVE_H
#define WEIR_EXAMPLES_SQLITE_SAVE_H

#include "examples/sqlite_memory.h"
#include "examples/sqlite_store.h"

/* name, what it is */
#define SAVE_METHODS(X)                                                        \
	X(WEIR, "weir", "a snapshot of the region, read while writers go on")  \
	X(BACKUP, "backup", "sqlite3_backup_step(-1): all of it in one step")  \
	X(STEPS, "backup-steps", "sqlite3_backup_step(n), writers in between") \
	X(SERIALIZE, "serialize", "sqlite3_serialize(), then write that")      \
	X(FORK, "fork", "fork(), and the child writes its memory")             \
	X(TORN, "torn", "no care at all; the check is to notice")

enum save_method {
#define X(name, text, what) SAVE_##name,
	SAVE_METHODS(X)
#undef X
		SAVE_METHOD_COUNT
};

struct save {
	struct store *store;     /* whose database */
	struct memory *memory;   /* samples are kept off for the moment */
	enum save_method method; /* how */
	const char *path;        /* the file that is to be */
	size_t pool;             /* weir: bytes; 0: the default */
	unsigned full;           /* weir: enum weir_snapshot_full */
	uint64_t rate;           /* weir: bytes a second; 0: any */
	unsigned step_pages;     /* backup-steps: of a step */
	unsigned step_pause_us;  /* backup-steps: between steps */
	bool sync;               /* fsync() the file */
	/* What came of it. */
	struct moment moment; /* the state that was saved */
	uint64_t held_ns;     /* how long the writers were held off, as the
			       * saver sees it; backup-steps: longest step */
	uint64_t held_cpu_ns; /* of that, processor time of the saver: what it
			       * is on a machine that does nothing else */
	uint64_t prepare_ns;  /* weir: weir_snapshot_prepare() */
	uint64_t copied_ns;   /* until the bytes were all written, not synced */
	uint64_t total_ns;    /* until the file had its name */
	struct weir_snapshot_progress figures; /* weir: at its end */
};

/* 0, or -1 and has said why. */
int save_run(struct save *v);

const char *save_name(enum save_method method);

/* The way of weir, in sqlite_weir.c.  fd: the new file. */
int save_weir(struct save *v, int fd);

/* All of `bytes` at `offset`.  0 or -errno. */
int save_write(int fd, const char *data, size_t bytes, uint64_t offset);

#endif
