/* SPDX-License-Identifier: MIT */
/* One marker: what a push marks, what it stacks, what happens when there is no
 * room; on a heap whose collector is asleep. */
#include "tests/marked.h"

static struct wg_marker *m;

static void open_quiet(const char *options)
{
	heap_open(options);
	m = heap->marker[0];
	/* Nothing here is black yet: as if a full cycle had begun. */
	heap->colour = WG_BLACK_A;
}

static void push(const void *p)
{
	wg_push(m, (uintptr_t)p);
}

/* n objects, each refers to the one before. */
static void **list(size_t n)
{
	void **head = NULL;

	while (n--) {
		void **p = weir_alloc(self, 32);

		p[1] = head;
		head = p;
	}
	return head;
}

static size_t black_in_list(void **p)
{
	size_t n = 0;

	for (; p; p = p[1])
		n += black(p);
	return n;
}

Test(mark, what_is_pushed_and_what_it_leads_to_is_marked)
{
	void **l, *other;

	open_quiet("heap-max=256m,barrier=none,heap-min=128m");
	l = list(10000);
	other = weir_alloc(self, 32);
	push(l);
	wg_mark_own(m);
	cr_assert_eq(black_in_list(l), 10000);
	cr_assert_not(black(other));
	cr_assert_eq(m->objects, 10000);
	cr_assert_eq(m->bytes, 320000);
}

Test(mark, a_reference_to_the_inside_counts_and_one_past_the_end_does_not)
{
	char *small, *next, *large, *leaf;

	open_quiet("heap-max=256m,barrier=none,heap-min=128m");
	small = weir_alloc(self, 64);
	next = weir_alloc(self, 64);
	large = weir_alloc(self, 1000000);
	leaf = weir_alloc_leaf(self, 5000);
	cr_assert_eq(next, small + 64, "this test wants neighbours");
	push(small + 63);
	push(large + 999999);
	push(leaf + 4097);
	wg_mark_own(m);
	cr_assert(black(small));
	cr_assert(black(large));
	cr_assert(black(leaf));
	cr_assert_not(black(next));
	/* Rounded up to granules, a large object ends there. */
	large = weir_alloc(self, 1000000);
	push(large + 1000000);
	wg_mark_own(m);
	cr_assert_not(black(large));
}

Test(mark, push_marks_but_does_not_scan)
{
	void **l;

	open_quiet("heap-max=256m,barrier=none,heap-min=128m");
	l = list(100);
	for (int i = 0; i <= WG_RING; i++)
		push(l);
	cr_assert(black(l));
	cr_assert_eq(black_in_list(l), 1);
	wg_mark_own(m);
	cr_assert_eq(black_in_list(l), 100);
}

Test(mark, push_later_marks_nothing_yet)
{
	void **l;

	open_quiet("heap-max=256m,barrier=none,heap-min=128m");
	l = list(100);
	for (int i = 0; i < 100; i++)
		wg_push_later(m, (uintptr_t)l + 5);
	cr_assert_eq(black_in_list(l), 0);
	wg_mark_own(m);
	cr_assert_eq(black_in_list(l), 100);
}

Test(mark, free_memory_and_what_is_no_heap_is_nothing)
{
	char *p;

	open_quiet("heap-max=256m,barrier=none,heap-min=128m");
	p = weir_alloc(self, 64);
	push(p + (1 << 20));
	wg_push_word(m, 1);
	wg_push_word(m, (uintptr_t)&p);
	wg_push_word(m, heap->base - 1);
	wg_push_word(m, heap->base + heap->extent);
	wg_mark_own(m);
	cr_assert_eq(m->objects, 0);
}

/* A pool of 1 MiB has 128 segments: 130,000 entries. */
Test(mark, without_a_segment_the_block_is_noted)
{
	const size_t n = 400000;
	size_t marked = 0;
	void ***wide;

	open_quiet(
		"heap-max=256m,barrier=none,heap-min=192m,mark-stack-max=1m");
	wide = weir_alloc(self, n * sizeof(*wide));
	for (size_t i = 0; i < n; i++) {
		wide[i] = weir_alloc(self, 32);
		wide[i][0] = weir_alloc(self, 32);
	}
	for (size_t i = 0; i < n && wg_push_later(m, (uintptr_t)wide[0]); i++)
		;
	cr_assert_eq(m->overflows, 0, "it was refused, that is all");
	for (size_t i = 0; i < n; i++)
		push(wide[i]);
	cr_assert_gt(m->overflows, 0);
	cr_assert(heap->overflow);
	/* The team looks at the noted blocks until there are none. */
	wg_team_mark(heap, 1);
	cr_assert_not(heap->overflow);
	for (size_t i = 0; i < n; i++)
		marked += black(wide[i]) + black(wide[i][0]);
	cr_assert_eq(marked, 2 * n);
}

Test(mark, bytes_and_objects_are_counted_once)
{
	void **a, **b;

	open_quiet("heap-max=256m,barrier=none,heap-min=128m");
	a = weir_alloc(self, 48);
	b = weir_alloc_leaf(self, 160);
	a[0] = b;
	a[1] = a;
	a[2] = (char *)b + 40;
	for (int i = 0; i < 50; i++)
		push(a);
	wg_mark_own(m);
	cr_assert_eq(m->objects, 2);
	cr_assert_eq(m->bytes, 208);
}
