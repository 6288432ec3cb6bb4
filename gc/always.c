/* SPDX-License-Identifier: MIT */
/*
 * Objects that every pause traces (WEIR_TRACE_ALWAYS).
 *
 * What such an object refers to may change without a write to its pages, so
 * that it was marked and scanned, and its pages are clean, says nothing: (1) of
 * gc/cycle.c does not hold for it.  Instead the pause traces all of them that
 * are alive, from a table of their addresses, which is not a root:
 *
 *   - those that are black when the pause begins, whenever that was, by a walk
 *     along the table.  Marking beside the program does nothing about them;
 *   - those that the pause makes black are traced when they are scanned, as all
 *     objects with callbacks are there.
 *
 * The mutators stand still, so once is enough.
 *
 * An entry is made together with its object: under the lock and in one CRITICAL
 * stretch, so that neither a pause nor a child of fork sees one of the two.
 * Hence kinds like this are not below WG_INLINE_KINDS: what inlined code
 * allocates nobody is told of.  The pause drops the entries of the dead, before
 * their memory can be used anew.  Black objects stay so in minor cycles, which
 * therefore look at those entries only that were made since the last pause.
 *
 * An object that was asked before it goes (gc/disclaim.c) may not be traced any
 * more, and is of the kind of leaves from then on: the next pause finds that,
 * and leaves 0 in the entry.
 *
 *	(A) after a pause every entry's object is black, and no other object of
 *	    such a kind is
 *
 * Locks.  One, of the rank `always`; a mutator holds it only while CRITICAL, so
 * that no stopped thread has it.
 *
 *   create, destroy         one thread, before and after all others
 *   need, count             any thread
 *   begin, end, undo        mutators, CRITICAL
 *   trace, filter, check    the collector, in the pause
 *   fork                    the thread that forks
 */
#include "gc/always.h"

#include <errno.h>
#include <stdlib.h>

#include "gc/weak_tables.h"

struct wg_always {
	struct wr_mutex lock;    /* guards all below */
	struct wg_array objects; /* uintptr_t: where they start, or 0 */
	size_t count;            /* entries in use */
	size_t old;              /* of them, from the first on, were black in
				  * the last pause */
};

static inline uintptr_t *entries(const struct wg_always *t)
{
	return (uintptr_t *)(void *)t->objects.base;
}

static inline bool is_black_at(const struct weir_heap *h, uintptr_t p)
{
	return wg_is_black(h, wg_granule_of(h, p));
}

static inline void prefetch(const struct weir_heap *h,
			    const struct wg_always *t, size_t k)
{
	if (k + WG_AHEAD < t->count && entries(t)[k + WG_AHEAD])
		__builtin_prefetch(
			&h->meta[wg_granule_of(h, entries(t)[k + WG_AHEAD])]);
}

int wg_always_create(struct weir_heap *h)
{
	h->always = calloc(1, sizeof(*h->always));
	if (!h->always)
		return wr_error(ENOMEM, "no memory for the table of objects "
					"that are always traced");
	wr_mutex_init(&h->always->lock, WR_RANK_always);
	return 0;
}

void wg_always_destroy(struct weir_heap *h)
{
	if (!h->always)
		return;
	wg_array_destroy(&h->always->objects, h->sys);
	wr_mutex_destroy(&h->always->lock);
	free(h->always);
	h->always = NULL;
}

/* The lock, with the caller (a mutator or NULL) CRITICAL. */
static void lock(struct wg_always *t, struct weir_mutator *m)
{
	wg_critical_enter(m);
	wr_mutex_lock(&t->lock);
}

static void unlock(struct wg_always *t, struct weir_mutator *m)
{
	wr_mutex_unlock(&t->lock);
	wg_critical_leave(m);
}

int wg_always_need(struct weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	struct wg_always *t = h->always;
	size_t most = h->extent >> WEIR_GRANULE_SHIFT;
	int err = 0;

	if (most > (size_t)1 << 28)
		most = (size_t)1 << 28;
	lock(t, m);
	if (!t->objects.base)
		err = wg_array_create(&t->objects, h->sys,
				      most * sizeof(uintptr_t));
	unlock(t, m);
	return err;
}

