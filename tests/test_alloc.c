/* SPDX-License-Identifier: MIT */
/* Allocation: sizes, alignment, zeroing, reuse, limits, absurd requests. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

static bool all_zero(const void *p, size_t n)
{
	const char *c = p;

	while (n--)
		if (*c++)
			return false;
	return true;
}

Test(alloc, every_size_is_zeroed_aligned_and_found_again)
{
	heap_open("heap-min=4m,poison=on,verify=on");
	for (size_t size = 0; size < 200000; size += 1 + size / 7) {
		for (int kind = 0; kind < 2; kind++) {
			char *p = weir_alloc_kind(self, size, (weir_kind)kind);

			cr_assert_not_null(p);
			cr_assert_eq((uintptr_t)p % 16, 0);
			cr_assert(all_zero(p, size), "size %zu", size);
			cr_assert_geq(weir_object_size(heap, p), size);
			cr_assert_eq(weir_object_base(heap, p), p);
			if (size)
				cr_assert_eq(
					weir_object_base(heap, p + size - 1),
					p);
			memset(p, 0xff, size);
		}
	}
	heap_close();
}

/* What a thread sees that asks about a dead object while a sweeper clears it:
 * a start, and no end in the rest of the block. */
Test(alloc, a_half_swept_object_has_no_size)
{
	uint8_t saved[WG_BLOCK_GRANULES], *meta;
	size_t g, end;
	char *p;

	heap_open("heap-min=8m,heap-max=64m");
	p = weir_alloc(self, 64);
	for (size_t in_use = 0; in_use < 3 * WG_BLOCK; in_use += 4096)
		cr_assert_not_null(weir_alloc(self, 4000));
	cr_assert_eq(weir_object_size(heap, p), 64);
	cr_assert_eq(weir_object_base(heap, p + 63), p);
	g = wg_granule_of(heap, (uintptr_t)p);
	end = (g | (WG_BLOCK_GRANULES - 1)) + 1;
	meta = heap->meta + g + 1;
	memcpy(saved, meta, end - g - 1);
	memset(meta, 0, end - g - 1);
	cr_assert_eq(weir_object_size(heap, p), 0);
	memcpy(meta, saved, end - g - 1);
	cr_assert_eq(weir_object_size(heap, p), 64);
	heap_close();
}

Test(alloc, reused_memory_is_zeroed)
{
	heap_open("heap-min=4m,heap-max=64m,poison=on");
	for (int i = 0; i < 100000; i++) {
		size_t size = (size_t)i * 7919 % 3000;
		char *p = weir_alloc(self, size);

		cr_assert_not_null(p, "%s", weir_error_text());
		cr_assert(all_zero(p, size), "round %d", i);
		memset(p, 0xee, size);
	}
	cr_assert_gt(heap_stats().cycles_full + heap_stats().cycles_minor, 2);
	heap_close();
}

Test(alloc, alignments)
{
	heap_open("heap-min=4m");
	for (size_t align = 1; align <= (size_t)4 << 20; align *= 2) {
		for (size_t size = 1; size < 100000; size = size * 5 + 3) {
			char *p = weir_alloc_aligned(self, size, align, 0);

			cr_assert_not_null(p, "%s", weir_error_text());
			cr_assert_eq((uintptr_t)p % align, 0);
			cr_assert(all_zero(p, size));
			cr_assert_eq(weir_object_base(heap, p + size - 1), p);
			memset(p, 0xff, size);
		}
	}
	heap_close();
}

Test(alloc, absurd_requests_fail_cleanly)
{
	static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2,
				       (size_t)1 << 46};

	heap_open("heap-max=64m");
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		errno = 0;
		cr_assert_null(weir_alloc(self, sizes[i]));
		cr_assert_eq(errno, ENOMEM);
		cr_assert(strstr(weir_error_text(), "heap-max"));
		errno = 0;
		cr_assert_null(weir_alloc_leaf(self, sizes[i]));
		cr_assert_eq(errno, ENOMEM);
	}
	/* And the heap still works. */
	cr_assert_not_null(weir_alloc(self, 1000));
	heap_close();
}

static int asked;

/* Not for ever: what a stale word of the stack keeps does not go away. */
static int release_at_second_call(weir_heap *h, size_t bytes, void *arg)
{
	void ***list = arg;

	(void)h;
	cr_assert_geq(bytes, 1);
	if (++asked < 2)
		return 0;
	/* Link by link: an old word on the stack may keep one, but no more. */
	for (void **p = *list, **next; p; p = next) {
		next = p[0];
		p[0] = NULL;
	}
	*list = NULL;
	return asked < 10;
}

/* Make the list longer until there is no memory; by how much.  Not inlined:
 * its frame, with the list in it, is scrubbed. */
static __attribute__((noinline)) int fill(void ***list)
{
	for (int i = 0; i < 100000; i++) {
		void **p = weir_alloc(self, 4096);

		if (!p)
			return i;
		p[0] = *list;
		*list = p;
	}
	return 100000;
}

