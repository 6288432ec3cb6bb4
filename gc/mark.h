/* SPDX-License-Identifier: MIT */
/*
 * Marking: markers, their stacks, and the team that runs them.
 *
 * A reference that is found, a candidate, passes through a ring while its
 * granule byte is fetched into the cache; then its object is marked and put on
 * the marker's stack, to be scanned.  From there it passes through another ring
 * while its words are fetched (the idea is from Cher, Hosking and Vitek,
 * "Software prefetching for mark-sweep garbage collection", ASPLOS 2004).  So
 * to push marks, but never scans: it does not nest.
 *
 * The stack is made of segments: one that the marker works on, a private list
 * of full ones, and a small deque of full ones that others may steal from.  An
 * entry is a marked object's address or, with bit 0 set, a candidate that is
 * to be looked at later: no object starts at an odd address.
 *
 * When no segment is to be had (mark-stack-max, or no memory), the object's
 * block is noted as `overflow`; marked objects in such blocks are scanned again
 * when the stacks are empty, so nothing is lost.
 *
 *   push, mark_loop        the marker's own thread
 *   deque top              any marker
 *   team_run               the collector
 */
#ifndef WEIR_GC_MARK_H
#define WEIR_GC_MARK_H

#include "gc/heap.h"

#define WG_SEGMENT_ENTRIES 1022
#define WG_DEQUE 64 /* shared segments a marker; the rest stay private */
#define WG_RING 16
#define WG_SCAN_RING 32
#define WG_SLICES 256
#define WG_SLICE_WORDS 512 /* of a large object, scanned at a time */

struct wg_segment {
	struct wg_segment *next;         /* in a list */
	uint64_t n;                      /* entries in use */
	uintptr_t e[WG_SEGMENT_ENTRIES]; /* objects, or candidates | 1 */
};
_Static_assert(sizeof(struct wg_segment) == 8192, "two pages");

/* The part of a large object that is still to be scanned. */
struct wg_slice {
	uintptr_t object; /* its start */
	uintptr_t at;     /* scanned below this */
	uintptr_t end;    /* and up to this */
};

/* Chase and Lev's deque ("Dynamic circular work-stealing deque", SPAA 2005) in
 * the C11 form of Le, Pop, Cohen and Zappa Nardelli (PPoPP 2013), of fixed
 * size: a full deque refuses. */
struct wg_deque {
	_Alignas(64) int64_t top;    /* thieves take here */
	_Alignas(64) int64_t bottom; /* the owner pushes and pops here */
	struct wg_segment *slot[WG_DEQUE];
};

struct wg_marker {
	struct weir_heap *heap;
	unsigned index;                    /* in heap->marker */
	struct wg_segment *cur;            /* working segment */
	struct wg_segment *full;           /* private full ones */
	struct wg_segment *spare;          /* an empty one */
	unsigned ring_at;                  /* next ring slot */
	uintptr_t ring[WG_RING];           /* candidates, 0: empty */
	unsigned scan_at;                  /* next slot of scan_ring */
	uintptr_t scan_ring[WG_SCAN_RING]; /* marked objects, 0: empty */
	unsigned slices;                   /* in use */
	struct wg_slice slice[WG_SLICES];
	bool collects;               /* push stacks candidates: verifier */
	bool lost;                   /* ... and there was no memory for one */
	bool in_pause;               /* all mutators are stopped */
	unsigned since_share;        /* pops since the last look at idle ones */
	uint64_t bytes;              /* marked since the cycle began */
	uint64_t objects;            /* likewise */
	uint64_t overflows;          /* candidates that found no segment */
	struct wg_segment *deferred; /* objects to be traced in a stop */
	uintptr_t traced;            /* see wg_scan_marked() */
	uint64_t job_cpu;            /* CPU clock when the job began */
	struct wg_deque deque;
};

/* The visitor that callbacks get is a marker. */
struct weir_visitor {
	struct wg_marker marker;
};

struct wg_pool *wg_pool_create(const struct wr_sys *sys, size_t limit);
void wg_pool_destroy(struct wg_pool *p);
struct wg_segment *wg_segment_get(struct wg_pool *p); /* NULL: none left */
void wg_segment_put(struct wg_pool *p, struct wg_segment *s);
void wg_pool_lock(struct wg_pool *p, bool lock); /* fork */
void wg_pool_reset(struct wg_pool *p);           /* in the child */

struct wg_marker *wg_marker_create(struct weir_heap *h, unsigned index);
void wg_marker_destroy(struct wg_marker *m);

/* Stack a candidate that is known to lie in the heap, and mark nothing yet.
 * False: there is no segment, nothing was done. */
bool wg_push_later(struct wg_marker *m, uintptr_t p);
/* Mark what a candidate points into, if anything, and stack it; `byte` is the
 * candidate's granule's. */
void wg_mark_candidate(struct wg_marker *m, uintptr_t p, uint8_t byte);

