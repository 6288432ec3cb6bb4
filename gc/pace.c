/* SPDX-License-Identifier: MIT */
/*
 * Pacing: when a cycle starts, whether it is full, when mutators must wait.
 *
 * With L the bytes live after the last full cycle and g the option `growth`,
 * the program may allocate H = g L + heap-min bytes from the end of one full
 * cycle to the end of the next.  A cycle starts when what is left of H is what
 * the program allocated during the last one of its kind and a quarter more, A.
 * Minor cycles start every N = max(heap-min, L / 4) bytes, at most H.  A cycle
 * is full when what minor ones let live on top of L is more than g L, or a
 * quarter of heap-min.
 *
 * Where most of what is new lives through a minor cycle, and most of what is
 * allocated dies all the same by the next full one, as in a table whose entries
 * are replaced, minor cycles only delay: they are left out, and tried again
 * after 2, 4 and MOST_SKIPPED full ones.
 *
 * Memory that the system backs and that is not alive, S bytes, costs nothing
 * to allocate in: the wait for the next cycle is at least S / 3, so that what
 * was resident once saves cycles until it is given back (gc/trim.c).  No more
 * than a third, since the program goes on while the cycle runs.
 *
 * A mutator that has allocated the larger of 2 A and H / 2, but not more than
 * H, since the cycle was due waits for it a little each time it needs memory:
 * the longer the further it is ahead, up to STALL_NS when that is another H.
 * Above the soft limit it waits until the cycle has ended.
 *
 * A mutator that waits leaves its processor free: as many markers more run in
 * a cycle as mutators waited, on average, since the last one began, or wait for
 * the one that begins.
 *
 * While a cycle sweeps the program may allocate another H before it waits; so
 * it may when cycles were disabled, for it had nothing to wait for.
 *
 * Close to a limit H is half of what is left.  The soft one does not make it
 * less than L / 8, or a program with more than that alive would do nothing but
 * collect.
 *
 *   cycle_begin, cycle_end, wants_full   the collector
 *   set_min                              any thread, under ctl_lock
 */
#include "gc/heap.h"

#define STALL_NS 1000000
#define LEAST_STALL_NS 10000
#define MOST_SKIPPED 8

static uint64_t left(uint64_t used, uint64_t limit)
{
	return used < limit ? limit - used : 0;
}

/* Relaxed: partner of the store in wg_pace_set_min(). */
static uint64_t heap_min(const struct weir_heap *h)
{
	return __atomic_load_n(&h->opt.heap_min, __ATOMIC_RELAXED);
}

static uint64_t headroom(const struct weir_heap *h, uint64_t live)
{
	uint64_t room = (uint64_t)((double)live * h->opt.growth) + heap_min(h);
	uint64_t used = __atomic_load_n(&h->used, __ATOMIC_RELAXED);
	uint64_t soft = wg_soft(h), hard = wg_hard(h);

	/* Close to a limit: collect in time to stay below it. */
	if (soft && room > left(used, soft) / 2) {
		room = left(used, soft) / 2;
		if (room < live / 8)
			room = live / 8;
	}
	if (room > left(used, hard) / 2)
		room = left(used, hard) / 2;
	return room > WG_BLOCK ? room : WG_BLOCK;
}

/* S / 3, below the limits. */
static uint64_t spare_third(struct weir_heap *h)
{
	uint64_t used = __atomic_load_n(&h->used, __ATOMIC_RELAXED);
	uint64_t soft = wg_soft(h), hard = wg_hard(h);
	uint64_t spare = wg_stale(h) + left(h->live, used);
	uint64_t most = left(used, soft ? soft : hard);

	return (spare < most ? spare : most) / 3;
}

void wg_pace_cycle_begin(struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	uint64_t room = headroom(h, h->live_full);

	h->cycle_start_allocated = now;
	__atomic_store_n(&h->trigger, UINT64_MAX, __ATOMIC_RELAXED);
	__atomic_store_n(&h->assist_room, room, __ATOMIC_RELAXED);
	/* Late as it is, the cycle was due before. */
	if (now + room < __atomic_load_n(&h->assist_at, __ATOMIC_RELAXED))
		__atomic_store_n(&h->assist_at, now + room, __ATOMIC_RELAXED);
}

/* There is memory to be swept; but if that takes long, since the collector does
 * not get to run, it is soon used up. */
void wg_pace_sweep_begin(struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	uint64_t room = __atomic_load_n(&h->assist_room, __ATOMIC_RELAXED);

	__atomic_store_n(&h->assist_at, now + room, __ATOMIC_RELAXED);
}

void wg_pace_enabled(struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	uint64_t room = __atomic_load_n(&h->assist_room, __ATOMIC_RELAXED);

	if (__atomic_load_n(&h->trigger, __ATOMIC_RELAXED) == UINT64_MAX)
		__atomic_store_n(&h->trigger, 0, __ATOMIC_RELAXED);
	if (__atomic_load_n(&h->assist_at, __ATOMIC_RELAXED) < now + room)
		__atomic_store_n(&h->assist_at, now + room, __ATOMIC_RELAXED);
}

