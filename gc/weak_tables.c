/* SPDX-License-Identifier: MIT */
/*
 * Arrays that grow in place, watches, and chains; see gc/weak_tables.h.
 *
 * An index is in `pending` at most once (the PENDING bit says that it is, and
 * a free entry keeps the bit until the index is gone from there).  A filter
 * between two batches leaves a gap in it, of what was read and not kept; these
 * may be pended again meanwhile.  The array has room for twice the entries
 * there are: when it is full the gap is at least half of it, and is closed.
 *
 * Chains are W. Litwin's linear hashing ("Linear hashing: a new tool for file
 * and table addressing", VLDB 1980): each new entry splits one bucket, so that
 * no insertion, with its thread not to be stopped, rehashes the whole.
 */
#include "gc/weak_tables.h"

#include <errno.h>
#include <string.h>

/* ---- Arrays ------------------------------------------------------------- */

int wg_array_create(struct wg_array *a, const struct wr_sys *sys, size_t bytes)
{
	const size_t least = (size_t)1 << 20;

	bytes = wr_sys_pages(sys, bytes);
	for (;; bytes = wr_sys_pages(sys, bytes / 2)) {
		a->base = sys->reserve(bytes, sys->page_size);
		/* Where addresses are short, leave most to the others. */
		if (a->base && bytes >= least * 32 &&
		    !wr_sys_has_room(sys, 2 * bytes, sys->page_size)) {
			sys->release(a->base, bytes);
			bytes = wr_sys_pages(sys, bytes / 16);
			a->base = sys->reserve(bytes, sys->page_size);
		}
		if (a->base)
			break;
		if (bytes <= least)
			return wr_error(
				ENOMEM,
				"cannot reserve addresses for the tables of "
				"weak references and the like; raise "
				"RLIMIT_AS (ulimit -v) "
				"or lower heap-max");
	}
	a->reserved = bytes;
	a->committed = 0;
	return 0;
}

void wg_array_destroy(struct wg_array *a, const struct wr_sys *sys)
{
	if (a->base)
		sys->release(a->base, a->reserved);
	*a = (struct wg_array){NULL, 0, 0};
}

bool wg_array_grow(struct wg_array *a, const struct wr_sys *sys, size_t bytes)
{
	size_t step = (size_t)64 << 10;

	if (wr_likely(bytes <= a->committed))
		return true;
	if (step < a->committed)
		step = a->committed;
	if (step > a->reserved - a->committed)
		step = a->reserved - a->committed;
	if (bytes > a->committed + step)
		return false;
	if (sys->commit(a->base + a->committed, step, false))
		return false;
	/* Atomic: weir_weak_get() checks handles against it. */
	__atomic_store_n(&a->committed, a->committed + step, __ATOMIC_RELAXED);
	return true;
}

/* ---- Watches ------------------------------------------------------------ */

int wg_watches_create(struct weir_heap *h, struct wg_watches *t, size_t stride)
{
	/* More than one for each object that the heap can hold is unlikely. */
	size_t most = h->extent >> WEIR_GRANULE_SHIFT;
	int err;

	if (most < (size_t)1 << 20)
		most = (size_t)1 << 20;
	if (most > (size_t)1 << 28)
		most = (size_t)1 << 28;
	t->stride = stride;
	t->high = 1;
	err = wg_array_create(&t->entries, h->sys, most * stride);
	if (!err)
		err = wg_array_create(&t->pending, h->sys,
				      2 * most * sizeof(uint32_t));
	return err;
}

void wg_watches_destroy(struct weir_heap *h, struct wg_watches *t)
{
	wg_array_destroy(&t->entries, h->sys);
	wg_array_destroy(&t->pending, h->sys);
}

/* Close the gap that a filter under way has left. */
static void close_gap(struct wg_watches *t)
{
	uint32_t *pending = wg_indexes(&t->pending);
	uint32_t gap = t->at - t->kept;

	memmove(pending + t->kept, pending + t->at,
		(t->pending_n - t->at) * sizeof(*pending));
	t->pending_n -= gap;
	t->end -= gap;
	t->at = t->kept;
}

