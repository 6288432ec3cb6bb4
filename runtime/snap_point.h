/* SPDX-License-Identifier: MIT */
/*
 * For tests of the protocol between writers, armer and saver: marked points at
 * which a thread may be held up at random, and planted bugs by name, which the
 * tests must then find.  In builds for that (configure --enable-mutants) and
 * nowhere else; elsewhere both are nothing.
 */
#ifndef WEIR_RUNTIME_SNAP_POINT_H
#define WEIR_RUNTIME_SNAP_POINT_H

#include <stdbool.h>

enum wr_snap_mutant {
	WR_SNAP_MUTANT_NONE,
	WR_SNAP_LATE_KEEP,  /* late-keep: the write goes on, then its page is
			     * copied */
	WR_SNAP_EARLY_MARK, /* early-mark: a group is marked before its unit
			     * is open */
	WR_SNAP_OPEN_FIRST, /* open-first: a unit is open, then unprotected */
	WR_SNAP_NO_GRACE,   /* no-grace: begin does not wait for handlers */
	WR_SNAP_LATE_COPY,  /* late-copy: the saver unprotects, then copies */
	WR_SNAP_SKIP_HOT,   /* skip-hot: begin passes a written unit by */
};

#ifdef WEIR_MUTANTS
/* Set before the first region is made. */
extern enum wr_snap_mutant wr_snap_mutant_active;
extern unsigned wr_snap_delay_us; /* at most, at a point; 0: none */
void wr_snap_point(void);
/* -EINVAL: no such name. */
int wr_snap_mutant_choose(const char *name);
static inline bool wr_snap_mutant(enum wr_snap_mutant m)
{
	return wr_snap_mutant_active == m;
}
#else
static inline void wr_snap_point(void)
{
}
static inline bool wr_snap_mutant(enum wr_snap_mutant m)
{
	(void)m;
	return false;
}
#endif

#endif
