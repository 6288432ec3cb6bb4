/* SPDX-License-Identifier: MIT */
/*
 * Small random graphs (payloads), and the ways in which they leave a thread's
 * own structure: slots that all threads share, root ranges, root callbacks.
 *
 * A graph belongs to whoever holds its top node; no two graphs share a node.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/torture/torture.h"

enum { GRAPH_MAX = 16, VISIT_MAX = 200 };

/* A payload on its way from thread to thread. */
static struct {
	char lock;     /* a spin lock */
	uint64_t want; /* what the reference must be, 0: empty */
} slot[SLOTS];
/* The references: in a root range, in a heap object, behind a callback. */
static uintptr_t slot_range[SLOTS / 4];
static uintptr_t slot_object_root;       /* registered: refers to the object */
static uintptr_t slot_called[SLOTS / 4]; /* hidden; the callback reports it */
static uintptr_t slot_paused[SLOTS / 4]; /* the same, only in pauses */
static size_t slot_stride;               /* words apart in the object */

static struct node *any_node(struct worker *w, unsigned edges)
{
	return node_random(w, edges, cfg.on[F_large] && one_in(w, 20000));
}

struct node *graph_new(struct worker *w)
{
	struct node *all[GRAPH_MAX];
	unsigned n = 1, have;

	if (cfg.on[F_graph] && one_in(w, 3))
		n += (unsigned)below(w, GRAPH_MAX - 1);
	for (have = 0; have < n; have++) {
		struct node *p = any_node(w, n > 1 && !have ? 4 : 0);
		struct node *from;

		if (!p)
			break;
		all[have] = p;
		if (!have)
			continue;
		/* Each is reachable from one before it, or garbage. */
		from = all[below(w, have)];
		if (from->edges)
			edge_set(from, (unsigned)below(w, from->edges), p,
				 random_offset(w, p));
	}
	/* Cycles and shared nodes. */
	for (unsigned i = 0; have > 1 && i < have; i++) {
		struct node *from = all[below(w, have)];
		struct node *to = all[below(w, have)];

		if (from->edges)
			edge_set(from, (unsigned)below(w, from->edges), to,
				 random_offset(w, to));
	}
	return have ? all[0] : NULL;
}

/* Visit what is reachable, up to VISIT_MAX nodes, and check each. */
void graph_check(struct worker *w, struct node *top, uint64_t id)
{
	uintptr_t todo[VISIT_MAX]; /* hidden; also the list of those seen */
	unsigned n = 0;

	node_check(w, top, id, "a graph's top");
	todo[n++] = hide(top);
	for (unsigned at = 0; at < n; at++) {
		struct node *p = show(todo[at]);

		node_contents(w, p);
		for (unsigned i = 0; i < p->edges; i++) {
			struct node *to = edge_get(w, p, i);
			unsigned k;

			if (!to)
				continue;
			for (k = 0; k < n && todo[k] != hide(to); k++)
				;
			if (k == n && n < VISIT_MAX)
				todo[n++] = hide(to);
		}
	}
}

static struct node *walk(struct worker *w, struct node *p)
{
	for (uint64_t i = below(w, 6); i && p->edges; i--) {
		struct node *to = edge_get(w, p, (unsigned)below(w, p->edges));

		if (to)
			p = to;
	}
	return p;
}

void graph_mutate(struct worker *w, struct node *top)
{
	struct node *a = walk(w, top), *b = walk(w, top), *p;
	unsigned i, k;
	uint64_t id;

	if (!a->edges || !b->edges)
		return;
	i = (unsigned)below(w, a->edges);
	k = (unsigned)below(w, b->edges);
	switch (below(w, 4)) {
	case 0:
		p = any_node(w, 0);
		if (!p)
			return;
		if (one_in(w, 4))
			hold(w);
		/* What was there becomes garbage, or goes behind. */
		if (p->edges && one_in(w, 2)) {
			struct node *old = edge_get(w, a, i);

			if (old)
				edge_set(p, 0, old, random_offset(w, old));
		}
		edge_set(a, i, p, random_offset(w, p));
		break;
	case 1:
		edge_clear(a, i);
		break;
	default:
		p = edge_get(w, a, i);
		if (!p)
			return;
		id = p->id;
		edge_clear(a, i);
		if (one_in(w, 2))
			hold(w);
		node_check(w, p, id, "a moved node");
		edge_set(b, k, p, random_offset(w, p));
		break;
	}
}

/* ---- Slots -------------------------------------------------------------- */

static void lock(unsigned i)
{
	weir_mutator *m = weir_thread_self(heap);

	for (unsigned n = 0;
	     __atomic_test_and_set(&slot[i].lock, __ATOMIC_ACQUIRE); n++) {
		/* The holder may be forking, which waits out a stop. */
		if (m)
			weir_safepoint(m);
		if (n > 50)
			sched_yield();
	}
}

static void unlock(unsigned i)
{
	__atomic_clear(&slot[i].lock, __ATOMIC_RELEASE);
}

void share_lock_all(bool on)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		if (on)
			lock(i);
		else
			unlock(i);
	}
}

static uintptr_t *place(unsigned i)
{
	unsigned k = i / 4;

	switch (i % 4) {
	case 0:
		return &slot_range[k];
	case 1:
		return &slot_called[k];
	case 2:
		return &slot_paused[k];
	default:
		return (uintptr_t *)slot_object_root + k * slot_stride;
	}
}