void wg_watch_pend(struct wg_watches *t, uint32_t i)
{
	struct wg_watch *e = wg_watch_at(t, i);

	if (e->state & WG_WATCH_PENDING)
		return;
	wg_watch_set(e, e->state | WG_WATCH_PENDING);
	if (wr_unlikely(t->pending_n == 2 * t->high))
		close_gap(t);
	wr_assert(t->pending_n < 2 * t->high);
	wg_indexes(&t->pending)[t->pending_n++] = i;
}

uint32_t wg_watch_new(struct weir_heap *h, struct wg_watches *t, uintptr_t p,
		      uint32_t state)
{
	uint32_t i = t->free;
	struct wg_watch *e;

	if (i) {
		e = wg_watch_at(t, i);
		t->free = e->next;
	} else {
		i = t->high;
		if (!wg_array_grow(&t->entries, h->sys,
				   (i + 1ul) * t->stride) ||
		    !wg_array_grow(&t->pending, h->sys,
				   2 * (i + 1ul) * sizeof(uint32_t)))
			return 0;
		t->high++;
		e = wg_watch_at(t, i);
	}
	e->next = 0;
	/* Release: partner of the acquire load in weir_weak_get(). */
	__atomic_store_n(&e->object, p, __ATOMIC_RELEASE);
	__atomic_store_n(&e->state,
			 (e->state & WG_WATCH_PENDING) | WG_WATCH_LIVE | state,
			 __ATOMIC_RELEASE);
	t->count++;
	wg_watch_pend(t, i);
	return i;
}

void wg_watch_free(struct wg_watches *t, uint32_t i)
{
	struct wg_watch *e = wg_watch_at(t, i);

	__atomic_store_n(&e->object, 0, __ATOMIC_RELAXED);
	wg_watch_set(e, e->state & WG_WATCH_PENDING);
	e->next = t->free;
	t->free = i;
	t->count--;
}

static void filter_batch(struct weir_heap *h, struct wg_watches *t,
			 uint32_t end)
{
	uint32_t *pending = wg_indexes(&t->pending);

	for (; t->at < end; t->at++) {
		uint32_t i = pending[t->at];
		struct wg_watch *e = wg_watch_at(t, i);

		wg_watch_prefetch(h, t, t->at, end);
		if (wg_watch_undecided(h, t->also, e))
			pending[t->kept++] = i;
		else
			wg_watch_set(e, e->state & ~(uint32_t)WG_WATCH_PENDING);
	}
}

static inline __attribute__((always_inline)) void walk(struct weir_heap *h,
						       struct wg_watches *t,
						       uint32_t i, uint32_t end,
						       wg_also_fn *also)
{
	for (; i < end; i++) {
		struct wg_watch *e = wg_watch_at(t, i);

		if (i + WG_AHEAD < end)
			wg_watch_prefetch_meta(h, wg_watch_at(t, i + WG_AHEAD));
		if (!(e->state & WG_WATCH_PENDING) &&
		    wg_watch_undecided(h, also, e))
			wg_watch_pend(t, i);
	}
}

/* Twice the same loop: what links ask would cost weak references, of which
 * there may be millions, one part in 30. */
static void walk_batch(struct weir_heap *h, struct wg_watches *t, uint32_t i,
		       uint32_t end)
{
	if (t->also)
		walk(h, t, i, end, t->also);
	else
		walk(h, t, i, end, NULL);
}

static uint32_t batch_end(const struct weir_heap *h, uint32_t i, uint32_t end)
{
	if (!wg_weak_paused(h) && end - i > WG_WEAK_BATCH)
		return i + WG_WEAK_BATCH;
	return end;
}

