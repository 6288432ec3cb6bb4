/* SPDX-License-Identifier: MIT */
/* Blocks and runs: who gets which, what is counted, what a limit refuses. */
#include "gc/heap.h"
#include "tests/heap_util.h"

static enum wg_no why;

static uint32_t take(unsigned space)
{
	return wg_block_take(heap, space, false, &why);
}

/* What a block needs to be given back: no objects. */
static void give(uint32_t i, uint32_t count)
{
	memset(&heap->meta[(size_t)i * WG_BLOCK_GRANULES], 0,
	       (size_t)count * WG_BLOCK_GRANULES);
	wg_blocks_free(heap, i, count);
}

Test(block, the_lowest_free_block_is_taken)
{
	uint32_t a, b, c;

	heap_open("heap-max=64m,barrier=none");
	a = take(0);
	b = take(0);
	c = take(0);
	cr_assert_gt(a, 0, "block 0 means none");
	cr_assert_eq(b, a + 1);
	cr_assert_eq(c, b + 1);
	cr_assert_eq(wg_block_state(&heap->blocks[a]), WG_ACTIVE);
	cr_assert(heap->blocks[a].zeroed);
	give(b, 1);
	give(a, 1);
	cr_assert_eq(take(0), a);
	cr_assert_not(heap->blocks[a].zeroed, "it was used before");
	cr_assert_eq(take(0), b);
	cr_assert_eq(take(0), c + 1);
	heap_close();
}

Test(block, used_and_stale_bytes_are_counted)
{
	uint64_t before;
	uint32_t i, run;

	heap_open("heap-max=64m,barrier=none");
	before = heap->used;
	i = take(1);
	run = wg_run_take(heap, 1, 100001, 0, false, &why);
	cr_assert_eq(heap->used,
		     before + WG_BLOCK + wg_large_bytes(heap, 100001),
		     "whole pages of the system");
	give(i, 1);
	give(run, 2);
	cr_assert_eq(heap->used, before);
	cr_assert_eq(heap->space[1].stale, 3 * WG_BLOCK);
	/* What is taken again is no longer stale. */
	cr_assert_eq(take(1), i);
	cr_assert_eq(heap->space[1].stale, 2 * WG_BLOCK);
	heap_close();
}

Test(block, runs_lie_together)
{
	uint32_t gap, high, run;

	heap_open("heap-max=64m,barrier=none");
	gap = take(0);
	take(0);
	give(gap, 1);
	run = wg_run_take(heap, 0, 3 * WG_BLOCK, 0, false, &why);
	cr_assert_gt(run, gap + 1, "the gap of one block is too small");
	cr_assert_eq(wg_block_state(&heap->blocks[run]), WG_LARGE_NEW);
	cr_assert_eq(heap->blocks[run].blocks, 3);
	cr_assert_eq(heap->blocks[run].size, 3 * WG_BLOCK);
	for (uint32_t k = run + 1; k < run + 3; k++) {
		cr_assert_eq(wg_block_state(&heap->blocks[k]), WG_LARGE_TAIL);
		cr_assert_eq(heap->blocks[k].head, run);
	}
	/* And where an alignment says. */
	high = wg_run_take(heap, 0, WG_BLOCK, (size_t)1 << 20, false, &why);
	cr_assert_eq(wg_block_start(heap, high) % (1 << 20), 0);
	cr_assert_eq(take(0), gap, "the lowest is the gap still");
	heap_close();
}

Test(block, the_limit_refuses_and_says_so)
{
	uint32_t last = 0, i, n = 0;

	heap_open("heap-max=64m,barrier=none");
	while ((i = take(0))) {
		last = i;
		n++;
	}
	cr_assert_eq(why, WG_NO_LIMIT);
	cr_assert_leq(n, 64 * 16);
	cr_assert_geq(n, 64 * 16 - 4, "%u blocks of 64 MiB", n);
	/* The other space is under the same limit: block 0 is left. */
	while (take(1))
		n++;
	cr_assert_eq(why, WG_NO_LIMIT);
	cr_assert_eq(n, 64 * 16);
	cr_assert_eq(wg_run_take(heap, 1, WG_BLOCK + 1, 0, false, &why), 0);
	cr_assert_eq(why, WG_NO_LIMIT);
	/* A stale block counts as resident: taking another one instead needs
	 * it to be given back, unless the caller found that it cannot be. */
	give(last, 1);
	cr_assert_eq(take(1), 0);
	cr_assert_eq(why, WG_NO_STALE);
	cr_assert_gt(wg_block_take(heap, 1, true, &why), 0);
	heap_close();
}

Test(block, an_object_larger_than_the_range)
{
	heap_open("heap-max=64m,barrier=none");
	cr_assert_eq(wg_run_take(heap, 0, (size_t)1 << 40, 0, false, &why), 0);
	cr_assert_eq(why, WG_NO_LIMIT);
	heap_close();
}

/* A system that has so many addresses and no more. */
static size_t addresses;

static void *reserve_some(size_t size, size_t align)
{
	if (size > addresses)
		return NULL;
	addresses -= size;
	return wr_sys_linux()->reserve(size, align);
}

static void release_some(void *p, size_t size)
{
	addresses += size;
	wr_sys_linux()->release(p, size);
}

/* A heap whose size nobody named leaves as much as its span to all else,
 * unless it is the smallest; one that was named need only fit. */
Test(block, the_heap_leaves_addresses_to_others)
{
	struct wr_sys sys = *wr_sys_linux();
	const size_t max = (size_t)768 << 20;
	unsigned whole = 0, less = 0;

	sys.reserve = reserve_some;
	sys.release = release_some;
	for (size_t mib = 128; mib < 4096; mib++) {
		struct weir_heap h = {.sys = &sys};
		size_t left;

		addresses = mib << 20;
		if (wg_blocks_init(&h, max, false))
			continue;
		left = addresses;
		if (h.span > (size_t)64 << 20)
			cr_assert_geq(left, h.span, "%zu MiB", mib);
		*(h.span == max ? &whole : &less) += 1;
		wg_blocks_fini(&h);
		cr_assert_eq(addresses, mib << 20, "all is given back");
	}
	cr_assert_gt(whole, 1000);
	cr_assert_gt(less, 1000);
	for (size_t mib = 1600;; mib++) {
		struct weir_heap h = {.sys = &sys};

		addresses = mib << 20;
		if (wg_blocks_init(&h, max, true))
			continue;
		cr_assert_eq(h.span, max);
		cr_assert_lt(addresses, (size_t)1 << 20);
		wg_blocks_fini(&h);
		break;
	}
}
