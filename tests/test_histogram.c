/* SPDX-License-Identifier: MIT */
/* Bucket borders, quantiles, and additions from several threads at once. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "runtime/histogram.h"

Test(histogram, empty)
{
	struct weir_histogram h;

	memset(&h, 0, sizeof h);
	cr_assert_eq(wr_histogram_quantile(&h, 0.5), 0);
	cr_assert_eq(wr_histogram_quantile(&h, 1), 0);
}

Test(histogram, borders)
{
	static const struct {
		uint64_t ns; /* a duration */
		int bucket;  /* where it belongs */
	} cases[] = {
		{0, 0},
		{1, 0},
		{2, 1},
		{3, 1},
		{4, 2},
		{7, 2},
		{8, 3},
		{1023, 9},
		{1024, 10},
		{1ull << 62, 62},
		{(1ull << 63) - 1, 62},
		{1ull << 63, 63},
		{UINT64_MAX, 63},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct weir_histogram h;

		memset(&h, 0, sizeof h);
		wr_histogram_add(&h, cases[i].ns);
		for (int b = 0; b < WEIR_HISTOGRAM_BUCKETS; b++)
			cr_assert_eq(h.bucket[b], b == cases[i].bucket,
				     "%lu ns, bucket %d", cases[i].ns, b);
		cr_assert_eq(h.count, 1);
		cr_assert_eq(h.total_ns, cases[i].ns);
		cr_assert_eq(h.max_ns, cases[i].ns);
	}
}

Test(histogram, quantiles)
{
	struct weir_histogram h;

	memset(&h, 0, sizeof h);
	for (int i = 0; i < 90; i++)
		wr_histogram_add(&h, 100); /* [64, 128) */
	for (int i = 0; i < 9; i++)
		wr_histogram_add(&h, 1000); /* [512, 1024) */
	wr_histogram_add(&h, 1000000);      /* [2^19, 2^20) */
	cr_assert_eq(wr_histogram_quantile(&h, -1), 128);
	cr_assert_eq(wr_histogram_quantile(&h, 0), 128);
	cr_assert_eq(wr_histogram_quantile(&h, 0.5), 128);
	cr_assert_eq(wr_histogram_quantile(&h, 0.9), 128);
	cr_assert_eq(wr_histogram_quantile(&h, 0.901), 1024);
	cr_assert_eq(wr_histogram_quantile(&h, 0.99), 1024);
	cr_assert_eq(wr_histogram_quantile(&h, 0.991), 1 << 20);
	cr_assert_eq(wr_histogram_quantile(&h, 1), 1 << 20);
	cr_assert_eq(wr_histogram_quantile(&h, 2), 1 << 20);
}

Test(histogram, top_bucket_has_no_bound)
{
	struct weir_histogram h;

	memset(&h, 0, sizeof h);
	wr_histogram_add(&h, UINT64_MAX);
	cr_assert_eq(wr_histogram_quantile(&h, 0.5), UINT64_MAX);
}

#define THREADS 4
#define ADDITIONS 50000

static struct weir_histogram shared;

static void *adder(void *arg)
{
	uint64_t k = (uint64_t)(uintptr_t)arg;

	for (uint64_t i = 0; i < ADDITIONS; i++)
		wr_histogram_add(&shared, i * THREADS + k);
	return NULL;
}

Test(histogram, threads_lose_nothing)
{
	pthread_t t[THREADS];
	struct weir_histogram copy;
	uint64_t sum = 0, n = (uint64_t)THREADS * ADDITIONS;

	for (uintptr_t i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, adder, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	wr_histogram_read(&shared, &copy);
	for (int i = 0; i < WEIR_HISTOGRAM_BUCKETS; i++)
		sum += copy.bucket[i];
	cr_assert_eq(sum, n);
	cr_assert_eq(copy.count, n);
	cr_assert_eq(copy.total_ns, n * (n - 1) / 2);
	cr_assert_eq(copy.max_ns, n - 1);
}
