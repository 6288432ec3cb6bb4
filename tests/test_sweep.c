/* SPDX-License-Identifier: MIT */
/* The sweep of one block at a time, its claim, and what it counts. */
#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/short.h"

#define OBJECTS 64

static uint32_t block;
static unsigned space;

static size_t granule(unsigned n)
{
	return (size_t)block * WG_BLOCK_GRANULES + n;
}

/* A used block with an object of `size` granules each 2 * size, every other
 * one black. */
static void make_block(unsigned size, bool any_black)
{
	enum wg_no why;

	block = wg_block_take(heap, space, false, &why);
	cr_assert_gt(block, 0);
	for (unsigned i = 0; i < OBJECTS; i++) {
		size_t g = granule(2 * i * size);
		unsigned colour =
			any_black && i % 2 == 0 ? heap->colour : WG_YOUNG;

		heap->meta[g + size - 1] = WEIR_META_END;
		heap->meta[g] |=
			(uint8_t)(colour | (size == 1) * WEIR_META_END);
	}
	heap->blocks[block].young = 1;
	wg_block_set(&heap->blocks[block], WG_USED);
}

static void open_quiet(const char *options)
{
	heap_open(options);
	/* As after a pause. */
	heap->sweep_minor = false;
	wg_sweep_begin(heap);
}

Test(sweep, the_dead_go_and_the_live_are_counted)
{
	unsigned usable;

	open_quiet("heap-max=64m,barrier=none");
	heap->sweep_seq--;
	make_block(3, true);
	heap->sweep_seq++;
	cr_assert(wg_sweep_claim(heap, block));
	usable = wg_sweep_block(heap, block);
	for (unsigned i = 0; i < OBJECTS; i++) {
		uint8_t byte = heap->meta[granule(6 * i)];

		cr_assert_eq(byte & WEIR_META_COLOUR, i % 2 ? 0 : heap->colour,
			     "object %u", i);
		cr_assert_eq(heap->meta[granule(6 * i + 2)],
			     i % 2 ? 0 : WEIR_META_END);
	}
	cr_assert_eq(heap->blocks[block].live, OBJECTS / 2 * 3);
	/* Between the live ones 9 granules: too small to use. */
	cr_assert_eq(usable, WG_BLOCK_GRANULES - (OBJECTS - 2) * 6 - 3);
	cr_assert_eq(heap->blocks[block].hole, usable);
	cr_assert_eq(wg_block_state(&heap->blocks[block]), WG_RECYCLABLE);
	cr_assert(heap->black[block]);
	cr_assert_not(heap->blocks[block].young);
}

Test(sweep, an_empty_block_is_free)
{
	uint64_t used;

	open_quiet("heap-max=64m,barrier=none");
	used = heap->used;
	heap->sweep_seq--;
	make_block(1, false);
	heap->sweep_seq++;
	cr_assert(wg_sweep_claim(heap, block));
	cr_assert_eq(wg_sweep_block(heap, block), 0);
	cr_assert_eq(wg_block_state(&heap->blocks[block]), WG_FREE);
	cr_assert_eq(heap->used, used);
	cr_assert_eq(wg_meta_nonzero(heap->meta, granule(0),
				     granule(WG_BLOCK_GRANULES)),
		     granule(WG_BLOCK_GRANULES));
}

Test(sweep, a_block_is_claimed_once)
{
	open_quiet("heap-max=64m,barrier=none");
	heap->sweep_seq--;
	make_block(2, true);
	heap->sweep_seq++;
	cr_assert(wg_sweep_claim(heap, block));
	cr_assert_not(wg_sweep_claim(heap, block));
	wg_sweep_block(heap, block);
	cr_assert_not(wg_sweep_claim(heap, block), "it was swept");
}

Test(sweep, after_a_minor_cycle_old_blocks_are_left_alone)
{
	open_quiet("heap-max=64m,barrier=none");
	heap->sweep_seq--;
	make_block(2, true);
	heap->sweep_seq++;
	heap->sweep_minor = true;
	heap->blocks[block].young = 0;
	cr_assert_not(wg_sweep_claim(heap, block));
	heap->blocks[block].young = 1;
	cr_assert(wg_sweep_claim(heap, block));
	wg_sweep_block(heap, block);
}

Test(sweep, taken_blocks_are_not_the_sweeps)
{
	enum wg_no why;
	uint32_t i;

	open_quiet("heap-max=64m,barrier=none");
	i = wg_block_take(heap, 0, false, &why);
	heap->sweep_seq++;
	cr_assert_not(wg_sweep_claim(heap, i), "it is somebody's");
}

Test(sweep, all_of_it_by_the_collector)
{
	open_quiet("heap-max=64m,barrier=none");
	heap->sweep_seq--;
	for (int i = 0; i < 40; i++) {
		space = (unsigned)i % 2;
		make_block(2, i % 4 < 2);
	}
	heap->sweep_seq++;
	wg_sweep_all(heap);
	wg_sweep_finish(heap);
	cr_assert_eq(heap->live, 20 * OBJECTS / 2 * 32);
	wg_sweep_all(heap); /* finds nothing to do */
	cr_assert_eq(heap->live, 20 * OBJECTS / 2 * 32);
}

/* ---- Blocks of all sorts, against a plain reading -------------------------
 */

static uint64_t rnd_state = 88172645463325252u;

