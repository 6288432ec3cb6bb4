/* SPDX-License-Identifier: MIT */
/*
 * Weak references, links, finalizers, objects that are asked before they go,
 * and ephemerons: what the cycle calls.
 *
 * The order in the pause, marking being done:
 *
 *  1. ephemerons: values whose keys are marked, and what these lead to; then
 *     what ordered disclaiming objects refer to that are not marked themselves;
 *  2. weak references and short links to what is not marked are cleared.  A
 *     reference is cleared before any finalizer that could bring its target
 * back runs, so nobody gets at an object through it whose finalizer ran;
 *  3. finalizers of what is not marked are queued, the objects and what they
 *     reach are marked, ephemeron values again among it: a finalizer finds
 *     the entries of tables that its object is a key of;
 *  4. disclaiming objects that are still not marked are queued: long links to
 *     what is not marked are cleared, then they are marked with what they
 *     reach, so that it is all there when they are asked;
 *  5. ephemerons whose keys are still not marked are cleared, and so are long
 *     links by their targets; links in what is not marked are dropped.
 *
 * Locks.  One, of the rank `finalizers`.  A mutator holds it only while
 * CRITICAL, so no stopped thread has it; in the pause it can be held by a
 * thread that is not stopped, in the middle of a call, for as long as an
 * entry takes.  No other lock is waited for under it, but for those of the
 * mark stacks.
 *
 *   create, destroy            one thread, before and after all others
 *   scan_roots, preclean,      the collector
 *     pause, after
 *   ephemeron_reached, _key    markers (ephemeron.c)
 *   fork                       the thread that forks
 */
#include "gc/weak_tables.h"

#include <errno.h>
#include <stdlib.h>

void wg_weak_lock(struct weir_heap *h, struct weir_mutator *m)
{
	wg_critical_enter(m);
	wg_delay_rarely(h);
	wr_mutex_lock(&h->weak->lock);
}

void wg_weak_unlock(struct weir_heap *h, struct weir_mutator *m)
{
	wr_mutex_unlock(&h->weak->lock);
	wg_delay_rarely(h);
	wg_critical_leave(m);
}

void wg_weak_enter(struct weir_heap *h)
{
	if (!wg_weak_paused(h))
		wg_weak_lock(h, NULL);
}

void wg_weak_leave(struct weir_heap *h)
{
	if (!wg_weak_paused(h))
		wg_weak_unlock(h, NULL);
}

int wg_weak_create(struct weir_heap *h)
{
	struct wg_weak_tables *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return wr_error(ENOMEM, "no memory for weak references");
	h->weak = w;
	w->colour = h->colour;
	wr_mutex_init(&w->lock, WR_RANK_finalizers);
	pthread_cond_init(&w->wake, NULL);
	err = wg_watches_create(h, &w->refs, sizeof(struct weir_weak));
	if (!err)
		err = wg_links_create(h);
	if (!err)
		err = wg_finalizers_create(h);
	if (!err)
		err = wg_disclaims_create(h);
	if (!err)
		err = wg_ephemerons_create(h);
	return err;
}

void wg_weak_destroy(struct weir_heap *h)
{
	struct wg_weak_tables *w = h->weak;

	if (!w)
		return;
	wg_weak_thread_stop(h);
	wg_watches_destroy(h, &w->refs);
	wg_links_destroy(h);
	wg_finalizers_destroy(h);
	wg_disclaims_destroy(h);
	wg_ephemerons_destroy(h);
	pthread_cond_destroy(&w->wake);
	wr_mutex_destroy(&w->lock);
	h->weak = NULL;
	free(w);
}

/* Whether the cycle under way turned the colour. */
static bool full_cycle(const struct weir_heap *h)
{
	return h->colour != h->weak->colour;
}

/*
 * An object is marked when it is queued, and black objects stay so in minor
 * cycles.  In a full cycle nothing is queued before the pause is over; an
 * entry that is taken from the queue meanwhile goes to the taker's stack.
 * Hence once a full cycle is enough.
 */
