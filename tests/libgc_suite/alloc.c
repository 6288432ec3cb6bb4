/* SPDX-License-Identifier: MIT */
/* Allocation, sizes, uncollectable objects, batches, limits. */
#include "check.h"

#include <stdint.h>

static int hidden_of_no_object;

static void zeroed_and_sized(void)
{
	for (size_t n = 1; n < 300000; n += 1 + n / 5) {
		char *p = GC_malloc(n);

		check(p, "%zu bytes", n);
		for (size_t i = 0; i < n; i++)
			check(p[i] == 0, "byte %zu of %zu", i, n);
		check(GC_size(p) >= n);
		check(GC_base(p) == p);
		check(GC_base(p + n - 1) == p, "%zu", n);
		check(GC_is_heap_ptr(p) && GC_is_heap_ptr(p + n / 2));
		memset(p, 0xee, n);
		check(GC_size(GC_malloc_atomic(n)) >= n);
	}
	check(!GC_base(&hidden_of_no_object));
	check(!GC_is_heap_ptr("text"));
	check(GC_malloc(0) && GC_malloc(0) != GC_malloc(0));
}

/* With interior pointers one just past the end keeps the object. */
static void end_pointers(void *(*allocate)(size_t))
{
	enum { N = 1000 };
	static char *end[N];

	check(GC_get_all_interior_pointers());
	for (int i = 0; i < N; i++) {
		char *p = allocate(64);

		memset(p, i, 64);
		end[i] = p + 64;
	}
	collect();
	for (int i = 0; i < N * 20; i++)
		memset(allocate(64), 0xdd, 64);
	for (int i = 0; i < N; i++)
		for (int k = 1; k <= 64; k++)
			check(end[i][-k] == (char)i, "%d", i);
}

/* malloc has attributes that a pointer to a function need not have. */
static void *leaf(size_t n)
{
	return GC_malloc_atomic(n);
}

static void *leaf_off_page(size_t n)
{
	return GC_malloc_atomic_ignore_off_page(n);
}

static void *off_page(size_t n)
{
	return GC_malloc_ignore_off_page(n);
}

static void *explicitly_typed(size_t n)
{
	GC_word none = 0;

	return GC_malloc_explicitly_typed(n, GC_make_descriptor(&none, 8));
}

static void end_pointers_keep(void)
{
	end_pointers(leaf);
	end_pointers(leaf_off_page);
	end_pointers(off_page);
	end_pointers(explicitly_typed);
}

/* What was freed comes again, cleared, and to one owner only. */
static void freed_and_again(void)
{
	enum { N = 30 };
	unsigned char *kept[N] = {0};

	for (int i = 0; i < 3000; i++) {
		size_t n = 30000 + (size_t)(i * 7919 % 60) * 1000;
		unsigned char *p = i % 3 ? GC_malloc(n) : GC_malloc_atomic(n);
		int k = i * 31 % N;

		check(GC_size(p) >= n);
		for (size_t at = 0; i % 3 && at < n; at += 97)
			check(!p[at], "%d, at %zu of %zu", i, at, n);
		check(!(i % 3) || !p[n - 1]);
		memset(p, k + 1, n);
		if (kept[k]) {
			for (size_t at = 0; at < 30000; at += 97)
				check(kept[k][at] == k + 1, "%d", i);
			GC_free(kept[k]);
		}
		kept[k] = p;
		if (i % 500 == 499)
			GC_gcollect();
	}
	check(GC_get_heap_size() < (size_t)256 << 20, "%zu",
	      GC_get_heap_size());
}

