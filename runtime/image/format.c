/* SPDX-License-Identifier: MIT */
/*
 * File headers, chunk heads, runs and footers: their bytes.
 *
 * Numbers are little-endian and stand at the offsets below, which
 * docs/SNAPSHOT-FORMAT.md repeats.  A checksum is made with its own field zero.
 */
#include "runtime/image/format.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <weir/embed.h>
#include <weir/image.h>

#include "runtime/image/crc.h"

/* Offsets in the file header, in a region of it, in a chunk's head, in a run
 * and in the footer. */
enum {
	HEADER_MAGIC = 0,
	HEADER_VERSION = 8,
	HEADER_BYTES = 12,
	HEADER_PAGE = 16,
	HEADER_KIND = 20,
	HEADER_FLAGS = 24,
	HEADER_COUNT = 28,
	HEADER_ID = 32,
	HEADER_BASE = 48,
	HEADER_ZERO = 64, /* 12 bytes */
	HEADER_CRC = 76,

	REGION_ADDRESS = 0,
	REGION_BYTES = 8,
	REGION_UNIT = 16,
	REGION_FLAGS = 24,
	REGION_ZERO = 28,
	REGION_NAME = 32,

	HEAD_MAGIC = 0,
	HEAD_TYPE = 4,
	HEAD_CODEC = 6,
	HEAD_SEQUENCE = 8,
	HEAD_OFFSET = 16,
	HEAD_RUNS = 24,
	HEAD_BYTES = 28,
	HEAD_STORED = 32,
	HEAD_RAW = 36,
	HEAD_CRC = 40,
	HEAD_HEAD_CRC = 44,
	HEAD_ID = 48,

	RUN_PAGE = 0,
	RUN_PAGES = 8,
	RUN_REGION = 12,
	RUN_FLAGS = 14,

	FOOTER_DATA = 64,
	FOOTER_NONE = 72,
	FOOTER_BYTES = 80,
	FOOTER_TIME = 88,
	FOOTER_CHAIN = 96,
	FOOTER_ZERO = 100,
};

_Static_assert(HEADER_CRC + 4 == WI_HEADER, "the checksum ends the header");
_Static_assert(REGION_NAME + WI_NAME == WI_REGION, "the name ends a region");
_Static_assert(HEAD_ID + 16 == WI_HEAD, "the id ends a head");
_Static_assert(RUN_FLAGS + 2 == WI_RUN, "the flags end a run");
_Static_assert(FOOTER_ZERO + 4 == WI_FOOTER, "zero ends the footer");

/* Like PNG's: the first byte is no text's, and a transfer that takes the file
 * for text, or cuts it to seven bits, breaks the rest. */
static const uint8_t magic[8] = {0x89, 'W', 'E', 'I', 'R', '\r', 0x1a, '\n'};
static const uint8_t chunk_magic[4] = {'W', 'C', 'H', 'K'};
static const uint8_t finish_magic[4] = {'W', 'E', 'N', 'D'};

#define RUN_IS_ZERO 1u
#define REGION_FLAGS_KNOWN                                                 \
	(WEIR_REGION_HUGE | WEIR_REGION_USER_WRITES | WEIR_REGION_SHARED | \
	 WEIR_REGION_TRACK)

/* ---- Numbers ------------------------------------------------------------- */

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

static void put(uint8_t *p, unsigned bytes, uint64_t v)
{
	for (unsigned i = 0; i < bytes; i++, v >>= 8)
		p[i] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)get(p, 2);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get(p, 4);
}

static uint64_t get64(const uint8_t *p)
{
	return get(p, 8);
}

static bool all_zero(const uint8_t *p, size_t bytes)
{
	while (bytes && !*p) {
		p++;
		bytes--;
	}
	return !bytes;
}

bool wi_id_is_zero(const uint8_t id[16])
{
	return all_zero(id, 16);
}

