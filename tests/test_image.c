/* SPDX-License-Identifier: MIT */
/*
 * Snapshot files: what is written is read, whatever the codec, the order and
 * the size of runs; chains of deltas; reading parts; mapping.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/image/codec.h"
#include "tests/image_make.h"
#include "tests/must.h"

static const unsigned codecs[] = {
	WEIR_CODEC_NONE,
#ifdef WEIR_LZ4
	WEIR_CODEC_LZ4,
#endif
#ifdef WEIR_ZSTD
	WEIR_CODEC_ZSTD,
#endif
};

#define CODECS (sizeof codecs / sizeof *codecs)

static const size_t small[] = {700, 1, 64};
#define REGIONS (sizeof small / sizeof *small)

static weir_image *open_good(const struct bytes *files, size_t count)
{
	weir_image *image = NULL;

	cr_assert_eq(bytes_open(files, count, false, &image), 0, "%s",
		     weir_error_text());
	return image;
}

/* Write, open, compare. */
static void there_and_back(struct model *m, const struct feed *feed)
{
	struct bytes file = {0};
	weir_image *image;
	const char *what;

	cr_assert_eq(model_write(m, feed, &file), 0, "%s", weir_error_text());
	image = open_good(&file, 1);
	what = model_differs(m, image);
	cr_assert_null(what, "codec %u, runs of %zu, calls of %zu: %s",
		       feed->codec, feed->run, feed->batch, what);
	weir_image_close(image);
	bytes_free(&file);
}

/* ---- Files --------------------------------------------------------------- */

Test(image, every_codec_and_every_size_of_runs)
{
	static const size_t runs[] = {1, 2, 7, 63, 64, 65, 512, 0};
	static const size_t batches[] = {1, 3, 0};
	struct model m;

	model_make(&m, 1, small, REGIONS);
	for (size_t c = 0; c < CODECS; c++)
		for (size_t r = 0; r < 8; r++)
			for (size_t b = 0; b < 3; b++)
				there_and_back(
					&m,
					&(struct feed){.codec = codecs[c],
						       .run = runs[r],
						       .batch = batches[b],
						       .shuffled = r % 2,
						       .zero_as_data = b == 1});
	model_free(&m);
}

Test(image, every_level)
{
	static const int lz4[] = {-50, -1, 1, 3, 9, 12};
	static const int zstd[] = {-5, 1, 3, 9};
	struct model m;

	model_make(&m, 2, (size_t[]){40}, 1);
	for (size_t i = 0; i < 6 && wi_codec_present(WEIR_CODEC_LZ4); i++)
		there_and_back(&m, &(struct feed){.codec = WEIR_CODEC_LZ4,
						  .level = lz4[i]});
	for (size_t i = 0; i < 4 && wi_codec_present(WEIR_CODEC_ZSTD); i++)
		there_and_back(&m, &(struct feed){.codec = WEIR_CODEC_ZSTD,
						  .level = zstd[i]});
	model_free(&m);
}

Test(image, what_there_is_no_codec_or_level_of)
{
	struct bytes file = {0};
	struct model m;

	model_make(&m, 3, (size_t[]){1}, 1);
	cr_expect_eq(model_write(&m, &(struct feed){.codec = 3}, &file),
		     -EINVAL);
	cr_expect(strstr(weir_error_text(), "codec 3"), "%s",
		  weir_error_text());
	cr_expect_eq(model_write(&m, &(struct feed){.level = 1}, &file),
		     -EINVAL);
	cr_expect_eq(file.count, 0);
	for (unsigned codec = 1; codec < 3; codec++) {
		struct feed feed = {.codec = codec, .level = 1000};

		cr_expect_eq(model_write(&m, &feed, &file),
			     wi_codec_present(codec) ? -EINVAL : -ENOTSUP);
	}
	bytes_free(&file);
	model_free(&m);
}