void wg_watches_filter(struct weir_heap *h, struct wg_watches *t, bool all)
{
	uint32_t end;
	bool more, first = true;

	/* What is pended from here on is the pause's: mutators could add to it
	 * as fast as it is filtered. */
	do {
		wg_weak_enter(h);
		if (first)
			t->end = t->pending_n;
		first = false;
		filter_batch(h, t, batch_end(h, t->at, t->end));
		more = t->at < t->end;
		if (!more) {
			if (wg_mutant(WG_MUTANT_LOSE_PENDED))
				t->pending_n = t->end;
			close_gap(t);
			t->kept = t->at = 0;
		}
		wg_weak_leave(h);
		if (more)
			wg_delay(h);
	} while (more);
	if (!all)
		return;
	/* What is made from here on is pending from the start. */
	wg_weak_enter(h);
	end = t->high;
	wg_weak_leave(h);
	for (uint32_t i = 1, stop; i < end; i = stop) {
		stop = batch_end(h, i, end);
		wg_weak_enter(h);
		walk_batch(h, t, i, stop);
		wg_weak_leave(h);
		if (stop < end)
			wg_delay(h);
	}
}

/* A filter that was cut off by fork: drop what it had read. */
void wg_watches_fork_child(struct wg_watches *t)
{
	close_gap(t);
	t->kept = t->at = 0;
}

/* ---- Chains ------------------------------------------------------------- */

int wg_chains_create(struct weir_heap *h, struct wg_chains *c,
		     const struct wg_watches *t,
		     uint32_t (*hash)(const struct wg_watch *e))
{
	int err = wg_array_create(&c->bucket, h->sys, t->pending.reserved);

	if (err)
		return err;
	c->hash = hash;
	c->buckets = 1;
	if (!wg_array_grow(&c->bucket, h->sys, sizeof(uint32_t)))
		return wr_error(ENOMEM, "no memory for a hash table");
	return 0;
}

void wg_chains_destroy(struct weir_heap *h, struct wg_chains *c)
{
	wg_array_destroy(&c->bucket, h->sys);
}

/* Largest power of two that is not above n. */
static inline uint32_t floor_power(uint32_t n)
{
	return 1u << (31 - __builtin_clz(n));
}

uint32_t *wg_chain(const struct wg_chains *c, uint32_t hash)
{
	uint32_t half = floor_power(c->buckets);
	uint32_t b = hash & (2 * half - 1);

	if (b >= c->buckets)
		b &= half - 1;
	return &wg_indexes(&c->bucket)[b];
}

/* One more bucket: what belongs there comes out of the one that it splits.
 * Without memory the chains only get longer. */
static void split(struct weir_heap *h, struct wg_chains *c,
		  const struct wg_watches *t)
{
	uint32_t *bucket = wg_indexes(&c->bucket);
	uint32_t b = c->buckets;
	uint32_t *from = &bucket[b - floor_power(b)], *to = &bucket[b];

	if (!wg_array_grow(&c->bucket, h->sys, (b + 1ul) * sizeof(*bucket)))
		return;
	*to = 0;
	c->buckets++;
	while (*from) {
		struct wg_watch *e = wg_watch_at(t, *from);

		if (wg_chain(c, c->hash(e)) == &bucket[b]) {
			*to = *from;
			*from = e->next;
			to = &e->next;
			*to = 0;
		} else {
			from = &e->next;
		}
	}
}

void wg_chain_add(struct weir_heap *h, struct wg_chains *c,
		  const struct wg_watches *t, uint32_t i)
{
	struct wg_watch *e = wg_watch_at(t, i);
	uint32_t *link = wg_chain(c, c->hash(e));

	e->next = *link;
	*link = i;
	if (t->count > c->buckets)
		split(h, c, t);
}

void wg_chain_remove(struct wg_chains *c, const struct wg_watches *t,
		     uint32_t i)
{
	struct wg_watch *e = wg_watch_at(t, i);
	uint32_t *link = wg_chain(c, c->hash(e));

	while (*link != i)
		link = &wg_watch_at(t, *link)->next;
	*link = e->next;
}
