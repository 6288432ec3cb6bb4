/* SPDX-License-Identifier: MIT */
/*
 * Watched objects: each has a weak reference, a finalizer, or is the key of an
 * ephemeron, and the thread either holds it strongly or has let go of it.
 *
 *   held        the weak reference gives it, its finalizer does not run, the
 *               ephemeron has key and value
 *   let go      all of it is there and intact, or nothing; a finalizer runs at
 *               most once, and finds the object and what it refers to intact
 *
 * The holder is a heap object with a field for each; ephemerons are in a
 * second one.  Both are on the thread's stack only.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/torture/torture.h"

enum watch_type { W_NONE, W_WEAK, W_FINAL, W_EPH };

/* What a finalizer gets.  It outlives its entry: freed never, but there are
 * few.  Other threads may run it. */
struct record {
	uint64_t id;         /* of the object */
	unsigned owner;      /* worker */
	unsigned held;       /* atomic: its thread holds the object */
	unsigned runs;       /* atomic: times the finalizer ran */
	struct record *next; /* of the free ones */
};

struct entry {
	enum watch_type type;
	bool strong;           /* held */
	uint64_t id;           /* of the object */
	uint64_t value;        /* W_EPH: of the value */
	weir_weak *weak;       /* W_WEAK */
	struct record *record; /* W_FINAL */
};

struct watch {
	struct entry entry[WATCHES];
	uint64_t holder_id;
};

static __thread struct worker *me;

static struct node *holder(struct worker *w)
{
	struct node *p = w->anchor[1];

	node_check(w, p, w->watch->holder_id, "the holder");
	return p;
}

static weir_ephemeron **ephemeron(struct worker *w, unsigned i)
{
	return (weir_ephemeron **)w->anchor[2] + i;
}

bool watch_create(struct worker *w)
{
	struct watch *t = calloc(1, sizeof(*t));
	struct node *p;

	me = w;
	if (!t)
		return false;
	p = node_new(w, N_CONS, 0, WATCHES);
	w->anchor[1] = p;
	w->anchor[2] = p ? weir_alloc(w->m, WATCHES * sizeof(void *)) : NULL;
	if (!w->anchor[2]) {
		free(t);
		return false;
	}
	t->holder_id = p->id;
	w->watch = t;
	return true;
}

static void finalize(void *object, void *arg)
{
	struct record *r = arg;
	struct worker *w = me, other;
	struct node *p = object;

	if (!w) {
		/* The library's own thread. */
		worker_init(&other, MAX_WORKERS, r->id);
		other.m = weir_thread_self(heap);
		other.action = "finalizer";
		w = &other;
	}
	node_check(w, p, r->id, "in a finalizer");
	graph_check(w, p, r->id);
	if (__atomic_load_n(&r->held, __ATOMIC_RELAXED) &&
	    (!in_child || r->owner == forked_worker))
		fail(w,
		     "the finalizer of node %#llx ran, but thread %u holds it",
		     (unsigned long long)r->id, r->owner);
	if (__atomic_add_fetch(&r->runs, 1, __ATOMIC_RELAXED) != 1)
		fail(w, "the finalizer of node %#llx ran twice",
		     (unsigned long long)r->id);
	w->n.finalized++;
	if (w == me && w->bank && one_in(w, 4))
		bank_put(w, p); /* it lives on, without a finalizer */
}

static void check_err(struct worker *w, int err, const char *what)
{
	if (err)
		fail(w, "%s: error %d, %s", what, -err, weir_error_text());
}

