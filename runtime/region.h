/* SPDX-License-Identifier: MIT */
/*
 * Regions and the snapshots of them, from within.
 *
 * A region's memory is divided in units (a page, or 2 MiB), each with a byte:
 *
 *   OPEN    writable, as far as is known; what it holds is not yet kept
 *   ARMED   write-protected, not yet kept
 *   TAKEN   somebody copies it just now; write-protected
 *   SAVED   kept, or not needed; may be writable or not
 *
 * and flags: LOOSE (its content was given back behind our back, so that it may
 * lose protection: not to be armed before begin), DIRTY (changed since the last
 * snapshot that counts), NEXT (changed since this one's begin), and AGAIN, how
 * often it was armed again while the snapshot was prepared.  ARMED implies
 * protected but for the moment between the two steps of the armer and of the
 * handler, which begin waits for.
 *
 * A region's phase says what a fault means:
 *
 *   IDLE, ARMING   unprotect the unit, THEN make it OPEN and DIRTY
 *   TURNING        begin is under way: try again later
 *   ACTIVE         take it (ARMED -> TAKEN), copy it into the pool, make it
 *                  SAVED, THEN unprotect it.  SAVED: note NEXT, unprotect.
 *                  TAKEN: whoever has taken it unprotects it, and wakes
 *
 * Why not one order: without a snapshot the armer may protect the unit again
 * beside the handler.  OPEN comes last there, so the worst that is left is an
 * OPEN unit that is protected, whose next fault opens it; the other way round
 * it could be ARMED and writable, and a write be lost.  With a snapshot nobody
 * protects, and what is SAVED may be written.
 *
 * Who changes a unit's byte: handlers (the listener, a SIGBUS handler), the
 * armer, the saver, discard; all by compare-and-swap.  begin and end of ARMING
 * are alone: phase TURNING, then a grace period.
 */
#ifndef WEIR_RUNTIME_REGION_H
#define WEIR_RUNTIME_REGION_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <weir/snapshot.h>

#include "runtime/barrier.h"
#include "runtime/lock.h"
#include "runtime/old_handles.h"
#include "runtime/snap_point.h"
#include "runtime/snap_pool.h"
#include "runtime/watch.h"

enum {
	WR_UNIT_OPEN = 0,
	WR_UNIT_ARMED = 1,
	WR_UNIT_TAKEN = 2,
	WR_UNIT_SAVED = 3,
	WR_UNIT_STATE = 3, /* mask of the above */
	WR_UNIT_LOOSE = 4,
	WR_UNIT_DIRTY = 8,
	WR_UNIT_NEXT = 16,
	WR_UNIT_AGAIN = 32, /* and above: a number */
};

enum wr_phase {
	WR_PHASE_IDLE,
	WR_PHASE_ARMING,
	WR_PHASE_TURNING,
	WR_PHASE_ACTIVE,
};

/* Units of one byte in `hot`: their states are one line of the cache. */
#define WR_GROUP 64u
/* Units that are seen to at once, by the armer and the saver. */
#define WR_STEP 512u

static inline size_t wr_groups_of(size_t units)
{
	return (units + WR_GROUP - 1) / WR_GROUP;
}

struct weir_region {
	uintptr_t start;          /* first byte */
	size_t bytes;             /* in use; grows; atomic */
	size_t limit;             /* address space that is ours */
	unsigned shift;           /* log2 of the unit */
	unsigned flags;           /* WEIR_REGION_* */
	unsigned barrier;         /* enum weir_region_barrier, never AUTO */
	bool adopted;             /* the memory is the caller's */
	bool shared;              /* a shared mapping */
	int memfd;                /* WEIR_REGION_SHARED: the file, else -1 */
	char name[32];            /* for people */
	const char *why;          /* of the barrier; static */
	struct wr_watch *watch;   /* sync, sigbus: who hears of faults; NULL:
				   * not registered (after fork) */
	struct wr_barrier *async; /* async: the kernel notes writes */
	uint8_t *state;           /* a byte a unit, up to the limit; atomic */
	uint8_t *hot;   /* a byte a group: may have OPEN units; atomic */
	unsigned phase; /* enum wr_phase; atomic */
	struct weir_snapshot *snapshot; /* that it is in, or NULL; see `lock` of
					 * region.c */
	unsigned index;                 /* of it there */
	size_t snap_units;              /* units in it, from begin on */
	bool armed_once;     /* all of it was, so that `hot` is complete */
	size_t armed_units;  /* up to there: what grew since may be open */
	uint8_t last[16];    /* id of the last snapshot that counts, or zero */
	size_t last_count;   /* regions in it */
	unsigned last_index; /* this one's number there */
	/* async, TRACK: which pages of it were not zero, a bit each. */
	uint64_t *held;    /* own memory, or NULL */
	size_t held_pages; /* of it */
};

