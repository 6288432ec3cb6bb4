/* SPDX-License-Identifier: MIT */
/*
 * fork() of a process with a heap.
 *
 * The parent only waits: prepare takes every lock of the library in the order
 * of their ranks (runtime/lock.h; with `stop` taken no stop is under way), and
 * both sides drop them.  Markers and sweepers are not among the holders: they
 * may be anywhere, since the child can pick up from any point:
 *
 *  - the child has no protection on its pages, so every black object is
 *    scanned again (all_dirty); hence mark stacks may be thrown away, and an
 *    object that was marked but not scanned does no harm;
 *  - a full cycle that had turned the colour is finished under that colour
 *    (resume), since objects with the other black are alive;
 *  - a block found SWEEPING is swept again, which gives the same result;
 *  - blocks of threads that the child does not have lose their owner, and
 *    large objects that were not finished are freed;
 *  - free blocks that were being given back to the system are free again.
 *
 * Nor is what the child gets that of one instant: fork copies page by page
 * while markers and sweepers write.  A block's granule bytes are one page, so
 * they are whole; but the block table may be later.  Hence the notes of black
 * objects are all set, and a block that looks swept may still have its dead:
 * these are found black or young once more and go a cycle later.  A thread may
 * have been about to publish an object, whose END is there then and its START
 * is not: nothing begins there, and the next sweep of the block clears it.
 *
 * The colour turns under the control lock, and marking ends in a pause, so
 * fork sees a cycle either open or not.  The child's collector threads start
 * when it first asks for a cycle: a child that calls exec pays nothing.
 */
#include "gc/cycle.h"

#include <stdlib.h>
#include <string.h>

#include "gc/always.h"
#include "gc/dirty.h"
#include "gc/event_hook.h"
#include "gc/locked.h"
#include "gc/snap.h"
#include "gc/snap_signal.h"
#include "gc/weak.h"

static struct wr_mutex *create_lock;
static __thread bool entered; /* the forking mutator was put in a region */

/* The first two locks, in a region whose frame is the caller's.  A thread that
 * is to be held (gc/suspend.c) is held first, and not with all of them; with
 * `calls` taken that does not come about any more.  False: it was held, and has
 * none. */
static inline __attribute__((always_inline)) bool
prepare_first(struct weir_mutator *m)
{
	bool parked;

	entered = m && wr_thread_block_enter(&m->thread);
	wr_mutex_lock(create_lock);
	if (!wg_heap)
		return true;
	wg_locked_hold(wg_heap);
	parked = entered && wr_thread_parked(&m->thread);
	if (parked) {
		wg_locked_drop(wg_heap);
		wr_mutex_unlock(create_lock);
		wr_thread_block_leave(&m->thread);
	}
	return !parked;
}

static void prepare(void)
{
	struct weir_mutator *m = wg_mutator_self();
	struct weir_heap *h;

	while (!prepare_first(m))
		;
	h = wg_heap;
	if (!h) {
		wg_attach_fork(0);
		return;
	}
	wr_roots_fork_prepare(h->roots);
	wr_threads_fork_prepare(h->threads);
	wr_mutex_lock(&h->ctl_lock);
	wr_mutex_lock(&h->lock);
	wr_barrier_fork_prepare(h->barrier);
	wg_always_fork(h, 0);
	wg_weak_fork(h, 0);
	wg_pool_lock(h->pool, true);
	wr_events_fork_prepare(h->events);
	wg_attach_fork(0);
}

/* In a region whose frame is the caller's: that of prepare() is gone.  No stop
 * is under way, for `stop` is taken. */
static inline __attribute__((always_inline)) void
region_anew(struct weir_mutator *m)
{
	if (!entered)
		return;
	wr_thread_block_leave(&m->thread);
	wr_thread_block_enter(&m->thread);
}

static inline __attribute__((always_inline)) void finish(struct weir_mutator *m)
{
	wr_mutex_unlock(create_lock);
	if (entered)
		wr_thread_block_leave(&m->thread);
	entered = false;
}

static void parent(void)
{
	struct weir_mutator *m = wg_mutator_self();
	struct weir_heap *h = wg_heap;

	region_anew(m);
	wg_attach_fork(1);
	if (h) {
		wr_events_fork_done(h->events, false);
		wg_pool_lock(h->pool, false);
		wg_weak_fork(h, 1);
		wg_always_fork(h, 1);
		wr_barrier_fork_parent(h->barrier);
		wr_mutex_unlock(&h->lock);
		wr_mutex_unlock(&h->ctl_lock);
		wr_threads_fork_parent(h->threads);
		wr_roots_fork_done(h->roots);
		wg_locked_drop(h);
	}
	finish(m);
}

/* Its segments may be in two lists at once, or in none: fork finds a marker
 * anywhere.  The pool takes all of them back. */
static void reset_marker(struct wg_marker *m)
{
	m->cur = m->full = m->spare = m->deferred = NULL;
	memset(&m->deque, 0, sizeof(m->deque));
	memset(m->ring, 0, sizeof(m->ring));
	memset(m->scan_ring, 0, sizeof(m->scan_ring));
	m->slices = 0;
	m->in_pause = false;
}

