/* SPDX-License-Identifier: MIT */
/*
 * The page map of the back ends that learn of writes by faults: sync, sigbus,
 * mprotect.  They differ in how a page is protected and how its fault arrives;
 * what is CLEAN, and the locking, is here.
 *
 *   clean bit 1 = CLEAN: the page is protected
 *   clean bit 0 = DIRTY: it may be protected all the same (an arm failed half
 *                 way); the fault then finds that out and takes it off
 *
 * A chunk is 512 pages, aligned like a huge page.  A chunk's bits change only
 * under its stripe lock, together with the protection:
 *
 *   resolve, forget   clear the bit, THEN unprotect: whoever can write finds
 *                     the bit cleared already
 *   arm, fetch+REARM  protect and set the bit
 *
 * Without the lock a re-arm could fall between the two steps of a resolve and
 * leave a page CLEAN and writable: a lost write.  fetch without REARM takes no
 * lock: it may run with the world stopped.
 *
 *   who may call         beside whom
 *   resolve, discarded   anything; resolve also in a signal handler that runs
 *                        with every signal blocked
 *   arm, fetch, forget   as barrier.h says; they block signals while they hold
 *                        a lock, so no thread is ever stopped with one.  The
 *                        caller's stack must not lie in a range.
 */
#ifndef WEIR_RUNTIME_BARRIER_MAP_H
#define WEIR_RUNTIME_BARRIER_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/barrier_ops.h"

#define WR_CHUNK_PAGES 512u
#define WR_STRIPES 64u

/* How a back end protects.  Both return the number of system calls made or a
 * negative errno, set no error text, and may run in a signal handler. */
struct wr_protector {
	int (*protect)(struct wr_barrier *b, uintptr_t start, uintptr_t end);
	int (*unprotect)(struct wr_barrier *b, uintptr_t start, uintptr_t end);
	/* unprotect without a wait, or -EAGAIN; for wr_map_try_resolve(). */
	int (*try_unprotect)(struct wr_barrier *b, uintptr_t start,
			     uintptr_t end);
	/* Find out which pages of [start, end) are read-write and set their
	 * usable bits.  NULL: every page can be protected. */
	int (*learn)(struct wr_barrier *b, struct wr_range *r, uintptr_t start,
		     uintptr_t end);
	/* Wait until what was known to the kernel when the call began is in
	 * the map.  NULL: it always is. */
	void (*settle)(struct wr_barrier *b);
};

/* A lock alone on its cache line: 0 free, 1 held, 2 held and waited for. */
struct wr_stripe {
	uint32_t word;    /* the futex */
	char pad[64 - 4]; /* stripes are taken by different processors */
};

/* Of a barrier: b->maps. */
struct wr_maps {
	_Alignas(64) struct wr_stripe
		stripe[WR_STRIPES];     /* chunk number modulo */
	const struct wr_protector *how; /* the back end's */
};

/* Of a range: r->state. */
struct wr_map {
	uint64_t *clean;  /* bit i: page i is CLEAN; atomic */
	uint64_t *usable; /* bit i: page i was seen read-write; or NULL */
	size_t bytes;     /* size of one bitmap */
	size_t bias;      /* bit number of the range's first page */
};

int wr_maps_open(struct wr_barrier *b, const struct wr_protector *how);
void wr_maps_close(struct wr_barrier *b);
/* Every range's map, then the rest. */
void wr_maps_drop(struct wr_barrier *b);
int wr_map_add(struct wr_barrier *b, struct wr_range *r);
/* Frees the map; the protection is left as it is. */
void wr_map_remove(struct wr_barrier *b, struct wr_range *r);

int wr_map_arm(struct wr_barrier *b, uintptr_t start, uintptr_t end);
int wr_map_fetch(struct wr_barrier *b, uintptr_t start, uintptr_t end,
		 unsigned flags, wr_run_fn *fn, void *arg);
int wr_map_forget(struct wr_barrier *b, uintptr_t start, uintptr_t end);

/* A write fault at p: note the page and let the writer go on. */
int wr_map_resolve(struct wr_barrier *b, struct wr_range *r, uintptr_t p);
/* The same without a wait: -EAGAIN if the stripe or the kernel is busy; to be
 * called again then. */
int wr_map_try_resolve(struct wr_barrier *b, struct wr_range *r, uintptr_t p);
/* The pages of [start, end) are being given back: they come back unprotected,
 * so they are DIRTY.  False: a stripe is busy; to be called again. */
bool wr_map_try_discarded(struct wr_barrier *b, uintptr_t start, uintptr_t end);
/* All DIRTY and unprotected; for when the page tables cannot say more. */
int wr_map_open_up(struct wr_barrier *b, struct wr_range *r);

static inline bool wr_map_usable(const struct wr_map *m, size_t i)
{
	/* Relaxed: bits are only ever set, and a fault on a page whose bit
	 * cannot be seen yet is by a thread that did not arm it. */
	return !m->usable ||
	       (__atomic_load_n(&m->usable[i / 64], __ATOMIC_RELAXED) >>
			(i % 64) &
		1);
}

/* Bit number of the page at p. */
static inline size_t wr_map_index(const struct wr_barrier *b,
				  const struct wr_range *r, uintptr_t p)
{
	const struct wr_map *m = r->state;

	return m->bias + ((p - r->start) >> b->page_shift);
}

/* Set the usable bits of pages [from, to). */
void wr_map_set_usable(struct wr_map *m, size_t from, size_t to);
/* wr_protector.learn, by /proc/self/maps. */
int wr_map_can_learn(const char *who); /* -ENOTSUP with text */
int wr_map_learn(struct wr_barrier *b, struct wr_range *r, uintptr_t start,
		 uintptr_t end);

void wr_maps_fork_prepare(struct wr_barrier *b);
void wr_maps_fork_parent(struct wr_barrier *b);
/* Free the locks, every page DIRTY.  Protection is left as it is. */
void wr_maps_fork_child(struct wr_barrier *b);

#endif
