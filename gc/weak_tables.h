/* SPDX-License-Identifier: MIT */
/*
 * The side tables of weak references, links, finalizers, objects that are asked
 * before they go, and ephemerons.
 *
 * None of them is in the heap and none is a root.  Each is an array in a
 * reserved range of addresses, so that entries never move, and all that a
 * pause needs was committed when the entry was made: nothing is allocated
 * with the program stopped.  Entries are known by index.
 *
 * A watch is an entry that wants to know when its object dies: a weak
 * reference, a link, a finalizer or an object of a disclaiming kind.  It is
 * decided, for this cycle, when the object is black; a link only if what its
 * slot lies in is not to die either.  Which must a cycle look at?
 *
 *	a black object stays black until the colour turns, hence
 *	minor cycle   only what was made or changed since the last pause
 *	full cycle    all
 *
 * The first are noted as they come, in `pending`.  Before the pause the
 * collector goes through pending, and in a full cycle through the table, in
 * batches under the lock, and keeps as pending those that are undecided.  The
 * pause looks at pending alone:
 *
 *	(W) outside of the lock, a LIVE watch that is not pending is decided, or
 *	    belongs to a full cycle that has not come to it yet
 *
 *   who                          may
 *   mutators, CRITICAL, and      make, change and free entries, under the lock
 *     other threads
 *   the collector                filter pending, walk tables, in batches under
 *                                the lock; in a pause all at once under it
 *   markers                      read ephemerons, add to those that wait
 */
#ifndef WEIR_GC_WEAK_TABLES_H
#define WEIR_GC_WEAK_TABLES_H

#include "gc/mark.h"
#include "gc/weak.h"
#include "runtime/lock.h"

/* Entries that the collector looks at with the lock held; a mutator that
 * waits for the lock cannot be stopped meanwhile. */
#define WG_WEAK_BATCH 256u
#define WG_AHEAD 12           /* entries between a prefetch and its use */
#define WG_PAGE_GRANULES 256u /* of a page; least buckets of a table */

struct wg_array {
	char *base;       /* reserved */
	size_t reserved;  /* bytes of address range */
	size_t committed; /* bytes backed by memory */
};

enum wg_watch_state {
	WG_WATCH_LIVE = 1,    /* in use, not queued */
	WG_WATCH_PENDING = 2, /* its index is in `pending` */
	WG_WATCH_QUEUED = 4,  /* finalizer: to be run; disclaim: to be asked */
	WG_WATCH_ORDERED = 8, /* finalizer, disclaim: waits for those that reach
			       * it */
	WG_WATCH_SELF = 16,   /* ... but for itself, directly */
	WG_WATCH_LONG = 16,   /* link: WEIR_LINK_LONG */
};

/* The head of an entry. */
struct wg_watch {
	uintptr_t object; /* atomic: watched, 0: none or cleared */
	uint32_t state;   /* atomic: enum wg_watch_state bits */
	uint32_t next;    /* free list, or chain of the hash table */
};
_Static_assert(sizeof(struct wg_watch) == 16, "four to a cache line");

/* Whether a LIVE entry is undecided although its object is black. */
typedef bool wg_also_fn(const struct weir_heap *h, const struct wg_watch *e);

struct wg_watches {
	struct wg_array entries; /* [0] is not used */
	size_t stride;           /* bytes of an entry */
	wg_also_fn *also;        /* what else is undecided, or NULL */
	uint32_t high;           /* entries [1, high) were in use */
	uint32_t free;           /* first free one, 0: none */
	uint32_t count;          /* in use */
	struct wg_array pending; /* 2 * high of uint32_t */
	uint32_t pending_n;      /* in use */
	uint32_t kept;           /* filter: results are below this, */
	uint32_t at;             /* and what was read below this, */
	uint32_t end;            /* which is to go on up to this */
};

