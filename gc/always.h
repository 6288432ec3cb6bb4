/* SPDX-License-Identifier: MIT */
/* Objects that every pause traces (WEIR_TRACE_ALWAYS). */
#ifndef WEIR_GC_ALWAYS_H
#define WEIR_GC_ALWAYS_H

#include "gc/mark.h"

int wg_always_create(struct weir_heap *h);
void wg_always_destroy(struct weir_heap *h);
/* Such a kind is about to be made: the table needs addresses. */
int wg_always_need(struct weir_heap *h);
/* A CRITICAL mutator publishes the object at p between the two.  begin makes
 * the entry and returns with the table's lock; false: no memory, no lock. */
bool wg_always_begin(struct weir_heap *h, const void *p);
void wg_always_end(struct weir_heap *h);
/* Instead of end: there is no object. */
void wg_always_undo(struct weir_heap *h);
/* In the pause, before it marks: trace those that are black. */
void wg_always_trace(struct weir_heap *h, struct wg_marker *m);
/* In the pause, once it is known what is dead: drop the entries of that. */
void wg_always_filter(struct weir_heap *h, bool full);
/* Of all entries, after that, for gc/invariants.c. */
void wg_always_check(struct weir_heap *h);
void wg_always_fork(struct weir_heap *h,
		    int stage); /* 0 prepare, 1 parent, 2 child */
/* Entries in the table. */
size_t wg_always_count(struct weir_heap *h);

#endif
