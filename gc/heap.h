/* SPDX-License-Identifier: MIT */
/*
 * The heap: address layout, block table, shared state of the collector.
 *
 *	[base, base + span)             objects with references ("refs" space)
 *	[base + span, base + 2 span)    leaf objects ("leaf" space), never armed
 *
 * Both are cut into blocks of 64 KiB.  A block holds objects of up to 32 KiB,
 * mixed sizes, no object crosses a block; or is part of a run that holds one
 * large object, which starts at its first byte.
 *
 * Block states and who changes them:
 *
 *   FREE -> ACTIVE, LARGE_*    allocation, under the heap lock
 *   RECYCLABLE -> ACTIVE       allocation, by compare-and-swap
 *   ACTIVE -> USED             its owner, or the collector in a pause
 *   USED, RECYCLABLE -> SWEEPING -> USED | RECYCLABLE | FREE
 *                              the sweeper that won the compare-and-swap
 *   LARGE_NEW -> LARGE_HEAD    its allocating mutator
 *   LARGE_HEAD -> FREE         the one sweeper that claimed the index
 *
 * USED, RECYCLABLE and FREE blocks have no owner; only an owner allocates.
 * A block is FREE if and only if its bit in the space's free map is set, the
 * heap lock being held or nobody allocating; but for those that are being given
 * back to the system just now (trim.c): their bit is not set.
 */
#ifndef WEIR_GC_HEAP_H
#define WEIR_GC_HEAP_H

#include <pthread.h>
#include <stdatomic.h>

#include <weir/alloc.h>
#include <weir/embed.h>
#include <weir/weir.h>

#include "gc/meta.h"
#include "gc/mutant.h"
#include "runtime/barrier.h"
#include "runtime/check.h"
#include "runtime/events.h"
#include "runtime/histogram.h"
#include "runtime/lock.h"
#include "runtime/options.h"
#include "runtime/roots.h"
#include "runtime/sys.h"
#include "runtime/thread.h"

#define WG_BLOCK_SHIFT 16
#define WG_BLOCK ((size_t)1 << WG_BLOCK_SHIFT)
#define WG_BLOCK_GRANULES (WG_BLOCK >> WEIR_GRANULE_SHIFT)
#define WG_MEDIUM_MAX (WG_BLOCK / 2) /* largest object in a mixed block */
#define WG_MIN_HOLE 16               /* granules; smaller holes wait */
#define WG_RECYCLE_MIN (WG_BLOCK_GRANULES / 8) /* usable granules to reuse */
/* A block is sixteen strips, pages mostly. */
#define WG_STRIP_SHIFT (WG_BLOCK_SHIFT - 4)
#define WG_HUGE_BLOCKS 32           /* blocks in a huge page */
#define WG_SLICE ((size_t)16 << 10) /* bytes zeroed ahead of a cursor */
#define WG_GROW_BLOCKS 512          /* blocks committed at a time */
#define WG_SWEEP_WORK 256           /* looks at a block that a sweep costs */
#define WG_LEFT 8                   /* blocks handed on by threads that end */
#define WG_MAX_MARKERS 64
#define WG_INLINE_KINDS 31 /* kinds below this are in the granule byte */
#define WG_KIND_WENT                                          \
	((uint64_t)1 << 32) /* beside the kind's number in an \
			     * object: it was asked, and goes \
			     * (disclaim.c) */
#define WG_EPHEMERON 2      /* the kind of ephemeron proxies */
#define WG_FIRST_KIND 3     /* of weir_kind_*() */

enum wg_state {
	WG_FREE,
	WG_ACTIVE,
	WG_USED,
	WG_RECYCLABLE,
	WG_SWEEPING,
	WG_LARGE_NEW,
	WG_LARGE_HEAD,
	WG_LARGE_TAIL,
};

/* Marked objects in the block were not scanned, */
enum wg_overflow {
	WG_OVERFLOW = 1,          /* and are to be, once the stacks are empty */
	WG_OVERFLOW_DEFERRED = 2, /* but their callbacks wait for the pause */
};

