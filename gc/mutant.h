/* SPDX-License-Identifier: MIT */
/*
 * Planted bugs, for test builds only (configure --enable-mutants): the
 * environment variable WEIR_MUTANT names one, and the torture program must
 * then fail.  In other builds wg_mutant() is the constant false.
 */
#ifndef WEIR_GC_MUTANT_H
#define WEIR_GC_MUTANT_H

#include <stdbool.h>
#include <stdint.h>

enum wg_mutant {
	WG_MUTANT_NONE,
	WG_MUTANT_SKIP_DIRTY,   /* skip-dirty: some pages in the pause */
	WG_MUTANT_FORGET_STACK, /* forget-stack: one thread's, in the pause */
	WG_MUTANT_NO_REARM,     /* no-rearm: preclean does not protect anew */
	WG_MUTANT_BORN_WHITE,   /* born-white: allocation while marking */
	WG_MUTANT_LOSE_LATER,   /* lose-later: some pages armed in a stop and
				 * not scanned there */
	WG_MUTANT_TRUST_AHEAD,  /* trust-ahead: what is to be traced in the
				 * pause was traced ahead of it */
	WG_MUTANT_LOSE_PENDED,  /* lose-pended: what weak references are given
				 * between two batches of the filter */
	WG_MUTANT_SNAP_LOSE,    /* snap-lose: some pages that were written are
				 * not copied again in a snapshot's pause */
	WG_MUTANT_SNAP_REARM,   /* snap-rearm: a snapshot is not told of pages
				 * that are armed again */
};

#ifdef WEIR_MUTANTS
extern enum wg_mutant wg_mutant_active;
void wg_mutant_init(void);
static inline bool wg_mutant(enum wg_mutant m)
{
	return wg_mutant_active == m;
}
#else
static inline void wg_mutant_init(void)
{
}
static inline bool wg_mutant(enum wg_mutant m)
{
	(void)m;
	return false;
}
#endif

struct weir_heap;
/*
 * A random delay at a marked point, when the option `delay` is on.  A point
 * that a cycle passes once for each block or entry, not for each phase, takes
 * the second: one in 64 waits.  Not under the heap lock, and nowhere that is
 * passed for each object: it is a call.
 */
void wg_delay(struct weir_heap *h);
void wg_delay_rarely(struct weir_heap *h);

/* Whether to do what the program's ways would seldom lead to: one in n times
 * with the option `delay`, else never. */
bool wg_delay_choice(struct weir_heap *h, unsigned n);

/* Who the calling thread is, for its delays to follow from the seed. */
enum { WG_DELAY_COLLECTOR, WG_DELAY_MUTATOR = 1024 };
void wg_delay_thread(struct weir_heap *h, unsigned id);
/* The next mutator: its number is that of its attach. */
void wg_delay_mutator(struct weir_heap *h);

#endif
