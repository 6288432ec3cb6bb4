/* SPDX-License-Identifier: MIT */
/* Histograms and meters; latency.h says what they are. */
#include <string.h>
#include <sys/mman.h>

#include "benchmarks/bench.h"

_Static_assert(sizeof(uint64_t) == 8, "shifts assume 64 bits");

struct bench_histogram *bench_histogram_create(void)
{
	void *p = mmap(NULL, sizeof(struct bench_histogram),
		       PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		bench_die("no memory for a histogram");
	return p;
}

void bench_histogram_merge(struct bench_histogram *to,
			   const struct bench_histogram *from)
{
	size_t i;

	to->count += from->count;
	if (from->max > to->max)
		to->max = from->max;
	for (i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
}

/* The largest duration that bench_bucket() puts into bucket i. */
static uint64_t bucket_top(uint64_t i)
{
	uint64_t shift, top;

	if (i < 2u << BENCH_HISTOGRAM_BITS)
		return i;
	shift = (i >> BENCH_HISTOGRAM_BITS) - 1;
	top = i - (shift << BENCH_HISTOGRAM_BITS);
	return ((top + 1) << shift) - 1;
}

uint64_t bench_histogram_quantile(const struct bench_histogram *h, double q)
{
	uint64_t wanted, seen = 0, i, top;

	if (h->count == 0)
		return 0;
	wanted = (uint64_t)(q * (double)h->count);
	if (wanted >= h->count)
		return h->max;
	for (i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen > wanted)
			break;
	}
	top = bucket_top(i);
	return top < h->max ? top : h->max;
}

void bench_meter_create(struct bench_meter *m, int with_latency)
{
	m->latency = with_latency ? bench_histogram_create() : NULL;
	m->gap = bench_histogram_create();
	/* Not populated: most runs have few. */
	m->long_gap = mmap(NULL, BENCH_LONG_GAPS * sizeof(*m->long_gap),
			   PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->long_gap == MAP_FAILED)
		bench_die("no memory for gaps");
	m->long_gaps = 0;
	m->worst_merged = 0;
	m->lost = 0;
	m->last = bench_now();
}

/* The part of a gap that counts: [start, end of the gap). */
static uint64_t stall_start(const struct bench_gap *g, uint64_t usual)
{
	return g->end - (g->ns > 2 * usual ? g->ns - usual : 0);
}

/* What lies in [from, to). */
static uint64_t part(const struct bench_gap *g, uint64_t usual, uint64_t from,
		     uint64_t to)
{
	uint64_t start = stall_start(g, usual), end = g->end;

	if (start < from)
		start = from;
	if (end > to)
		end = to;
	return end > start ? end - start : 0;
}

/*
 * Slide the window over the stalls, which do not overlap: the worst one starts
 * with the start of a stall or ends with the end of one.  `inside` is the sum
 * of the stalls [first, last) without those cut off at its borders.
 */
uint64_t bench_worst_window(const struct bench_gap *gap, size_t n,
			    uint64_t usual, uint64_t window)
{
	uint64_t worst = 0, inside = 0, from, to, sum;
	size_t first = 0, last, i;

	for (i = 0; i < n; i++) {
		inside += part(&gap[i], usual, 0, UINT64_MAX);
		to = gap[i].end;
		from = to > window ? to - window : 0;
		while (gap[first].end <= from)
			inside -= part(&gap[first++], usual, 0, UINT64_MAX);
		sum = inside - part(&gap[first], usual, 0, from);
		if (sum > worst)
			worst = sum;
	}
	inside = 0;
	for (i = last = 0; i < n; i++) {
		from = stall_start(&gap[i], usual);
		to = from + window;
		while (last < n && stall_start(&gap[last], usual) < to)
			inside += part(&gap[last++], usual, 0, UINT64_MAX);
		sum = inside - part(&gap[last - 1], usual, to, UINT64_MAX);
		if (sum > worst)
			worst = sum;
		inside -= part(&gap[i], usual, 0, UINT64_MAX);
	}
	return worst;
}

static uint64_t own_worst(const struct bench_meter *m)
{
	size_t n =
		m->long_gaps < BENCH_LONG_GAPS ? m->long_gaps : BENCH_LONG_GAPS;

	return bench_worst_window(m->long_gap, n,
				  bench_histogram_quantile(m->gap, 0.5),
				  BENCH_MMU_WINDOW_NS);
}

static uint64_t worst(const struct bench_meter *m)
{
	uint64_t own = m->long_gap ? own_worst(m) : 0;

	return own > m->worst_merged ? own : m->worst_merged;
}

double bench_meter_mmu(const struct bench_meter *m)
{
	if (m->lost || m->long_gaps > BENCH_LONG_GAPS)
		return -1;
	return 1 - (double)worst(m) / BENCH_MMU_WINDOW_NS;
}

void bench_meter_merge(struct bench_meter *to, const struct bench_meter *from)
{
	if (from->latency)
		bench_histogram_merge(to->latency, from->latency);
	bench_histogram_merge(to->gap, from->gap);
	if (worst(from) > to->worst_merged)
		to->worst_merged = worst(from);
	to->lost |= from->lost || from->long_gaps > BENCH_LONG_GAPS;
}

uint64_t bench_meter_stall(const struct bench_meter *m)
{
	if (!m->gap)
		return 0;
	return m->gap->max - bench_histogram_quantile(m->gap, 0.5);
}