Test(image, all_zero_takes_next_to_nothing)
{
	struct bytes file = {0};
	struct model m;
	weir_image *image;
	uint64_t start, bytes;

	model_make(&m, 4, (size_t[]){2000}, 1);
	memset(m.data[0], 0, 2000 * PAGE);
	cr_assert_eq(
		model_write(&m, &(struct feed){.zero_as_data = true}, &file),
		0);
	cr_assert_leq(file.count, 2 * PAGE);
	image = open_good(&file, 1);
	cr_assert_null(model_differs(&m, image));
	cr_assert_eq(weir_image_data(image, 0, 0, &start, &bytes), 0);
	cr_assert_eq(bytes, 0);
	cr_assert_eq(start, 2000 * PAGE);
	weir_image_close(image);
	bytes_free(&file);
	model_free(&m);
}

Test(image, zero_runs_longer_than_their_field)
{
	struct wi_identity identity = {.id = {1}, .page = PAGE, .count = 1};
	struct weir_snapshot_run run = {.bytes = WI_REGION_MAX};
	struct bytes file = {0};
	struct wi_writer *w;
	weir_image *image;
	uint8_t byte = 1;

	identity.regions[0].bytes = WI_REGION_MAX;
	identity.regions[0].unit = PAGE;
	cr_assert_eq(wi_writer_create(&identity, NULL, bytes_output, &file, &w),
		     0);
	cr_assert_eq(wi_writer_add(w, &run, 1), 0);
	cr_assert_eq(wi_writer_finish(w, 0), 0);
	wi_writer_destroy(w);
	image = open_good(&file, 1);
	cr_assert_eq(weir_image_read(image, 0, WI_REGION_MAX - 1, &byte, 1), 0);
	cr_assert_eq(byte, 0);
	weir_image_close(image);
	bytes_free(&file);
}

Test(image, small_runs_are_collected)
{
	struct bytes file = {0};
	struct model m;

	model_make(&m, 5, (size_t[]){4000}, 1);
	cr_assert_eq(
		model_write(
			&m,
			&(struct feed){.run = 1, .batch = 1, .shuffled = true},
			&file),
		0);
	/* 2500 pages of data, 16 bytes a run, a page a MiB. */
	cr_assert_leq(file.calls, 14);
	cr_assert_leq(file.count, 4000 * PAGE);
	bytes_free(&file);
	model_free(&m);
}

Test(image, runs_that_are_none)
{
	static const struct weir_snapshot_run bad[] = {
		{.region = 1, .bytes = PAGE},
		{.offset = 1, .bytes = PAGE},
		{.bytes = 1},
		{.bytes = 11 * PAGE},
		{.offset = 10 * PAGE, .bytes = PAGE},
		{.offset = UINT64_MAX - PAGE + 1, .bytes = PAGE},
		{.offset = PAGE, .bytes = SIZE_MAX - PAGE + 1},
	};
	struct model m;

	model_make(&m, 6, (size_t[]){10}, 1);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct bytes file = {0};
		struct wi_writer *w;

		cr_assert_eq(wi_writer_create(&m.identity, NULL, bytes_output,
					      &file, &w),
			     0);
		cr_expect_eq(wi_writer_add(w, &bad[i], 1), -EINVAL, "%zu", i);
		/* It stays. */
		cr_expect_eq(wi_writer_finish(w, 0), -EINVAL, "%zu", i);
		wi_writer_destroy(w);
		bytes_free(&file);
	}
	model_free(&m);
}

Test(image, output_that_fails_at_every_call)
{
	struct model m;
	size_t calls = 2;

	model_make(&m, 7, small, REGIONS);
	for (size_t n = 1; n < calls; n++) {
		struct bytes file = {.failing = n, .err = n % 2 ? EIO : ENOSPC};
		struct feed feed = {.run = 5, .batch = 1};
		int err = model_write(&m, &feed, &file);

		if (file.calls < n) {
			bytes_free(&file);
			break;
		}
		calls = n + 2;
		cr_assert_eq(err, -file.err);
		cr_assert_eq(file.calls, n, "nothing is written after");
		cr_assert(strstr(weir_error_text(), "planted"), "%s",
			  weir_error_text());
		bytes_free(&file);
	}
	cr_assert_gt(calls, 4);
	model_free(&m);
}

/* ---- END ----------------------------------------------------------------- */

