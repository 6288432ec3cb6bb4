/* SPDX-License-Identifier: MIT */
/*
 * Objects that are asked before they go (weir_kind_disclaim).
 *
 * Each object of such a kind has a watch (gc/weak_tables.h), made together with
 * it: under the tables' lock and in one CRITICAL stretch, so that neither a
 * pause nor a child of fork sees one of the two.
 *
 *   LIVE      until a pause finds the object dead.  That pause marks it with
 *             all it reaches, so that nothing of it is swept:
 *   QUEUED    from then on it is a root (gc/weak.c), until it was asked.  An
 *             entry that was taken from the queue is QUEUED yet while the
 *             function runs, and its object on the stack of who runs it.
 *             Then it is LIVE again, if the object is to stay, or free, and
 *             the object a leaf: its function may have released what a trace
 *             function looks at
 *
 * So an object costs a cycle more than another: it is black when its entry is
 * freed.  For this nothing that runs beside the program, sweeping among it, has
 * to know of it, and the function runs where the program may do anything but
 * refer to the object.
 *
 * Ordered ones.  Before anything is cleared or queued the references in each
 * that is not black are marked, and not it itself: it is then black if and only
 * if another one, or it itself, reaches it, and has to wait.  This is what
 * ordered finalizers do, for references of all kinds.
 *
 * Forgotten ones have the number of the kind without a function in their last
 * word.  Markers may read that word at any time, and find one or the other:
 * both kinds are traced alike.  An entry of such an object is dropped when the
 * object is dead, or its turn in the queue comes.
 *
 *   begin, end           mutators, CRITICAL
 *   run, queued, forget  threads of the program, at any time, any number
 *   order, pause         the collector in the pause, the lock held
 */
#include "gc/weak_tables.h"

#include <errno.h>
#include <string.h>

#include <weir/embed.h>

int wg_disclaims_create(struct weir_heap *h)
{
	struct wg_disclaims *d = &h->weak->dis;
	int err = wg_watches_create(h, &d->table, sizeof(struct wg_watch));

	if (!err)
		err = wg_array_create(&d->queue, h->sys,
				      d->table.pending.reserved);
	return err;
}

void wg_disclaims_destroy(struct weir_heap *h)
{
	struct wg_disclaims *d = &h->weak->dis;

	wg_watches_destroy(h, &d->table);
	wg_array_destroy(&d->queue, h->sys);
}

/* ---- Allocation --------------------------------------------------------- */

bool wg_disclaim_begin(struct weir_heap *h, const void *p,
		       const struct wg_kind *k)
{
	struct wg_disclaims *d = &h->weak->dis;

	wr_mutex_lock(&h->weak->lock);
	/* There is room in the queue for every entry. */
	if (!wg_array_grow(&d->queue, h->sys,
			   (d->table.high + 1ul) * sizeof(uint32_t)) ||
	    !wg_watch_new(h, &d->table, (uintptr_t)p,
			  k->ordered ? WG_WATCH_ORDERED : 0)) {
		wr_mutex_unlock(&h->weak->lock);
		return false;
	}
	wg_delay_rarely(h);
	return true;
}

void wg_disclaim_end(struct weir_heap *h)
{
	wg_delay_rarely(h);
	wr_mutex_unlock(&h->weak->lock);
}

/* ---- The object --------------------------------------------------------- */

/* Where the number of its kind is. */
static inline uint64_t *kind_word(const struct weir_heap *h, uintptr_t object)
{
	size_t bytes = wg_object_bytes(h, wg_granule_of(h, object));

	return (uint64_t *)(object + bytes - sizeof(uint64_t));
}

/* Its kind, or NULL if it has no function (any more). */
static const struct wg_kind *kind_of(const struct weir_heap *h,
				     uintptr_t object)
{
	/* Relaxed: partner of the store in weir_disclaim_forget(); whoever
	 * must not see the old one is ordered after that by the program. */
	uint64_t number =
		__atomic_load_n(kind_word(h, object), __ATOMIC_RELAXED);
	const struct wg_kind *k = &h->kinds[(uint32_t)number];

	return k->disclaim ? k : NULL;
}

int weir_disclaim_forget(weir_heap *h, void *object)
{
	uintptr_t p = (uintptr_t)object;
	int err = wg_heap_enter(h);
	const struct wg_kind *k = NULL;
	size_t g;

	if (err)
		return err;
	g = wg_resolve(h, p);
	if (g != SIZE_MAX && wg_granule_start(h, g) == p &&
	    wg_meta_load(&h->meta[g]) >> WEIR_META_KIND_SHIFT ==
		    WG_INLINE_KINDS)
		k = kind_of(h, p);
	if (!k)
		return wr_error(ENOENT, "weir_disclaim_forget: no object of a "
					"disclaiming kind starts there");
	__atomic_store_n(kind_word(h, p), k->like, __ATOMIC_RELAXED);
	return 0;
}

/* ---- The pause ---------------------------------------------------------- */

static bool dies(const struct weir_heap *h, const struct wg_watch *e)
{
	return (e->state & WG_WATCH_LIVE) && !wg_black_at(h, e->object);
}

void wg_disclaims_order(struct weir_heap *h)
{
	struct wg_watches *t = &h->weak->dis.table;
	const uint32_t *pending = wg_indexes(&t->pending);
	bool any = false;

	for (uint32_t k = 0; k < t->pending_n; k++) {
		const struct wg_watch *e = wg_watch_at(t, pending[k]);

		wg_watch_prefetch(h, t, k, t->pending_n);
		if (!(e->state & WG_WATCH_ORDERED) || !dies(h, e) ||
		    !kind_of(h, e->object))
			continue;
		wg_push_children(h, e->object);
		any = true;
	}
	if (any)
		wg_ephemerons_resolve(h);
}

