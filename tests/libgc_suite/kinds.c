/* SPDX-License-Identifier: MIT */
/* Kinds, mark procedures, descriptors, typed objects. */
#include "check.h"

#include <stdint.h>
#include <sys/mman.h>

/* ---- A procedure whose pointers are not in the heap --------------------- */

/*
 * A holder's references are in mapped memory that the collector knows nothing
 * of; its mark procedure reports them.  They change without any write to the
 * holder.  So a collector must ask every live holder in each collection.
 */
#define HOLDERS 960
#define REFS 256

struct holder {
	void **outside; /* REFS references */
};

static struct holder *holder[HOLDERS];
static unsigned holder_kind;

static struct GC_ms_entry *mark_holder(GC_word *at, struct GC_ms_entry *top,
				       struct GC_ms_entry *limit, GC_word env)
{
	struct holder *h = (struct holder *)at;

	check(env == 5, "the environment is passed");
	if (!h->outside)
		return top;
	for (int i = 0; i < REFS; i++)
		top = GC_MARK_AND_PUSH(h->outside[i], top, limit, NULL);
	return top;
}

static __attribute__((noinline)) void fill(int round)
{
	for (int i = 0; i < HOLDERS; i++)
		for (int k = 0; k < REFS; k++)
			if (round == 0 || (i + k) % 4 == round % 4) {
				uint64_t *p = GC_malloc_atomic(32);

				p[0] = p[3] = (uint64_t)i * REFS + (uint64_t)k;
				holder[i]->outside[k] = p;
			}
}

static void references_outside_of_the_heap(void)
{
	size_t bytes = (size_t)HOLDERS * REFS * sizeof(void *);
	int lost = 0;
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(memory != MAP_FAILED);
	holder_kind =
		GC_new_kind(GC_new_free_list(),
			    GC_MAKE_PROC(GC_new_proc(mark_holder), 5), 0, 1);
	for (int i = 0; i < HOLDERS; i++) {
		holder[i] = GC_generic_malloc(sizeof(struct holder),
					      (int)holder_kind);
		holder[i]->outside =
			(void **)(memory + (size_t)i * REFS * sizeof(void *));
	}
	for (int round = 0; round < 30; round++) {
		fill(round);
		for (int i = 0; i < 20000; i++)
			memset(GC_malloc_atomic(32), 0xdb, 32);
	}
	collect();
	for (int i = 0; i < HOLDERS; i++)
		for (int k = 0; k < REFS; k++) {
			uint64_t *p = holder[i]->outside[k];

			lost += p[0] != (uint64_t)i * REFS + (uint64_t)k ||
				p[3] != p[0];
		}
	check(lost == 0, "%d of %d objects were lost", lost, HOLDERS * REFS);
}

/* ---- Descriptors -------------------------------------------------------- */

static uintptr_t hidden[3][500]; /* ~address of what word 0, 1, 2 had */

static __attribute__((noinline)) void make(void **object, int i)
{
	for (int w = 0; w < 3; w++) {
		object[w] = GC_malloc_atomic(64);
		memset(object[w], 0x11 * (w + 1), 64);
		hidden[w][i] = ~(uintptr_t)object[w];
	}
}

/* What is dead is soon taken, and overwritten, by others. */
static int alive(int w)
{
	int n = 0;

	for (int i = 0; i < 50000; i++)
		memset(GC_malloc_atomic(64), 0xdd, 64);
	for (int i = 0; i < 500; i++)
		n += GC_base((void *)~hidden[w][i]) &&
		     *(char *)~hidden[w][i] == 0x11 * (w + 1);
	return n;
}

extern void **kept_object[500];
void **kept_object[500]; /* not static: else nobody would store to it */

/* Words whose bits are set keep, and the others not. */
static void keeps(void *(*new_object)(void), unsigned words)
{
	for (int i = 0; i < 500; i++) {
		kept_object[i] = new_object();
		make(kept_object[i], i);
	}
	collect();
	for (int w = 0; w < 3; w++) {
		int n = alive(w);

		if (words >> w & 1)
			check(n == 500, "word %d kept %d of 500", w, n);
		else
			check(n < 100, "word %d kept %d of 500", w, n);
	}
}

static GC_descr descriptor;

static void *new_typed(void)
{
	return GC_malloc_explicitly_typed(3 * sizeof(void *), descriptor);
}

static void typed(void)
{
	GC_word bitmap = 5;

	descriptor = GC_make_descriptor(&bitmap, 3);
	keeps(new_typed, 5);
}

static void typed_leaf(void)
{
	GC_word bitmap = 0;

	descriptor = GC_make_descriptor(&bitmap, 3);
	keeps(new_typed, 0);
}

static int kind;

static void *new_of_kind(void)
{
	return GC_generic_malloc(3 * sizeof(void *), kind);
}

static void bitmap_kind(void)
{
	/* The highest bit is the first word's. */
	kind = (int)GC_new_kind(GC_new_free_list(),
				(GC_word)3 << 62 | GC_DS_BITMAP, 0, 1);
	keeps(new_of_kind, 3);
}

static void length_kind(void)
{
	kind = (int)GC_new_kind(GC_new_free_list(),
				2 * sizeof(void *) | GC_DS_LENGTH, 0, 1);
	keeps(new_of_kind, 3);
}

static void whole_kind(void)
{
	kind = (int)GC_new_kind(GC_new_free_list(), GC_DS_LENGTH, 1, 1);
	keeps(new_of_kind, 7);
}

static void leaf_kind(void)
{
	kind = (int)GC_new_kind(GC_new_free_list(), GC_DS_LENGTH, 0, 1);
	keeps(new_of_kind, 0);
}

static void arrays_of_typed(void)
{
	enum { N = 200 };
	GC_word bitmap = 2;
	void ***array = GC_malloc(50 * sizeof(void *));
	GC_descr d = GC_make_descriptor(&bitmap, 2);

	for (int i = 0; i < 50; i++) {
		array[i] = GC_calloc_explicitly_typed(N, 2 * sizeof(void *), d);
		for (int k = 0; k < N; k++) {
			array[i][2 * k + 1] = GC_malloc_atomic(32);
			memset(array[i][2 * k + 1], i, 32);
		}
	}
	collect();
	for (int i = 0; i < 100000; i++)
		memset(GC_malloc_atomic(32), 0xdd, 32);
	for (int i = 0; i < 50; i++)
		for (int k = 0; k < N; k++)
			for (int b = 0; b < 32; b++)
				check(((char *)array[i][2 * k + 1])[b] == i);
}

const struct test kind_tests[] = {
	{"kinds: a procedure may report what is outside of the heap",
	 references_outside_of_the_heap},
	{"kinds: bitmap descriptors", bitmap_kind},
	{"kinds: length descriptors", length_kind},
	{"kinds: whole objects", whole_kind},
	{"kinds: leaves", leaf_kind},
	{"typed: words by bitmap", typed},
	{"typed: no word at all", typed_leaf},
	{"typed: arrays", arrays_of_typed},
	{NULL, NULL},
};
