/* SPDX-License-Identifier: MIT */
/*
 * Sweeping: granule bytes of dead objects become zero, empty blocks free.
 *
 * After the pause every USED or RECYCLABLE block whose seq is old waits for
 * its sweep; a minor cycle leaves those alone that nobody allocated into.
 * Whoever changes the state to SWEEPING sweeps: a mutator that looks for
 * memory (it walks space->cursor) or a collector thread (space->sweep).  Only
 * the granule table is touched, never the heap's own pages, unless `poison`
 * is on.
 *
 *   sweep_block            the winner of the claim, beside everything else
 *   sweep_all              any number of collector threads
 *   sweep_finish           the collector, after sweep_all returned everywhere
 */
#include "gc/heap.h"

#include <sched.h>
#include <string.h>

#define WG_POISON 0xdb

void wg_sweep_begin(struct weir_heap *h)
{
	h->sweep_seq++;
	for (int i = 0; i < 2; i++) {
		struct wg_space *s = &h->space[i];

		__atomic_store_n(&s->cursor, s->first, __ATOMIC_RELAXED);
		__atomic_store_n(&s->wide, s->first, __ATOMIC_RELAXED);
		__atomic_store_n(&s->sweep, s->first, __ATOMIC_RELAXED);
	}
}

static void poison(struct weir_heap *h, size_t g, size_t end)
{
	memset((void *)wg_granule_start(h, g), WG_POISON,
	       (end - g) << WEIR_GRANULE_SHIFT);
}

unsigned wg_sweep_block(struct weir_heap *h, uint32_t i)
{
	struct wg_block *b = &h->blocks[i];
	uint8_t *meta = h->meta;
	unsigned colour = h->colour;
	size_t g = (size_t)i * WG_BLOCK_GRANULES;
	size_t end = g + WG_BLOCK_GRANULES;
	unsigned live = 0, usable = 0;
	size_t hole = 0;

	wg_delay_rarely(h);
	while (g < end) {
		size_t next = wg_meta_next(meta, g, end, colour);

		if (next > g) {
			if (h->opt.poison)
				poison(h, g, next);
			wg_meta_clear(meta, g, next);
			if (next - g >= WG_MIN_HOLE)
				usable += (unsigned)(next - g);
			if (next - g > hole)
				hole = next - g;
			if (next == end)
				break;
		}
		g = wg_meta_end(meta, next) + 1;
		live += (unsigned)(g - next);
	}
	__atomic_store_n(&b->live, (uint16_t)live, __ATOMIC_RELAXED);
	__atomic_store_n(&h->black[i], live != 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->hole, (uint16_t)hole, __ATOMIC_RELAXED);
	__atomic_store_n(&b->young, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->fresh, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
	if (!live) {
		wg_blocks_free(h, i, 1);
		return 0;
	}
	if (usable < WG_RECYCLE_MIN)
		usable = 0;
	wg_block_set(b, usable ? WG_RECYCLABLE : WG_USED);
	return usable;
}

/*
 * The second look at seq is what makes the claim sound: between the first and
 * the compare-and-swap another thread may have swept the block, handed it to
 * a mutator and got it back, full of young objects.
 */
bool wg_sweep_claim(struct weir_heap *h, uint32_t i)
{
	struct wg_block *b = &h->blocks[i];
	unsigned st = wg_block_state(b);

	if (st != WG_USED && st != WG_RECYCLABLE)
		return false;
	if (!wg_block_unswept(h, b) || !wg_block_claim(b, st, WG_SWEEPING))
		return false;
	if (wg_block_unswept(h, b))
		return true;
	wg_block_set(b, st);
	return false;
}

static void sweep_large(struct weir_heap *h, uint32_t i)
{
	struct wg_block *b = &h->blocks[i];
	size_t g = (size_t)i * WG_BLOCK_GRANULES;

	if (wg_is_black(h, g)) {
		__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
		__atomic_store_n(&b->young, 0, __ATOMIC_RELAXED);
		return;
	}
	if (h->opt.poison)
		poison(h, g,
		       g + ((size_t)b->blocks
			    << (WG_BLOCK_SHIFT - WEIR_GRANULE_SHIFT)));
	wg_blocks_free(h, i, b->blocks);
}

void wg_sweep_all(struct weir_heap *h)
{
	const uint32_t batch = 16;

	for (int sp = 0; sp < 2; sp++) {
		struct wg_space *s = &h->space[sp];

		for (;;) {
			uint32_t i = __atomic_fetch_add(&s->sweep, batch,
							__ATOMIC_RELAXED);
			uint32_t end = i + batch;

			if (i >= wg_high(s))
				break;
			if (end > wg_high(s))
				end = wg_high(s);
			for (; i < end; i++) {
				struct wg_block *b = &h->blocks[i];
				unsigned st = wg_block_state(b);

				if (st == WG_LARGE_HEAD) {
					if (wg_block_unswept(h, b))
						sweep_large(h, i);
				} else if (wg_sweep_claim(h, i)) {
					wg_sweep_block(h, i);
				}
			}
		}
	}
}

/*
 * Wait for the blocks that mutators are still sweeping, and count what is
 * live, for the pacer.  Without the wait the next cycle could turn the colour
 * under a mutator that has claimed a block and not read the colour yet: every
 * object there would look dead.  A sweeping mutator is CRITICAL and waits for
 * nothing that the collector holds, so the wait is short.
 */
void wg_sweep_finish(struct weir_heap *h)
{
	uint64_t live = 0;

	for (int sp = 0; sp < 2; sp++) {
		struct wg_space *s = &h->space[sp];

		for (uint32_t i = s->first + !sp; i < wg_high(s); i++) {
			struct wg_block *b = &h->blocks[i];

			while (wr_unlikely(wg_block_state(b) == WG_SWEEPING))
				sched_yield();
			if (wg_block_state(b) == WG_LARGE_HEAD)
				live += wg_large_bytes(
					h, __atomic_load_n(&b->size,
							   __ATOMIC_RELAXED));
			else
				live += (uint64_t)__atomic_load_n(
						&b->live, __ATOMIC_RELAXED)
					<< WEIR_GRANULE_SHIFT;
		}
	}
	__atomic_store_n(&h->live, live, __ATOMIC_RELAXED);
}