void wg_pace_set_min(struct weir_heap *h, uint64_t bytes)
{
	uint64_t more = bytes - heap_min(h), at;

	__atomic_store_n(&h->opt.heap_min, bytes, __ATOMIC_RELAXED);
	if (h->running)
		return; /* its end sees to it */
	at = __atomic_load_n(&h->assist_at, __ATOMIC_RELAXED) + more;
	__atomic_store_n(&h->assist_at, at, __ATOMIC_RELAXED);
	/* A mutator may take it out of reach just now. */
	at = __atomic_load_n(&h->trigger, __ATOMIC_RELAXED);
	while (at != UINT64_MAX &&
	       !__atomic_compare_exchange_n(&h->trigger, &at, at + more, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

unsigned wg_pace_markers(struct weir_heap *h, uint64_t now)
{
	uint64_t stall =
		__atomic_load_n(&h->stats.assist.total_ns, __ATOMIC_RELAXED);
	uint64_t time = now - h->begun_ns, waited = stall - h->begun_stall_ns;
	uint64_t more = time ? (waited + time / 2) / time : 0, waiting;

	h->begun_ns = now;
	h->begun_stall_ns = stall;
	/* Relaxed: partner of the stores in gc/collector.c; those who wait for
	 * this very cycle. */
	waiting = __atomic_load_n(&h->waiting, __ATOMIC_RELAXED);
	if (more < waiting)
		more = waiting;
	if (h->opt.markers || h->markers >= h->pause_markers)
		return h->markers;
	if (more > h->pause_markers - h->markers)
		more = h->pause_markers - h->markers;
	return h->markers + (unsigned)more;
}

uint64_t wg_pace_stall_ns(const struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	uint64_t at = __atomic_load_n(&h->assist_at, __ATOMIC_RELAXED);
	uint64_t room = __atomic_load_n(&h->assist_room, __ATOMIC_RELAXED);
	uint64_t ahead = now > at ? now - at : 0;
	double part;

	if (ahead >= room)
		return STALL_NS;
	/* Squared: a program that allocates slowly is not to wait for more than
	 * it must, and one that allocates fast is soon far ahead. */
	part = (double)ahead / (double)room;
	return LEAST_STALL_NS + (uint64_t)(part * part * STALL_NS);
}

bool wg_pace_can_wait(struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	uint64_t end = __atomic_load_n(&h->assist_at, __ATOMIC_RELAXED);
	uint64_t begin = h->cycle_start_allocated;

	/* Requests: a stopped cycle, a full one, the heap's end.  A cycle that
	 * began late has its end behind it. */
	return end > begin && now - begin < (end - begin) / 2 &&
	       !__atomic_load_n(&h->starving, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&h->requests, __ATOMIC_RELAXED);
}

/* What may become old between two full cycles. */
static uint64_t old_room(const struct weir_heap *h)
{
	uint64_t room = (uint64_t)((double)h->live_full * h->opt.growth);
	uint64_t most = headroom(h, h->live_full);

	if (room < heap_min(h) / 4)
		room = heap_min(h) / 4;
	return room < most ? room : most;
}

bool wg_pace_wants_full(struct weir_heap *h, bool asked)
{
	if (!h->opt.generational || !h->tracking || h->all_dirty)
		return true;
	if (h->skip && !asked)
		return true;
	/* Garbage among the marked: what minor cycles let live on top of the
	 * last full one's survivors. */
	return h->live > h->live_full + old_room(h);
}

/*
 * What part of new objects a minor cycle kept; half of the estimate is its
 * past.  Where most die it is not worth to arm their pages (gc/dirty.c).
 */
void wg_pace_survival(struct weir_heap *h, uint64_t marked, bool full)
{
	uint64_t young = h->cycle_start_allocated - h->last_allocated;
	double kept;

	if (full || !young)
		return;
	kept = (double)marked / (double)young;
	h->survival = (h->survival + kept) / 2;
	h->lazy_arm = h->survival < 0.25;
	if (kept <= 0.5 || h->yield <= 0.5) {
		h->skip_next = 0;
		return;
	}
	h->skip_next = h->skip_next ? 2 * h->skip_next : 2;
	if (h->skip_next > MOST_SKIPPED)
		h->skip_next = MOST_SKIPPED;
	h->skip = h->skip_next;
}

void wg_pace_yield(struct weir_heap *h, uint64_t live_before)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	uint64_t made = now - h->full_allocated;
	uint64_t was = live_before + made;

	h->full_allocated = now;
	if (made)
		h->yield = was > h->live_full
				   ? (double)(was - h->live_full) / (double)made
				   : 0;
	if (h->yield <= 0.5)
		h->skip = 0;
	else if (h->skip)
		h->skip--;
}

void wg_pace_during(struct weir_heap *h, bool full)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);

	h->during[full] = now - h->cycle_start_allocated;
}

void wg_pace_cycle_end(struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	bool next = wg_pace_wants_full(h, false);
	uint64_t room = headroom(h, h->live_full), spare = spare_third(h);
	uint64_t ahead = h->during[next] + h->during[next] / 4;
	uint64_t wait = room > ahead ? room - ahead : 0, late;

	if (h->opt.generational && h->tracking && !h->skip) {
		uint64_t nursery = h->live_full / 4;

		if (nursery < heap_min(h))
			nursery = heap_min(h);
		if (wait > nursery)
			wait = nursery;
	}
	if (wait < room / 4)
		wait = room / 4;
	if (wait < spare)
		wait = spare;
	h->last_allocated = now;
	__atomic_store_n(&h->assist_room, room, __ATOMIC_RELAXED);
	/* The collector's thread may be late, and the cycle longer. */
	late = ahead < room / 4 ? room / 2 : 2 * ahead;
	if (late > room)
		late = room;
	__atomic_store_n(&h->assist_at, now + wait + late, __ATOMIC_RELAXED);
	__atomic_store_n(&h->trigger, now + wait, __ATOMIC_RELAXED);
}
