/* SPDX-License-Identifier: MIT */
/* Inside the roots: what roots.c and roots_dl.c share. */
#ifndef WEIR_RUNTIME_ROOTS_PRIVATE_H
#define WEIR_RUNTIME_ROOTS_PRIVATE_H

#include "runtime/roots.h"

struct wr_segments;

struct wr_root_range {
	uintptr_t start; /* first byte */
	uintptr_t end;   /* after the last byte */
};

/* They are off at first: nothing is visited. */
int wr_segments_create(struct wr_segments **out);
void wr_segments_destroy(struct wr_segments *s);
/* Any thread; waits for a pause. */
int wr_segments_switch(struct wr_segments *s, bool on);

/* The same; the list is made anew. */
void wr_segments_filter(struct wr_segments *s, wr_segment_fn *fn, void *arg);

/* Beside the program: call range for every segment, some of it at a time, the
 * loader's lock held meanwhile. */
void wr_segments_scan(struct wr_segments *s, wr_root_range_fn *range,
		      void *arg);

/* Between hold and drop nothing is loaded or unloaded and visit may be called,
 * with the world stopped or not. */
void wr_segments_hold(struct wr_segments *s);
void wr_segments_visit(struct wr_segments *s, wr_root_range_fn *range,
		       void *arg);
void wr_segments_drop(struct wr_segments *s);

/* Between them no thread of this library holds the loader's lock. */
void wr_segments_fork_prepare(struct wr_segments *s);
void wr_segments_fork_done(struct wr_segments *s, bool child);

#endif
