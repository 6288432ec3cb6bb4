/* SPDX-License-Identifier: MIT */
/*
 * The write barrier: which pages were written since they were armed.
 *
 * State of a page of a registered range: CLEAN (armed, not written since) or
 * DIRTY.  Registered pages begin DIRTY.
 *
 *   arm     DIRTY -> CLEAN
 *   write   CLEAN -> DIRTY  (by a mutator or by the kernel for one)
 *   fetch   reports each DIRTY page; with REARM it becomes CLEAN
 *   forget  CLEAN -> DIRTY, so that writes to come cost nothing
 *
 * The order that makes collection correct: when arm or fetch+REARM returns,
 * every write that is not visible to the caller's reads from then on leaves
 * its page DIRTY.  (The kernel flushes the TLBs before the call returns.)
 * So a marker that reads a field after the arm either sees the latest value
 * or the page is reported by a later fetch.
 *
 *   who may call           beside whom
 *   add/remove_range       nothing else on the same range
 *   arm, fetch, forget     mutators writing; each other on disjoint ranges
 *   forget                 beside arm/fetch of the same range: the page ends
 *                          DIRTY or is reported; never silently CLEAN
 *   fork_*                 nothing else
 *
 * Giving pages back (MADV_DONTNEED) leaves them unpopulated, and DIRTY once
 * they are written again, under every kind.  But sync and sigbus learn of it a
 * moment before it happens: there, pages must not be discarded beside an arm
 * or re-arming fetch of the same pages, unless forget is called before they
 * are used again.  MADV_FREE and MADV_MERGEABLE are not to be used on a range,
 * nor is MADV_HUGEPAGE where wr_barrier_huge_pages() is false.
 */
#ifndef WEIR_RUNTIME_BARRIER_H
#define WEIR_RUNTIME_BARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wr_barrier_kind {
	WR_BARRIER_AUTO,
	WR_BARRIER_ASYNC,    /* UFFD WP_ASYNC + PAGEMAP_SCAN */
	WR_BARRIER_SYNC,     /* uffd-wp, a handler thread reads the events */
	WR_BARRIER_SIGBUS,   /* uffd-wp, resolved in the faulting thread */
	WR_BARRIER_MPROTECT, /* mprotect + SIGSEGV */
	WR_BARRIER_NONE,     /* every page is always DIRTY; arm has no effect */
	WR_BARRIER_KINDS
};

struct wr_barrier;

/* A run of whole pages, [start, end). */
struct wr_run {
	uintptr_t start;
	uintptr_t end;
};

/* Receives the dirty runs of a fetch in ascending order; neighbours may touch.
 * With REARM the runs are armed by then, so their pages may be read at once.
 * Must not call into the barrier. */
typedef void wr_run_fn(void *arg, const struct wr_run *runs, size_t count);

#define WR_FETCH_REARM 1u
/* Unpopulated pages may be reported too.  Twice as fast for async without
 * REARM, no difference elsewhere. */
#define WR_FETCH_HOLES 2u
/* async: instead of dirty pages, places of shared memory that are protected and
 * have no page just now, be it that it was given back (which leaves its
 * protection there) or reclaimed. */
#define WR_FETCH_VACANT 4u

/* async: with the dirty pages, in one walk, places that have no page, and no
 * protection waiting for one; in the start of their runs WR_RUN_ABSENT is set.
 * (Where whole page tables are missing, as after a huge page was given back,
 * HOLES finds nothing.) */
#define WR_FETCH_ABSENT 8u
#define WR_RUN_ABSENT ((uintptr_t)1)

struct wr_barrier_stats {
	uint64_t
		faults; /* write faults that reached user space (0 for async) */
	uint64_t calls; /* system calls made by arm, fetch, forget */
	/* How often each was called. */
	uint64_t arms;
	uint64_t fetches;
	uint64_t forgets;
};

/*
 * Make a barrier.  AUTO picks async, else sync if it is safe for system
 * calls (privileged descriptor), else none; never one under which read(2)
 * into a protected page can fail.  -ENOTSUP (with wr_error text naming the
 * cause and the cure) when an explicit kind is not to be had.
 */
int wr_barrier_create(enum wr_barrier_kind kind, struct wr_barrier **out);
void wr_barrier_destroy(struct wr_barrier *b); /* ranges need not be removed */
/* In a child of fork(), without the calls below: an async barrier is the
 * parent's, its descriptors are closed here and the rest is freed. */
void wr_barrier_abandon(struct wr_barrier *b);

/* Whether ranges may have huge pages: not under sync and sigbus before Linux
 * 6.4. */
bool wr_barrier_huge_pages(const struct wr_barrier *b);
enum wr_barrier_kind wr_barrier_kind(const struct wr_barrier *b);
/* Whether system calls may write to armed pages: else these fail with EFAULT.
 * In a child of fork() it may be otherwise. */
bool wr_barrier_serves_kernel(const struct wr_barrier *b);
const char *wr_barrier_name(enum wr_barrier_kind kind); /* "async", ... */
/* Why it is of this kind, a sentence or two; valid as long as the barrier. */
const char *wr_barrier_why(const struct wr_barrier *b);
/* Kind of a name, or -EINVAL. */
int wr_barrier_parse(const char *name, enum wr_barrier_kind *kind);
void wr_barrier_stats(const struct wr_barrier *b, struct wr_barrier_stats *s);

/*
 * Register page-aligned private anonymous memory.  It may be PROT_NONE and
 * unpopulated now and made read-write later.  -EBUSY: another userfaultfd
 * owns a part of it.
 */
int wr_barrier_add_range(struct wr_barrier *b, void *start, size_t size);
int wr_barrier_remove_range(struct wr_barrier *b, void *start, size_t size);

/*
 * start and size are page-aligned and inside one added range.  Unpopulated
 * and PROT_NONE parts are allowed; a page populated after the arm is DIRTY.
 * async never reports them (but with WR_FETCH_HOLES); the other kinds may, so
 * a page may not be read for the only reason that it was reported.
 * An error of arm leaves pages DIRTY, and before fetch returns an error it has
 * reported all that it could not look at: going on is safe, not fast.
 */
int wr_barrier_arm(struct wr_barrier *b, void *start, size_t size);
int wr_barrier_fetch(struct wr_barrier *b, void *start, size_t size,
		     unsigned flags, wr_run_fn *fn, void *arg);
int wr_barrier_forget(struct wr_barrier *b, void *start, size_t size);

/*
 * fork: _prepare takes the barrier's locks in the parent, _parent drops them.
 * _child makes the barrier work in the child, with the same kind and ranges,
 * every page DIRTY.  If the kind is not to be had there it becomes NONE and
 * -ENOTSUP is returned (still usable).
 */
void wr_barrier_fork_prepare(struct wr_barrier *b);
void wr_barrier_fork_parent(struct wr_barrier *b);
int wr_barrier_fork_child(struct wr_barrier *b);

#endif
