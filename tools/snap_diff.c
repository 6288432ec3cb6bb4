/* SPDX-License-Identifier: MIT */
/*
 * weir-snap diff: where the memory of two snapshots differs.
 *
 * Regions are compared by their numbers.  One that is elsewhere, or is there in
 * one of them only, differs as a whole; where one is longer, what is beyond the
 * other's end differs.  Where both are zero nothing is read, so that large
 * regions of little data take little time.
 */
#include "tools/weir-snap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 4 << 20 };

/* Pages that differ, as they are found. */
struct difference {
	const struct snap_options *options; /* how to print */
	weir_image *a, *b;                  /* what is compared */
	uint8_t *from_a, *from_b;           /* WINDOW bytes of each */
	uint64_t page;       /* bytes that are compared at once */
	uint64_t address;    /* of the region */
	uint64_t start, end; /* the run that may yet grow; empty if equal */
	uint64_t bytes;      /* that differ in the region so far */
	bool any;            /* they differ anywhere */
	bool printed;        /* something of the region was */
};

/* ---- Output -------------------------------------------------------------- */

static void print_run(struct difference *d, uint64_t start, uint64_t end)
{
	if (d->options->json)
		printf("%s{\"address\": %" PRIu64 ", \"bytes\": %" PRIu64 "}",
		       d->printed ? ", " : "", d->address + start, end - start);
	else
		printf("  %#" PRIx64 " + %" PRIu64 "\n", d->address + start,
		       end - start);
	d->printed = true;
}

/* The run is over. */
static void put_run(struct difference *d)
{
	uint64_t step = d->options->pages ? d->page : d->end - d->start;

	for (uint64_t at = d->start; at < d->end; at += step)
		print_run(d, at, d->end - at < step ? d->end : at + step);
	d->bytes += d->end - d->start;
	d->start = d->end = 0;
}

static void differs(struct difference *d, uint64_t start, uint64_t end)
{
	d->any = true;
	if (d->end != start || d->start == d->end) {
		put_run(d);
		d->start = start;
	}
	d->end = end;
}

/* ---- Comparing ----------------------------------------------------------- */

static int compare_window(struct difference *d, size_t i, uint64_t at,
			  size_t bytes)
{
	int err = weir_image_read(d->a, i, at, d->from_a, bytes);

	if (!err)
		err = weir_image_read(d->b, i, at, d->from_b, bytes);
	for (size_t n = 0; n < bytes && !err; n += d->page)
		if (memcmp(d->from_a + n, d->from_b + n, d->page))
			differs(d, at + n, at + n + d->page);
	return err;
}

/* What both have of region i. */
static int compare_region(struct difference *d, size_t i, uint64_t bytes)
{
	uint64_t at = 0;

	while (at < bytes) {
		uint64_t a, b, a_bytes, b_bytes, n;
		int err = weir_image_data(d->a, i, at, &a, &a_bytes);

		if (!err)
			err = weir_image_data(d->b, i, at, &b, &b_bytes);
		if (err)
			return err;
		at = a < b ? a : b;
		if (at >= bytes || (!a_bytes && !b_bytes))
			break;
		n = bytes - at < WINDOW ? bytes - at : WINDOW;
		err = compare_window(d, i, at, (size_t)n);
		if (err)
			return err;
		at += n;
	}
	return 0;
}

static int one_region(struct difference *d, size_t i,
		      const struct weir_image_region *a,
		      const struct weir_image_region *b)
{
	uint64_t less = a->bytes < b->bytes ? a->bytes : b->bytes;
	uint64_t more = a->bytes < b->bytes ? b->bytes : a->bytes;
	int err = 0;

	/* One that is not there has no bytes. */
	if (!a->bytes || a->address != b->address)
		less = 0;
	if (!a->bytes)
		a = b;
	d->address = a->address;
	d->bytes = 0;
	d->printed = false;
	if (d->options->json) {
		printf("%s\n  {\"region\": %zu, \"name\": ", i ? "," : "", i);
		quote(a->name);
		printf(", \"ranges\": [");
	} else {
		printf("region %zu ", i);
		quote(a->name);
		printf(":\n");
	}
	if (less)
		err = compare_region(d, i, less);
	if (less < more)
		differs(d, less, more);
	put_run(d);
	if (d->options->json)
		printf("], \"bytes\": %" PRIu64 "}", d->bytes);
	else
		printf("  %" PRIu64 " pages of %" PRIu64 " differ\n",
		       d->bytes / d->page, more / d->page);
	return err;
}

static int all_regions(struct difference *d)
{
	struct weir_image_info a = {.size = sizeof a}, b = {.size = sizeof b};
	size_t most;
	int err = 0;

	weir_image_info(d->a, &a);
	weir_image_info(d->b, &b);
	d->page = a.page < b.page ? a.page : b.page;
	most = a.regions > b.regions ? a.regions : b.regions;
	if (d->options->json)
		printf("{\"regions\": [");
	for (size_t i = 0; i < most && !err; i++) {
		struct weir_image_region x = {.size = sizeof x};
		struct weir_image_region y = {.size = sizeof y};

		if (i < a.regions)
			weir_image_region(d->a, i, &x);
		if (i < b.regions)
			weir_image_region(d->b, i, &y);
		err = one_region(d, i, &x, &y);
	}
	if (d->options->json)
		printf("],\n \"differ\": %s}\n", d->any ? "true" : "false");
	return err;
}

/* ---- Chains -------------------------------------------------------------- */

/* Open "FILE,FILE,...". */
static int open_chain(const char *list, weir_image **image)
{
	char *copy = strdup(list), *rest = copy;
	size_t count = 1, n = 0;
	const char **paths;
	int err = -ENOMEM;

	for (const char *p = list; *p; p++)
		count += *p == ',';
	paths = calloc(count, sizeof *paths);
	if (copy && paths) {
		while (n < count)
			paths[n++] = strsep(&rest, ",");
		err = weir_image_open(paths, n, image);
	}
	free(paths);
	free(copy);
	return err;
}

int snap_diff(const char *a, const char *b, const struct snap_options *options)
{
	struct difference d = {.options = options};
	int err = open_chain(a, &d.a);

	if (!err)
		err = open_chain(b, &d.b);
	if (!err) {
		d.from_a = malloc(WINDOW);
		d.from_b = malloc(WINDOW);
		err = d.from_a && d.from_b ? all_regions(&d) : -ENOMEM;
	}
	if (err)
		snap_failed(err);
	free(d.from_a);
	free(d.from_b);
	weir_image_close(d.a);
	weir_image_close(d.b);
	return err ? EXIT_TROUBLE : d.any ? EXIT_BAD : EXIT_FINE;
}
