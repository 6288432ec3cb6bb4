/* SPDX-License-Identifier: MIT */
/*
 * What the tests of links share.
 *
 * Words hold addresses complemented, so that no scan takes them for
 * references, wherever they are.
 */
#ifndef WEIR_TESTS_LINK_H
#define WEIR_TESTS_LINK_H

#include "tests/finalize.h"
#include "tests/need.h"
#include "tests/quiet.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <weir/embed.h>

#define WORDS 8

/* Slots outside of the heap. */
static void *word[WORDS];

static inline void *hide(const void *p)
{
	return (void *)~(uintptr_t)p;
}

/* Atomic: a pause may clear it between any two instructions. */
static inline uintptr_t value(void **at)
{
	return (uintptr_t)__atomic_load_n(at, __ATOMIC_RELAXED);
}

static inline void put(void **at, void *p)
{
	__atomic_store_n(at, p, __ATOMIC_RELAXED);
}

/* What no address looks like, complemented or not. */
static inline void *pattern(size_t i)
{
	return (void *)(0x5a5a5a5a00000001ul + 2 * i);
}

static inline uint32_t links(const weir_heap *h)
{
	return h->weak->links.table.count;
}

struct made {
	int root;       /* where the target is rooted, -1: nowhere */
	void **at;      /* the slot */
	unsigned flags; /* of the link */
};

static inline long make(weir_heap *h, weir_mutator *m, void *arg)
{
	struct made *d = arg;
	struct node *n = node(m, 1);

	if (d->root >= 0)
		slot[d->root] = n;
	put(d->at, hide(n));
	return weir_link_add(h, d->at, n, d->flags);
}

/* A link to a new object. */
static inline int linked(weir_heap *h, void **at, int root, unsigned flags)
{
	struct made d = {root, at, flags};

	return (int)hidden(h, make, &d);
}

static inline long aim(weir_heap *h, weir_mutator *m, void *arg)
{
	struct made *d = arg;

	(void)m;
	put(d->at, hide(slot[d->root]));
	return weir_link_add(h, d->at, slot[d->root], d->flags);
}

/* A link to the object that is rooted there. */
static inline int linked_to(weir_heap *h, void **at, int root, unsigned flags)
{
	struct made d = {root, at, flags};

	return (int)hidden(h, aim, &d);
}

static inline long make_root(weir_heap *h, weir_mutator *m, void *root)
{
	(void)h;
	slot[(long)root] = node(m, 1);
	return 0;
}

#define HOLDER_WORDS 8

static inline long make_leaf(weir_heap *h, weir_mutator *m, void *root)
{
	(void)h;
	slot[(long)root] = weir_alloc_leaf(m, HOLDER_WORDS * sizeof(void *));
	return 0;
}

static inline long make_holder(weir_heap *h, weir_mutator *m, void *root)
{
	(void)h;
	slot[(long)root] = weir_alloc(m, HOLDER_WORDS * sizeof(void *));
	return 0;
}

/* A word of the object that is rooted there. */
static inline void **in(int root)
{
	return (void **)(void *)slot[root] + 5;
}

static inline weir_heap *open_heap(const char *options)
{
	memset(word, 0, sizeof(word));
	return start(options);
}

static inline void gone(weir_heap *h, void **at, unsigned flags)
{
	cr_assert_eq(weir_link_remove(h, at, flags), -ENOENT);
	cr_assert(strstr(weir_error_text(), "weir_link_remove: "));
}

#endif
