/* SPDX-License-Identifier: MIT */
/*
 * Blocks: reserving the range, taking and freeing blocks and runs.
 *
 * Taking is first-fit by address, so that the used part of the heap stays
 * compact and one page scan covers it.  All of it runs under the heap lock,
 * with the caller's `critical` set, so that no thread is stopped holding it.
 */
#include "gc/free_map.h"

#include <errno.h>
#include <string.h>

/* Pages in a row that are worth a call, which interrupts other processors. */
#define WG_FORGET_PAGES 12
/* Blocks up to which the granule table does without huge pages. */
#define WG_SMALL_HEAP 2048

/* Side tables of the reserved range: granule bytes, block table, free maps. */
struct side {
	size_t meta, blocks, map, black, total;
};

static struct side side_sizes(const struct wr_sys *sys, size_t span)
{
	struct side s;

	s.meta = 2 * span >> WEIR_GRANULE_SHIFT;
	s.blocks = (2 * span >> WG_BLOCK_SHIFT) * sizeof(struct wg_block);
	s.map = (span >> WG_BLOCK_SHIFT) / 8;
	s.blocks = wr_sys_pages(sys, s.blocks);
	s.map = wr_sys_pages(sys, s.map);
	s.black = wr_sys_pages(sys, 2 * span >> WG_BLOCK_SHIFT);
	s.total = s.meta + s.blocks + 2 * s.map + s.black;
	return s;
}

int wg_blocks_init(struct weir_heap *h, size_t heap_max, bool exact)
{
	const size_t step = (size_t)64 << 20;
	size_t span = (heap_max + step - 1) & ~(step - 1);
	struct side s;
	char *side;
	void *base;
	int err;

	/* Room for both spaces to fill up, and for runs to be found.  What was
	 * asked for by name need only fit. */
	for (bool roomy = exact;; span = (span / 2 + step - 1) & ~(step - 1)) {
		s = side_sizes(h->sys, span);
		base = h->sys->reserve(2 * span, (size_t)2 << 20);
		side = base ? h->sys->reserve(s.total, (size_t)2 << 20) : NULL;
		/* If it only just fits, nothing is left for anybody else:
		 * be content with half of that. */
		if (side && (roomy || span <= step ||
			     wr_sys_has_room(h->sys, span, (size_t)2 << 20)))
			break;
		roomy = side != NULL;
		if (side)
			h->sys->release(side, s.total);
		if (base)
			h->sys->release(base, 2 * span);
		if (exact || span <= step)
			return wr_error(ENOMEM,
					"cannot reserve %zu MiB of addresses "
					"for the heap; raise RLIMIT_AS (ulimit "
					"-v) or lower heap-max",
					(2 * span + s.total) >> 20);
	}
	h->span = span;
	h->base = (uintptr_t)base;
	h->extent = 2 * span;
	h->leaf_base = h->base + span;
	h->meta = (uint8_t *)side;
	h->blocks = (struct wg_block *)(void *)(side + s.meta);
	h->space[0].free_map = (uint64_t *)(void *)(side + s.meta + s.blocks);
	h->space[1].free_map =
		(uint64_t *)(void *)(side + s.meta + s.blocks + s.map);
	h->black = (uint8_t *)side + s.meta + s.blocks + 2 * s.map;
	for (int i = 0; i < 2; i++) {
		struct wg_space *sp = &h->space[i];

		sp->first = (uint32_t)(i * (span >> WG_BLOCK_SHIFT));
		sp->end = sp->first + (uint32_t)(span >> WG_BLOCK_SHIFT);
		sp->committed = sp->high = sp->hint = sp->first;
		sp->cursor = sp->sweep = sp->first;
	}
	err = h->sys->commit(side + s.meta, s.blocks + 2 * s.map + s.black,
			     false);
	if (err) {
		wg_blocks_fini(h);
		return wr_error(ENOMEM, "no memory for the heap's block table");
	}
	/* Block index 0 means none. */
	h->space[0].high = h->space[0].hint = 1;
	wg_block_set(&h->blocks[0], WG_ACTIVE);
	return 0;
}

void wg_blocks_fini(struct weir_heap *h)
{
	struct side s = side_sizes(h->sys, h->span);

	h->sys->release(h->meta, s.total);
	h->sys->release((void *)h->base, 2 * h->span);
}

/* Commit more blocks, at least up to index `until` (exclusive). */
static bool grow(struct weir_heap *h, struct wg_space *s, uint32_t until,
		 enum wg_no *why)
{
	uint32_t from = s->committed;
	uint32_t to = (until - s->first + WG_GROW_BLOCKS - 1) / WG_GROW_BLOCKS *
			      WG_GROW_BLOCKS +
		      s->first;
	size_t bytes;

