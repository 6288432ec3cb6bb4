/* SPDX-License-Identifier: MIT */
/*
 * Files that are no snapshots: torn at every byte, changed in every bit, put
 * together wrongly, and such whose checksums are right and whose contents are
 * not.  None opens; what opens is what was written.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/image/codec.h"
#include "runtime/image/crc.h"
#include "tests/image_make.h"
#include "tests/image_patch.h"

/* A small file with pages of all sorts, of one chunk or of several. */
static void make(struct model *m, unsigned codec, size_t batches,
		 struct bytes *file)
{
	struct wi_writer *w;
	struct weir_image_options options = {.size = sizeof options,
					     .codec = codec};
	size_t pages = model_pages(m, 0);

	cr_assert_eq(wi_writer_create(&m->identity, &options, bytes_output,
				      file, &w),
		     0);
	for (size_t i = 0; i < batches; i++) {
		size_t from = pages * i / batches;
		size_t end = pages * (i + 1) / batches;
		struct weir_snapshot_run run = {
			.offset = from * PAGE,
			.bytes = (end - from) * PAGE,
			.data = m->data[0] + from * PAGE,
		};

		cr_assert_eq(wi_writer_add(w, &run, 1), 0);
	}
	cr_assert_eq(wi_writer_finish(w, 1234567890), 0);
	wi_writer_destroy(w);
}

/* A page or more of data, one of zeros. */
static void make_small(struct model *m, struct bytes *file, unsigned codec)
{
	*file = (struct bytes){0};
	model_make(m, 1, (size_t[]){3}, 1);
	memset(m->data[0], 1, PAGE);
	memset(m->data[0] + PAGE, 0, PAGE);
	memset(m->data[0] + 2 * PAGE, 2, PAGE);
	make(m, codec, 1, file);
}

static void refused_as(const struct bytes *file, int err, const char *text)
{
	weir_image *image;

	cr_expect_eq(bytes_open(file, 1, false, &image), -err, "%s", text);
	cr_expect(strstr(weir_error_text(), text), "\"%s\" is not in \"%s\"",
		  text, weir_error_text());
}

static void refused(const struct bytes *file, const char *text)
{
	refused_as(file, EBADMSG, text);
}

static unsigned packed(void)
{
	return wi_codec_present(WEIR_CODEC_LZ4)    ? WEIR_CODEC_LZ4
	       : wi_codec_present(WEIR_CODEC_ZSTD) ? WEIR_CODEC_ZSTD
						   : WEIR_CODEC_NONE;
}

/* ---- Torn and changed ---------------------------------------------------- */

static void torn_everywhere(unsigned codec)
{
	struct bytes file;
	struct model m;

	make_small(&m, &file, codec);
	for (size_t n = 0; n < file.count; n++) {
		struct bytes torn = {.data = file.data, .count = n};
		weir_image *image;

		cr_assert_eq(bytes_open(&torn, 1, false, &image), -EBADMSG,
			     "%zu bytes of %zu", n, file.count);
		cr_assert(strstr(weir_error_text(), "ends in the middle of"),
			  "%s", weir_error_text());
	}
	bytes_free(&file);
	model_free(&m);
}

Test(image_hostile, torn_at_every_byte)
{
	torn_everywhere(WEIR_CODEC_NONE);
	torn_everywhere(packed());
}

/* Every bit, but in the middle of what is one checksummed block every eighth
 * byte. */
static void flipped_everywhere(unsigned codec)
{
	struct bytes file;
	struct model m;

	make_small(&m, &file, codec);
	for (size_t i = 0; i < file.count; i++) {
		bool dull = i % PAGE > 256 && i % PAGE < PAGE - 256 &&
			    file.count - i > 256;

		if (dull && i % 8)
			continue;
		for (int bit = 0; bit < 8; bit += dull ? 5 : 1) {
			weir_image *image = NULL;
			int err;

			file.data[i] ^= (uint8_t)(1 << bit);
			err = bytes_open(&file, 1, false, &image);
			cr_assert(err == -EBADMSG || err == -ENOTSUP,
				  "byte %zu, bit %d: %d %s", i, bit, err,
				  weir_error_text());
			/* Only a version may be a newer one. */
			cr_assert(err == -EBADMSG || (i >= 8 && i < 12));
			file.data[i] ^= (uint8_t)(1 << bit);
		}
	}
	bytes_free(&file);
	model_free(&m);
}