Test(image, the_last_of_a_page_counts)
{
	struct model m;

	model_make(&m, 8, small, REGIONS);
	m.identity.kind = WEIR_SNAPSHOT_END;
	for (size_t c = 0; c < CODECS; c++)
		for (size_t run = 1; run < 600; run = run * 5 + 1)
			there_and_back(&m, &(struct feed){.codec = codecs[c],
							  .run = run,
							  .batch = run % 3,
							  .shuffled = true,
							  .again = 1500});
	model_free(&m);
}

/* ---- Chains -------------------------------------------------------------- */

#define CHAIN 4

/* A whole one and deltas in files[]; the model is the last. */
static void make_chain(struct model *m, struct bytes *files)
{
	memset(files, 0, CHAIN * sizeof *files);
	model_make(m, 9, small, REGIONS);
	for (unsigned i = 0; i < CHAIN; i++) {
		struct feed feed = {.codec = codecs[i % CODECS],
				    .run = i,
				    .shuffled = true,
				    .again = i == 2 ? 500 : 0};

		if (i) {
			model_change(m, 1 + i * i);
			m->identity.kind = i == 2;
		}
		if (i == 3)
			model_grow(m, 1, 30);
		cr_assert_eq(model_write(m, &feed, &files[i]), 0, "%s",
			     weir_error_text());
	}
}

static void free_chain(struct model *m, struct bytes *files)
{
	for (unsigned i = 0; i < CHAIN; i++)
		bytes_free(&files[i]);
	model_free(m);
}

Test(image, chains)
{
	struct weir_image_info info = {.size = sizeof info};
	struct bytes files[CHAIN];
	struct model m;
	weir_image *image;
	const char *what;

	make_chain(&m, files);
	image = open_good(files, CHAIN);
	what = model_differs(&m, image);
	cr_assert_null(what, "%s", what);
	cr_assert_eq(weir_image_info(image, &info), 0);
	cr_assert(wi_id_is_zero(info.base));
	weir_image_close(image);
	free_chain(&m, files);
}

static void refused(const struct bytes *files, size_t count, const char *text)
{
	weir_image *image;

	cr_expect_eq(bytes_open(files, count, false, &image), -EINVAL, "%s",
		     text);
	cr_expect(strstr(weir_error_text(), text), "\"%s\" is not in \"%s\"",
		  text, weir_error_text());
}

Test(image, chains_in_the_wrong_order)
{
	struct bytes files[CHAIN], wrong[CHAIN];
	struct model m;

	make_chain(&m, files);
	refused(files + 1, 1, "the first file is a delta");
	refused(files + 1, 3, "the first file is a delta");
	wrong[0] = files[0];
	wrong[1] = files[2];
	refused(wrong, 2, "a delta that follows snapshot");
	wrong[1] = files[0];
	refused(wrong, 2, "a whole snapshot is not the first");
	wrong[1] = files[1];
	wrong[2] = files[1];
	refused(wrong, 3, "a delta that follows snapshot");
	wrong[2] = files[3];
	refused(wrong, 3, "a delta that follows snapshot");
	free_chain(&m, files);
}

/* Deltas that say whom they follow, and cannot. */
Test(image, deltas_of_other_regions)
{
	struct bytes files[2] = {0};
	struct model m, other;

	model_make(&m, 10, small, REGIONS);
	cr_assert_eq(model_write(&m, &(struct feed){0}, &files[0]), 0);
	for (int i = 0; i < 3; i++) {
		static const char *const why[] = {"elsewhere", "shorter",
						  "regions are others"};

		model_make(&other, 10, small, REGIONS);
		model_change(&other, 2);
		if (i == 0)
			other.identity.regions[2].address += PAGE;
		if (i == 1)
			other.identity.regions[0].bytes -= PAGE;
		if (i == 2)
			other.identity.count--;
		cr_assert_eq(model_write(&other, &(struct feed){0}, &files[1]),
			     0);
		refused(files, 2, why[i]);
		bytes_free(&files[1]);
		other.identity.count = REGIONS;
		model_free(&other);
	}
	bytes_free(&files[0]);
	model_free(&m);
}

