/* SPDX-License-Identifier: MIT */
/*
 * Links: words of the program that are cleared when an object dies.
 *
 * A link is a watch of its target and the address of a word, its slot, by
 * which it is found: the table is hashed by slot, and a slot has at most one
 * short and one long link.  The slot may lie in an object of the heap.  That
 * one may die first, and its memory be another object's, so:
 *
 *	(L) after a pause the slot of every link lies outside of the heap, or
 *	    in an object that the pause found alive, or was given since
 *
 * A link is undecided while its target is not black, or while its slot lies in
 * the heap and in no black object.  What is undecided in the pause:
 *
 *   clear    before finalizers are queued: short links to what is not marked.
 *            The word is stored to whether its own object lives or not: some
 *            finalizer may keep that one, and nothing is swept yet.
 *   finish   after it: links in what is not marked are dropped, their words
 *            left alone; then long links to what is not marked are cleared.
 *            The latter before more is marked on behalf of objects that are
 *            asked before they go: those are dead to whoever has a link.
 *
 * So at the end of a pause every link is decided, as weak references are.  The
 * store may find its page protected.  The collector's thread faults like any
 * other: it does not block SIGSEGV and SIGBUS, and the listener of the sync
 * barrier is never stopped.  The page is dirty in the next cycle for nothing.
 *
 *   add, remove, move    any thread, under the lock
 *   clear, finish        the collector in a pause, the lock held
 */
#include "gc/weak_tables.h"

#include <errno.h>

#include <weir/embed.h>

static inline struct wg_link *entry(const struct wg_links *l, uint32_t i)
{
	return (struct wg_link *)(void *)wg_watch_at(&l->table, i);
}

static inline uintptr_t slot_of(const struct wg_watch *e)
{
	return ((const struct wg_link *)(const void *)e)->slot;
}

/* By words, not by granules: slots may be neighbours. */
static inline uint32_t hash_slot(uintptr_t slot)
{
	return wg_weak_hash(slot * (16 / sizeof(void *)));
}
_Static_assert(WEIR_GRANULE_SHIFT == 4, "the 16 above");

static uint32_t hash_of(const struct wg_watch *e)
{
	return hash_slot(slot_of(e));
}

/* Whether the slot lies in memory that, for all that is marked, is free. */
static bool slot_dies(const struct weir_heap *h, const struct wg_watch *e)
{
	uintptr_t slot = slot_of(e);

	return wg_in_heap(h, slot) && !wg_black_at(h, slot);
}

int wg_links_create(struct weir_heap *h)
{
	struct wg_links *l = &h->weak->links;
	int err = wg_watches_create(h, &l->table, sizeof(struct wg_link));

	l->table.also = slot_dies;
	if (!err)
		err = wg_chains_create(h, &l->chains, &l->table, hash_of);
	return err;
}

void wg_links_destroy(struct weir_heap *h)
{
	struct wg_links *l = &h->weak->links;

	wg_watches_destroy(h, &l->table);
	wg_chains_destroy(h, &l->chains);
}

/* ---- The program -------------------------------------------------------- */

static uint32_t state_of(unsigned flags)
{
	return flags == WEIR_LINK_LONG ? WG_WATCH_LONG : 0;
}

/* The slot's link of that kind, or 0. */
static uint32_t find(const struct wg_links *l, uintptr_t slot, uint32_t kind)
{
	uint32_t i = *wg_chain(&l->chains, hash_slot(slot));

	while (i) {
		const struct wg_link *e = entry(l, i);

		if (e->slot == slot && (e->watch.state & WG_WATCH_LONG) == kind)
			break;
		i = e->watch.next;
	}
	return i;
}

static void drop(struct wg_links *l, uint32_t i)
{
	wg_chain_remove(&l->chains, &l->table, i);
	wg_watch_free(&l->table, i);
}

static bool insert(struct weir_heap *h, uintptr_t slot, uintptr_t target,
		   uint32_t kind)
{
	struct wg_links *l = &h->weak->links;
	uint32_t i = wg_watch_new(h, &l->table, target, kind);

	if (!i)
		return false;
	entry(l, i)->slot = slot;
	wg_chain_add(h, &l->chains, &l->table, i);
	return true;
}

/* What holds for every function below. */
static int check(const struct weir_heap *h, const char *function,
		 uintptr_t slot, unsigned flags)
{
	int err = wg_heap_enter_check(h, function);

	if (err)
		return err;
	if (!slot)
		return wr_invalid(function, "the slot is NULL");
	if (slot % sizeof(void *))
		return wr_invalid(function, "the slot %#lx is not aligned",
				  (unsigned long)slot);
	if (flags != WEIR_LINK_SHORT && flags != WEIR_LINK_LONG)
		return wr_invalid(function, "unknown flags %#x", flags);
	return 0;
}

/* A slot that is to be cleared.  One in free memory would be dropped by the
 * next pause, or else clear a word of whatever comes to be there. */
static int check_new(const struct weir_heap *h, const char *function,
		     uintptr_t slot)
{
	if (wg_in_heap(h, slot) && wg_resolve(h, slot) == SIZE_MAX)
		return wr_invalid(function,
				  "the slot %#lx lies in the heap, but in no "
				  "object",
				  (unsigned long)slot);
	return 0;
}

