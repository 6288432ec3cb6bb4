/* SPDX-License-Identifier: MIT */
/*
 * Lists of runs and indexes; see index.h.
 *
 * wi_runs_settle() goes through all runs from left to right.  Those that have
 * begun are in a heap, the latest at its top: that one has the pages up to its
 * end or to where the next one begins.  Runs that have ended are taken out when
 * they come to the top.  O(n log n), whatever the files say.
 */
#include "runtime/image/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <weir/embed.h>

static int no_memory(void)
{
	return weir_error_set(ENOMEM, "no memory for a snapshot's index");
}

static int reserve(struct wi_runs *list, size_t count)
{
	size_t room = list->room ? list->room : 64;
	struct wi_run *runs;

	if (count <= list->room)
		return 0;
	while (room < count)
		room += room / 2 + 16;
	runs = realloc(list->runs, room * sizeof *runs);
	if (!runs)
		return no_memory();
	list->runs = runs;
	list->room = room;
	return 0;
}

int wi_runs_add(struct wi_runs *list, const struct wi_run *run)
{
	int err = reserve(list, list->count + 1);

	if (!err)
		list->runs[list->count++] = *run;
	return err;
}

void wi_runs_free(struct wi_runs *list)
{
	free(list->runs);
	*list = (struct wi_runs){0};
}

/* ---- Order --------------------------------------------------------------- */

static bool later(const struct wi_run *a, const struct wi_run *b)
{
	return a->chunk != b->chunk ? a->chunk > b->chunk : a->order > b->order;
}

static int by_page(const void *x, const void *y)
{
	const struct wi_run *a = x, *b = y;

	if (a->page != b->page)
		return a->page < b->page ? -1 : 1;
	return later(a, b) ? 1 : later(b, a) ? -1 : 0;
}

/* Mostly they are in order already. */
static void sort(struct wi_run *runs, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		if (by_page(&runs[i - 1], &runs[i]) > 0) {
			qsort(runs, count, sizeof *runs, by_page);
			return;
		}
	}
}

bool wi_runs_twice(struct wi_runs *list, size_t from, struct wi_run *twice)
{
	sort(list->runs + from, list->count - from);
	for (size_t i = from + 1; i < list->count; i++) {
		const struct wi_run *a = &list->runs[i - 1];
		const struct wi_run *b = &list->runs[i];

		if (b->page - a->page < a->pages) {
			*twice = later(a, b) ? *a : *b;
			twice->page = b->page;
			return true;
		}
	}
	return false;
}

/* ---- Settling ------------------------------------------------------------ */

/* Runs that have begun, the latest first: a binary heap. */
struct begun {
	const struct wi_run **runs; /* the heap */
	size_t count;               /* how many are in it */
};

static void push(struct begun *b, const struct wi_run *run)
{
	size_t i = b->count++;

	while (i && later(run, b->runs[(i - 1) / 2])) {
		b->runs[i] = b->runs[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	b->runs[i] = run;
}

static void pop(struct begun *b)
{
	const struct wi_run *run = b->runs[--b->count];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < b->count) {
		if (child + 1 < b->count &&
		    later(b->runs[child + 1], b->runs[child]))
			child++;
		if (!later(b->runs[child], run))
			break;
		b->runs[i] = b->runs[child];
		i = child;
	}
	b->runs[i] = run;
}

/* Pages [from, to) are run's.  The list has room for two more entries for each
 * run that was collected, see below. */
static void emit(struct wi_runs *to_list, const struct wi_run *run,
		 uint64_t from, uint64_t to)
{
	struct wi_run piece = *run;
	struct wi_run *last =
		to_list->count ? &to_list->runs[to_list->count - 1] : NULL;

	if (run->at != WI_NO_DATA)
		piece.at = (uint16_t)(run->at + (from - run->page));
	piece.page = from;
	piece.pages = to - from;
	if (last && last->page + last->pages == from) {
		bool zero = last->at == WI_NO_DATA && piece.at == WI_NO_DATA;

		if (zero || (last->at != WI_NO_DATA && piece.at != WI_NO_DATA &&
			     last->chunk == piece.chunk &&
			     last->at + last->pages == piece.at)) {
			last->pages += piece.pages;
			return;
		}
	}
	to_list->runs[to_list->count++] = piece;
}

static void sweep(const struct wi_runs *list, struct begun *begun,
		  struct wi_runs *out)
{
	uint64_t page = 0;
	size_t i = 0;

	while (i < list->count || begun->count) {
		const struct wi_run *top;
		uint64_t end;

		if (!begun->count)
			page = list->runs[i].page;
		while (i < list->count && list->runs[i].page == page)
			push(begun, &list->runs[i++]);
		top = begun->runs[0];
		if (top->page + top->pages <= page) {
			pop(begun);
			continue;
		}
		end = top->page + top->pages;
		if (i < list->count && list->runs[i].page < end)
			end = list->runs[i].page;
		emit(out, top, page, end);
		page = end;
	}
}

int wi_runs_settle(struct wi_runs *list)
{
	struct begun begun = {0};
	struct wi_runs out = {0};
	int err = 0;

	if (!list->count)
		return 0;
	sort(list->runs, list->count);
	begun.runs = malloc(list->count * sizeof *begun.runs);
	if (!begun.runs)
		err = no_memory();
	/* Pieces begin where a run begins or ends. */
	if (!err)
		err = reserve(&out, 2 * list->count);
	if (!err) {
		sweep(list, &begun, &out);
		free(list->runs);
		*list = out;
		/* Give back what was not needed; it stays where that fails. */
		out.runs = realloc(list->runs, out.count * sizeof *out.runs);
		if (out.runs) {
			list->runs = out.runs;
			list->room = out.count;
		}
	}
	free(begun.runs);
	return err;
}

/* ---- Looking up ---------------------------------------------------------- */

uint64_t wi_runs_gap(const struct wi_runs *list, uint64_t pages)
{
	uint64_t page = 0;

	for (size_t i = 0; i < list->count && list->runs[i].page == page; i++)
		page += list->runs[i].pages;
	return page < pages ? page : pages;
}

size_t wi_runs_find(const struct wi_runs *list, uint64_t page)
{
	size_t low = 0, high = list->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (list->runs[mid].page + list->runs[mid].pages > page)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}
