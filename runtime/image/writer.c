/* SPDX-License-Identifier: MIT */
/*
 * The writer of snapshot files.
 *
 * Pages are collected to a chunk, and a chunk is written when it is full.  The
 * data of a call that brings enough for a chunk of its own is written from
 * where it is; that of smaller ones is copied to `batch`, since it is not the
 * writer's after the return.  Within one chunk it is either:
 *
 *   copying:   all data of the chunk is in `batch`, pieces == 1 at most
 *   pointing:  it is in the caller's memory, and the chunk is written before
 *              the call returns
 *
 * The order of runs is kept, in chunks and over them: with END the last counts.
 * Pages that are all zero get runs without data.
 */
#include "runtime/image/writer.h"

#include <errno.h>
#include <isa-l/mem_routines.h>
#include <stdlib.h>
#include <string.h>

#include <weir/embed.h>

#include "runtime/image/codec.h"
#include "runtime/image/crc.h"

enum {
	BATCH = 1 << 20,   /* bytes that are collected to a chunk */
	POINT = 256 << 10, /* a call with as much is not copied */
	PIECES = 512,      /* of a chunk: no more pages are in one */
};

_Static_assert(WI_CHUNK_MAX / WI_PAGE_MIN <= PIECES, "a piece for each page");
_Static_assert((int)BATCH <= (int)WI_CHUNK_MAX, "a batch is a chunk");

struct wi_writer {
	struct wi_identity identity; /* what the header has */
	wi_output_fn *output;        /* where bytes go */
	void *arg;                   /* its */
	unsigned codec;              /* enum weir_image_codec */
	int level;                   /* of the codec */
	int err;                     /* what failed first; 0 */
	bool finished;               /* the footer was written */
	uint64_t offset;             /* bytes handed out */
	uint64_t sequence;           /* chunks handed out */
	uint64_t data_pages;         /* in their runs and in this chunk's */
	uint64_t zero_pages;         /* likewise */
	uint32_t chain;              /* wi_chain() over what was handed out */
	bool pointing;               /* pieces are in the caller's memory */
	uint32_t runs;               /* of the chunk, in `head` */
	uint32_t raw;                /* bytes of data in the chunk */
	unsigned pieces;             /* of the data, in iov from [1] */
	struct wi_pages last;        /* the last run, which may grow */
	struct wi_codec codecs;      /* what compression keeps */
	struct iovec iov[1 + PIECES];
	char error[512];            /* the text of `err` */
	uint8_t *batch;             /* BATCH bytes */
	uint8_t *packed;            /* BATCH bytes for the codec; NULL: none */
	uint8_t head[WI_HEAD_ROOM]; /* of the chunk */
};

static int fail(struct wi_writer *w, int err)
{
	if (!w->err) {
		w->err = err;
		strncpy(w->error, weir_error_text(), sizeof w->error - 1);
	}
	return err;
}

static int fail_again(const struct wi_writer *w)
{
	return weir_error_set(-w->err, "%s", w->error);
}

const char *wi_writer_error(const struct wi_writer *w)
{
	return w->error;
}

static int hand_out(struct wi_writer *w, int count)
{
	uint64_t bytes = 0;
	int err;

	for (int i = 0; i < count; i++)
		bytes += w->iov[i].iov_len;
	err = w->output(w->arg, w->iov, count);
	if (err)
		return fail(w, err);
	w->offset += bytes;
	return 0;
}

/* ---- Chunks -------------------------------------------------------------- */

/* Compress the batch if that makes it smaller. */
static void pack(struct wi_writer *w, struct wi_head *head)
{
	size_t n;

	if (w->codec == WEIR_CODEC_NONE || !w->raw)
		return;
	n = wi_codec_compress(&w->codecs, w->codec, w->level, w->packed,
			      w->raw - 1, w->batch, w->raw);
	if (!n)
		return;
	head->codec = w->codec;
	head->stored = (uint32_t)n;
	w->iov[1] = (struct iovec){w->packed, n};
	w->pieces = 1;
}

