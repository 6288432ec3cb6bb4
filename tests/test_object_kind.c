/* SPDX-License-Identifier: MIT */
/* weir_object_kind(): right for every object, also beside cycles and sweeps. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/must.h"

#define MIB ((size_t)1 << 20)

static int over;

static const size_t sizes[] = {0,    1,    8,     9,     16,      40,
			       1000, 8000, 40000, 65536, 3 * MIB, 5 * MIB + 24};

#define SIZES (sizeof(sizes) / sizeof(*sizes))

static void has_kind(weir_kind kind)
{
	for (size_t i = 0; i < SIZES; i++) {
		char *p = weir_alloc_kind(self, sizes[i], kind);
		weir_kind k = 12345;
		size_t size;

		cr_assert_not_null(p, "%s", weir_error_text());
		/* The program's own bytes do not matter. */
		memset(p, 0xff, sizes[i]);
		size = weir_object_size(heap, p);
		cr_assert_geq(size, sizes[i]);
		cr_assert_eq(weir_object_kind(heap, p, &k), 0, "%s",
			     weir_error_text());
		cr_assert_eq(k, kind, "%u, not %u, of %zu bytes", k, kind,
			     sizes[i]);
		memset(p, 0, sizes[i]);
		/* Not within it, whatever is there. */
		for (size_t at = 1; at < size; at += 1 + size / 7) {
			k = 12345;
			cr_assert_eq(weir_object_kind(heap, p + at, &k),
				     -ENOENT);
			cr_assert_eq(k, 12345);
		}
	}
}

static void trace_nothing(void *p, size_t size, weir_visitor *v, void *arg)
{
	(void)p;
	(void)size;
	(void)v;
	(void)arg;
}

Test(object_kind, of_the_builtin_kinds)
{
	heap_open(NULL);
	has_kind(WEIR_KIND_CONSERVATIVE);
	has_kind(WEIR_KIND_LEAF);
	heap_close();
}

Test(object_kind, of_inline_allocation)
{
	weir_kind k;
	void *p;

	heap_open(NULL);
	for (int i = 0; i < 3; i++) {
		p = weir_alloc_inline(self, 48, WEIR_KIND_LEAF);
		cr_assert_eq(weir_object_kind(heap, p, &k), 0);
		cr_assert_eq(k, WEIR_KIND_LEAF);
		p = weir_alloc_inline(self, 48, WEIR_KIND_CONSERVATIVE);
		cr_assert_eq(weir_object_kind(heap, p, &k), 0);
		cr_assert_eq(k, WEIR_KIND_CONSERVATIVE);
	}
	heap_close();
}

Test(object_kind, of_bitmap_and_trace_kinds, .timeout = 180)
{
	const uint64_t bits = 1;
	weir_kind bitmap, trace, concurrent, always;

	heap_open(NULL);
	cr_assert_eq(weir_kind_bitmap(heap, &bits, 64, &bitmap), 0);
	cr_assert_eq(weir_kind_trace(heap, trace_nothing, NULL, 0, &trace), 0);
	cr_assert_eq(weir_kind_trace(heap, trace_nothing, NULL,
				     WEIR_TRACE_CONCURRENT, &concurrent),
		     0);
	cr_assert_eq(weir_kind_trace(heap, trace_nothing, NULL,
				     WEIR_TRACE_ALWAYS, &always),
		     0);
	cr_assert_geq(always, WG_INLINE_KINDS);
	has_kind(bitmap);
	has_kind(trace);
	has_kind(concurrent);
	has_kind(always);
	heap_close();
}

/* Kinds from 31 on are in the object's last word. */
Test(object_kind, of_many_kinds, .timeout = 180)
{
	weir_kind k[60], high = 0;

	heap_open("heap-max=512m");
	for (size_t i = 0; i < 60; i++) {
		cr_assert_eq(
			weir_kind_trace(heap, trace_nothing, NULL, 0, &k[i]),
			0);
		high = k[i] > high ? k[i] : high;
		if (i % 7 == 0 || k[i] + 2 > WG_INLINE_KINDS)
			has_kind(k[i]);
	}
	cr_assert_gt(high, WG_INLINE_KINDS + 20);
	heap_close();
}

Test(object_kind, after_cycles)
{
	static void *root_of[3];
	const uint64_t bits = 1;
	weir_kind kind[3], k;

	heap_open(NULL);
	cr_assert_eq(weir_root_add(heap, root_of, sizeof(root_of)), 0);
	cr_assert_eq(weir_kind_bitmap(heap, &bits, 64, &kind[0]), 0);
	for (int i = 0; i < 40; i++)
		cr_assert_eq(weir_kind_bitmap(heap, &bits, 64, &kind[1]), 0);
	kind[2] = WEIR_KIND_LEAF;
	for (int i = 0; i < 3; i++)
		root_of[i] = weir_alloc_kind(self, i ? 100 : 4 * MIB, kind[i]);
	for (int c = 0; c < 4; c++) {
		cr_assert_eq(weir_collect(heap, c % 2), 0);
		for (int i = 0; i < 3; i++) {
			cr_assert_eq(weir_object_kind(heap, root_of[i], &k), 0);
			cr_assert_eq(k, kind[i]);
		}
	}
	heap_close();
}