int wi_bad(struct wi_where where, const char *format, ...)
{
	char cause[200];
	va_list args;

	va_start(args, format);
	vsnprintf(cause, sizeof cause, format, args);
	va_end(args);
	return weir_error_set(EBADMSG,
			      "%.200s: at byte %llu: %s; the file is not to be "
			      "used, take another copy or an older one",
			      where.name, (unsigned long long)where.at, cause);
}

/* The checksum of `bytes` bytes, of which four at `at` count as zero. */
static uint32_t crc_without(const uint8_t *p, size_t bytes, size_t at)
{
	static const uint8_t zero[4];
	uint32_t crc = wi_crc(0, p, at);

	crc = wi_crc(crc, zero, 4);
	return wi_crc(crc, p + at + 4, bytes - at - 4);
}

uint32_t wi_chain(uint32_t chain, uint32_t crc)
{
	uint8_t bytes[4];

	put(bytes, 4, crc);
	return wi_crc(chain, bytes, 4);
}

/* ---- The file header ----------------------------------------------------- */

static bool is_page(uint64_t page)
{
	return page >= WI_PAGE_MIN && page <= WI_PAGE_MAX &&
	       !(page & (page - 1));
}

uint32_t wi_header_bytes(uint32_t count, uint32_t page)
{
	return (WI_HEADER + count * WI_REGION + page - 1) & -page;
}

uint32_t wi_header_put(uint8_t *to, const struct wi_identity *identity)
{
	uint32_t bytes = wi_header_bytes(identity->count, identity->page);
	uint32_t crc;

	memset(to, 0, bytes);
	memcpy(to + HEADER_MAGIC, magic, sizeof magic);
	put(to + HEADER_VERSION, 4, WI_VERSION);
	put(to + HEADER_BYTES, 4, bytes);
	put(to + HEADER_PAGE, 4, identity->page);
	put(to + HEADER_KIND, 4, identity->kind);
	put(to + HEADER_COUNT, 4, identity->count);
	memcpy(to + HEADER_ID, identity->id, 16);
	memcpy(to + HEADER_BASE, identity->base, 16);
	for (uint32_t i = 0; i < identity->count; i++) {
		const struct wi_region *r = &identity->regions[i];
		uint8_t *p = to + WI_HEADER + i * WI_REGION;

		put(p + REGION_ADDRESS, 8, r->address);
		put(p + REGION_BYTES, 8, r->bytes);
		put(p + REGION_UNIT, 8, r->unit);
		put(p + REGION_FLAGS, 4, r->flags);
		memcpy(p + REGION_NAME, r->name, WI_NAME);
	}
	crc = crc_without(to, bytes, HEADER_CRC);
	put(to + HEADER_CRC, 4, crc);
	return crc;
}

int wi_header_length(const uint8_t *from, const char *name, uint32_t *bytes)
{
	struct wi_where where = {name, HEADER_MAGIC};
	uint32_t version = get32(from + HEADER_VERSION);
	uint32_t page = get32(from + HEADER_PAGE);
	uint32_t count = get32(from + HEADER_COUNT);

	if (memcmp(from, magic, sizeof magic))
		return wi_bad(where, "this is no snapshot file of weir");
	where.at = HEADER_VERSION;
	if (version > WI_VERSION && version < 1000)
		return weir_error_set(
			ENOTSUP,
			"%.200s: at byte %d: version %u of the format, and "
			"this library reads up to %d; take a newer one",
			name, HEADER_VERSION, version, WI_VERSION);
	if (version != WI_VERSION)
		return wi_bad(where, "there is no version %u of the format",
			      version);
	where.at = HEADER_PAGE;
	if (!is_page(page))
		return wi_bad(where, "%u is no page size", page);
	where.at = HEADER_COUNT;
	if (!count || count > WI_REGIONS_MAX)
		return wi_bad(where, "%u regions, not 1 to %d", count,
			      WI_REGIONS_MAX);
	where.at = HEADER_BYTES;
	*bytes = get32(from + HEADER_BYTES);
	if (*bytes != wi_header_bytes(count, page))
		return wi_bad(where, "the header says that it has %u bytes",
			      *bytes);
	return 0;
}

