/* SPDX-License-Identifier: MIT */
/*
 * What a fault or a loss of pages means for a unit, and the SIGBUS handler. See
 * region.h for the units' states and the order of the steps.
 *
 *   wr_watch_on_sigbus()   on the writing thread, every signal blocked
 *   the others             there, or in the listener
 *
 * Regions are looked up and used within a grace period of their watch.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/patience.h"
#include "runtime/region.h"
#include "runtime/watch_private.h"

/* Without waiting for an event that only the caller reads.  By halves where the
 * range lies in several mappings, before Linux 6.12. */
static int try_pieces(int fd, uintptr_t start, uintptr_t end)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), middle;
	int n = wr_uffd_try_unprotect(fd, start, end), more;

	middle = start + ((end - start) / 2 & ~(page - 1));
	if (n != -ENOENT || middle == start)
		return n;
	n = try_pieces(fd, start, middle);
	if (n == -EAGAIN)
		return n;
	more = try_pieces(fd, middle, end);
	return more < 0 ? more : n;
}

static bool try_open(struct wr_watch *w, const struct weir_region *r, size_t u)
{
	uintptr_t at = wr_unit_address(r, u);
	int n = try_pieces(w->uffd.fd, at, at + wr_region_unit(r));

	if (wr_unlikely(n < 0 && n != -EAGAIN && n != -ENOENT))
		wr_fatal("userfaultfd: %#lx cannot be made writable: %s",
			 (unsigned long)at, strerror(-n));
	return n != -EAGAIN;
}

/* ---- A fault ------------------------------------------------------------ */

void wr_watch_count(struct weir_region *r)
{
	/* Acquire: pairs with the release in weir_snapshot_create(). */
	struct weir_snapshot *s =
		__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);

	if (s)
		wr_snap_count(&s->figures.faults, 1);
}

/* No snapshot is under way: whatever the unit was, it is open and changed. */
static bool open_unit(struct wr_watch *w, struct weir_region *r, size_t u)
{
	uint8_t seen;

	if (!wr_snap_mutant(WR_SNAP_OPEN_FIRST) && !try_open(w, r, u))
		return false;
	wr_snap_point();
	if (wr_snap_mutant(WR_SNAP_EARLY_MARK)) {
		wr_unit_is_open(r, u);
		wr_snap_point();
	}
	seen = wr_unit_get(r, u);
	while (!wr_unit_swap(r, u, &seen,
			     (seen & ~WR_UNIT_STATE) | WR_UNIT_OPEN |
				     WR_UNIT_DIRTY))
		;
	wr_snap_point();
	if (!wr_snap_mutant(WR_SNAP_EARLY_MARK))
		wr_unit_is_open(r, u);
	if (wr_snap_mutant(WR_SNAP_OPEN_FIRST)) {
		wr_snap_point();
		return try_open(w, r, u);
	}
	return true;
}

static bool failed_already(const struct weir_region *r)
{
	/* Acquire: pairs with the release in create. */
	return wr_snap_failed(__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE));
}

enum wr_fault_result wr_watch_fault(struct wr_watch *w, struct weir_region *r,
				    uintptr_t p, pid_t writer)
{
	size_t u = (p - r->start) >> r->shift;
	enum wr_fault_result result;

	/* SEQ_CST: see weir_snapshot_begin(), which stores TURNING and then
	 * waits for the grace period that this handler is in. */
	switch (__atomic_load_n(&r->phase, __ATOMIC_SEQ_CST)) {
	case WR_PHASE_TURNING:
		return WR_FAULT_AGAIN;
	case WR_PHASE_ACTIVE:
		if (u >= r->snap_units || failed_already(r))
			break;
		result = wr_snap_keep(r, u, writer);
		if (result == WR_FAULT_DONE && !try_open(w, r, u))
			result = WR_FAULT_AGAIN;
		return result;
	}
	return open_unit(w, r, u) ? WR_FAULT_DONE : WR_FAULT_AGAIN;
}

/* ---- Pages that went ---------------------------------------------------- */

/* Unit u loses its content and its protection, now or in a moment: LOOSE in
 * every state, until begin protects it. */