static int flush(struct wi_writer *w)
{
	struct wi_head head = {
		.type = WI_CHUNK,
		.codec = WEIR_CODEC_NONE,
		.sequence = w->sequence,
		.offset = w->offset,
		.runs = w->runs,
		.stored = w->raw,
		.raw = w->raw,
	};
	int err;

	if (!w->runs)
		return 0;
	if (!w->pointing) {
		w->iov[1] = (struct iovec){w->batch, w->raw};
		w->pieces = w->raw != 0;
		pack(w, &head);
	}
	for (unsigned i = 1; i <= w->pieces; i++)
		head.crc =
			wi_crc(head.crc, w->iov[i].iov_base, w->iov[i].iov_len);
	wi_head_put(w->head, &w->identity, &head);
	w->iov[0] = (struct iovec){w->head, head.bytes};
	err = hand_out(w, 1 + (int)w->pieces);
	w->chain = wi_chain(w->chain, head.head_crc);
	w->sequence++;
	w->runs = w->raw = w->pieces = 0;
	return err;
}

/* Note pages in the table, to the last run if they follow it. */
static void note(struct wi_writer *w, const struct wi_pages *run)
{
	struct wi_pages *last = &w->last;

	if (w->runs && last->region == run->region && last->zero == run->zero &&
	    last->page + last->pages == run->page &&
	    last->pages <= UINT32_MAX - run->pages) {
		last->pages += run->pages;
		w->runs--;
	} else {
		*last = *run;
	}
	wi_run_put(w->head, w->runs++, last);
	*(run->zero ? &w->zero_pages : &w->data_pages) += run->pages;
}

static int add_zero(struct wi_writer *w, uint16_t region, uint64_t page,
		    uint64_t pages)
{
	while (pages) {
		struct wi_pages run = {
			.page = page,
			.pages = pages < UINT32_MAX ? (uint32_t)pages
						    : UINT32_MAX,
			.region = region,
			.zero = true,
		};
		int err = w->runs == WI_RUNS_MAX ? flush(w) : 0;

		if (err)
			return err;
		note(w, &run);
		page += run.pages;
		pages -= run.pages;
	}
	return 0;
}

static void point(struct wi_writer *w, const uint8_t *data, uint32_t bytes)
{
	struct iovec *last = &w->iov[w->pieces];

	if (w->pieces && (uint8_t *)last->iov_base + last->iov_len == data)
		last->iov_len += bytes;
	else
		w->iov[++w->pieces] = (struct iovec){(void *)data, bytes};
}

static int add_data(struct wi_writer *w, uint16_t region, uint64_t page,
		    uint64_t pages, const uint8_t *data)
{
	uint32_t size = w->identity.page;
	uint32_t room = w->pointing ? WI_CHUNK_MAX : BATCH;

	while (pages) {
		struct wi_pages run = {.page = page, .region = region};
		uint64_t fit = (room - w->raw) / size;
		uint32_t bytes;

		if (!fit || w->runs == WI_RUNS_MAX) {
			int err = flush(w);

			if (err)
				return err;
			continue;
		}
		run.pages = (uint32_t)(pages < fit ? pages : fit);
		bytes = run.pages * size;
		if (w->pointing)
			point(w, data, bytes);
		else
			memcpy(w->batch + w->raw, data, bytes);
		w->raw += bytes;
		note(w, &run);
		page += run.pages;
		pages -= run.pages;
		data += bytes;
	}
	return 0;
}

/* ---- Runs ---------------------------------------------------------------- */

static bool is_zero(const uint8_t *page, size_t bytes)
{
	return !isal_zero_detect((void *)page, bytes);
}

/* A run with data: its pages in turns of zero ones and others. */
static int add_run(struct wi_writer *w, const struct weir_snapshot_run *run)
{
	uint32_t size = w->identity.page;
	uint64_t first = run->offset / size;
	uint64_t pages = run->bytes / size;
	const uint8_t *data = run->data;
	int err = 0;

	if (!data)
		return add_zero(w, (uint16_t)run->region, first, pages);
	for (uint64_t i = 0, end; i < pages && !err; i = end) {
		bool zero = is_zero(data + i * size, size);

		end = i + 1;
		while (end < pages && is_zero(data + end * size, size) == zero)
			end++;
		err = zero ? add_zero(w, (uint16_t)run->region, first + i,
				      end - i)
			   : add_data(w, (uint16_t)run->region, first + i,
				      end - i, data + i * size);
	}
	return err;
}