struct wg_block {
	uint8_t state;    /* enum wg_state, atomic */
	uint8_t young;    /* allocated into since its last sweep */
	uint8_t fresh;    /* taken while marking: every object is black */
	uint8_t armed;    /* the barrier may be protecting its pages */
	uint8_t zeroed;   /* FREE: memory is known to be zero */
	uint8_t overflow; /* atomic: enum wg_overflow bits */
	uint16_t live;    /* granules of live objects at the last sweep */
	uint32_t seq;     /* atomic: sweep_seq when swept, taken or freed */
	uint32_t head;    /* LARGE_*: block index of the head */
	uint64_t size;    /* LARGE_HEAD, LARGE_NEW: bytes of the object */
	uint32_t blocks;  /* LARGE_HEAD, LARGE_NEW: blocks of the run */
	uint16_t strips;  /* the strips that usable holes are in, bits, at the
			   * last sweep */
	uint16_t hole;    /* granules of the largest hole at the last sweep */
};
_Static_assert(sizeof(struct wg_block) == 32, "two entries a cache line");

/* One half of the reserved range. */
struct wg_space {
	uint32_t first;     /* index of its first block */
	uint32_t end;       /* index after its last reserved block */
	uint32_t committed; /* atomic: index after its last committed block */
	uint32_t high;      /* atomic: index after the highest block taken */
	uint32_t hint;      /* no block below it is free */
	uint64_t *free_map; /* bit set: FREE; bit 0 is block `first` */
	size_t stale;       /* bytes of blocks that are FREE and not zeroed */
	uint32_t cursor;    /* atomic: next block to sweep or recycle */
	uint32_t wide;  /* atomic: next block to look into for a wide hole */
	uint32_t sweep; /* atomic: next block for the background */
	uint32_t left[WG_LEFT]; /* atomic: blocks that threads which ended left
				 * behind with room in them, 0: none */
};

/* Where a mutator allocates in one space. */
struct wg_bump {
	uint32_t block; /* owned ACTIVE block, 0: none */
	size_t next;    /* granule of the heap to look for a hole from */
	size_t bare;    /* granules below it were forgotten by the barrier */
};

enum wg_phase {
	WG_IDLE,
	WG_MARKING, /* from the first arm to the end of the pause */
	WG_SWEEPING_PHASE,
};

struct weir_mutator {
	struct weir_buffers b;   /* what inlined code knows; comes first */
	struct wr_thread thread; /* registry entry */
	struct weir_heap *heap;  /* its heap */
	struct wg_bump bump[2];  /* refs, leaf: behind b.buffer */
	struct wg_bump wide[2];  /* for medium objects that fit no hole */
	struct {
		char *cursor; /* next free byte */
		char *limit;  /* end of the zeroed, free memory */
	} wide_buffer[2];     /* what `wide` allocates from */
	unsigned attached;    /* nested attaches */
	unsigned callbacks;   /* functions of the program that the library
			       * called on this thread, and goes on after
			       * with the mutator */
	bool stale_ok;        /* nothing could be given back: go on */
	uint32_t untouched;   /* block it took that may have no pages yet,
			       * which are huge; 0: none */
	pthread_t self;       /* its thread, for checks */
	uint64_t handed;      /* bytes taken, not yet in heap->allocated */
};
_Static_assert(offsetof(struct weir_mutator, b) == 0, "ABI of alloc.h");

struct wg_kind {
	uint8_t type;       /* enum wg_kind_type */
	uint8_t concurrent; /* trace may run beside mutators */
	uint8_t always;     /* every pause traces what is alive */
	uint8_t ordered;    /* disclaim: what an object reaches comes later */
	uint32_t words;     /* bitmap: words a record */
	uint64_t *bitmap;   /* bitmap */
	weir_trace_fn *fn;  /* callback */
	void *arg;          /* callback */
	weir_disclaim_fn *disclaim; /* asked before an object goes, or NULL */
	void *disclaim_arg;         /* its argument */
	weir_kind like;             /* the kind without it */
	uint32_t unused;            /* zero */
	char *name; /* of weir_kind_name(), or NULL; under the heap lock */
};
_Static_assert(sizeof(struct wg_kind) == 64, "pages have whole ones");

