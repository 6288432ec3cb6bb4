/* SPDX-License-Identifier: MIT */
/*
 * Power-of-two histograms of durations, any thread may add at any time.
 * Counters are relaxed atomics: each is exact, a reader may see them torn
 * against each other by the additions under way.
 */
#ifndef WEIR_RUNTIME_HISTOGRAM_H
#define WEIR_RUNTIME_HISTOGRAM_H

#include <weir/weir.h>

void wr_histogram_add(struct weir_histogram *h, uint64_t ns);
void wr_histogram_read(const struct weir_histogram *h,
		       struct weir_histogram *out);
/* Upper bound of the bucket that holds quantile q (0..1), 0 if empty. */
uint64_t wr_histogram_quantile(const struct weir_histogram *h, double q);

#endif