static inline void wg_candidate(struct wg_marker *m, uintptr_t p)
{
	struct weir_heap *h = m->heap;
	uint8_t byte = wg_meta_load(&h->meta[wg_granule_of(h, p)]);

	/* Most are marked, by far, when pages are scanned again. */
	if ((byte & WEIR_META_COLOUR) != h->colour)
		wg_mark_candidate(m, p, byte);
}

/* Push a candidate that is known to lie in the heap: it, or the one that is
 * longest in the ring, is marked. */
static inline void wg_push(struct wg_marker *m, uintptr_t p)
{
	struct weir_heap *h = m->heap;
	uintptr_t q = m->ring[m->ring_at];

	if (wr_unlikely(m->collects)) {
		m->lost |= !wg_push_later(m, p);
		return;
	}
	__builtin_prefetch(&h->meta[wg_granule_of(h, p)], 0);
	m->ring[m->ring_at] = p;
	m->ring_at = (m->ring_at + 1) % WG_RING;
	if (wr_likely(q))
		wg_candidate(m, q);
}

/* Push any word; what does not point into the heap is dropped. */
static inline void wg_push_word(struct wg_marker *m, uintptr_t w)
{
	if (wg_in_heap(m->heap, w))
		wg_push(m, w);
}

/* mark.c: empty the marker's stack and what it can steal.  Returns when every
 * marker of the running job is out of work. */
void wg_mark_loop(struct wg_marker *m);
/* Empty the marker's own stack only. */
void wg_mark_own(struct wg_marker *m);
/* The same, so many turns at most; false: it is empty. */
bool wg_mark_some(struct wg_marker *m, unsigned turns);
/* Granule at which the object starts that p points into, or SIZE_MAX. */
size_t wg_resolve(const struct weir_heap *h, uintptr_t p);
/* Note that the marked object at granule g still has to be scanned: */
void wg_mark_overflow(struct wg_marker *m, size_t g);
void wg_mark_defer(struct wg_marker *m, size_t g); /* in the pause */
/* Add an object to a list of segments; false: no segment. */
bool wg_list_add(struct wg_marker *m, struct wg_segment **list, uintptr_t p);

/* scan.c */
/* Scan the object that starts at granule g, just marked. */
void wg_scan_object(struct wg_marker *m, size_t g, uint8_t byte);
void wg_scan_slice(struct wg_marker *m);
/*
 * Scan the parts of marked objects in [start, end), one space's blocks.  An
 * object with a callback can only be scanned whole: not again while it is
 * m->traced, which callers clear before ranges that were armed, or noted as
 * overflow, after it may have been traced.
 */
void wg_scan_marked(struct wg_marker *m, uintptr_t start, uintptr_t end);
/* Scan a range of words that is not in the heap. */
void wg_scan_words(struct wg_marker *m, uintptr_t start, uintptr_t end);
/* The same for roots: references into fresh blocks need no marking. */
void wg_scan_roots(struct wg_marker *m, uintptr_t start, uintptr_t end);
/* Bytes of the object that starts at granule g, which nobody frees now. */
size_t wg_object_bytes(const struct weir_heap *h, size_t g);
/* The same of an object that may be swept meanwhile: 0 if its end is gone. */
size_t wg_object_bytes_now(const struct weir_heap *h, size_t g);
/* Its kind. */
const struct wg_kind *wg_object_kind(const struct weir_heap *h, size_t g,
				     uint8_t byte, size_t bytes);

/* team.c */
int wg_team_create(struct weir_heap *h);
void wg_team_destroy(struct weir_heap *h);
/* What a worker of the team does; index 0 is the caller of wg_team_run. */
typedef void wg_job_fn(struct weir_heap *h, struct wg_marker *m, void *arg);
void wg_team_run(struct weir_heap *h, unsigned workers, wg_job_fn *fn,
		 void *arg);
/* Drain all stacks with `workers` markers, overflow included. */
void wg_team_mark(struct weir_heap *h, unsigned workers);
/* A marker made work available to others. */
void wg_team_announce(struct weir_heap *h);
bool wg_team_hungry(const struct weir_heap *h);
/* A marker has no work: true when it found some, false when all are done. */
bool wg_team_idle(struct wg_marker *m);

/* rootscan.c */
void wg_roots_concurrent(struct weir_heap *h, struct wg_marker *m);
void wg_roots_paused(struct weir_heap *h, struct wg_marker *m);
/* What is live of a thread that is held and shown. */
void wg_scan_thread(struct wg_marker *m, struct wr_thread *t);
/* Root callbacks that only a stop may call; see wr_roots_calls(). */
void wg_roots_calls(struct weir_heap *h, struct wg_marker *m);

/* deque.c */
bool wg_deque_push(struct wg_deque *d, struct wg_segment *s);
struct wg_segment *wg_deque_pop(struct wg_deque *d);
struct wg_segment *wg_deque_steal(struct wg_deque *d);
bool wg_deque_empty(const struct wg_deque *d);

#endif
