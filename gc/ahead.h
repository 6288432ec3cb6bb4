/* SPDX-License-Identifier: MIT */
/* Tracing that takes a stop, ahead of the pause and in it. */
#ifndef WEIR_GC_AHEAD_H
#define WEIR_GC_AHEAD_H

#include "gc/cycle.h"

/* Beside the program, when the markers' stacks are empty: stops that call what
 * only stops may, each followed by marking, until one finds little, or `most`;
 * more if deferred objects take them.  Nothing if there is no need. */
void wg_trace_ahead(struct weir_heap *h, struct wg_report *r, unsigned most);
/* After the pause, in which so many objects were marked. */
void wg_ahead_learn(struct weir_heap *h, const struct wg_report *r,
		    uint64_t in_pause);
/* In the pause: trace and follow all that was deferred. */
void wg_trace_deferred(struct weir_heap *h);

#endif