int weir_link_add(weir_heap *h, void **slot, const void *target, unsigned flags)
{
	struct weir_mutator *m = wg_mutator_self();
	uint32_t kind = state_of(flags), i, count;
	uintptr_t at = (uintptr_t)slot;
	bool ok = true;
	int err = check(h, __func__, at, flags);
	struct wg_links *l;

	if (!err)
		err = check_new(h, __func__, at);
	if (err)
		return err;
	if (wg_resolve(h, (uintptr_t)target) == SIZE_MAX)
		return wr_invalid(__func__,
				  "the target does not point into an object");
	l = &h->weak->links;
	wg_weak_lock(h, m);
	i = find(l, at, kind);
	if (i) {
		entry(l, i)->watch.object = (uintptr_t)target;
		wg_watch_pend(&l->table, i);
	} else {
		ok = insert(h, at, (uintptr_t)target, kind);
	}
	count = l->table.count;
	wg_weak_unlock(h, m);
	if (!ok)
		return wr_error(ENOMEM,
				"weir_link_add: no memory for one more than %u "
				"links",
				count);
	return i != 0;
}

static int no_link(const char *function, uintptr_t slot, unsigned flags)
{
	return wr_error(ENOENT, "%s: the slot %#lx has no %s link (any more)",
			function, (unsigned long)slot,
			flags == WEIR_LINK_LONG ? "long" : "short");
}

int weir_link_remove(weir_heap *h, void **slot, unsigned flags)
{
	struct weir_mutator *m = wg_mutator_self();
	uintptr_t at = (uintptr_t)slot;
	int err = check(h, __func__, at, flags);
	struct wg_links *l;
	uint32_t i;

	if (err)
		return err;
	l = &h->weak->links;
	wg_weak_lock(h, m);
	i = find(l, at, state_of(flags));
	if (i)
		drop(l, i);
	wg_weak_unlock(h, m);
	return i ? 0 : no_link(__func__, at, flags);
}

int weir_link_move(weir_heap *h, void **from, void **to, unsigned flags)
{
	struct weir_mutator *m = wg_mutator_self();
	uintptr_t at = (uintptr_t)from, there = (uintptr_t)to;
	uint32_t kind = state_of(flags), i, other;
	int err = check(h, __func__, at, flags);
	struct wg_links *l;

	if (!err)
		err = check(h, __func__, there, flags);
	if (!err)
		err = check_new(h, __func__, there);
	if (err)
		return err;
	l = &h->weak->links;
	wg_weak_lock(h, m);
	i = find(l, at, kind);
	other = find(l, there, kind);
	if (i && !other) {
		wg_chain_remove(&l->chains, &l->table, i);
		entry(l, i)->slot = there;
		wg_chain_add(h, &l->chains, &l->table, i);
		wg_watch_pend(&l->table, i);
	}
	wg_weak_unlock(h, m);
	if (!i)
		return no_link(__func__, at, flags);
	if (other && other != i)
		return wr_error(EEXIST,
				"weir_link_move: the slot %#lx has a %s link "
				"already; remove that first",
				(unsigned long)there, kind ? "long" : "short");
	return 0;
}

/* ---- The pause ---------------------------------------------------------- */

static bool target_dies(const struct weir_heap *h, const struct wg_watch *e)
{
	return !wg_black_at(h, e->object);
}

static void clear(struct wg_links *l, uint32_t i)
{
	/* Relaxed: threads that read it are stopped, or hold the lock when
	 * they do; the others only must not see half of it. */
	__atomic_store_n((uintptr_t *)entry(l, i)->slot, 0, __ATOMIC_RELAXED);
	drop(l, i);
}

void wg_links_clear(struct weir_heap *h)
{
	struct wg_links *l = &h->weak->links;
	struct wg_watches *t = &l->table;
	uint32_t *pending = wg_indexes(&t->pending);
	uint32_t kept = 0;

	for (uint32_t k = 0; k < t->pending_n; k++) {
		uint32_t i = pending[k];
		struct wg_watch *e = wg_watch_at(t, i);

		wg_watch_prefetch(h, t, k, t->pending_n);
		if ((e->state & WG_WATCH_LIVE) && !(e->state & WG_WATCH_LONG) &&
		    target_dies(h, e))
			clear(l, i);
		if (wg_watch_undecided(h, slot_dies, e))
			pending[kept++] = i;
		else
			wg_watch_set(e, e->state & ~(uint32_t)WG_WATCH_PENDING);
	}
	t->pending_n = kept;
}

void wg_links_clear_long(struct weir_heap *h)
{
	struct wg_links *l = &h->weak->links;
	struct wg_watches *t = &l->table;
	const uint32_t *pending = wg_indexes(&t->pending);

	for (uint32_t k = 0; k < t->pending_n; k++) {
		struct wg_watch *e = wg_watch_at(t, pending[k]);

		wg_watch_prefetch(h, t, k, t->pending_n);
		if ((e->state & WG_WATCH_LIVE) && target_dies(h, e))
			clear(l, pending[k]);
	}
}

/* Nothing stays pending: see above. */
void wg_links_finish(struct weir_heap *h)
{
	struct wg_links *l = &h->weak->links;
	struct wg_watches *t = &l->table;
	const uint32_t *pending = wg_indexes(&t->pending);

	for (uint32_t k = 0; k < t->pending_n; k++) {
		struct wg_watch *e = wg_watch_at(t, pending[k]);

		wg_watch_prefetch(h, t, k, t->pending_n);
		wg_watch_set(e, e->state & ~(uint32_t)WG_WATCH_PENDING);
		if (!(e->state & WG_WATCH_LIVE))
			continue; /* cleared */
		if (slot_dies(h, e))
			drop(l, pending[k]);
		else if (target_dies(h, e))
			clear(l, pending[k]);
	}
	t->pending_n = 0;
}
