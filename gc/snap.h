/* SPDX-License-Identifier: MIT */
/*
 * A snapshot of the heap: what the parts of it share.
 *
 *   snap_take.c    asking for one; its life
 *   snap_handle.c  the handle's memory
 *   snap_copy.c    copying in the cycle that it is of
 *   snap_roots.c   where the roots were, weak references
 *   snap_read.c    reading a finished one
 *   snap_graph.c   numbering its objects, what is reached
 *   snap_dump.c    it as Chrome DevTools want it; snap_out.c, snap_file.c
 *
 * The copy has the heap's layout: what was at heap base + x is at copy + x, and
 * the granule bytes of block i are at meta + i * WG_BLOCK_GRANULES.  Both are
 * reserved for the whole range and committed as far as the heap is used.
 *
 * What holds in a finished snapshot, of the moment at the end of the pause:
 *
 *   an object is live if its byte in `meta` has `colour`, and its block in
 *   `block` is not SNAP_NONE;
 *   each page that a part of a live object is on was copied as it was; a page
 *   that is not in `have` was all zero, or nothing live is on it.
 *
 *   all of the writing      the collector and its team, and who sweeps; when
 *                           `done` is set, nobody
 *   reading                 any thread, when done
 */
#ifndef WEIR_GC_SNAP_H
#define WEIR_GC_SNAP_H

#include <weir/heap_snapshot.h>

#include "gc/cycle.h"
#include "gc/mark.h"
#include "runtime/old_handles.h"

#define WG_SNAP_MAGIC 0x70616e7370616568ull

enum wg_snap_state {
	WG_SNAP_NONE,  /* free, or nothing is alive in it */
	WG_SNAP_SMALL, /* mixed objects */
	WG_SNAP_LARGE, /* the first of a large object */
	WG_SNAP_TAIL,  /* one of those behind it */
};

struct wg_snap_block {
	uint64_t size;  /* LARGE: bytes of the object */
	uint32_t head;  /* TAIL: the first block's number */
	uint32_t state; /* enum wg_snap_state */
};
_Static_assert(sizeof(struct wg_snap_block) == 16, "four a cache line");

/* A table that grows, in memory of its own: threads that hold malloc()'s locks
 * may be stopped. */
struct wg_snap_table {
	void *entries; /* runtime/own_memory.h */
	size_t count;  /* in use */
	size_t room;   /* allocated, entries */
};

struct wg_snap_source {
	uintptr_t start; /* of the stack's live part, of the range */
	uintptr_t end;   /* after it */
	uint32_t kind;   /* enum weir_heap_root */
	uint32_t id;     /* of a stack: the thread; else counts from 1 */
	char name[128];  /* filled in when the cycle is over */
};

struct wg_snap_root {
	uintptr_t object; /* its start */
	uint32_t source;  /* number of the source */
	uint32_t word;    /* of the source, counted from its start */
};

/* A reference that is not in the object itself, or counts for less. */
struct wg_snap_link {
	uintptr_t from; /* the start of an object, or 0 */
	uintptr_t to;   /* likewise, never 0 in a finished snapshot */
	uint32_t kind;  /* enum weir_heap_reference */
	uint32_t word;  /* of `from` */
};

struct wg_snap_kind {
	uint32_t type;        /* enum wg_kind_type */
	uint32_t words;       /* BITMAP: of a record */
	const uint64_t *bits; /* BITMAP, own copy */
	const char *name;     /* own copy; "": none was given */
};

struct weir_heap_snapshot {
	uint64_t magic;             /* atomic: WG_SNAP_MAGIC, or it was freed */
	struct wr_old_handle freed; /* snap_handle.c */
	const struct wr_sys *sys;   /* the heap's */
	bool done;                  /* under ctl_lock: the cycle is over */
	int err;                    /* a negative errno if it failed */
	char text[256];             /* what weir_error_text() is to say */
	uint8_t id[16];             /* random */
	struct weir_heap_snapshot_info info; /* what it cost */

	/* Layout, as in the heap. */
	uintptr_t base;    /* address of the heap's first byte */
	uintptr_t extent;  /* bytes of both spaces */
	size_t span;       /* bytes of one */
	size_t page;       /* bytes */
	unsigned colour;   /* of what is alive */
	uint32_t first[2]; /* a space's first block */
	uint32_t high[2];  /* after its last one in use at the moment */
	uint32_t room[2];  /* after its last one that there is memory for */

	char *copy;                  /* the heap's bytes */
	uint8_t *meta;               /* granule bytes */
	struct wg_snap_block *block; /* a table by block */
	uint64_t *kept;              /* atomic, a bit a page: copied, and not
				      * known to be written since */
	uint64_t *have;              /* atomic, a bit a page: in `copy` */
	char *side;                  /* all but `copy`, one reservation */
	size_t side_bytes;           /* its size */

