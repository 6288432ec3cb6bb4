/* SPDX-License-Identifier: MIT */
/* The benchmarks' meter: histograms, stalls, the minimum mutator utilisation.
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdlib.h>

#include "benchmarks/bench.h"

/* What the meter needs of its program. */
void bench_die(const char *format, ...)
{
	(void)format;
	abort();
}

#define MS 1000000u
#define US 1000u

Test(latency, buckets_hold_three_digits)
{
	struct bench_histogram *h = bench_histogram_create();

	for (uint64_t ns = 1; ns < 1ull << 41; ns = ns * 3 + 1)
		bench_histogram_add(h, ns);
	cr_assert_eq(bench_histogram_quantile(h, 1), h->max);
	bench_histogram_add(h, 123456789);
	for (int i = 0; i < 1000; i++)
		bench_histogram_add(h, 123456789);
	cr_assert_geq(bench_histogram_quantile(h, 0.5), 123456789);
	cr_assert_leq(bench_histogram_quantile(h, 0.5), 123456789 * 1.001);
}

static uint64_t worst_of(const struct bench_gap *g, size_t n)
{
	return bench_worst_window(g, n, 0, 10 * MS);
}

Test(latency, worst_window)
{
	/* Ends and lengths. */
	struct bench_gap one[] = {{50 * MS, 3 * MS}};
	struct bench_gap longer[] = {{50 * MS, 30 * MS}};
	struct bench_gap apart[] = {{50 * MS, 3 * MS}, {70 * MS, 4 * MS}};
	struct bench_gap both[] = {{50 * MS, 3 * MS}, {55 * MS, 4 * MS}};
	/* [47, 50) and [56, 60): 10 ms hold the first and 1 ms of the other,
	 * or the other and none. */
	struct bench_gap head[] = {{50 * MS, 3 * MS}, {60 * MS, 4 * MS}};
	/* [30, 36) and [38, 45): ending with the other they hold 7 + 1. */
	struct bench_gap tail[] = {{36 * MS, 6 * MS}, {45 * MS, 7 * MS}};

	cr_assert_eq(worst_of(NULL, 0), 0);
	cr_assert_eq(worst_of(one, 1), 3 * MS);
	cr_assert_eq(worst_of(longer, 1), 10 * MS);
	cr_assert_eq(worst_of(apart, 2), 4 * MS);
	cr_assert_eq(worst_of(both, 2), 7 * MS);
	cr_assert_eq(worst_of(head, 2), 4 * MS);
	cr_assert_eq(worst_of(tail, 2), 8 * MS);
}

/* The same, by looking at every microsecond. */
static uint64_t slow_worst(const struct bench_gap *g, size_t n, uint64_t usual)
{
	uint64_t most = 0;

	for (uint64_t from = 0; from < 60 * MS; from += US) {
		uint64_t sum = 0, to = from + 10 * MS;

		for (size_t i = 0; i < n; i++) {
			uint64_t a = g[i].end - g[i].ns + usual, b = g[i].end;

			if (g[i].ns <= 2 * usual)
				continue;
			a = a < from ? from : a;
			b = b > to ? to : b;
			sum += b > a ? b - a : 0;
		}
		most = sum > most ? sum : most;
	}
	return most;
}

Test(latency, worst_window_of_random_gaps)
{
	struct bench_random r = {12345};

	for (int round = 0; round < 20; round++) {
		struct bench_gap g[64];
		uint64_t now = 0;
		size_t n = 1 + bench_random_below(&r, 64);

		for (size_t i = 0; i < n; i++) {
			now += US * bench_random_below(&r, 800);
			g[i].ns = US * (20 + bench_random_below(&r, 900));
			now += g[i].ns;
			g[i].end = now;
		}
		cr_assert_eq(bench_worst_window(g, n, 30 * US, 10 * MS),
			     slow_worst(g, n, 30 * US));
	}
}

/* Stops of 700 us with 20 us between them hide in the longest gap, not in the
 * utilisation. */
Test(latency, slices_show_in_utilisation)
{
	struct bench_meter m = {0}, all = {0};
	uint64_t now;

	bench_meter_create(&m, 0);
	bench_meter_create(&all, 0);
	now = m.last;
	for (int i = 0; i < 100000; i++)
		bench_meter_tick(&m, now += US);
	cr_assert_float_eq(bench_meter_mmu(&m), 1, 1e-9);
	for (int slice = 0; slice < 30; slice++) {
		bench_meter_tick(&m, now += 701 * US);
		for (int i = 0; i < 20; i++)
			bench_meter_tick(&m, now += US);
	}
	cr_assert_lt(bench_meter_stall(&m), 1 * MS);
	cr_assert_float_eq(bench_meter_mmu(&m), 0.03, 0.005);
	/* Of several threads the one with the least counts. */
	bench_meter_merge(&all, &m);
	cr_assert_float_eq(bench_meter_mmu(&all), bench_meter_mmu(&m), 1e-9);
}

Test(latency, too_many_gaps_are_no_figure)
{
	struct bench_meter m = {0}, all = {0};
	uint64_t now;

	bench_meter_create(&m, 0);
	bench_meter_create(&all, 0);
	now = m.last;
	for (unsigned i = 0; i < BENCH_LONG_GAPS; i++)
		bench_meter_tick(&m, now += 30 * US);
	cr_assert_geq(bench_meter_mmu(&m), 0);
	bench_meter_tick(&m, now += 30 * US);
	cr_assert_lt(bench_meter_mmu(&m), 0);
	bench_meter_merge(&all, &m);
	cr_assert_lt(bench_meter_mmu(&all), 0);
}
