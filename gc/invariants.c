/* SPDX-License-Identifier: MIT */
/*
 * The invariants of blocks, spaces, markers and mutators, restated so that they
 * can be checked: by the verifier (verify=on), and in every pause of builds
 * with --enable-checking=2.  What does not hold is fatal, and named.
 *
 *   all of it: the collector, the world stopped, marking done, before the sweep
 */
#include "gc/invariants.h"

#include "gc/always.h"
#include "gc/team.h"

#define holds(cond, ...) wr_require(cond, "invariants: " __VA_ARGS__)

/* Objects from START to END, one after the other, zeros between. */
static void check_granules(const struct weir_heap *h, uint32_t i)
{
	size_t g = (size_t)i * WG_BLOCK_GRANULES, end = g + WG_BLOCK_GRANULES;
	const uint8_t *meta = h->meta;

	while ((g = wg_meta_nonzero(meta, g, end)) < end) {
		size_t last;

		/* Of an object that fork came between. */
		if (h->stray_ends && wg_meta_load(&meta[g]) == WEIR_META_END) {
			g++;
			continue;
		}
		holds(wg_meta_load(&meta[g]) & WEIR_META_COLOUR,
		      "block %u: granule %zu is in no object", i, g);
		last = wg_meta_end(meta, g);
		holds(last < end,
		      "block %u: the object at granule %zu has no "
		      "end",
		      i, g);
		holds(last == g || (wg_meta_nonzero(meta, g + 1, end) == last &&
				    meta[last] == WEIR_META_END),
		      "block %u: granules inside of the object at %zu are "
		      "not zero",
		      i, g);
		g = last + 1;
	}
}

static void check_free(const struct weir_heap *h, uint32_t i)
{
	size_t g = (size_t)i * WG_BLOCK_GRANULES, end = g + WG_BLOCK_GRANULES;

	holds(wg_meta_nonzero(h->meta, g, end) == end,
	      "block %u is free and has objects", i);
}

static void check_large(const struct weir_heap *h, uint32_t i)
{
	const struct wg_block *b = &h->blocks[i];
	bool made = wg_block_state(b) == WG_LARGE_HEAD;
	size_t g = (size_t)i * WG_BLOCK_GRANULES;
	uint8_t byte = wg_meta_load(&h->meta[g]);

	holds(b->head == i && b->blocks &&
		      (b->size + WG_BLOCK - 1) >> WG_BLOCK_SHIFT == b->blocks,
	      "block %u: a large object of %zu bytes in %u blocks", i,
	      (size_t)b->size, b->blocks);
	holds(!made || byte & WEIR_META_COLOUR,
	      "block %u: a large object without a start", i);
	for (uint32_t k = i + 1; k < i + b->blocks; k++)
		holds(wg_block_state(&h->blocks[k]) == WG_LARGE_TAIL &&
			      h->blocks[k].head == i,
		      "block %u is not a tail of the large object at %u", k, i);
}

/* Check block i; the system's bytes that count as used by it. */
static size_t check_block(const struct weir_heap *h, uint32_t i)
{
	const struct wg_block *b = &h->blocks[i];

	switch (wg_block_state(b)) {
	case WG_FREE:
		check_free(h, i);
		return 0;
	case WG_USED:
	case WG_RECYCLABLE:
		check_granules(h, i);
		return WG_BLOCK;
	case WG_LARGE_NEW:
	case WG_LARGE_HEAD:
		check_large(h, i);
		return wg_large_bytes(h, b->size);
	case WG_LARGE_TAIL:
		holds(b->head < i && i - b->head < h->blocks[b->head].blocks,
		      "block %u is a tail of the large object at %u, which is "
		      "shorter",
		      i, b->head);
		return 0;
	default:
		/* Every buffer was retired, every sweep is over. */
		holds(false, "block %u has state %u in a pause", i,
		      wg_block_state(b));
		return 0;
	}
}

static size_t check_space(const struct weir_heap *h, unsigned sp)
{
	const struct wg_space *s = &h->space[sp];
	size_t used = 0, stale = 0;

	/* Block 0 is none; it counts as taken from the start. */
	holds(s->first <= s->high && s->committed <= s->end &&
		      (s->high <= s->committed || (!sp && s->high == 1)),
	      "space %u: %u blocks from %u, %u of them committed, %u taken", sp,
	      s->end - s->first, s->first, s->committed - s->first,
	      s->high - s->first);
	for (uint32_t i = s->first + !sp; i < s->committed; i++) {
		const struct wg_block *b = &h->blocks[i];
		uint64_t word = s->free_map[(i - s->first) / 64];
		bool set = word >> ((i - s->first) % 64) & 1;
		bool is_free = wg_block_state(b) == WG_FREE;

		/* Not the other way around: it may be being given back. */
		holds(!set || is_free, "block %u is in the free map", i);
		holds(!set || i >= s->hint, "block %u is free below the hint",
		      i);
		holds(is_free || i < s->high, "block %u is taken above high",
		      i);
		if (is_free && !b->zeroed)
			stale += WG_BLOCK;
		/* Nor is it looked at then. */
		if (i < s->high && (set || !is_free))
			used += check_block(h, i);
	}
	holds(stale == s->stale, "space %u: %zu stale bytes, %zu counted", sp,
	      stale, s->stale);
	return used;
}

static void check_marker(const struct wg_marker *m)
{
	holds((!m->cur || !m->cur->n) && !m->full && !m->slices &&
		      wg_deque_empty(&m->deque),
	      "marker %u has work when marking is done", m->index);
	holds(!m->deferred,
	      "marker %u has objects to trace when marking is "
	      "done",
	      m->index);
	for (unsigned i = 0; i < WG_RING; i++)
		holds(!m->ring[i], "marker %u: a candidate is in the ring",
		      m->index);
	for (unsigned i = 0; i < WG_SCAN_RING; i++)
		holds(!m->scan_ring[i], "marker %u: an object is in the ring",
		      m->index);
}

static void check_mutator(struct wr_thread *t, void *arg)
{
	const struct weir_mutator *m = wg_mutator_of(t);

	(void)arg;
	for (int i = 0; i < 2; i++)
		holds(!m->bump[i].block && !m->wide[i].block &&
			      !m->b.buffer[i].cursor && !m->b.buffer[i].limit,
		      "a mutator has a buffer in a pause");
	holds(m->b.newborn == WG_YOUNG,
	      "a mutator's new objects are not young after the remark");
}

void wg_invariants_check(struct weir_heap *h)
{
	size_t used = 0;

	wr_mutex_lock(&h->lock);
	for (unsigned sp = 0; sp < 2; sp++)
		used += check_space(h, sp);
	holds(used == h->used, "%zu bytes are used, %zu counted", used,
	      (size_t)h->used);
	wr_mutex_unlock(&h->lock);
	for (unsigned i = 0; i < h->team->size; i++)
		check_marker(h->marker[i]);
	wr_threads_for_each(h->threads, check_mutator, NULL);
	wg_always_check(h);
}
