/* SPDX-License-Identifier: MIT */
/* The dump of a finished snapshot; see gc/snap_dump.c. */
#ifndef WEIR_GC_SNAP_DUMP_H
#define WEIR_GC_SNAP_DUMP_H

#include "gc/snap.h"

/* 0 or a negative errno; texts have the function's name and that of the file.
 */
int wg_snap_dump_to(const struct weir_heap_snapshot *s, int fd,
		    const char *function, const char *name);

#endif
