/* SPDX-License-Identifier: MIT */
/*
 * What a write does to a snapshot that is under way: the page's content is kept
 * in the pool before the write goes on.  And what happens when it cannot be:
 * writers that wait, and snapshots that fail.
 *
 *   keep, fail, wake   handlers with every signal blocked, the saver, discard
 *   let_go             the thread that ends the snapshot
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/futex_lock.h"
#include "runtime/region.h"

/* ---- Waiting ------------------------------------------------------------ */

void wr_snap_wake(struct weir_snapshot *s)
{
	/* SEQ_CST: pairs with the waiter's count, see watch.c. */
	__atomic_fetch_add(&s->wake, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&s->waiting, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &s->wake, FUTEX_WAKE_PRIVATE, INT_MAX);
}

/* One more unit that a writer waits for, unless it is known or there are too
 * many: the saver comes to that one in its own time. */
static void want(struct weir_snapshot *s, const struct weir_region *r, size_t u)
{
	unsigned i;
	sigset_t saved;

	wr_futex_enter(&s->urgent_lock, &saved);
	for (i = 0; i < s->urgent_count; i++)
		if (s->urgent[i].region == r->index && s->urgent[i].unit == u)
			break;
	if (i == s->urgent_count && i < WR_URGENT) {
		s->urgent[i] = (struct wr_unit){.region = r->index, .unit = u};
		/* Release: the saver looks without the lock. */
		__atomic_store_n(&s->urgent_count, i + 1, __ATOMIC_RELEASE);
		wr_snap_count(&s->figures.waits, 1);
	}
	wr_futex_leave(&s->urgent_lock, &saved);
}

/* Relaxed: what the thread itself has set, it sees, and so does whoever hears
 * of its fault; of another's value it is enough that it is another. */
static bool is_saver(const struct weir_snapshot *s, pid_t writer)
{
	pid_t saver = __atomic_load_n(&s->saver, __ATOMIC_RELAXED);

	if (writer == WR_WRITER_SELF)
		writer = (pid_t)syscall(SYS_gettid);
	return writer != WR_WRITER_NONE && writer == saver;
}

static enum wr_fault_result
no_room(struct weir_snapshot *s, struct weir_region *r, size_t u, pid_t writer)
{
	if (s->options.full == WEIR_FULL_FAIL) {
		wr_snap_fail(s, ENOBUFS,
			     "more pages were written than the pool holds; "
			     "make it larger, or the sink faster, or let the "
			     "writers wait (WEIR_FULL_STALL)");
		return WR_FAULT_AGAIN;
	}
	if (is_saver(s, writer)) {
		wr_snap_fail(
			s, EDEADLK,
			"the sink, or progress, wrote to a region while "
			"the pool was full, which only it could empty; let "
			"it not write there, or make the pool larger");
		return WR_FAULT_AGAIN;
	}
	want(s, r, u);
	return WR_FAULT_WAIT;
}

/* ---- Keeping ------------------------------------------------------------ */

