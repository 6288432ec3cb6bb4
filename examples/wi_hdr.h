/* SPDX-License-Identifier: MIT */
/*
 * A log-linear histogram of durations, in the manner of HdrHistogram: each
 * power of two is divided into 32 equal buckets, so that a bucket is at most
 * 1/32 (3.1 percent) of its value wide.  Values below 64 are exact.
 *
 * One thread adds; others read after it was joined.
 */
#ifndef WEIR_EXAMPLES_WI_HDR_H
#define WEIR_EXAMPLES_WI_HDR_H

#include <stdint.h>

#define HDR_SUB_BITS 5u
#define HDR_SUB (1u << HDR_SUB_BITS)
#define HDR_BUCKETS (60u * HDR_SUB)

struct hdr {
	uint64_t count;               /* values added */
	uint64_t total;               /* their sum */
	uint64_t max;                 /* the largest, exact */
	uint64_t bucket[HDR_BUCKETS]; /* see hdr_index() */
};

/* The bucket of a value: bucket i of the first 64 holds the value i. */
static inline uint32_t hdr_index(uint64_t v)
{
	uint32_t shift;

	if (v < 2 * HDR_SUB)
		return (uint32_t)v;
	shift = 63 - (uint32_t)__builtin_clzll(v) - HDR_SUB_BITS;
	return shift * HDR_SUB + (uint32_t)(v >> shift);
}

/* The smallest value that falls into bucket i. */
static inline uint64_t hdr_low(uint32_t i)
{
	uint32_t shift;

	if (i < 2 * HDR_SUB)
		return i;
	shift = i / HDR_SUB - 1;
	return (uint64_t)(HDR_SUB + i % HDR_SUB) << shift;
}

static inline void hdr_add(struct hdr *h, uint64_t v)
{
	uint32_t i = hdr_index(v);

	h->count++;
	h->total += v;
	if (v > h->max)
		h->max = v;
	h->bucket[i < HDR_BUCKETS ? i : HDR_BUCKETS - 1]++;
}

/*
 * The value that a part q (0 to 1) of all values do not exceed, rounded up to
 * the end of its bucket but never above the largest value; 0 if empty.
 */
static inline uint64_t hdr_quantile(const struct hdr *h, double q)
{
	uint64_t rank = (uint64_t)(q * (double)h->count + 0.5), seen = 0;
	uint32_t i;

	if (rank < 1)
		rank = 1;
	for (i = 0; i + 1 < HDR_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen >= rank && h->count) {
			uint64_t end = hdr_low(i + 1) - 1;

			return end < h->max ? end : h->max;
		}
	}
	return h->max;
}

#endif