enum wg_kind_type {
	WG_KIND_CONSERVATIVE,
	WG_KIND_LEAF,
	WG_KIND_BITMAP,
	WG_KIND_TRACE,
	WG_KIND_EPHEMERON,
};

struct wg_always;
struct wg_marker;
struct wg_weak_tables;

/* Requests to the collector thread. */
enum wg_request {
	WG_REQ_MINOR = 1,
	WG_REQ_FULL = 2,
	WG_REQ_STOPPED = 4,
	WG_REQ_QUIT = 8,
	WG_REQ_ANY = 16,      /* minor or full, as the pacer wants it */
	WG_REQ_SNAPSHOT = 32, /* with FULL: of the heap, for snap_wanted */
};

struct weir_heap {
	/* Read by every marker, constant after creation. */
	uintptr_t base;          /* lowest address of the heap */
	uintptr_t extent;        /* bytes of both spaces together */
	uint8_t *meta;           /* granule bytes, [0] for base */
	struct wg_block *blocks; /* block table, [0] for base */
	uint8_t *black;          /* atomic, by block: see wg_note_black() */
	unsigned colour;         /* black of this or the last cycle */
	bool ephemerons_wait;    /* atomic: marked objects may be keys that
				  * ephemerons wait for (gc/ephemeron.c) */
	uintptr_t leaf_base;     /* first address of the leaf space */
	uintptr_t backed[2];     /* atomic: committed bytes of each space */
	struct wg_space space[2];
	size_t span;     /* bytes reserved for each space */
	uint64_t *stray; /* verify=on: atomic, see gc/verify.c; else NULL */

	const struct wr_sys *sys;
	struct wr_options opt;
	struct wr_barrier *barrier;
	struct wr_threads *threads;
	struct wr_roots *roots;
	struct wr_events *events;
	weir_oom_fn *oom;
	void *oom_arg;

	/* Allocation; the lock guards the free maps, block states that leave
	 * FREE and the limits. */
	struct wr_mutex lock;
	size_t hard, soft;  /* atomic: limits, bytes; see wg_hard() */
	uint64_t used;      /* atomic: bytes in blocks not FREE */
	uint64_t peak;      /* highest used */
	uint64_t committed; /* bytes committed */
	uint64_t allocated; /* atomic: bytes handed out */
	uint64_t cycle_start_allocated; /* `allocated` when it began */
	uint64_t during[2];      /* allocated during the last minor, full one */
	uint64_t last_allocated; /* `allocated` when the last one ended */
	uint64_t trigger;        /* atomic: `allocated` that starts a cycle */
	uint64_t assist_at;   /* atomic: `allocated` that makes mutators wait */
	uint64_t assist_room; /* atomic: bytes past it for the longest wait */
	unsigned newborn;     /* colour for mutators that attach */
	unsigned phase;       /* atomic enum wg_phase */
	enum wr_phase stage;  /* atomic: span under way; WR_PHASES: none */
	uint32_t sweep_seq;   /* number of the last finished mark */
	bool sweep_minor;     /* the sweep under way follows a minor cycle */

	/* Kinds: read by markers while they grow, hence never moved. */
	struct wg_kind *kinds;
	uint32_t kind_count;    /* atomic: all are below it */
	uint32_t inline_kinds;  /* atomic: those below WG_INLINE_KINDS are
				 * below it */
	size_t kinds_committed; /* entries backed by memory */

