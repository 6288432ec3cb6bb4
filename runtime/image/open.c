/* SPDX-License-Identifier: MIT */
/*
 * Opening images: files of a chain, each verified, resolved to one index.
 *
 * A file of kind BEGIN has no page twice.  A whole one has every page, and so
 * has a delta on top of the files before it; pages by which a region grew since
 * are in the delta.
 */
#include "runtime/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <weir/embed.h>

int wi_invalid(const char *function, const char *cause)
{
#if WEIR_CHECKING
	fprintf(stderr, "weir: %s: %s\n", function, cause);
	abort();
#endif
	errno = EINVAL;
	return weir_error_set(EINVAL, "%s: %s", function, cause);
}

/* ---- Chains -------------------------------------------------------------- */

static bool hex_differs(const char *name, const char *before,
			const uint8_t want[16], const uint8_t have[16])
{
	char w[33], h[33];

	if (!memcmp(want, have, 16))
		return false;
	for (int i = 0; i < 16; i++) {
		snprintf(w + 2 * i, 3, "%02x", want[i]);
		snprintf(h + 2 * i, 3, "%02x", have[i]);
	}
	weir_error_set(EINVAL,
		       "%.150s: a delta that follows snapshot %s, and %.150s "
		       "is %s; give the files in the order they were made",
		       name, w, before, h);
	return true;
}

static int not_a_chain(const struct wi_source *file, const char *cause)
{
	return weir_error_set(EINVAL,
			      "%.200s: not a chain: %s; give a whole snapshot, "
			      "then each delta in the order they were made",
			      file->name, cause);
}

/* Does file `n` follow the one before? */
static int check_chain(const weir_image *image, size_t n, bool part)
{
	const struct wi_source *file = &image->files[n];
	const struct wi_identity *now = &file->identity, *before;

	if (!n) {
		if (wi_id_is_zero(now->base) || part)
			return 0;
		return not_a_chain(file, "the first file is a delta");
	}
	if (wi_id_is_zero(now->base))
		return not_a_chain(file, "a whole snapshot is not the first");
	before = &file[-1].identity;
	if (hex_differs(file->name, file[-1].name, now->base, before->id))
		return -EINVAL;
	if (now->page != before->page || now->count != before->count)
		return not_a_chain(file, "its pages or regions are others");
	for (uint32_t i = 0; i < now->count; i++) {
		if (now->regions[i].address != before->regions[i].address)
			return not_a_chain(file, "a region is elsewhere");
		if (now->regions[i].bytes < before->regions[i].bytes)
			return not_a_chain(file, "a region is shorter");
	}
	return 0;
}

/* The index of region i after file n, whose runs are those from `old` on. */
static int settle(weir_image *image, size_t n, uint32_t i, size_t old)
{
	const struct wi_source *file = &image->files[n];
	const struct wi_identity *identity = &file->identity;
	uint64_t pages = identity->regions[i].bytes / identity->page, gap;
	struct wi_runs *index = &image->index[i];
	struct wi_run twice;
	int err;

	if (identity->kind == WEIR_SNAPSHOT_BEGIN &&
	    wi_runs_twice(index, old, &twice))
		return wi_bad(
			(struct wi_where){file->name,
					  image->chunks[twice.chunk].offset},
			"page %llu of region %u is there twice",
			(unsigned long long)twice.page, i);
	err = wi_runs_settle(index);
	if (err || !image->whole)
		return err;
	gap = wi_runs_gap(index, pages);
	if (gap < pages)
		return wi_bad((struct wi_where){file->name, file->bytes},
			      "page %llu of region %u is not there",
			      (unsigned long long)gap, i);
	return 0;
}

static int add_file(weir_image *image, size_t n, bool part)
{
	size_t old[WI_REGIONS_MAX];
	struct wi_source *file = &image->files[n];
	int err;

	for (size_t i = 0; i < WI_REGIONS_MAX; i++)
		old[i] = image->index[i].count;
	err = wi_image_scan(image, file, n);
	if (!err)
		err = check_chain(image, n, part);
	if (err)
		return err;
	if (!n)
		image->whole = wi_id_is_zero(file->identity.base);
	for (uint32_t i = 0; i < file->identity.count && !err; i++)
		err = settle(image, n, i, old[i]);
	return err;
}

static void count_data(weir_image *image)
{
	for (size_t i = 0; i < WI_REGIONS_MAX; i++) {
		const struct wi_runs *index = &image->index[i];

		for (size_t j = 0; j < index->count; j++)
			if (index->runs[j].at != WI_NO_DATA)
				image->data_pages[i] += index->runs[j].pages;
	}
}

/* ---- Opening and closing ------------------------------------------------- */

void weir_image_close(weir_image *image)
{
	if (!image)
		return;
	for (size_t i = 0; i < image->count; i++) {
		if (image->files[i].fd >= 0)
			close(image->files[i].fd);
		free(image->files[i].name);
	}
	for (size_t i = 0; i < WI_REGIONS_MAX; i++)
		wi_runs_free(&image->index[i]);
	free(image->chunks);
	free(image->files);
	free(image);
}

