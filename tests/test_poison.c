/* SPDX-License-Identifier: MIT */
/* With poison=on dead objects are full of 0xdb once they were swept. */
#include <unistd.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

#define OBJECTS 64
#define POISON 0xdb

/* Where the objects are, turned around so that these words keep nothing. */
static uintptr_t hidden[OBJECTS];
static void *kept[OBJECTS];

/* Two neighbours a time; only every other object is to stay. */
static __attribute__((noinline)) void make(size_t size)
{
	for (int i = 0; i < OBJECTS; i++) {
		char *p = weir_alloc_leaf(self, size);

		cr_assert_not_null(p, "%s", weir_error_text());
		memset(p, 0x11, size);
		hidden[i] = ~(uintptr_t)p;
		kept[i] = i % 2 ? p : NULL;
	}
}

/* How many dead ones are all poison. */
static int poisoned(size_t size)
{
	int n = 0;

	for (int i = 0; i < OBJECTS; i++) {
		const unsigned char *p = (const void *)~hidden[i];
		size_t k = 0;

		while (k < size && p[k] == (kept[i] ? 0x11 : POISON))
			k++;
		if (kept[i])
			cr_assert_eq(k, size, "live object %d, byte %zu", i, k);
		else
			n += k == size;
	}
	return n;
}

static int collect_and_count(const char *options, size_t size)
{
	heap_open(options);
	cr_assert_eq(weir_root_add(heap, kept, sizeof(kept)), 0);
	make(size);
	scrub();
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	/* Sweeping goes on when that returns; but before another cycle free
	 * memory is not given back.  Acquire: what was swept is seen. */
	while (__atomic_load_n(&heap->phase, __ATOMIC_ACQUIRE) != WG_IDLE)
		usleep(1000);
	return poisoned(size);
}

Test(poison, small_objects)
{
	/* The stack may keep one or two. */
	cr_assert_geq(collect_and_count("poison=on,heap-min=64m", 256),
		      OBJECTS / 2 - 4);
	heap_close();
}

Test(poison, large_objects)
{
	cr_assert_geq(collect_and_count("poison=on,heap-min=64m", 200000),
		      OBJECTS / 2 - 4);
	heap_close();
}

Test(poison, off_leaves_the_bytes)
{
	cr_assert_eq(collect_and_count("poison=off", 256), 0);
	heap_close();
}
