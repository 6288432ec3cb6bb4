/* SPDX-License-Identifier: MIT */
/*
 * Snapshot files for tests, made by the library's writer from a model: memory
 * of a few regions, of which some pages are zero, some compressible, some not.
 */
#ifndef WEIR_TESTS_IMAGE_MAKE_H
#define WEIR_TESTS_IMAGE_MAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/image/image.h"
#include "runtime/image/writer.h"

#define PAGE 4096u

/* What was written, and what is to fail. */
struct bytes {
	uint8_t *data;  /* malloc()ed */
	size_t count;   /* bytes there */
	size_t room;    /* bytes of memory */
	size_t calls;   /* of bytes_output() */
	size_t failing; /* the call that fails, from 1; 0: none */
	int err;        /* what it fails with */
};

struct model {
	struct wi_identity identity;   /* of the snapshot */
	uint8_t *data[WI_REGIONS_MAX]; /* what the regions hold */
	bool *changed[WI_REGIONS_MAX]; /* pages that a delta has */
	uint64_t random;               /* state of the generator */
};

/* How a model is handed to the writer. */
struct feed {
	unsigned codec;    /* enum weir_image_codec */
	int level;         /* of it */
	size_t run;        /* pages of a run at most; 0: any number */
	size_t batch;      /* runs of a call at most; 0: any number */
	bool shuffled;     /* runs in any order */
	bool zero_as_data; /* zero pages are not told */
	size_t again;      /* END: this many pages are first told wrong */
};

uint64_t random_next(uint64_t *state);

/* A wi_output_fn. */
int bytes_output(void *arg, struct iovec *iov, int count);
void bytes_free(struct bytes *b);

/* Regions of so many pages, `count` of them, at addresses that are free. */
void model_make(struct model *m, uint64_t seed, const size_t *pages,
		size_t count);
/* Addresses at which nothing is, of so many bytes: sanitizers do not allow any.
 */
void *free_range(size_t bytes);
size_t model_pages(const struct model *m, size_t region);
/* Let it be the snapshot that follows: about one page of `one_of` changed. */
void model_change(struct model *m, unsigned one_of);
/* Regions grow by that many pages, which are all in the delta. */
void model_grow(struct model *m, size_t region, size_t pages);
void model_free(struct model *m);

/* Write it: 0 or what failed. */
int model_write(struct model *m, const struct feed *feed, struct bytes *to);

/* Open files that are in memory. */
int bytes_open(const struct bytes *files, size_t count, bool part,
	       weir_image **image);
/* Does the image hold what the model does?  NULL, or what differs. */
const char *model_differs(const struct model *m, const weir_image *image);

#endif