static bool hidden(unsigned i)
{
	return i % 4 == 1 || i % 4 == 2;
}

static void report(weir_visitor *v, void *arg)
{
	uintptr_t *at = arg;

	for (unsigned i = 0; i < SLOTS / 4; i++) {
		uintptr_t p = __atomic_load_n(&at[i], __ATOMIC_RELAXED);

		if (p)
			weir_visit(v, show(p));
	}
}

void share_init(void)
{
	weir_mutator *m = weir_thread_self(heap);
	size_t size = (size_t)1 << 20;
	int err;

	if (!cfg.on[F_large])
		size = 16384;
	slot_stride = size / sizeof(uintptr_t) / (SLOTS / 4);
	err = weir_root_add(heap, slot_range, sizeof(slot_range));
	if (!err)
		err = weir_root_add(heap, &slot_object_root,
				    sizeof(slot_object_root));
	if (!err)
		err = weir_root_add_callback(heap, report, slot_called,
					     WEIR_TRACE_CONCURRENT);
	if (!err)
		err = weir_root_add_callback(heap, report, slot_paused, 0);
	if (err)
		fail(NULL, "roots: error %d, %s", -err, weir_error_text());
	slot_object_root = (uintptr_t)weir_alloc(m, size);
	if (!slot_object_root)
		fail(NULL, "no memory for the shared object");
}

/* Put p (may be NULL) into the slot and return what was there. */
static char *slot_swap(unsigned i, char *p, uint64_t *want)
{
	uint64_t new_want = *want;
	uintptr_t *at = place(i), old;

	lock(i);
	*want = slot[i].want;
	old = *at;
	/* One store: the collector must see one or the other. */
	__atomic_store_n(at,
			 !p          ? 0
			 : hidden(i) ? hide(p)
				     : (uintptr_t)p,
			 __ATOMIC_RELAXED);
	slot[i].want = p ? new_want : 0;
	unlock(i);
	if (!old)
		return NULL;
	return hidden(i) ? show(old) : (char *)old;
}

void share_step(struct worker *w)
{
	unsigned i = (unsigned)below(w, SLOTS);
	uint64_t want = 0, put;
	char *raw = bank_take(w, &want);

	put = want;
	if (raw) {
		__asm__ volatile("" : "+r"(raw));
		hold(w);
		node_check(w, (void *)(raw - WANT_OFFSET(want)), WANT_ID(want),
			   "on its way to a slot");
	} else {
		put = 0;
	}
	raw = slot_swap(i, raw, &put);
	if (raw) {
		struct node *p = (void *)(raw - WANT_OFFSET(put));

		__asm__ volatile("" : "+r"(raw));
		if (one_in(w, 4))
			hold(w);
		node_check(w, p, WANT_ID(put), "out of a slot");
		graph_check(w, p, WANT_ID(put));
		if (w->bank)
			bank_put(w, p);
		w->n.shared++;
	}
}

/* ---- Private root ranges ------------------------------------------------ */

void roots_init(struct worker *w)
{
	int err;

	w->root = calloc(ROOTS, sizeof(*w->root));
	if (!w->root)
		fail(w, "no memory for roots");
	err = weir_root_add(heap, w->root, ROOTS * sizeof(*w->root));
	if (err)
		fail(w, "weir_root_add: error %d, %s", -err, weir_error_text());
}

void roots_fini(struct worker *w)
{
	int err = weir_root_remove(heap, w->root, ROOTS * sizeof(*w->root));

	if (err)
		fail(w, "weir_root_remove: error %d, %s", -err,
		     weir_error_text());
	/* Nobody may read it any more. */
	memset(w->root, 0xff, ROOTS * sizeof(*w->root));
	free(w->root);
	w->root = NULL;
}

void roots_check(struct worker *w)
{
	for (unsigned i = 0; i < ROOTS; i++)
		if (w->root_want[i])
			graph_check(w,
				    (void *)(w->root[i] -
					     WANT_OFFSET(w->root_want[i])),
				    WANT_ID(w->root_want[i]));
}

void root_step(struct worker *w)
{
	unsigned i = (unsigned)below(w, ROOTS);
	uint64_t want = w->root_want[i];
	char *raw = (char *)w->root[i];

	if (want) {
		/* Out of the root, into the bank. */
		w->root_want[i] = 0;
		__atomic_store_n(&w->root[i], 0, __ATOMIC_RELAXED);
		__asm__ volatile("" : "+r"(raw));
		hold(w);
		node_check(w, (void *)(raw - WANT_OFFSET(want)), WANT_ID(want),
			   "out of a root");
		bank_put(w, (void *)(raw - WANT_OFFSET(want)));
		return;
	}
	raw = bank_take(w, &want);
	if (!raw)
		return;
	__asm__ volatile("" : "+r"(raw));
	hold(w);
	__atomic_store_n(&w->root[i], (uintptr_t)raw, __ATOMIC_RELAXED);
	w->root_want[i] = want;
	if (one_in(w, 16)) {
		roots_fini(w);
		roots_init(w);
		memset(w->root_want, 0, sizeof(w->root_want));
	}
}
