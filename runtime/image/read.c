/* SPDX-License-Identifier: MIT */
/*
 * Reading from images.
 *
 * What is wanted is cut into pieces, each in one chunk; they are put in the
 * order of the chunks, and each chunk is read once, as a whole, so that its
 * checksum can be verified again.  Without a codec the pieces are read to where
 * they are wanted, and only what lies between them elsewhere.
 */
#include "runtime/image/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <weir/embed.h>

#include "runtime/image/codec.h"
#include "runtime/image/crc.h"

enum {
	FEW = 32,     /* pieces that need no memory */
	VECTOR = 256, /* parts of a preadv() */
};

/* Buffers that are there once they were needed. */
struct reader {
	const weir_image *image; /* what is read */
	uint8_t *stored;         /* WI_CHUNK_MAX bytes */
	uint8_t *raw;            /* likewise */
	struct wi_codec codecs;  /* what the codec keeps */
};

static int changed(const struct wi_source *file, uint64_t at)
{
	return weir_error_set(EIO,
			      "%.200s: at byte %llu: the file was changed "
			      "since it was opened; open it again",
			      file->name, (unsigned long long)at);
}

static int buffer(uint8_t **p)
{
	if (!*p)
		*p = malloc(WI_CHUNK_MAX);
	return *p ? 0
		  : weir_error_set(ENOMEM, "no memory to read a snapshot with");
}

/* ---- Chunks -------------------------------------------------------------- */

/* Read all that iov wants, and its checksum. */
static int read_vector(const struct wi_source *file, uint64_t at,
		       struct iovec *iov, int count, uint32_t *crc)
{
	int from = 0;
	struct iovec whole[VECTOR];