	/* The collector. */
	pthread_t collector;
	struct wr_mutex ctl_lock;
	pthread_cond_t ctl_wake; /* to the collector: requests changed */
	pthread_cond_t ctl_done; /* to waiters: a cycle ended */
	uint64_t stall_due;      /* atomic: clock when the mutator whose wait
				  * began last wants to go on, ns; 0: none */
	unsigned starving;       /* atomic: mutators that wait for memory, and
				  * not by the pacer's choice */
	unsigned requests;       /* enum wg_request bits; atomic, to peek */
	uint64_t cycles_started; /* under ctl_lock */
	uint64_t cycles_done;    /* swept */
	uint64_t full_done;      /* of them full */
	bool running;            /* a cycle is under way */
	unsigned disabled;       /* atomic: weir_collect_disable() calls that
				  * are open; written under ctl_lock */
	unsigned disabling;      /* of them those that wait for a cycle */
	unsigned holds;          /* atomic: weir_collect_hold() calls that are
				  * open, counted in `disabled` too; raised
				  * under calls_lock and ctl_lock, lowered
				  * under the latter */
	bool parked;             /* the collector waits at the gate */
	unsigned waiting;        /* atomic: mutators that wait for a cycle;
				  * written under ctl_lock */
	bool threads_up;         /* collector threads exist (not after fork) */
	bool all_dirty;          /* the barrier knows nothing: scan all */
	bool stray_ends;         /* a child of fork: see gc/fork.c */
	bool tracking;           /* pages were armed and stayed so */
	bool trim_due;           /* atomic: give memory back when idle */
	bool leaf_range;         /* atomic: the barrier has the leaf space */
	bool leaf_armed;         /* it may be protecting pages of it */
	unsigned markers;        /* beside a program that never waits */
	unsigned beside;         /* beside the program in this cycle */
	unsigned pause_markers;  /* in pauses */
	struct wg_marker *marker[WG_MAX_MARKERS];
	struct wg_pool *pool;        /* mark segments */
	struct wg_team *team;        /* marker threads */
	struct wg_weak_tables *weak; /* weak references, finalizers */
	struct wg_always *always;    /* objects that every pause traces */

	struct wr_mutex calls_lock; /* gc/locked.c */
	uint64_t calls_left_ns;     /* atomic: when the last call ended */
	struct wr_mutex hook_lock;  /* gc/event_hook.c */
	weir_event_fn *hook;        /* the program's event handler, or NULL */
	void *hook_arg;             /* its argument */

	struct wg_runs *later;  /* of preclean, NULL until needed */
	unsigned ahead_useless; /* cycles in a row whose stops ahead of the
				 * pause, and it, found little */
	uint64_t slices_end_ns; /* when the last preclean slices ended */
	uint64_t slice_page_ns; /* what they took for a page that was dirty */
	/* gc/snap.h: wanted by who waits, under ctl_lock, NULL: by nobody; that
	 * of the cycle under way, the collector's; whose granule bytes are to
	 * be kept by sweepers, atomic. */
	struct weir_heap_snapshot *snap_wanted, *snap, *snap_meta;
	uint64_t begun_ns;       /* when the last cycle began */
	uint64_t begun_stall_ns; /* what mutators had waited by then */
	uint64_t trimmed_ns;     /* when free memory was last given back */
	double survival; /* part of new objects that minor cycles keep */
	uint64_t full_allocated; /* `allocated` when the last full one ended */
	double yield;            /* part of what is allocated between full
				  * cycles that is dead by the second */
	unsigned skip;           /* full cycles before a minor one is tried */
	unsigned skip_next;      /* how many when that one finds little too */
	bool lazy_arm;      /* arm blocks only once they have black objects */
	uint64_t live;      /* bytes live after the last cycle */
	uint64_t live_full; /* the same after the last full one */
	struct weir_stats stats; /* counters; histograms are atomic */
	uint64_t cpu_ns;         /* atomic: collector CPU time */
	bool open_full;          /* a full cycle turned the colour and marks */
	bool resume;             /* the next cycle goes on under this colour */
	bool resweep;            /* the last sweep was cut off by fork */
	bool overflow;           /* atomic: some block has WG_OVERFLOW */
	bool overflow_deferred;  /* atomic: some has WG_OVERFLOW_DEFERRED */
};

