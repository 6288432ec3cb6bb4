/* SPDX-License-Identifier: MIT */
/*
 * Links (gc/link.c).
 *
 * Words hold addresses complemented, so that no scan takes them for
 * references, wherever they are.
 */
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

static void *hide(const void *p)
{
	return (void *)~(uintptr_t)p;
}

/* Atomic: a pause may clear it between any two instructions. */
static uintptr_t value(void **at)
{
	return (uintptr_t)__atomic_load_n(at, __ATOMIC_RELAXED);
}

static void put(void **at, void *p)
{
	__atomic_store_n(at, p, __ATOMIC_RELAXED);
}

/* What no address looks like, complemented or not. */
static void *pattern(size_t i)
{
	return (void *)(0x5a5a5a5a00000001ul + 2 * i);
}

static uint32_t links(const weir_heap *h)
{
	return h->weak->links.table.count;
}

struct made {
	int root;       /* where the target is rooted, -1: nowhere */
	void **at;      /* the slot */
	unsigned flags; /* of the link */
};

static long make(weir_heap *h, weir_mutator *m, void *arg)
{
	struct made *d = arg;
	struct node *n = node(m, 1);

	if (d->root >= 0)
		slot[d->root] = n;
	put(d->at, hide(n));
	return weir_link_add(h, d->at, n, d->flags);
}

/* A link to a new object. */
static int linked(weir_heap *h, void **at, int root, unsigned flags)
{
	struct made d = {root, at, flags};

	return (int)hidden(h, make, &d);
}

static long aim(weir_heap *h, weir_mutator *m, void *arg)
{
	struct made *d = arg;

	(void)m;
	put(d->at, hide(slot[d->root]));
	return weir_link_add(h, d->at, slot[d->root], d->flags);
}

/* A link to the object that is rooted there. */
static int linked_to(weir_heap *h, void **at, int root, unsigned flags)
{
	struct made d = {root, at, flags};

	return (int)hidden(h, aim, &d);
}

static long make_root(weir_heap *h, weir_mutator *m, void *root)
{
	(void)h;
	slot[(long)root] = node(m, 1);
	return 0;
}

#define HOLDER_WORDS 8

static long make_leaf(weir_heap *h, weir_mutator *m, void *root)
{
	(void)h;
	slot[(long)root] = weir_alloc_leaf(m, HOLDER_WORDS * sizeof(void *));
	return 0;
}

static long make_holder(weir_heap *h, weir_mutator *m, void *root)
{
	(void)h;
	slot[(long)root] = weir_alloc(m, HOLDER_WORDS * sizeof(void *));
	return 0;
}

/* A word of the object that is rooted there. */
static void **in(int root)
{
	return (void **)(void *)slot[root] + 5;
}

static weir_heap *open_heap(const char *options)
{
	memset(word, 0, sizeof(word));
	return start(options);
}

static void gone(weir_heap *h, void **at, unsigned flags)
{
	cr_assert_eq(weir_link_remove(h, at, flags), -ENOENT);
	cr_assert(strstr(weir_error_text(), "weir_link_remove: "));
}

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

/* ---- fork --------------------------------------------------------------- */

/* Words 0, 1: linked to what is dead, to what lives.  In the object at root 3
 * the same.  Root 4: an object that dies, with a slot. */
static bool as_forked(weir_heap *h)
{
	return !value(&word[0]) && value(&word[1]) && !value(in(3)) &&
	       value(in(3) + 1) && links(h) == 2;
}