/* A hash table of watches, chained by `next`. */
struct wg_chains {
	struct wg_array bucket; /* uint32_t: first of a chain */
	uint32_t buckets;       /* in use; see weak_tables.c */
	uint32_t (*hash)(const struct wg_watch *e); /* an entry's */
};

struct weir_weak {
	struct wg_watch watch; /* nothing more */
};

struct wg_link {
	struct wg_watch watch; /* comes first; object: as given */
	uintptr_t slot;        /* to be cleared */
};

struct wg_links {
	struct wg_watches table;
	struct wg_chains chains; /* by slot */
};

struct wg_finalizer {
	struct wg_watch watch; /* comes first */
	weir_finalizer_fn *fn; /* to be called with the object */
	void *arg;             /* and this */
};

struct wg_finalizers {
	struct wg_watches table;
	struct wg_chains chains; /* by object; of them one is not QUEUED */
	struct wg_array queue;   /* uint32_t: those to be run */
	uint32_t head, tail;     /* [head, tail) of it */
	uint32_t ready;          /* [ready, tail) are to be told of first */
	uint32_t queued;         /* atomic: ready - head */
	weir_queued_fn *told;    /* whom to tell, or NULL: with `calls` held */
	void *told_arg;          /* its argument */
};

struct wg_disclaims {
	struct wg_watches table; /* struct wg_watch: an object's start */
	struct wg_array queue;   /* uint32_t: those to be asked */
	uint32_t head, tail;     /* [head, tail) of it */
	uint32_t queued;         /* atomic: tail - head */
};

struct wg_ephemeron {
	uintptr_t key;   /* atomic: as given, 0: cleared */
	uintptr_t value; /* atomic: as given, 0: cleared or none */
	uintptr_t base;  /* first byte of the key's object */
	uintptr_t proxy; /* the object in the heap, 0: entry is free */
	uint32_t next;   /* free list, or chain of those that wait */
	uint32_t seen;   /* atomic: epoch in which marking came to it */
	uint32_t born;   /* epoch in which it was made */
	uint32_t unused; /* zero */
};
_Static_assert(sizeof(struct wg_ephemeron) == 48, "three a 144 bytes");

struct wg_ephemerons {
	struct wg_array entries;  /* [0] is not used */
	uint32_t high;            /* atomic: entries [1, high) were in use */
	uint32_t free;            /* first free one, 0: none */
	uint32_t count;           /* in use */
	struct wg_array young[2]; /* uint32_t: made since the last pause, and
				   * between the pauses before it */
	uint32_t young_n[2];      /* in use */
	unsigned now;             /* which of the two is filled */
	struct wg_array wait;     /* uint32_t: marked, their keys are not */
	uint32_t wait_n;          /* atomic: in use */
	struct wg_array bucket;   /* uint32_t: those that wait, by key */
	uint32_t mask;            /* buckets in use - 1 */
	uint32_t epoch;           /* number of the pause to come, from 1 */
};

struct wg_weak_tables {
	struct wr_mutex lock;     /* guards all but what is atomic */
	unsigned colour;          /* black of the last pause */
	bool precleaned;          /* this cycle went through the tables */
	bool queue_marked;        /* ... and marked the finalizer queue */
	bool last_full;           /* the last pause ended a full cycle */
	uint64_t pause_ns;        /* length of the last wg_weak_pause */
	struct wg_watches refs;   /* struct weir_weak */
	struct wg_links links;    /* links */
	struct wg_finalizers fin; /* finalizers */
	struct wg_disclaims dis;  /* objects that are asked before they go */
	struct wg_ephemerons eph; /* ephemerons */
	pthread_t thread;         /* that runs finalizers */
	pthread_cond_t wake;      /* to it: queue or quit changed */
	bool thread_up;           /* it exists */
	bool quit;                /* atomic: it is to return */
};

