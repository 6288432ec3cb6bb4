/* SPDX-License-Identifier: MIT */
/*
 * The shape of the classic tree benchmark of collectors (Ellis, Kovac and
 * Boehm's GCBench), written anew: a tree and an array that live throughout,
 * and a great many trees of all sizes that die at once, built half from the
 * top down (stores into old nodes) and half from the bottom up.
 */
#include "benchmarks/bench.h"

struct node {
	struct node *left;  /* subtree or NULL */
	struct node *right; /* subtree or NULL */
	int32_t i;          /* payload */
	int32_t j;          /* payload */
};

/* What must survive to the end. */
static struct {
	struct node *tree; /* complete, of depth `long` */
	double *array;     /* of `array` elements, no references */
} live;

/* Nodes between two readings of the clock. */
#define TICK_NODES 1024u

static struct {
	struct bench_run *run; /* whose meter is ticked */
	uint64_t nodes;        /* allocated so far */
	uint64_t visited;      /* see tick() */
} work;

/* A node was made or dropped, or an element of the array filled in. */
static inline void tick(void)
{
	if (++work.visited % TICK_NODES == 0)
		bench_meter_tick(&work.run->meter, bench_now());
}

static struct node *new_node(bench_mutator *m, struct node *left,
			     struct node *right)
{
	struct node *n = bench_alloc(m, sizeof(*n));

	n->left = left;
	n->right = right;
	n->i = 0;
	n->j = 0;
	work.nodes++;
	tick();
	return n;
}

static struct node *bottom_up(bench_mutator *m, unsigned depth)
{
	struct node *left, *right;

	if (depth == 0)
		return new_node(m, NULL, NULL);
	left = bottom_up(m, depth - 1);
	right = bottom_up(m, depth - 1);
	return new_node(m, left, right);
}

static void top_down(bench_mutator *m, unsigned depth, struct node *n)
{
	if (depth == 0)
		return;
	n->left = new_node(m, NULL, NULL);
	n->right = new_node(m, NULL, NULL);
	top_down(m, depth - 1, n->left);
	top_down(m, depth - 1, n->right);
}

static uint64_t count(const struct node *n)
{
	return n ? 1 + count(n->left) + count(n->right) : 0;
}

static void drop(bench_mutator *m, struct node *n)
{
	if (BENCH_COLLECTS || !n)
		return;
	drop(m, n->left);
	drop(m, n->right);
	bench_free(m, n);
	tick();
}

static uint64_t nodes_of(unsigned depth)
{
	return (2ull << depth) - 1;
}

static void run_gcbench(struct bench_run *run)
{
	bench_mutator *m = run->mutator;
	unsigned min = (unsigned)bench_number(run, "min");
	unsigned max = (unsigned)bench_number(run, "max");
	unsigned lasting = (unsigned)bench_number(run, "long");
	unsigned rounds = (unsigned)bench_number(run, "rounds");
	uint64_t elements = bench_number(run, "array");
	uint64_t i, trees, budget;
	unsigned depth, round;
	struct node *n;

	if (max > 30 || lasting > 30 || min > max)
		bench_die("depths are at most 30, and min <= max");
	bench_root(&live, sizeof(live));
	bench_meter_create(&run->meter, 0);
	work.run = run;
	bench_begin(run);

	n = bottom_up(m, max + 2); /* stretch the heap */
	drop(m, n);
	live.tree = new_node(m, NULL, NULL);
	top_down(m, lasting, live.tree);
	live.array = bench_alloc_leaf(m, elements * sizeof(double));
	for (i = 0; i < elements; i++) {
		live.array[i] = 1.0 / (double)(i + 1);
		tick();
	}

	/* As many nodes at each depth: twice those of the stretch tree. */
	budget = 2 * nodes_of(max + 2);
	for (round = 0; round < rounds; round++) {
		for (depth = min; depth <= max; depth += 2) {
			trees = budget / nodes_of(depth);
			for (i = 0; i < trees; i++) {
				n = new_node(m, NULL, NULL);
				top_down(m, depth, n);
				drop(m, n);
			}
			for (i = 0; i < trees; i++) {
				n = bottom_up(m, depth);
				drop(m, n);
			}
		}
	}
	run->ops = work.nodes;
	bench_end(run);

	run->checksum = count(live.tree);
	run->checksum = run->checksum * 31 + work.nodes;
	for (i = 0; i < elements; i++) {
		if (live.array[i] != 1.0 / (double)(i + 1))
			bench_die("the array was overwritten");
	}
	if (count(live.tree) != nodes_of(lasting))
		bench_die("the long-lived tree lost nodes");
}

static struct bench_option options[] = {
	{"min", "4", "depth of the smallest trees"},
	{"max", "16", "depth of the largest trees"},
	{"long", "16", "depth of the tree that lives throughout"},
	{"array", "500000", "elements of the array that lives throughout"},
	{"rounds", "4", "times that all sizes are built"},
	{NULL, NULL, NULL},
};

const struct bench_workload bench_gcbench = {
	.name = "gcbench",
	.about = "trees of all sizes that die at once beside a live tree",
	.option = options,
	.run = run_gcbench,
};
