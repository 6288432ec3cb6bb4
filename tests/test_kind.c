/* SPDX-License-Identifier: MIT */
/* Kinds: what each finds, and what each must not find. */
#include <errno.h>
#include <stdlib.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

#define COUNT 2000

struct object {
	void *field[4];
};

static struct object *table[COUNT];

/* The target of field k of object i: a leaf with a known content. */
static __attribute__((noinline)) void fill(weir_kind kind)
{
	for (int i = 0; i < COUNT; i++) {
		table[i] = weir_alloc_kind(self, sizeof(struct object), kind);
		cr_assert_not_null(table[i], "%s", weir_error_text());
		for (int k = 0; k < 4; k++) {
			uint64_t *leaf = weir_alloc_leaf(self, 32);

			leaf[0] = (uint64_t)i * 4 + (uint64_t)k;
			table[i]->field[k] = leaf;
		}
	}
}

/* How many targets of field k still exist as objects. */
static int targets(int k)
{
	int n = 0;

	for (int i = 0; i < COUNT; i++) {
		uint64_t *leaf = table[i]->field[k];

		if (weir_object_base(heap, leaf) == leaf &&
		    leaf[0] == (uint64_t)i * 4 + (uint64_t)k)
			n++;
	}
	return n;
}

static void collect(void)
{
	scrub();
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
}

static void open(void)
{
	heap_open("verify=on,poison=on,heap-min=64m");
	cr_assert_eq(weir_root_add(heap, table, sizeof(table)), 0);
}

Test(kind, conservative_objects_keep_all_fields)
{
	open();
	fill(WEIR_KIND_CONSERVATIVE);
	collect();
	for (int k = 0; k < 4; k++)
		cr_assert_eq(targets(k), COUNT);
	heap_close();
}

Test(kind, leaves_keep_nothing)
{
	open();
	fill(WEIR_KIND_LEAF);
	collect();
	for (int k = 0; k < 4; k++)
		cr_assert_lt(targets(k), COUNT / 20);
	heap_close();
}

Test(kind, bitmaps_keep_what_they_name)
{
	const uint64_t bits = 0x5; /* fields 0 and 2 */
	weir_kind kind;

	open();
	cr_assert_eq(weir_kind_bitmap(heap, &bits, 4, &kind), 0);
	fill(kind);
	collect();
	cr_assert_eq(targets(0), COUNT);
	cr_assert_eq(targets(2), COUNT);
	cr_assert_lt(targets(1), COUNT / 20);
	cr_assert_lt(targets(3), COUNT / 20);
	heap_close();
}

Test(kind, a_bitmap_repeats_over_an_array)
{
	static uintptr_t **array;
	const uint64_t bits = 0x2;
	const size_t n = 30000;
	weir_kind kind;

	heap_open("verify=on,poison=on,heap-min=64m");
	cr_assert_eq(weir_root_add(heap, &array, sizeof(array)), 0);
	cr_assert_eq(weir_kind_bitmap(heap, &bits, 3, &kind), 0);
	/* Large: more than a slice, records across page borders. */
	array = weir_alloc_kind(self, n * 3 * sizeof(void *), kind);
	for (size_t i = 0; i < n; i++) {
		array[i * 3 + 1] = weir_alloc_leaf(self, 16);
		*array[i * 3 + 1] = i;
	}
	collect();
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(*array[i * 3 + 1], i);
	heap_close();
}

static int calls;

static void trace(void *object, size_t size, weir_visitor *v, void *arg)
{
	struct object *o = object;

	(void)arg;
	__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	if (size < sizeof(*o))
		abort();
	weir_visit(v, o->field[1]);
	weir_visit(v, NULL);
	weir_visit(v, &calls);
	weir_visit_range(v, &o->field[3], &o->field[4]);
}

static void traced(unsigned flags)
{
	weir_kind kind;

	open();
	cr_assert_eq(weir_kind_trace(heap, trace, NULL, flags, &kind), 0);
	fill(kind);
	collect();
	cr_assert_geq(calls, 2 * COUNT);
	cr_assert_eq(targets(1), COUNT);
	cr_assert_eq(targets(3), COUNT);
	cr_assert_lt(targets(0), COUNT / 20);
	cr_assert_lt(targets(2), COUNT / 20);
	heap_close();
}

Test(kind, callbacks_beside_the_program)
{
	traced(WEIR_TRACE_CONCURRENT);
}

Test(kind, callbacks_in_the_pause)
{
	traced(0);
}

/* More kinds than fit a granule byte. */
Test(kind, two_hundred_kinds)
{
	weir_kind kind[200];

	open();
	for (int i = 0; i < 200; i++) {
		uint64_t bits = (uint64_t)1 << (i % 4);

		cr_assert_eq(weir_kind_bitmap(heap, &bits, 4, &kind[i]), 0);
	}
	for (int i = 0; i < COUNT; i++) {
		uint64_t *leaf = weir_alloc_leaf(self, 32);

		table[i] = weir_alloc_kind(self, sizeof(struct object),
					   kind[i % 200]);
		cr_assert_geq(weir_object_size(heap, table[i]),
			      sizeof(struct object));
		leaf[0] = (uint64_t)i;
		table[i]->field[i % 4] = leaf;
	}
	collect();
	for (int i = 0; i < COUNT; i++) {
		uint64_t *leaf = table[i]->field[i % 4];

		cr_assert_eq(weir_object_base(heap, leaf), leaf);
		cr_assert_eq(leaf[0], (uint64_t)i);
	}
	heap_close();
}

Test(kind, a_bitmap_without_a_bit_is_a_leaf)
{
	const uint64_t none = 0;
	weir_kind kind;

	open();
	cr_assert_eq(weir_kind_bitmap(heap, &none, 4, &kind), 0);
	cr_assert_eq(kind, WEIR_KIND_LEAF);
	heap_close();
}