/* weak.c */
/* The tables' lock, with the caller (a mutator or NULL) CRITICAL. */
void wg_weak_lock(struct weir_heap *h, struct weir_mutator *m);
void wg_weak_unlock(struct weir_heap *h, struct weir_mutator *m);
/* The same for the collector, which holds it throughout wg_weak_pause(). */
void wg_weak_enter(struct weir_heap *h);
void wg_weak_leave(struct weir_heap *h);
/* Whether marking is done, by this thread, with the world stopped. */
static inline bool wg_weak_paused(const struct weir_heap *h)
{
	return h->marker[0]->in_pause;
}

/* weak_tables.c */
int wg_array_create(struct wg_array *a, const struct wr_sys *sys, size_t bytes);
void wg_array_destroy(struct wg_array *a, const struct wr_sys *sys);
/* Make the first `bytes` usable. */
bool wg_array_grow(struct wg_array *a, const struct wr_sys *sys, size_t bytes);

static inline uint32_t *wg_indexes(const struct wg_array *a)
{
	return (uint32_t *)(void *)a->base;
}

int wg_watches_create(struct weir_heap *h, struct wg_watches *t, size_t stride);
void wg_watches_destroy(struct weir_heap *h, struct wg_watches *t);
/* A new entry, LIVE and pending; its index, 0: no memory.  Lock held, as for
 * the next two. */
uint32_t wg_watch_new(struct weir_heap *h, struct wg_watches *t, uintptr_t p,
		      uint32_t state);
void wg_watch_pend(struct wg_watches *t, uint32_t i);
void wg_watch_free(struct wg_watches *t, uint32_t i);
/* Make pending what this cycle has to look at (all: the whole table) and drop
 * from it what is decided.  Beside the program, the lock not held, or in the
 * pause, held. */
void wg_watches_filter(struct weir_heap *h, struct wg_watches *t, bool all);
void wg_watches_fork_child(struct wg_watches *t);

int wg_chains_create(struct weir_heap *h, struct wg_chains *c,
		     const struct wg_watches *t,
		     uint32_t (*hash)(const struct wg_watch *e));
void wg_chains_destroy(struct weir_heap *h, struct wg_chains *c);
/* The first of the chain of a hash value.  Lock held, as for the rest. */
uint32_t *wg_chain(const struct wg_chains *c, uint32_t hash);
/* Put entry i in. */
void wg_chain_add(struct weir_heap *h, struct wg_chains *c,
		  const struct wg_watches *t, uint32_t i);
/* Take entry i out, what it is hashed by being as it was. */
void wg_chain_remove(struct wg_chains *c, const struct wg_watches *t,
		     uint32_t i);

static inline struct wg_watch *wg_watch_at(const struct wg_watches *t,
					   uint32_t i)
{
	return (struct wg_watch *)(void *)(t->entries.base + i * t->stride);
}

/* The lock orders these; handles are checked without it, hence atomic. */
static inline void wg_watch_set(struct wg_watch *e, uint32_t state)
{
	__atomic_store_n(&e->state, state, __ATOMIC_RELAXED);
}

/* Whether the object that p points into is black. */
static inline bool wg_black_at(const struct weir_heap *h, uintptr_t p)
{
	size_t g = wg_granule_of(h, p);
	uint8_t byte = wg_meta_load(&h->meta[g]);

	if (wr_likely(byte & WEIR_META_COLOUR))
		return (byte & WEIR_META_COLOUR) == h->colour;
	g = wg_resolve(h, p);
	return g != SIZE_MAX && wg_is_black(h, g);
}

/* Whether the pause has to look at it. */
static inline bool wg_watch_undecided(const struct weir_heap *h,
				      wg_also_fn *also,
				      const struct wg_watch *e)
{
	if (!(e->state & WG_WATCH_LIVE))
		return false;
	return (e->object && !wg_black_at(h, e->object)) ||
	       (wr_unlikely(also != NULL) && also(h, e));
}

