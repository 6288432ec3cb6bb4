/* SPDX-License-Identifier: MIT */
/* Objects with callbacks: how often they are called, and that they are when
 * the mark stacks are full. */
#include <stdlib.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

#define MANY 200000
#define BIG ((size_t)8 << 20)

struct object {
	uint64_t *field;
	uint64_t id;
};

static struct object **table;
static char *big;
static unsigned calls;

static void trace(void *object, size_t size, weir_visitor *v, void *arg)
{
	struct object *o = object;

	(void)arg;
	(void)size;
	__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	weir_visit(v, o->field);
}

/* Every word that is not zero; the object's pages are 4096 bytes. */
static void trace_pages(void *object, size_t size, weir_visitor *v, void *arg)
{
	char *p = object;

	(void)arg;
	__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	for (size_t at = 0; at + 4096 <= size; at += 4096)
		weir_visit(v, *(void **)(void *)(p + at));
}

static bool has_barrier(void)
{
	return strcmp(heap_stats().barrier, "none") != 0;
}

/* More objects wait for the pause than the stacks have room for. */
Test(trace, more_in_the_pause_than_segments, .timeout = 240)
{
	struct weir_stats s;
	weir_kind kind;

	heap_open("mark-stack-max=1m,heap-min=256m,verify=on,poison=on");
	cr_assert_eq(weir_root_add(heap, &table, sizeof(table)), 0);
	cr_assert_eq(weir_kind_trace(heap, trace, NULL, 0, &kind), 0);
	table = weir_alloc(self, MANY * sizeof(*table));
	for (uint64_t i = 0; i < MANY; i++) {
		struct object *o = weir_alloc_kind(self, sizeof(*o), kind);

		cr_assert_not_null(o);
		o->id = i;
		table[i] = o;
		o->field = weir_alloc_leaf(self, 16);
		*o->field = ~i;
	}
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(weir_collect(heap, round == 1 ? WEIR_COLLECT_MINOR
							   : WEIR_COLLECT_FULL),
			     0);
		for (uint64_t i = 0; i < MANY; i++) {
			cr_assert_eq(table[i]->id, i);
			cr_assert_eq(*table[i]->field, ~i);
		}
	}
	cr_assert_geq(calls, 2 * MANY);
	s = heap_stats();
	if (has_barrier())
		cr_assert_gt(s.overflows, 0);
	heap_close();
}

/* Write each `step`th page of the large object, then run a minor cycle: how
 * often its callback was called. */
static unsigned calls_after_writes(size_t step, uint64_t value)
{
	unsigned before;
	size_t n = 0;

	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	for (size_t at = 0; at < BIG; at += 4096 * step, n++) {
		uint64_t *leaf = weir_alloc_leaf(self, 16);

		*leaf = value + n;
		*(uint64_t **)(void *)(big + at) = leaf;
	}
	before = __atomic_load_n(&calls, __ATOMIC_RELAXED);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	n = 0;
	for (size_t at = 0; at < BIG; at += 4096 * step, n++)
		cr_assert_eq(**(uint64_t **)(void *)(big + at), value + n);
	return __atomic_load_n(&calls, __ATOMIC_RELAXED) - before;
}

static void large(unsigned flags)
{
	weir_kind kind;

	heap_open("heap-min=64m,verify=on,poison=on");
	cr_assert_eq(weir_root_add(heap, &big, sizeof(big)), 0);
	cr_assert_eq(weir_kind_trace(heap, trace_pages, NULL, flags, &kind), 0);
	big = weir_alloc_kind(self, BIG, kind);
	cr_assert_not_null(big);
	if (has_barrier()) {
		/* Once for each batch of dirty runs, of which one page in two
		 * makes a few; the verifier calls once more. */
		unsigned all = calls_after_writes(1, 1000);
		unsigned half = calls_after_writes(2, 1000000);

		cr_assert_lt(all, 16, "%u calls", all);
		cr_assert_lt(half, 64, "%u calls", half);
		cr_assert_geq(all, 1);
		cr_assert_geq(half, 1);
	} else {
		calls_after_writes(1, 1000);
		cr_assert_geq(calls, 1);
	}
	heap_close();
}

Test(trace, a_large_object_is_traced_once_not_by_block)
{
	large(WEIR_TRACE_CONCURRENT);
}

Test(trace, a_large_object_is_traced_once_not_by_block_in_the_pause)
{
	large(0);
}
