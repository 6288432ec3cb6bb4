/* SPDX-License-Identifier: MIT */
/* The cycle and the collector thread that runs it. */
#ifndef WEIR_GC_CYCLE_H
#define WEIR_GC_CYCLE_H

#include "gc/mark.h"

/* One cycle, on the collector thread. */
void wg_cycle_run(struct weir_heap *h, bool full, bool stopped,
		  uint64_t number);
/* Sweep what the last pause left, with the team. */
void wg_sweep_run(struct weir_heap *h);

#endif