/* Aligned ones start where they start. */
Test(object_kind, of_aligned_objects)
{
	weir_kind kind, k;

	heap_open(NULL);
	for (int i = 0; i < 40; i++)
		cr_assert_eq(
			weir_kind_trace(heap, trace_nothing, NULL, 0, &kind),
			0);
	for (size_t align = 16; align <= 2 * MIB; align *= 2) {
		char *p = weir_alloc_aligned(self, 100, align, kind);

		cr_assert_not_null(p);
		cr_assert_eq(weir_object_kind(heap, p, &k), 0);
		cr_assert_eq(k, kind);
		cr_assert_eq(weir_object_kind(heap, p - 16, &k) ? kind : k,
			     kind);
	}
	heap_close();
}

Test(object_kind, of_what_is_no_object)
{
	static char memory[64];
	weir_kind k = 12345;
	char *p;

	heap_open(NULL);
	p = weir_alloc(self, 100);
	cr_assert_eq(weir_object_kind(heap, NULL, &k), -ENOENT);
	cr_assert_eq(weir_object_kind(heap, memory, &k), -ENOENT);
	cr_assert_eq(weir_object_kind(heap, &k, &k), -ENOENT);
	cr_assert_eq(weir_object_kind(heap, (void *)UINTPTR_MAX, &k), -ENOENT);
	/* Free memory of the heap, and its end. */
	cr_assert_eq(weir_object_kind(heap, p + 4096, &k), -ENOENT);
	cr_assert_eq(
		weir_object_kind(heap, (void *)(heap->base + heap->span), &k),
		-ENOENT);
	cr_assert(strstr(weir_error_text(), "weir_object_kind"), "%s",
		  weir_error_text());
	cr_assert_eq(k, 12345);
	heap_close();
}

/* An object whose end a sweep has cleared already has no kind, rather than
 * that of kinds whose number would be found there. */
Test(object_kind, of_what_is_being_swept)
{
	weir_kind kind = 0, k = 12345;
	uint8_t byte;
	size_t g;
	char *p;

	heap_open(NULL);
	while (kind < WG_INLINE_KINDS)
		cr_assert_eq(
			weir_kind_trace(heap, trace_nothing, NULL, 0, &kind),
			0);
	cr_assert_eq(weir_collect_disable(heap), 0);
	p = weir_alloc_kind(self, 100, kind);
	g = wg_granule_of(heap, (uintptr_t)p) + 6;
	byte = heap->meta[g];
	cr_assert_eq(byte, WEIR_META_END);
	heap->meta[g] = 0;
	cr_assert_eq(weir_object_kind(heap, p, &k), -ENOENT);
	cr_assert_eq(k, 12345);
	heap->meta[g] = byte;
	cr_assert_eq(weir_object_kind(heap, p, &k), 0);
	cr_assert_eq(k, kind);
	cr_assert_eq(weir_collect_enable(heap), 0);
	heap_close();
}

static void *asks_kinds(void *arg)
{
	uintptr_t end = heap->base + 8 * MIB;

	/* Anything at all, beside allocation and sweeps; unattached. */
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
		for (uintptr_t p = heap->base; p < end; p += 48) {
			weir_kind k = 0;
			int err = weir_object_kind(heap, (void *)p, &k);

			must(err == -ENOENT || (!err && k <= WG_FIRST_KIND));
		}
	return arg;
}

Test(object_kind, any_address_beside_cycles, .timeout = 180)
{
	weir_kind kind;
	pthread_t t;

	heap_open("heap-max=64m,heap-min=1m");
	cr_assert_eq(weir_kind_trace(heap, trace_nothing, NULL, 0, &kind), 0);
	cr_assert_eq(kind, WG_FIRST_KIND);
	cr_assert_eq(pthread_create(&t, NULL, asks_kinds, NULL), 0);
	for (int i = 0; i < 100000; i++)
		cr_assert_not_null(
			weir_alloc_kind(self, 16 + i % 300, i % 2 ? kind : 0));
	for (int i = 0; i < 20; i++)
		cr_assert_eq(weir_collect(heap, i % 2), 0);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	heap_close();
}

#if !WEIR_CHECKING
Test(object_kind, bad_arguments)
{
	weir_kind k;
	void *p;

	heap_open(NULL);
	p = weir_alloc(self, 16);
	cr_assert_eq(weir_object_kind(NULL, p, &k), -EINVAL);
	cr_assert_eq(weir_object_kind(heap, p, NULL), -EINVAL);
	heap_close();
}
#endif
