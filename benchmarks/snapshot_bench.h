/* SPDX-License-Identifier: MIT */
/*
 * bench-snapshot: one snapshot of a memory that threads write to, by weir or by
 * fork(), and whether it holds what the memory held at its moment.
 *
 * The phases of a run, each of which has its own histograms:
 *
 *   BEFORE   the writers alone, for --before ms: the machine's own noise
 *   PREPARE  weir protects pages (nothing of the kind for fork)
 *   SAVE     from the call that makes the writers quiet until the sink has the
 *            last page: the stop is in it, as what late operations waited for
 *   AFTER    what is left, which is not told
 *
 * An operation counts in the phase in which it ended.
 *
 * What the memory held is known afterwards, without a copy: the writers'
 * operations are series of random numbers, each thread writes to lines of its
 * own within a page, and how many each had made is noted while they are quiet.
 * So when all is over the memory is filled anew, so many operations are done
 * again, and the checksum of each page is compared with that of the page which
 * the sink was handed.
 *
 *   main thread   everything but writing; it is the saver
 *   writers       snap_writers: their own histograms and counts, read by others
 *                 when they are quiet or gone
 *   fork's child  the sink, its state in memory shared with the parent
 */
#ifndef WEIR_BENCH_SNAPSHOT_BENCH_H
#define WEIR_BENCH_SNAPSHOT_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "benchmarks/bench.h"

#define SNAP_PAGE 4096u
#define SNAP_LINE 64u
#define SNAP_CHUNK ((size_t)256 << 10) /* fork's child hands over at once */
#define SNAP_WRITERS 16                /* at most */

enum snap_phase {
	SNAP_BEFORE,
	SNAP_PREPARE,
	SNAP_SAVE,
	SNAP_AFTER,
	SNAP_PHASES,
};

/* What was asked for. */
struct snap_want {
	const char *method; /* weir, sync, sigbus, fork */
	uint64_t size;      /* bytes of memory, whole 2 MiB */
	uint64_t writers;   /* threads */
	uint64_t rate;      /* operations a second of all; 0: no limit */
	bool uniform;       /* pages, else zipf */
	bool huge;          /* huge pages */
	uint64_t store;     /* bytes an operation writes, 8 or 64 */
	uint64_t before_ms; /* length of BEFORE */
	uint64_t gap_ms;    /* between prepare and begin */
	uint64_t pool;      /* weir's, bytes; 0: its default */
	uint64_t sink_rate; /* bytes a second; 0: no limit */
	const char *file;   /* that the sink writes; NULL: none */
	const char *plant; /* an error to be found: byte, late, lost, or NULL */
	uint64_t saver_nice; /* niceness of who saves */
};
extern struct snap_want snap_want;

/* ---- snapshot_stream.c: which operation is which ------------------------- */

/* One thread's operations, in order. */
struct snap_stream {
	struct bench_random random; /* of pages */
	uint64_t made;              /* so far */
	unsigned thread;            /* whose */
};

/* One of them. */
struct snap_op {
	uint64_t offset; /* of the store, from the start of the memory */
	uint64_t value;  /* of its first word; the next ones are one more */
};

/* Once, before the first stream: what zipf needs. */
void snap_stream_setup(void);
void snap_stream_open(struct snap_stream *s, unsigned thread);
struct snap_op snap_stream_next(struct snap_stream *s);
void snap_store(char *memory, const struct snap_op *op);
/* What the memory holds before the first operation. */
void snap_fill(char *memory);
/* Of a page; never 0. */
uint64_t snap_checksum(const void *page);

/* ---- snapshot_writers.c -------------------------------------------------- */

/* A thread that writes. */
struct snap_writer {
	pthread_t thread;                          /* itself */
	struct snap_stream stream;                 /* what it does */
	uint64_t start_ns;                         /* of its first operation */
	uint64_t at_moment;                        /* operations made then */
	uint64_t ops[SNAP_PHASES];                 /* ended in each phase */
	struct bench_histogram *hist[SNAP_PHASES]; /* their responses */
};