/* The mutator of a registry entry. */
static inline struct weir_mutator *wg_mutator_of(struct wr_thread *t)
{
	return (struct weir_mutator *)((char *)t -
				       offsetof(struct weir_mutator, thread));
}

/* Be CRITICAL, nesting, around a lock that no stopped thread may have; NULL for
 * a thread that is not attached. */
static inline void wg_critical_enter(struct weir_mutator *m)
{
	if (m) {
		m->b.critical++;
		WEIR_COMPILER_BARRIER();
	}
}

static inline void wg_critical_leave(struct weir_mutator *m)
{
	if (!m)
		return;
	WEIR_COMPILER_BARRIER();
	if (--m->b.critical == 0) {
		WEIR_COMPILER_BARRIER();
		/* Relaxed: set by a signal on this thread, or, at safepoints,
		 * looked at again by the poll. */
		if (wr_unlikely(
			    __atomic_load_n(&m->b.pending, __ATOMIC_RELAXED)))
			wr_thread_poll(&m->thread);
	}
}

/* The heap of this process, or NULL. */
extern struct weir_heap *wg_heap;

/* The calling thread's mutator unless it is inside of a blocking region or
 * there is none: then NULL. */
extern __thread struct weir_mutator *wg_running
	__attribute__((tls_model("initial-exec")));

static inline bool wg_heap_check(const struct weir_heap *h,
				 const char *function)
{
	if (wr_likely(h && h == __atomic_load_n(&wg_heap, __ATOMIC_ACQUIRE)))
		return true;
	wr_invalid(function, h ? "the heap was destroyed, or is none"
			       : "the heap is NULL");
	return false;
}

/* Why memory cannot be taken. */
enum wg_no {
	WG_NO_LIMIT,  /* the hard limit, or no addresses are left */
	WG_NO_SYSTEM, /* the system refused memory */
	WG_NO_STALE,  /* free memory has to be given back first */
	WG_NO_PAGES,  /* nothing is: wg_room_touch() first */
};

/* The limits, for those who do not hold the heap lock.  Relaxed: partner of
 * the stores in weir_heap_set_limits(); the old value does as well as if the
 * call had come a little later. */
static inline size_t wg_hard(const struct weir_heap *h)
{
	return __atomic_load_n(&h->hard, __ATOMIC_RELAXED);
}

static inline size_t wg_soft(const struct weir_heap *h)
{
	return __atomic_load_n(&h->soft, __ATOMIC_RELAXED);
}

/* A blocking region, if the caller, a mutator or NULL, is not in one: then it
 * was entered.  One function calls both (runtime/thread.h). */
static inline __attribute__((always_inline)) bool
wg_region_enter(struct weir_mutator *m)
{
	return m && wr_thread_block_enter(&m->thread);
}

static inline __attribute__((always_inline)) void
wg_region_leave(struct weir_mutator *m, bool entered)
{
	if (entered)
		wr_thread_block_leave(&m->thread);
}

/* The control lock, in a region: a thread must not be held with it, for one
 * that is CRITICAL may wait for it. */
static inline __attribute__((always_inline)) bool
wg_control_lock(struct weir_heap *h, struct weir_mutator *m)
{
	bool entered = wg_region_enter(m);

	wr_mutex_lock(&h->ctl_lock);
	return entered;
}

static inline __attribute__((always_inline)) void
wg_control_unlock(struct weir_heap *h, struct weir_mutator *m, bool entered)
{
	wr_mutex_unlock(&h->ctl_lock);
	wg_region_leave(m, entered);
}

/* A counter that one thread adds to and any may read. */
static inline void wg_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* Relaxed: partner of the stores in block.c.  Who reads the old value passes
 * over blocks that were taken just now, whose objects are young and whose pages
 * are dirty, and no sweep is due to them. */
static inline uint32_t wg_high(const struct wg_space *s)
{
	return __atomic_load_n(&s->high, __ATOMIC_RELAXED);
}

static inline uint32_t wg_block_of(const struct weir_heap *h, uintptr_t p)
{
	return (uint32_t)((p - h->base) >> WG_BLOCK_SHIFT);
}

