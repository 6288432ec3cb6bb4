/* SPDX-License-Identifier: MIT */
/* Tracing that takes a stop, ahead of the pause and in it. */
#ifndef WEIR_GC_AHEAD_H
#define WEIR_GC_AHEAD_H

#include "gc/cycle.h"

/* Beside the program, when the markers' stacks are empty: stops that call what
 * only stops may, each followed by marking, until one finds little, or `most`
 * and those that deferred objects take.  Nothing if there is no need. */
void wg_trace_ahead(struct weir_heap *h, struct wg_report *r, unsigned most);
/* In the pause: trace and follow all that was deferred. */
void wg_trace_deferred(struct weir_heap *h);

#endif