static void enqueue(struct wg_disclaims *d, uint32_t i)
{
	struct wg_watch *e = wg_watch_at(&d->table, i);
	uint32_t *queue = wg_indexes(&d->queue);

	if (d->tail * sizeof(*queue) == d->queue.committed) {
		/* There is room for every entry, so head is not 0. */
		memmove(queue, queue + d->head,
			(d->tail - d->head) * sizeof(*queue));
		d->tail -= d->head;
		d->head = 0;
	}
	queue[d->tail++] = i;
	wg_watch_set(e,
		     (e->state & ~(uint32_t)WG_WATCH_LIVE) | WG_WATCH_QUEUED);
}

void wg_disclaims_pause(struct weir_heap *h)
{
	struct wg_disclaims *d = &h->weak->dis;
	struct wg_watches *t = &d->table;
	const uint32_t *pending = wg_indexes(&t->pending);
	uint32_t n = 0;

	for (uint32_t k = 0; k < t->pending_n; k++) {
		struct wg_watch *e = wg_watch_at(t, pending[k]);

		wg_watch_prefetch(h, t, k, t->pending_n);
		wg_watch_set(e, e->state & ~(uint32_t)WG_WATCH_PENDING);
		if (!dies(h, e))
			continue;
		if (kind_of(h, e->object)) {
			enqueue(d, pending[k]);
			n++;
		} else {
			wg_watch_free(t, pending[k]);
		}
	}
	t->pending_n = 0;
	if (!n)
		return;
	wg_links_clear_long(h);
	/* Those that wait have dead keys, some of which are about to be marked
	 * all the same: nobody is to get them from there. */
	wg_ephemerons_clear(h);
	for (uint32_t k = d->tail - n; k < d->tail; k++)
		wg_push(h->marker[0],
			wg_watch_at(t, wg_indexes(&d->queue)[k])->object);
	wg_ephemerons_resolve(h);
	/* Partner: the acquire load in take(), where who sees that there are
	 * some takes the lock; one that misses it comes again. */
	__atomic_store_n(&d->queued, d->tail - d->head, __ATOMIC_RELEASE);
}

/* ---- Asking ------------------------------------------------------------- */

/* Take the first of the queue; its index, or 0. */
static uint32_t take(struct weir_heap *h, struct weir_mutator *m,
		     uintptr_t *object)
{
	struct wg_disclaims *d = &h->weak->dis;
	uint32_t i = 0;

	/* A look without the lock: what is missed is there at the next. */
	if (!__atomic_load_n(&d->queued, __ATOMIC_ACQUIRE))
		return 0;
	wg_weak_lock(h, m);
	if (d->head < d->tail) {
		i = wg_indexes(&d->queue)[d->head++];
		*object = wg_watch_at(&d->table, i)->object;
		if (d->head == d->tail)
			d->head = d->tail = 0;
		__atomic_store_n(&d->queued, d->tail - d->head,
				 __ATOMIC_RELEASE);
	}
	wg_weak_unlock(h, m);
	return i;
}

/* It was asked, or forgotten. */
static void answered(struct weir_heap *h, struct weir_mutator *m, uint32_t i,
		     bool stays)
{
	struct wg_watches *t = &h->weak->dis.table;
	struct wg_watch *e = wg_watch_at(t, i);

	wg_weak_lock(h, m);
	if (stays) {
		wg_watch_set(e, (e->state & ~(uint32_t)WG_WATCH_QUEUED) |
					WG_WATCH_LIVE);
		wg_watch_pend(t, i);
	} else {
		wg_watch_free(t, i);
	}
	wg_weak_unlock(h, m);
}

/* What its function released is not to be traced by the program's function: a
 * leaf.  Others still lead to what they refer to, for those that were found
 * dead with them.  Relaxed: markers that read the old kind yet do what they
 * could have done before. */
static void inert(const struct weir_heap *h, const struct wg_kind *k,
		  uintptr_t object)
{
	__atomic_store_n(kind_word(h, object),
			 WG_KIND_WENT | (k->type == WG_KIND_TRACE
						 ? (uint64_t)WEIR_KIND_LEAF
						 : k->like),
			 __ATOMIC_RELAXED);
}

long weir_disclaim_run(weir_mutator *m, size_t max)
{
	uintptr_t object;
	size_t ran = 0;
	uint32_t i;

	if (!wg_mutator_ok(m, __func__))
		return -EINVAL;
	while ((!max || ran < max) && (i = take(m->heap, m, &object))) {
		const struct wg_kind *k = kind_of(m->heap, object);
		bool stays = false;

		if (k) {
			m->callbacks++;
			stays = k->disclaim((void *)object, k->disclaim_arg);
			m->callbacks--;
			ran++;
			if (!stays)
				inert(m->heap, k, object);
		}
		answered(m->heap, m, i, stays);
		/* Found on this stack until the entry is LIVE. */
		__asm__ volatile("" ::"r"(object) : "memory");
	}
	return (long)ran;
}

size_t weir_disclaim_queued(weir_heap *h)
{
	/* Relaxed: partner of the releases in take() and in the pause; a
	 * number, no other memory depends on it. */
	return wg_heap_ok(h)
		       ? __atomic_load_n(&h->weak->dis.queued, __ATOMIC_RELAXED)
		       : 0;
}
