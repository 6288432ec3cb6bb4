/* SPDX-License-Identifier: MIT */
/*
 * graph-latency: operations on a large live graph, timed one by one.
 *
 * An operation picks a slot and either reads (follows a few references from
 * its anchor and through the items on the way), writes (makes a reference of
 * the anchor lead elsewhere) or replaces the anchor's item, whose old one
 * dies.  Each makes a request and a reply too, which die with the operation,
 * as programs do.
 *
 * Shapes: `wide` picks any slot; `hot` picks 90 of 100 slots among the first
 * hundredth of the graph, which lies together in memory.
 *
 * With --rate the operations arrive at fixed times whether or not the last
 * one has ended (an open loop), and latency runs from the time of arrival.
 * With --rate 0 they follow each other as fast as they can.
 */
#include <string.h>

#include "benchmarks/graph.h"

struct mix {
	uint64_t slots;  /* of the graph */
	uint64_t hot;    /* slots that get 90 %, 0: none do */
	uint64_t reads;  /* of 100 operations */
	uint64_t writes; /* of 100 operations; the others replace */
	uint64_t hops;   /* references followed by a read */
	uint64_t reply;  /* mean size of a reply */
};

/* A request; with references, unlike the reply. */
struct request {
	struct graph_node *node; /* what it is about */
	char *reply;             /* what it gets */
	uint64_t op;             /* number of the operation */
	uint64_t unused[3];      /* to be as large as such things are */
};

/* Wait a moment for the clock to move. */
static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#elif defined(__riscv)
	__asm__ volatile(".4byte 0x0100000f"); /* pause, a hint */
#endif
}

static uint64_t pick(const struct mix *mix, struct bench_random *r)
{
	if (mix->hot && bench_random_below(r, 100) < 90)
		return bench_random_below(r, mix->hot);
	return bench_random_below(r, mix->slots);
}

static uint64_t read_nodes(const struct mix *mix, struct graph_node *n,
			   struct bench_random *r)
{
	uint64_t way = bench_random_next(r), sum = 0, i;

	for (i = 0; i < mix->hops; i++) {
		sum += n->value;
		n = way & 4 ? n->item->ref[way & 3] : n->ref[way & 3];
		way >>= 3;
	}
	return sum + n->item->value;
}

static uint64_t operate(bench_mutator *m, const struct mix *mix,
			struct bench_random *r, uint64_t op)
{
	uint64_t i = pick(mix, r), what = bench_random_below(r, 100), sum;
	struct graph_node *n = graph_anchor(i), *old;
	struct request *request = bench_alloc(m, sizeof(*request));
	size_t size;

	request->node = n;
	request->op = op;
	memset(request->unused, 0, sizeof(request->unused));
	size = mix->reply / 2 + bench_random_below(r, mix->reply + 1) + 1;
	request->reply = bench_alloc_leaf(m, size);
	if (what < mix->reads) {
		sum = read_nodes(mix, n, r);
	} else if (what < mix->reads + mix->writes) {
		n->ref[op & 3] =
			graph_anchor(bench_random_below(r, mix->slots));
		sum = n->ref[op & 3]->id;
	} else {
		old = n->item;
		n->item = graph_new_item(m, i, old->version + 1, r);
		sum = old->value;
		bench_free(m, old);
	}
	/* The reply is written to its end. */
	memset(request->reply, (int)sum, size);
	sum += request->op + (unsigned char)request->reply[size - 1];
	bench_free(m, request->reply);
	bench_free(m, request);
	return sum;
}

static uint64_t closed_loop(struct bench_run *run, const struct mix *mix,
			    struct bench_random *r)
{
	uint64_t op, sum = 0;

	for (op = 0; op < run->ops; op++) {
		sum += operate(run->mutator, mix, r, op);
		bench_meter_op(&run->meter, run->meter.last, bench_now());
	}
	return sum;
}

static uint64_t open_loop(struct bench_run *run, const struct mix *mix,
			  struct bench_random *r, uint64_t rate)
{
	uint64_t op, sum = 0, intended;

	for (op = 0; op < run->ops; op++) {
		intended = run->begin_ns +
			   (uint64_t)((double)op * 1e9 / (double)rate);
		while (bench_now() < intended)
			relax();
		sum += operate(run->mutator, mix, r, op);
		bench_meter_op(&run->meter, intended, bench_now());
	}
	return sum;
}

static void run_graph(struct bench_run *run)
{
	const char *shape = bench_text(run, "shape");
	uint64_t rate = bench_number(run, "rate");
	struct bench_random r = {0x9e3779b97f4a7c15ull};
	struct mix mix = {
		.reads = bench_number(run, "reads"),
		.writes = bench_number(run, "writes"),
		.hops = bench_number(run, "hops"),
		.reply = bench_number(run, "reply"),
	};

	if (strcmp(shape, "wide") && strcmp(shape, "hot"))
		bench_die("--shape is wide or hot, not \"%s\"", shape);
	if (mix.reads + mix.writes > 100)
		bench_die("--reads and --writes are more than 100 together");
	if (mix.hops > 20)
		bench_die("--hops is at most 20");
	graph_build(run->mutator, bench_number(run, "live"), &r);
	run->live_bytes = graph_bytes();
	mix.slots = graph.slots;
	mix.hot = strcmp(shape, "hot") ? 0 : (graph.slots + 99) / 100;
	run->ops = bench_number(run, "ops");
	run->has_latency = true;
	bench_meter_create(&run->meter, 1);

	bench_begin(run);
	if (rate)
		run->checksum = open_loop(run, &mix, &r, rate);
	else
		run->checksum = closed_loop(run, &mix, &r);
	bench_end(run);
	run->checksum = run->checksum * 31 + graph_check();
}

static struct bench_option options[] = {
	{"live", "1g", "bytes of the live graph"},
	{"shape", "wide", "where operations go: wide, hot"},
	{"rate", "0", "operations a second; 0: as fast as possible"},
	{"ops", "4000000", "operations"},
	{"reads", "60", "of 100 operations"},
	{"writes", "20", "of 100 operations; the others replace an item"},
	{"hops", "6", "references followed by a read"},
	{"reply", "512", "mean size of a reply"},
	{NULL, NULL, NULL},
};

const struct bench_workload bench_graph_latency = {
	.name = "graph-latency",
	.about = "timed operations on a large live graph",
	.option = options,
	.run = run_graph,
};
