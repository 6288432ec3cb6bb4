/* SPDX-License-Identifier: MIT */
/* Heap dumps on a signal; see gc/snap_signal.c. */
#ifndef WEIR_GC_SNAP_SIGNAL_H
#define WEIR_GC_SNAP_SIGNAL_H

#include "gc/heap.h"

/* If the options ask for it, and it is not there.  0 or a negative errno. */
int wg_dumper_start(struct weir_heap *h);
/* Waits for a dump under way; before the collector is stopped. */
void wg_dumper_stop(struct weir_heap *h);
void wg_dumper_fork_child(void);

#endif
