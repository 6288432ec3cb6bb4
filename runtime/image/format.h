/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a snapshot file, version 1, as docs/SNAPSHOT-FORMAT.md has them.
 *
 *	file header, padded to a page
 *	chunk: head, table of runs, (padding to a page,) payload
 *	...
 *	footer
 *
 * Pure functions between these bytes and structs: no file is read or written
 * here.  What is parsed is hostile.  A parser looks at the checksum before it
 * believes a field, and what it has accepted keeps these promises:
 *
 *   region:  address, bytes, unit are multiples of the page size; bytes is in
 *            (0, WI_REGION_MAX]; address + bytes does not overflow; no two
 *            overlap
 *   chunk:   1 <= runs <= WI_RUNS_MAX; raw <= WI_CHUNK_MAX; stored == raw
 *            without a codec and 0 < stored < raw with one
 *   run:     within its region; page + pages does not overflow
 *
 * There is one encoding of anything: a reader refuses every other, so that no
 * byte of a file is without a meaning.
 */
#ifndef WEIR_RUNTIME_IMAGE_FORMAT_H
#define WEIR_RUNTIME_IMAGE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WI_VERSION = 1,
	WI_HEADER = 80,      /* bytes of the file header before its regions */
	WI_REGION = 64,      /* bytes of a region in it */
	WI_HEAD = 64,        /* bytes of a chunk's head before its runs */
	WI_RUN = 16,         /* bytes of a run */
	WI_FOOTER = 104,     /* bytes of the footer, its head included */
	WI_REGIONS_MAX = 64, /* as many as a snapshot takes */
	WI_RUNS_MAX = 4096,  /* of a chunk */
	WI_CHUNK_MAX = 2 << 20, /* bytes of pages in a chunk */
	WI_PAGE_MIN = 4096,
	WI_PAGE_MAX = 65536,
	WI_NAME = 32, /* bytes of a region's name, its end included */
};

/* More cannot be addressed. */
#define WI_REGION_MAX ((uint64_t)1 << 46)

/* Room for a chunk's head, runs and padding. */
#define WI_HEAD_ROOM (WI_HEAD + WI_RUNS_MAX * WI_RUN + WI_PAGE_MAX)
/* Room for a file header. */
#define WI_HEADER_ROOM WI_PAGE_MAX

_Static_assert(WI_HEADER + WI_REGIONS_MAX * WI_REGION <= WI_HEADER_ROOM,
	       "a header of all regions has room");

enum wi_type {
	WI_CHUNK = 1,  /* pages */
	WI_FINISH = 2, /* the footer */
};

/* A region as a file has it. */
struct wi_region {
	uint64_t address;   /* where it was */
	uint64_t bytes;     /* how long it was */
	uint64_t unit;      /* what the engine saved at once, in bytes */
	uint32_t flags;     /* WEIR_REGION_* */
	char name[WI_NAME]; /* zero from its end on */
};

/* What a file is a snapshot of. */
struct wi_identity {
	uint8_t id[16];   /* of this snapshot, never zero */
	uint8_t base[16]; /* of the one it follows; zero: it is whole */
	uint32_t kind;    /* enum weir_snapshot_kind */
	uint32_t page;    /* page size in bytes */
	uint32_t count;   /* of regions */
	struct wi_region regions[WI_REGIONS_MAX];
};

/* A chunk's head, or the footer's. */
struct wi_head {
	uint32_t type;     /* enum wi_type */
	uint32_t codec;    /* enum weir_image_codec */
	uint64_t sequence; /* how many chunks are before it */
	uint64_t offset;   /* of its first byte from the header's */
	uint32_t runs;     /* how many */
	uint32_t bytes;    /* head, runs and padding: up to the payload */
	uint32_t stored;   /* bytes of the payload */
	uint32_t raw;      /* bytes of the pages in it */
	uint32_t crc;      /* CRC32C of the payload */
	uint32_t head_crc; /* CRC32C of head, runs and padding */
};

/* What the footer says of the file. */
struct wi_footer {
	uint64_t data_pages; /* pages with data in the chunks' runs */
	uint64_t zero_pages; /* pages without */
	uint64_t bytes;      /* of the file */
	uint64_t time_ns;    /* of the moment, CLOCK_REALTIME */
	uint32_t chain;      /* see wi_chain() */
};

/* One run of a chunk. */
struct wi_pages {
	uint64_t page;   /* first, counted from the region's start */
	uint32_t pages;  /* how many, at least one */
	uint16_t region; /* number of the region */
	bool zero;       /* no data in the payload: all zero */
};

/* For messages: which file, and where in it. */
struct wi_where {
	const char *name; /* of the file */
	uint64_t at;      /* offset */
};

/* "NAME: at byte N: cause; cure" to weir_error_text(); returns -EBADMSG. */
int wi_bad(struct wi_where where, const char *format, ...)
	__attribute__((format(printf, 2, 3), cold));

bool wi_id_is_zero(const uint8_t id[16]);

/* Bytes of the header of a file with that many regions. */
uint32_t wi_header_bytes(uint32_t count, uint32_t page);
/* Bytes of a chunk's head, runs and padding: its payload begins behind. */
uint32_t wi_head_bytes(const struct wi_head *head, uint32_t page);

/* Write a header, wi_header_bytes() long; returns its checksum. */
uint32_t wi_header_put(uint8_t *to, const struct wi_identity *identity);
/*
 * The first WI_HEADER bytes say how long the whole is: 0 and *bytes, no more
 * than WI_HEADER_ROOM; -EBADMSG, -ENOTSUP.  Then all of it is parsed.
 */
int wi_header_length(const uint8_t *from, const char *name, uint32_t *bytes);
int wi_header_get(const uint8_t *from, const char *name,
		  struct wi_identity *identity, uint32_t *crc);

/* Write run `i` of a chunk whose head begins at `to`. */
void wi_run_put(uint8_t *to, uint32_t i, const struct wi_pages *run);
/* Read it, the head being accepted; `where` is the head's. */
int wi_run_get(const uint8_t *from, uint32_t i,
	       const struct wi_identity *identity, struct wi_where where,
	       struct wi_pages *run);

/* Write head, padding and checksum around the runs that are there, or the
 * footer; sets head->bytes and head->head_crc. */
void wi_head_put(uint8_t *to, const struct wi_identity *identity,
		 struct wi_head *head);
void wi_footer_put(uint8_t *to, const struct wi_identity *identity,
		   struct wi_head *head, const struct wi_footer *footer);
/*
 * The first WI_HEAD bytes say how long the head is (0 and *bytes, no more than
 * WI_HEAD_ROOM); then all of it is checked: it must be number `sequence` of
 * the file `identity`, at where.at.
 */
int wi_head_length(const uint8_t *from, uint32_t page, struct wi_where where,
		   uint32_t *bytes);
int wi_head_get(const uint8_t *from, const struct wi_identity *identity,
		uint64_t sequence, struct wi_where where, struct wi_head *head);
/* The rest of a footer whose head was accepted. */
int wi_footer_get(const uint8_t *from, struct wi_where where,
		  struct wi_footer *footer);

/* The checksum over the checksums of the header and of all chunks' heads:
 * chain = wi_chain(chain, crc) for each, from 0. */
uint32_t wi_chain(uint32_t chain, uint32_t crc);

#endif
