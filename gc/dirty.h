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

/* The same for blocks [from, to) alone, re-arming, with one marker. */
uint64_t wg_dirty_some(struct weir_heap *h, uint32_t from, uint32_t to);
/* Arm what is in use of a space. */
void wg_dirty_arm_space(struct weir_heap *h, struct wg_space *s);
/* Fetch and re-arm the leaf space, for a snapshot; there is nothing to scan. */
void wg_dirty_leaf_pass(struct weir_heap *h, unsigned workers);
/* How many pages of [from, to) are dirty; they stay so. */
uint64_t wg_dirty_count(struct weir_heap *h, uint32_t from, uint32_t to);

/* Dirty pages that were armed again and are still to be scanned. */
#define WG_LATER_RUNS 16384
struct wg_runs {
	uint32_t count; /* in use */
	struct wr_run run[WG_LATER_RUNS];
};

/*
 * Fetch, re-arm, scan and mark for blocks from *at to `high`, for about `ns`,
 * with the world stopped and the markers told so.  Moves *at on; *step, blocks
 * taken at a time, adapts itself.  With `later`, pages are noted there instead
 * of scanned as long as there is room.  Returns the number of pages.
 */
uint64_t wg_dirty_slice(struct weir_heap *h, uint32_t *at, uint32_t high,
			uint32_t *step, uint64_t ns, struct wg_runs *later);
/* Scan them, and mark from there; empties `runs`. */
void wg_dirty_scan(struct weir_heap *h, struct wg_runs *runs);
/* Take the protection off blocks of a space that are empty; all: off all. */
void wg_dirty_forget(struct weir_heap *h, struct wg_space *s, bool all);

#endif
