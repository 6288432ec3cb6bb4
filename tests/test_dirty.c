/* SPDX-License-Identifier: MIT */
/* Passes over dirty pages: what they find, arm and scan; with the barrier that
 * is chosen here, on a heap whose collector is asleep. */
#include <unistd.h>

#include "gc/dirty.h"
#include "tests/marked.h"

#define OBJECTS 400 /* of a page each */
#define SIZE ((size_t)getpagesize())

static char *object[OBJECTS];
static void *kid[OBJECTS];
static uint32_t first, end;

static bool is_tracking(void)
{
	return wr_barrier_kind(heap->barrier) != WR_BARRIER_NONE;
}

/* Black objects that fill their pages, on pages that are armed and clean. */
static void open_armed(void)
{
	heap_open("heap-max=256m,heap-min=128m");
	if (!is_tracking())
		cr_skip("no barrier here tracks pages");
	heap->colour = WG_BLACK_A;
	for (int i = 0; i < OBJECTS; i++) {
		object[i] = weir_alloc_aligned(self, SIZE, SIZE, 0);
		cr_assert_not_null(object[i]);
	}
	for (int i = 0; i < OBJECTS; i++)
		kid[i] = weir_alloc_leaf(self, 16);
	for (int i = 0; i < OBJECTS; i++)
		wg_push(heap->marker[0], (uintptr_t)object[i]);
	wg_team_mark(heap, 1);
	first = heap->space[0].first + 1;
	end = wg_high(&heap->space[0]);
	wg_dirty_arm(heap);
	cr_assert_eq(wg_dirty_count(heap, first, end), 0);
}

static void write_to(int i)
{
	*(void **)(void *)(object[i] + 128) = kid[i];
}

Test(dirty, a_pass_finds_what_was_written_and_arms_it_again)
{
	open_armed();
	for (int i = 0; i < OBJECTS; i += 7)
		write_to(i);
	cr_assert_eq(wg_dirty_count(heap, first, end), (OBJECTS + 6) / 7);
	cr_assert_eq(wg_dirty_count(heap, first, end), (OBJECTS + 6) / 7,
		     "counting changes nothing");
	cr_assert_eq(wg_dirty_pass(heap, 1, WR_FETCH_REARM, false),
		     (OBJECTS + 6) / 7);
	for (int i = 0; i < OBJECTS; i++)
		cr_assert_eq(black(kid[i]), i % 7 == 0, "object %d", i);
	cr_assert_eq(wg_dirty_count(heap, first, end), 0);
	write_to(3);
	cr_assert_eq(wg_dirty_pass(heap, 1, WR_FETCH_REARM, false), 1);
	cr_assert(black(kid[3]));
	heap_close();
}

Test(dirty, a_part_of_the_heap)
{
	uint32_t block;

	open_armed();
	write_to(0);
	write_to(OBJECTS - 1);
	block = wg_block_of(heap, (uintptr_t)object[0]);
	cr_assert_eq(wg_dirty_some(heap, block, block + 1), 1);
	cr_assert(black(kid[0]));
	cr_assert_not(black(kid[OBJECTS - 1]));
	cr_assert_eq(wg_dirty_count(heap, first, end), 1);
	heap_close();
}

/* With nobody else here to be stopped. */
Test(dirty, slices_scan_at_once)
{
	uint32_t at = 0, step = 1;
	uint64_t pages = 0;
	int slices = 0;

	open_armed();
	for (int i = 0; i < OBJECTS; i++)
		write_to(i);
	heap->marker[0]->in_pause = true;
	for (at = first; at < end; slices++)
		pages += wg_dirty_slice(heap, &at, end, &step, 1, NULL);
	cr_assert_eq(pages, OBJECTS);
	cr_assert_gt(slices, 1, "no slice is all of it");
	for (int i = 0; i < OBJECTS; i++)
		cr_assert(black(kid[i]), "object %d", i);
	cr_assert_eq(wg_dirty_count(heap, first, end), 0);
}

static struct wg_runs later;

/* Every other object written, and one slice that notes the pages. */
static void note_half(void)
{
	uint32_t at, step = 1024;

	open_armed();
	for (int i = 0; i < OBJECTS; i += 2)
		write_to(i);
	heap->marker[0]->in_pause = true;
	at = first;
	cr_assert_eq(wg_dirty_slice(heap, &at, end, &step, 1000000000, &later),
		     OBJECTS / 2);
	heap->marker[0]->in_pause = false;
	cr_assert_eq(at, end);
}

Test(dirty, or_later)
{
	note_half();
	cr_assert_eq(wg_dirty_count(heap, first, end), 0, "armed already");
	cr_assert_gt(later.count, 0);
	for (int i = 0; i < OBJECTS; i++)
		cr_assert_not(black(kid[i]));
	/* What is written before the scan is scanned, and dirty again. */
	write_to(1);
	*(void **)(void *)(object[0] + 256) = kid[5];
	wg_dirty_scan(heap, &later);
	cr_assert_eq(later.count, 0);
	for (int i = 0; i < OBJECTS; i += 2)
		cr_assert(black(kid[i]), "object %d", i);
	cr_assert(black(kid[5]));
	cr_assert_not(black(kid[1]));
	cr_assert_eq(wg_dirty_count(heap, first, end), 2);
}

/* No room to note pages: they are scanned in the stop. */
Test(dirty, later_has_bounds)
{
	later.count = WG_LATER_RUNS;
	note_half();
	for (int i = 0; i < OBJECTS; i += 2)
		cr_assert(black(kid[i]), "object %d", i);
}

Test(dirty, free_blocks_lose_their_protection)
{
	enum wg_no why;
	uint32_t block;

	open_armed();
	block = wg_block_of(heap, (uintptr_t)object[OBJECTS / 2]);
	cr_assert(heap->blocks[block].armed);
	/* As a sweep leaves it. */
	memset(&heap->meta[(size_t)block * WG_BLOCK_GRANULES], 0,
	       WG_BLOCK_GRANULES);
	wg_blocks_free(heap, block, 1);
	wg_dirty_forget(heap, &heap->space[0], false);
	cr_assert_not(heap->blocks[block].armed);
	/* Its pages count as written, once it is in use again. */
	cr_assert_eq(wg_block_take(heap, 0, false, &why), block);
	wg_note_black(heap, (size_t)block * WG_BLOCK_GRANULES);
	cr_assert_eq(wg_dirty_count(heap, first, end), WG_BLOCK / SIZE);
}