/* The granule byte of an entry's object will be looked at. */
static inline void wg_watch_prefetch_meta(const struct weir_heap *h,
					  const struct wg_watch *e)
{
	if (e->object)
		__builtin_prefetch(&h->meta[wg_granule_of(h, e->object)]);
}

/* At pending[k] of those below `end`: ask for what comes later. */
static inline void wg_watch_prefetch(const struct weir_heap *h,
				     const struct wg_watches *t, uint32_t k,
				     uint32_t end)
{
	const uint32_t *pending = wg_indexes(&t->pending);

	if (end - k > 2 * WG_AHEAD)
		__builtin_prefetch(wg_watch_at(t, pending[k + 2 * WG_AHEAD]),
				   1);
	if (end - k > WG_AHEAD)
		wg_watch_prefetch_meta(h,
				       wg_watch_at(t, pending[k + WG_AHEAD]));
}

/*
 * The objects of a page keep their distances, so that a walk along the heap is
 * one along the table, too, and do not collide; pages are placed at random.
 * Multiplied twice: after one multiplication some distance between pages
 * leaves some of the middle bits almost constant.
 */
static inline uint32_t wg_weak_hash(uintptr_t object)
{
	uint64_t granule = (uint64_t)object >> WEIR_GRANULE_SHIFT;
	uint64_t page = granule / WG_PAGE_GRANULES;

	page *= 0x9e3779b97f4a7c15ull;
	page ^= page >> 32;
	page *= 0xd6e8feb86659fd93ull;
	return (uint32_t)(granule + (page >> 32));
}

/* weak_ref.c */
/* In the pause: clear those pending whose targets are not black. */
void wg_refs_clear(struct weir_heap *h);

/* link.c */
int wg_links_create(struct weir_heap *h);
void wg_links_destroy(struct weir_heap *h);
/* In the pause: clear short ones whose targets are not black; */
void wg_links_clear(struct weir_heap *h);
/* more is to be marked that is dead but for what comes of it now: clear long
 * ones; */
void wg_links_clear_long(struct weir_heap *h);
/* and once all is marked: clear long ones, drop those whose slots die. */
void wg_links_finish(struct weir_heap *h);

/* finalize.c, finalize_run.c */
int wg_finalizers_create(struct weir_heap *h);
void wg_finalizers_destroy(struct weir_heap *h);
void wg_finalizers_pause(struct weir_heap *h);
/* After the pause: tell the program of those that were queued. */
void wg_finalizers_tell(struct weir_heap *h);
/* In the pause: push what an object that is not black refers to, not it. */
void wg_push_children(struct weir_heap *h, uintptr_t object);
/* Take an entry out of the hash table and free it; lock held. */
void wg_finalizer_drop(struct wg_finalizers *f, uint32_t i);
/* Start or wake the library's own thread if there is work. */
void wg_finalizers_wake(struct weir_heap *h);
void wg_finalizers_fork_child(struct weir_heap *h);

/* disclaim.c */
int wg_disclaims_create(struct weir_heap *h);
void wg_disclaims_destroy(struct weir_heap *h);
/* In the pause, before weak references are cleared: mark what the ordered ones
 * that are not black refer to. */
void wg_disclaims_order(struct weir_heap *h);
/* After finalizers: queue what is not black, and mark it. */
void wg_disclaims_pause(struct weir_heap *h);

/* ephemeron.c */
int wg_ephemerons_create(struct weir_heap *h);
void wg_ephemerons_destroy(struct weir_heap *h);
/* Mark until no key that is black has a value that is not. */
void wg_ephemerons_resolve(struct weir_heap *h);
/* In the pause, last: clear those whose keys are dead. */
/* Keys that are dead, in the pause: clear them. */
void wg_ephemerons_clear(struct weir_heap *h);
void wg_ephemerons_finish(struct weir_heap *h);
/* After it: free those that are dead themselves. */
void wg_ephemerons_reap(struct weir_heap *h, bool full);
void wg_ephemerons_fork_child(struct weir_heap *h);

#endif