static int region_get(const uint8_t *p, struct wi_where where,
		      const struct wi_identity *identity, struct wi_region *r)
{
	uint64_t mask = identity->page - 1;
	size_t length;

	r->address = get64(p + REGION_ADDRESS);
	r->bytes = get64(p + REGION_BYTES);
	r->unit = get64(p + REGION_UNIT);
	r->flags = get32(p + REGION_FLAGS);
	memcpy(r->name, p + REGION_NAME, WI_NAME);
	if (r->address & mask || r->bytes & mask || r->unit & mask)
		return wi_bad(where, "a region is not of whole pages");
	if (!r->bytes || r->bytes > WI_REGION_MAX)
		return wi_bad(where, "a region of %llu bytes",
			      (unsigned long long)r->bytes);
	if (r->address > UINT64_MAX - r->bytes)
		return wi_bad(where, "a region goes beyond all addresses");
	if (!r->unit || r->unit & (r->unit - 1) || r->unit > WI_REGION_MAX)
		return wi_bad(where, "a region has a unit of %llu bytes",
			      (unsigned long long)r->unit);
	if (r->flags & ~REGION_FLAGS_KNOWN || get32(p + REGION_ZERO))
		return wi_bad(where, "a region has flags that do not exist");
	length = strnlen(r->name, WI_NAME);
	if (length == WI_NAME ||
	    !all_zero((uint8_t *)r->name + length, WI_NAME - length))
		return wi_bad(where, "the name of a region does not end");
	return 0;
}

int wi_header_get(const uint8_t *from, const char *name,
		  struct wi_identity *identity, uint32_t *crc)
{
	struct wi_where where = {name, HEADER_CRC};
	uint32_t bytes, end;
	int err = wi_header_length(from, name, &bytes);

	if (err)
		return err;
	*crc = get32(from + HEADER_CRC);
	if (*crc != crc_without(from, bytes, HEADER_CRC))
		return wi_bad(where, "the header's checksum is wrong");
	identity->page = get32(from + HEADER_PAGE);
	identity->kind = get32(from + HEADER_KIND);
	identity->count = get32(from + HEADER_COUNT);
	memcpy(identity->id, from + HEADER_ID, 16);
	memcpy(identity->base, from + HEADER_BASE, 16);
	where.at = HEADER_KIND;
	if (identity->kind != WEIR_SNAPSHOT_BEGIN &&
	    identity->kind != WEIR_SNAPSHOT_END)
		return wi_bad(where, "there is no kind %u of snapshots",
			      identity->kind);
	where.at = HEADER_FLAGS;
	if (get32(from + HEADER_FLAGS))
		return wi_bad(where, "the header has flags that do not exist");
	where.at = HEADER_ID;
	if (wi_id_is_zero(identity->id) ||
	    !memcmp(identity->id, identity->base, 16))
		return wi_bad(where, "the snapshot's identity is none");
	where.at = HEADER_ZERO;
	end = WI_HEADER + identity->count * WI_REGION;
	if (!all_zero(from + HEADER_ZERO, HEADER_CRC - HEADER_ZERO) ||
	    !all_zero(from + end, bytes - end))
		return wi_bad(where, "the header's padding is not zero");
	for (uint32_t i = 0; i < identity->count; i++) {
		struct wi_region *r = &identity->regions[i];

		where.at = WI_HEADER + (uint64_t)i * WI_REGION;
		err = region_get(from + where.at, where, identity, r);
		if (err)
			return err;
		for (uint32_t j = 0; j < i; j++) {
			const struct wi_region *o = &identity->regions[j];

			if (r->address < o->address + o->bytes &&
			    o->address < r->address + r->bytes)
				return wi_bad(where,
					      "regions %u and %u overlap", j,
					      i);
		}
	}
	return 0;
}

/* ---- Chunks -------------------------------------------------------------- */

