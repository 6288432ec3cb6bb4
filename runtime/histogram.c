/* SPDX-License-Identifier: MIT */
/*
 * Power-of-two histograms of durations.
 *
 * Once no addition is under way: count is the sum of the buckets, max_ns lies
 * in the highest bucket that is not empty, and total_ns <= count * max_ns.
 *
 *   who may call      beside whom
 *   add               everybody, also from a signal handler; no lock
 *   read, quantile    everybody; figures may be one addition apart
 *
 * All accesses are relaxed: no other memory is published through a counter,
 * so there is nothing to order, only updates not to lose.
 */
#include "runtime/histogram.h"

#include <stdbool.h>

static unsigned bucket_of(uint64_t ns)
{
	return ns < 2 ? 0 : 63 - (unsigned)__builtin_clzll(ns);
}

void wr_histogram_add(struct weir_histogram *h, uint64_t ns)
{
	uint64_t max = __atomic_load_n(&h->max_ns, __ATOMIC_RELAXED);

	__atomic_fetch_add(&h->bucket[bucket_of(ns)], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&h->total_ns, ns, __ATOMIC_RELAXED);
	__atomic_fetch_add(&h->count, 1, __ATOMIC_RELAXED);
	while (ns > max &&
	       !__atomic_compare_exchange_n(&h->max_ns, &max, ns, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

void wr_histogram_read(const struct weir_histogram *h,
		       struct weir_histogram *out)
{
	out->count = __atomic_load_n(&h->count, __ATOMIC_RELAXED);
	out->total_ns = __atomic_load_n(&h->total_ns, __ATOMIC_RELAXED);
	out->max_ns = __atomic_load_n(&h->max_ns, __ATOMIC_RELAXED);
	for (int i = 0; i < WEIR_HISTOGRAM_BUCKETS; i++)
		out->bucket[i] =
			__atomic_load_n(&h->bucket[i], __ATOMIC_RELAXED);
}

uint64_t wr_histogram_quantile(const struct weir_histogram *h, double q)
{
	struct weir_histogram copy;
	uint64_t total = 0, seen = 0, rank;

	/* The buckets' own sum, not `count`: the two may differ by the
	 * additions under way, and the rank must exist. */
	wr_histogram_read(h, &copy);
	for (int i = 0; i < WEIR_HISTOGRAM_BUCKETS; i++)
		total += copy.bucket[i];
	if (!total)
		return 0;
	/* The smallest value that at least q of all are not above. */
	if (!(q > 0))
		q = 0;
	rank = q >= 1 ? total : (uint64_t)(q * (double)total);
	if (rank < total && (double)rank < q * (double)total)
		rank++;
	if (rank == 0)
		rank = 1;
	for (int i = 0; i < WEIR_HISTOGRAM_BUCKETS; i++) {
		seen += copy.bucket[i];
		if (seen >= rank)
			return i == WEIR_HISTOGRAM_BUCKETS - 1 ? UINT64_MAX
							       : 2ull << i;
	}
	return UINT64_MAX;
}