Test(image_hostile, every_bit_counts)
{
	flipped_everywhere(WEIR_CODEC_NONE);
	flipped_everywhere(packed());
}

Test(image_hostile, more_than_there_should_be)
{
	struct bytes file;
	struct model m;

	make_small(&m, &file, packed());
	file.data = realloc(file.data, 2 * file.count);
	file.data[file.count] = 0;
	file.count++;
	refused(&file, "something follows the footer");
	memcpy(file.data + file.count - 1, file.data, file.count - 1);
	file.count = 2 * (file.count - 1);
	refused(&file, "something follows the footer");
	bytes_free(&file);
	model_free(&m);
}

/* ---- Foreign files ------------------------------------------------------- */

Test(image_hostile, other_files)
{
	static const char text[] =
		"This is a text, and long enough for a header of a file, which "
		"it is not: at least eighty bytes of it are needed, it seems.";
	struct bytes file = {.data = (uint8_t *)text, .count = sizeof text};
	char directory[] = "/tmp/weir-fifo-XXXXXX", fifo[64];
	const char *root = "/", *device = "/dev/null", *none = "/none";
	const char *pipe = fifo;
	weir_image *image;

	refused(&file, "no snapshot file");
	file.count = 0;
	refused(&file, "at byte 0: the file ends in the middle of its header");
	cr_expect_eq(weir_image_open(&root, 1, &image), -EBADMSG);
	cr_expect(strstr(weir_error_text(), "/: at byte 0: this is not a "
					    "regular file"));
	cr_expect_eq(weir_image_open(&device, 1, &image), -EBADMSG);
	cr_expect_eq(weir_image_open(&none, 1, &image), -ENOENT);
	cr_expect(strstr(weir_error_text(), "/none"));
	cr_assert(mkdtemp(directory));
	snprintf(fifo, sizeof fifo, "%s/fifo", directory);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	cr_expect_eq(weir_image_open(&pipe, 1, &image), -EBADMSG);
	unlink(fifo);
	rmdir(directory);
}

Test(image_hostile, another_version)
{
	struct bytes file;
	struct model m;

	make_small(&m, &file, WEIR_CODEC_NONE);
	file.data[8] = 2;
	refused_as(&file, ENOTSUP, "version 2 of the format");
	file.data[8] = 0;
	refused(&file, "no version 0");
	file.data[10] = 77;
	refused(&file, "no version");
	bytes_free(&file);
	model_free(&m);
}

/* ---- Behind the checksums ------------------------------------------------ */

/* The file's checksums are made right, with the chain's. */
static void seal_all(struct bytes *file)
{
	uint32_t bytes = get32(file->data + 12), chain;
	uint8_t *p = file->data;

	seal(p, bytes, 76);
	chain = wi_chain(0, get32(p + 76));
	for (p += bytes; !memcmp(p, "WCHK", 4);
	     p += get32(p + 28) + get32(p + 32)) {
		put(p + 40, 4, wi_crc(0, p + get32(p + 28), get32(p + 32)));
		seal(p, get32(p + 28), 44);
		chain = wi_chain(chain, get32(p + 44));
	}
	if (!memcmp(p, "WEND", 4)) {
		put(p + 96, 4, chain);
		seal(p, get32(p + 28), 44);
	}
}

/* A number of a file that is changed, all checksums being right. */
struct lie {
	int base;         /* 0: header, 1: the chunk, 2: footer */
	size_t at;        /* offset from there */
	unsigned bytes;   /* of the number */
	uint64_t value;   /* what is put there */
	const char *text; /* what it is refused with */
};