static weir_image *make(size_t count)
{
	weir_image *image = calloc(1, sizeof *image);

	if (image)
		image->files = calloc(count, sizeof *image->files);
	if (!image || !image->files) {
		free(image);
		weir_error_set(ENOMEM, "no memory for a snapshot's index");
		return NULL;
	}
	image->count = count;
	for (size_t i = 0; i < count; i++)
		image->files[i].fd = -1;
	return image;
}

/* Chunks know their file by 16 bits. */
static int check_count(size_t count)
{
	if (!count || count > UINT16_MAX)
		return weir_error_set(EINVAL,
				      "weir_image_open: %zu files, not 1 to %d",
				      count, UINT16_MAX);
	return 0;
}

/* Verify what is open in image->files. */
static int load(weir_image *image, bool part, weir_image **to)
{
	int err = 0;

	for (size_t i = 0; i < image->count && !err; i++)
		err = add_file(image, i, part);
	if (err) {
		weir_image_close(image);
		return err;
	}
	image->identity = &image->files[image->count - 1].identity;
	image->page = image->identity->page;
	count_data(image);
	*to = image;
	return 0;
}

static int set_name(struct wi_source *file, const char *name)
{
	file->name = strdup(name);
	return file->name ? 0 : weir_error_set(ENOMEM, "no memory for a name");
}

int wi_image_load(const int *fds, const char *const *names, size_t count,
		  bool part, weir_image **image)
{
	weir_image *new = make(count);
	int err = new ? 0 : -ENOMEM;

	for (size_t i = 0; i < count; i++) {
		if (new)
			new->files[i].fd = fds[i];
		else
			close(fds[i]);
		if (!err)
			err = set_name(&new->files[i], names[i]);
	}
	if (!err)
		return load(new, part, image);
	weir_image_close(new);
	return err;
}

static int open_paths(const char *const *paths, size_t count, bool part,
		      weir_image **image)
{
	weir_image *new = make(count);
	int err = new ? 0 : -ENOMEM;

	for (size_t i = 0; i < count && !err; i++) {
		struct wi_source *file = &new->files[i];

		err = set_name(file, paths[i]);
		if (err)
			break;
		/* Not to wait for a pipe's writer. */
		file->fd = open(paths[i],
				O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		if (file->fd < 0)
			err = weir_error_set(errno, "%.200s: cannot open: %s",
					     paths[i], strerror(errno));
	}
	if (!err)
		return load(new, part, image);
	weir_image_close(new);
	return err;
}

int weir_image_open(const char *const *paths, size_t count, weir_image **image)
{
	int err;

	if (!paths || !image)
		return wi_invalid("weir_image_open", "a NULL argument");
	err = check_count(count);
	for (size_t i = 0; i < count && !err; i++)
		if (!paths[i])
			err = wi_invalid("weir_image_open", "a NULL path");
	return err ? err : open_paths(paths, count, false, image);
}

int weir_image_open_part(const char *path, weir_image **image)
{
	if (!path || !image)
		return wi_invalid("weir_image_open_part", "a NULL argument");
	return open_paths(&path, 1, true, image);
}

/* ---- What it is ---------------------------------------------------------- */

int wi_give(const char *function, void *to, const void *own, size_t bytes)
{
	size_t size = *(size_t *)to;

	if (size < sizeof size)
		return wi_invalid(function, "the size is not set");
	/* What this library does not know of is zero. */
	if (size > bytes) {
		memset((char *)to + bytes, 0, size - bytes);
		memcpy(to, own, bytes);
	} else {
		memcpy(to, own, size);
	}
	*(size_t *)to = size;
	return 0;
}

int weir_image_info(const weir_image *image, struct weir_image_info *info)
{
	struct weir_image_info own = {0};

	if (!image || !info)
		return wi_invalid("weir_image_info", "a NULL argument");
	memcpy(own.id, image->identity->id, sizeof own.id);
	memcpy(own.base, image->files[0].identity.base, sizeof own.base);
	own.kind = image->identity->kind;
	own.regions = image->identity->count;
	own.page = image->page;
	own.time_ns = image->files[image->count - 1].time_ns;
	return wi_give("weir_image_info", info, &own, sizeof own);
}

int weir_image_region(const weir_image *image, size_t i,
		      struct weir_image_region *region)
{
	struct weir_image_region own = {0};
	const struct wi_region *r;

	if (!image || !region)
		return wi_invalid("weir_image_region", "a NULL argument");
	if (i >= image->identity->count)
		return wi_invalid("weir_image_region", "no such region");
	r = &image->identity->regions[i];
	own.address = r->address;
	own.bytes = r->bytes;
	own.data = image->data_pages[i] * image->page;
	own.unit = r->unit;
	own.flags = r->flags;
	memcpy(own.name, r->name, sizeof own.name);
	return wi_give("weir_image_region", region, &own, sizeof own);
}
