/* SPDX-License-Identifier: MIT */
/* The fuzzer of snapshot files; see image_fuzz.h. */
#include "tests/image_fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/image/codec.h"
#include "runtime/image/crc.h"
#include "tests/image_make.h"
#include "tests/image_patch.h"
#include "tests/must.h"

enum {
	SEEDS = 12,        /* files */
	INPUT = 1 << 20,   /* bytes of an input at most */
	READ = 1 << 20,    /* of a region, bytes that are read at most */
	MEMORY = 64 << 20, /* bytes that an open file's index may have */
};

static struct bytes seeds[SEEDS];
static struct model model; /* of seeds[0] */

/* ---- Seeds --------------------------------------------------------------- */

static void make_seeds(void)
{
	static const size_t pages[] = {9, 3};
	static const size_t large[] = {90};
	static const size_t little[] = {2, 1};

	if (seeds[0].count)
		return;
	for (unsigned i = 0; i < SEEDS; i++) {
		/* 0: whole; 1, 2: deltas of it; then others. */
		unsigned codec = i % 3;
		struct feed feed = {.run = 1 + i % 3, .batch = 1 + i % 4};

		if (wi_codec_present(codec))
			feed.codec = codec;
		if (i < 3) {
			if (i == 0)
				model_make(&model, 1, pages, 2);
			else
				model_change(&model, 2);
			must(!model_write(&model, &feed, &seeds[i]));
			if (i == 1)
				memcpy(model.identity.id, model.identity.base,
				       16);
		} else {
			struct model m;

			model_make(&m, i,
				   i == 7  ? large
				   : i > 7 ? little
					   : pages,
				   i == 7 ? 1 : 2);
			m.identity.kind = i % 2;
			feed.again = i % 2 ? 20 : 0;
			must(!model_write(&m, &feed, &seeds[i]));
			model_free(&m);
		}
	}
}

int fuzz_seeds(const char *directory)
{
	make_seeds();
	for (unsigned i = 0; i < SEEDS; i++) {
		char path[4096];
		int fd;

		snprintf(path, sizeof path, "%s/seed-%u", directory, i);
		fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);
		if (fd < 0 || write(fd, seeds[i].data, seeds[i].count) !=
				      (ssize_t)seeds[i].count)
			return -1;
		close(fd);
	}
	return 0;
}

/* ---- One input ----------------------------------------------------------- */

static bool zero_bytes(const uint8_t *p, size_t bytes)
{
	return !bytes || (!p[0] && !memcmp(p, p + 1, bytes - 1));
}

/* The start of a region at once and in parts, and what is data in it. */
static void check_region(const weir_image *image, size_t i, bool whole)
{
	static uint8_t at_once[READ], part[READ];
	struct weir_image_region r = {.size = sizeof r};
	uint64_t at = 0, start, bytes;
	size_t n;
	int err;

	must(!weir_image_region(image, i, &r));
	must(r.bytes && r.bytes <= WI_REGION_MAX && r.data <= r.bytes);
	n = r.bytes < READ ? (size_t)r.bytes : READ;
	err = weir_image_read(image, i, 0, at_once, n);
	must(!whole || !err);
	/* The last byte too, however far it is. */
	err = weir_image_read(image, i, r.bytes - 1, part, 1);
	must(!whole || !err);
	while (whole) {
		must(!weir_image_data(image, i, at, &start, &bytes));
		must(start >= at && start <= r.bytes);
		must(bytes <= r.bytes - start);
		if (at < n)
			must(zero_bytes(at_once + at,
					(start < n ? start : n) - at));
		at = start;
		if (!bytes || at >= n)
			break;
		if (bytes > n - at)
			bytes = n - at;
		must(!weir_image_read(image, i, at, part, bytes));
		must(!memcmp(part, at_once + at, bytes));
		at += bytes;
	}
}

static void check_map(const weir_image *image, size_t i)
{
	struct weir_image_region r = {.size = sizeof r};
	uint8_t page[64];
	void *p;

	must(!weir_image_region(image, i, &r));
	if (r.bytes > 1 << 30)
		return;
	if (weir_image_map(image, i, free_range(r.bytes), &p))
		return;
	must(!weir_image_read(image, i, r.bytes - 64, page, 64));
	must(!memcmp((uint8_t *)p + r.bytes - 64, page, 64));
	must(!munmap(p, r.bytes));
}

static bool check_files(const struct bytes *files, size_t count, bool part)
{
	struct weir_image_info info = {.size = sizeof info};
	weir_image *image = NULL;
	size_t memory;
	bool whole;

	if (bytes_open(files, count, part, &image))
		return false;
	must(!weir_image_info(image, &info));
	must(info.regions >= 1 && info.regions <= WI_REGIONS_MAX);
	memory = image->chunk_room * sizeof *image->chunks;
	whole = wi_id_is_zero(info.base);
	for (size_t i = 0; i < info.regions; i++) {
		memory += image->index[i].room * sizeof(struct wi_run);
		check_region(image, i, whole);
		if (whole)
			check_map(image, i);
	}
	must(memory < MEMORY);
	weir_image_close(image);
	return true;
}

/* ---- Checksums ----------------------------------------------------------- */

/* Make all checksums right, as far as the file can be followed: sequence
 * numbers, offsets and the footer's length too if `places`. */