/* Another thread's mutator, which the child does not have. */
static void gone(struct wr_thread *t, void *arg)
{
	(void)arg;
	free(wg_mutator_of(t));
}

static void reset_block(struct weir_heap *h, uint32_t i)
{
	struct wg_block *b = &h->blocks[i];

	b->armed = 0;
	b->overflow = 0;
	/* Black under a colour that the child may turn before the sweep. */
	b->fresh = 0;
	switch (wg_block_state(b)) {
	case WG_ACTIVE:
		wg_block_set(b, WG_USED);
		break;
	case WG_SWEEPING:
		/* Unless it had been swept before the claim (wg_sweep_claim):
		 * then new objects may be in it. */
		if (wg_block_unswept(h, b)) {
			b->young = 1;
			b->seq = h->sweep_seq - 1;
		}
		wg_block_set(b, WG_USED);
		break;
	case WG_LARGE_HEAD:
		/* Made, and its START not yet there (publish_large()): like one
		 * that was not finished. */
		if (h->meta[(size_t)i * WG_BLOCK_GRANULES] & WEIR_META_COLOUR)
			break;
		/* fall through */
	case WG_LARGE_NEW:
		h->meta[(size_t)i * WG_BLOCK_GRANULES] = 0;
		wg_blocks_free(h, i, b->blocks);
		break;
	default:
		break;
	}
}

static void reset_heap(struct weir_heap *h)
{
	for (int sp = 0; sp < 2; sp++) {
		struct wg_space *s = &h->space[sp];

		for (uint32_t i = s->first + !sp; i < s->high; i++)
			reset_block(h, i);
		s->cursor = s->wide = s->sweep = s->first;
	}
	wg_blocks_fork_child(h);
	for (unsigned i = 0; i < WG_MAX_MARKERS; i++)
		if (h->marker[i])
			reset_marker(h->marker[i]);
	wg_pool_reset(h->pool);
	for (int sp = 0; sp < 2; sp++)
		memset(h->black + h->space[sp].first, 1,
		       wg_high(&h->space[sp]) - h->space[sp].first);
	free(h->team);
	h->team = NULL;
	h->threads_up = false;
	h->running = h->parked = false;
	h->waiting = 0;
	h->requests = 0;
	h->stall_due = 0;
	/* Who was about to disable cycles is not here to enable them. */
	h->disabled -= h->disabling;
	h->disabling = 0;
	h->starving = 0;
	wg_snap_fork_child(h);
	wg_dumper_fork_child();
	h->trim_due = false;
	h->cycles_done = h->full_done = h->cycles_started;
	h->newborn = WG_YOUNG;
	h->resume = h->open_full;
	h->all_dirty = true;
	h->stray_ends = true;
	if (h->later)
		h->later->count = 0; /* their pages are dirty again */
	h->overflow = h->overflow_deferred = false;
	/* Or had begun in the parent of a parent that never collected. */
	h->resweep |= h->phase == WG_SWEEPING_PHASE;
	h->phase = WG_IDLE;
	h->stage = WR_PHASES;
}

/* The barrier's own descriptors are the parent's; if no others are to be had
 * the child goes on without a barrier, and says so. */
static void rearm(struct weir_heap *h)
{
	const char *was = wr_barrier_name(wr_barrier_kind(h->barrier));

	if (wr_barrier_fork_child(h->barrier))
		wr_event_log(
			h->events,
			"fork: the child cannot go on with the barrier "
			"\"%s\" (%s); it has \"%s\" now: every cycle stops "
			"the program while it marks",
			was, weir_error_text(),
			wr_barrier_name(wr_barrier_kind(h->barrier)));
}

static void child(void)
{
	struct weir_mutator *m = wg_mutator_self();
	struct weir_heap *h = wg_heap;

	region_anew(m);
	wg_attach_fork(2);
	wg_snap_handles_fork_child();
	if (h) {
		wr_events_fork_done(h->events, true);
		wg_pool_lock(h->pool, false);
		wg_weak_fork(h, 2);
		wg_always_fork(h, 2);
		rearm(h);
		wr_mutex_unlock(&h->lock);
		wr_mutex_unlock(&h->ctl_lock);
		/* Waiters of the parent are not here, but would still count
		 * as users of the lock and the conditions. */
		wg_control_init(h);
		wr_threads_fork_child(h->threads, gone, NULL);
		wr_roots_fork_done(h->roots);
		wg_locked_drop(h);
		wg_locked_init(h);
		wg_hook_init(h);
		if (m) {
			wg_buffers_retire(m, false);
			m->b.newborn = WG_YOUNG;
		}
		reset_heap(h);
		wg_pace_cycle_end(h);
	}
	finish(m);
}

void wg_fork_init(struct wr_mutex *lock)
{
	static bool done;

	if (done)
		return;
	create_lock = lock;
	done = !pthread_atfork(prepare, parent, child);
}
