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

#include "gc/snap.h"

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

/* ---- One block ------------------------------------------------------------
 *
 * Granule bytes are looked at 64 at a time, as bits: of those at which a live
 * object starts, L, and at which any object ends, E.  An object has no E but
 * its last granule's, so L + ~E carries from a live object's start to its end
 * and no further: bits of E that this sets are the ends of live objects, and
 * ends minus starts are the granules between them.  A carry out of the word is
 * an object that goes on in the next one.
 *
 * Words of the table are written whole, live bytes among them: no marker runs
 * between the pause and wg_sweep_finish(), so nobody else writes these.
 */

struct tally {
	unsigned live;   /* granules of live objects */
	unsigned usable; /* granules of holes of WG_MIN_HOLE or more */
	unsigned hole;   /* the largest of them */
	unsigned run;    /* free granules at the end of what was seen */
	unsigned strips; /* bits: where usable holes are */
};

/* Bits of the 0 or 1 that each byte of w is, the lowest first. */
static inline uint64_t gather(uint64_t w)
{
	return w * 0x0102040810204080u >> 56;
}

/* The reverse, with 255 for 1. */
static inline uint64_t scatter(uint64_t bits)
{
	uint64_t w = bits * WG_ONES & 0x8040201008040201u;

	return ((w + 0x7f * WG_ONES) >> 7 & WG_ONES) * 0xff;
}

/* The granules of live objects among the 64 whose bytes begin at `meta`; *open:
 * whether one goes on from the word before, and into the next. */
static inline uint64_t live_granules(const uint8_t *meta, unsigned colour,
				     uint64_t *open)
{
	uint64_t starts = 0, ends = 0, sum;
	bool over;

	for (unsigned k = 0; k < 8; k++) {
		uint64_t w = wg_meta_word(meta + 8 * k);

		starts |= gather(wg_coloured(w, colour)) << 8 * k;
		ends |= gather(w / WEIR_META_END & WG_ONES) << 8 * k;
	}
	starts |= *open;
	over = __builtin_add_overflow(starts, ~ends, &sum);
	*open = over;
	return ((sum & ends) - starts) | (sum & ends);
}

/* The compiler's would be a call where the processor may lack it. */
static inline unsigned count_ones(uint64_t w)
{
	if (!~w)
		return 64;
	w -= w >> 1 & 0x55 * WG_ONES;
	w = (w & 0x33 * WG_ONES) + (w >> 2 & 0x33 * WG_ONES);
	return (unsigned)(((w + (w >> 4)) & 0x0f * WG_ONES) * WG_ONES >> 56);
}

/* The run of free granules ends before granule `end` of the block. */
static inline void end_run(struct tally *t, unsigned end)
{
	const unsigned shift = WG_STRIP_SHIFT - WEIR_GRANULE_SHIFT;

	if (t->run >= WG_MIN_HOLE) {
		t->usable += t->run;
		t->strips |= (2u << ((end - 1) >> shift)) -
			     (1u << ((end - t->run) >> shift));
		if (t->run > t->hole)
			t->hole = t->run;
	}
	t->run = 0;
}

static inline unsigned ones_below(uint64_t w)
{
	return ~w ? (unsigned)__builtin_ctzll(~w) : 64;
}

/* Holes that 64 more granules from `at` on add, `free` those without a live
 * object.  Of runs
 * inside of the word those are looked at that are long enough to be of use. */
static inline void tally_holes(struct tally *t, unsigned at, uint64_t free)
{
	unsigned low = ones_below(free), high;
	uint64_t wide;

	t->run += low;
	if (low == 64)
		return;
	end_run(t, at + low);
	high = (unsigned)__builtin_clzll(~free);
	wide = free & free >> 1;
	wide &= wide >> 2;
	wide &= wide >> 4;
	wide &= wide >> 8; /* where WG_MIN_HOLE free ones begin */
	wide &= ~0ull << low;
	while (wide) {
		unsigned i = (unsigned)__builtin_ctzll(wide);

		t->run = ones_below(free >> i);
		i += t->run;
		if (i >= 64 - high)
			break;
		wide &= ~0ull << i;
		end_run(t, at + i);
	}
	t->run = high;
}
_Static_assert(WG_MIN_HOLE == 16, "four doublings");

/* Zero the bytes of what is free among the 64 that begin at `meta`. */
static inline void clear_free(uint8_t *meta, uint64_t free)
{
	for (unsigned k = 0; k < 8; k++, free >>= 8) {
		uint64_t w, kept;

		if (!(free & 0xff))
			continue;
		w = wg_meta_word(meta + 8 * k);
		kept = w & ~scatter(free & 0xff);
		/* Relaxed: anybody may ask what an address points into. */
		if (w != kept)
			__atomic_store_n((uint64_t *)(void *)(meta + 8 * k),
					 kept, __ATOMIC_RELAXED);
	}
}

static void poison(struct weir_heap *h, size_t g, uint64_t free)
{
	for (; free; free &= free - 1)
		memset((void *)wg_granule_start(
			       h, g + (unsigned)__builtin_ctzll(free)),
		       WG_POISON, WEIR_GRANULE);
}

static void tally_block(struct weir_heap *h, size_t g, struct tally *t)
{
	uint8_t *meta = h->meta + g;
	unsigned colour = h->colour;
	uint64_t open = 0;

	for (unsigned i = 0; i < WG_BLOCK_GRANULES; i += 64) {
		uint64_t live = live_granules(meta + i, colour, &open);

		t->live += count_ones(live);
		if (~live) {
			if (wr_unlikely(h->opt.poison))
				poison(h, g + i, ~live);
			clear_free(meta + i, ~live);
		}
		tally_holes(t, i, ~live);
	}
	end_run(t, WG_BLOCK_GRANULES);
}

/* Acquire: partner of the release in wg_snap_pause(). */
static inline void keep_meta(struct weir_heap *h, uint32_t i)
{
	struct weir_heap_snapshot *s =
		__atomic_load_n(&h->snap_meta, __ATOMIC_ACQUIRE);

	if (wr_unlikely(s != NULL))
		wg_snap_keep_meta(s, h, i);
}

unsigned wg_sweep_block(struct weir_heap *h, uint32_t i)
{
	struct wg_block *b = &h->blocks[i];
	struct tally t = {0};

	wg_delay_rarely(h);
	keep_meta(h, i);
	tally_block(h, (size_t)i * WG_BLOCK_GRANULES, &t);
	__atomic_store_n(&b->live, (uint16_t)t.live, __ATOMIC_RELAXED);
	__atomic_store_n(&h->black[i], t.live != 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->hole, (uint16_t)t.hole, __ATOMIC_RELAXED);
	__atomic_store_n(&b->strips, (uint16_t)t.strips, __ATOMIC_RELAXED);
	__atomic_store_n(&b->young, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->fresh, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
	if (!t.live) {
		wg_blocks_free(h, i, 1);
		return 0;
	}
	if (t.usable < WG_RECYCLE_MIN)
		t.usable = 0;
	wg_block_set(b, t.usable ? WG_RECYCLABLE : WG_USED);
	return t.usable;
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
		keep_meta(h, i);
		__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
		__atomic_store_n(&b->young, 0, __ATOMIC_RELAXED);
		return;
	}
	if (h->opt.poison)
		memset((void *)wg_block_start(h, i), WG_POISON,
		       (size_t)b->blocks << WG_BLOCK_SHIFT);
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
