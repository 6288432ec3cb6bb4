/* SPDX-License-Identifier: MIT */
/*
 * Mapping a region of an image.
 *
 * First its whole extent is mapped anonymous: zero pages are there, and nothing
 * else can come in between.  Then long runs of chunks without a codec are
 * mapped over it from their files, and the rest is read to it.
 *
 * A mapped run can cost two mappings of the vm.max_map_count that the process
 * may have: itself, and what is left behind it.  At most half of what is free
 * is used: if there are more long runs than that, only longer ones are mapped.
 */
#define _GNU_SOURCE
#include "runtime/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/embed.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Pages of a run that is worth a mapping. */
enum { LONG = 64 };

/* ---- How many mappings --------------------------------------------------- */

static size_t maps_allowed(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	size_t n = 0;

	if (f) {
		if (fscanf(f, "%zu", &n) != 1)
			n = 0;
		fclose(f);
	}
	return n ? n : 65530;
}

static size_t maps_there(void)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char text[4096];
	size_t lines = 0;
	ssize_t n;

	if (fd < 0)
		return 32768;
	while ((n = read(fd, text, sizeof text)) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += text[i] == '\n';
	close(fd);
	return lines;
}

/* Runs from that many pages on are mapped. */
static uint64_t least_pages(size_t longest, const size_t *by_power)
{
	size_t allowed = maps_allowed(), there = maps_there(), sum = 0;
	size_t budget = allowed > there ? (allowed - there) / 4 : 0;
	uint64_t least = UINT64_MAX;

	for (size_t p = longest + 1; p-- && (uint64_t)1 << p >= LONG;) {
		sum += by_power[p];
		if (sum > budget)
			break;
		least = (uint64_t)1 << p;
	}
	return least;
}

/* ---- Runs ---------------------------------------------------------------- */

static bool may_map(const weir_image *image, const struct wi_run *run,
		    uint64_t system_page)
{
	const struct wi_chunk *chunk;
	uint64_t at;

	if (run->at == WI_NO_DATA || run->pages < LONG)
		return false;
	chunk = &image->chunks[run->chunk];
	at = chunk->offset + chunk->head + (uint64_t)run->at * image->page;
	/* A system of larger pages than the file's. */
	return chunk->codec == WEIR_CODEC_NONE && !(at % system_page) &&
	       !(run->page * image->page % system_page) &&
	       !(run->pages * image->page % system_page);
}

static uint64_t choose(const weir_image *image, const struct wi_runs *index,
		       uint64_t system_page)
{
	size_t by_power[64] = {0}, longest = 0, any = 0;

	for (size_t j = 0; j < index->count; j++) {
		size_t power;

		if (!may_map(image, &index->runs[j], system_page))
			continue;
		power = 63 - (size_t)__builtin_clzll(index->runs[j].pages);
		by_power[power]++;
		longest = power > longest ? power : longest;
		any++;
	}
	return any ? least_pages(longest, by_power) : UINT64_MAX;
}

static bool map_run(const weir_image *image, const struct wi_run *run,
		    uint8_t *to)
{
	const struct wi_chunk *chunk = &image->chunks[run->chunk];
	uint64_t at =
		chunk->offset + chunk->head + (uint64_t)run->at * image->page;

	return mmap(to, run->pages * image->page, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_FIXED, image->files[chunk->file].fd,
		    (off_t)at) != MAP_FAILED;
}

/* Map and read every run of the index to `to`. */
static int fill(const weir_image *image, const struct wi_runs *index,
		uint8_t *to)
{
	uint64_t system_page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t least = choose(image, index, system_page);
	struct wi_piece *pieces;
	size_t count = 0;
	int err;

	pieces = malloc((index->count + 1) * sizeof *pieces);
	if (!pieces)
		return weir_error_set(ENOMEM, "no memory to map a snapshot");
	for (size_t j = 0; j < index->count; j++) {
		const struct wi_run *run = &index->runs[j];
		uint8_t *start = to + run->page * image->page;

		if (run->at == WI_NO_DATA)
			continue;
		/* Where a mapping fails after all the run is read. */
		if (run->pages >= least && may_map(image, run, system_page) &&
		    map_run(image, run, start))
			continue;
		pieces[count++] = (struct wi_piece){
			.to = start,
			.chunk = run->chunk,
			.at = run->at * image->page,
			.bytes = (uint32_t)(run->pages * image->page),
		};
	}
	err = wi_image_fill(image, pieces, count);
	free(pieces);
	return err;
}

/* ---- The extent ---------------------------------------------------------- */

static int taken(void *address, uint64_t bytes)
{
	return weir_error_set(
		EEXIST,
		"weir_image_map: something is mapped in the %llu "
		"bytes at %p; map the region elsewhere, or before "
		"anything else",
		(unsigned long long)bytes, address);
}

static int reserve(void *address, uint64_t bytes, void **mapped)
{
	void *p = mmap(address, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
			       MAP_FIXED_NOREPLACE,
		       -1, 0);

	if (p == MAP_FAILED && errno == EEXIST)
		return taken(address, bytes);
	if (p == MAP_FAILED)
		return weir_error_set(errno,
				      "weir_image_map: %llu bytes at %p cannot "
				      "be mapped: %s",
				      (unsigned long long)bytes, address,
				      strerror(errno));
	/* Before Linux 4.17 the address is a wish. */
	if (p != address) {
		munmap(p, bytes);
		return taken(address, bytes);
	}
	*mapped = p;
	return 0;
}

/* What is mapped is not verified again: it must be the file that was. */
static int check_files(const weir_image *image)
{
	for (size_t i = 0; i < image->count; i++) {
		const struct wi_source *file = &image->files[i];
		struct stat st;

		if (fstat(file->fd, &st) ||
		    (uint64_t)st.st_size != file->bytes ||
		    st.st_mtim.tv_sec != file->time.tv_sec ||
		    st.st_mtim.tv_nsec != file->time.tv_nsec)
			return weir_error_set(EIO,
					      "%.200s: the file was changed "
					      "since it was opened; open it "
					      "again",
					      file->name);
	}
	return 0;
}

int weir_image_map(const weir_image *image, size_t i, void *address,
		   void **mapped)
{
	const struct wi_region *region;
	uint64_t pages, gap;
	void *p = NULL;
	int err;

	if (!image || !mapped)
		return wi_invalid("weir_image_map", "a NULL argument");
	if (i >= image->identity->count)
		return wi_invalid("weir_image_map", "no such region");
	region = &image->identity->regions[i];
	if (!address)
		address = (void *)(uintptr_t)region->address;
	if ((uintptr_t)address % (uintptr_t)sysconf(_SC_PAGESIZE))
		return weir_error_set(
			EINVAL,
			"weir_image_map: %p is not the start of a "
			"page",
			address);
	pages = region->bytes / image->page;
	gap = wi_runs_gap(&image->index[i], pages);
	if (gap < pages)
		return weir_error_set(ENODATA,
				      "%.200s: page %llu of region %zu is in "
				      "the snapshot that it follows; open both",
				      image->files[image->count - 1].name,
				      (unsigned long long)gap, i);
	err = check_files(image);
	if (!err)
		err = reserve(address, region->bytes, &p);
	if (err)
		return err;
	err = fill(image, &image->index[i], p);
	if (err) {
		munmap(p, region->bytes);
		return err;
	}
	*mapped = p;
	return 0;
}