uint32_t wi_head_bytes(const struct wi_head *head, uint32_t page)
{
	uint64_t bytes = WI_HEAD + (uint64_t)head->runs * WI_RUN;
	uint64_t end = head->offset + bytes;

	if (head->type == WI_FINISH)
		return WI_FOOTER;
	/* Pages that can be mapped begin at a page of the file. */
	if (head->codec == WEIR_CODEC_NONE && head->raw)
		bytes += -end & (page - 1);
	return (uint32_t)bytes;
}

void wi_run_put(uint8_t *to, uint32_t i, const struct wi_pages *run)
{
	uint8_t *p = to + WI_HEAD + (size_t)i * WI_RUN;

	put(p + RUN_PAGE, 8, run->page);
	put(p + RUN_PAGES, 4, run->pages);
	put(p + RUN_REGION, 2, run->region);
	put(p + RUN_FLAGS, 2, run->zero ? RUN_IS_ZERO : 0);
}

int wi_run_get(const uint8_t *from, uint32_t i,
	       const struct wi_identity *identity, struct wi_where where,
	       struct wi_pages *run)
{
	const uint8_t *p = from + WI_HEAD + (size_t)i * WI_RUN;
	uint64_t pages;

	where.at += WI_HEAD + (uint64_t)i * WI_RUN;
	run->page = get64(p + RUN_PAGE);
	run->pages = get32(p + RUN_PAGES);
	run->region = get16(p + RUN_REGION);
	run->zero = get16(p + RUN_FLAGS) == RUN_IS_ZERO;
	if (get16(p + RUN_FLAGS) & ~RUN_IS_ZERO)
		return wi_bad(where, "a run has flags that do not exist");
	if (run->region >= identity->count)
		return wi_bad(where, "pages of region %u, and there are %u",
			      run->region, identity->count);
	pages = identity->regions[run->region].bytes / identity->page;
	if (!run->pages || run->pages > pages || run->page > pages - run->pages)
		return wi_bad(where,
			      "%u pages from page %llu on are not in region %u",
			      run->pages, (unsigned long long)run->page,
			      run->region);
	return 0;
}

/* The head itself, and the checksum over all of head->bytes. */
static void head_seal(uint8_t *to, const struct wi_identity *identity,
		      struct wi_head *head)
{
	memcpy(to + HEAD_MAGIC,
	       head->type == WI_CHUNK ? chunk_magic : finish_magic, 4);
	put(to + HEAD_TYPE, 2, head->type);
	put(to + HEAD_CODEC, 2, head->codec);
	put(to + HEAD_SEQUENCE, 8, head->sequence);
	put(to + HEAD_OFFSET, 8, head->offset);
	put(to + HEAD_RUNS, 4, head->runs);
	put(to + HEAD_BYTES, 4, head->bytes);
	put(to + HEAD_STORED, 4, head->stored);
	put(to + HEAD_RAW, 4, head->raw);
	put(to + HEAD_CRC, 4, head->crc);
	memcpy(to + HEAD_ID, identity->id, 16);
	head->head_crc = crc_without(to, head->bytes, HEAD_HEAD_CRC);
	put(to + HEAD_HEAD_CRC, 4, head->head_crc);
}

void wi_head_put(uint8_t *to, const struct wi_identity *identity,
		 struct wi_head *head)
{
	size_t end = WI_HEAD + (size_t)head->runs * WI_RUN;

	head->bytes = wi_head_bytes(head, identity->page);
	memset(to + end, 0, head->bytes - end);
	head_seal(to, identity, head);
}

void wi_footer_put(uint8_t *to, const struct wi_identity *identity,
		   struct wi_head *head, const struct wi_footer *footer)
{
	memset(to, 0, WI_FOOTER);
	put(to + FOOTER_DATA, 8, footer->data_pages);
	put(to + FOOTER_NONE, 8, footer->zero_pages);
	put(to + FOOTER_BYTES, 8, footer->bytes);
	put(to + FOOTER_TIME, 8, footer->time_ns);
	put(to + FOOTER_CHAIN, 4, footer->chain);
	head->bytes = WI_FOOTER;
	head_seal(to, identity, head);
}

