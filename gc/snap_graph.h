/* SPDX-License-Identifier: MIT */
/*
 * The objects of a finished snapshot, numbered by address, and what is
 * reachable from its roots.  See snap_graph.c.
 */
#ifndef WEIR_GC_SNAP_GRAPH_H
#define WEIR_GC_SNAP_GRAPH_H

#include "gc/snap.h"

struct wg_snap_graph {
	const struct weir_heap_snapshot *s; /* of what */
	uint64_t objects;                   /* numbered from 0 */
	uint64_t edges;                     /* references of objects */
	uint64_t *live;              /* a bit a granule: an object starts */
	uint64_t *reached;           /* likewise: it was reached */
	uint64_t *before;            /* by 512 granules: objects before these */
	size_t bytes;                /* of all three, one reservation */
	struct wg_snap_table others; /* size_t: granules of objects that keep
				      * alive what roots do not lead to */
};

/* 0 or -ENOMEM. */
int wg_snap_graph_make(struct wg_snap_graph *n,
		       const struct weir_heap_snapshot *s);
void wg_snap_graph_free(struct wg_snap_graph *n);
/* The number of the object at granule g. */
uint64_t wg_snap_number(const struct wg_snap_graph *n, size_t g);

/* Whether a root of this kind keeps what it refers to alive. */
static inline bool wg_snap_root_strong(uint32_t kind)
{
	return kind != WEIR_ROOT_WEAK && kind != WEIR_ROOT_LINK;
}

#endif
