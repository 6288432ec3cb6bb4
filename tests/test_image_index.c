/* SPDX-License-Identifier: MIT */
/* Indexes of runs against arrays of pages. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/image/index.h"

enum { PAGES = 200 };

static uint64_t state = 88172645463325252u;

static uint64_t next(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

/* Where a page is. */
struct place {
	bool there;     /* it is in some run */
	uint32_t chunk; /* in which chunk */
	uint32_t at;    /* which page of it; WI_NO_DATA: zero */
};

static struct place place_of(const struct wi_run *run, uint64_t page)
{
	return (struct place){
		.there = true,
		.chunk = run->at == WI_NO_DATA ? 0 : run->chunk,
		.at = run->at == WI_NO_DATA
			      ? WI_NO_DATA
			      : (uint32_t)(run->at + (page - run->page)),
	};
}

static void check(const struct wi_runs *list, const struct place *want)
{
	uint64_t gap = PAGES;

	for (uint64_t p = 0; p < PAGES; p++) {
		size_t j = wi_runs_find(list, p);
		struct place have = {0};

		if (j < list->count && list->runs[j].page <= p)
			have = place_of(&list->runs[j], p);
		cr_assert_eq(have.there, want[p].there);
		cr_assert_eq(have.chunk, want[p].chunk);
		cr_assert_eq(have.at, want[p].at);
		if (!have.there && gap == PAGES)
			gap = p;
	}
	cr_assert_eq(wi_runs_gap(list, PAGES), gap);
	for (size_t j = 1; j < list->count; j++)
		cr_assert_leq(list->runs[j - 1].page + list->runs[j - 1].pages,
			      list->runs[j].page);
}

static void some_runs(unsigned runs, bool more)
{
	struct wi_runs list = {0};
	struct place want[PAGES];
	uint32_t chunk = 0;

	memset(want, 0, sizeof want);
	for (int file = 0; file < (more ? 3 : 1); file++) {
		for (unsigned i = 0; i < runs; i++) {
			struct wi_run run = {.page = next(PAGES)};
			uint64_t length = next(4) ? 8 : PAGES;

			if (length > PAGES - run.page)
				length = PAGES - run.page;
			run.pages = 1 + next(length);
			chunk += next(3) != 0;
			run.chunk = chunk;
			run.order = (uint16_t)i;
			run.at = next(3) ? (uint16_t)next(300) : WI_NO_DATA;
			for (uint64_t p = 0; p < run.pages; p++)
				want[run.page + p] =
					place_of(&run, run.page + p);
			cr_assert_eq(wi_runs_add(&list, &run), 0);
		}
		chunk++;
		cr_assert_eq(wi_runs_settle(&list), 0);
		check(&list, want);
	}
	wi_runs_free(&list);
}

Test(image_index, the_last_of_a_page_has_it)
{
	for (unsigned i = 0; i < 3000; i++)
		some_runs(1 + i % 60, i % 2);
}

Test(image_index, nothing)
{
	struct wi_runs list = {0};

	cr_assert_eq(wi_runs_settle(&list), 0);
	cr_assert_eq(wi_runs_find(&list, 0), 0);
	cr_assert_eq(wi_runs_gap(&list, 3), 0);
	cr_assert_eq(wi_runs_gap(&list, 0), 0);
}

Test(image_index, neighbours_are_one)
{
	struct wi_runs list = {0};

	for (uint16_t i = 0; i < 100; i++) {
		/* Zero: of any chunks.  Data: one chunk, one after the other.
		 */
		struct wi_run zero = {i, 1, i, i, WI_NO_DATA};
		struct wi_run data = {100u + i, 1, 7, i, i};

		cr_assert_eq(wi_runs_add(&list, &zero), 0);
		cr_assert_eq(wi_runs_add(&list, &data), 0);
	}
	cr_assert_eq(wi_runs_settle(&list), 0);
	cr_assert_eq(list.count, 2);
	wi_runs_free(&list);
}

Test(image_index, a_page_that_is_there_twice)
{
	struct wi_runs list = {0};
	struct wi_run twice;

	cr_assert_eq(wi_runs_add(&list, &(struct wi_run){5, 5, 0, 0, 0}), 0);
	cr_assert_eq(wi_runs_add(&list, &(struct wi_run){0, 5, 1, 0, 0}), 0);
	cr_assert(!wi_runs_twice(&list, 0, &twice));
	cr_assert_eq(wi_runs_add(&list, &(struct wi_run){3, 1, 2, 0, 0}), 0);
	cr_assert(wi_runs_twice(&list, 0, &twice));
	cr_assert_eq(twice.page, 3);
	cr_assert_eq(twice.chunk, 2);
	cr_assert(!wi_runs_twice(&list, 2, &twice));
	wi_runs_free(&list);
}

Test(image_index, runs_as_long_as_can_be)
{
	struct wi_runs list = {0};
	struct wi_run twice;
	uint64_t most = UINT64_C(1) << 34;

	for (uint32_t i = 0; i < 10; i++)
		cr_assert_eq(
			wi_runs_add(&list, &(struct wi_run){i, most - i, i, 0,
							    WI_NO_DATA}),
			0);
	cr_assert(wi_runs_twice(&list, 0, &twice));
	cr_assert_eq(wi_runs_settle(&list), 0);
	cr_assert_eq(list.count, 1);
	cr_assert_eq(wi_runs_gap(&list, most), most);
	wi_runs_free(&list);
}
