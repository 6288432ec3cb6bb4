/* SPDX-License-Identifier: MIT */
/*
 * weir-snap restore: each region's bytes to a plain file, sparse where they are
 * zero, which is there whole or not at all.
 */
#define _GNU_SOURCE
#include "tools/weir-snap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/image/file.h"
#include "runtime/image/output.h"

/* A chunk of the file that has pages from all over the region is read once for
 * each window that has some. */
enum { WINDOW = 64 << 20 };

static int write_at(const char *name, int fd, const uint8_t *data, size_t bytes,
		    uint64_t at)
{
	while (bytes) {
		ssize_t n = pwrite(fd, data, bytes, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return wi_output_failed(name, "write", n ? errno : EIO);
		data += n;
		bytes -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

/* Data of a window: in runs, so that what is zero stays a hole. */
static int write_window(const weir_image *image, size_t i, const char *name,
			int fd, const uint8_t *window, uint64_t from,
			size_t bytes)
{
	uint64_t at = from, end = from + bytes;

	while (at < end) {
		uint64_t start, n;
		int err = weir_image_data(image, i, at, &start, &n);

		if (err || !n || start >= end)
			return err;
		if (n > end - start)
			n = end - start;
		err = write_at(name, fd, window + (start - from), (size_t)n,
			       start);
		if (err)
			return err;
		at = start + n;
	}
	return 0;
}

static int write_region(const weir_image *image, size_t i, const char *name,
			int fd, uint64_t bytes)
{
	size_t room = bytes < WINDOW ? (size_t)bytes : WINDOW;
	uint8_t *window = malloc(room);
	uint64_t at = 0;
	int err = window ? 0 : wi_output_failed(name, "write", ENOMEM);

	if (!err && ftruncate(fd, (off_t)bytes))
		err = wi_output_failed(name, "make it long enough", errno);
	while (!err && at < bytes) {
		uint64_t n;
		size_t part;

		err = weir_image_data(image, i, at, &at, &n);
		if (err || !n)
			break;
		part = bytes - at < room ? (size_t)(bytes - at) : room;
		err = weir_image_read(image, i, at, window, part);
		if (!err)
			err = write_window(image, i, name, fd, window, at,
					   part);
		at += part;
	}
	free(window);
	return err;
}

static int restore_region(const weir_image *image, size_t i, const char *name)
{
	struct weir_image_region region = {.size = sizeof region};
	struct wi_file file;
	int err = weir_image_region(image, i, &region);

	if (!err)
		err = wi_file_create(&file, name, 0600);
	if (err)
		return err;
	err = write_region(image, i, name, file.fd, region.bytes);
	if (err) {
		wi_file_discard(&file);
		return err;
	}
	err = wi_file_commit(&file);
	if (!err)
		printf("%s: region %zu, %llu bytes\n", name, i,
		       (unsigned long long)region.bytes);
	return err;
}

int snap_restore(const char *const *paths, size_t count,
		 const struct snap_options *options)
{
	struct weir_image_info info = {.size = sizeof info};
	const char *out = options->out ? options->out : paths[count - 1];
	const char *suffix = options->out ? "" : ".raw";
	weir_image *image;
	int status = EXIT_FINE;
	int err = weir_image_open(paths, count, &image);

	if (err)
		return snap_failed(err);
	weir_image_info(image, &info);
	for (size_t i = 0; i < info.regions && !err; i++) {
		char *name = NULL;

		if (info.regions == 1
			    ? asprintf(&name, "%s%s", out, suffix) < 0
			    : asprintf(&name, "%s%s.%zu", out, suffix, i) < 0) {
			err = wi_output_failed(out, "write", ENOMEM);
			break;
		}
		err = restore_region(image, i, name);
		free(name);
	}
	/* The snapshot is good: what failed is the output. */
	if (err) {
		snap_failed(err);
		status = EXIT_TROUBLE;
	}
	weir_image_close(image);
	return status;
}
