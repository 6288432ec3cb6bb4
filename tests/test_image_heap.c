/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of a heap through files and back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <weir/image.h>

#include "tests/heap_util.h"
#include "tests/must.h"

static void *root[2];

static weir_heap_snapshot *make(void)
{
	weir_heap_snapshot *s;

	heap_open(NULL);
	cr_assert_eq(weir_root_add(heap, root, sizeof(root)), 0);
	for (int i = 0; i < 5000; i++) {
		uint64_t *p = i % 2 ? weir_alloc(self, 200)
				    : weir_alloc_leaf(self, 3000);

		if (i % 2) {
			p[0] = (uintptr_t)root[0];
			p[1] = (uintptr_t)root[1];
			root[0] = p;
		} else {
			root[1] = p;
		}
		for (int k = 2; k < 25; k++)
			p[k] = (uint64_t)i * 1000 + (uint64_t)k;
	}
	cr_assert_eq(weir_heap_snapshot_take(heap, &s), 0, "%s",
		     weir_error_text());
	heap_close();
	return s;
}

struct back {
	struct weir_image_region region[2];
	char *data[2];  /* of these, out of the image */
	uint64_t bytes; /* compared */
};

static int same(const struct weir_heap_object *o, void *arg)
{
	struct back *b = arg;

	for (size_t i = 0; i < 2; i++) {
		uint64_t at = (uintptr_t)o->address - b->region[i].address;

		if (at >= b->region[i].bytes)
			continue;
		must(o->bytes <= b->region[i].bytes - at);
		b->bytes += o->bytes;
		return memcmp(b->data[i] + at, o->data, o->bytes);
	}
	return 1;
}

static void there_and_back(unsigned codec)
{
	struct weir_heap_snapshot_info info = {.size = sizeof(info)};
	struct weir_image_options o = {.size = sizeof(o), .codec = codec};
	char path[] = "/tmp/weir-image-heap.XXXXXX";
	const char *paths[] = {path};
	struct back b = {.bytes = 0};
	weir_heap_snapshot *s = make();
	struct weir_image_info ii = {.size = sizeof(ii)};
	weir_image *image;
	int fd = mkstemp(path), err;

	cr_assert_geq(fd, 0);
	close(fd);
	err = weir_image_write_heap(s, path, &o);
	if (err == -ENOTSUP) {
		unlink(path);
		cr_skip("%s", weir_error_text());
	}
	cr_assert_eq(err, 0, "%s", weir_error_text());
	/* Once more: nothing has changed in it. */
	cr_assert_eq(weir_image_write_heap(s, path, &o), 0);
	cr_assert_eq(weir_image_open(paths, 1, &image), 0, "%s",
		     weir_error_text());
	unlink(path);
	cr_assert_eq(weir_image_info(image, &ii), 0);
	cr_assert(ii.regions == 2 && ii.kind == WEIR_SNAPSHOT_END);
	for (size_t i = 0; i < 2; i++) {
		b.region[i].size = sizeof(b.region[i]);
		cr_assert_eq(weir_image_region(image, i, &b.region[i]), 0);
		b.data[i] = malloc(b.region[i].bytes);
		cr_assert(b.data[i]);
		cr_assert_eq(weir_image_read(image, i, 0, b.data[i],
					     b.region[i].bytes),
			     0, "%s", weir_error_text());
	}
	cr_assert_eq(weir_heap_snapshot_each(s, same, &b), 0);
	cr_assert_eq(weir_heap_snapshot_info(s, &info), 0);
	cr_assert_eq(b.bytes, info.bytes);
	cr_assert_gt(b.bytes, 5000 * 1600);
	for (size_t i = 0; i < 2; i++)
		free(b.data[i]);
	weir_image_close(image);
	weir_heap_snapshot_free(s);
}

Test(image_heap, plain, .timeout = 60)
{
	there_and_back(WEIR_CODEC_NONE);
}

Test(image_heap, zstd, .timeout = 60)
{
	there_and_back(WEIR_CODEC_ZSTD);
}

Test(image_heap, an_error_leaves_it_as_it_is, .timeout = 60)
{
	weir_heap_snapshot *s = make();

	cr_assert_eq(weir_image_write_heap_fd(s, -1, NULL), -EBADF);
	cr_assert_eq(weir_image_write_heap(s, "/nowhere/at/all", NULL),
		     -ENOENT);
	cr_assert_eq(weir_image_write_heap(s, "/dev/null", NULL), -EINVAL);
	weir_heap_snapshot_free(s);
}
