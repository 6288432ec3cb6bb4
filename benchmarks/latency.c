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
	m->last = bench_now();
}

void bench_meter_merge(struct bench_meter *to, const struct bench_meter *from)
{
	if (from->latency)
		bench_histogram_merge(to->latency, from->latency);
	bench_histogram_merge(to->gap, from->gap);
}

uint64_t bench_meter_stall(const struct bench_meter *m)
{
	if (!m->gap)
		return 0;
	return m->gap->max - bench_histogram_quantile(m->gap, 0.5);
}
