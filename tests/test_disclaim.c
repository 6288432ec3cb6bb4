/* SPDX-License-Identifier: MIT */
/*
 * Objects that are asked before they go (gc/disclaim.c).
 */
#define _GNU_SOURCE
#include "tests/finalize.h"
#include "tests/quiet.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/always.h"

static weir_kind kind;
static int refusals; /* answers that are not 0, before those that are */

static int ask(void *object, void *arg)
{
	must(arg == &runs);
	note(object, NULL);
	return refusals-- > 0;
}

static weir_heap *open_heap(const char *options, weir_kind like, unsigned flags)
{
	weir_heap *h = start(options);

	refusals = 0;
	cr_assert_eq(weir_kind_disclaim(h, like, ask, &runs, flags, &kind), 0,
		     "%s", weir_error_text());
	return h;
}

static uint32_t watched(const weir_heap *h)
{
	return h->weak->dis.table.count;
}

static struct node *mortal(weir_mutator *m, long id)
{
	struct node *n = weir_alloc_kind(m, sizeof(*n), kind);

	must(n);
	must(weir_object_size(m->heap, n) >= sizeof(*n));
	n->check = MAGIC + (uintptr_t)id;
	n->id = id;
	return n;
}

static long ask_all(weir_heap *h, weir_mutator *m, void *max)
{
	(void)h;
	return weir_disclaim_run(m, (size_t)max);
}

static long asked(weir_heap *h)
{
	return hidden(h, ask_all, NULL);
}

/* What is free is written over. */
static long churn(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)arg;
	for (int i = 0; i < 20000; i++)
		memset(weir_alloc(m, sizeof(struct node)), 0xdd,
		       sizeof(struct node));
	return 0;
}

static long make_lone(weir_heap *h, weir_mutator *m, void *id)
{
	struct node *n = mortal(m, (long)id);

	(void)h;
	n->a = node(m, (long)id + 1000);
	return 0;
}

static long make_rooted(weir_heap *h, weir_mutator *m, void *id)
{
	(void)h;
	slot[(long)id] = mortal(m, (long)id);
	return 0;
}

typedef void collect_fn(weir_heap *h);