	/* The cycle's. */
	bool leaf_tracked;       /* the leaf space is armed in it */
	unsigned rounds;         /* of short stops */
	unsigned passes;         /* over what was written */
	uint64_t copied;         /* atomic: pages, by the pass under way */
	uint64_t begun_ns;       /* when the cycle began */
	struct wg_marker *probe; /* collects what callbacks report */

	struct wg_snap_table sources; /* struct wg_snap_source */
	struct wg_snap_table roots;   /* struct wg_snap_root */
	struct wg_snap_table links;   /* struct wg_snap_link, by `from` when
				       * done */
	struct wg_snap_kind *kinds;   /* a copy of the heap's */
	uint32_t kind_count;          /* of them */
};

/* ---- In the cycle, on the collector thread ------------------------------- */

/* Marking is done: the first copy, beside the program. */
void wg_snap_first(struct weir_heap *h);
/* Preclean is done: again what was written, until that is little. */
void wg_snap_again(struct weir_heap *h, struct wg_report *r);
/* In the pause, nothing is marked any more: the last of it, and the roots. */
void wg_snap_pause(struct weir_heap *h);
/* The program runs again, nothing that died was freed yet. */
void wg_snap_resumed(struct weir_heap *h, const struct wg_report *r);
/* Swept. */
void wg_snap_swept(struct weir_heap *h);
/* The barrier reports [start, end); at_once: it is armed again, and nobody
 * writes now. */
void wg_snap_dirty(struct weir_heap *h, uintptr_t start, uintptr_t end,
		   bool at_once);
/* Take the protection off the leaf space, if a cycle has armed it. */
void wg_snap_forget_leaf(struct weir_heap *h);

/* Around the cycle; end: under ctl_lock. */
void wg_snap_cycle_begin(struct weir_heap *h);
void wg_snap_cycle_end(struct weir_heap *h);

/* In a child of fork(): it was the parent's. */
void wg_snap_fork_child(struct weir_heap *h);

/* Whoever is about to sweep block i keeps its granule bytes. */
void wg_snap_keep_meta(struct weir_heap_snapshot *s, struct weir_heap *h,
		       uint32_t i);

/* ---- Parts --------------------------------------------------------------- */

/* It has failed; the error text of this thread is kept. */
void wg_snap_fail(struct weir_heap_snapshot *s, int err);

/* One more entry, zeroed, or NULL. */
void *wg_snap_add(struct wg_snap_table *t, size_t size);
void wg_snap_table_free(struct wg_snap_table *t, size_t size);

/* snap_roots.c: in the pause; right after it. */
void wg_snap_roots(struct weir_heap *h, struct weir_heap_snapshot *s);
void wg_snap_links(struct weir_heap *h, struct weir_heap_snapshot *s);
/* When the cycle is over: names, and only what is in the snapshot. */
int wg_snap_finish_roots(struct weir_heap_snapshot *s);

/* ---- A finished one ------------------------------------------------------ */

static inline size_t wg_snap_page_of(const struct weir_heap_snapshot *s,
				     uintptr_t p)
{
	return (p - s->base) / s->page;
}

static inline bool wg_snap_bit(const uint64_t *map, size_t i)
{
	return __atomic_load_n(&map[i / 64], __ATOMIC_RELAXED) >> (i % 64) & 1;
}

/* The byte of the copy that address p of the heap had. */
static inline const void *wg_snap_at(const struct weir_heap_snapshot *s,
				     uintptr_t p)
{
	return s->copy + (p - s->base);
}

/* Granule at which the live object starts that p points into, or SIZE_MAX. */
size_t wg_snap_resolve(const struct weir_heap_snapshot *s, uintptr_t p);
/* Bytes of the live object at granule g. */
size_t wg_snap_bytes(const struct weir_heap_snapshot *s, size_t g);
/* Its kind's number. */
uint32_t wg_snap_kind_of(const struct weir_heap_snapshot *s, size_t g,
			 size_t bytes);
/* The first live object at granule *g or behind it; false: there is none. */
bool wg_snap_next(const struct weir_heap_snapshot *s, size_t *g);

/* Called for each reference of an object to another, or itself; false: stop. */
typedef bool wg_snap_ref_fn(void *arg, size_t to, uint32_t kind, uint32_t word);
/* The references of the object at g; *link: in s->links, the first of those
 * whose `from` is not below the object, moved on.  For objects in ascending
 * order it begins at 0. */
bool wg_snap_refs(const struct weir_heap_snapshot *s, size_t g, size_t *link,
		  wg_snap_ref_fn *fn, void *arg);

/* Where in s->links those of an object at p, or behind it, begin. */
size_t wg_snap_first_link(const struct weir_heap_snapshot *s, uintptr_t p);

/* snap_handle.c: a new one, zeroed, or NULL; a child of fork. */
struct weir_heap_snapshot *wg_snap_handle_new(void);
void wg_snap_handle_free(struct weir_heap_snapshot *s);
void wg_snap_handles_fork_child(void);
int wg_snap_valid(const struct weir_heap_snapshot *s, const char *function);

#endif
