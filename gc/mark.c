/* SPDX-License-Identifier: MIT */
/*
 * The mark loop: take a candidate, find its object, mark and scan it.
 *
 * Marking an object is a plain store of its granule byte with the new colour.
 * Two markers may both find it unmarked and both scan it: they store the same
 * byte, and scanning twice does no harm.  No other bit of a START changes
 * while the object lives, so no atomic read-modify-write is needed.
 */
#include "gc/mark.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "gc/verify.h"
#include "gc/weak.h"

struct wg_pool {
	struct wr_mutex lock;    /* guards all of it */
	struct wg_segment *free; /* segments that were put back */
	char *slab;              /* segments never used: [slab, slab_end) */
	char *slab_end;
	const struct wr_sys *sys;
	size_t left; /* bytes that may still be taken */
	struct slab {
		void *p;
		size_t size;
	} * slabs;         /* all of them, to be released */
	size_t slab_count; /* [0] is the table itself */
	size_t slab_at;    /* the one that `slab` is in; those after it are
			    * unused */
};

#define DUE_NS 20000 /* a mutator that is late by this needs a processor */

#define SLAB ((size_t)1 << 20)

struct wg_pool *wg_pool_create(const struct wr_sys *sys, size_t limit)
{
	struct wg_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	wr_mutex_init(&p->lock, WR_RANK_segments);
	p->sys = sys;
	p->left = limit;
	return p;
}

void wg_pool_destroy(struct wg_pool *p)
{
	if (!p)
		return;
	/* The first entry is the table itself. */
	while (p->slab_count) {
		struct slab s = p->slabs[--p->slab_count];

		p->sys->release(s.p, s.size);
	}
	wr_mutex_destroy(&p->lock);
	free(p);
}

void wg_pool_lock(struct wg_pool *p, bool lock)
{
	if (lock)
		wr_mutex_lock(&p->lock);
	else
		wr_mutex_unlock(&p->lock);
}

static void use_slab(struct wg_pool *p, size_t i)
{
	p->slab_at = i;
	p->slab = p->slabs[i].p;
	p->slab_end = p->slab + SLAB;
}

/* All segments are free, whoever has them: in a child of fork. */
void wg_pool_reset(struct wg_pool *p)
{
	p->free = NULL;
	if (p->slab_count > 1)
		use_slab(p, 1);
}

/* The slab list uses addresses of its own: malloc could be held by a stopped
 * thread. */
static bool new_slab(struct wg_pool *p)
{
	const size_t table = (size_t)1 << 20;
	void *s;

	if (p->slab_at + 1 < p->slab_count) {
		use_slab(p, p->slab_at + 1);
		return true;
	}
	if (p->left < SLAB)
		return false;
	if (!p->slabs) {
		s = p->sys->reserve(table, p->sys->page_size);
		if (!s)
			return false;
		if (p->sys->commit(s, table, false)) {
			p->sys->release(s, table);
			return false;
		}
		p->slabs = s;
		p->slabs[0] = (struct slab){s, table};
		p->slab_count = 1;
	}
	if (p->slab_count >= table / sizeof(struct slab))
		return false;
	s = p->sys->reserve(SLAB, p->sys->page_size);
	if (!s)
		return false;
	if (p->sys->commit(s, SLAB, false)) {
		p->sys->release(s, SLAB);
		return false;
	}
	p->slabs[p->slab_count++] = (struct slab){s, SLAB};
	use_slab(p, p->slab_count - 1);
	p->left -= SLAB;
	return true;
}

struct wg_segment *wg_segment_get(struct wg_pool *p)
{
	struct wg_segment *s = NULL;

	wr_mutex_lock(&p->lock);
	if (p->free) {
		s = p->free;
		p->free = s->next;
	} else if (p->slab != p->slab_end || new_slab(p)) {
		s = (struct wg_segment *)(void *)p->slab;
		p->slab += sizeof(*s);
	}
	wr_mutex_unlock(&p->lock);
	if (s) {
		s->n = 0;
		s->next = NULL;
	}
	return s;
}

void wg_segment_put(struct wg_pool *p, struct wg_segment *s)
{
	wr_mutex_lock(&p->lock);
	s->next = p->free;
	p->free = s;
	wr_mutex_unlock(&p->lock);
}

struct wg_marker *wg_marker_create(struct weir_heap *h, unsigned index)
{
	struct wg_marker *m = aligned_alloc(
		64, (sizeof(struct wg_marker) + 63) & ~(size_t)63);

	if (!m)
		return NULL;
	memset(m, 0, sizeof(*m));
	m->heap = h;
	m->index = index;
	return m;
}

void wg_marker_destroy(struct wg_marker *m)
{
	free(m);
}

/* Relaxed: read after the job, which ends with acquire and release. */
static void note_overflow(struct wg_marker *m, size_t g, uint8_t bit, bool *any)
{
	m->overflows++;
	__atomic_fetch_or(&m->heap->blocks[g / WG_BLOCK_GRANULES].overflow, bit,
			  __ATOMIC_RELAXED);
	__atomic_store_n(any, true, __ATOMIC_RELAXED);
}

