/* SPDX-License-Identifier: MIT */
/* Disappearing links: cleared, kept, moved, taken away; short and long. */
#include "check.h"

#include <stdint.h>

#define N 1000

static void **leaf;         /* an object without references: N links */
static void *strong[N];     /* keeps some targets */
static uintptr_t hidden[N]; /* ~target */

static __attribute__((noinline)) void make(int keep_every)
{
	leaf = GC_malloc_atomic(N * sizeof(void *));
	for (int i = 0; i < N; i++) {
		void *p = GC_malloc(48);

		hidden[i] = ~(uintptr_t)p;
		leaf[i] = p;
		if (keep_every && i % keep_every == 0)
			strong[i] = p;
		check(GC_general_register_disappearing_link(&leaf[i], p) ==
		      GC_SUCCESS);
	}
}

static int cleared(void)
{
	int n = 0;

	for (int i = 0; i < N; i++)
		n += leaf[i] == NULL;
	return n;
}

static void cleared_when_dead(void)
{
	make(3);
	collect();
	for (int i = 0; i < N; i += 3)
		check(leaf[i] == strong[i], "%d was cleared alive", i);
	check(cleared() > N * 6 / 10, "%d", cleared());
	memset(strong, 0, sizeof(strong));
	collect();
	check(cleared() > N * 95 / 100, "%d", cleared());
}

static void taken_away(void)
{
	make(0);
	for (int i = 0; i < N; i++) {
		check(GC_unregister_disappearing_link(&leaf[i]) == 1);
		check(GC_unregister_disappearing_link(&leaf[i]) == 0);
	}
	collect();
	check(cleared() == 0);
}

static void moved(void)
{
	void **to;
	int n = 0;

	make(0);
	to = GC_malloc_atomic(N * sizeof(void *));
	for (int i = 0; i < N; i++) {
		to[i] = leaf[i];
		check(GC_move_disappearing_link(&leaf[i], &to[i]) ==
		      GC_SUCCESS);
		check(GC_move_disappearing_link(&leaf[i], &to[i]) ==
		      GC_NOT_FOUND);
	}
	check(GC_general_register_disappearing_link(&leaf[0], leaf) == 0);
	check(GC_move_disappearing_link(&leaf[0], &to[1]) == GC_DUPLICATE);
	collect();
	for (int i = 0; i < N; i++)
		n += to[i] == NULL;
	check(n > N * 95 / 100, "%d", n);
	check(cleared() == 0);
}

static void twice(void)
{
	void **link = GC_malloc_atomic(sizeof(void *));
	void *volatile target = GC_malloc(32);

	*link = target;
	check(GC_general_register_disappearing_link(link, target) ==
	      GC_SUCCESS);
	check(GC_general_register_disappearing_link(link, target) ==
	      GC_DUPLICATE);
	collect();
	check(*link == target);
	check(GC_unregister_disappearing_link(link) == 1);
}

static void *static_link[N];

static void outside_of_the_heap(void)
{
	int n = 0;

	make(2);
	for (int i = 0; i < N; i++) {
		/* Hidden: this is a root. */
		static_link[i] = (void *)hidden[i];
		check(GC_general_register_disappearing_link(
			      &static_link[i], (void *)~hidden[i]) == 0);
	}
	collect();
	for (int i = 0; i < N; i++)
		if (i % 2 == 0)
			check(static_link[i] == (void *)hidden[i]);
		else
			n += static_link[i] == NULL;
	check(n > N * 4 / 10, "%d", n);
}

/* The object with the link dies first: nobody writes to what comes there. */
static __attribute__((noinline)) void make_dying(void)
{
	for (int i = 0; i < N; i++) {
		void **link = GC_malloc_atomic(64);

		strong[i] = GC_malloc(48);
		link[3] = strong[i];
		GC_general_register_disappearing_link(&link[3], strong[i]);
	}
}

static void link_dies_first(void)
{
	static uint64_t *fresh[N * 20];

	make_dying();
	collect();
	for (int i = 0; i < N * 20; i++) {
		fresh[i] = GC_malloc_atomic(64);
		memset(fresh[i], 0x77, 64);
	}
	memset(strong, 0, sizeof(strong));
	collect();
	for (int i = 0; i < N * 20; i++)
		for (int k = 0; k < 8; k++)
			check(fresh[i][k] == 0x7777777777777777u, "%d", i);
}

static void *brought_back;

static void save(void *object, void *data)
{
	(void)data;
	brought_back = object;
}

static __attribute__((noinline)) void make_long(void **link)
{
	void *p = GC_malloc(32);

	link[0] = link[1] = p;
	check(GC_general_register_disappearing_link(&link[0], p) == 0);
	check(GC_register_long_link(&link[1], p) == 0);
	GC_register_finalizer_no_order(p, save, NULL, NULL, NULL);
}

static void long_links(void)
{
	enum { M = 50 };
	int saved = 0, short_kept = 0, long_kept = 0;

	/* Of many, since one may be kept by chance. */
	for (int i = 0; i < M; i++) {
		void **link = GC_malloc_atomic(2 * sizeof(void *));

		make_long(link);
		brought_back = NULL;
		collect();
		if (!brought_back)
			continue;
		saved++;
		short_kept += link[0] != NULL;
		long_kept += link[1] == brought_back;
		brought_back = NULL;
		collect();
	}
	check(saved > M / 10, "%d", saved);
	check(short_kept == 0, "short links are cleared before finalizers");
	check(long_kept == saved, "long ones not: %d of %d", long_kept, saved);
}

static void of_its_object(void)
{
	int n = 0;

	make(0);
	collect();
	n = cleared();
	check(n > N * 9 / 10);
	{
		void **object = GC_malloc_atomic(64);

		object[0] = object;
		check(GC_register_disappearing_link(&object[0]) == 0);
		check(GC_unregister_disappearing_link(&object[0]) == 1);
	}
}

const struct test link_tests[] = {
	{"links: cleared when the target dies", cleared_when_dead},
	{"links: taken away", taken_away},
	{"links: moved", moved},
	{"links: registered twice", twice},
	{"links: outside of the heap", outside_of_the_heap},
	{"links: the object with the link dies first", link_dies_first},
	{"links: short before finalizers, long after", long_links},
	{"links: to the object they are in", of_its_object},
	{NULL, NULL},
};
