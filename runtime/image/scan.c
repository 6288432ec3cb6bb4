/* SPDX-License-Identifier: MIT */
/*
 * One file from its first byte to its last: everything in it is verified, and
 * its chunks and runs are added to the image.
 *
 * The file is read once, in its order.  Nothing is believed before it was
 * checked; memory is taken for what was read, never for what a number in the
 * file announces, but for a buffer of a chunk's size, which is bounded.
 */
#include "runtime/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/embed.h>

#include "runtime/image/codec.h"
#include "runtime/image/crc.h"

enum { BUFFER = 4 << 20 };

_Static_assert((int)BUFFER >= (int)WI_CHUNK_MAX + (int)WI_HEAD_ROOM,
	       "a chunk has room");
_Static_assert((int)BUFFER >= (int)WI_HEADER_ROOM, "a header has room");

/* A file on its way through the buffer. */
struct scan {
	struct wi_source *file; /* which */
	uint64_t at;            /* offset of buffer[begin] */
	size_t begin, end;      /* bytes of the buffer that are there */
	size_t room;            /* of the buffer: BUFFER, or the file's bytes */
	uint8_t *buffer;        /* what was read */
	uint8_t *raw;           /* WI_CHUNK_MAX bytes for the codec */
	struct wi_codec codecs; /* what it keeps */
	uint32_t chain;         /* wi_chain() so far */
	uint64_t data_pages;    /* in runs so far */
	uint64_t zero_pages;    /* likewise */
};

static struct wi_where here(const struct scan *s)
{
	return (struct wi_where){s->file->name, s->at};
}

/* ---- Bytes --------------------------------------------------------------- */

/* Have `bytes` bytes at buffer + begin: the file must have them. */
static int need(struct scan *s, size_t bytes, const char *what)
{
	if (s->end - s->begin >= bytes)
		return 0;
	memmove(s->buffer, s->buffer + s->begin, s->end - s->begin);
	s->end -= s->begin;
	s->begin = 0;
	while (s->end < bytes) {
		/* 0 at the end of the file, also where that is the buffer's. */
		ssize_t n = pread(s->file->fd, s->buffer + s->end,
				  s->room - s->end, (off_t)(s->at + s->end));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return weir_error_set(
				errno, "%.200s: at byte %llu: cannot read: %s",
				s->file->name,
				(unsigned long long)(s->at + s->end),
				strerror(errno));
		if (n == 0)
			return wi_bad((struct wi_where){s->file->name,
							s->at + s->end},
				      "the file ends in the middle of %s",
				      what);
		s->end += (size_t)n;
	}
	return 0;
}

static void take(struct scan *s, size_t bytes)
{
	s->begin += bytes;
	s->at += bytes;
}

/* ---- The header ---------------------------------------------------------- */

static int scan_header(struct scan *s)
{
	uint32_t bytes, crc;
	int err = need(s, WI_HEADER, "its header");

	if (!err)
		err = wi_header_length(s->buffer + s->begin, s->file->name,
				       &bytes);
	if (!err)
		err = need(s, bytes, "its header");
	if (!err)
		err = wi_header_get(s->buffer + s->begin, s->file->name,
				    &s->file->identity, &crc);
	if (err)
		return err;
	s->chain = wi_chain(0, crc);
	take(s, bytes);
	return 0;
}

/* ---- Chunks -------------------------------------------------------------- */

static int add_chunk(weir_image *image, const struct wi_head *head,
		     size_t number)
{
	if (image->chunk_count == image->chunk_room) {
		size_t room = image->chunk_room + image->chunk_room / 2 + 64;
		struct wi_chunk *chunks =
			realloc(image->chunks, room * sizeof *chunks);

		if (!chunks || room > UINT32_MAX) {
			image->chunks = chunks ? chunks : image->chunks;
			return weir_error_set(
				ENOMEM, "no memory for a snapshot's index");
		}
		image->chunks = chunks;
		image->chunk_room = room;
	}
	image->chunks[image->chunk_count++] = (struct wi_chunk){
		.offset = head->offset,
		.head = head->bytes,
		.stored = head->stored,
		.raw = head->raw,
		.crc = head->crc,
		.file = (uint16_t)number,
		.codec = (uint16_t)head->codec,
	};
	return 0;
}

/* Runs of the chunk that was just added. */
static int scan_runs(struct scan *s, weir_image *image,
		     const struct wi_head *head)
{
	const struct wi_identity *identity = &s->file->identity;
	uint64_t raw = 0;

	for (uint32_t i = 0; i < head->runs; i++) {
		struct wi_pages pages;
		struct wi_run run = {
			.chunk = (uint32_t)(image->chunk_count - 1),
			.order = (uint16_t)i,
			.at = WI_NO_DATA,
		};
		int err = wi_run_get(s->buffer + s->begin, i, identity, here(s),
				     &pages);

		if (err)
			return err;
		run.page = pages.page;
		run.pages = pages.pages;
		if (!pages.zero) {
			run.at = (uint16_t)(raw / identity->page);
			raw += (uint64_t)pages.pages * identity->page;
			s->data_pages += pages.pages;
		} else {
			s->zero_pages += pages.pages;
		}
		/* Before `at` could overflow. */
		if (raw > head->raw)
			break;
		err = wi_runs_add(&image->index[pages.region], &run);
		if (err)
			return err;
	}
	if (raw != head->raw)
		return wi_bad(here(s), "a chunk of %u bytes has other runs",
			      head->raw);
	return 0;
}

