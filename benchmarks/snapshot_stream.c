/* SPDX-License-Identifier: MIT */
/*
 * The operations of bench-snapshot's writers: the same series each time, so
 * that they can be done again.
 *
 * Thread t of n writes to lines t, t + n, ... of a page only: what a page holds
 * after some operations of each thread does not depend on how they interleaved.
 * Values are different for any two operations, so that a store too few or too
 * many shows.
 *
 * Pages by zipf(0.99) as in Gray et al., "Quickly generating billion-record
 * synthetic databases" (1994), the ranks scattered over the memory.
 */
#include <math.h>

#include "benchmarks/snapshot_bench.h"

#define THETA 0.99
#define SCATTER 2654435761u /* a prime, more than there are pages */

/* Constants of the generator. */
static struct {
	double pages; /* of the memory */
	double zeta;  /* sum of 1 / rank^theta */
	double eta;   /* see Gray et al. */
} zipf;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

void snap_stream_setup(void)
{
	uint64_t pages = snap_want.size / SNAP_PAGE, i;

	if (snap_want.uniform)
		return;
	zipf.pages = (double)pages;
	for (i = 1; i <= pages; i++)
		zipf.zeta += pow((double)i, -THETA);
	zipf.eta = (1 - pow(2.0 / zipf.pages, 1 - THETA)) /
		   (1 - (1 + pow(0.5, THETA)) / zipf.zeta);
}

void snap_stream_open(struct snap_stream *s, unsigned thread)
{
	s->random.state = mix(thread + 1);
	s->made = 0;
	s->thread = thread;
}

static uint64_t zipf_rank(struct bench_random *r)
{
	double u = (double)(bench_random_next(r) >> 11) / 0x1p53;
	double uz = u * zipf.zeta;
	uint64_t rank;

	if (uz < 1)
		return 0;
	if (uz < 1 + pow(0.5, THETA))
		return 1;
	rank = (uint64_t)(zipf.pages *
			  pow(zipf.eta * u - zipf.eta + 1, 1 / (1 - THETA)));
	return rank < (uint64_t)zipf.pages ? rank : (uint64_t)zipf.pages - 1;
}

struct snap_op snap_stream_next(struct snap_stream *s)
{
	uint64_t pages = snap_want.size / SNAP_PAGE, page, bits, lines, line;
	struct snap_op op;

	if (snap_want.uniform)
		page = bench_random_below(&s->random, pages);
	else
		page = zipf_rank(&s->random) * SCATTER % pages;
	bits = mix(s->made << 8 | s->thread);
	lines = SNAP_PAGE / SNAP_LINE / snap_want.writers;
	line = bits % lines * snap_want.writers + s->thread;
	op.offset = page * SNAP_PAGE + line * SNAP_LINE;
	if (snap_want.store == 8)
		op.offset += (bits >> 32) % (SNAP_LINE / 8) * 8;
	/* The words of one store do not meet those of another. */
	op.value = (s->made << 8 | s->thread) * 8 + 0x5eed000000000000ull;
	s->made++;
	return op;
}

void snap_store(char *memory, const struct snap_op *op)
{
	/* Volatile: it is to be done once and now, in this order. */
	volatile uint64_t *word = (volatile uint64_t *)(memory + op->offset);
	uint64_t i;

	for (i = 0; i < snap_want.store / 8; i++)
		word[i] = op->value + i;
}

void snap_fill(char *memory)
{
	uint64_t *word = (uint64_t *)memory, i;

	for (i = 0; i < snap_want.size / 8; i++)
		word[i] = mix(i);
}

/* Each word takes part by a bijection of its lane, so that a page which
 * differs in one lane of four always has another sum there. */
uint64_t snap_checksum(const void *page)
{
	const uint64_t *word = page;
	uint64_t lane[4] = {1, 2, 3, 4}, sum;
	unsigned i, k;

	for (i = 0; i < SNAP_PAGE / 8; i += 4) {
		for (k = 0; k < 4; k++) {
			lane[k] =
				(lane[k] ^ word[i + k]) * 0x9e3779b97f4a7c15ull;
			lane[k] ^= lane[k] >> 32;
		}
	}
	sum = mix(lane[0]) ^ mix(lane[1] + 1) ^ mix(lane[2] + 2) ^
	      mix(lane[3] + 3);
	return sum ? sum : 1;
}