extern struct snap_writer snap_writer[SNAP_WRITERS];

void snap_writers_setup(char *memory);
void snap_writers_start(void);
/* Returns when none writes; their counts are noted. */
void snap_writers_stop(void);
void snap_writers_resume(void);
void snap_writers_end(void);
void snap_phase_set(enum snap_phase phase);
/* When each phase began; 0: it did not. */
extern uint64_t snap_phase_ns[SNAP_PHASES];

/* ---- snapshot_sink.c ----------------------------------------------------- */

/* Takes pages; in memory shared with fork's child. */
struct snap_sink {
	uint64_t pages;    /* expected */
	uint64_t taken;    /* so far */
	uint64_t start_ns; /* of the first */
	uint64_t end_ns;   /* when the last was taken; 0: not yet */
	uint64_t cpu_ns;   /* of the process, then */
	uint64_t twice;    /* pages that came more than once */
	int fd;            /* of the file, or -1 */
	int error;         /* errno of writing it, or 0 */
	uint64_t sum[];    /* checksum of each page; 0: it did not come */
};

struct snap_sink *snap_sink_open(void);
/* A run of pages; data NULL: they are zero.  A negative errno when the file
 * cannot be written. */
int snap_sink_take(struct snap_sink *s, uint64_t offset, const void *data,
		   size_t bytes);
/* That was the last.  Unless pages may come again it knows that itself. */
void snap_sink_end(struct snap_sink *s);
/* Compare with what the memory held.  Writes all of `memory`, which nobody uses
 * any more.  Exits if it differs. */
void snap_verify(struct snap_sink *s, char *memory);

/* ---- snapshot_memory.c --------------------------------------------------- */

/* What processes take. */
struct snap_memory {
	uint64_t anonymous; /* bytes, of shared pages their part */
	uint64_t tables;    /* page tables, bytes */
};

/* Add process `pid`'s to *m.  It takes its time: not in what is timed. */
void snap_memory_add(struct snap_memory *m, pid_t pid);
/* Die if the run would not fit the memory that is available. */
void snap_memory_check(bool is_fork);

/* ---- snapshot_methods.c -------------------------------------------------- */

/* What came of one. */
struct snap_result {
	const char *barrier;     /* weir's, or "fork" */
	uint64_t prepare_ns;     /* length of PREPARE */
	uint64_t stop_ns;        /* until the writers were quiet */
	uint64_t begin_ns;       /* for which they were kept so */
	uint64_t prepare_cpu_ns; /* CPU time of the saver: what others who
				  * run do not disturb */
	uint64_t begin_cpu_ns;   /* likewise */
	uint64_t save_cpu_ns;    /* of all threads and fork's child, writers
				  * too, from the moment to the last page */
	uint64_t faults;         /* writes that met a protected page */
	uint64_t kept;           /* pages copied because they were written */
	uint64_t hot;            /* of them, in begin */
	uint64_t hot_protected;  /* units protected in begin */
	uint64_t waits;          /* writes that found the pool full */
	uint64_t again;          /* end: bytes that came more than once */
	uint64_t pool_peak;      /* bytes of the pool in use */
	struct snap_memory base; /* before the snapshot */
	struct snap_memory full; /* when the sink had taken the last page */
};

/* CPU time of this thread, or of the process; ns. */
uint64_t snap_cpu(bool process);
/* Memory as the method wants it. */
char *snap_method_memory(void);
/* The snapshot, writers running: phases PREPARE to AFTER. */
void snap_method_run(struct snap_sink *sink, struct snap_result *result);
bool snap_method_is_fork(void);
/* weir's other kind: the image is of when the save ends, and until then pages
 * that were written meanwhile come again. */
bool snap_method_is_end(void);

#endif