#define LAST UINT64_MAX

static const struct lie lies[] = {
	{0, 0, 1, 'W', "no snapshot file"},
	{0, 12, 4, 0, "the header says that it has 0 bytes"},
	{0, 12, 4, 8192, "the header says that it has 8192 bytes"},
	{0, 12, 4, LAST, "the header says"},
	{0, 16, 4, 0, "0 is no page size"},
	{0, 16, 4, 2048, "2048 is no page size"},
	{0, 16, 4, 5000, "5000 is no page size"},
	{0, 16, 4, 1u << 31, "no page size"},
	{0, 20, 4, 2, "no kind 2"},
	{0, 24, 4, 1, "the header has flags"},
	{0, 28, 4, 0, "0 regions"},
	{0, 28, 4, 65, "65 regions"},
	{0, 28, 4, LAST, "regions, not 1 to 64"},
	{0, 70, 1, 1, "the header's padding"},
	{0, 4000, 1, 1, "the header's padding"},
	{0, 80, 8, 1, "not of whole pages"},
	{0, 80, 8, LAST - PAGE + 1, "beyond all addresses"},
	{0, 88, 8, 0, "a region of 0 bytes"},
	{0, 88, 8, PAGE + 1, "not of whole pages"},
	{0, 88, 8, (UINT64_C(1) << 46) + PAGE, "a region of 70368744181760"},
	{0, 88, 8, LAST - PAGE + 1, "a region of"},
	{0, 88, 8, UINT64_C(1) << 46, "page 3 of region 0 is not there"},
	{0, 88, 8, 4 * PAGE, "page 3 of region 0 is not there"},
	{0, 88, 8, 2 * PAGE, "are not in region 0"},
	{0, 96, 8, 0, "a unit of 0"},
	{0, 96, 8, 3 * PAGE, "a unit of"},
	{0, 104, 4, 32, "flags that do not exist"},
	{0, 108, 4, 1, "flags that do not exist"},
	{0, 143, 1, 'x', "the name of a region does not end"},
	{1, 0, 1, 'x', "neither a chunk nor the end"},
	{1, 4, 2, 0, "no type 0"},
	{1, 4, 2, 2, "no type 2"},
	{1, 8, 8, 1, "this chunk belongs elsewhere"},
	{1, 16, 8, 0, "this chunk belongs elsewhere"},
	{1, 24, 4, 0, "a chunk of 0 runs"},
	{1, 24, 4, 4097, "a chunk of 4097 runs"},
	{1, 24, 4, 1u << 28, "runs"},
	{1, 28, 4, 0, "a chunk's head of 0 bytes"},
	{1, 28, 4, LAST, "a chunk's head of"},
	{1, 36, 4, 1, "a chunk of 1 bytes"},
	{1, 36, 4, 1u << 22, "a chunk of 4194304 bytes"},
	{1, 36, 4, PAGE, "are said to be stored as"},
	{1, 36, 4, 0, "are said to be stored as"},
	{1, 48, 1, 0x77, "belongs to another file"},
	{1, 64, 8, 1, "is there twice"},
	{1, 64, 8, LAST, "are not in region 0"},
	{1, 72, 4, 0, "0 pages from page 0 on"},
	{1, 72, 4, LAST, "are not in region 0"},
	{1, 72, 4, 3, "has other runs"},
	{1, 76, 2, 1, "pages of region 1, and there are 1"},
	{1, 78, 2, 2, "a run has flags"},
	{1, 78, 2, 1, "has other runs"},
	{1, 200, 1, 1, "a chunk's padding"},
	{2, 64, 8, 3, "3 pages with data"},
	{2, 72, 8, 0, "and 0 without"},
	{2, 80, 8, 5, "is said to have 5 bytes"},
	{2, 100, 4, 1, "the footer's padding"},
	{2, 6, 2, 1, "are said to be stored as"},
	{2, 24, 4, 1, "a chunk of 1 runs"},
	{2, 8, 8, 0, "belongs elsewhere"},
};