static void scan_queued(struct weir_heap *h, struct wg_marker *m,
			const struct wg_watches *t, const uint32_t *head,
			const uint32_t *tail)
{
	bool more = true;

	/* By table, not by queue: the queue moves between the batches. */
	for (uint32_t i = 1; more;) {
		uint32_t end;

		wg_weak_lock(h, NULL);
		end = t->high;
		if (!m->in_pause && end - i > WG_WEAK_BATCH)
			end = i + WG_WEAK_BATCH;
		for (; i < end; i++) {
			struct wg_watch *e = wg_watch_at(t, i);

			if (e->state & WG_WATCH_QUEUED)
				wg_push(m, e->object);
		}
		more = i < t->high && *head != *tail;
		wg_weak_unlock(h, NULL);
	}
}

void wg_weak_scan_roots(struct weir_heap *h, struct wg_marker *m)
{
	struct wg_weak_tables *w = h->weak;

	if (!full_cycle(h) || w->queue_marked)
		return;
	w->queue_marked = true;
	scan_queued(h, m, &w->fin.table, &w->fin.head, &w->fin.tail);
	scan_queued(h, m, &w->dis.table, &w->dis.head, &w->dis.tail);
}

void wg_weak_preclean(struct weir_heap *h)
{
	struct wg_weak_tables *w = h->weak;
	bool full = full_cycle(h);

	wg_ephemerons_resolve(h);
	wg_watches_filter(h, &w->refs, full);
	wg_watches_filter(h, &w->links.table, full);
	wg_watches_filter(h, &w->fin.table, full);
	wg_watches_filter(h, &w->dis.table, full);
	w->precleaned = true;
}

void wg_weak_pause(struct weir_heap *h)
{
	struct wg_weak_tables *w = h->weak;
	uint64_t begin = h->sys->now_ns();
	bool full = full_cycle(h);
	bool all = full && !w->precleaned;

	wg_weak_lock(h, NULL);
	wg_ephemerons_resolve(h);
	wg_watches_filter(h, &w->dis.table, all);
	wg_disclaims_order(h);
	if (all) {
		wg_watches_filter(h, &w->refs, true);
		wg_watches_filter(h, &w->links.table, true);
	}
	wg_refs_clear(h);
	wg_links_clear(h);
	wg_watches_filter(h, &w->fin.table, all);
	wg_finalizers_pause(h);
	wg_disclaims_pause(h);
	wg_ephemerons_finish(h);
	wg_links_finish(h);
	w->colour = h->colour;
	w->last_full = full;
	w->precleaned = w->queue_marked = false;
	wg_weak_unlock(h, NULL);
	w->pause_ns = h->sys->now_ns() - begin;
}

void wg_weak_after(struct weir_heap *h)
{
	wg_finalizers_tell(h);
	wg_finalizers_wake(h);
	wg_ephemerons_reap(h, h->weak->last_full);
}

void wg_weak_roots(struct weir_heap *h, void (*visit)(void *arg, uintptr_t p),
		   void *arg)
{
	struct wg_finalizers *f = &h->weak->fin;
	struct wg_disclaims *d = &h->weak->dis;

	wg_weak_lock(h, NULL);
	for (uint32_t k = f->head; k < f->tail; k++)
		visit(arg,
		      wg_watch_at(&f->table, wg_indexes(&f->queue)[k])->object);
	for (uint32_t k = d->head; k < d->tail; k++)
		visit(arg,
		      wg_watch_at(&d->table, wg_indexes(&d->queue)[k])->object);
	wg_weak_unlock(h, NULL);
}

void wg_weak_fork(struct weir_heap *h, int stage)
{
	struct wg_weak_tables *w = h->weak;

	if (stage == 0) {
		wr_mutex_lock(&w->lock);
		return;
	}
	if (stage == 2) {
		w->precleaned = w->queue_marked = false;
		wg_watches_fork_child(&w->refs);
		wg_watches_fork_child(&w->links.table);
		wg_watches_fork_child(&w->fin.table);
		wg_watches_fork_child(&w->dis.table);
		wg_ephemerons_fork_child(h);
		wg_finalizers_fork_child(h);
	}
	wr_mutex_unlock(&w->lock);
	/* The finalizer thread, which the child does not have, may be counted
	 * as a user of it while it waits for the condition. */
	if (stage == 2)
		wr_mutex_init(&w->lock, WR_RANK_finalizers);
}