	*why = WG_NO_LIMIT;
	if (until > s->end)
		return false;
	*why = WG_NO_SYSTEM;
	if (to > s->end)
		to = s->end;
	bytes = (size_t)(to - from) << WG_BLOCK_SHIFT;
	if (h->sys->commit(h->meta + (size_t)from * WG_BLOCK_GRANULES,
			   bytes >> WEIR_GRANULE_SHIFT,
			   h->opt.thp && from - s->first >= WG_SMALL_HEAP) ||
	    h->sys->commit((void *)wg_block_start(h, from), bytes, h->opt.thp))
		return false;
	for (uint32_t i = from; i < to; i++) {
		if (i == 0)
			continue;
		h->blocks[i].zeroed = 1;
		wg_map_set(s, i);
	}
	__atomic_store_n(&h->committed, h->committed + bytes, __ATOMIC_RELAXED);
	/* Changes under the lock; relaxed for who reads it without. */
	__atomic_store_n(&s->committed, to, __ATOMIC_RELAXED);
	__atomic_store_n(&h->backed[s == &h->space[1]],
			 (uintptr_t)(to - s->first) << WG_BLOCK_SHIFT,
			 __ATOMIC_RELEASE);
	return true;
}

/* First index >= from of a free block, or s->committed. */
static uint32_t find_free(struct wg_space *s, uint32_t from)
{
	uint32_t i = from - s->first;
	uint32_t n = s->committed - s->first;
	uint64_t w;

	if (i >= n)
		return s->committed;
	w = s->free_map[i / 64] & (~0ull << (i % 64));
	for (i /= 64; !w;) {
		if (++i * 64 >= n)
			return s->committed;
		w = s->free_map[i];
	}
	return s->first + i * 64 + (uint32_t)__builtin_ctzll(w);
}

static uint32_t find_run(struct weir_heap *h, struct wg_space *s,
			 uint32_t count, uint32_t align, enum wg_no *why)
{
	uint32_t i = s->hint;

	*why = WG_NO_LIMIT;
	for (;;) {
		uint32_t run = 0;

		i = find_free(s, i);
		/* Alignment is of addresses; base is 2 MiB aligned. */
		if (align > 1) {
			uintptr_t a =
				(wg_block_start(h, i) +
				 ((uintptr_t)align << WG_BLOCK_SHIFT) - 1) &
				~(((uintptr_t)align << WG_BLOCK_SHIFT) - 1);

			i = wg_block_of(h, a);
		}
		if (i + (uint64_t)count > s->end)
			return 0;
		while (run < count && i + run < s->committed &&
		       wg_map_test(s, i + run))
			run++;
		if (run == count)
			return i;
		if (i + run >= s->committed) {
			if (!grow(h, s, i + count, why))
				return 0;
			continue;
		}
		i += run ? run : 1;
	}
}

static void account(struct weir_heap *h, size_t bytes)
{
	uint64_t used = __atomic_add_fetch(&h->used, bytes, __ATOMIC_RELAXED);

	if (used > __atomic_load_n(&h->peak, __ATOMIC_RELAXED))
		__atomic_store_n(&h->peak, used, __ATOMIC_RELAXED);
}

/* Whether `bytes` more fit below the limit, of which `reused` are stale. */
static bool fits(const struct weir_heap *h, size_t bytes, size_t reused,
		 bool stale_ok, enum wg_no *why)
{
	size_t used = __atomic_load_n(&h->used, __ATOMIC_RELAXED);
	size_t stale = h->space[0].stale + h->space[1].stale - reused;

	*why = used + bytes > h->hard ? WG_NO_LIMIT : WG_NO_STALE;
	return used + bytes + (stale_ok ? 0 : stale) <= h->hard;
}

uint32_t wg_block_take(struct weir_heap *h, unsigned space, bool stale_ok,
		       enum wg_no *why)
{
	struct wg_space *s = &h->space[space];
	struct wg_block *b;
	uint32_t i;

	wr_mutex_lock(&h->lock);
	if (!fits(h, WG_BLOCK, 0, true, why))
		goto none;
	i = find_free(s, s->hint);
	if (i >= s->committed) {
		if (!grow(h, s, s->committed + 1, why))
			goto none;
		i = find_free(s, s->hint);
	}
	b = &h->blocks[i];
	if (b->zeroed && !fits(h, WG_BLOCK, 0, stale_ok, why))
		goto none;
	if (!b->zeroed)
		s->stale -= WG_BLOCK;
	wg_map_clear(s, i);
	s->hint = i + 1;
	if (s->high < i + 1)
		__atomic_store_n(&s->high, i + 1, __ATOMIC_RELAXED);
	account(h, WG_BLOCK);
	__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
	__atomic_store_n(&b->live, 0, __ATOMIC_RELAXED);
	wg_block_set(b, WG_ACTIVE);
	wr_mutex_unlock(&h->lock);
	return i;
none:
	wr_mutex_unlock(&h->lock);
	return 0;
}

