/* SPDX-License-Identifier: MIT */
/*
 * Finalizers: the table, and what the pause does with it.
 *
 * The table is hashed by object address; an object has at most one entry that
 * is not QUEUED.
 *
 * In the pause, marking done, the entries that are pending are those whose
 * objects are unreachable.  Unordered ones are queued.  For the ordered ones
 * the references in each are marked, but not the object itself: it is then
 * marked if and only if another unreachable finalizable object, or it itself,
 * reaches it, and must wait.  For those that are to ignore themselves it is
 * taken for marked meanwhile, so that its own references to it change nothing.
 * The rest are queued.  What is queued is marked with all it reaches.
 *
 *   weir_finalizer_set   any thread
 *   pause                the collector, the lock held
 */
#include "gc/weak_tables.h"

#include <errno.h>
#include <string.h>

#include <weir/embed.h>

static inline struct wg_finalizer *entry(const struct wg_finalizers *f,
					 uint32_t i)
{
	return (struct wg_finalizer *)(void *)wg_watch_at(&f->table, i);
}

static uint32_t hash_of(const struct wg_watch *e)
{
	return wg_weak_hash(e->object);
}

int wg_finalizers_create(struct weir_heap *h)
{
	struct wg_finalizers *f = &h->weak->fin;
	int err = wg_watches_create(h, &f->table, sizeof(struct wg_finalizer));

	if (!err)
		err = wg_chains_create(h, &f->chains, &f->table, hash_of);
	if (!err)
		err = wg_array_create(&f->queue, h->sys,
				      f->table.pending.reserved);
	return err;
}

void wg_finalizers_destroy(struct weir_heap *h)
{
	struct wg_finalizers *f = &h->weak->fin;

	wg_watches_destroy(h, &f->table);
	wg_chains_destroy(h, &f->chains);
	wg_array_destroy(&f->queue, h->sys);
}

/* ---- The hash table ----------------------------------------------------- */

/* The object's entry that is not queued, or 0. */
static uint32_t find(const struct wg_finalizers *f, uintptr_t object)
{
	uint32_t i = *wg_chain(&f->chains, wg_weak_hash(object));

	while (i) {
		const struct wg_watch *e = wg_watch_at(&f->table, i);

		if (e->object == object && !(e->state & WG_WATCH_QUEUED))
			break;
		i = e->next;
	}
	return i;
}

void wg_finalizer_drop(struct wg_finalizers *f, uint32_t i)
{
	wg_chain_remove(&f->chains, &f->table, i);
	wg_watch_free(&f->table, i);
}

static bool insert(struct weir_heap *h, struct wg_finalizers *f,
		   uintptr_t object, uint32_t state, weir_finalizer_fn *fn,
		   void *arg)
{
	uint32_t i;

	if (!wg_array_grow(&f->queue, h->sys,
			   (f->table.high + 1ul) * sizeof(uint32_t)))
		return false;
	i = wg_watch_new(h, &f->table, object, state);
	if (!i)
		return false;
	entry(f, i)->fn = fn;
	entry(f, i)->arg = arg;
	wg_chain_add(h, &f->chains, &f->table, i);
	return true;
}

/* 0, 1 if there was one, whose argument *old is, or an error of `function`. */
static int set(weir_heap *h, void *object, weir_finalizer_fn *fn, void *arg,
	       unsigned flags, void **old, const char *function)
{
	struct weir_mutator *m = wg_mutator_self();
	uint32_t ordered =
		(flags & WEIR_FINALIZE_ORDERED ? WG_WATCH_ORDERED : 0) |
		(flags & WEIR_FINALIZE_IGNORE_SELF ? WG_WATCH_SELF : 0);
	struct wg_finalizers *f;
	bool ok = true;
	uint32_t i, count;
	size_t g;
	int err = wg_heap_enter_check(h, function);

	if (err)
		return err;
	g = wg_resolve(h, (uintptr_t)object);
	if (g == SIZE_MAX || wg_granule_start(h, g) != (uintptr_t)object)
		return wr_invalid(function, "not the start of an object");
	if (flags & ~(WEIR_FINALIZE_ORDERED | WEIR_FINALIZE_IGNORE_SELF) ||
	    flags == WEIR_FINALIZE_IGNORE_SELF)
		return wr_invalid(function, "unknown flags %#x", flags);
	f = &h->weak->fin;
	wg_weak_lock(h, m);
	i = find(f, (uintptr_t)object);
	if (i)
		*old = entry(f, i)->arg;
	if (!fn && i) {
		wg_finalizer_drop(f, i);
	} else if (i) {
		struct wg_watch *e = wg_watch_at(&f->table, i);

		wg_watch_set(e, (e->state & ~(uint32_t)(WG_WATCH_ORDERED |
							WG_WATCH_SELF)) |
					ordered);
		entry(f, i)->fn = fn;
		entry(f, i)->arg = arg;
	} else if (fn) {
		ok = insert(h, f, (uintptr_t)object, ordered, fn, arg);
	}
	count = f->table.count;
	wg_weak_unlock(h, m);
	if (!ok)
		return wr_error(ENOMEM,
				"%s: no memory for one more than %u "
				"finalizers",
				function, count);
	return i != 0;
}

