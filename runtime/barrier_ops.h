/* SPDX-License-Identifier: MIT */
/*
 * Between runtime/barrier.c and the back ends; nobody else includes this.
 *
 * A range node is published by a release store to `end` and found by an
 * acquire load of it, without a lock, because fault handlers look ranges up
 * in signal context.  Nodes stay in the list until the barrier is destroyed;
 * a removed one has end == 0 and is used again by a later add.  Fault handlers
 * hold b->grace from the look-up to the last use of the node, and removing
 * waits for them, so that a range's state can be freed.
 */
#ifndef WEIR_RUNTIME_BARRIER_OPS_H
#define WEIR_RUNTIME_BARRIER_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/barrier.h"
#include "runtime/barrier_grace.h"
#include "runtime/lock.h"
#include "runtime/uffd.h"

struct wr_range {
	struct wr_range *next; /* older node; constant once linked */
	uintptr_t start;       /* first byte; atomic */
	uintptr_t end;         /* one past the last, 0: unused; atomic */
	void *state;           /* the back end's, set before publication */
};

/* What a back end does.  start and end are page-aligned and inside one range;
 * functions return 0 or a negative errno with error text. */
struct wr_barrier_ops {
	/* Get what the kind needs and prove on a scratch page that it works. */
	int (*open)(struct wr_barrier *b);
	void (*close)(struct wr_barrier *b);
	/* Before r is published; after it was withdrawn. */
	int (*add)(struct wr_barrier *b, struct wr_range *r);
	void (*remove)(struct wr_barrier *b, struct wr_range *r);
	int (*arm)(struct wr_barrier *b, uintptr_t start, uintptr_t end);
	/* On error what was not looked at has been reported. */
	int (*fetch)(struct wr_barrier *b, uintptr_t start, uintptr_t end,
		     unsigned flags, wr_run_fn *fn, void *arg);
	int (*forget)(struct wr_barrier *b, uintptr_t start, uintptr_t end);
	/* NULL: nothing to do. */
	void (*fork_prepare)(struct wr_barrier *b);
	void (*fork_parent)(struct wr_barrier *b);
	/* On failure the back end is closed. */
	int (*fork_child)(struct wr_barrier *b);
};

struct wr_maps;     /* runtime/barrier_map.h */
struct wr_listener; /* runtime/barrier_sync.c */

struct wr_barrier {
	const struct wr_barrier_ops *ops; /* of the kind */
	enum wr_barrier_kind kind;        /* never AUTO */
	unsigned page_shift;              /* log2 of the page size */
	struct wr_range *ranges;          /* newest first; head is atomic */
	struct wr_mutex lock;             /* add_range, remove_range, fork */
	struct wr_grace grace;        /* faults in progress, which use nodes */
	uint64_t faults;              /* statistics; relaxed, a sum only */
	uint64_t calls;               /* statistics; relaxed, a sum only */
	uint64_t arms;                /* the same */
	uint64_t fetches;             /* the same */
	uint64_t forgets;             /* the same */
	char why[768];                /* wr_barrier_why(); constant */
	struct wr_uffd uffd;          /* async, sync, sigbus */
	int pagemap;                  /* async: PAGEMAP_SCAN goes here */
	struct wr_maps *maps;         /* sync, sigbus, mprotect */
	struct wr_listener *listener; /* sync, sigbus: reads the events */
};

extern const struct wr_barrier_ops wr_barrier_async_ops;
extern const struct wr_barrier_ops wr_barrier_sync_ops;
extern const struct wr_barrier_ops wr_barrier_sigbus_ops;
extern const struct wr_barrier_ops wr_barrier_mprotect_ops;
extern const struct wr_barrier_ops wr_barrier_none_ops;

/* The kinds in the order in which AUTO tries them; the last always works. */
#define WR_BARRIER_AUTO_ORDER                                      \
	{                                                          \
		WR_BARRIER_ASYNC, WR_BARRIER_SYNC, WR_BARRIER_NONE \
	}

/* wr_barrier_create() of one kind, -ENOTSUP also if system calls that write
 * into a protected page would fail.  What AUTO does for each kind. */
int wr_barrier_create_safe(enum wr_barrier_kind kind, struct wr_barrier **out);

/* A range's node by address, or NULL.  Signal-safe. */
struct wr_range *wr_barrier_find(struct wr_barrier *b, uintptr_t p);

/* Relaxed: independent counters, read without order by wr_barrier_stats. */
static inline void wr_barrier_count_calls(struct wr_barrier *b, uint64_t n)
{
	__atomic_fetch_add(&b->calls, n, __ATOMIC_RELAXED);
}

/* Relaxed, as above. */
static inline void wr_barrier_count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static inline void wr_barrier_count_fault(struct wr_barrier *b)
{
	__atomic_fetch_add(&b->faults, 1, __ATOMIC_RELAXED);
}

#endif