uint32_t wg_run_take(struct weir_heap *h, unsigned space, size_t size,
		     size_t align, bool stale_ok, enum wg_no *why)
{
	struct wg_space *s = &h->space[space];
	uint32_t count = (uint32_t)((size + WG_BLOCK - 1) >> WG_BLOCK_SHIFT);
	size_t bytes = wg_large_bytes(h, size), stale = 0;
	uint32_t i;

	wr_mutex_lock(&h->lock);
	if (!fits(h, bytes, 0, true, why))
		goto none;
	i = find_run(h, s, count,
		     align > WG_BLOCK ? (uint32_t)(align >> WG_BLOCK_SHIFT) : 1,
		     why);
	if (!i)
		goto none;
	for (uint32_t k = i; k < i + count; k++)
		stale += h->blocks[k].zeroed ? 0 : WG_BLOCK;
	if (!fits(h, bytes, stale, stale_ok, why))
		goto none;
	s->stale -= stale;
	for (uint32_t k = i; k < i + count; k++) {
		struct wg_block *b = &h->blocks[k];

		wg_map_clear(s, k);
		__atomic_store_n(&b->head, i, __ATOMIC_RELAXED);
		__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
		__atomic_store_n(&b->live, 0, __ATOMIC_RELAXED);
		wg_block_set(b, k == i ? WG_LARGE_NEW : WG_LARGE_TAIL);
	}
	__atomic_store_n(&h->blocks[i].size, size, __ATOMIC_RELAXED);
	h->blocks[i].blocks = count;
	if (s->high < i + count)
		__atomic_store_n(&s->high, i + count, __ATOMIC_RELAXED);
	if (s->hint == i)
		s->hint = i + count;
	account(h, bytes);
	wr_mutex_unlock(&h->lock);
	return i;
none:
	wr_mutex_unlock(&h->lock);
	return 0;
}

/* Blocks whose granule bytes are zero but for a large object's start, and whose
 * state nobody else changes.  The start goes under the lock: fork is to copy
 * both or neither. */
void wg_blocks_free(struct weir_heap *h, uint32_t first, uint32_t count)
{
	struct wg_space *s = &h->space[first >= h->space[1].first];
	struct wg_block *head = &h->blocks[first];
	size_t bytes = WG_BLOCK;
	unsigned state = wg_block_state(head);

	wr_mutex_lock(&h->lock);
	if (state == WG_LARGE_HEAD || state == WG_LARGE_NEW)
		bytes = wg_large_bytes(h, head->size);
	if (state == WG_LARGE_HEAD)
		__atomic_store_n(&h->meta[(size_t)first * WG_BLOCK_GRANULES], 0,
				 __ATOMIC_RELAXED);
	for (uint32_t i = first; i < first + count; i++) {
		struct wg_block *b = &h->blocks[i];

		b->zeroed = 0;
		__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
		__atomic_store_n(&b->young, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&b->fresh, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&b->live, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&b->size, 0, __ATOMIC_RELAXED);
		wg_block_set(b, WG_FREE);
		wg_map_set(s, i);
	}
	if (first < s->hint)
		s->hint = first;
	s->stale += (size_t)count << WG_BLOCK_SHIFT;
	__atomic_sub_fetch(&h->used, bytes, __ATOMIC_RELAXED);
	wr_mutex_unlock(&h->lock);
}

/* The map says what the states say, and the hints do not matter. */
void wg_blocks_fork_child(struct weir_heap *h)
{
	for (int sp = 0; sp < 2; sp++) {
		struct wg_space *s = &h->space[sp];

		s->stale = 0;
		s->hint = s->first + !sp;
		for (uint32_t i = s->hint; i < s->committed; i++) {
			if (wg_block_state(&h->blocks[i]) != WG_FREE)
				continue;
			wg_map_set(s, i);
			if (!h->blocks[i].zeroed)
				s->stale += WG_BLOCK;
		}
	}
}

/* Whole pages of [start, start + size) that the barrier may be protecting
 * become dirty at once, so that the bulk of writes to come does not fault.
 * A race with the collector's arming leaves a page armed: it then faults. */
void wg_forget(struct weir_heap *h, uintptr_t start, size_t size)
{
	uintptr_t page = h->sys->page_size;
	uintptr_t lo = (start + page - 1) & ~(page - 1);
	uintptr_t hi = (start + size) & ~(page - 1);

	if (hi >= lo + WG_FORGET_PAGES * page)
		wr_barrier_forget(h->barrier, (void *)lo, hi - lo);
}

void wg_forget_holes(struct weir_heap *h, uint32_t i)
{
	unsigned left = __atomic_load_n(&h->blocks[i].strips, __ATOMIC_RELAXED);

	while (left) {
		unsigned from = (unsigned)__builtin_ctz(left);
		unsigned count = (unsigned)__builtin_ctz(~(left >> from));

		left &= ~0u << (from + count);
		wg_forget(h,
			  wg_block_start(h, i) +
				  ((uintptr_t)from << WG_STRIP_SHIFT),
			  (size_t)count << WG_STRIP_SHIFT);
	}
}