static inline uintptr_t wg_block_start(const struct weir_heap *h, uint32_t i)
{
	return h->base + ((uintptr_t)i << WG_BLOCK_SHIFT);
}

static inline size_t wg_granule_of(const struct weir_heap *h, uintptr_t p)
{
	return (p - h->base) >> WEIR_GRANULE_SHIFT;
}

static inline uintptr_t wg_granule_start(const struct weir_heap *h, size_t g)
{
	return h->base + ((uintptr_t)g << WEIR_GRANULE_SHIFT);
}

/*
 * Whether p lies in memory that was committed, so that it has granule bytes.
 * A marker may read an old bound and drop a reference into memory that was
 * committed just now; the word it came from was written since the arm, so its
 * page is dirty and is scanned again, at the latest in the pause.
 */
static inline bool wg_in_heap(const struct weir_heap *h, uintptr_t p)
{
	return p - h->base < __atomic_load_n(&h->backed[0], __ATOMIC_RELAXED) ||
	       p - h->leaf_base <
		       __atomic_load_n(&h->backed[1], __ATOMIC_RELAXED);
}

/* Acquire: partner of the releases in wg_block_set() and wg_block_claim().  Who
 * sees a state sees what was done to the block before it had that state: its
 * size before LARGE_HEAD, the sweep's counts before RECYCLABLE. */
static inline unsigned wg_block_state(const struct wg_block *b)
{
	return __atomic_load_n(&b->state, __ATOMIC_ACQUIRE);
}

static inline void wg_block_set(struct wg_block *b, enum wg_state s)
{
	__atomic_store_n(&b->state, (uint8_t)s, __ATOMIC_RELEASE);
}

/* Acquire for the one who claims; release, since what it did to the block is to
 * be seen by those that look at the state and leave the block alone. */
static inline bool wg_block_claim(struct wg_block *b, enum wg_state from,
				  enum wg_state to)
{
	uint8_t expected = (uint8_t)from;