Test(image, what_a_region_grew_by_is_in_the_delta)
{
	struct bytes files[2] = {0};
	struct model m;
	weir_image *image;

	model_make(&m, 11, small, REGIONS);
	cr_assert_eq(model_write(&m, &(struct feed){0}, &files[0]), 0);
	model_change(&m, 5);
	model_grow(&m, 1, 4);
	m.changed[1][3] = false;
	cr_assert_eq(model_write(&m, &(struct feed){0}, &files[1]), 0);
	cr_assert_eq(bytes_open(files, 2, false, &image), -EBADMSG);
	cr_assert(strstr(weir_error_text(), "page 3 of region 1 is not there"),
		  "%s", weir_error_text());
	bytes_free(&files[0]);
	bytes_free(&files[1]);
	model_free(&m);
}

Test(image, a_delta_alone_can_be_looked_at)
{
	struct weir_image_info info = {.size = sizeof info};
	struct bytes files[CHAIN];
	struct model m;
	weir_image *image;
	uint8_t page[PAGE];
	void *mapped;
	bool *changed;

	make_chain(&m, files);
	cr_assert_eq(bytes_open(files + 3, 1, true, &image), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_image_info(image, &info), 0);
	cr_assert_arr_eq(info.base, m.identity.base, 16);
	changed = m.changed[0];
	for (size_t p = 0; p < model_pages(&m, 0); p++) {
		cr_assert_eq(weir_image_read(image, 0, p * PAGE, page, PAGE),
			     changed[p] ? 0 : -ENODATA, "page %zu: %s", p,
			     weir_error_text());
		if (changed[p])
			cr_assert_arr_eq(page, m.data[0] + p * PAGE, PAGE);
	}
	cr_assert_eq(weir_image_map(image, 0, NULL, &mapped), -ENODATA);
	weir_image_close(image);
	free_chain(&m, files);
}

/* ---- Reading parts ------------------------------------------------------- */

Test(image, any_part)
{
	struct bytes files[CHAIN];
	struct model m;
	weir_image *image;
	uint64_t random = 12;
	uint8_t *to;

	make_chain(&m, files);
	image = open_good(files, CHAIN);
	to = malloc(small[0] * PAGE);
	for (int i = 0; i < 300; i++) {
		size_t bytes = m.identity.regions[0].bytes;
		size_t at = random_next(&random) % (bytes + 1);
		size_t n = random_next(&random) % (bytes - at + 1);

		if (i % 2)
			n %= 3 * PAGE;
		cr_assert_eq(weir_image_read(image, 0, at, to, n), 0);
		cr_assert_eq(memcmp(to, m.data[0] + at, n), 0, "%zu at %zu", n,
			     at);
	}
	free(to);
	weir_image_close(image);
	free_chain(&m, files);
}

Test(image, data_is_found)
{
	struct bytes file = {0};
	struct model m;
	weir_image *image;
	uint64_t at = 0, start, bytes, seen = 0;
	struct weir_image_region r = {.size = sizeof r};

	model_make(&m, 13, small, REGIONS);
	cr_assert_eq(model_write(&m, &(struct feed){.run = 3}, &file), 0);
	image = open_good(&file, 1);
	while (true) {
		static const uint8_t zero[PAGE];

		cr_assert_eq(weir_image_data(image, 0, at, &start, &bytes), 0);
		for (; at < start; at += PAGE)
			cr_assert_arr_eq(m.data[0] + at, zero, PAGE);
		if (!bytes)
			break;
		seen += bytes;
		at = start + bytes;
	}
	cr_assert_eq(weir_image_region(image, 0, &r), 0);
	cr_assert_eq(seen, r.data);
	/* From the middle of a page on. */
	cr_assert_eq(weir_image_data(image, 0, 0, &at, &bytes), 0);
	cr_assert_eq(weir_image_data(image, 0, at + 5, &start, &seen), 0);
	cr_assert_eq(start, at + 5);
	cr_assert_eq(seen, bytes - 5);
	weir_image_close(image);
	bytes_free(&file);
	model_free(&m);
}