enum wr_fault_result wr_snap_keep(struct weir_region *r, size_t u, pid_t writer)
{
	/* Acquire: pairs with the release in create. */
	struct weir_snapshot *s =
		__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);
	uint8_t seen = wr_unit_get(r, u);
	struct wr_unit unit = {.region = r->index, .unit = u};

	switch (seen & WR_UNIT_STATE) {
	case WR_UNIT_TAKEN:
		return WR_FAULT_AGAIN;
	case WR_UNIT_OPEN:
	case WR_UNIT_SAVED:
		if (seen & WR_UNIT_NEXT)
			return WR_FAULT_DONE;
		return wr_unit_swap(r, u, &seen, seen | WR_UNIT_NEXT)
			       ? WR_FAULT_DONE
			       : WR_FAULT_AGAIN;
	}
	if (!wr_snap_needs(s, seen))
		return wr_unit_move(r, u, WR_UNIT_ARMED, WR_UNIT_SAVED,
				    WR_UNIT_NEXT)
			       ? WR_FAULT_DONE
			       : WR_FAULT_AGAIN;
	unit.slot = wr_pool_get(&s->pool);
	if (unit.slot == WR_SLOT_NONE)
		return no_room(s, r, u, writer);
	if (!wr_unit_move(r, u, WR_UNIT_ARMED, WR_UNIT_TAKEN, 0)) {
		wr_pool_put(&s->pool, unit.slot);
		return WR_FAULT_AGAIN;
	}
	wr_snap_point();
	if (wr_snap_mutant(WR_SNAP_LATE_KEEP)) {
		wr_watch_unprotect(r->watch, wr_unit_address(r, u),
				   wr_unit_address(r, u + 1));
		wr_snap_point();
	}
	unit.zero =
		wr_unit_copy(wr_pool_data(&s->pool, unit.slot),
			     (void *)wr_unit_address(r, u), wr_region_unit(r));
	/* Was it still there when it was copied?  Else it is found TAKEN, and
	 * the snapshot fails. */
	wr_watch_settle(r->watch);
	wr_pool_fill(&s->pool, &unit);
	wr_snap_count(&s->figures.kept, 1);
	wr_snap_point();
	wr_unit_move(r, u, WR_UNIT_TAKEN, WR_UNIT_SAVED, WR_UNIT_NEXT);
	return WR_FAULT_DONE;
}

/* ---- Giving pages back -------------------------------------------------- */

/* Unit u may lose its content.  False: not yet.  All signals blocked. */
static bool try_keep(struct weir_region *r, size_t u)
{
	unsigned ticket = wr_watch_enter(r->watch);
	/* SEQ_CST: as in a handler; see watch.c. */
	unsigned phase = __atomic_load_n(&r->phase, __ATOMIC_SEQ_CST);
	struct weir_snapshot *s =
		__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);
	bool done = true;

	if (s && phase == WR_PHASE_TURNING) {
		done = false;
	} else if (s && phase == WR_PHASE_ACTIVE && u < r->snap_units &&
		   !wr_snap_failed(s)) {
		done = wr_snap_keep(r, u, WR_WRITER_SELF) == WR_FAULT_DONE;
		/* Who waits for it finds it SAVED. */
		if (done)
			wr_watch_wake(r->watch, wr_unit_address(r, u),
				      wr_unit_address(r, u + 1));
	}
	wr_watch_leave(r->watch, ticket);
	return done;
}

static void keep_first(struct weir_region *r, size_t u)
{
	static const struct timespec moment = {.tv_nsec = 50000};

	for (;;) {
		sigset_t all, saved;
		bool done;

		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &saved);
		done = try_keep(r, u);
		pthread_sigmask(SIG_SETMASK, &saved, NULL);
		if (done)
			return;
		nanosleep(&moment, NULL);
	}
}

int weir_region_discard(weir_region *r, void *start, size_t bytes)
{
	int err = wr_region_valid(r, __func__), advice = MADV_DONTNEED;
	uintptr_t from = (uintptr_t)start, mask;
	size_t first, last;

	if (err)
		return err;
	mask = wr_region_unit(r) - 1;
	if (!bytes || (from | bytes) & mask || from < r->start ||
	    from - r->start > r->bytes || bytes > r->bytes - (from - r->start))
		return wr_error(EINVAL,
				"%p, %zu bytes: not whole units of %zu bytes "
				"of the region",
				start, bytes, mask + 1);
	first = (from - r->start) >> r->shift;
	last = first + (bytes >> r->shift);
	for (size_t u = first; u < last && r->watch; u++)
		keep_first(r, u);
	if (r->async && __atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE)) {
		/* What went is not among what the kernel reports as written,
		 * so it is written. */
		memset(start, 0, bytes);
		return 0;
	}
	if (r->shared)
		advice = MADV_REMOVE;
	if (madvise(start, bytes, advice))
		return wr_error(errno, "%p, %zu bytes cannot be given back: %s",
				start, bytes, strerror(errno));
	/* Shared memory keeps its protection without a page, and whatever is
	 * there next would pass for what was there last. */
	if (r->shared && r->async) {
		err = wr_barrier_forget(r->async, start, bytes);
		if (err)
			return err;
	}
	/* So that who looks after this returned finds the units open. */
	if (r->watch)
		wr_watch_settle(r->watch);
	return 0;
}