/* Make entry i anew. */
static void make(struct worker *w, unsigned i)
{
	struct entry *e = &w->watch->entry[i];
	static const enum watch_type type[] = {W_WEAK, W_FINAL, W_EPH};
	enum watch_type t = type[below(w, 3)];
	struct node *p, *value;
	weir_ephemeron *eph;

	if (!cfg.on[t == W_WEAK    ? F_weak
		    : t == W_FINAL ? F_final
				   : F_ephemeron])
		return;
	p = graph_new(w);
	if (!p)
		return;
	*e = (struct entry){.id = p->id};
	switch (t) {
	case W_WEAK:
		check_err(w, weir_weak_create(heap, p, &e->weak),
			  "weir_weak_create");
		break;
	case W_FINAL:
		e->record = calloc(1, sizeof(*e->record));
		if (!e->record)
			return;
		e->record->id = p->id;
		e->record->owner = w->index;
		e->record->held = 1;
		check_err(w,
			  weir_finalizer_set(heap, p, finalize, e->record,
					     one_in(w, 2)
						     ? WEIR_FINALIZE_ORDERED
						     : WEIR_FINALIZE_UNORDERED),
			  "weir_finalizer_set");
		break;
	default:
		value = node_random(w, 1, false);
		if (!value)
			return;
		e->value = value->id;
		/* The value may refer to its key: that must not keep it. */
		if (one_in(w, 2))
			edge_set(value, 0, p, 0);
		eph = weir_ephemeron_create(w->m, p, value);
		if (!eph) {
			w->n.no_memory++;
			return;
		}
		*ephemeron(w, i) = eph;
		break;
	}
	e->type = t;
	e->strong = true;
	edge_set(holder(w), i, p, random_offset(w, p));
}

static void drop(struct worker *w, unsigned i)
{
	struct entry *e = &w->watch->entry[i];

	if (e->record)
		__atomic_store_n(&e->record->held, 0, __ATOMIC_RELAXED);
	edge_clear(holder(w), i);
	e->strong = false;
}

/* Have it in hand only, for a while. */
static void shake(struct worker *w, unsigned i)
{
	struct entry *e = &w->watch->entry[i];
	uint64_t want;
	char *raw = edge_raw(w, holder(w), i, &want);
	struct node *p;

	edge_clear(holder(w), i);
	__asm__ volatile("" : "+r"(raw));
	hold(w);
	p = (void *)(raw - WANT_OFFSET(want));
	node_check(w, p, e->id, "a watched object in hand");
	edge_set(holder(w), i, p, random_offset(w, p));
}

static void look_weak(struct worker *w, unsigned i)
{
	struct entry *e = &w->watch->entry[i];
	struct node *p = weir_weak_get(e->weak);

	if (p)
		graph_check(w, p, e->id);
	if (e->strong && p != edge_get(w, holder(w), i))
		fail(w,
		     "the weak reference to node %#llx gives %p, but it is "
		     "held",
		     (unsigned long long)e->id, (void *)p);
	if (e->strong) {
		w->n.weak_kept++;
	} else if (!p) {
		w->n.weak_cleared++;
		weir_weak_destroy(e->weak);
		e->type = W_NONE;
	} else if (one_in(w, 4)) {
		/* Hold it again. */
		hold(w);
		edge_set(holder(w), i, p, random_offset(w, p));
		e->strong = true;
	}
}

/* The weak reference goes over to a new object, and with it what is held. */
static void retarget(struct worker *w, unsigned i)
{
	struct entry *e = &w->watch->entry[i];
	struct node *p = graph_new(w);

	if (!p)
		return;
	if (one_in(w, 4)) {
		check_err(w, weir_weak_set(e->weak, NULL), "weir_weak_set");
		if (weir_weak_get(e->weak))
			fail(w, "a weak reference set to NULL gives an object");
		hold(w);
	}
	check_err(w, weir_weak_set(e->weak, p), "weir_weak_set");
	e->id = p->id;
	edge_set(holder(w), i, p, random_offset(w, p));
}

/*
 * Many weak references to one object in hand come and go, and change, beside
 * the collector's batches: their number is more than one batch.
 */
static void storm(struct worker *w)
{
	weir_weak *weak[STORM];
	struct node *p = graph_new(w);
	uint64_t id, set[(STORM + 63) / 64] = {0};

	if (!p)
		return;
	id = p->id;
	w->n.storms++;
	for (unsigned i = 0; i < STORM; i++) {
		check_err(w, weir_weak_create(heap, p, &weak[i]),
			  "weir_weak_create");
		set[i / 64] |= 1ull << (i % 64);
	}
	for (unsigned n = 0; n < 2 * STORM; n++) {
		unsigned i = (unsigned)below(w, STORM);
		struct node *to = one_in(w, 2) ? p : NULL;

		if (one_in(w, 4)) {
			weir_weak_destroy(weak[i]);
			to = p;
			check_err(w, weir_weak_create(heap, p, &weak[i]),
				  "weir_weak_create");
		} else {
			check_err(w, weir_weak_set(weak[i], to),
				  "weir_weak_set");
		}
		set[i / 64] &= ~(1ull << (i % 64));
		set[i / 64] |= (uint64_t)(to != NULL) << (i % 64);
		if (one_in(w, 64))
			hold(w);
	}
	for (unsigned i = 0; i < STORM; i++) {
		void *got = weir_weak_get(weak[i]);

		if (got != (set[i / 64] >> (i % 64) & 1 ? p : NULL))
			fail(w,
			     "the weak reference to node %#llx, in hand at "
			     "%p, gives %p",
			     (unsigned long long)id, (void *)p, got);
		weir_weak_destroy(weak[i]);
	}
	graph_check(w, p, id);
}

