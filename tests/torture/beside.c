/* SPDX-License-Identifier: MIT */
/*
 * References in memory beside the heap, which only an object that every pause
 * traces leads to: as a runtime's own stacks do.  A change there is no write to
 * the heap, so no page tells of it.
 *
 * Each payload there has a link as well, a word that is cleared when it dies:
 * not while it is here, and once it was dropped and is found dead.
 */
#include <errno.h>
#include <stdlib.h>

#include <weir/embed.h>

#include "tests/torture/torture.h"

enum { PLACES = 24 };

struct place {
	uintptr_t ref; /* pointer to or into the payload, 0: none */
	uint64_t want; /* what it must be */
	void *link;    /* hidden, the library clears it; NULL: no link */
	bool dropped;  /* nothing here holds the payload any more */
};

struct beside {
	struct place place[PLACES];
	struct beside *next; /* in `all` */
};

static struct beside *all; /* never freed: the dead are traced until a pause
			    * finds them dead */
static struct beside empty;
static weir_kind kind;

struct holder {
	struct beside *beside;
};

static void trace(void *object, size_t size, weir_visitor *v, void *arg)
{
	const struct beside *b = ((struct holder *)object)->beside;

	(void)size;
	(void)arg;
	for (unsigned i = 0; b && i < PLACES; i++)
		weir_visit(v, (void *)b->place[i].ref);
}

void beside_init(void)
{
	int err = weir_kind_trace(heap, trace, NULL, WEIR_TRACE_ALWAYS, &kind);

	if (err)
		fail(NULL, "weir_kind_trace: error %d, %s", -err,
		     weir_error_text());
}

static bool make_holder(struct worker *w, struct beside *b, void *volatile *to)
{
	struct holder *h = weir_alloc_kind(w->m, sizeof(*h), kind);

	if (!h)
		return false;
	h->beside = b;
	*to = h;
	return true;
}

bool beside_create(struct worker *w)
{
	struct beside *b = w->beside;

	if (!b) {
		b = calloc(1, sizeof(*b));
		if (!b)
			fail(w, "no memory beside the heap");
		b->next = __atomic_load_n(&all, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(&all, &b->next, b, true,
						    __ATOMIC_RELEASE,
						    __ATOMIC_RELAXED))
			;
		w->beside = b;
	}
	return make_holder(w, b, &w->anchor[3]);
}

static void add_link(struct worker *w, struct place *at, char *raw)
{
	int err;

	at->link = (void *)hide(raw);
	err = weir_link_add(heap, &at->link, raw, WEIR_LINK_SHORT);
	if (err == -ENOMEM)
		at->link = NULL;
	else if (err)
		fail(w, "weir_link_add: error %d, %s", -err, weir_error_text());
}

/* Remove the link of a place; it must be there if its word is. */
static void remove_link(struct worker *w, struct place *at)
{
	int err = weir_link_remove(heap, &at->link, WEIR_LINK_SHORT);

	if (err && err != -ENOENT)
		fail(w, "weir_link_remove: error %d, %s", -err,
		     weir_error_text());
	if (err && at->link)
		fail(w, "a link is gone and its word was not cleared");
	at->link = NULL;
}

/* What a place holds, still itself; its link not cleared. */
static struct node *look(struct worker *w, const struct place *at,
			 const char *how)
{
	struct node *p = (void *)(at->ref - WANT_OFFSET(at->want));

	node_check(w, p, WANT_ID(at->want), how);
	return p;
}

static void clear(struct place *at)
{
	/* One store: a thread is stopped before it or behind it. */
	__atomic_store_n(&at->ref, 0, __ATOMIC_RELAXED);
	at->want = 0;
}

static void put(struct worker *w, struct place *at)
{
	uint64_t want;
	char *raw = bank_take(w, &want);

	if (!raw)
		return;
	__asm__ volatile("" : "+r"(raw));
	hold(w);
	at->want = want;
	__atomic_store_n(&at->ref, (uintptr_t)raw, __ATOMIC_RELAXED);
	if (one_in(w, 2))
		add_link(w, at, raw);
}

static void take(struct worker *w, struct place *at)
{
	bool linked = at->link != NULL;
	struct node *p = look(w, at, "beside the heap");
	uint64_t id = WANT_ID(at->want);

	__asm__ volatile("" : "+r"(p));
	if (linked && !at->link)
		fail(w, "the link of a payload that is held was cleared");
	clear(at);
	hold(w);
	node_check(w, p, id, "out of memory beside the heap");
	if (linked)
		remove_link(w, at);
	bank_put(w, p);
}

/* Drop the payload and leave its link to be cleared. */
static void drop(struct worker *w, struct place *at)
{
	look(w, at, "beside the heap, to be dropped");
	clear(at);
	at->dropped = at->link != NULL;
}

void beside_step(struct worker *w)
{
	struct place *at = &w->beside->place[below(w, PLACES)];
	void *volatile brief;

	if (at->dropped) {
		if (!__atomic_load_n(&at->link, __ATOMIC_RELAXED))
			w->n.links_cleared++;
		else if (!one_in(w, 64))
			return;
		remove_link(w, at);
		at->dropped = false;
	} else if (!at->want) {
		put(w, at);
	} else if (one_in(w, 4)) {
		drop(w, at);
	} else {
		take(w, at);
	}
	w->n.beside++;
	if (one_in(w, 16))
		beside_create(w); /* another object leads there */
	if (one_in(w, 8))
		make_holder(w, &empty, &brief);
}

void beside_audit(struct worker *w)
{
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *at = &w->beside->place[i];

		if (!at->want)
			continue;
		node_contents(w, look(w, at, "beside the heap, audit"));
	}
}

void beside_destroy(struct worker *w)
{
	if (!w->beside)
		return;
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *at = &w->beside->place[i];

		clear(at);
		if (at->link || at->dropped)
			remove_link(w, at);
	}
	w->anchor[3] = NULL;
}
