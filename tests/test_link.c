/* SPDX-License-Identifier: MIT */
/* Links (gc/link.c): what clears them, and what they refuse. */
#include "tests/link.h"

/* ---- Targets ------------------------------------------------------------ */

typedef void collect_fn(weir_heap *h);

static void outside(const char *options, collect_fn *collect)
{
	weir_heap *h = open_heap(options);
	uintptr_t kept;

	for (unsigned flags = 0; flags < 2; flags++) {
		cr_assert_eq(linked(h, &word[0], -1, flags), 0);
		cr_assert_eq(linked(h, &word[1], 1, flags), 0);
		kept = value(&word[1]);
		collect(h);
		cr_assert_eq(value(&word[0]), 0, "flags %u", flags);
		cr_assert_eq(value(&word[1]), kept, "flags %u", flags);
		gone(h, &word[0], flags);
		collect(h);
		cr_assert_eq(value(&word[1]), kept, "flags %u", flags);
		/* By now it is old. */
		slot[1] = NULL;
		full(h);
		cr_assert_eq(value(&word[1]), 0, "flags %u", flags);
		gone(h, &word[1], flags);
		cr_assert_eq(links(h), 0);
	}
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(link, cleared_when_the_target_dies)
{
	outside(OPTIONS, full);
}

Test(link, cleared_in_minor_cycles)
{
	outside(OPTIONS, minor);
}

Test(link, cleared_in_one_stop)
{
	outside(OPTIONS, stopped);
}

Test(link, cleared_without_a_barrier)
{
	outside(OPTIONS ",barrier=none", minor);
}

static long make_interior(weir_heap *h, weir_mutator *m, void *arg)
{
	char *p = weir_alloc_leaf(m, 300000);

	(void)arg;
	slot[0] = (struct node *)(void *)p;
	put(&word[0], hide(p));
	return weir_link_add(h, &word[0], p + 200001, WEIR_LINK_SHORT);
}

Test(link, targets_may_be_interior_pointers)
{
	weir_heap *h = open_heap(OPTIONS);

	cr_assert_eq(hidden(h, make_interior, NULL), 0);
	full(h);
	cr_assert_neq(value(&word[0]), 0);
	slot[0] = NULL;
	full(h);
	cr_assert_eq(value(&word[0]), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Slots in the heap -------------------------------------------------- */

/* The slot is in an object at root 0, the target is or was at root 1. */
static void in_heap(hidden_fn *make_slot, bool old_slot, bool old_target)
{
	weir_heap *h = open_heap(OPTIONS);
	uintptr_t was;

	need_barrier(h); /* else there are no minor cycles */
	if (old_slot)
		hidden(h, make_slot, (void *)0);
	if (old_target)
		hidden(h, make_root, (void *)1);
	full(h);
	if (!old_slot)
		hidden(h, make_slot, (void *)0);
	if (!old_target)
		hidden(h, make_root, (void *)1);
	cr_assert_eq(linked_to(h, in(0), 1, WEIR_LINK_SHORT), 0);
	was = value(in(0));
	for (int i = 0; i < 3; i++) {
		minor(h);
		cr_assert_eq(value(in(0)), was, "minor cycle %d", i);
	}
	full(h);
	cr_assert_eq(value(in(0)), was);
	cr_assert_eq(links(h), 1);
	slot[1] = NULL;
	/* A minor cycle does not find it. */
	minor(h);
	cr_assert_eq(value(in(0)), was);
	full(h);
	cr_assert_eq(value(in(0)), 0);
	gone(h, in(0), WEIR_LINK_SHORT);

	/* A target that dies young. */
	cr_assert_eq(linked(h, in(0), -1, WEIR_LINK_SHORT), 0);
	cr_assert_neq(value(in(0)), 0);
	minor(h);
	cr_assert_eq(value(in(0)), 0);
	cr_assert_eq(links(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(link, slots_in_leaf_objects)
{
	for (int i = 0; i < 4; i++)
		in_heap(make_leaf, i & 1, i & 2);
}

Test(link, slots_in_objects_that_are_scanned)
{
	for (int i = 0; i < 4; i++)
		in_heap(make_holder, i & 1, i & 2);
}

static uint64_t faults(weir_heap *h)
{
	struct weir_stats s = {.size = sizeof(s)};

	cr_assert_eq(weir_heap_stats(h, &s), 0);
	return s.barrier_faults;
}

/* The store finds a page that is protected, by each kind of barrier. */
static void protected_slot(const char *barrier)
{
	char options[128];
	struct weir_heap_options o = {.size = sizeof(o), .options = options};
	weir_heap *h;
	uint64_t before;
	int err;

	snprintf(options, sizeof(options), "%s,barrier=%s", OPTIONS, barrier);
	err = weir_heap_create(&o, &h);
	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	cr_assert_eq(weir_heap_destroy(h), 0);

	h = open_heap(options);
	hidden(h, make_holder, (void *)0);
	cr_assert_eq(linked(h, in(0), 1, WEIR_LINK_SHORT), 0);
	cr_assert_eq(linked(h, in(0) + 1, 2, WEIR_LINK_LONG), 0);
	for (int i = 0; i < 3; i++)
		full(h);
	cr_assert_neq(value(in(0)), 0);
	slot[1] = slot[2] = NULL;
	full(h);
	cr_assert_eq(value(in(0)), 0);
	cr_assert_eq(value(in(0) + 1), 0);
	minor(h);
	/* The page is old and was written: the cycle protects it again, and
	 * nobody but the pause writes to it. */
	cr_assert_eq(linked(h, in(0), -1, WEIR_LINK_SHORT), 0);
	before = faults(h);
	minor(h);
	cr_assert_eq(value(in(0)), 0);
	if (strcmp(barrier, "async") != 0)
		cr_assert_gt(faults(h), before);
	minor(h);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(link, protected_slot_async)
{
	protected_slot("async");
}

Test(link, protected_slot_sync)
{
	protected_slot("sync");
}

Test(link, protected_slot_sigbus)
{
	protected_slot("sigbus");
}

Test(link, protected_slot_mprotect)
{
	protected_slot("mprotect");
}

/* ---- Slots that die ----------------------------------------------------- */

#define HOLDERS 4000

/* Where the holders were, complemented; not in the heap. */
static uintptr_t holder[HOLDERS];

static long make_holders(weir_heap *h, weir_mutator *m, void *arg)
{
	void **list = weir_alloc(m, HOLDERS * sizeof(void *));

	(void)arg;
	slot[0] = (struct node *)(void *)list;
	for (int i = 0; i < HOLDERS; i++) {
		void **p = weir_alloc_leaf(m, HOLDER_WORDS * sizeof(void *));

		list[i] = p;
		holder[i] = ~(uintptr_t)p;
		for (unsigned flags = 0; flags < 2; flags++) {
			put(&p[flags], hide(slot[1]));
			must(!weir_link_add(h, &p[flags], slot[1], flags));
		}
	}
	return 0;
}

static int by_value(const void *a, const void *b)
{
	const uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

	return x < y ? -1 : x > y;
}

/* New objects where the holders were, as many as there are in all. */
static long make_successors(weir_heap *h, weir_mutator *m, void *arg)
{
	void **list = weir_alloc(m, HOLDERS * sizeof(void *));
	long reused = 0;

	(void)h;
	(void)arg;
	slot[0] = (struct node *)(void *)list;
	qsort(holder, HOLDERS, sizeof(holder[0]), by_value);
	for (int i = 0; i < HOLDERS; i++) {
		void **p = weir_alloc_leaf(m, HOLDER_WORDS * sizeof(void *));
		uintptr_t key = ~(uintptr_t)p;

		list[i] = p;
		for (size_t k = 0; k < HOLDER_WORDS; k++)
			put(&p[k], pattern(k));
		reused += bsearch(&key, holder, HOLDERS, sizeof(key),
				  by_value) != NULL;
	}
	return reused;
}

static void slot_dies(collect_fn *collect, bool old)
{
	weir_heap *h = open_heap(OPTIONS);
	void ***list;

	hidden(h, make_root, (void *)1);
	cr_assert_eq(hidden(h, make_holders, NULL), 0);
	cr_assert_eq(links(h), 2 * HOLDERS);
	if (old) {
		full(h);
		minor(h);
		cr_assert_eq(links(h), 2 * HOLDERS);
	}
	slot[0] = NULL;
	collect(h);
	cr_assert_eq(links(h), 0);
	gone(h, (void **)~holder[7], WEIR_LINK_SHORT);
	cr_assert_gt(hidden(h, make_successors, NULL), HOLDERS / 10);
	slot[1] = NULL;
	full(h);
	list = (void ***)(void *)slot[0];
	for (int i = 0; i < HOLDERS; i++)
		for (size_t k = 0; k < HOLDER_WORDS; k++)
			cr_assert_eq(value(&list[i][k]), (uintptr_t)pattern(k),
				     "word %zu of object %d", k, i);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(link, dropped_when_the_slot_dies)
{
	slot_dies(full, true);
	slot_dies(full, false);
}

Test(link, dropped_when_the_slot_dies_young)
{
	slot_dies(minor, false);
}

Test(link, dropped_when_the_slot_dies_in_one_stop)
{
	slot_dies(stopped, true);
}

/* ---- Finalizers --------------------------------------------------------- */

static void resurrect(void *object, void *arg)
{
	slot[(long)arg] = object;
}

static long make_both(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = node(m, 1);

	(void)arg;
	put(&word[0], hide(n));
	put(&word[1], hide(n));
	must(!weir_link_add(h, &word[0], n, WEIR_LINK_SHORT));
	must(!weir_link_add(h, &word[1], n, WEIR_LINK_LONG));
	return weir_finalizer_set(h, n, resurrect, (void *)2,
				  WEIR_FINALIZE_UNORDERED);
}

Test(link, long_ones_see_resurrection)
{
	weir_heap *h = open_heap(OPTIONS);

	cr_assert_eq(hidden(h, make_both, NULL), 0);
	full(h);
	cr_assert_eq(value(&word[0]), 0);
	cr_assert_neq(value(&word[1]), 0);
	full(h);
	cr_assert_neq(value(&word[1]), 0, "the queue keeps it");
	cr_assert_eq(run(h), 1);
	full(h);
	cr_assert_eq(value(&word[1]), (uintptr_t)hide(slot[2]));
	cr_assert_eq(links(h), 1);
	slot[2] = NULL;
	full(h);
	cr_assert_eq(value(&word[1]), 0);
	cr_assert_eq(links(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* An object that only a finalizer keeps has slots: word 0 is linked to what
 * lives, 1 and 2 short and long to what the finalizer keeps, too. */
static long make_kept_slots(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = node(m, 1);
	void **p = weir_alloc_leaf(m, HOLDER_WORDS * sizeof(void *));

	(void)arg;
	n->a = (struct node *)(void *)p;
	put(&p[0], hide(slot[1]));
	put(&p[1], hide(n));
	put(&p[2], hide(n));
	must(!weir_link_add(h, &p[0], slot[1], WEIR_LINK_SHORT));
	must(!weir_link_add(h, &p[1], n, WEIR_LINK_SHORT));
	must(!weir_link_add(h, &p[2], n, WEIR_LINK_LONG));
	return weir_finalizer_set(h, n, resurrect, (void *)2,
				  WEIR_FINALIZE_ORDERED);
}

Test(link, slots_that_a_finalizer_keeps)
{
	weir_heap *h = open_heap(OPTIONS);
	void **p;

	hidden(h, make_root, (void *)1);
	cr_assert_eq(hidden(h, make_kept_slots, NULL), 0);
	full(h);
	cr_assert_eq(links(h), 2);
	cr_assert_eq(run(h), 1);
	p = (void **)(void *)slot[2]->a;
	cr_assert_eq(value(&p[0]), (uintptr_t)hide(slot[1]));
	cr_assert_eq(value(&p[1]), 0);
	cr_assert_eq(value(&p[2]), (uintptr_t)hide(slot[2]));
	slot[1] = NULL;
	full(h);
	cr_assert_eq(value(&p[0]), 0);
	cr_assert_eq(links(h), 1);
	slot[2] = NULL;
	full(h);
	cr_assert_eq(links(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Add, remove, move -------------------------------------------------- */

Test(link, a_second_one_replaces_the_target)
{
	weir_heap *h = open_heap(OPTIONS);

	cr_assert_eq(linked(h, &word[0], 0, WEIR_LINK_SHORT), 0);
	cr_assert_eq(linked(h, &word[0], 1, WEIR_LINK_SHORT), 1);
	slot[0] = NULL;
	full(h);
	cr_assert_eq(value(&word[0]), (uintptr_t)hide(slot[1]));
	/* The new target is young, the link decided. */
	cr_assert_eq(linked(h, &word[0], -1, WEIR_LINK_SHORT), 1);
	minor(h);
	cr_assert_eq(value(&word[0]), 0);
	cr_assert_eq(links(h), 0);

	/* A short and a long one of a slot are two. */
	cr_assert_eq(linked(h, &word[0], 0, WEIR_LINK_SHORT), 0);
	cr_assert_eq(linked(h, &word[0], 1, WEIR_LINK_LONG), 0);
	cr_assert_eq(links(h), 2);
	slot[0] = NULL;
	full(h);
	cr_assert_eq(value(&word[0]), 0);
	gone(h, &word[0], WEIR_LINK_SHORT);
	cr_assert_eq(weir_link_remove(h, &word[0], WEIR_LINK_LONG), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(link, removed_ones_do_nothing)
{
	weir_heap *h = open_heap(OPTIONS);

	cr_assert_eq(linked(h, &word[0], -1, WEIR_LINK_LONG), 0);
	gone(h, &word[0], WEIR_LINK_SHORT);
	cr_assert_eq(weir_link_remove(h, &word[0], WEIR_LINK_LONG), 0);
	gone(h, &word[0], WEIR_LINK_LONG);
	gone(h, &word[1], WEIR_LINK_LONG);
	full(h);
	cr_assert_neq(value(&word[0]), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(link, moved_ones_clear_the_other_word)
{
	weir_heap *h = open_heap(OPTIONS);

	cr_assert_eq(linked(h, &word[0], 0, WEIR_LINK_SHORT), 0);
	cr_assert_eq(linked(h, &word[1], 1, WEIR_LINK_SHORT), 0);
	put(&word[2], pattern(2));
	cr_assert_eq(weir_link_move(h, &word[2], &word[3], WEIR_LINK_SHORT),
		     -ENOENT);
	cr_assert(strstr(weir_error_text(), "weir_link_move: "));
	cr_assert_eq(weir_link_move(h, &word[0], &word[2], WEIR_LINK_LONG),
		     -ENOENT);
	cr_assert_eq(weir_link_move(h, &word[0], &word[1], WEIR_LINK_SHORT),
		     -EEXIST);
	cr_assert(strstr(weir_error_text(), "weir_link_move: "));
	cr_assert_eq(weir_link_move(h, &word[0], &word[0], WEIR_LINK_SHORT), 0);
	cr_assert_eq(weir_link_move(h, &word[0], &word[2], WEIR_LINK_SHORT), 0);
	gone(h, &word[0], WEIR_LINK_SHORT);
	slot[0] = NULL;
	full(h);
	cr_assert_neq(value(&word[0]), 0);
	cr_assert_neq(value(&word[1]), 0);
	cr_assert_eq(value(&word[2]), 0);
	cr_assert_eq(links(h), 1);

	/* Into a young object, which dies before the target. */
	full(h);
	hidden(h, make_leaf, (void *)0);
	cr_assert_eq(weir_link_move(h, &word[1], in(0), WEIR_LINK_SHORT), 0);
	slot[0] = NULL;
	minor(h);
	cr_assert_eq(links(h), 0);
	cr_assert_neq(value(&word[1]), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Bad input ---------------------------------------------------------- */

/* Heap memory that is in no object. */
static void **nowhere(weir_heap *h)
{
	return (void **)(h->base + WG_BLOCK - sizeof(void *));
}

#if WEIR_CHECKING
Test(link, a_foreign_target_aborts, .signal = SIGABRT)
{
	weir_heap *h = open_heap(OPTIONS);

	weir_link_add(h, &word[0], &word[1], WEIR_LINK_SHORT);
}

Test(link, a_slot_in_free_memory_aborts, .signal = SIGABRT)
{
	weir_heap *h = open_heap(OPTIONS);

	hidden(h, make_root, (void *)0);
	weir_link_add(h, nowhere(h), slot[0], WEIR_LINK_SHORT);
}
#else
/* The text begins with the function's name. */
static bool names(const char *call)
{
	const char *text = weir_error_text(), *colon = strchr(text, ':');

	return colon && colon[2] && !strncmp(call, text, colon - text) &&
	       call[colon - text] == '(';
}

#define refused(call)                           \
	do {                                    \
		cr_assert_eq(call, -EINVAL);    \
		cr_assert(names(#call), #call); \
	} while (0)

Test(link, bad_input_is_refused)
{
	weir_heap *h = open_heap(OPTIONS);
	void **odd = (void **)((uintptr_t)&word[0] + 1);

	cr_assert_eq(linked(h, &word[0], 0, WEIR_LINK_SHORT), 0);
	refused(weir_link_add(NULL, &word[1], slot[0], 0));
	refused(weir_link_add(h, NULL, slot[0], 0));
	refused(weir_link_add(h, odd, slot[0], 0));
	refused(weir_link_add(h, nowhere(h), slot[0], 0));
	refused(weir_link_add(h, &word[1], NULL, 0));
	refused(weir_link_add(h, &word[1], &word[2], 0));
	refused(weir_link_add(h, &word[1], nowhere(h), 0));
	refused(weir_link_add(h, &word[1], slot[0], 2));
	refused(weir_link_remove(NULL, &word[0], 0));
	refused(weir_link_remove(h, NULL, 0));
	refused(weir_link_remove(h, odd, 0));
	refused(weir_link_remove(h, &word[0], 3));
	refused(weir_link_move(NULL, &word[0], &word[1], 0));
	refused(weir_link_move(h, NULL, &word[1], 0));
	refused(weir_link_move(h, odd, &word[1], 0));
	refused(weir_link_move(h, &word[0], NULL, 0));
	refused(weir_link_move(h, &word[0], odd, 0));
	refused(weir_link_move(h, &word[0], nowhere(h), 0));
	refused(weir_link_move(h, &word[0], &word[1], 4));
	/* What was refused broke nothing. */
	cr_assert_eq(links(h), 1);
	slot[0] = NULL;
	full(h);
	cr_assert_eq(value(&word[0]), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
	refused(weir_link_remove(h, &word[0], 0));
}
#endif

static int in_callback[3];

static void call_in_callback(struct weir_visitor *v, void *arg)
{
	weir_heap *h = arg;

	(void)v;
	in_callback[0] = weir_link_add(h, &word[0], slot[0], 0);
	in_callback[1] = weir_link_remove(h, &word[0], 0);
	in_callback[2] = weir_link_move(h, &word[0], &word[1], 0);
}

Test(link, refused_in_callbacks)
{
	weir_heap *h = open_heap("heap-max=64m");

	cr_assert_eq(weir_root_add_callback(h, call_in_callback, h, 0), 0);
	full(h);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(in_callback[i], -EDEADLK, "call %d: %d", i,
			     in_callback[i]);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