	return __atomic_compare_exchange_n(&b->state, &expected, (uint8_t)to,
					   false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

/*
 * black[i] says that block i may hold black objects.  A block with none, and
 * not armed, need not be armed when a cycle starts: when an object in it is
 * marked the byte is set, and preclean arms the block and scans it.  Cleared
 * when the colour turns, set again by the sweep where something is alive.
 */
static inline void wg_note_black(struct weir_heap *h, size_t granule)
{
	uint8_t *b = &h->black[granule / WG_BLOCK_GRANULES];

	/* Not a store each time: markers share the line. */
	if (wr_unlikely(!__atomic_load_n(b, __ATOMIC_RELAXED))) {
		wg_delay_rarely(h);
		__atomic_store_n(b, 1, __ATOMIC_RELAXED);
	}
}

/* Acquire: partner of the release in blacken() (mark.c).  Whoever sees the
 * object not black yet leaves it to the marker that makes it black. */
static inline bool wg_is_black(const struct weir_heap *h, size_t granule)
{
	return (wg_meta_load(&h->meta[granule]) & WEIR_META_COLOUR) ==
	       h->colour;
}

/* block.c */
int wg_blocks_init(struct weir_heap *h, size_t heap_max, bool exact);
void wg_blocks_fini(struct weir_heap *h);
/* A free block, ACTIVE, or 0 and why.  stale_ok: however much is resident. */
uint32_t wg_block_take(struct weir_heap *h, unsigned space, bool stale_ok,
		       enum wg_no *why);
/* A run for a large object, its head LARGE_NEW; 0 likewise. */
uint32_t wg_run_take(struct weir_heap *h, unsigned space, size_t size,
		     size_t align, bool stale_ok, enum wg_no *why);
void wg_blocks_free(struct weir_heap *h, uint32_t first, uint32_t count);
/* In a child of fork: what the parent was about with free blocks is undone. */
void wg_blocks_fork_child(struct weir_heap *h);
/* Make writes to come on these pages free of faults. */
void wg_forget(struct weir_heap *h, uintptr_t start, size_t size);
/* The same for the parts of a swept block that usable holes are in. */
void wg_forget_holes(struct weir_heap *h, uint32_t i);

/* Bytes of the system that a large object of this size occupies. */
static inline size_t wg_large_bytes(const struct weir_heap *h, size_t size)
{
	return wr_sys_pages(h->sys, size);
}

/* Whether the sweep under way has yet to visit the block. */
static inline bool wg_block_unswept(const struct weir_heap *h,
				    const struct wg_block *b)
{
	return __atomic_load_n(&b->seq, __ATOMIC_RELAXED) != h->sweep_seq &&
	       (!h->sweep_minor ||
		__atomic_load_n(&b->young, __ATOMIC_RELAXED));
}

/* trim.c */
void wg_trim_after_cycle(struct weir_heap *h); /* after a full one's sweep */
void wg_trim_idle(struct weir_heap *h);        /* until a request comes */
/* Bytes that there is no reason to keep. */
size_t wg_trim_excess(struct weir_heap *h);
/* Bytes of free blocks that the system backs. */
size_t wg_stale(struct weir_heap *h);
/* WG_NO_STALE is in the way of `bytes` more; false: nothing was given back. */
bool wg_trim_room(struct weir_heap *h, struct weir_mutator *m, unsigned space,
		  size_t bytes);

/* sweep.c */
/* Claim block i if it waits for its sweep. */
bool wg_sweep_claim(struct weir_heap *h, uint32_t i);
void wg_sweep_begin(struct weir_heap *h); /* in the pause */
/* Sweep one claimed small block; its usable granules. */
unsigned wg_sweep_block(struct weir_heap *h, uint32_t i);
void wg_sweep_all(struct weir_heap *h);    /* collector threads */
void wg_sweep_finish(struct weir_heap *h); /* after all helpers */

/* heap.c */
/* Whether h is the live heap; if not, wr_invalid() names the caller. */
#define wg_heap_ok(h) wg_heap_check(h, __func__)
/* 0 if h is the live heap and the caller is not a callback on one of the
 * collector's threads; else the error. */
#define wg_heap_enter(h) wg_heap_enter_check(h, __func__)
int wg_heap_enter_check(const struct weir_heap *h, const char *function);
/* A callback on one of the collector's threads called `function`. */
int wg_in_callback(const char *function) __attribute__((cold));
/* Between them h, if begin says that it is live, is not destroyed; then the
 * thread is in the registry, which weir_heap_destroy() looks at. */
bool wg_attach_begin(const struct weir_heap *h);
void wg_attach_end(void);
void wg_attach_fork(int stage); /* 0 prepare, 1 parent, 2 child */
/* The heap lock, with the caller (a mutator or NULL) CRITICAL. */
void wg_lock(struct weir_heap *h, struct weir_mutator *m);
void wg_unlock(struct weir_heap *h, struct weir_mutator *m);

/* kind.c */
int wg_kinds_create(struct weir_heap *h);
void wg_kinds_fini(struct weir_heap *h);
/* Whether there is such a kind. */
bool wg_kind_made(const struct weir_heap *h, weir_kind kind);

/* mutator.c, alloc.c */
/* weir_alloc_kind() of a kind that is not for programs. */
void *wg_alloc_internal(struct weir_mutator *m, size_t size, weir_kind kind);
void wg_mutator_on_exit(struct wr_thread *t, void *arg);
/* rootscan.c: the calling thread waited while its stack was scanned. */
void wg_handshake_waited(uint64_t begin_ns, uint64_t end_ns, void *heap);
void wg_buffers_retire(struct weir_mutator *m, bool in_pause);
/* Whether the caller may use m now; if not, wr_invalid(). */
void wg_mutator_bad(const struct weir_mutator *m, const char *function)
	__attribute__((cold));
static inline bool wg_mutator_ok(const struct weir_mutator *m,
				 const char *function)
{
	if (wr_likely(m && m == wg_running))
		return true;
	wg_mutator_bad(m, function);
	return false;
}
/* Attach where no weir_heap_destroy() can be beside. */
int wg_mutator_attach(struct weir_heap *h, struct weir_mutator **out);
/* -EBUSY if the library will go on to use m when `function` returns. */
int wg_mutator_idle(const struct weir_mutator *m, const char *function);
/* weir_alloc_kind() for `function`, which error texts name, any kind. */
void *wg_alloc(struct weir_mutator *m, size_t size, weir_kind kind,
	       const char *function);
struct weir_mutator *wg_mutator_self(void);

/* fork.c: `lock` is what serialises create and destroy. */
void wg_fork_init(struct wr_mutex *lock);

/* collector.c */
/* The control lock and its conditions; anew in a child of fork. */
void wg_control_init(struct weir_heap *h);
int wg_collector_start(struct weir_heap *h);
void wg_collector_stop(struct weir_heap *h);
bool wg_on_collector_thread(void); /* of the library's marker threads */
/* Whether no cycle may begin.  Relaxed: partner of the stores under ctl_lock;
 * who must know looks again under it. */
static inline bool wg_disabled(const struct weir_heap *h)
{
	return wr_unlikely(__atomic_load_n(&h->disabled, __ATOMIC_RELAXED));
}

/* Ask for a cycle, under ctl_lock. */
void wg_cycle_ask_locked(struct weir_heap *h, unsigned requests);
/* Ask for a cycle; does not wait.  Lock-free unless it must wake.  False:
 * cycles are disabled. */
bool wg_cycle_request(struct weir_heap *h, unsigned requests);
/* The same from a thread that may be attached, not CRITICAL. */
bool wg_cycle_ask(struct weir_heap *h, struct weir_mutator *m,
		  unsigned requests);
/* Run or wait for a whole cycle; the caller may be attached.  False: cycles
 * are disabled, there will be none; what was under way has ended. */
bool wg_cycle_wait(struct weir_heap *h, struct weir_mutator *m,
		   unsigned requests);
/* Pass the gate before the pause, which is closed while cycles are held: false,
 * with the lock of gc/locked.c.  Or wait until it opens: true, without; and the
 * program went on meanwhile. */
bool wg_gate_pass(struct weir_heap *h);
/* Whether it is closed, for one who has that lock. */
bool wg_gate_closed(const struct weir_heap *h);
/* Wait until a cycle or sweep that is under way, or asked for, ends or `ns`
 * (at most a second) have gone by. */
void wg_cycle_stall(struct weir_heap *h, struct weir_mutator *m, uint64_t ns);

/* pace.c */
void wg_pace_cycle_begin(struct weir_heap *h);
void wg_pace_sweep_begin(struct weir_heap *h);
/* The option heap-min is `bytes` from now on, which is not less; under
 * ctl_lock. */
void wg_pace_set_min(struct weir_heap *h, uint64_t bytes);
/* Cycles may begin again, and none is under way.  Who found one due meanwhile
 * asked in vain: the next to look asks again. */
void wg_pace_enabled(struct weir_heap *h);
/* How many markers run beside the program in the cycle that begins. */
unsigned wg_pace_markers(struct weir_heap *h, uint64_t now);
/* How long a mutator that must wait does so before it looks again. */
uint64_t wg_pace_stall_ns(const struct weir_heap *h);
/* Whether the program can go on for long before it runs ahead of the cycle. */
bool wg_pace_can_wait(struct weir_heap *h);
/* A cycle that ran beside the program has ended. */
void wg_pace_during(struct weir_heap *h, bool full);
void wg_pace_survival(struct weir_heap *h, uint64_t marked, bool full);
/* A full cycle has ended; what was alive when the one before had. */
void wg_pace_yield(struct weir_heap *h, uint64_t live_before);
void wg_pace_cycle_end(struct weir_heap *h);
/* asked: the program wants a minor one if that can be. */
bool wg_pace_wants_full(struct weir_heap *h, bool asked);

#endif