static void look_ephemeron(struct worker *w, unsigned i)
{
	struct entry *e = &w->watch->entry[i];
	weir_ephemeron *eph = *ephemeron(w, i);
	struct node *key = weir_ephemeron_key(eph);
	/* With the key in hand the value must stay. */
	struct node *value = weir_ephemeron_value(eph);

	if (key) {
		if (!value)
			fail(w,
			     "the ephemeron of node %#llx lost its value "
			     "before its key",
			     (unsigned long long)e->id);
		node_check(w, key, e->id, "an ephemeron's key");
		node_check(w, value, e->value, "an ephemeron's value");
		node_contents(w, value);
		/* Only this compare keeps it in hand until here. */
		if (weir_ephemeron_key(eph) != key)
			fail(w, "an ephemeron's key changed");
	}
	if (e->strong && !key)
		fail(w, "the ephemeron of node %#llx is empty, but it is held",
		     (unsigned long long)e->id);
	if (e->strong) {
		w->n.eph_kept++;
	} else if (!key) {
		if (weir_ephemeron_value(eph))
			fail(w, "an ephemeron without a key has a value");
		w->n.eph_cleared++;
		*ephemeron(w, i) = NULL;
		e->type = W_NONE;
	}
}

static void look(struct worker *w, unsigned i)
{
	struct entry *e = &w->watch->entry[i];
	struct node *p;

	switch (e->type) {
	case W_WEAK:
		look_weak(w, i);
		break;
	case W_EPH:
		look_ephemeron(w, i);
		break;
	case W_FINAL:
		if (e->strong) {
			p = edge_get(w, holder(w), i);
			node_check(w, p, e->id, "a held object");
			graph_check(w, p, e->id);
		} else if (__atomic_load_n(&e->record->runs,
					   __ATOMIC_RELAXED)) {
			e->type = W_NONE;
		}
		break;
	default:
		break;
	}
}

void watch_step(struct worker *w)
{
	unsigned i = (unsigned)below(w, WATCHES);
	struct entry *e = &w->watch->entry[i];
	long ran;

	me = w;
	if (e->type == W_NONE) {
		make(w, i);
		return;
	}
	switch (below(w, 8)) {
	case 0:
		if (e->strong && one_in(w, 4))
			drop(w, i);
		break;
	case 1:
		if (e->strong && e->type == W_WEAK && one_in(w, 2))
			retarget(w, i);
		else if (e->strong)
			shake(w, i);
		if (cfg.on[F_weak] && one_in(w, 8))
			storm(w);
		break;
	case 2:
		ran = weir_finalizers_run(w->m, below(w, 4));
		if (ran < 0)
			fail(w, "weir_finalizers_run: %ld, %s", ran,
			     weir_error_text());
		break;
	default:
		look(w, i);
		break;
	}
}

void watch_audit(struct worker *w)
{
	me = w;
	for (unsigned i = 0; i < WATCHES; i++)
		look(w, i);
}

void watch_destroy(struct worker *w)
{
	me = NULL;
	if (!w->watch)
		return;
	for (unsigned i = 0; i < WATCHES; i++) {
		struct entry *e = &w->watch->entry[i];

		if (e->record && e->type == W_FINAL)
			__atomic_store_n(&e->record->held, 0, __ATOMIC_RELAXED);
		if (e->type == W_WEAK)
			weir_weak_destroy(e->weak);
	}
	w->anchor[1] = w->anchor[2] = NULL;
	free(w->watch);
	w->watch = NULL;
}
