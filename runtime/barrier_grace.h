/* SPDX-License-Identifier: MIT */
/*
 * Waiting until those who may have seen a removed thing are done with it, for
 * readers that run in signal handlers (which is why it is not liburcu: its
 * readers register themselves first).
 *
 * Readers count themselves in one of two counters; the waiter lets new readers
 * count in the other one and waits for the first to drain.  Twice, because a
 * reader may read the index, be overtaken by a flip, and only then count.
 *
 *   enter, leave   any thread, also in a handler that runs to its end
 *   wait           one at a time (its caller holds a lock), not in a reader
 *
 * All accesses are SEQ_CST: a reader counts, then looks; the waiter withdraws,
 * then reads the counter.  In a weaker order both could miss each other.
 */
#ifndef WEIR_RUNTIME_BARRIER_GRACE_H
#define WEIR_RUNTIME_BARRIER_GRACE_H

#include <stdint.h>

#include "runtime/patience.h"

struct wr_grace {
	uint32_t index;    /* low bit: the counter of new readers */
	uint32_t count[2]; /* readers inside */
};

static inline unsigned wr_grace_enter(struct wr_grace *g)
{
	unsigned i = __atomic_load_n(&g->index, __ATOMIC_SEQ_CST) & 1;

	__atomic_fetch_add(&g->count[i], 1, __ATOMIC_SEQ_CST);
	return i;
}

static inline void wr_grace_leave(struct wr_grace *g, unsigned ticket)
{
	__atomic_fetch_sub(&g->count[ticket], 1, __ATOMIC_SEQ_CST);
}

static inline void wr_grace_wait(struct wr_grace *g)
{
	for (int round = 0; round < 2; round++) {
		unsigned i = __atomic_fetch_add(&g->index, 1, __ATOMIC_SEQ_CST);
		unsigned tries = 0;

		while (__atomic_load_n(&g->count[i & 1], __ATOMIC_SEQ_CST))
			wr_wait_a_bit(&tries);
	}
}

/* In a child of fork(): the readers were threads of the parent. */
static inline void wr_grace_reset(struct wr_grace *g)
{
	g->index = g->count[0] = g->count[1] = 0;
}

#endif