static void lose_unit(struct weir_region *r, size_t u)
{
	struct weir_snapshot *s =
		__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);
	uint8_t seen = wr_unit_get(r, u), next;
	bool lost;

	do {
		next = seen | WR_UNIT_LOOSE;
		lost = false;
		switch (seen & WR_UNIT_STATE) {
		case WR_UNIT_OPEN:
			next |= WR_UNIT_DIRTY;
			/* Begin may protect it, before that goes, too.
			 * Acquire: as below. */
			lost = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) ==
			       WR_PHASE_TURNING;
			break;
		case WR_UNIT_SAVED:
			next |= WR_UNIT_NEXT;
			break;
		case WR_UNIT_TAKEN:
			next |= WR_UNIT_DIRTY;
			lost = true;
			break;
		case WR_UNIT_ARMED:
			next = (next & ~WR_UNIT_STATE) | WR_UNIT_OPEN |
			       WR_UNIT_DIRTY;
			lost = true;
			break;
		}
	} while (!wr_unit_swap(r, u, &seen, next));
	wr_unit_is_open(r, u);
	/* Acquire: pairs with the release in begin.  TURNING: the writers were
	 * to be quiet. */
	if (lost && s && u < r->snap_units &&
	    __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) >= WR_PHASE_TURNING)
		wr_snap_fail(s, ESTALE,
			     "pages of a region were given back or unmapped "
			     "before they were saved; use "
			     "weir_region_discard(), and unmap nothing during "
			     "a snapshot");
}

void wr_watch_lose(uintptr_t start, uintptr_t end)
{
	struct weir_region *r;

	for (unsigned i = 0; (r = wr_region_next(&i));) {
		uintptr_t from = start > r->start ? start : r->start;
		uintptr_t to = r->start + r->limit;

		if (to > end)
			to = end;
		if (from >= to)
			continue;
		for (size_t u = (from - r->start) >> r->shift;
		     u <= (to - 1 - r->start) >> r->shift; u++)
			lose_unit(r, u);
	}
}

/* ---- The signal --------------------------------------------------------- */

/* Wait for s->wake to change from `seen`, or a moment: what is waited for may
 * have been done by one who did not see us wait. */
static void wait_for(struct weir_snapshot *s, uint32_t seen)
{
	struct timespec at_most = {.tv_nsec = 2000000};

	/* SEQ_CST: pairs with wr_snap_wake(): either it sees the waiter, or
	 * the word has changed and the kernel does not sleep. */
	__atomic_fetch_add(&s->waiting, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &s->wake, FUTEX_WAIT_PRIVATE, seen, &at_most);
	__atomic_fetch_sub(&s->waiting, 1, __ATOMIC_SEQ_CST);
}

/* Whether p was in a region of w's until a while ago. */
static bool is_gone(const struct wr_watch *w, uintptr_t p)
{
	for (unsigned i = 0; i < GONE; i++)
		/* Relaxed: it was noted before the region was withdrawn, with
		 * SEQ_CST, which was seen.  A range in the making only makes a
		 * fault come again. */
		if (p >= __atomic_load_n(&w->gone[i].start, __ATOMIC_RELAXED) &&
		    p < __atomic_load_n(&w->gone[i].end, __ATOMIC_RELAXED))
			return true;
	return false;
}

bool wr_watch_on_sigbus(void *owner, uintptr_t p, const siginfo_t *info,
			const void *context)
{
	/* Initial-exec: the first use of another model's variable may allocate,
	 * which a handler must not. */
	static _Thread_local uintptr_t last
		__attribute__((tls_model("initial-exec")));
	static _Thread_local unsigned again
		__attribute__((tls_model("initial-exec")));
	struct wr_watch *w = owner;
	unsigned tries = 0;
	bool counted = false;

	(void)context;
	/* Others are hardware's: a poisoned page (BUS_MCEERR_AR). */
	if (info->si_code != BUS_ADRERR)
		return false;
	/* Nor is one that comes again and again: the file behind it was cut
	 * short, or its device fails. */
	if (p == last && ++again > 1000)
		return false;
	if (p != last)
		again = 0;
	last = p;
	for (;;) {
		unsigned ticket = wr_grace_enter(&w->grace);
		enum wr_fault_result result = WR_FAULT_DONE;
		struct weir_region *r = wr_region_find(p);
		/* A region of another watch has real ones only. */
		bool none = !r, ours = r && r->watch == w;
		struct weir_snapshot *s = NULL;
		uint32_t seen = 0;

		if (ours) {
			if (!counted)
				wr_watch_count(r);
			counted = true;
			s = __atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);
			if (s)
				seen = __atomic_load_n(&s->wake,
						       __ATOMIC_SEQ_CST);
			result = wr_watch_fault(w, r, p, WR_WRITER_SELF);
		}
		wr_grace_leave(&w->grace, ticket);
		/* Outside of the grace period, which begin and end of all
		 * snapshots wait for: what is waited for outlasts this one. */
		if (result == WR_FAULT_WAIT && s)
			wait_for(s, seen);
		/* One that was released meanwhile is not protected any more. */
		if (!ours)
			return none && is_gone(w, p);
		if (result == WR_FAULT_DONE)
			return true;
		/* Not for long: begin, the copying of a unit, a loss that the
		 * listener has yet to read. */
		if (result == WR_FAULT_AGAIN)
			wr_wait_a_bit(&tries);
	}
}