static void repair(uint8_t *p, size_t size, bool places)
{
	size_t at = size >= 16 ? get32(p + 12) : 0;
	uint64_t number = 0;
	uint32_t chain;

	if (at < 80 || at > size)
		return;
	seal(p, at, 76);
	chain = wi_chain(0, get32(p + 76));
	while (size - at >= WI_HEAD) {
		uint8_t *h = p + at;
		size_t head = get32(h + 28), stored = get32(h + 32);

		if (head < WI_HEAD || head > size - at)
			return;
		if (places) {
			put(h + 8, 8, number++);
			put(h + 16, 8, at);
			memcpy(h + 48, p + 32, 16);
		}
		if (!memcmp(h, "WEND", 4) && head >= WI_FOOTER) {
			put(h + 96, 4, chain);
			if (places)
				put(h + 80, 8, size);
			seal(h, head, 44);
			return;
		}
		if (stored > size - at - head)
			return;
		put(h + 40, 4, wi_crc(0, h + head, stored));
		seal(h, head, 44);
		chain = wi_chain(chain, get32(h + 44));
		at += head + stored;
	}
}

/* ---- An input of another fuzzer's ---------------------------------------- */

static void check_input(const uint8_t *data, size_t size)
{
	struct bytes files[2] = {seeds[0]};

	files[1] = (struct bytes){.data = (uint8_t *)data, .count = size};
	check_files(files + 1, 1, true);
	check_files(files + 1, 1, false);
	check_files(files, 2, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t repaired[INPUT];

	make_seeds();
	check_input(data, size);
	/* Few changes get past the checksums by themselves. */
	if (!size || size > INPUT)
		return 0;
	for (int places = 0; places < 2; places++) {
		memcpy(repaired, data, size);
		repair(repaired, size, places);
		if (memcmp(repaired, data, size))
			check_input(repaired, size);
	}
	return 0;
}

/* ---- The loop ------------------------------------------------------------ */

static uint64_t random_state;

static uint64_t below(uint64_t n)
{
	return n ? random_next(&random_state) % n : 0;
}

/* Numbers that break arithmetic. */
static uint64_t odd_number(void)
{
	static const uint64_t odd[] = {0,
				       1,
				       2,
				       4096,
				       8192,
				       4095,
				       65535,
				       65536,
				       1 << 21,
				       1 << 22,
				       INT32_MAX,
				       UINT32_MAX,
				       UINT64_C(1) << 32,
				       UINT64_C(1) << 34,
				       UINT64_C(1) << 46,
				       INT64_MAX,
				       UINT64_MAX,
				       UINT64_MAX - 4095};
	uint64_t v = odd[below(sizeof odd / sizeof *odd)];

	return below(3) ? v : v + below(5) - 2;
}

/* The start of something with fields: the header, a chunk, the footer. */
static size_t some_head(const uint8_t *p, size_t size)
{
	size_t at = size >= 16 ? get32(p + 12) : 0;
	uint64_t skip = below(8);

	if (!below(4) || at > size || size - at < WI_HEAD)
		return 0;
	while (skip--) {
		uint64_t next =
			(uint64_t)at + get32(p + at + 28) + get32(p + at + 32);

		if (next > size || size - next < WI_HEAD || next <= at)
			break;
		at = (size_t)next;
	}
	return at;
}

/* One change; returns the new size. */
static size_t mutate(uint8_t *p, size_t size)
{
	const struct bytes *other = &seeds[below(SEEDS)];
	size_t at = below(size), n, from, head;

	switch (below(8)) {
	case 0: /* a bit */
		p[at] ^= (uint8_t)(1 << below(8));
		break;
	case 1: /* some bytes */
		n = 1 + below(size - at < 64 ? size - at : 64);
		memset(p + at, (int)below(256), n);
		break;
	case 2: /* torn */
		if (!below(4))
			size = 1 + at;
		break;
	case 3: /* a piece of another file, or of this one */
		n = 1 + below(other->count);
		from = below(other->count - n + 1);
		if (n > INPUT - at)
			n = INPUT - at;
		memcpy(p + at, other->data + from, n);
		if (at + n > size)
			size = at + n;
		break;
	case 4: /* a piece of this file elsewhere */
		n = 1 + below(size - at);
		from = below(size - n + 1);
		memmove(p + from, p + at, n);
		break;
	default: /* a field of a head, of a run, of a region */
		head = some_head(p, size);
		n = (size_t[]){1, 2, 4, 8}[below(4)];
		at = head + below(30) * n;
		if (below(2))
			at = head + (below(2) ? 64 : 80) + below(16) * 4;
		if (at + n <= size)
			put(p + at, (unsigned)n, odd_number());
	}
	return size;
}

void fuzz_loop(double seconds, uint64_t seed, struct fuzz_result *result)
{
	static uint8_t input[INPUT];
	struct timespec start, now;
	double spent;

	make_seeds();
	*result = (struct fuzz_result){0};
	random_state = seed * 2654435761u + 1;
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		const struct bytes *file = &seeds[below(SEEDS)];
		struct bytes files[2] = {seeds[0]};
		size_t size = file->count;
		uint64_t changes = below(4);

		memcpy(input, file->data, size);
		while (changes--)
			size = mutate(input, size);
		if (below(8))
			repair(input, size, below(2));
		files[1] = (struct bytes){.data = input, .count = size};
		result->inputs++;
		if (check_files(files + 1, 1, true))
			result->opened++;
		check_files(files, 2, false);
		clock_gettime(CLOCK_MONOTONIC, &now);
		spent = (double)(now.tv_sec - start.tv_sec) +
			(double)(now.tv_nsec - start.tv_nsec) / 1e9;
	} while (spent < seconds);
}
