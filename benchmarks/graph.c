/* SPDX-License-Identifier: MIT */
/* The live graph; graph.h says what it looks like. */
#include "benchmarks/graph.h"

struct graph graph;

/* Bytes that a slot takes: anchor, item, its word in the table. */
#define SLOT_BYTES (2 * sizeof(struct graph_node) + sizeof(void *))

uint64_t graph_bytes(void)
{
	return graph.slots * SLOT_BYTES;
}

static void fill(struct graph_node *n, uint64_t i, uint64_t slots,
		 struct bench_random *r)
{
	unsigned k;

	for (k = 0; k < GRAPH_REFS; k++)
		n->ref[k] =
			slots ? graph_anchor(bench_random_below(r, slots)) : n;
	n->item = NULL;
	n->id = i;
	n->value = bench_random_next(r) >> 32;
	n->version = 0;
}

struct graph_node *graph_new_item(bench_mutator *m, uint64_t i,
				  uint64_t version, struct bench_random *r)
{
	struct graph_node *n = bench_alloc(m, sizeof(*n));

	fill(n, ~i, graph.slots, r);
	n->version = version;
	return n;
}

void graph_build(bench_mutator *m, uint64_t bytes, struct bench_random *r)
{
	uint64_t segments = bytes / SLOT_BYTES / GRAPH_SEGMENT, s, k, i;
	struct graph_node **segment, *n;

	if (segments == 0)
		segments = 1;
	if (segments * GRAPH_SEGMENT >> 32)
		bench_die("the graph is too large");
	bench_root(&graph, sizeof(graph));
	graph.table = bench_alloc(m, segments * sizeof(*graph.table));
	for (s = 0; s < segments; s++)
		graph.table[s] = NULL;
	for (s = 0; s < segments; s++) {
		segment = bench_alloc(m, GRAPH_SEGMENT * sizeof(*segment));
		for (k = 0; k < GRAPH_SEGMENT; k++)
			segment[k] = NULL;
		graph.table[s] = segment;
		for (k = 0; k < GRAPH_SEGMENT; k++) {
			i = s * GRAPH_SEGMENT + k;
			n = bench_alloc(m, sizeof(*n));
			fill(n, i, graph.slots, r);
			segment[k] = n;
			graph.slots = i + 1;
			n->item = graph_new_item(m, i, 0, r);
		}
	}
}

uint64_t graph_check(void)
{
	const struct graph_node *n, *item;
	uint64_t i, sum = 0;
	unsigned k;

	for (i = 0; i < graph.slots; i++) {
		n = graph_anchor(i);
		item = n->item;
		if (n->id != i || item->id != ~i || item->item)
			bench_die("slot %llu of the graph was overwritten",
				  (unsigned long long)i);
		sum = sum * 31 + n->value + item->value + item->version;
		for (k = 0; k < GRAPH_REFS; k++)
			sum = sum * 31 + n->ref[k]->id + item->ref[k]->id;
	}
	return sum;
}