void wg_mark_overflow(struct wg_marker *m, size_t g)
{
	note_overflow(m, g, WG_OVERFLOW, &m->heap->overflow);
}

/* Apart from the above: whoever empties the stacks beside the program cannot
 * do anything about these, and would never be done. */
void wg_mark_defer(struct wg_marker *m, size_t g)
{
	note_overflow(m, g, WG_OVERFLOW_DEFERRED, &m->heap->overflow_deferred);
}

/* Give the object at granule g, whose byte is `byte`, the cycle's colour.
 * Release, the note first: partner of the acquire load in wg_is_black().  Who
 * sees the object black sees that its block has black objects, and all that
 * this marker saw of it, its END among that. */
static inline void blacken(struct weir_heap *h, size_t g, uint8_t byte)
{
	wg_note_black(h, g);
	__atomic_store_n(&h->meta[g],
			 (uint8_t)((byte & ~WEIR_META_COLOUR) | h->colour),
			 __ATOMIC_RELEASE);
}

/* A segment with room, or NULL. */
static struct wg_segment *new_segment(struct wg_marker *m)
{
	struct wg_segment *s = m->spare;

	m->spare = NULL;
	if (!s)
		s = wg_segment_get(m->heap->pool);
	if (!s)
		return NULL;
	if (m->cur) {
		m->cur->next = m->full;
		m->full = m->cur;
	}
	m->cur = s;
	return s;
}

/* Stack an entry; false: there is no segment. */
static inline bool stack(struct wg_marker *m, uintptr_t entry)
{
	struct wg_segment *s = m->cur;

	if (wr_unlikely(!s || s->n == WG_SEGMENT_ENTRIES)) {
		s = new_segment(m);
		if (!s)
			return false;
	}
	s->e[s->n++] = entry;
	return true;
}

bool wg_list_add(struct wg_marker *m, struct wg_segment **list, uintptr_t p)
{
	if (!*list || (*list)->n == WG_SEGMENT_ENTRIES) {
		struct wg_segment *s = wg_segment_get(m->heap->pool);

		if (!s)
			return false;
		s->next = *list;
		*list = s;
	}
	(*list)->e[(*list)->n++] = p;
	return true;
}

/* The slow part of wg_resolve: p is not in an object's first granule. */
static size_t resolve_interior(const struct weir_heap *h, uintptr_t p)
{
	uint32_t i = wg_block_of(h, p);
	const struct wg_block *b = &h->blocks[i];
	size_t g = wg_granule_of(h, p);
	size_t start;

	switch (wg_block_state(b)) {
	case WG_LARGE_TAIL:
		i = __atomic_load_n(&b->head, __ATOMIC_RELAXED);
		b = &h->blocks[i];
		if (wg_block_state(b) != WG_LARGE_HEAD)
			return SIZE_MAX;
		/* fall through */
	case WG_LARGE_HEAD:
		start = (size_t)i * WG_BLOCK_GRANULES;
		if (p - wg_block_start(h, i) >=
			    __atomic_load_n(&b->size, __ATOMIC_RELAXED) ||
		    !(wg_meta_load(&h->meta[start]) & WEIR_META_COLOUR))
			return SIZE_MAX;
		return start;
	case WG_FREE:
	case WG_LARGE_NEW:
		return SIZE_MAX;
	default:
		break;
	}
	start = wg_meta_prev(h->meta, g, (size_t)i * WG_BLOCK_GRANULES);
	if (start == SIZE_MAX || wg_meta_ends_before(h->meta, start, g))
		return SIZE_MAX;
	return start;
}

size_t wg_resolve(const struct weir_heap *h, uintptr_t p)
{
	size_t g = wg_granule_of(h, p);

	if (!wg_in_heap(h, p))
		return SIZE_MAX;
	if (wg_meta_load(&h->meta[g]) & WEIR_META_COLOUR)
		return g;
	return resolve_interior(h, p);
}

/* A marked object's words are on their way to the cache: scan the one whose
 * turn it is. */
static inline void scan_later(struct wg_marker *m, uintptr_t p)
{
	uintptr_t old = m->scan_ring[m->scan_at];

	__builtin_prefetch((const void *)p, 0);
	__builtin_prefetch((const void *)(p + 48), 0);
	m->scan_ring[m->scan_at] = p;
	m->scan_at = (m->scan_at + 1) % WG_SCAN_RING;
	if (old) {
		size_t g = wg_granule_of(m->heap, old);

		wg_scan_object(m, g, wg_meta_load(&m->heap->meta[g]));
	}
}