static int check_run(const struct wi_writer *w,
		     const struct weir_snapshot_run *run)
{
	uint64_t mask = w->identity.page - 1;
	uint64_t bytes;

	if (run->region >= w->identity.count)
		return weir_error_set(EINVAL,
				      "snapshot: pages of region %zu, and "
				      "there are %u",
				      run->region, w->identity.count);
	bytes = w->identity.regions[run->region].bytes;
	if (run->offset & mask || run->bytes & mask || run->bytes > bytes ||
	    run->offset > bytes - run->bytes)
		return weir_error_set(
			EINVAL,
			"snapshot: %zu bytes at %llu are not whole pages of "
			"region %zu, which has %llu",
			run->bytes, (unsigned long long)run->offset,
			run->region, (unsigned long long)bytes);
	return 0;
}

int wi_writer_add(struct wi_writer *w, const struct weir_snapshot_run *runs,
		  size_t count)
{
	uint64_t data = 0;
	int err = 0;

	if (w->err)
		return fail_again(w);
	for (size_t i = 0; i < count; i++) {
		err = check_run(w, &runs[i]);
		if (err)
			return fail(w, err);
		data += runs[i].data ? runs[i].bytes : 0;
	}
	/* Codecs take what they compress in one piece. */
	if (data >= POINT && w->codec == WEIR_CODEC_NONE) {
		err = flush(w);
		w->pointing = true;
	}
	for (size_t i = 0; i < count && !err; i++)
		err = add_run(w, &runs[i]);
	if (w->pointing && !err)
		err = flush(w);
	w->pointing = false;
	return err;
}

int wi_writer_finish(struct wi_writer *w, uint64_t time_ns)
{
	struct wi_head head = {.type = WI_FINISH};
	struct wi_footer footer;
	int err;

	if (w->err)
		return fail_again(w);
	err = flush(w);
	if (err)
		return err;
	head.sequence = w->sequence;
	head.offset = w->offset;
	footer = (struct wi_footer){
		.data_pages = w->data_pages,
		.zero_pages = w->zero_pages,
		.bytes = w->offset + WI_FOOTER,
		.time_ns = time_ns,
		.chain = w->chain,
	};
	wi_footer_put(w->head, &w->identity, &head, &footer);
	w->iov[0] = (struct iovec){w->head, WI_FOOTER};
	return hand_out(w, 1);
}

/* ---- Making one ---------------------------------------------------------- */

int wi_writer_create(const struct wi_identity *identity,
		     const struct weir_image_options *options,
		     wi_output_fn *output, void *arg, struct wi_writer **writer)
{
	unsigned codec = options ? options->codec : WEIR_CODEC_NONE;
	int level = options ? options->level : 0;
	struct wi_writer *w;
	uint32_t crc;
	int err = wi_codec_check(codec, level);

	if (err)
		return err;
	w = calloc(1, sizeof *w);
	if (w)
		w->batch = malloc(BATCH);
	if (w && codec != WEIR_CODEC_NONE)
		w->packed = malloc(BATCH);
	if (!w || !w->batch || (codec != WEIR_CODEC_NONE && !w->packed)) {
		wi_writer_destroy(w);
		return weir_error_set(ENOMEM,
				      "no memory to write a snapshot with");
	}
	w->identity = *identity;
	w->output = output;
	w->arg = arg;
	w->codec = codec;
	w->level = level;
	crc = wi_header_put(w->head, identity);
	w->chain = wi_chain(0, crc);
	w->iov[0] = (struct iovec){
		w->head, wi_header_bytes(identity->count, identity->page)};
	err = hand_out(w, 1);
	if (err) {
		wi_writer_destroy(w);
		return err;
	}
	*writer = w;
	return 0;
}

void wi_writer_destroy(struct wi_writer *w)
{
	if (!w)
		return;
	wi_codec_destroy(&w->codecs);
	free(w->batch);
	free(w->packed);
	free(w);
}