static void reallocated(void)
{
	char *p = GC_malloc(10);

	for (int i = 0; i < 10; i++)
		p[i] = (char)i;
	for (size_t n = 20; n < 200000; n *= 2) {
		p = GC_realloc(p, n);
		check(p && GC_size(p) >= n);
		for (int i = 0; i < 10; i++)
			check(p[i] == i);
		for (size_t i = n / 2 + 10; i < n; i++)
			check(p[i] == 0, "new memory is zero");
	}
	p = GC_realloc(p, 10);
	for (int i = 0; i < 10; i++)
		check(p[i] == i);
	check(GC_realloc(NULL, 100));
	check(!GC_realloc(p, 0));
	/* A leaf stays one: its words keep nothing. */
	{
		void **leaf = GC_malloc_atomic(64);
		int kind = GC_get_kind_and_size(leaf, NULL);

		leaf = GC_realloc(leaf, 4000);
		check(kind == GC_I_PTRFREE);
		check(GC_get_kind_and_size(leaf, NULL) == GC_I_PTRFREE);
	}
	/* What is uncollectable stays so. */
	{
		uintptr_t hidden;
		char *q = GC_malloc_uncollectable(100);

		memset(q, 7, 100);
		q = GC_realloc(q, 5000);
		hidden = ~(uintptr_t)q;
		q = NULL;
		collect();
		for (int i = 0; i < 10000; i++)
			memset(GC_malloc(5000), 1, 5000);
		q = (char *)~hidden;
		for (int i = 0; i < 100; i++)
			check(q[i] == 7);
		GC_free(q);
	}
}

static uintptr_t hidden[2000]; /* ~address */

static __attribute__((noinline)) void make_uncollectables(void)
{
	for (int i = 0; i < 2000; i++) {
		void **p = i % 2 ? GC_malloc_uncollectable(48)
				 : GC_malloc_atomic_uncollectable(48);

		memset(p, 0, 48);
		if (i % 2) {
			p[0] = GC_malloc_atomic(32);
			memset(p[0], i, 32);
		}
		p[1] = (void *)(uintptr_t)i;
		hidden[i] = ~(uintptr_t)p;
	}
}

static void uncollectables_stay(void)
{
	int gone = 0;

	make_uncollectables();
	collect();
	for (int i = 0; i < 100000; i++)
		memset(GC_malloc(48), 0xff, 48);
	for (int i = 0; i < 2000; i++) {
		void **p = (void **)~hidden[i];

		check(p[1] == (void *)(uintptr_t)i, "%d", i);
		for (int k = 0; i % 2 && k < 32; k++)
			check(((char *)p[0])[k] == (char)i, "%d", i);
	}
	for (int i = 0; i < 2000; i++)
		GC_free((void *)~hidden[i]);
	collect();
	for (int i = 0; i < 2000; i++)
		gone += GC_base((void *)~hidden[i]) == NULL;
	check(gone > 1500, "%d of 2000 were freed", gone);
}

static void batches(void)
{
	enum { LISTS = 3000 };
	static void *kept[LISTS];
	size_t n = 0;

	for (int i = 0; i < LISTS; i++) {
		void *list = NULL;

		if (i % 2)
			GC_generic_malloc_many(32, GC_I_NORMAL, &list);
		else
			list = GC_malloc_many(32);
		check(list);
		for (void *p = list; p; p = GC_NEXT(p)) {
			uint64_t *w = p;

			check(GC_size(p) >= 32 && GC_base(p) == p);
			check(w[1] == 0 && w[3] == 0, "all but the link is 0");
			w[1] = w[2] = w[3] = (uintptr_t)p;
			n++;
		}
		kept[i] = list;
	}
	check(n >= LISTS);
	for (int i = 0; i < LISTS; i++)
		for (uint64_t *w = kept[i]; w; w = GC_NEXT(w))
			check(w[1] == (uintptr_t)w && w[3] == (uintptr_t)w,
			      "an object of a list was handed out again");
}

static void strings(void)
{
	char *s = GC_strdup("abc");

	check(!strcmp(s, "abc") && GC_base(s) == s);
	check(!strcmp(GC_strndup("abcdef", 3), "abc"));
	check(!strcmp(GC_strndup("ab", 30), "ab"));
	check(GC_get_kind_and_size(s, NULL) == GC_I_PTRFREE);
}

