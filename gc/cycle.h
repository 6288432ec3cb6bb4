/* SPDX-License-Identifier: MIT */
/* The cycle and the collector thread that runs it. */
#ifndef WEIR_GC_CYCLE_H
#define WEIR_GC_CYCLE_H

#include "gc/mark.h"
#include "gc/report.h"

/* One cycle, on the collector thread. */
void wg_cycle_run(struct weir_heap *h, bool full, bool stopped,
		  uint64_t number);
/* Sweep what the last pause left, with the team. */
void wg_sweep_run(struct weir_heap *h);

/* For the parts of a cycle, on the collector thread. */

/* Stop the world; returns the stage that the stop is a part of. */
enum wr_phase wg_pause_begin(struct weir_heap *h, struct wr_stop_times *times);
/* Let the threads go; returns the length of the pause. */
uint64_t wg_pause_end(struct weir_heap *h, struct wg_report *r,
		      enum wr_phase outer, const struct wr_stop_times *times,
		      uint64_t pages);
/* Tell the markers that there are, or are not, mutators beside them. */
void wg_set_in_pause(struct weir_heap *h, bool in_pause);
/* Objects marked since the cycle began. */
uint64_t wg_objects_marked(const struct weir_heap *h);
/* Clean the dirty pages of a space in short stops, once; how many there were.
 * *step is kept from call to call, 8 at first. */
uint64_t wg_preclean_slices(struct weir_heap *h, struct wg_report *r,
			    unsigned space, uint32_t *step);
/* After marking: clean the dirty pages until few are left. */
void wg_preclean(struct weir_heap *h, struct wg_report *r);

#endif