enum wr_snap_state {
	WR_SNAP_NEW,
	WR_SNAP_BEGUN,
	WR_SNAP_READ, /* all of it */
};

#define WR_URGENT 256

struct weir_snapshot {
	/* These outlast the handle; see snap_handle.c. */
	uint64_t magic;             /* WR_SNAPSHOT_MAGIC; 0: it ended; atomic */
	int waiting;                /* writers that wait in handlers; atomic */
	uint32_t wake;              /* futex of theirs: counts what may end
				     * it */
	struct wr_old_handle ended; /* snap_handle.c */

	/* Zeroed for each snapshot, from here on. */
	struct weir_region **regions;         /* own memory */
	size_t count;                         /* of them */
	struct weir_snapshot_options options; /* in full size; pinned: own */
	struct wr_pool pool;                  /* pages that were written */
	unsigned state;                       /* enum wr_snap_state */
	int failed;             /* negative errno, 0: not; set once; atomic */
	uint32_t stop_arming;   /* the armer is to return; atomic */
	struct wr_mutex arming; /* held by it for a step */
	uint64_t pass_faults;   /* figures.faults when its last pass began */
	bool passed;            /* there was one */
	bool hurry;             /* passes no longer pause for writers */
	pthread_t armer;        /* WEIR_PREPARE_NOWAIT */
	bool has_armer;         /* it is to be joined */
	pid_t saver;            /* thread that reads it now, or 0; atomic */
	bool orphan;            /* in a child of fork(): no region's any more */
	uint32_t urgent_lock;   /* futex lock of the two below */
	unsigned urgent_count;  /* entries */
	struct wr_unit urgent[WR_URGENT];      /* written and waited for */
	uint8_t id[16];                        /* random */
	uint8_t base[16];                      /* followed, or zero */
	uint64_t moment_ns;                    /* CLOCK_REALTIME of it */
	uint64_t begun_ns;                     /* CLOCK_MONOTONIC of it */
	struct weir_snapshot_progress figures; /* atomic each */
	char text[256];     /* why it failed; before `failed` */
	uint32_t text_lock; /* who sets it; a futex lock */
};

#define WR_SNAPSHOT_MAGIC 0x70616e732d776572ull

static inline size_t wr_region_unit(const struct weir_region *r)
{
	return (size_t)1 << r->shift;
}

/* What its size and its limit are multiples of, and it is aligned to. */
size_t wr_region_grain(const struct weir_region *r);

static inline uintptr_t wr_unit_address(const struct weir_region *r, size_t u)
{
	return r->start + (u << r->shift);
}

/* Relaxed: sums, no other memory depends on them. */
static inline void wr_snap_count(uint64_t *figure, uint64_t n)
{
	__atomic_fetch_add(figure, n, __ATOMIC_RELAXED);
}

/* Acquire, release: pairs with each other; who sees SAVED (writes go on) or
 * ARMED sees what was done before it became that. */
static inline uint8_t wr_unit_get(const struct weir_region *r, size_t u)
{
	return __atomic_load_n(&r->state[u], __ATOMIC_ACQUIRE);
}