	memcpy(whole, iov, (size_t)count * sizeof *iov);
	while (from < count) {
		ssize_t n =
			preadv(file->fd, iov + from, count - from, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return weir_error_set(
				errno, "%.200s: at byte %llu: cannot read: %s",
				file->name, (unsigned long long)at,
				strerror(errno));
		if (n == 0)
			return changed(file, at);
		at += (uint64_t)n;
		while (from < count && (size_t)n >= iov[from].iov_len)
			n -= (ssize_t)iov[from++].iov_len;
		if (n) {
			iov[from].iov_base = (char *)iov[from].iov_base + n;
			iov[from].iov_len -= (size_t)n;
		}
	}
	for (int i = 0; i < count; i++)
		*crc = wi_crc(*crc, whole[i].iov_base, whole[i].iov_len);
	return 0;
}

/* Without a codec: pieces, sorted and apart, and what is between them. */
static int read_plain(struct reader *r, const struct wi_chunk *chunk,
		      const struct wi_piece *pieces, size_t count)
{
	const struct wi_source *file = &r->image->files[chunk->file];
	uint64_t base = chunk->offset + chunk->head;
	struct iovec iov[VECTOR];
	uint32_t crc = 0, at = 0, start = 0;
	size_t i = 0;
	int n = 0, err;

	err = buffer(&r->stored);
	while (!err && at < chunk->raw) {
		uint32_t end = i < count ? pieces[i].at : chunk->raw;

		if (at < end) {
			iov[n++] = (struct iovec){r->stored + at, end - at};
			at = end;
		} else {
			iov[n++] =
				(struct iovec){pieces[i].to, pieces[i].bytes};
			at += pieces[i++].bytes;
		}
		if (n == VECTOR || at == chunk->raw) {
			err = read_vector(file, base + start, iov, n, &crc);
			start = at;
			n = 0;
		}
	}
	if (!err && crc != chunk->crc)
		err = changed(file, base);
	return err;
}

static int read_packed(struct reader *r, const struct wi_chunk *chunk,
		       const struct wi_piece *pieces, size_t count)
{
	const struct wi_source *file = &r->image->files[chunk->file];
	uint64_t base = chunk->offset + chunk->head;
	struct iovec iov;
	uint32_t crc = 0;
	int err = buffer(&r->stored);

	if (!err)
		err = buffer(&r->raw);
	iov = (struct iovec){r->stored, chunk->stored};
	if (!err)
		err = read_vector(file, base, &iov, 1, &crc);
	if (err)
		return err;
	if (crc != chunk->crc)
		return changed(file, base);
	err = wi_codec_expand(&r->codecs, chunk->codec, r->raw, chunk->raw,
			      r->stored, chunk->stored);
	if (err == -ENOMEM)
		return weir_error_set(ENOMEM, "no memory to unpack with");
	/* It was unpacked when it was opened. */
	if (err)
		return changed(file, base);
	for (size_t i = 0; i < count; i++)
		memcpy(pieces[i].to, r->raw + pieces[i].at, pieces[i].bytes);
	return 0;
}

static int by_chunk(const void *x, const void *y)
{
	const struct wi_piece *a = x, *b = y;

	if (a->chunk != b->chunk)
		return a->chunk < b->chunk ? -1 : 1;
	return a->at < b->at ? -1 : a->at > b->at;
}

int wi_image_fill(const weir_image *image, struct wi_piece *pieces,
		  size_t count)
{
	struct reader r = {.image = image};
	int err = 0;

	qsort(pieces, count, sizeof *pieces, by_chunk);
	for (size_t i = 0, end; i < count && !err; i = end) {
		const struct wi_chunk *chunk = &image->chunks[pieces[i].chunk];

		end = i + 1;
		while (end < count && pieces[end].chunk == pieces[i].chunk)
			end++;
		err = chunk->codec == WEIR_CODEC_NONE
			      ? read_plain(&r, chunk, pieces + i, end - i)
			      : read_packed(&r, chunk, pieces + i, end - i);
	}
	wi_codec_destroy(&r.codecs);
	free(r.raw);
	free(r.stored);
	return err;
}

/* ---- Extents ------------------------------------------------------------- */

static int not_there(const weir_image *image, size_t i, uint64_t at)
{
	return weir_error_set(ENODATA,
			      "%.200s: byte %llu of region %zu is in the "
			      "snapshot that it follows; open both",
			      image->files[image->count - 1].name,
			      (unsigned long long)at, i);
}

/* Zero what is zero of [offset, end), and make pieces of the rest. */
static int cut(const weir_image *image, size_t i, uint64_t offset, uint64_t end,
	       uint8_t *to, struct wi_piece *pieces, size_t *count)
{
	const struct wi_runs *index = &image->index[i];
	uint64_t page = image->page;
	size_t j = wi_runs_find(index, offset / page);

	*count = 0;
	for (; offset < end; j++) {
		const struct wi_run *run = &index->runs[j];
		uint64_t first, stop;

		if (j == index->count || run->page * page > offset)
			return not_there(image, i, offset);
		first = offset - run->page * page;
		stop = (run->page + run->pages) * page;
		if (stop > end)
			stop = end;
		if (run->at == WI_NO_DATA)
			memset(to, 0, stop - offset);
		else
			pieces[(*count)++] = (struct wi_piece){
				.to = to,
				.chunk = run->chunk,
				.at = (uint32_t)(run->at * page + first),
				.bytes = (uint32_t)(stop - offset),
			};
		to += stop - offset;
		offset = stop;
	}
	return 0;
}

int weir_image_read(const weir_image *image, size_t i, uint64_t offset,
		    void *to, size_t bytes)
{
	struct wi_piece few[FEW], *pieces = few;
	const struct wi_runs *index;
	uint64_t length;
	size_t count;
	int err;

	if (!image || (!to && bytes))
		return wi_invalid("weir_image_read", "a NULL argument");
	if (i >= image->identity->count)
		return wi_invalid("weir_image_read", "no such region");
	length = image->identity->regions[i].bytes;
	if (offset > length || bytes > length - offset)
		return wi_invalid("weir_image_read",
				  "the region does not have these bytes");
	if (!bytes)
		return 0;
	index = &image->index[i];
	count = wi_runs_find(index, (offset + bytes - 1) / image->page) + 1 -
		wi_runs_find(index, offset / image->page);
	if (count > FEW) {
		pieces = malloc(count * sizeof *pieces);
		if (!pieces)
			return weir_error_set(
				ENOMEM, "no memory to read a snapshot with");
	}
	err = cut(image, i, offset, offset + bytes, to, pieces, &count);
	if (!err)
		err = wi_image_fill(image, pieces, count);
	if (pieces != few)
		free(pieces);
	return err;
}

int weir_image_data(const weir_image *image, size_t i, uint64_t offset,
		    uint64_t *start, uint64_t *bytes)
{
	const struct wi_runs *index;
	uint64_t page, end;
	size_t j;

	if (!image || !start || !bytes)
		return wi_invalid("weir_image_data", "a NULL argument");
	if (i >= image->identity->count)
		return wi_invalid("weir_image_data", "no such region");
	index = &image->index[i];
	page = image->page;
	j = wi_runs_find(index, offset / page);
	while (j < index->count && index->runs[j].at == WI_NO_DATA)
		j++;
	*start = image->identity->regions[i].bytes;
	*bytes = 0;
	if (j == index->count)
		return 0;
	*start = end = index->runs[j].page * page;
	for (; j < index->count && index->runs[j].at != WI_NO_DATA &&
	       index->runs[j].page * page == end;
	     j++)
		end += index->runs[j].pages * page;
	if (*start < offset)
		*start = offset;
	*bytes = end - *start;
	return 0;
}
