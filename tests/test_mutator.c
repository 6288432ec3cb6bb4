/* SPDX-License-Identifier: MIT */
/* Mutators: what a thread has while it is attached, and what it leaves. */
#include <pthread.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

static void *short_life(void *arg)
{
	void **left = arg;
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	*left = weir_alloc(m, 48);
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

/* 48 bytes of 64 KiB each would be 13 MiB. */
Test(mutator, a_block_with_room_is_handed_on)
{
	static void *left[200];
	uint64_t used;

	heap_open("heap-max=256m,heap-min=128m");
	used = heap->used;
	for (size_t i = 0; i < 200; i++)
		run_thread(short_life, &left[i]);
	cr_assert_leq(heap->used, used + 2 * WG_BLOCK);
	for (size_t i = 1; i < 200; i++)
		cr_assert_neq(left[i], left[i - 1]);
	heap_close();
}

Test(mutator, a_pause_takes_the_buffers_away)
{
	void *volatile p;

	heap_open("heap-max=256m,heap-min=128m");
	p = weir_alloc(self, 48);
	cr_assert_neq(self->bump[0].block, 0);
	weir_collect(heap, WEIR_COLLECT_FULL);
	cr_assert_eq(self->bump[0].block, 0);
	cr_assert_null(self->b.buffer[0].cursor);
	cr_assert_null(self->b.buffer[0].limit);
	/* And the next allocation has one again, not over what lives. */
	cr_assert_neq(weir_alloc(self, 48), p);
	cr_assert_neq(self->bump[0].block, 0);
	heap_close();
}

/* What is handed out is counted when buffers are filled, what is left of them
 * is not when they are given up. */
Test(mutator, allocated_bytes_are_exact_after_a_pause)
{
	uint64_t before;

	heap_open("heap-max=256m,heap-min=128m");
	weir_collect(heap, WEIR_COLLECT_FULL);
	before = heap->allocated;
	for (int i = 0; i < 1000; i++) {
		weir_alloc(self, 48);
		weir_alloc_leaf(self, 100);
	}
	weir_alloc(self, 200000);
	weir_collect(heap, WEIR_COLLECT_FULL);
	cr_assert_eq(heap->allocated - before,
		     1000 * (48 + 112) + 200000 / 16 * 16);
	heap_close();
}

Test(mutator, attaching_nests)
{
	weir_mutator *again;

	heap_open("heap-max=64m");
	cr_assert_eq(weir_thread_attach(heap, &again), 0);
	cr_assert_eq(again, self);
	cr_assert_eq(weir_thread_detach(self), 0);
	cr_assert_eq(weir_thread_self(heap), self);
	cr_assert_not_null(weir_alloc(self, 16));
	heap_close();
}

static void *gone_without_detach(void *arg)
{
	weir_mutator *m;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	cr_assert_not_null(weir_alloc(m, 48));
	return NULL;
}

Test(mutator, a_thread_that_ends_is_detached)
{
	heap_open("heap-max=64m");
	for (int i = 0; i < 20; i++)
		run_thread(gone_without_detach, NULL);
	/* Nobody is left to wait for, nor to be in the way. */
	weir_collect(heap, WEIR_COLLECT_FULL);
	heap_close();
}