Test(image_hostile, numbers_that_lie)
{
	struct bytes file;
	struct model m;

	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		const struct lie *lie = &lies[i];
		size_t base = 0;

		make_small(&m, &file, WEIR_CODEC_NONE);
		if (lie->base)
			base = lie->base == 1 ? PAGE : file.count - WI_FOOTER;
		put(file.data + base + lie->at, lie->bytes, lie->value);
		/* What says how long a header is cannot be sealed. */
		if (lie->base != 0 || lie->at != 12)
			if (lie->base != 1 || lie->at != 28)
				seal_all(&file);
		refused(&file, lie->text);
		bytes_free(&file);
		model_free(&m);
	}
}

Test(image_hostile, codecs)
{
	struct bytes file;
	struct model m;

	make_small(&m, &file, packed());
	put(file.data + PAGE + 6, 2, 3);
	seal_all(&file);
	refused_as(&file, ENOTSUP, "codec 3");
	if (packed() == WEIR_CODEC_NONE)
		cr_skip("there is no codec in this build");
	/* Pages that do not unpack. */
	put(file.data + PAGE + 6, 2, packed());
	memset(file.data + PAGE + get32(file.data + PAGE + 28), 0xff, 8);
	seal_all(&file);
	refused(&file, "does not unpack");
	bytes_free(&file);
	model_free(&m);
	make_small(&m, &file, packed());
	/* More pages than were packed. */
	put(file.data + PAGE + 36, 4, 3 * PAGE);
	put(file.data + PAGE + 72, 4, 2);
	seal_all(&file);
	refused(&file, "does not unpack");
	bytes_free(&file);
	model_free(&m);
}

Test(image_hostile, regions_that_overlap)
{
	struct bytes file = {0};
	struct model m;

	model_make(&m, 3, (size_t[]){4, 4}, 2);
	m.identity.regions[1].address =
		m.identity.regions[0].address + 3 * PAGE;
	cr_assert_eq(model_write(&m, &(struct feed){0}, &file), 0);
	refused(&file, "regions 0 and 1 overlap");
	bytes_free(&file);
	m.identity.regions[1].address += PAGE;
	cr_assert_eq(model_write(&m, &(struct feed){0}, &file), 0);
	bytes_free(&file);
	model_free(&m);
}

Test(image_hostile, identities_that_are_none)
{
	struct bytes file = {0};
	struct model m;

	model_make(&m, 4, (size_t[]){4}, 1);
	memcpy(m.identity.base, m.identity.id, 16);
	cr_assert_eq(model_write(&m, &(struct feed){0}, &file), 0);
	refused(&file, "identity is none");
	bytes_free(&file);
	memset(m.identity.id, 0, 16);
	memset(m.identity.base, 0, 16);
	cr_assert_eq(model_write(&m, &(struct feed){0}, &file), 0);
	refused(&file, "identity is none");
	bytes_free(&file);
	model_free(&m);
}

/* ---- Put together wrongly ------------------------------------------------ */

enum { BIG = 300, CHUNKS = 3, EACH = BIG / CHUNKS };

/* Three chunks of equal length without a codec. */
static void make_three(struct model *m, struct bytes *file, uint64_t seed)
{
	model_make(m, seed, (size_t[]){BIG}, 1);
	for (size_t p = 0; p < BIG; p++)
		m->data[0][p * PAGE] |= 1;
	make(m, WEIR_CODEC_NONE, CHUNKS, file);
	cr_assert_eq(file->count,
		     PAGE + CHUNKS * (EACH + 1) * PAGE + WI_FOOTER);
}

static uint8_t *chunk(struct bytes *file, size_t i)
{
	return file->data + PAGE + i * (EACH + 1) * PAGE;
}

static void swap(uint8_t *a, uint8_t *b, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		uint8_t c = a[i];

		a[i] = b[i];
		b[i] = c;
	}
}

