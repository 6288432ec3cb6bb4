/* SPDX-License-Identifier: MIT */
/* What the tests of finalizers share: nodes that finalizers check and note. */
#ifndef WEIR_TESTS_FINALIZE_H
#define WEIR_TESTS_FINALIZE_H

#include "tests/hidden.h"

#include <stdatomic.h>

#include "gc/weak_tables.h"

#define OPTIONS "heap-max=256m,verify=on,poison=on"
#define MAGIC 0xf1a715e5ul

struct node {
	uintptr_t check;    /* MAGIC + id */
	long id;            /* which one */
	struct node *a, *b; /* references */
};

/* Roots of the tests, and what finalizers noted. */
static struct node *slot[8];
static long ran[64];
static atomic_long runs;

static inline weir_heap *start(const char *options)
{
	weir_heap *h = hidden_heap(options);

	memset(slot, 0, sizeof(slot));
	runs = 0;
	cr_assert_eq(weir_root_add(h, slot, sizeof(slot)), 0);
	return h;
}

static struct node *node(weir_mutator *m, long id)
{
	struct node *n = weir_alloc(m, sizeof(*n));

	must(n);
	n->check = MAGIC + (uintptr_t)id;
	n->id = id;
	return n;
}

static inline void note(void *object, void *arg)
{
	struct node *n = object;
	long k = atomic_fetch_add(&runs, 1);

	(void)arg;
	must(n->check == MAGIC + (uintptr_t)n->id);
	/* What it reaches is there as well. */
	must(!n->a || n->a->check == MAGIC + (uintptr_t)n->a->id);
	if (k < 64)
		ran[k] = n->id;
}

static inline long run_all(weir_heap *h, weir_mutator *m, void *max)
{
	(void)h;
	return weir_finalizers_run(m, (size_t)max);
}

static inline long run(weir_heap *h)
{
	return hidden(h, run_all, NULL);
}

static inline long make_one(weir_heap *h, weir_mutator *m, void *id)
{
	struct node *n = node(m, (long)id);

	n->a = node(m, (long)id + 1000);
	return weir_finalizer_set(h, n, note, NULL, WEIR_FINALIZE_UNORDERED);
}

#endif