Test(link, a_child_of_fork_goes_on)
{
	weir_heap *h = open_heap(OPTIONS);
	int status;
	pid_t pid;

	hidden(h, make_leaf, (void *)3);
	hidden(h, make_leaf, (void *)4);
	cr_assert_eq(linked(h, &word[1], 0, WEIR_LINK_SHORT), 0);
	full(h);
	cr_assert_eq(linked(h, &word[0], -1, WEIR_LINK_SHORT), 0);
	cr_assert_eq(linked(h, in(3), -1, WEIR_LINK_LONG), 0);
	cr_assert_eq(linked_to(h, in(3) + 1, 0, WEIR_LINK_LONG), 0);
	cr_assert_eq(linked_to(h, in(4), 0, WEIR_LINK_LONG), 0);
	slot[4] = NULL;
	quiet_before_fork();
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		bool ok = links(h) == 5;

		alarm(60);
		full(h);
		ok = ok && as_forked(h);
		/* And links of its own. */
		ok = ok && linked(h, &word[2], -1, WEIR_LINK_SHORT) == 0;
		minor(h);
		ok = ok && !value(&word[2]) && as_forked(h);
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
	cr_assert_eq(links(h), 5);
	full(h);
	cr_assert(as_forked(h));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Races, against a model --------------------------------------------- */

#define CHURNERS 3
#define OUT 1024 /* slots outside of the heap */
#define HOLD 16  /* objects with slots */
#define HOLD_SLOTS 64
#define SLOTS (OUT + HOLD * HOLD_SLOTS)
#define KEPT 64 /* targets that live */

enum model {
	BARE,   /* no link; the word keeps its pattern */
	LIVING, /* linked to kept[target] */
	DOOMED, /* linked to what nobody keeps */
};

struct churner {
	weir_heap *heap;
	atomic_bool *stop;
	uint64_t seed;
	void *out[OUT];           /* slots */
	uint8_t model[2][SLOTS];  /* enum model, of short and long links */
	uint8_t target[2][SLOTS]; /* of LIVING ones */
	uintptr_t word[SLOTS];    /* what was stored there last */
	long cleared, moved, dropped;
};

/* Roots of the churners. */
static struct {
	void **hold[HOLD];
	struct node *kept[KEPT];
} rooted[CHURNERS];

static struct churner churner[CHURNERS];

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void **slot_at(struct churner *c, size_t i)
{
	size_t k = i - OUT;

	if (i < OUT)
		return &c->out[i];
	return &rooted[c - churner].hold[k / HOLD_SLOTS][k % HOLD_SLOTS];
}

/* A slot has one kind of link at a time, or two to the same object: then a
 * word that is 0 says that both are gone. */
static bool doomed(const struct churner *c, size_t i)
{
	return c->model[0][i] == DOOMED || c->model[1][i] == DOOMED;
}

static void store(struct churner *c, size_t i, void *p)
{
	c->word[i] = (uintptr_t)p;
	put(slot_at(c, i), p);
}

/* What may be in the word; to 0 only if it is linked to what may be dead. */
static void check_word(struct churner *c, size_t i)
{
	uintptr_t w = value(slot_at(c, i));

	must(w == c->word[i] || (w == 0 && doomed(c, i)));
}

static void unlink_slot(struct churner *c, size_t i)
{
	bool was = doomed(c, i);

	for (unsigned flags = 0; flags < 2; flags++) {
		int err = weir_link_remove(c->heap, slot_at(c, i), flags);
		uintptr_t w = value(slot_at(c, i));

		switch (c->model[flags][i]) {
		case BARE:
			must(err == -ENOENT);
			break;
		case LIVING:
			must(err == 0 && w == c->word[i]);
			break;
		case DOOMED:
			must(err == 0 || (err == -ENOENT && w == 0));
			c->cleared += err != 0;
			break;
		}
		must(w == c->word[i] || (w == 0 && was));
		c->model[flags][i] = BARE;
	}
	store(c, i, pattern(i));
}

static void link_slot(struct churner *c, weir_mutator *m, size_t i, uint64_t r)
{
	struct node **kept = rooted[c - churner].kept;
	unsigned which = r % KEPT, kinds = 1 + (r >> 8) % 3;
	bool doom = (r >> 16) % 2;
	struct node *n = doom ? node(m, 1) : kept[which];

	store(c, i, hide(n));
	for (unsigned flags = 0; flags < 2; flags++) {
		if (!(kinds >> flags & 1))
			continue;
		must(weir_link_add(c->heap, slot_at(c, i), n, flags) == 0);
		/* A second one to the same. */
		must((r >> 24) % 4 ||
		     weir_link_add(c->heap, slot_at(c, i), n, flags) == 1);
		c->model[flags][i] = doom ? DOOMED : LIVING;
		c->target[flags][i] = (uint8_t)which;
	}
	/* Until here both were there. */
	must(value(slot_at(c, i)) == (uintptr_t)hide(n));
	must(n->check == MAGIC + 1);
}

/* The link of a slot that has one, to a slot that has none. */
static void move_slot(struct churner *c, size_t i, size_t to, unsigned flags)
{
	uint8_t model = c->model[flags][i];
	uintptr_t was = c->word[i];
	int err;

	if (i == to || model == BARE || c->model[!flags][i] != BARE)
		return;
	if (c->model[flags][to] == LIVING) {
		err = weir_link_move(c->heap, slot_at(c, i), slot_at(c, to),
				     flags);
		must(err == -EEXIST || (err == -ENOENT && model == DOOMED));
		return;
	}
	if (c->model[0][to] != BARE || c->model[1][to] != BARE)
		return;
	store(c, to, (void *)was);
	err = weir_link_move(c->heap, slot_at(c, i), slot_at(c, to), flags);
	if (err) {
		must(err == -ENOENT && model == DOOMED &&
		     !value(slot_at(c, i)));
		store(c, to, pattern(to));
		c->cleared++;
	} else {
		must(value(slot_at(c, i)) == was);
		c->model[flags][to] = model;
		c->target[flags][to] = c->target[flags][i];
		c->moved++;
	}
	c->model[flags][i] = BARE;
	store(c, i, pattern(i));
}

/* What was linked to the object may be cleared from now on. */
static void new_kept(struct churner *c, weir_mutator *m, unsigned which)
{
	for (unsigned flags = 0; flags < 2; flags++)
		for (size_t i = 0; i < SLOTS; i++)
			if (c->model[flags][i] == LIVING &&
			    c->target[flags][i] == which)
				c->model[flags][i] = DOOMED;
	rooted[c - churner].kept[which] = node(m, 1);
}

/* Links in the old one are dropped, sooner or later. */
static void new_hold(struct churner *c, weir_mutator *m, size_t k)
{
	size_t first = OUT + k * HOLD_SLOTS;
	void **p = weir_alloc_leaf(m, HOLD_SLOTS * sizeof(void *));

	must(p);
	rooted[c - churner].hold[k] = p;
	for (size_t i = first; i < first + HOLD_SLOTS; i++) {
		c->dropped += c->model[0][i] != BARE || c->model[1][i] != BARE;
		c->model[0][i] = c->model[1][i] = BARE;
		store(c, i, pattern(i));
	}
}

static void churn(struct churner *c, weir_mutator *m)
{
	uint64_t r = rnd(&c->seed);
	size_t i = (r >> 8) % SLOTS, to = (r >> 20) % SLOTS;

	switch (r % 8) {
	case 0:
	case 1:
	case 2:
		unlink_slot(c, i);
		link_slot(c, m, i, rnd(&c->seed));
		break;
	case 3:
		unlink_slot(c, i);
		break;
	case 4:
	case 5:
		move_slot(c, i, to, (r >> 32) & 1);
		break;
	default:
		check_word(c, i);
		check_word(c, to);
	}
	if ((r >> 33) % 128 == 0)
		new_kept(c, m, (r >> 40) % KEPT);
	if ((r >> 46) % 512 == 0)
		new_hold(c, m, (r >> 55) % HOLD);
}

static void *churner_main(void *arg)
{
	struct churner *c = arg;
	weir_mutator *m;

	must(weir_thread_attach(c->heap, &m) == 0);
	for (size_t i = 0; i < OUT; i++)
		store(c, i, pattern(i));
	for (unsigned k = 0; k < KEPT; k++)
		new_kept(c, m, k);
	for (size_t k = 0; k < HOLD; k++)
		new_hold(c, m, k);
	while (!atomic_load_explicit(c->stop, memory_order_relaxed))
		churn(c, m);
	must(weir_thread_detach(m) == 0);
	return NULL;
}

/* The churners being gone, and with them what their stacks kept. */
static size_t settled(struct churner *c)
{
	size_t n = 0;

	for (size_t i = 0; i < SLOTS; i++) {
		uintptr_t w = value(slot_at(c, i));

		cr_assert_eq(w, doomed(c, i) ? 0 : c->word[i], "slot %zu", i);
		for (unsigned flags = 0; flags < 2; flags++)
			n += c->model[flags][i] == LIVING;
	}
	return n;
}

static void races(const char *options)
{
	weir_heap *h = hidden_heap(options);
	pthread_t t[CHURNERS];
	atomic_bool stop = false;
	long cycles, cleared = 0, moved = 0, dropped = 0;
	size_t living = 0;

	memset(churner, 0, sizeof(churner));
	memset(rooted, 0, sizeof(rooted));
	cr_assert_eq(weir_root_add(h, rooted, sizeof(rooted)), 0);
	for (int i = 0; i < CHURNERS; i++) {
		churner[i].heap = h;
		churner[i].stop = &stop;
		churner[i].seed = 0x9e3779b97f4a7c15ul * (unsigned)(i + 1);
		pthread_create(&t[i], NULL, churner_main, &churner[i]);
	}
	cycles = many_cycles(h);
	stop = true;
	for (int i = 0; i < CHURNERS; i++)
		pthread_join(t[i], NULL);
	full(h);
	for (int i = 0; i < CHURNERS; i++) {
		living += settled(&churner[i]);
		cleared += churner[i].cleared;
		moved += churner[i].moved;
		dropped += churner[i].dropped;
	}
	cr_assert_eq(links(h), living);
	cr_log_info("%ld cycles, %ld links cleared, %ld moved, %ld dropped, "
		    "%zu are left",
		    cycles, cleared, moved, dropped, living);
	cr_assert_gt(cleared, 100);
	cr_assert_gt(moved, 100);
	cr_assert_gt(dropped, 100);
	cr_assert_gt(living, 100);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

#define RACES "heap-max=512m,verify=on,poison=on,heap-min=4m"

Test(link, races_with_collections)
{
	races(RACES);
}

Test(link, races_with_collections_delayed)
{
	races(RACES ",delay=200");
}

Test(link, races_with_collections_at_safepoints)
{
	races(RACES ",stop=safepoints");
}