/* The payload is at hand: is it what the head says? */
static int scan_payload(struct scan *s, const struct wi_head *head)
{
	const uint8_t *p = s->buffer + s->begin;
	int err;

	if (wi_crc(0, p, head->stored) != head->crc)
		return wi_bad(here(s),
			      "the checksum of a chunk's pages is wrong");
	if (head->codec == WEIR_CODEC_NONE)
		return 0;
	if (!wi_codec_present(head->codec))
		return weir_error_set(
			ENOTSUP,
			"%.200s: at byte %llu: compressed with %s, which this "
			"build of the library lacks; build it with lib%s's "
			"headers installed (Debian: lib%s-dev)",
			s->file->name, (unsigned long long)s->at,
			wi_codec_name(head->codec), wi_codec_name(head->codec),
			wi_codec_name(head->codec));
	if (!s->raw)
		s->raw = malloc(WI_CHUNK_MAX);
	err = s->raw ? wi_codec_expand(&s->codecs, head->codec, s->raw,
				       head->raw, p, head->stored)
		     : -ENOMEM;
	if (err == -ENOMEM)
		return weir_error_set(ENOMEM, "no memory for a snapshot");
	if (err)
		return wi_bad(here(s), "a chunk does not unpack with %s",
			      wi_codec_name(head->codec));
	return 0;
}

static int scan_footer(struct scan *s)
{
	struct wi_source *file = s->file;
	struct wi_footer footer;
	int err = wi_footer_get(s->buffer + s->begin, here(s), &footer);

	if (err)
		return err;
	if (footer.chain != s->chain)
		return wi_bad(here(s), "these are not all chunks, or not in "
				       "this order: the footer's checksum is "
				       "wrong");
	if (footer.data_pages != s->data_pages ||
	    footer.zero_pages != s->zero_pages)
		return wi_bad(here(s),
			      "%llu pages with data and %llu without "
			      "are promised, others are there",
			      (unsigned long long)footer.data_pages,
			      (unsigned long long)footer.zero_pages);
	take(s, WI_FOOTER);
	if (footer.bytes != s->at)
		return wi_bad(here(s), "the file is said to have %llu bytes",
			      (unsigned long long)footer.bytes);
	if (s->at != file->bytes || s->begin != s->end)
		return wi_bad(here(s), "something follows the footer");
	file->data_pages = footer.data_pages;
	file->zero_pages = footer.zero_pages;
	file->time_ns = footer.time_ns;
	return 0;
}

/* A chunk or the footer; *more is whether there is another one. */
static int scan_chunk(struct scan *s, weir_image *image, size_t number,
		      bool *more)
{
	struct wi_source *file = s->file;
	struct wi_head head;
	uint32_t bytes;
	int err = need(s, WI_HEAD, "a chunk's head");

	if (!err)
		err = wi_head_length(s->buffer + s->begin, file->identity.page,
				     here(s), &bytes);
	if (!err)
		err = need(s, bytes, "a chunk's head");
	if (!err)
		err = wi_head_get(s->buffer + s->begin, &file->identity,
				  file->chunks, here(s), &head);
	if (err)
		return err;
	*more = head.type == WI_CHUNK;
	if (!*more)
		return scan_footer(s);
	err = add_chunk(image, &head, number);
	if (!err)
		err = scan_runs(s, image, &head);
	if (err)
		return err;
	take(s, head.bytes);
	err = need(s, head.stored, "a chunk's pages");
	if (!err)
		err = scan_payload(s, &head);
	if (err)
		return err;
	take(s, head.stored);
	s->chain = wi_chain(s->chain, head.head_crc);
	file->chunks++;
	file->stored[head.codec] += head.stored;
	return 0;
}

/* ---- The file ------------------------------------------------------------ */

static int stat_file(struct wi_source *file)
{
	struct stat st;

	if (fstat(file->fd, &st))
		return weir_error_set(errno, "%.200s: %s", file->name,
				      strerror(errno));
	if (!S_ISREG(st.st_mode))
		return wi_bad((struct wi_where){file->name, 0},
			      "this is not a regular file");
	file->bytes = (uint64_t)st.st_size;
	file->time = st.st_mtim;
	/* Only hints. */
	posix_fadvise(file->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

int wi_image_scan(weir_image *image, struct wi_source *file, size_t number)
{
	struct scan s = {.file = file};
	bool more = true;
	int err = stat_file(file);

	if (err)
		return err;
	s.room = file->bytes < BUFFER ? (size_t)file->bytes : BUFFER;
	s.buffer = malloc(s.room + 1);
	if (!s.buffer)
		return weir_error_set(ENOMEM, "no memory to read a snapshot");
	err = scan_header(&s);
	while (!err && more)
		err = scan_chunk(&s, image, number, &more);
	wi_codec_destroy(&s.codecs);
	free(s.raw);
	free(s.buffer);
	if (!err)
		posix_fadvise(file->fd, 0, 0, POSIX_FADV_NORMAL);
	return err;
}
