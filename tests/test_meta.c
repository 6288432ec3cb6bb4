/* SPDX-License-Identifier: MIT */
/* Granule table searches against a byte-at-a-time reference. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "gc/meta.h"

#define N 512

static _Alignas(8) uint8_t meta[N];

static uint32_t state = 12345;

static uint32_t next(void)
{
	state = state * 1664525u + 1013904223u;
	return state >> 8;
}

/* Random objects and holes. */
static void fill(void)
{
	size_t g = 0;

	memset(meta, 0, sizeof(meta));
	while (g < N) {
		size_t len = 1 + next() % (next() % 8 ? 4 : 40);

		if (g + len > N)
			break;
		if (next() % 3) {
			meta[g + len - 1] = WEIR_META_END;
			meta[g] =
				(uint8_t)(1 + next() % 3 + (next() % 32 << 3));
			if (len == 1)
				meta[g] |= WEIR_META_END;
		}
		g += len;
	}
}

static size_t slow_next(size_t g, size_t end, unsigned colour)
{
	while (g < end && (meta[g] & 3) != colour)
		g++;
	return g;
}

Test(meta, next_finds_the_first_start_of_a_colour)
{
	for (int round = 0; round < 200; round++) {
		fill();
		for (size_t g = 0; g < N; g++)
			for (unsigned c = 1; c <= 3; c++)
				cr_assert_eq(wg_meta_next(meta, g, N, c),
					     slow_next(g, N, c));
	}
}

Test(meta, nonzero_ends_a_hole)
{
	for (int round = 0; round < 200; round++) {
		fill();
		for (size_t g = 0; g < N; g++) {
			size_t want = g;

			while (want < N && !meta[want])
				want++;
			cr_assert_eq(wg_meta_nonzero(meta, g, N), want);
		}
	}
}

Test(meta, prev_and_end_bound_the_object_around_a_granule)
{
	for (int round = 0; round < 200; round++) {
		fill();
		for (size_t g = 0; g < N; g++) {
			size_t want = g;

			while (want != SIZE_MAX && !(meta[want] & 3))
				want--;
			cr_assert_eq(wg_meta_prev(meta, g, 0), want);
			if (want == SIZE_MAX)
				continue;
			size_t end = want;

			while (!(meta[end] & WEIR_META_END))
				end++;
			cr_assert_eq(wg_meta_end(meta, want), end);
			for (size_t k = (want & ~(size_t)7) + 8; k <= N; k += 8)
				cr_assert_eq(wg_meta_end_within(meta, want, k),
					     end < k ? end : k);
			for (size_t k = want; k < end + 20 && k < N; k++)
				cr_assert_eq(wg_meta_ends_before(meta, want, k),
					     end < k);
		}
	}
}