Test(alloc, exhaustion_asks_the_program_then_returns_null)
{
	static void **list;
	struct weir_heap_options o = {
		.size = sizeof(o),
		.options = "heap-max=64m,heap-min=4m",
		.oom = release_at_second_call,
		.oom_arg = &list,
	};
	int i;

	cr_assert_eq(weir_heap_create(&o, &heap), 0, "%s", weir_error_text());
	cr_assert_eq(weir_thread_attach(heap, &self), 0);
	cr_assert_eq(weir_root_add(heap, &list, sizeof(list)), 0);
	i = fill(&list);
	cr_assert_lt(i, 64 * 1024 / 4 + 1);
	cr_assert_gt(i, 64 * 1024 / 4 * 3 / 4, "only %d pages fit", i);
	cr_assert_eq(errno, ENOMEM);
	cr_assert(strstr(weir_error_text(), "heap-max"));
	cr_assert_eq(asked, 1);
	scrub();
	/* The second time the callback drops the list. */
	for (i = 0; i < 1000; i++)
		cr_assert_not_null(weir_alloc(self, 4096), "%s",
				   weir_error_text());
	cr_assert_geq(asked, 2);
	heap_close();
}

Test(alloc, large_objects_come_back_to_the_system)
{
	struct weir_stats s;

	heap_open("heap-min=1m,heap-max=1g");
	for (int i = 0; i < 40; i++) {
		char *p = weir_alloc_leaf(self, (size_t)20 << 20);

		cr_assert_not_null(p, "%s", weir_error_text());
		cr_assert(p[0] == 0 && p[(20 << 20) - 1] == 0);
		memset(p, 1, (size_t)20 << 20);
	}
	scrub();
	for (int i = 0; i < 3; i++)
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	s = heap_stats();
	cr_assert_lt(s.heap_used, (size_t)60 << 20, "%lu MiB still in use",
		     s.heap_used >> 20);
	heap_close();
}

/* ---- Lists ----------------------------------------------------------------
 */

/* `count` objects, each with the size and kind that were asked for, zero but
 * for the link. */
static size_t list_length(void *list, void *rest, size_t size, weir_kind kind)
{
	size_t n = 0;

	for (void **p = list; p != rest; p = *p, n++) {
		weir_kind is;

		cr_assert_eq(weir_object_base(heap, p), p);
		cr_assert_eq(weir_object_size(heap, p), (size + 15) / 16 * 16);
		cr_assert_eq(weir_object_kind(heap, p, &is), 0);
		cr_assert_eq(is, kind);
		for (size_t i = 1; i < size / sizeof(*p); i++)
			cr_assert_null(p[i]);
	}
	return n;
}

Test(alloc, lists)
{
	static const size_t sizes[] = {8, 16, 24, 100, 1024};
	static const weir_kind kinds[] = {WEIR_KIND_CONSERVATIVE,
					  WEIR_KIND_LEAF};

	heap_open("heap-max=256m");
	/* The links of leaves keep nothing. */
	cr_assert_eq(weir_collect_disable(heap), 0);
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < 5; i++) {
			size_t n = 0, all = 0;

			for (int round = 0; round < 400; round++) {
				void *list = NULL, *rest;

				rest = weir_alloc_kind(self, sizes[i],
						       kinds[k]);
				n = weir_alloc_list_inline(self, sizes[i],
							   kinds[k], 50, rest,
							   &list);
				cr_assert_leq(n, 50);
				cr_assert_eq(!n, !list);
				if (n)
					cr_assert_eq(list_length(list, rest,
								 sizes[i],
								 kinds[k]),
						     n);
				all += n;
			}
			cr_assert_gt(all, 4000);
		}
	heap_close();
}

Test(alloc, lists_of_what_is_not_inline)
{
	void *list = &list;

	heap_open("heap-max=64m");
	weir_alloc(self, 16);
	cr_assert_eq(weir_alloc_list_inline(self, WEIR_SMALL_MAX + 1, 0, 9,
					    NULL, &list),
		     0);
	cr_assert_eq(weir_alloc_list_inline(self, 16, 31, 9, NULL, &list), 0);
	cr_assert_eq(weir_alloc_list_inline(self, 16, 0, 0, NULL, &list), 0);
	cr_assert_eq(list, &list);
	heap_close();
}

static void **lists; /* a root */

static void *collect_often(void *stop)
{
	/* Relaxed: nothing else is published by it. */
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED))
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	return NULL;
}

/* Nothing but *list holds a list from the first moment on. */
Test(alloc, lists_are_kept_beside_cycles)
{
	bool stop = false;
	pthread_t t;

	heap_open("heap-max=256m,poison=on,verify=on,delay=20");
	cr_assert_eq(weir_root_add(heap, &lists, sizeof(lists)), 0);
	lists = weir_alloc(self, 64 * sizeof(*lists));
	cr_assert_eq(pthread_create(&t, NULL, collect_often, &stop), 0);
	for (int round = 0; round < 4000; round++) {
		void **slot = &lists[round % 64];

		if (*slot)
			cr_assert_gt(list_length(*slot, NULL, 32, 0), 0);
		*slot = NULL;
		if (!weir_alloc_list_inline(self, 32, 0, 20, NULL, slot)) {
			void *first = weir_alloc(self, 32);

			*slot = first;
		}
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	heap_close();
}