/* ---- Failing ------------------------------------------------------------ */

void wr_snap_fail(struct weir_snapshot *s, int err, const char *text)
{
	sigset_t saved;

	wr_futex_enter(&s->text_lock, &saved);
	if (!s->failed) {
		strncpy(s->text, text, sizeof(s->text) - 1);
		/* Release: pairs with wr_snap_failed().  From here on handlers
		 * open what they find. */
		__atomic_store_n(&s->failed, -err, __ATOMIC_RELEASE);
	}
	wr_futex_leave(&s->text_lock, &saved);
	/* Who waits in the kernel faults anew, and finds it failed. */
	for (size_t i = 0; i < s->count; i++)
		if (s->regions[i]->watch)
			wr_watch_wake(
				s->regions[i]->watch, s->regions[i]->start,
				s->regions[i]->start + s->regions[i]->limit);
	wr_snap_wake(s);
}

int wr_snap_error(const struct weir_snapshot *s)
{
	int err = wr_snap_failed(s);

	return err ? wr_error(-err, "%s", s->text) : 0;
}

/* ---- The end ------------------------------------------------------------ */

/*
 * What a unit becomes: `seen` is what it was when the snapshot was through.  To
 * be tracked, what is protected stays so, and what a failed snapshot has saved
 * is still changed since the last one.
 */
static uint8_t after(const struct weir_region *r, uint8_t seen, bool success)
{
	unsigned state = seen & WR_UNIT_STATE;

	unsigned loose = seen & WR_UNIT_LOOSE;

	if (!(r->flags & WEIR_REGION_TRACK))
		return WR_UNIT_OPEN | loose;
	if (loose || seen & WR_UNIT_NEXT || state == WR_UNIT_OPEN ||
	    state == WR_UNIT_TAKEN)
		return WR_UNIT_OPEN | WR_UNIT_DIRTY | loose;
	return WR_UNIT_ARMED | (success ? 0 : seen & WR_UNIT_DIRTY);
}

static void let_go(struct weir_region *r, bool success)
{
	bool track = r->flags & WEIR_REGION_TRACK;
	size_t n = __atomic_load_n(&r->bytes, __ATOMIC_ACQUIRE) >> r->shift;

	/* SEQ_CST: see barrier_grace.h: handlers of the phase before are
	 * through when the wait is. */
	__atomic_store_n(&r->phase, WR_PHASE_IDLE, __ATOMIC_SEQ_CST);
	wr_watch_grace(r->watch);
	/* After a success what is protected is there to be tracked, or it is
	 * a rare page whose next fault opens it. */
	if (!success && !track)
		wr_watch_unprotect(r->watch, r->start, r->start + r->limit);
	for (size_t u = 0; u < n; u++) {
		uint8_t seen = wr_unit_get(r, u), next;

		/* Never armed, as those beyond what is in use. */
		if (!seen)
			continue;
		do
			next = after(r, seen, success);
		while (!wr_unit_swap(r, u, &seen, next));
		if ((next & WR_UNIT_STATE) == WR_UNIT_OPEN)
			wr_unit_is_open(r, u);
	}
	r->armed_once = track && (success || r->armed_once);
	wr_watch_wake(r->watch, r->start, r->start + r->limit);
}

void wr_snap_let_go(struct weir_snapshot *s)
{
	bool success = !wr_snap_failed(s) && s->state == WR_SNAP_READ;

	for (size_t i = 0; i < s->count; i++) {
		struct weir_region *r = s->regions[i];

		if (r->watch)
			let_go(r, success);
		if (success) {
			memcpy(r->last, s->id, sizeof(r->last));
			r->last_count = s->count;
			r->last_index = r->index;
		} else if (r->async) {
			/* What was written is no longer known: it was armed
			 * anew.  The next one is whole. */
			memset(r->last, 0, sizeof(r->last));
		}
	}
}