bool wg_always_begin(struct weir_heap *h, const void *p)
{
	struct wg_always *t = h->always;

	wr_mutex_lock(&t->lock);
	if (!wg_array_grow(&t->objects, h->sys,
			   (t->count + 1) * sizeof(uintptr_t))) {
		wr_mutex_unlock(&t->lock);
		return false;
	}
	entries(t)[t->count++] = (uintptr_t)p;
	wg_delay_rarely(h);
	return true;
}

void wg_always_end(struct weir_heap *h)
{
	wg_delay_rarely(h);
	wr_mutex_unlock(&h->always->lock);
}

void wg_always_undo(struct weir_heap *h)
{
	h->always->count--;
	wr_mutex_unlock(&h->always->lock);
}

/* One that the walk itself makes black, because another one refers to it, is
 * traced twice if its turn is yet to come. */
void wg_always_trace(struct weir_heap *h, struct wg_marker *m)
{
	struct wg_always *t = h->always;

	wr_mutex_lock(&t->lock);
	for (size_t k = 0; k < t->count; k++) {
		uintptr_t p = entries(t)[k];
		size_t g = wg_granule_of(h, p), bytes;
		const struct wg_kind *kind;

		prefetch(h, t, k);
		if (!p || !wg_is_black(h, g))
			continue;
		bytes = wg_object_bytes(h, g);
		kind = wg_object_kind(h, g, wg_meta_load(&h->meta[g]), bytes);
		if (wr_unlikely(!kind->always)) {
			entries(t)[k] = 0;
			continue;
		}
		kind->fn((void *)p, bytes, (struct weir_visitor *)(void *)m,
			 kind->arg);
	}
	wr_mutex_unlock(&t->lock);
}

/* Not what was one, and was asked before it goes (gc/disclaim.c). */
static bool is_always(const struct weir_heap *h, uintptr_t p)
{
	size_t g = wg_granule_of(h, p);

	return wg_object_kind(h, g, wg_meta_load(&h->meta[g]),
			      wg_object_bytes(h, g))
		->always;
}

void wg_always_filter(struct weir_heap *h, bool full)
{
	struct wg_always *t = h->always;
	size_t kept;

	wr_mutex_lock(&t->lock);
	kept = full ? 0 : t->old;
	for (size_t k = kept; k < t->count; k++) {
		uintptr_t p = entries(t)[k];

		prefetch(h, t, k);
		if (p && is_black_at(h, p) && is_always(h, p))
			entries(t)[kept++] = p;
	}
	t->count = t->old = kept;
	wr_mutex_unlock(&t->lock);
}

void wg_always_check(struct weir_heap *h)
{
	struct wg_always *t = h->always;

	wr_mutex_lock(&t->lock);
	for (size_t k = 0; k < t->count; k++) {
		uintptr_t p = entries(t)[k];
		size_t g = wg_granule_of(h, p);

		if (!p)
			continue;
		wr_require(is_black_at(h, p),
			   "invariants: %#lx is in the table of objects that "
			   "are always traced, and dead",
			   (unsigned long)p);
		wr_require(wg_object_kind(h, g, wg_meta_load(&h->meta[g]),
					  wg_object_bytes(h, g))
				   ->always,
			   "invariants: %#lx is in the table of objects that "
			   "are always traced, and of another kind",
			   (unsigned long)p);
	}
	wr_mutex_unlock(&t->lock);
}

void wg_always_fork(struct weir_heap *h, int stage)
{
	if (stage == 0)
		wr_mutex_lock(&h->always->lock);
	else
		wr_mutex_unlock(&h->always->lock);
}

size_t wg_always_count(struct weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	size_t n;

	lock(h->always, m);
	n = h->always->count;
	unlock(h->always, m);
	return n;
}