static unsigned rnd(unsigned n)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return (unsigned)(rnd_state >> 20) % n;
}

/* Fill bytes with objects and gaps; ENDs that belong to no object, as a child
 * of fork may find, are among them. */
static void make_bytes(uint8_t *bytes, unsigned colour)
{
	unsigned large = 1u << rnd(9), dense = rnd(5), living = rnd(5);
	unsigned at = 0;

	memset(bytes, 0, WG_BLOCK_GRANULES);
	while (at < WG_BLOCK_GRANULES) {
		unsigned size = 1 + rnd(large);
		unsigned other[] = {WG_YOUNG, colour ^ WG_BLACK_A ^ WG_BLACK_B};

		if (size > WG_BLOCK_GRANULES - at)
			size = WG_BLOCK_GRANULES - at;
		if (rnd(4) >= dense) {
			if (!rnd(8))
				bytes[at + rnd(size)] = WEIR_META_END;
		} else {
			bytes[at + size - 1] = WEIR_META_END;
			bytes[at] |=
				(uint8_t)((rnd(4) < living ? colour
							   : other[rnd(2)]) |
					  rnd(32) << WEIR_META_KIND_SHIFT);
		}
		at += size;
	}
}

struct plain {
	unsigned live, usable, hole; /* granules */
	unsigned strips;             /* bits */
};

/* What the sweep should make of them. */
static struct plain sweep_plainly(uint8_t *bytes, unsigned colour)
{
	struct plain p = {0};
	unsigned run = 0;

	for (unsigned i = 0; i <= WG_BLOCK_GRANULES; i++) {
		if (i < WG_BLOCK_GRANULES &&
		    (bytes[i] & WEIR_META_COLOUR) != colour) {
			bytes[i] = 0;
			run++;
			continue;
		}
		if (run >= WG_MIN_HOLE) {
			p.usable += run;
			p.hole = run > p.hole ? run : p.hole;
			for (unsigned k = i - run; k < i; k++)
				p.strips |= 1u << k * 16 / WG_BLOCK_GRANULES;
		}
		run = 0;
		if (i == WG_BLOCK_GRANULES)
			break;
		while (++p.live && !(bytes[i] & WEIR_META_END))
			i++;
	}
	return p;
}

Test(sweep, blocks_of_all_sorts)
{
	static uint8_t bytes[WG_BLOCK_GRANULES];
	struct plain p;
	unsigned got;

	open_quiet("heap-max=64m,barrier=none");
	for (unsigned n = 0; n < (unsigned)rounds(20000); n++) {
		const struct wg_block *b;
		uint8_t *meta;

		make_bytes(bytes, heap->colour);
		heap->sweep_seq--;
		make_block(1, false);
		heap->sweep_seq++;
		b = &heap->blocks[block];
		meta = &heap->meta[granule(0)];
		memcpy(meta, bytes, sizeof(bytes));
		cr_assert(wg_sweep_claim(heap, block));
		got = wg_sweep_block(heap, block);
		p = sweep_plainly(bytes, heap->colour);
		for (unsigned i = 0; i < WG_BLOCK_GRANULES; i++)
			if (meta[i] != bytes[i])
				cr_assert_eq(meta[i], bytes[i],
					     "round %u, granule %u", n, i);
		cr_assert_eq(b->live, p.live);
		if (!p.live) {
			cr_assert_eq(wg_block_state(b), WG_FREE);
			continue;
		}
		cr_assert_eq(got, p.usable < WG_RECYCLE_MIN ? 0 : p.usable);
		cr_assert_eq(b->hole, p.hole);
		cr_assert_eq(b->strips, p.strips);
		memset(meta, 0, sizeof(bytes));
		wg_blocks_free(heap, block, 1);
	}
	heap_close();
}

/* ---- Holes of protected pages -------------------------------------------- */

/* A hole in each page of a block whose pages are armed. */
static void make_armed_block(void)
{
	uint8_t *meta;
	size_t strip = WG_BLOCK_GRANULES / 16;

	heap->sweep_seq--;
	make_block(1, false);
	heap->sweep_seq++;
	meta = &heap->meta[granule(0)];
	memset(meta, 0, WG_BLOCK_GRANULES);
	for (size_t i = 0; i < 16; i++) {
		meta[i * strip] = (uint8_t)heap->colour;
		meta[i * strip + strip / 2] = WEIR_META_END;
	}
	cr_assert_eq(wr_barrier_arm(heap->barrier,
				    (void *)wg_block_start(heap, block),
				    WG_BLOCK),
		     0);
	heap->blocks[block].armed = 1;
}

Test(sweep, holes_are_forgotten_in_one_call)
{
	struct wr_barrier_stats before, after;
	char *p;

	space = 0;
	open_quiet("heap-max=64m");
	need_barrier(heap);
	make_armed_block();
	wr_barrier_stats(heap->barrier, &before);
	/* The mutator sweeps it and goes on in its holes. */
	do
		p = weir_alloc(self, 256);
	while (wg_block_of(heap, (uintptr_t)p) != block);
	for (int i = 0; i < 16 * 7 - 1; i++) {
		p = weir_alloc(self, 256);
		cr_assert_eq(wg_block_of(heap, (uintptr_t)p), block);
		memset(p, 1, 256);
	}
	wr_barrier_stats(heap->barrier, &after);
	cr_assert_eq(after.forgets - before.forgets, 1);
	heap_close();
}