void wg_mark_candidate(struct wg_marker *m, uintptr_t p, uint8_t byte)
{
	struct weir_heap *h = m->heap;
	size_t g = wg_granule_of(h, p);

	if (wr_unlikely(!(byte & WEIR_META_COLOUR))) {
		g = resolve_interior(h, p);
		if (g == SIZE_MAX) {
			if (wr_unlikely(h->stray != NULL))
				wg_verify_stray(h, p);
			return;
		}
		byte = wg_meta_load(&h->meta[g]);
		if ((byte & WEIR_META_COLOUR) == h->colour)
			return;
	}
	blacken(h, g, byte);
	if (wr_unlikely(__atomic_load_n(&h->ephemerons_wait, __ATOMIC_RELAXED)))
		wg_ephemeron_key(m, wg_granule_start(h, g));
	if (byte >> WEIR_META_KIND_SHIFT == WEIR_KIND_LEAF)
		wg_scan_object(m, g, byte);
	else if (!stack(m, wg_granule_start(h, g)))
		wg_mark_overflow(m, g);
}

bool wg_push_later(struct wg_marker *m, uintptr_t p)
{
	return stack(m, (p & ~(uintptr_t)(WEIR_GRANULE - 1)) | 1);
}

/* Give half of the work away when somebody is idle. */
static void share(struct wg_marker *m)
{
	struct wg_segment *s;

	m->since_share = 0;
	if (m->full) {
		s = m->full;
		m->full = s->next;
	} else if (m->cur && m->cur->n >= 8) {
		uint64_t half = m->cur->n / 2;

		s = wg_segment_get(m->heap->pool);
		if (!s)
			return;
		/* The older half: it is likelier to lead to much work. */
		memcpy(s->e, m->cur->e, half * sizeof(s->e[0]));
		s->n = half;
		memmove(m->cur->e, m->cur->e + half,
			(m->cur->n - half) * sizeof(s->e[0]));
		m->cur->n -= half;
	} else {
		return;
	}
	if (!wg_deque_push(&m->deque, s)) {
		s->next = m->full;
		m->full = s;
		return;
	}
	wg_team_announce(m->heap);
}

/* Replace the empty working segment by a full one. */
static bool next_segment(struct wg_marker *m)
{
	struct wg_segment *s = m->full;

	if (s)
		m->full = s->next;
	else
		s = wg_deque_pop(&m->deque);
	if (!s)
		return false;
	if (m->cur) {
		if (m->spare)
			wg_segment_put(m->heap->pool, m->cur);
		else
			m->spare = m->cur;
		m->spare->n = 0;
	}
	s->next = NULL;
	m->cur = s;
	return true;
}

static bool drain_rings(struct wg_marker *m)
{
	bool any = false;

	for (unsigned k = 0; k < WG_RING; k++) {
		uintptr_t p = m->ring[m->ring_at];

		m->ring[m->ring_at] = 0;
		m->ring_at = (m->ring_at + 1) % WG_RING;
		if (p) {
			wg_candidate(m, p);
			any = true;
		}
	}
	if (any)
		return true;
	for (unsigned k = 0; k < WG_SCAN_RING; k++) {
		uintptr_t p = m->scan_ring[m->scan_at];

		m->scan_ring[m->scan_at] = 0;
		m->scan_at = (m->scan_at + 1) % WG_SCAN_RING;
		if (p) {
			size_t g = wg_granule_of(m->heap, p);

			wg_scan_object(m, g, wg_meta_load(&m->heap->meta[g]));
			any = true;
		}
	}
	return any;
}

/* A mutator that waited for the collector a little (gc/room.c) lent it the
 * processor, and the scheduler gives that back at the next tick, up to 4 ms
 * later, unless this thread offers it.  Relaxed: stored by the mutator, which
 * nothing here is ordered with. */
static inline void give_way(const struct wg_marker *m)
{
	uint64_t due = __atomic_load_n(&m->heap->stall_due, __ATOMIC_RELAXED);

	/* A stop ahead of the pause does not set in_pause. */
	if (wr_unlikely(due) && !m->in_pause &&
	    __atomic_load_n(&m->heap->stage, __ATOMIC_RELAXED) !=
		    WR_PHASE_pause &&
	    m->heap->sys->now_ns() > due + DUE_NS)
		sched_yield();
}

/* One turn; false: there is nothing left. */
static inline bool mark_one(struct wg_marker *m)
{
	struct wg_segment *s = m->cur;
	uintptr_t e;

	if (wr_unlikely(!s || !s->n)) {
		if (next_segment(m) || drain_rings(m))
			return true;
		if (!m->slices)
			return false;
		wg_scan_slice(m);
		return true;
	}
	e = s->e[--s->n];
	if (wr_unlikely(e & 1))
		wg_push(m, e - 1);
	else
		scan_later(m, e);
	if (wr_unlikely(++m->since_share >= 32)) {
		m->since_share = 0;
		if (wg_team_hungry(m->heap))
			share(m);
		give_way(m);
	}
	return true;
}

void wg_mark_own(struct wg_marker *m)
{
	while (mark_one(m))
		;
}

bool wg_mark_some(struct wg_marker *m, unsigned turns)
{
	while (turns && mark_one(m))
		turns--;
	return !turns;
}

void wg_mark_loop(struct wg_marker *m)
{
	do {
		wg_mark_own(m);
	} while (wg_team_idle(m));
}