static void once(const char *options, collect_fn *collect)
{
	weir_heap *h = open_heap(options, WEIR_KIND_CONSERVATIVE, 0);

	hidden(h, make_rooted, (void *)1);
	for (long i = 2; i < 12; i++)
		hidden(h, make_lone, (void *)i);
	cr_assert_eq(watched(h), 11);
	collect(h);
	cr_assert_eq(weir_disclaim_queued(h), 10);
	cr_assert_eq(runs, 0);
	/* Until they are asked they are there, whatever comes. */
	hidden(h, churn, NULL);
	full(h);
	hidden(h, churn, NULL);
	minor(h);
	cr_assert_eq(hidden(h, ask_all, (void *)3), 3);
	cr_assert_eq(asked(h), 7);
	cr_assert_eq(asked(h), 0);
	cr_assert_eq(runs, 10);
	cr_assert_eq(watched(h), 1);
	full(h);
	collect(h);
	cr_assert_eq(weir_disclaim_queued(h), 0);
	slot[1] = NULL;
	full(h);
	cr_assert_eq(asked(h), 1);
	cr_assert_eq(ran[10], 1);
	cr_assert_eq(watched(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(disclaim, asked_once_when_dead)
{
	once(OPTIONS, full);
}

Test(disclaim, asked_once_after_minor_cycles)
{
	once(OPTIONS, minor);
}

Test(disclaim, asked_once_after_stopped_cycles)
{
	once(OPTIONS, stopped);
}

Test(disclaim, asked_once_with_delays)
{
	once(OPTIONS ",delay=500,born-black=on", full);
}

Test(disclaim, who_refuses_is_asked_again)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE, 0);

	refusals = 2;
	hidden(h, make_lone, (void *)7);
	for (long i = 0; i < 3; i++) {
		full(h);
		cr_assert_eq(asked(h), 1);
		cr_assert_eq(asked(h), 0);
		hidden(h, churn, NULL);
		cr_assert_eq(watched(h), i < 2);
	}
	full(h);
	cr_assert_eq(asked(h), 0);
	cr_assert_eq(runs, 3);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* The memory does come back. */
Test(disclaim, what_was_asked_is_freed)
{
	weir_heap *h =
		open_heap("heap-max=64m,poison=on", WEIR_KIND_CONSERVATIVE, 0);

	for (int i = 0; i < 40; i++) {
		for (int k = 0; k < 50; k++)
			hidden(h, make_lone, (void *)(long)k);
		full(h);
		cr_assert_eq(asked(h), 50);
	}
	full(h);
	full(h);
	cr_assert_lt(h->live, 1 << 20);
	cr_assert_eq(watched(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Chains -------------------------------------------------------------- */

static long make_chain(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *c = mortal(m, 3), *b = mortal(m, 2), *a = mortal(m, 1);
	/* Not only directly. */
	struct node *between = node(m, 100);

	(void)h;
	(void)arg;
	a->a = between;
	between->a = b;
	b->b = c;
	return 0;
}

Test(disclaim, ordered_ones_wait_for_those_that_reach_them)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE,
				 WEIR_DISCLAIM_ORDERED);

	hidden(h, make_chain, NULL);
	for (long i = 0; i < 3; i++) {
		full(h);
		hidden(h, churn, NULL);
		full(h);
		cr_assert_eq(asked(h), 1);
		cr_assert_eq(ran[i], i + 1);
	}
	full(h);
	cr_assert_eq(asked(h), 0);
	cr_assert_eq(watched(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(disclaim, others_do_not)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE, 0);

	hidden(h, make_chain, NULL);
	full(h);
	cr_assert_eq(asked(h), 3);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_ring(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *a = mortal(m, 1), *b = mortal(m, 2);

	(void)h;
	(void)arg;
	a->a = b;
	b->a = a;
	return 0;
}

Test(disclaim, ordered_rings_stay)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE,
				 WEIR_DISCLAIM_ORDERED);

	hidden(h, make_ring, NULL);
	for (int i = 0; i < 4; i++) {
		full(h);
		cr_assert_eq(asked(h), 0);
	}
	cr_assert_eq(watched(h), 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* A large one's references are found in slices. */
static long make_large(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node **words = weir_alloc_kind(m, 200000, kind);
	struct node *n = (struct node *)(void *)words;

	(void)h;
	must(words);
	n->check = MAGIC + 5;
	n->id = 5;
	for (int i = 4; i < 20000; i += 10) {
		words[i] = mortal(m, i);
		words[i]->a = node(m, i + 1000);
	}
	(void)arg;
	return 0;
}

Test(disclaim, large_ones)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE,
				 WEIR_DISCLAIM_ORDERED);

	hidden(h, make_large, NULL);
	full(h);
	hidden(h, churn, NULL);
	cr_assert_eq(asked(h), 1);
	cr_assert_eq(ran[0], 5);
	full(h);
	hidden(h, churn, NULL);
	cr_assert_eq(asked(h), 2000);
	cr_assert_eq(watched(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Others that watch ----------------------------------------------------
 */

static void *word[2]; /* hidden: what links are to */

static long make_linked(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = mortal(m, 9), *child = weir_alloc(m, 64);
	void **in = (void **)(void *)child;

	(void)arg;
	child->check = MAGIC + 10;
	child->id = 10;
	n->a = child;
	word[0] = (void *)~(uintptr_t)n;
	must(!weir_link_add(h, &word[0], n, WEIR_LINK_LONG));
	/* A link in what comes back with it. */
	slot[0] = node(m, 11);
	in[5] = (void *)~(uintptr_t)slot[0];
	must(!weir_link_add(h, &in[5], slot[0], WEIR_LINK_LONG));
	return 0;
}

Test(disclaim, links_are_cleared_before)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE, 0);

	hidden(h, make_linked, NULL);
	full(h);
	cr_assert_eq(weir_disclaim_queued(h), 1);
	cr_assert_null(word[0]);
	cr_assert_eq(h->weak->links.table.count, 1);
	cr_assert_eq(asked(h), 1);
	full(h);
	cr_assert_eq(h->weak->links.table.count, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_finalized(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = mortal(m, 1), *child = node(m, 2);

	(void)arg;
	n->a = child;
	must(!weir_finalizer_set(h, child, note, NULL,
				 WEIR_FINALIZE_UNORDERED));
	must(!weir_finalizer_set(h, n, note, NULL, WEIR_FINALIZE_UNORDERED));
	return 0;
}

Test(disclaim, finalizers_run_before)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE,
				 WEIR_DISCLAIM_ORDERED);

	hidden(h, make_finalized, NULL);
	full(h);
	/* Ordered: what it refers to is not finalized before it is asked. */
	cr_assert_eq(weir_disclaim_queued(h), 0);
	cr_assert_eq(run(h), 1);
	cr_assert_eq(ran[0], 1);
	full(h);
	cr_assert_eq(weir_finalizers_queued(h), 0);
	cr_assert_eq(asked(h), 1);
	full(h);
	cr_assert_eq(run(h), 1);
	cr_assert_eq(ran[2], 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Forgetting -----------------------------------------------------------
 */

static long forget(weir_heap *h, weir_mutator *m, void *arg)
{
	weir_kind k;

	(void)m;
	(void)arg;
	must(!weir_object_kind(h, slot[1], &k) && k == kind);
	must(!weir_disclaim_forget(h, slot[1]));
	must(!weir_object_kind(h, slot[1], &k) && k == WEIR_KIND_CONSERVATIVE);
	must(weir_disclaim_forget(h, slot[1]) == -ENOENT);
	must(weir_disclaim_forget(h, (char *)slot[2] + 8) == -ENOENT);
	must(weir_disclaim_forget(h, node(m, 3)) == -ENOENT);
	must(weir_disclaim_forget(h, &h) == -ENOENT);
	return 0;
}

static long forget_queued(weir_heap *h, weir_mutator *m, void *hidden_object)
{
	(void)m;
	return weir_disclaim_forget(h, (void *)~(uintptr_t)hidden_object);
}

Test(disclaim, forgotten_ones_are_not_asked)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE, 0);
	uintptr_t second;

	hidden(h, make_rooted, (void *)1);
	hidden(h, make_rooted, (void *)2);
	second = ~(uintptr_t)slot[2];
	hidden(h, forget, NULL);
	cr_assert_eq(watched(h), 2);
	slot[1] = slot[2] = NULL;
	full(h);
	cr_assert_eq(watched(h), 1);
	cr_assert_eq(weir_disclaim_queued(h), 1);
	cr_assert_eq(hidden(h, forget_queued, (void *)second), 0);
	cr_assert_eq(asked(h), 0);
	cr_assert_eq(watched(h), 0);
	cr_assert_eq(runs, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Kinds ----------------------------------------------------------------
 */

static int traced; /* atomic */
static int *outside;

static void trace(void *object, size_t size, weir_visitor *v, void *arg)
{
	struct node *n = object;

	(void)arg;
	must(size >= sizeof(*n));
	/* What fn gives back. */
	if (n->b)
		must(*(int *)(void *)n->b == 4711);
	weir_visit(v, n->a);
	__atomic_add_fetch(&traced, 1, __ATOMIC_RELAXED);
}

static long make_traced(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = mortal(m, 1);

	(void)h;
	(void)arg;
	n->a = node(m, 2);
	outside = malloc(sizeof(*outside));
	*outside = 4711;
	n->b = (struct node *)(void *)outside;
	return 0;
}

/* note() looks at b as a node. */
static int give_back(void *object, void *arg)
{
	struct node *n = object;

	(void)arg;
	must(n->a->check == MAGIC + 2);
	atomic_fetch_add(&runs, 1);
	*outside = 0;
	free(n->b);
	return 0;
}

static void traced_no_more(const char *options, unsigned flags)
{
	weir_heap *h = start(options);
	weir_kind like;
	int before;

	traced = 0;
	cr_assert_eq(weir_kind_trace(h, trace, NULL, flags, &like), 0);
	cr_assert_eq(weir_kind_disclaim(h, like, give_back, NULL, 0, &kind), 0);
	hidden(h, make_traced, NULL);
	full(h);
	hidden(h, churn, NULL);
	full(h);
	before = traced;
	cr_assert_gt(before, 0);
	cr_assert_eq(asked(h), 1);
	/* Nobody looks at what it gave back. */
	for (int i = 0; i < 3; i++) {
		minor(h);
		hidden(h, churn, NULL);
	}
	full(h);
	cr_assert_eq(traced, before);
	cr_assert_eq(wg_always_count(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(disclaim, traced_no_more)
{
	traced_no_more(OPTIONS, 0);
}

Test(disclaim, always_traced_no_more)
{
	traced_no_more(OPTIONS, WEIR_TRACE_ALWAYS);
}

Test(disclaim, concurrently_traced_no_more)
{
	traced_no_more(OPTIONS, WEIR_TRACE_CONCURRENT);
}

static long make_of_bitmap(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = mortal(m, 1);

	(void)h;
	(void)arg;
	/* Word 2 is a reference, word 3 is none. */
	n->a = mortal(m, 2);
	slot[0] = n;
	return 0;
}

Test(disclaim, like_a_bitmap_kind)
{
	weir_heap *h = start(OPTIONS);
	uint64_t bitmap = 4;
	weir_kind like;

	refusals = 0;
	cr_assert_eq(weir_kind_bitmap(h, &bitmap, 4, &like), 0);
	cr_assert_eq(weir_kind_disclaim(h, like, ask, &runs, 0, &kind), 0);
	hidden(h, make_of_bitmap, NULL);
	full(h);
	cr_assert_eq(weir_disclaim_queued(h), 0);
	slot[0] = NULL;
	full(h);
	cr_assert_eq(asked(h), 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static int ask_leaf(void *object, void *arg)
{
	struct node *n = object;

	(void)arg;
	must(n->check == MAGIC + 1);
	atomic_fetch_add(&runs, 1);
	return 0;
}

static long make_leaf(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = mortal(m, 1);

	(void)arg;
	/* Does not keep it. */
	n->a = node(m, 2);
	word[0] = (void *)~(uintptr_t)n->a;
	must(!weir_link_add(h, &word[0], n->a, WEIR_LINK_SHORT));
	slot[0] = n;
	return 0;
}

Test(disclaim, like_a_leaf)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(weir_kind_disclaim(h, WEIR_KIND_LEAF, ask_leaf, NULL,
					WEIR_DISCLAIM_ORDERED, &kind),
		     0);
	hidden(h, make_leaf, NULL);
	full(h);
	cr_assert_null(word[0]);
	slot[0] = NULL;
	full(h);
	cr_assert_eq(asked(h), 1);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- What others see of those that were found dead ------------------------
 */

static long make_key(weir_heap *h, weir_mutator *m, void *to)
{
	(void)h;
	*(weir_ephemeron **)to =
		weir_ephemeron_create(m, mortal(m, 1), node(m, 1001));
	must(*(weir_ephemeron **)to);
	return 0;
}

static long key_is_gone(weir_heap *h, weir_mutator *m, void *from)
{
	(void)h;
	(void)m;
	return !weir_ephemeron_key(*(weir_ephemeron **)from);
}

/* Marked once more to be asked, it is no living key of an ephemeron. */
Test(disclaim, ephemerons_do_not_hand_it_out)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE, 0);
	static weir_ephemeron *e;

	cr_assert_eq(weir_root_add(h, &e, sizeof(e)), 0);
	hidden(h, make_key, &e);
	full(h);
	cr_assert_eq(weir_disclaim_queued(h), 1);
	cr_assert(hidden(h, key_is_gone, &e));
	cr_assert_eq(asked(h), 1);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static weir_kind chain_kind;
static int chains; /* whole ones that were seen */

static int ask_chain(void *object, void *arg)
{
	struct node *n = object;

	(void)arg;
	if (n->id == 2)
		chains += n->a->check == MAGIC + 1 &&
			  n->a->a->check == MAGIC + 1001;
	return 0;
}

static long make_two(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n[2];

	(void)h;
	(void)arg;
	for (int i = 0; i < 2; i++) {
		n[i] = weir_alloc_kind(m, sizeof(*n[i]), chain_kind);
		must(n[i]);
		n[i]->id = i + 1;
		n[i]->check = MAGIC + (uintptr_t)i + 1;
	}
	n[0]->a = node(m, 1001);
	n[1]->a = n[0];
	return 0;
}

/* What the first was asked for leads to is there when the second is asked. */
Test(disclaim, all_that_it_reaches_is_there)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(weir_kind_disclaim(h, WEIR_KIND_CONSERVATIVE, ask_chain,
					NULL, 0, &chain_kind),
		     0);
	for (int i = 0; i < 20; i++)
		hidden(h, make_two, NULL);
	full(h);
	cr_assert_eq(weir_disclaim_queued(h), 40);
	for (int i = 0; i < 40; i++) {
		cr_assert_eq(hidden(h, ask_all, (void *)1), 1);
		full(h);
		hidden(h, churn, NULL);
	}
	cr_assert_eq(chains, 20);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(disclaim, errors)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE, 0);
	weir_kind k;

#if !WEIR_CHECKING
	cr_assert_eq(weir_kind_disclaim(h, kind, ask, NULL, 0, &k), -EINVAL);
	cr_assert_eq(weir_kind_disclaim(h, 0, NULL, NULL, 0, &k), -EINVAL);
	cr_assert_eq(weir_kind_disclaim(h, 0, ask, NULL, 0, NULL), -EINVAL);
	cr_assert_eq(weir_kind_disclaim(h, 0, ask, NULL, 2, &k), -EINVAL);
	cr_assert_eq(weir_kind_disclaim(h, 2, ask, NULL, 0, &k), -EINVAL);
	cr_assert_eq(weir_kind_disclaim(h, 77, ask, NULL, 0, &k), -EINVAL);
	cr_assert_eq(weir_kind_disclaim(NULL, 0, ask, NULL, 0, &k), -EINVAL);
	cr_assert_eq(weir_disclaim_run(NULL, 0), -EINVAL);
	cr_assert_eq(weir_disclaim_forget(NULL, h), -EINVAL);
	cr_assert_eq(weir_disclaim_queued(NULL), 0);
#endif
	cr_assert_eq(weir_kind_disclaim(h, WEIR_KIND_LEAF, ask, NULL, 0, &k),
		     0);
	cr_assert_geq(k, WG_INLINE_KINDS);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- fork -----------------------------------------------------------------
 */

#ifndef __SANITIZE_THREAD__ /* it allows no thread in the child */
Test(disclaim, a_child_has_them_too)
{
	weir_heap *h = open_heap(OPTIONS, WEIR_KIND_CONSERVATIVE, 0);
	int status;
	pid_t pid;

	hidden(h, make_rooted, (void *)1);
	for (long i = 2; i < 12; i++)
		hidden(h, make_lone, (void *)i);
	full(h);
	quiet_before_fork();
	pid = fork();
	if (!pid) {
		bool ok;

		alarm(60);
		slot[1] = NULL;
		ok = weir_disclaim_queued(h) == 10 && asked(h) == 10;
		full(h);
		ok = ok && asked(h) == 1 && watched(h) == 0;
		full(h);
		_exit(!ok);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "status %#x", status);
	cr_assert_eq(asked(h), 10);
	cr_assert_eq(watched(h), 1);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
#endif

/* ---- Races ----------------------------------------------------------------
 */

#define CHURNERS 3

struct churner {
	weir_heap *heap;
	bool *stop;   /* atomic */
	long made;    /* objects */
	long dropped; /* of them forgotten */
	uint64_t seed;
};

/* As many at most that wait to be asked: a cycle takes the longer the more
 * there are, and the longer it takes the more are made. */
#ifdef __SANITIZE_THREAD__
#define WAITING 20000
#else
#define WAITING 1000000
#endif

static atomic_long released, waiting;
static bool ordered;

static int release(void *object, void *arg)
{
	struct node *n = object;

	(void)arg;
	must(n->check == MAGIC + (uintptr_t)n->id);
	must(!n->a || n->a->check == MAGIC + (uintptr_t)n->a->id);
	/* Others may be asked on another thread at the same time. */
	must(!ordered || !n->b || n->b->check == MAGIC + (uintptr_t)n->b->id);
	/* Now and then it is to stay. */
	if (n->id % 7 == 0) {
		n->id++;
		n->check++;
		return 1;
	}
	n->check = 0; /* asked once */
	atomic_fetch_add(&released, 1);
	atomic_fetch_sub(&waiting, 1);
	return 0;
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void *churner_main(void *arg)
{
	struct churner *c = arg;
	struct node *held[32] = {NULL};
	weir_mutator *m;

	must(!weir_thread_attach(c->heap, &m));
	while (!__atomic_load_n(c->stop, __ATOMIC_RELAXED)) {
		uint64_t r = next_random(&c->seed);
		struct node *n = mortal(m, (long)(r % 1000) + 1);
		unsigned i = (unsigned)(r >> 32) % 32;

		c->made++;
		atomic_fetch_add(&waiting, 1);
		n->a = node(m, 5);
		if (r % 3 == 0)
			n->b = held[i];
		if (held[i] && r % 11 == 0 && !n->b) {
			must(!weir_disclaim_forget(c->heap, held[i]));
			held[i]->check = MAGIC + (uintptr_t)held[i]->id;
			c->dropped++;
			atomic_fetch_sub(&waiting, 1);
			held[i] = NULL;
			continue;
		}
		held[i] = r % 64 ? n : NULL;
		if (r % 16 == 0)
			must(weir_disclaim_run(m, 0) >= 0);
		weir_safepoint(m);
		while (waiting > WAITING &&
		       !__atomic_load_n(c->stop, __ATOMIC_RELAXED)) {
			must(weir_disclaim_run(m, 0) >= 0);
			weir_safepoint(m);
			sched_yield();
		}
	}
	memset(held, 0, sizeof(held));
	must(!weir_thread_detach(m));
	return NULL;
}

static void races(const char *options, unsigned flags)
{
	static struct churner churner[CHURNERS];
	weir_heap *h = start(options);
	long cycles, made = 0, dropped = 0;
	pthread_t t[CHURNERS];
	bool stop = false;

	ordered = flags & WEIR_DISCLAIM_ORDERED;
	cr_assert_eq(weir_kind_disclaim(h, WEIR_KIND_CONSERVATIVE, release,
					NULL, flags, &kind),
		     0);
	for (int i = 0; i < CHURNERS; i++) {
		churner[i] = (struct churner){
			.heap = h, .stop = &stop, .seed = 77u + (unsigned)i};
		pthread_create(&t[i], NULL, churner_main, &churner[i]);
	}
	cycles = many_cycles(h);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < CHURNERS; i++) {
		pthread_join(t[i], NULL);
		made += churner[i].made;
		dropped += churner[i].dropped;
	}
	/* Chains take a cycle for each. */
	for (int i = 0; i < 10000 && watched(h); i++) {
		full(h);
		asked(h);
	}
	cr_log_info("%ld cycles, %ld objects, %ld forgotten", cycles, made,
		    dropped);
	cr_assert_eq(watched(h), 0);
	cr_assert_eq(released, made - dropped);
	cr_assert_gt(dropped, 10);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

#define RACES "heap-max=512m,verify=on,poison=on,heap-min=4m"

Test(disclaim, races_with_collections, .timeout = 300)
{
	races(RACES, 0);
}

Test(disclaim, races_with_collections_delayed, .timeout = 300)
{
	races(RACES ",delay=200", 0);
}

Test(disclaim, races_with_collections_at_safepoints, .timeout = 300)
{
	races(RACES ",stop=safepoints", WEIR_DISCLAIM_ORDERED);
}
