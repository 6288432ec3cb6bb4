/* SPDX-License-Identifier: MIT */
/* Which words of which objects are references; and of a range of pages, which
 * parts of which objects are scanned. */
#include "tests/marked.h"

#define PAGE 4096

static struct wg_marker *m;

static void open_quiet(void)
{
	heap_open("heap-max=256m,barrier=none,heap-min=128m");
	m = heap->marker[0];
	heap->colour = WG_BLACK_A;
	m->in_pause = true;
}

static size_t granule(const void *p)
{
	return wg_granule_of(heap, (uintptr_t)p);
}

static void blacken(void *p)
{
	uint8_t *byte = &heap->meta[granule(p)];

	*byte = (uint8_t)((*byte & ~WEIR_META_COLOUR) | heap->colour);
	wg_note_black(heap, granule(p));
}

static void scan(void *p)
{
	wg_scan_object(m, granule(p), heap->meta[granule(p)]);
	wg_mark_own(m);
}

Test(scan, bitmaps_say_which_words)
{
	const uint64_t map = 5; /* words 0 and 2 of 3 */
	void **p, *kid[6];
	weir_kind kind;

	open_quiet();
	cr_assert_eq(weir_kind_bitmap(heap, &map, 3, &kind), 0);
	p = weir_alloc_kind(self, 6 * sizeof(void *), kind);
	for (int i = 0; i < 6; i++)
		p[i] = kid[i] = weir_alloc(self, 16);
	scan(p);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(black(kid[i]), i % 3 != 1, "word %d", i);
	heap_close();
}

Test(scan, leaves_have_none)
{
	void **p, *kid;

	open_quiet();
	p = weir_alloc_leaf(self, 64);
	p[0] = kid = weir_alloc(self, 16);
	scan(p);
	cr_assert_not(black(kid));
}

static void visit_second(void *object, size_t size, weir_visitor *v, void *arg)
{
	cr_assert_eq(size % 16, 0);
	cr_assert_eq(arg, &m);
	weir_visit(v, ((void **)object)[1]);
}

Test(scan, callbacks_say)
{
	void **p, *kid[2];
	weir_kind kind;

	open_quiet();
	cr_assert_eq(weir_kind_trace(heap, visit_second, &m, 0, &kind), 0);
	p = weir_alloc_kind(self, 64, kind);
	p[0] = kid[0] = weir_alloc(self, 16);
	p[1] = kid[1] = weir_alloc(self, 16);
	scan(p);
	cr_assert_not(black(kid[0]));
	cr_assert(black(kid[1]));
	heap_close();
}

/* Objects of 3000 bytes lie across pages. */
Test(scan, of_a_page_the_parts_of_black_objects_on_it)
{
	enum { N = 40, WORDS = 3008 / 8 };
	void **p[N], *kid[N][2];
	uintptr_t start, end;

	open_quiet();
	for (int i = 0; i < N; i++)
		p[i] = weir_alloc(self, 3008);
	for (int i = 0; i < N; i++) {
		p[i][0] = kid[i][0] = weir_alloc(self, 16);
		p[i][WORDS - 1] = kid[i][1] = weir_alloc(self, 16);
		if (i % 3)
			blacken(p[i]);
	}
	start = ((uintptr_t)p[3] + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
	end = start + 2 * PAGE;
	wg_scan_marked(m, start, end);
	wg_mark_own(m);
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 2; k++) {
			uintptr_t at = (uintptr_t)&p[i][k ? WORDS - 1 : 0];

			cr_assert_eq(black(kid[i][k]),
				     i % 3 && at >= start && at < end,
				     "object %d, word %d", i, k);
		}
}

Test(scan, of_a_large_object_the_pages)
{
	const size_t words = 1000000 / 8;
	void **p, *kid[3];

	open_quiet();
	p = weir_alloc(self, words * 8);
	p[10] = kid[0] = weir_alloc(self, 16);
	p[words / 2] = kid[1] = weir_alloc(self, 16);
	p[words - 1] = kid[2] = weir_alloc(self, 16);
	/* Not black: nothing to do. */
	wg_scan_marked(m, (uintptr_t)p, (uintptr_t)(p + words));
	wg_mark_own(m);
	cr_assert_not(black(kid[1]));
	blacken(p);
	wg_scan_marked(m, (uintptr_t)(p + words / 2) & ~(uintptr_t)(PAGE - 1),
		       ((uintptr_t)(p + words / 2) & ~(uintptr_t)(PAGE - 1)) +
			       PAGE);
	wg_mark_own(m);
	cr_assert_not(black(kid[0]));
	cr_assert(black(kid[1]));
	cr_assert_not(black(kid[2]));
}
