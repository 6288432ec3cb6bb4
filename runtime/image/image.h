/* SPDX-License-Identifier: MIT */
/*
 * What an open image is, for the files that make it, read it and map it.
 *
 * Once weir_image_open() has returned nothing of it changes until it is closed:
 * any number of threads may read and map from it.
 *
 *   chunks    of all files, in their order: a greater number is later
 *   regions   an index each; of a whole image it covers every page
 */
#ifndef WEIR_RUNTIME_IMAGE_IMAGE_H
#define WEIR_RUNTIME_IMAGE_IMAGE_H

#include <time.h>

#include <weir/image.h>

#include "runtime/image/format.h"
#include "runtime/image/index.h"

/* A chunk that has pages with data, or had: what reading it takes. */
struct wi_chunk {
	uint64_t offset; /* of its head in the file */
	uint32_t head;   /* bytes of the head: the payload is behind */
	uint32_t stored; /* bytes of the payload */
	uint32_t raw;    /* bytes of pages in it */
	uint32_t crc;    /* of the payload */
	uint16_t file;   /* number of the file */
	uint16_t codec;  /* enum weir_image_codec */
};

struct wi_source {
	int fd;                      /* open for reading */
	char *name;                  /* as given */
	uint64_t bytes;              /* of the file */
	struct timespec time;        /* of its last change */
	struct wi_identity identity; /* what its header says */
	uint64_t chunks;             /* in it */
	uint64_t data_pages;         /* as its footer says */
	uint64_t zero_pages;         /* likewise */
	uint64_t time_ns;            /* likewise */
	uint64_t stored[3];          /* bytes of payload, by codec */
};

struct weir_image {
	struct wi_source *files;              /* in the order of the chain */
	size_t count;                         /* of files */
	struct wi_chunk *chunks;              /* of all of them */
	size_t chunk_count;                   /* how many */
	size_t chunk_room;                    /* how many have room */
	bool whole;                           /* every page is in it */
	uint32_t page;                        /* page size in bytes */
	const struct wi_identity *identity;   /* of the last file */
	struct wi_runs index[WI_REGIONS_MAX]; /* of each region */
	uint64_t data_pages[WI_REGIONS_MAX];  /* of them, with data */
};

/* Bytes of one chunk that are wanted. */
struct wi_piece {
	uint8_t *to;    /* where */
	uint32_t chunk; /* of which chunk */
	uint32_t at;    /* from which of its raw bytes on */
	uint32_t bytes; /* how many */
};

/* Open descriptors instead of paths: they become the image's, also where it
 * fails.  part: a delta may be first. */
int wi_image_load(const int *fds, const char *const *names, size_t count,
		  bool part, weir_image **image);

/* Verify one file, and add its chunks and its runs to the image (open.c). */
int wi_image_scan(weir_image *image, struct wi_source *file, size_t number);

/* Read pieces, which are put into the order of their chunks.  Each chunk is
 * read once and its checksum verified. */
int wi_image_fill(const weir_image *image, struct wi_piece *pieces,
		  size_t count);

/* `*own` and what it has are put into `*to`, the caller's, whose first member
 * is its size: no more than that.  -EINVAL, with a text, if that cannot be. */
int wi_give(const char *function, void *to, const void *own, size_t bytes);

/* "function: cause" for arguments that are never right; -EINVAL.  Checking
 * builds abort. */
int wi_invalid(const char *function, const char *cause) __attribute__((cold));

#endif