Test(image_hostile, chunks_in_the_wrong_place)
{
	struct bytes file = {0}, other = {0}, cut = {0};
	struct model m, n;
	size_t bytes = (EACH + 1) * PAGE;

	make_three(&m, &file, 5);
	make_three(&n, &other, 6);
	swap(chunk(&file, 0), chunk(&file, 1), bytes);
	refused(&file, "belongs elsewhere: number 1");
	swap(chunk(&file, 0), chunk(&file, 1), bytes);
	memcpy(chunk(&file, 1), chunk(&file, 0), bytes);
	refused(&file, "belongs elsewhere: number 0");
	memcpy(chunk(&file, 1), chunk(&other, 1), bytes);
	refused(&file, "belongs to another file");
	/* One is not there. */
	cut.data = malloc(other.count);
	cut.count = other.count - bytes;
	memcpy(cut.data, other.data, PAGE + bytes);
	memcpy(cut.data + PAGE + bytes, other.data + PAGE + 2 * bytes,
	       cut.count - PAGE - bytes);
	refused(&cut, "belongs elsewhere: number 2");
	/* The last is not there, and the footer is right but for the chain. */
	memcpy(cut.data, other.data, PAGE + 2 * bytes);
	put(cut.data + cut.count - WI_FOOTER + 8, 8, 2);
	put(cut.data + cut.count - WI_FOOTER + 16, 8, cut.count - WI_FOOTER);
	put(cut.data + cut.count - WI_FOOTER + 64, 8, 2 * EACH);
	put(cut.data + cut.count - WI_FOOTER + 80, 8, cut.count);
	seal(cut.data + cut.count - WI_FOOTER, WI_FOOTER, 44);
	refused(&cut, "the footer's checksum is wrong");
	seal_all(&cut);
	refused(&cut, "page 200 of region 0 is not there");
	bytes_free(&cut);
	bytes_free(&file);
	bytes_free(&other);
	model_free(&m);
	model_free(&n);
}

/* A chunk of the same file written with other pages: same id, same place. */
Test(image_hostile, a_chunk_of_the_same_identity)
{
	struct bytes file = {0}, other = {0};
	struct model m;

	make_three(&m, &file, 7);
	m.data[0][150 * PAGE] ^= 2;
	make(&m, WEIR_CODEC_NONE, CHUNKS, &other);
	memcpy(chunk(&file, 1), chunk(&other, 1), (EACH + 1) * PAGE);
	refused(&file, "the footer's checksum is wrong");
	bytes_free(&file);
	bytes_free(&other);
	model_free(&m);
}

/* ---- Memory -------------------------------------------------------------- */

/* Regions as large as can be in a file of a few bytes, read with little memory.
 */
Test(image_hostile, memory_follows_the_file)
{
	struct wi_identity identity = {.id = {1}, .page = PAGE, .count = 60};
	struct rlimit limit = {256 << 20, 256 << 20};
	struct bytes file = {0};
	struct wi_writer *w;
	weir_image *image;

	for (size_t i = 0; i < identity.count; i++) {
		identity.regions[i].address = i * WI_REGION_MAX;
		identity.regions[i].bytes = WI_REGION_MAX;
		identity.regions[i].unit = PAGE;
	}
	cr_assert_eq(wi_writer_create(&identity, NULL, bytes_output, &file, &w),
		     0);
	for (size_t i = 0; i < identity.count; i++) {
		struct weir_snapshot_run run = {.region = i,
						.bytes = WI_REGION_MAX};

		cr_assert_eq(wi_writer_add(w, &run, 1), 0);
	}
	cr_assert_eq(wi_writer_finish(w, 0), 0);
	wi_writer_destroy(w);
#ifndef __SANITIZE_ADDRESS__
#ifndef __SANITIZE_THREAD__
	cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
#endif
#endif
	(void)limit;
	cr_assert_eq(bytes_open(&file, 1, false, &image), 0, "%s",
		     weir_error_text());
	weir_image_close(image);
	bytes_free(&file);
}
