/* SPDX-License-Identifier: MIT */
/* The sweep of one block at a time, its claim, and what it counts. */
#include "gc/heap.h"
#include "tests/heap_util.h"

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
