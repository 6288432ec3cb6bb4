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
	WG_MUTANT_SKIP_DIRTY,	/* skip-dirty: some pages in the pause */
	WG_MUTANT_FORGET_STACK, /* forget-stack: one thread's, in the pause */
	WG_MUTANT_NO_REARM,	/* no-rearm: preclean does not protect anew */
	WG_MUTANT_BORN_WHITE,	/* born-white: allocation while marking */
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
/* A random delay at a marked point, when the option `delay` is on. */
void wg_delay(struct weir_heap *h);

#endif