static void aligned(void)
{
	void *p;

	for (size_t a = 8; a <= 2048; a *= 2) {
		check((uintptr_t)GC_memalign(a, 100) % a == 0);
		check(!GC_posix_memalign(&p, a, 1000));
		check((uintptr_t)p % a == 0);
		memset(p, 1, 1000);
	}
	check(GC_posix_memalign(&p, 24, 100) != 0);
}

static size_t asked;

static void *no_memory(size_t n)
{
	asked = n;
	return NULL;
}

static void quiet(char *format, GC_word arg)
{
	(void)format;
	(void)arg;
}

static void limits(void)
{
	static void *kept[1000];
	int i;

	GC_set_warn_proc(quiet);
	GC_set_oom_fn(no_memory);
	check(GC_get_oom_fn() == no_memory);
	GC_set_max_heap_size(64 << 20);
	for (i = 0; i < 1000; i++) {
		kept[i] = GC_malloc_atomic(1 << 20);
		if (!kept[i])
			break;
	}
	check(i > 20 && i < 100, "%d MiB of 64", i);
	check(asked >= 1 << 20);
	check(!GC_malloc((size_t)-1 / 4));
	memset(kept, 0, sizeof(kept));
	collect();
	check(GC_malloc_atomic(1 << 20));
}

static void counts(void)
{
	GC_word heap, free_bytes, unmapped, since, total, no = GC_get_gc_no();
	size_t before = GC_get_total_bytes();

	for (int i = 0; i < 200000; i++)
		GC_malloc_atomic(64);
	check(GC_get_total_bytes() - before > 8000000);
	collect();
	check(GC_get_gc_no() >= no + 3);
	GC_get_heap_usage_safe(&heap, &free_bytes, &unmapped, &since, &total);
	check(heap > 0 && free_bytes <= heap && total > 8000000);
	check(GC_get_bytes_since_gc() < 8000000);
	check(GC_get_version() >= 0x80000);
}

static void disabled(void)
{
	GC_word no;

	GC_disable();
	check(GC_is_disabled());
	GC_disable();
	GC_enable();
	no = GC_get_gc_no();
	for (int i = 0; i < 1000; i++)
		GC_malloc_atomic(100000);
	GC_gcollect();
	check(GC_get_gc_no() == no, "no collection while disabled");
	GC_enable();
	check(!GC_is_disabled());
	GC_gcollect();
	check(GC_get_gc_no() > no);
}

/* What a program makes room for can be allocated without a collection. */
static void expanded(void)
{
	GC_word no;

	GC_init();
	check(GC_expand_hp((size_t)200 << 20));
	no = GC_get_gc_no();
	for (int i = 0; i < 100 * 1024; i++)
		check(GC_malloc(1000));
	check(GC_get_gc_no() == no, "collections: %lu",
	      (unsigned long)(GC_get_gc_no() - no));
	for (int i = 0; i < 1000 * 1024; i++)
		check(GC_malloc(1000));
	check(GC_get_gc_no() > no);
}

const struct test alloc_tests[] = {
	{"alloc: memory is zeroed, has its size and base", zeroed_and_sized},
	{"alloc: a pointer past the end keeps the object", end_pointers_keep},
	{"alloc: freed and allocated again", freed_and_again},
	{"alloc: realloc keeps contents, kind, uncollectable", reallocated},
	{"alloc: uncollectables stay until freed", uncollectables_stay},
	{"alloc: batches", batches},
	{"alloc: strings", strings},
	{"alloc: alignment", aligned},
	{"alloc: limit and out-of-memory function", limits},
	{"alloc: counts", counts},
	{"alloc: disable and enable nest", disabled},
	{"alloc: no collection in the room that was asked for", expanded},
	{NULL, NULL},
};
