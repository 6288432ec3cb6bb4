/* SPDX-License-Identifier: MIT */
/*
 * The live graph of graph-latency and write-storm.
 *
 *   table ──> segment ──> anchor ──> item
 *                           │ refs     │ refs
 *                           └─> any anchor of the graph
 *
 * There is a slot for each anchor; anchors live as long as the graph does,
 * items are replaced.  Anchors and items are nodes of 64 bytes with five
 * references and 24 bytes of payload.  References between nodes lead to
 * anchors only, so that the program knows when an item dies (it is replaced)
 * and one text serves malloc and the collectors alike: a reference to an item
 * is held by its anchor and nowhere else.
 */
#ifndef WEIR_BENCH_GRAPH_H
#define WEIR_BENCH_GRAPH_H

#include "benchmarks/bench.h"

#define GRAPH_REFS 4
#define GRAPH_SEGMENT 1024 /* slots in a segment of the table */

struct graph_node {
	struct graph_node *ref[GRAPH_REFS]; /* anchors, never NULL */
	struct graph_node *item;            /* of an anchor; NULL in an item */
	uint64_t id;                        /* slot, complemented in an item */
	uint64_t value;                     /* payload */
	uint64_t version; /* times that the slot's item was replaced */
};
_Static_assert(sizeof(struct graph_node) == 64, "as the page above says");

struct graph {
	struct graph_node ***table; /* segments; an object of the heap */
	uint64_t slots;             /* a multiple of GRAPH_SEGMENT */
};

/* The graph, a root.  There is one in a process. */
extern struct graph graph;

/* Build a graph whose nodes and table are `bytes` bytes in all. */
void graph_build(bench_mutator *m, uint64_t bytes, struct bench_random *r);
uint64_t graph_bytes(void);

/* Make a new item for slot i; the caller stores it. */
struct graph_node *graph_new_item(bench_mutator *m, uint64_t i,
				  uint64_t version, struct bench_random *r);

/* Walk all slots.  Dies if a node is not what was put there; returns a
 * checksum over the payloads and references. */
uint64_t graph_check(void);

static inline struct graph_node *graph_anchor(uint64_t i)
{
	return graph.table[i / GRAPH_SEGMENT][i % GRAPH_SEGMENT];
}

#endif
