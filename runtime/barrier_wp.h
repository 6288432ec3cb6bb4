/* SPDX-License-Identifier: MIT */
/*
 * What the two back ends on synchronous userfaultfd share, sync and sigbus:
 * how a page is protected, and the thread that reads the descriptor.
 */
#ifndef WEIR_RUNTIME_BARRIER_WP_H
#define WEIR_RUNTIME_BARRIER_WP_H

#include "runtime/barrier_map.h"

/* Open the descriptor with WP, WP_UNPOPULATED where there is that,
 * EVENT_REMOVE and `features`, the maps and the listener. */
int wr_wp_open(struct wr_barrier *b, uint64_t features);
/* Before Linux 6.4: ranges have no huge pages. */
bool wr_wp_reads_first(const struct wr_barrier *b);
void wr_wp_close(struct wr_barrier *b);
int wr_wp_add(struct wr_barrier *b, struct wr_range *r);
void wr_wp_remove(struct wr_barrier *b, struct wr_range *r);
/* A write fault at p in r.  Never returns without the page writable. */
void wr_wp_fault(struct wr_barrier *b, struct wr_range *r, uintptr_t p);
int wr_wp_fork_child(struct wr_barrier *b);

#endif