int weir_finalizer_set(weir_heap *h, void *object, weir_finalizer_fn *fn,
		       void *arg, unsigned flags)
{
	void *old;
	int err = set(h, object, fn, arg, flags, &old, __func__);

	return err < 0 ? err : 0;
}

int weir_finalizer_swap(weir_heap *h, void *object, weir_finalizer_fn *fn,
			void *arg, unsigned flags, void **old)
{
	if (!old)
		return wr_invalid(__func__, "no place for the argument of the "
					    "one that is replaced");
	return set(h, object, fn, arg, flags, old, __func__);
}

/* ---- The pause ---------------------------------------------------------- */

static void enqueue(struct weir_heap *h, uint32_t i)
{
	struct wg_finalizers *f = &h->weak->fin;
	struct wg_watch *e = wg_watch_at(&f->table, i);
	uint32_t *queue = wg_indexes(&f->queue);

	if (f->tail * sizeof(*queue) == f->queue.committed) {
		/* There is room for every entry, so head is not 0. */
		memmove(queue, queue + f->head,
			(f->tail - f->head) * sizeof(*queue));
		f->tail -= f->head;
		f->ready -= f->head;
		f->head = 0;
	}
	queue[f->tail++] = i;
	wg_watch_set(e,
		     (e->state & ~(uint32_t)WG_WATCH_LIVE) | WG_WATCH_QUEUED);
	wg_push(h->marker[0], e->object);
}

void wg_push_children(struct weir_heap *h, uintptr_t object)
{
	struct wg_marker *m = h->marker[0];
	size_t g = wg_granule_of(h, object);

	/* A large object leaves a slice to be scanned, of which there is room
	 * for so many. */
	if (m->slices > WG_SLICES / 2)
		wg_team_mark(h, 1);
	wg_scan_object(m, g, wg_meta_load(&h->meta[g]));
	/* It was not marked. */
	m->objects--;
	m->bytes -= wg_object_bytes(h, g);
}

/*
 * The same without its references to itself.  Nobody else marks: what the
 * marker still has of them in its ring is dropped.  (Of an object so large that
 * its end is scanned later, references there do count.)
 */
static void push_others(struct weir_heap *h, uintptr_t object)
{
	struct wg_marker *m = h->marker[0];
	size_t g = wg_granule_of(h, object);
	uint8_t byte = wg_meta_load(&h->meta[g]);
	size_t bytes = wg_object_bytes(h, g);

	/* What others refer to does count: mark all that was pushed. */
	wg_team_mark(h, 1);
	byte = wg_meta_load(&h->meta[g]);
	if ((byte & WEIR_META_COLOUR) == h->colour)
		return;
	__atomic_store_n(&h->meta[g],
			 (uint8_t)((byte & ~WEIR_META_COLOUR) | h->colour),
			 __ATOMIC_RELAXED);
	wg_push_children(h, object);
	for (unsigned i = 0; i < WG_RING; i++)
		if (m->ring[i] - object < bytes)
			m->ring[i] = 0;
	__atomic_store_n(&h->meta[g], byte, __ATOMIC_RELAXED);
}

void wg_finalizers_pause(struct weir_heap *h)
{
	struct wg_finalizers *f = &h->weak->fin;
	struct wg_watches *t = &f->table;
	uint32_t *pending = wg_indexes(&t->pending);
	uint32_t ordered = 0, unreached = 0;

	if (!t->pending_n)
		return;
	for (uint32_t k = 0; k < t->pending_n; k++) {
		struct wg_watch *e = wg_watch_at(t, pending[k]);

		wg_watch_set(e, e->state & ~(uint32_t)WG_WATCH_PENDING);
		if (e->state & WG_WATCH_ORDERED) {
			pending[ordered++] = pending[k];
			if (e->state & WG_WATCH_SELF)
				push_others(h, e->object);
			else
				wg_push_children(h, e->object);
		} else {
			enqueue(h, pending[k]);
		}
	}
	t->pending_n = 0;
	wg_ephemerons_resolve(h);
	/* All are told apart before one is marked. */
	for (uint32_t k = 0; k < ordered; k++)
		if (!wg_black_at(h, wg_watch_at(t, pending[k])->object))
			pending[unreached++] = pending[k];
	for (uint32_t k = 0; k < unreached; k++)
		enqueue(h, pending[k]);
	if (ordered)
		wg_ephemerons_resolve(h);
	if (f->told)
		return; /* wg_finalizers_tell() lets them out */
	f->ready = f->tail;
	/* Partner: the acquire load in finalize_run.c, where who sees that
	 * there are some takes the lock; a mutator that misses it comes again.
	 */
	__atomic_store_n(&f->queued, f->ready - f->head, __ATOMIC_RELEASE);
}
