/* SPDX-License-Identifier: MIT */
/* Arming the heap and processing what was written; see gc/dirty.c. */
#ifndef WEIR_GC_DIRTY_H
#define WEIR_GC_DIRTY_H

#include "gc/mark.h"

/* Arm what a full cycle starts with; nothing is black yet. */
void wg_dirty_arm(struct weir_heap *h);
/* Fetch dirty pages (flags of wr_barrier_fetch), scan the black objects on
 * them and mark from there; `all` takes every page for dirty.  Returns the
 * number of pages. */
uint64_t wg_dirty_pass(struct weir_heap *h, unsigned workers, unsigned flags,
		       bool all);

/* Fetch, re-arm, scan and mark for blocks [from, to), with the world stopped
 * and the markers told so. */
uint64_t wg_dirty_slice(struct weir_heap *h, uint32_t from, uint32_t to);
/* Take the protection off blocks that the sweep found empty. */
void wg_dirty_forget_free(struct weir_heap *h);

#endif
