/* SPDX-License-Identifier: MIT */
/* The invariants hold through a program's life, and each way to break one is
 * fatal in the next pause. */
#include <signal.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

static void *root[4];

static void open_with_objects(void)
{
	heap_open("verify=on,heap-min=64m");
	cr_assert_eq(weir_root_add(heap, root, sizeof(root)), 0);
	root[0] = weir_alloc(self, 64);
	root[1] = weir_alloc(self, 300000);
	root[2] = weir_alloc_leaf(self, 20000);
	root[3] = weir_alloc(self, 16);
}

static uint32_t block_of(const void *p)
{
	return wg_block_of(heap, (uintptr_t)p);
}

Test(invariants, hold_in_a_heap_of_all_sizes)
{
	open_with_objects();
	for (int i = 0; i < 30; i++) {
		for (size_t n = 1; n < 500000; n += 1 + n / 3) {
			root[i % 4] = weir_alloc(self, n);
			cr_assert_not_null(weir_alloc_leaf(self, n));
		}
		cr_assert_eq(weir_collect(heap, i % 3 ? WEIR_COLLECT_MINOR
						      : WEIR_COLLECT_FULL),
			     0);
	}
	heap_close();
}

Test(invariants, a_stray_granule_byte, .signal = SIGABRT)
{
	open_with_objects();
	heap->meta[wg_granule_of(heap, (uintptr_t)root[0]) + 1] = WEIR_META_END;
	weir_collect(heap, WEIR_COLLECT_FULL);
}

Test(invariants, an_object_without_an_end, .signal = SIGABRT)
{
	open_with_objects();
	heap->meta[wg_granule_of(heap, (uintptr_t)root[0]) + 3] = 0;
	weir_collect(heap, WEIR_COLLECT_FULL);
}

Test(invariants, a_used_block_in_the_free_map, .signal = SIGABRT)
{
	uint32_t i;

	open_with_objects();
	i = block_of(root[0]) - heap->space[0].first;
	heap->space[0].free_map[i / 64] |= 1ull << (i % 64);
	weir_collect(heap, WEIR_COLLECT_FULL);
}

Test(invariants, used_bytes_miscounted, .signal = SIGABRT)
{
	open_with_objects();
	heap->used += WG_BLOCK;
	weir_collect(heap, WEIR_COLLECT_FULL);
}

Test(invariants, stale_bytes_miscounted, .signal = SIGABRT)
{
	open_with_objects();
	heap->space[1].stale += WG_BLOCK;
	weir_collect(heap, WEIR_COLLECT_FULL);
}

Test(invariants, a_large_object_that_lost_a_tail, .signal = SIGABRT)
{
	open_with_objects();
	heap->blocks[block_of(root[1]) + 2].head++;
	weir_collect(heap, WEIR_COLLECT_FULL);
}

Test(invariants, a_free_block_with_an_object, .signal = SIGABRT)
{
	uint32_t i = 1;

	open_with_objects();
	/* One that was used, or it is not looked at. */
	root[1] = NULL;
	scrub();
	weir_collect(heap, WEIR_COLLECT_FULL);
	while (i < wg_high(&heap->space[0]) &&
	       wg_block_state(&heap->blocks[i]) != WG_FREE)
		i++;
	cr_assert_lt(i, wg_high(&heap->space[0]), "no block is free");
	heap->meta[(size_t)i * WG_BLOCK_GRANULES + 7] = WEIR_META_END;
	weir_collect(heap, WEIR_COLLECT_FULL);
}
