/* SPDX-License-Identifier: MIT */
/*
 * Where each page of a region is: sorted runs.
 *
 * A list is collected in the order of the files, then wi_runs_settle() makes an
 * index of it:
 *
 *   - runs[i].page + runs[i].pages <= runs[i + 1].page
 *   - of runs that had a page in common the later one has it; later is the
 *     greater (chunk, order)
 *   - neighbours that follow each other in both region and chunk are one
 *
 * Memory: a run is 24 bytes; an index has at most twice as many as were
 * collected, so it is bounded by the size of the files, not by that of the
 * regions that they describe.
 */
#ifndef WEIR_RUNTIME_IMAGE_INDEX_H
#define WEIR_RUNTIME_IMAGE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WI_NO_DATA UINT16_MAX

struct wi_run {
	uint64_t page;  /* first, counted from the region's start */
	uint64_t pages; /* how many */
	uint32_t chunk; /* number in the image's table */
	uint16_t order; /* of the run in its chunk */
	uint16_t at;    /* page of the chunk's raw bytes; WI_NO_DATA: zero */
};

_Static_assert(sizeof(struct wi_run) == 24, "as the text above says");

struct wi_runs {
	struct wi_run *runs; /* the list, malloc()ed */
	size_t count;        /* how many there are */
	size_t room;         /* how many have room */
};

/* -ENOMEM, with a text. */
int wi_runs_add(struct wi_runs *list, const struct wi_run *run);

/* Runs from number `from` on are sorted by page; the first page that is in two
 * of them: true, and *twice is the later run. */
bool wi_runs_twice(struct wi_runs *list, size_t from, struct wi_run *twice);

/* Make it an index.  -ENOMEM, with a text. */
int wi_runs_settle(struct wi_runs *list);

/* Of an index: the first page below `pages` that is in no run, or `pages`. */
uint64_t wi_runs_gap(const struct wi_runs *list, uint64_t pages);

/* Of an index: the number of the first run that ends beyond `page`. */
size_t wi_runs_find(const struct wi_runs *list, uint64_t page);

void wi_runs_free(struct wi_runs *list);

#endif
