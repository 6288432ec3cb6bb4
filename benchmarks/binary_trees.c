/* SPDX-License-Identifier: MIT */
/*
 * binary-trees and mt-trees: complete binary trees of two-word nodes are
 * built from the bottom up, counted and dropped, as in the benchmark game of
 * that name, beside one tree that lives throughout.  mt-trees does the same
 * on --mutators threads at once, each with its share of the trees and a
 * long-lived tree of its own.
 */
#include <stdlib.h>

#include "benchmarks/bench.h"

struct node {
	struct node *left;  /* subtree or NULL */
	struct node *right; /* subtree or NULL */
};

#define MAX_MUTATORS 64
#define TICK_NODES 1024u /* visited between two readings of the clock */

/* The long-lived tree of each mutator: roots. */
static struct node *live[MAX_MUTATORS];

/* What one mutator does and has done. */
struct worker {
	struct bench_meter meter;   /* gaps between ticks */
	struct bench_thread thread; /* unused for the main thread */
	unsigned index;             /* of live[] */
	unsigned min;               /* depth of the smallest trees */
	unsigned max;               /* depth of the largest trees */
	unsigned share;             /* one in `share` trees is this one's */
	uint64_t nodes;             /* built */
	uint64_t counted;           /* found in the trees */
	uint64_t visited;           /* built, counted or dropped */
};

/* A node was built, counted or dropped. */
static inline void tick(struct worker *w)
{
	if (++w->visited % TICK_NODES == 0)
		bench_meter_tick(&w->meter, bench_now());
}

static struct node *build(bench_mutator *m, struct worker *w, unsigned depth)
{
	struct node *left = NULL, *right = NULL, *n;

	if (depth) {
		left = build(m, w, depth - 1);
		right = build(m, w, depth - 1);
	}
	n = bench_alloc(m, sizeof(*n));
	n->left = left;
	n->right = right;
	tick(w);
	return n;
}

static uint64_t count(struct worker *w, const struct node *n)
{
	if (!n)
		return 0;
	tick(w);
	return 1 + count(w, n->left) + count(w, n->right);
}

static void drop(bench_mutator *m, struct worker *w, struct node *n)
{
	if (BENCH_COLLECTS || !n)
		return;
	drop(m, w, n->left);
	drop(m, w, n->right);
	bench_free(m, n);
	tick(w);
}

static void build_and_drop(bench_mutator *m, struct worker *w, unsigned depth)
{
	struct node *n = build(m, w, depth);

	w->nodes += (2ull << depth) - 1;
	w->counted += count(w, n);
	drop(m, w, n);
}

static void work(bench_mutator *m, void *arg)
{
	struct worker *w = arg;
	unsigned depth;
	uint64_t i, trees;

	w->meter.last = bench_now();
	build_and_drop(m, w, w->max + 1);
	live[w->index] = build(m, w, w->max);
	w->nodes += (2ull << w->max) - 1;
	for (depth = w->min; depth <= w->max; depth += 2) {
		trees = (16ull << (w->max - depth)) / w->share;
		for (i = 0; i < (trees ? trees : 1); i++)
			build_and_drop(m, w, depth);
	}
}

static void run_trees(struct bench_run *run, unsigned mutators)
{
	struct worker *w;
	unsigned i;

	if (mutators < 1 || mutators > MAX_MUTATORS)
		bench_die("mutators: 1 to %d", MAX_MUTATORS);
	w = calloc(mutators, sizeof(*w));
	if (!w)
		bench_out_of_memory();
	bench_root(live, sizeof(live));
	bench_meter_create(&run->meter, 0);
	for (i = 0; i < mutators; i++) {
		bench_meter_create(&w[i].meter, 0);
		w[i].index = i;
		w[i].share = mutators;
		w[i].min = (unsigned)bench_number(run, "min");
		w[i].max = (unsigned)bench_number(run, "max");
		if (w[i].max > 30 || w[i].min > w[i].max)
			bench_die("depths are at most 30, and min <= max");
		w[i].thread.fn = work;
		w[i].thread.arg = &w[i];
		w[i].thread.mutator = true;
	}
	bench_begin(run);
	for (i = 1; i < mutators; i++)
		bench_thread_start(&w[i].thread);
	work(run->mutator, &w[0]);
	for (i = 1; i < mutators; i++)
		bench_thread_join(run->mutator, &w[i].thread);
	for (i = 0; i < mutators; i++)
		run->ops += w[i].nodes;
	bench_end(run);

	for (i = 0; i < mutators; i++) {
		bench_meter_merge(&run->meter, &w[i].meter);
		/* No longer measured. */
		w[i].counted += count(&w[i], live[i]);
		run->checksum = run->checksum * 31 + w[i].counted;
		if (w[i].counted != w[i].nodes)
			bench_die("%llu nodes were built, %llu found",
				  (unsigned long long)w[i].nodes,
				  (unsigned long long)w[i].counted);
	}
	free(w);
}

static void run_binary_trees(struct bench_run *run)
{
	run_trees(run, 1);
}

static void run_mt_trees(struct bench_run *run)
{
	run_trees(run, (unsigned)bench_number(run, "mutators"));
}

static struct bench_option binary_options[] = {
	{"min", "4", "depth of the smallest trees"},
	{"max", "18", "depth of the largest trees"},
	{NULL, NULL, NULL},
};

static struct bench_option mt_options[] = {
	{"mutators", "2", "threads that build trees"},
	{"min", "4", "depth of the smallest trees"},
	{"max", "18", "depth of the largest trees"},
	{NULL, NULL, NULL},
};

const struct bench_workload bench_binary_trees = {
	.name = "binary-trees",
	.about = "trees of two-word nodes, built, counted and dropped",
	.option = binary_options,
	.run = run_binary_trees,
};

const struct bench_workload bench_mt_trees = {
	.name = "mt-trees",
	.about = "the same on several threads at once",
	.option = mt_options,
	.run = run_mt_trees,
};
