/* SPDX-License-Identifier: MIT */
/*
 * Giving free memory back to the system.
 *
 * A FREE block that was used and not discarded since is stale: resident, and
 * of no use.  space->stale counts their bytes, so that
 *
 *	used + stale                    bounds what is resident of the heap,
 *	used + stale + size <= hard     holds when memory is taken,
 *
 * but when a discard fails.  What is given back costs a fault and its zeroing
 * to get again, hence a reserve of growth * live is kept (none of it above the
 * soft limit), and there are three occasions only:
 *
 *   after a full cycle, at most once a second: what was free for the whole of
 *     a cycle;
 *   the collector has had nothing to do for a second: everything, once;
 *   a mutator would exceed the hard limit: enough for it, and a little more.
 *
 * Pieces are whole aligned 2 MiB where huge pages are in use (a smaller piece
 * would split the huge page), from the top of the space down since blocks are
 * taken from below.  Under the lock a discard would be long: a piece is taken
 * out of the free map meanwhile.  A child of fork puts it back (block.c).
 *
 *   after_cycle, idle, excess   the collector
 *   room                        attached mutators, not CRITICAL
 */
#include "gc/free_map.h"

#define LOOK_BLOCKS 2048 /* looked at in one go under the lock */

struct trim {
	struct weir_heap *h; /* the heap */
	uint32_t unit;       /* blocks of a piece */
	bool old;            /* only what was free for a whole cycle */
	bool yield;          /* stop when the collector has a request */
	bool beside;         /* the collector may be arming pages */
};

/* Take the piece at i out of the map if it is free and a part of it stale;
 * its stale bytes. */
static size_t take_piece(const struct trim *t, struct wg_space *s, uint32_t i)
{
	struct weir_heap *h = t->h;
	size_t stale = 0;

	for (uint32_t k = i; k < i + t->unit; k++) {
		const struct wg_block *b = &h->blocks[k];

		if (!wg_map_test(s, k))
			return 0;
		if (b->zeroed)
			continue;
		if (t->old &&
		    __atomic_load_n(&b->seq, __ATOMIC_RELAXED) == h->sweep_seq)
			return 0;
		stale += WG_BLOCK;
	}
	for (uint32_t k = i; stale && k < i + t->unit; k++)
		wg_map_clear(s, k);
	return stale;
}

/* Discard the piece, which is out of the map; the lock is held on return. */
static bool discard_piece(const struct trim *t, struct wg_space *s, uint32_t i)
{
	struct weir_heap *h = t->h;
	bool done = !h->sys->discard((void *)wg_block_start(h, i),
				     (size_t)t->unit << WG_BLOCK_SHIFT);

	wr_mutex_lock(&h->lock);
	for (uint32_t k = i; k < i + t->unit; k++) {
		struct wg_block *b = &h->blocks[k];

		if (done && !b->zeroed)
			s->stale -= WG_BLOCK;
		if (done) {
			b->zeroed = 1;
			/* Beside an arm the barrier may take the page for
			 * clean: whoever takes the block has to forget it
			 * (runtime/barrier.h). */
			__atomic_store_n(
				&b->armed,
				t->beside &&
					(s == &h->space[0] ||
					 __atomic_load_n(&h->leaf_range,
							 __ATOMIC_SEQ_CST)),
				__ATOMIC_RELAXED);
		}
		wg_map_set(s, k);
	}
	if (i < s->hint)
		s->hint = i;
	return done;
}

static size_t trim_space(const struct trim *t, unsigned space, size_t want)
{
	struct weir_heap *h = t->h;
	struct wg_space *s = &h->space[space];
	size_t given = 0, stale;
	uint32_t i;

	wr_mutex_lock(&h->lock);
	i = s->first + (s->committed - s->first) / t->unit * t->unit;
	while (i > s->first && given < want && s->stale) {
		uint32_t look =
			i - s->first > LOOK_BLOCKS ? i - LOOK_BLOCKS : s->first;

		for (stale = 0; i > look && !stale;) {
			i -= t->unit;
			stale = take_piece(t, s, i);
		}
		wr_mutex_unlock(&h->lock);
		if (stale && discard_piece(t, s, i))
			given += stale;
		else if (!stale)
			wr_mutex_lock(&h->lock);
		if (t->yield && __atomic_load_n(&h->requests, __ATOMIC_RELAXED))
			break;
	}
	wr_mutex_unlock(&h->lock);
	return given;
}

static size_t stale_bytes(struct weir_heap *h, size_t part[2])
{
	wr_mutex_lock(&h->lock);
	for (int i = 0; i < 2; i++)
		part[i] = h->space[i].stale;
	wr_mutex_unlock(&h->lock);
	return part[0] + part[1];
}

size_t wg_stale(struct weir_heap *h)
{
	size_t part[2];

	return stale_bytes(h, part);
}

size_t wg_trim_excess(struct weir_heap *h)
{
	size_t part[2], stale = stale_bytes(h, part);
	size_t soft = wg_soft(h);
	size_t used = __atomic_load_n(&h->used, __ATOMIC_RELAXED);
	double keep = (double)h->live * h->opt.growth;

	if (soft && keep > (used < soft ? (double)(soft - used) : 0))
		keep = used < soft ? (double)(soft - used) : 0;
	return keep < (double)stale ? stale - (size_t)keep : 0;
}

/* Each space gives in proportion to what it has. */
static void trim(const struct trim *t)
{
	size_t part[2], stale = stale_bytes(t->h, part);
	size_t excess = wg_trim_excess(t->h);

	for (unsigned i = 0; stale && i < 2; i++)
		trim_space(t, i,
			   (size_t)((double)excess *
				    ((double)part[i] / (double)stale)));
}

void wg_trim_after_cycle(struct weir_heap *h)
{
	uint64_t now = h->sys->now_ns();

	if (now - h->trimmed_ns < 1000000000)
		return;
	h->trimmed_ns = now;
	trim(&(struct trim){
		.h = h, .unit = h->opt.thp ? WG_HUGE_BLOCKS : 1, .old = true});
}

void wg_trim_idle(struct weir_heap *h)
{
	trim(&(struct trim){.h = h,
			    .unit = h->opt.thp ? WG_HUGE_BLOCKS : 1,
			    .yield = true});
}

bool wg_trim_room(struct weir_heap *h, struct weir_mutator *m, unsigned space,
		  size_t bytes)
{
	bool blocked = wr_thread_block_enter(&m->thread);
	struct trim t = {.h = h,
			 .unit = h->opt.thp ? WG_HUGE_BLOCKS : 1,
			 .beside = true};
	size_t want = bytes + wg_hard(h) / 16, given;

	/* First the space that the caller takes nothing from. */
	given = trim_space(&t, !space, want);
	if (given < want)
		given += trim_space(&t, space, want - given);
	t.unit = 1;
	if (given < bytes)
		given += trim_space(&t, !space, bytes - given);
	if (given < bytes)
		given += trim_space(&t, space, bytes - given);
	if (blocked)
		wr_thread_block_leave(&m->thread);
	return given != 0;
}
