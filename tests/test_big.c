/* SPDX-License-Identifier: MIT */
/* Heaps of more than 64 GiB of addresses: numbers of granules and of bytes
 * that need more than 32 bits.  Only addresses are large, not memory. */
#include <errno.h>
#include <stdlib.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

#define COUNT 20000

struct node {
	uint64_t *leaf;
	struct node *next;
};

static struct node *root;

/* False: the system has no such range of addresses for us. */
static bool open_big(const char *options)
{
	struct weir_heap_options o = {.size = sizeof(o), .options = options};
	int err = weir_heap_create(&o, &heap);

	if (err == -ENOMEM && strstr(weir_error_text(), "RLIMIT_AS"))
		return false;
	cr_assert_eq(err, 0, "%s", weir_error_text());
	cr_assert_eq(weir_thread_attach(heap, &self), 0);
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	return true;
}

/* Objects of all sizes in both spaces survive, and can be told from each
 * other. */
static void use(void)
{
	for (uint64_t i = 0; i < COUNT; i++) {
		struct node *n = weir_alloc(self, sizeof(*n));

		cr_assert_not_null(n, "%s", weir_error_text());
		n->next = root;
		root = n;
		n->leaf = weir_alloc_leaf(self, 16 + i * 37 % 3000 +
							(i % 500 ? 0 : 200000));
		cr_assert_not_null(n->leaf, "%s", weir_error_text());
		cr_assert_eq(weir_object_base(heap, n->leaf), n->leaf);
		*n->leaf = i;
	}
	for (int round = 0; round < 4; round++) {
		const struct node *n = root;

		cr_assert_eq(weir_collect(heap, round % 2 ? WEIR_COLLECT_MINOR
							  : WEIR_COLLECT_FULL),
			     0);
		for (uint64_t i = COUNT; i-- > 0; n = n->next)
			cr_assert_eq(*n->leaf, i);
		cr_assert_null(n);
	}
}

Test(big, the_leaf_space_above_64_gib)
{
	if (!open_big("heap-max=70g,heap-min=4m,verify=on,poison=on"))
		cr_skip("no 140 GiB of addresses: %s", weir_error_text());
	cr_assert_gt(heap->leaf_base - heap->base, (size_t)64 << 30);
	use();
	heap_close();
}

/* The reference space itself above 64 GiB: its lower part is taken out of the
 * free map, as if it were in use. */
Test(big, both_spaces_above_64_gib)
{
	const uint32_t skip = (uint32_t)(((size_t)66 << 30) >> WG_BLOCK_SHIFT);

	if (!open_big("heap-max=70g,heap-min=4m,verify=on,poison=on,thp=off"))
		cr_skip("no 140 GiB of addresses: %s", weir_error_text());
	for (int i = 0; i < 2; i++) {
		struct wg_space *s = &heap->space[i];

		cr_assert_eq(s->committed, s->first);
		/* Nor is there anything to give back. */
		for (uint32_t k = s->first + !i; k < s->first + skip; k++)
			heap->blocks[k].zeroed = 1;
		/* A word on a stack may happen to point there: what is taken
		 * for committed has granule bytes. */
		cr_assert_eq(heap->sys->commit(
				     heap->meta + (size_t)s->first *
							  WG_BLOCK_GRANULES,
				     (size_t)skip * WG_BLOCK_GRANULES, false),
			     0);
		s->committed = s->high = s->hint = s->first + skip;
	}
	use();
	cr_assert_gt((uintptr_t)root - heap->base, (size_t)64 << 30);
	cr_assert_gt((uintptr_t)root->leaf - heap->base, (size_t)134 << 30);
	heap_close();
}
