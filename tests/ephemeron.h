/* SPDX-License-Identifier: MIT */
/* What the tests of ephemerons share: nodes that can be checked. */
#ifndef WEIR_TESTS_EPHEMERON_H
#define WEIR_TESTS_EPHEMERON_H

#include "tests/hidden.h"

#include "gc/weak_tables.h"

#define OPTIONS "heap-max=256m,verify=on,poison=on"
#define MAGIC 0xe9e4e205ul

struct node {
	uintptr_t check;       /* address ^ MAGIC */
	void *a, *b;           /* references */
	weir_ephemeron *e, *f; /* likewise */
};

/* Roots of the tests. */
static struct node *slot[8];

static inline weir_heap *start(const char *options)
{
	weir_heap *h = hidden_heap(options);

	memset(slot, 0, sizeof(slot));
	cr_assert_eq(weir_root_add(h, slot, sizeof(slot)), 0);
	return h;
}

static inline struct node *node(weir_mutator *m)
{
	struct node *n = weir_alloc(m, sizeof(*n));

	must(n);
	n->check = (uintptr_t)n ^ MAGIC;
	return n;
}

static inline bool intact(const struct node *n)
{
	return n->check == ((uintptr_t)n ^ MAGIC);
}

static inline weir_ephemeron *ephemeron(weir_mutator *m, void *key, void *value)
{
	weir_ephemeron *e = weir_ephemeron_create(m, key, value);

	must(e);
	return e;
}

/* 2: key and value there and intact; 0: neither; else -1. */
static inline long state(const weir_ephemeron *e)
{
	struct node *k = weir_ephemeron_key(e), *v = weir_ephemeron_value(e);

	if (!k && !v)
		return 0;
	return k && v && intact(k) && intact(v) ? 2 : -1;
}

#endif