int wi_head_length(const uint8_t *from, uint32_t page, struct wi_where where,
		   uint32_t *bytes)
{
	bool finish = !memcmp(from, finish_magic, 4);
	uint32_t runs = get32(from + HEAD_RUNS);
	uint32_t least = finish ? WI_FOOTER : WI_HEAD;

	if (!finish && memcmp(from, chunk_magic, 4))
		return wi_bad(where, "there is neither a chunk nor the end");
	*bytes = get32(from + HEAD_BYTES);
	if (finish ? runs != 0 : !runs || runs > WI_RUNS_MAX)
		return wi_bad(where, "a chunk of %u runs", runs);
	least += runs * WI_RUN;
	if (*bytes < least || *bytes - least >= page)
		return wi_bad(where, "a chunk's head of %u bytes", *bytes);
	return 0;
}

int wi_head_get(const uint8_t *from, const struct wi_identity *identity,
		uint64_t sequence, struct wi_where where, struct wi_head *head)
{
	bool finish = !memcmp(from, finish_magic, 4);
	uint32_t end;

	head->type = get16(from + HEAD_TYPE);
	head->codec = get16(from + HEAD_CODEC);
	head->sequence = get64(from + HEAD_SEQUENCE);
	head->offset = get64(from + HEAD_OFFSET);
	head->runs = get32(from + HEAD_RUNS);
	head->bytes = get32(from + HEAD_BYTES);
	head->stored = get32(from + HEAD_STORED);
	head->raw = get32(from + HEAD_RAW);
	head->crc = get32(from + HEAD_CRC);
	head->head_crc = get32(from + HEAD_HEAD_CRC);
	if (head->head_crc != crc_without(from, head->bytes, HEAD_HEAD_CRC))
		return wi_bad(where, "the checksum of a chunk's head is wrong");
	if (memcmp(from + HEAD_ID, identity->id, 16))
		return wi_bad(where, "this chunk belongs to another file");
	if (head->sequence != sequence || head->offset != where.at)
		return wi_bad(where,
			      "this chunk belongs elsewhere: number %llu "
			      "at byte %llu",
			      (unsigned long long)head->sequence,
			      (unsigned long long)head->offset);
	if (head->type != (finish ? WI_FINISH : WI_CHUNK))
		return wi_bad(where, "there is no type %u of chunks",
			      head->type);
	if (head->codec > WEIR_CODEC_ZSTD)
		return weir_error_set(
			ENOTSUP,
			"%.200s: at byte %llu: codec %u, which this library "
			"does not know; take a newer one",
			where.name, (unsigned long long)where.at, head->codec);
	if (head->raw > WI_CHUNK_MAX || head->raw & (identity->page - 1))
		return wi_bad(where, "a chunk of %u bytes", head->raw);
	if (head->codec == WEIR_CODEC_NONE
		    ? head->stored != head->raw
		    : !head->stored || head->stored >= head->raw)
		return wi_bad(where, "%u bytes are said to be stored as %u",
			      head->raw, head->stored);
	if (!head->raw && head->crc)
		return wi_bad(where, "a checksum of nothing");
	if (finish && head->raw)
		return wi_bad(where, "the footer has pages");
	if (head->bytes != wi_head_bytes(head, identity->page))
		return wi_bad(where, "a chunk's head of %u bytes", head->bytes);
	if (finish)
		return 0;
	end = WI_HEAD + head->runs * WI_RUN;
	if (!all_zero(from + end, head->bytes - end))
		return wi_bad(where, "a chunk's padding is not zero");
	return 0;
}

int wi_footer_get(const uint8_t *from, struct wi_where where,
		  struct wi_footer *footer)
{
	footer->data_pages = get64(from + FOOTER_DATA);
	footer->zero_pages = get64(from + FOOTER_NONE);
	footer->bytes = get64(from + FOOTER_BYTES);
	footer->time_ns = get64(from + FOOTER_TIME);
	footer->chain = get32(from + FOOTER_CHAIN);
	if (get32(from + FOOTER_ZERO))
		return wi_bad(where, "the footer's padding is not zero");
	return 0;
}
