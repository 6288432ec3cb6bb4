/* SPDX-License-Identifier: MIT */
/*
 * Pacing: when a cycle starts, whether it is full, when mutators must wait.
 *
 * With L the bytes live after the last full cycle and g the option `growth`,
 * the program may allocate H = g L + heap-min bytes from the end of one full
 * cycle to the end of the next.  A cycle starts when what is left of H is what
 * the program allocated during the last cycle and a quarter more.  Minor
 * cycles start every N = max(heap-min, L / 4) bytes, at most H.
 *
 * A mutator that has allocated H since the cycle was due, or since it started,
 * waits for it: a little each time it needs memory, and above the soft limit
 * until the cycle has ended.
 *
 * Close to a limit H is half of what is left.  The soft one does not make it
 * less than L / 8, or a program with more than that alive would do nothing but
 * collect.
 *
 *   cycle_begin, cycle_end, wants_full   the collector
 */
#include "gc/heap.h"

static uint64_t left(uint64_t used, uint64_t limit)
{
	return used < limit ? limit - used : 0;
}

static uint64_t headroom(const struct weir_heap *h, uint64_t live)
{
	uint64_t room =
		(uint64_t)((double)live * h->opt.growth) + h->opt.heap_min;
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

void wg_pace_cycle_begin(struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);

	h->cycle_start_allocated = now;
	__atomic_store_n(&h->trigger, UINT64_MAX, __ATOMIC_RELAXED);
	__atomic_store_n(&h->assist_at, now + headroom(h, h->live_full),
			 __ATOMIC_RELAXED);
}

bool wg_pace_wants_full(struct weir_heap *h)
{
	if (!h->opt.generational || !h->tracking || h->all_dirty)
		return true;
	/* Garbage among the marked: what minor cycles let live on top of the
	 * last full one's survivors. */
	return h->live > h->live_full + headroom(h, h->live_full);
}

/*
 * What part of new objects a minor cycle kept; half of the estimate is its
 * past.  Where most die it is not worth to arm their pages (gc/dirty.c).
 */
void wg_pace_survival(struct weir_heap *h, uint64_t marked, bool full)
{
	uint64_t young = h->cycle_start_allocated - h->last_allocated;

	if (full || !young)
		return;
	h->survival = (h->survival + (double)marked / (double)young) / 2;
	h->lazy_arm = h->survival < 0.25;
}

void wg_pace_cycle_end(struct weir_heap *h)
{
	uint64_t now = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	uint64_t during = now - h->cycle_start_allocated;
	uint64_t room = headroom(h, h->live_full);
	uint64_t ahead = during + during / 4;
	uint64_t wait = room > ahead ? room - ahead : 0;

	if (h->opt.generational && h->tracking) {
		uint64_t nursery = h->live_full / 4;

		if (nursery < h->opt.heap_min)
			nursery = h->opt.heap_min;
		if (wait > nursery)
			wait = nursery;
	}
	if (wait < room / 4)
		wait = room / 4;
	h->last_allocated = now;
	/* The collector's thread may be late. */
	__atomic_store_n(&h->assist_at, now + wait + room, __ATOMIC_RELAXED);
	__atomic_store_n(&h->trigger, now + wait, __ATOMIC_RELAXED);
}
