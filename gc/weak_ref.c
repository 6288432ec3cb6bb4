/* SPDX-License-Identifier: MIT */
/*
 * Weak references: a handle outside the heap with the target's address.
 *
 * Reading takes no lock.  The reader is a running thread, so the address that
 * it loaded is in a register or on its stack when a pause comes, where the
 * pause finds it before it clears anything; and targets are cleared in pauses
 * only.  So whoever got an address has an object that stays.
 *
 *   get          attached threads, not in a blocking region, any number
 *   the others   any thread; destroy: nobody uses the handle
 *   clear        the collector in a pause
 */
#include "gc/weak_tables.h"

#include <errno.h>

/* The heap of the handle, or NULL if it is no handle. */
static inline struct weir_heap *heap_of(const struct weir_weak *weak)
{
	struct weir_heap *h = __atomic_load_n(&wg_heap, __ATOMIC_ACQUIRE);
	uintptr_t offset;

	if (wr_unlikely(!h || !weak))
		return NULL;
	offset = (uintptr_t)weak - (uintptr_t)h->weak->refs.entries.base;
	/* Relaxed: an entry that is in use was so before its handle was
	 * known, and is so until its owner destroys it. */
	if (wr_unlikely(
		    offset % sizeof(*weak) ||
		    offset >= __atomic_load_n(&h->weak->refs.entries.committed,
					      __ATOMIC_RELAXED) ||
		    !(__atomic_load_n(&weak->watch.state, __ATOMIC_RELAXED) &
		      WG_WATCH_LIVE)))
		return NULL;
	return h;
}

static uint32_t index_of(const struct wg_watches *t, const weir_weak *weak)
{
	return (uint32_t)(((uintptr_t)weak - (uintptr_t)t->entries.base) /
			  sizeof(*weak));
}

int weir_weak_create(weir_heap *h, void *target, weir_weak **out)
{
	struct weir_mutator *m = wg_mutator_self();
	struct wg_watches *t;
	uint32_t i, count;
	int err = wg_heap_enter(h);

	if (err)
		return err;
	if (!out)
		return wr_invalid(__func__, "no place for the result");
	if (wg_resolve(h, (uintptr_t)target) == SIZE_MAX)
		return wr_invalid(__func__,
				  "the target does not point into an object");
	t = &h->weak->refs;
	wg_weak_lock(h, m);
	i = wg_watch_new(h, t, (uintptr_t)target, 0);
	count = t->count;
	wg_weak_unlock(h, m);
	if (!i)
		return wr_error(ENOMEM,
				"weir_weak_create: no memory for one more than "
				"%u weak references",
				count);
	*out = (weir_weak *)(void *)wg_watch_at(t, i);
	return 0;
}

void *weir_weak_get(const weir_weak *weak)
{
	if (wr_unlikely(!heap_of(weak))) {
		wr_invalid(__func__,
			   "the handle is NULL, foreign or destroyed");
		return NULL;
	}
	if (wr_unlikely(!wg_running)) {
		wr_invalid(__func__, "the thread is not attached, or inside a "
				     "blocking region");
		return NULL;
	}
	/* Acquire: partner of the release in weir_weak_set(); without it the
	 * object could be seen as it was before it was filled in. */
	return (void *)__atomic_load_n(&weak->watch.object, __ATOMIC_ACQUIRE);
}

int weir_weak_set(weir_weak *weak, void *target)
{
	struct weir_mutator *m = wg_mutator_self();
	struct weir_heap *h = heap_of(weak);
	struct wg_watches *t;

	if (wg_on_collector_thread())
		return wg_in_callback(__func__);
	if (!h)
		return wr_invalid(__func__,
				  "the handle is NULL, foreign or destroyed");
	if (target && wg_resolve(h, (uintptr_t)target) == SIZE_MAX)
		return wr_invalid(__func__,
				  "the target does not point into an object");
	t = &h->weak->refs;
	wg_weak_lock(h, m);
	__atomic_store_n(&weak->watch.object, (uintptr_t)target,
			 __ATOMIC_RELEASE);
	if (target)
		wg_watch_pend(t, index_of(t, weak));
	wg_weak_unlock(h, m);
	return 0;
}

void weir_weak_destroy(weir_weak *weak)
{
	struct weir_mutator *m = wg_mutator_self();
	struct weir_heap *h;

	if (!weak)
		return;
	if (wg_on_collector_thread()) {
		wg_in_callback(__func__);
		return;
	}
	h = heap_of(weak);
	if (!h) {
		wr_invalid(__func__, "the handle is foreign or destroyed");
		return;
	}
	wg_weak_lock(h, m);
	wg_watch_free(&h->weak->refs, index_of(&h->weak->refs, weak));
	wg_weak_unlock(h, m);
}

/* Nothing stays pending: what is left is black, or has no target. */
void wg_refs_clear(struct weir_heap *h)
{
	struct wg_watches *t = &h->weak->refs;
	const uint32_t *pending = wg_indexes(&t->pending);

	for (uint32_t k = 0; k < t->pending_n; k++) {
		struct wg_watch *e = wg_watch_at(t, pending[k]);

		wg_watch_prefetch(h, t, k, t->pending_n);
		if (wg_watch_undecided(h, NULL, e))
			__atomic_store_n(&e->object, 0, __ATOMIC_RELAXED);
		wg_watch_set(e, e->state & ~(uint32_t)WG_WATCH_PENDING);
	}
	t->pending_n = 0;
}