static inline bool wr_unit_swap(struct weir_region *r, size_t u, uint8_t *seen,
				uint8_t next)
{
	return __atomic_compare_exchange_n(&r->state[u], seen, next, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* `from` -> `to`, the flags kept but for `drop`, `add` added.  False: it is
 * not in `from`. */
bool wr_unit_move(struct weir_region *r, size_t u, unsigned from, unsigned to,
		  unsigned add);

/*
 * Unit u was made OPEN: the armer and begin are to look at its group.  AFTER it
 * was, with release order, which pairs with the exchange in arm_groups(): who
 * takes the mark off sees the unit OPEN.  The other way round the mark could be
 * taken off between the two, and begin pass the unit by.
 */
static inline void wr_unit_is_open(struct weir_region *r, size_t u)
{
	__atomic_store_n(&r->hot[u / WR_GROUP], 1, __ATOMIC_RELEASE);
}

/* Whether units of group g may be OPEN. */
static inline bool wr_group_is_hot(const struct weir_region *r, size_t g)
{
	/* Acquire: pairs with wr_unit_is_open(). */
	return !r->armed_once || (g + 1) * WR_GROUP > r->armed_units ||
	       __atomic_load_n(&r->hot[g], __ATOMIC_ACQUIRE);
}

/* Copy a unit out of a region that writers wait to write.  Whether it is all
 * zero: then nothing may have been copied. */
bool wr_unit_copy(void *to, const void *from, size_t bytes);

/* Region of an address, or NULL.  In a grace period of its watch. */
struct weir_region *wr_region_find(uintptr_t p);

/* The regions in turn: *i begins at 0; NULL after the last.  Likewise. */
struct weir_region *wr_region_next(unsigned *i);

int wr_region_valid(const struct weir_region *r, const char *function);

/* A handle, zeroed, or NULL; and the end of one.  Its memory stays a
 * snapshot's: who holds an old handle finds that it has ended. */
struct weir_snapshot *wr_snapshot_new(void);
void wr_snapshot_free(struct weir_snapshot *s);
int wr_snapshot_valid(const struct weir_snapshot *s, const char *function);
/* In a child of fork(): no thread of the parent's waits any more. */
void wr_snapshots_fork_child(void);

/* ---- A snapshot's parts ------------------------------------------------- */

/* It has failed with -err, once: the first wins.  Everywhere, also in signal
 * handlers.  text: static, or NULL for the standing one. */
void wr_snap_fail(struct weir_snapshot *s, int err, const char *text);
static inline int wr_snap_failed(const struct weir_snapshot *s)
{
	/* Acquire: pairs with the release in wr_snap_fail(), for the text. */
	return __atomic_load_n(&s->failed, __ATOMIC_ACQUIRE);
}
/* Set the error text, return the negative errno. */
int wr_snap_error(const struct weir_snapshot *s);

/* Nothing is protected any more, every waiter goes on; DIRTY as before, and
 * what was written since begin too. */
void wr_snap_let_go(struct weir_snapshot *s);
void wr_snap_wake(struct weir_snapshot *s);

/* The pool, if it is not there yet. */
int wr_snap_open_pool(struct weir_snapshot *s);
/* The writers not yet quiet: what was written since prepare, protected again.
 */
int wr_snap_rearm(struct weir_snapshot *s);
/* In begin, alone: no unit of r is OPEN any more. */
int wr_snap_turn(struct weir_snapshot *s, struct weir_region *r);
int wr_snap_pin(struct weir_snapshot *s, const struct weir_snapshot_range *pin);
void wr_snap_warm(struct weir_snapshot *s);

/* The armer stops and is gone. */
void wr_snap_end_arming(struct weir_snapshot *s);

/* What a handler is to do about a unit of an ACTIVE region. */
enum wr_fault_result {
	WR_FAULT_DONE,  /* the writer goes on, or somebody will see to it */
	WR_FAULT_AGAIN, /* try again soon */
	WR_FAULT_WAIT,  /* wait for s->wake, then again (sigbus, discard) */
};

/* Whose write it is: a thread id, or one of these. */
#define WR_WRITER_NONE ((pid_t)0)
#define WR_WRITER_SELF ((pid_t)-1) /* the caller */

/* Pre-image of unit u into the pool, ARMED -> SAVED|NEXT; anything else as the
 * head says.  The caller unprotects on DONE.  All signals blocked.  WAIT is
 * never the answer to the saver's own thread, which would wait for itself: the
 * snapshot fails. */
enum wr_fault_result wr_snap_keep(struct weir_region *r, size_t u,
				  pid_t writer);

/* Whether a unit in `state` is to be saved: a delta leaves out what is as it
 * was. */
static inline bool wr_snap_needs(const struct weir_snapshot *s, uint8_t state)
{
	return !(s->options.flags & WEIR_SNAPSHOT_DELTA) ||
	       state & WR_UNIT_DIRTY;
}

/* Runs to the sink, counted; `again`: they were handed over before.  Returns
 * their bytes, or -1: the snapshot has failed. */
long wr_snap_hand_over(struct weir_snapshot *s, weir_snapshot_sink_fn *sink,
		       void *arg, const struct weir_snapshot_run *runs,
		       size_t count, bool again);

static inline size_t wr_held_bytes(size_t pages)
{
	return (pages / 64 + 1) * 8;
}

/* Read a snapshot of kind END. */
int wr_snap_read_end(struct weir_snapshot *s, weir_snapshot_sink_fn *sink,
		     void *arg);
/* Read: progress callbacks, rate, failure.  Returns 0 or what it failed with.
 */
struct wr_pace {
	uint64_t start_ns; /* of the reading */
	uint64_t said_ns;  /* of the last callback */
	uint64_t bytes;    /* read so far */
};
int wr_snap_pace(struct weir_snapshot *s, struct wr_pace *p, uint64_t bytes);
uint64_t wr_snap_now(void);
/* Fill *p, remaining_ns too. */
void wr_snap_figures(const struct weir_snapshot *s,
		     struct weir_snapshot_progress *p);
/* stop and resume of the options, timed. */
int wr_snap_stop(struct weir_snapshot *s);
void wr_snap_resume(struct weir_snapshot *s);

#endif