#if !WEIR_CHECKING
Test(image, arguments_that_are_none)
{
	struct bytes file = {0};
	struct model m;
	weir_image *image;
	struct weir_image_info info = {.size = 0};
	struct weir_image_region region = {.size = sizeof region};
	uint64_t n;
	uint8_t byte;
	void *p;

	model_make(&m, 14, (size_t[]){2}, 1);
	cr_assert_eq(model_write(&m, &(struct feed){0}, &file), 0);
	image = open_good(&file, 1);
	cr_expect_eq(weir_image_info(image, &info), -EINVAL);
	cr_expect_eq(weir_image_info(NULL, &info), -EINVAL);
	cr_expect_eq(weir_image_region(image, 1, &region), -EINVAL);
	cr_expect_eq(weir_image_read(image, 1, 0, &byte, 1), -EINVAL);
	cr_expect_eq(weir_image_read(image, 0, 2 * PAGE, &byte, 1), -EINVAL);
	cr_expect_eq(weir_image_read(image, 0, UINT64_MAX, &byte, 1), -EINVAL);
	cr_expect_eq(weir_image_read(image, 0, 1, &byte, SIZE_MAX), -EINVAL);
	cr_expect_eq(weir_image_read(image, 0, 0, NULL, 1), -EINVAL);
	cr_expect_eq(weir_image_read(image, 0, 2 * PAGE, NULL, 0), 0);
	cr_expect_eq(weir_image_map(image, 1, NULL, &p), -EINVAL);
	cr_expect_eq(weir_image_map(image, 0, (void *)1, &p), -EINVAL);
	cr_expect_eq(weir_image_data(image, 1, 0, &n, &n), -EINVAL);
	cr_expect_eq(weir_image_open(NULL, 1, &image), -EINVAL);
	cr_expect_eq(weir_image_open((const char *[]){"/"}, 0, &image),
		     -EINVAL);
	weir_image_close(NULL);
	weir_image_close(image);
	bytes_free(&file);
	model_free(&m);
}
#endif

/* What a caller of another version has for a struct. */
Test(image, structs_of_other_sizes)
{
	struct {
		struct weir_image_info info;
		uint64_t more;
	} large = {.info.size = sizeof large, .more = 1};
	struct weir_image_info little = {.kind = 77};
	struct bytes file = {0};
	struct model m;
	weir_image *image;

	model_make(&m, 15, (size_t[]){2}, 1);
	cr_assert_eq(model_write(&m, &(struct feed){0}, &file), 0);
	image = open_good(&file, 1);
	cr_assert_eq(weir_image_info(image, &large.info), 0);
	cr_assert_eq(large.more, 0);
	cr_assert_eq(large.info.page, PAGE);
	little.size = offsetof(struct weir_image_info, kind);
	cr_assert_eq(weir_image_info(image, &little), 0);
	cr_assert_eq(little.kind, 77);
	cr_assert_arr_eq(little.id, m.identity.id, 16);
	weir_image_close(image);
	bytes_free(&file);
	model_free(&m);
}

struct part {
	const weir_image *image; /* from which */
	const struct model *m;   /* what it holds */
	size_t at;               /* first byte */
};

static void *read_part(void *arg)
{
	struct part *part = arg;
	size_t quarter = small[0] * PAGE / 4;
	uint8_t *to = malloc(quarter);

	must(!weir_image_read(part->image, 0, part->at, to, quarter));
	must(!memcmp(to, part->m->data[0] + part->at, quarter));
	free(to);
	return NULL;
}

Test(image, in_parallel)
{
	struct bytes files[CHAIN];
	struct model m;
	weir_image *image;
	pthread_t threads[4];
	struct part parts[4];

	make_chain(&m, files);
	image = open_good(files, CHAIN);
	for (size_t i = 0; i < 4; i++) {
		parts[i] = (struct part){image, &m, i * small[0] * PAGE / 4};
		cr_assert_eq(
			pthread_create(&threads[i], NULL, read_part, &parts[i]),
			0);
	}
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	weir_image_close(image);
	free_chain(&m, files);
}
