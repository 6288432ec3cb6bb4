/* SPDX-License-Identifier: MIT */
/*
 * The bare loop that the write barrier's back ends are measured against: the
 * same system calls and faults with nothing around them.  One page a fault is
 * noted in a list, no range table, no choice, no locks, no fork, one range.
 *
 * One bare barrier exists at a time; all calls come from one thread, writes
 * to the range too.
 */
#ifndef WEIR_BENCH_BARE_BARRIER_H
#define WEIR_BENCH_BARE_BARRIER_H

#include <stddef.h>

#include "runtime/barrier.h"

/* Register [start, start + size).  Dies if the kernel refuses. */
void bare_open(enum wr_barrier_kind kind, void *start, size_t size);
void bare_close(void);

/* Protect the whole range. */
void bare_arm(void);

/* Find the pages written since, protect them again; returns their number. */
size_t bare_fetch(void);

#endif
