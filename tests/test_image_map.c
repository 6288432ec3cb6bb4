/* SPDX-License-Identifier: MIT */
/* Mapping regions of snapshot files: contents, privacy, places, limits. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/image/codec.h"
#include "tests/image_make.h"

static const size_t pages[] = {1500, 1};

static weir_image *make(struct model *m, const struct feed *feed)
{
	struct bytes file = {0};
	weir_image *image;

	model_make(m, 1, pages, 2);
	m->identity.regions[0].address = (uintptr_t)free_range(pages[0] * PAGE);
	m->identity.regions[1].address = PAGE;
	/* Long runs of data, so that some are mapped. */
	for (size_t p = 100; p < 1400; p++)
		m->data[0][p * PAGE + p] |= 1;
	cr_assert_eq(model_write(m, feed, &file), 0);
	cr_assert_eq(bytes_open(&file, 1, false, &image), 0, "%s",
		     weir_error_text());
	bytes_free(&file);
	return image;
}

/* How many mappings there are of files called that. */
static size_t mappings(const char *name, size_t *all)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	size_t n = 0;

	cr_assert(f);
	*all = 0;
	while (fgets(line, sizeof line, f)) {
		++*all;
		n += strstr(line, name) != NULL;
	}
	fclose(f);
	return n;
}

static void map_and_compare(const struct feed *feed, bool from_file)
{
	struct model m;
	weir_image *image = make(&m, feed);
	void *p;
	size_t all, files;

	cr_assert_eq(weir_image_map(image, 0, NULL, &p), 0, "%s",
		     weir_error_text());
	cr_assert_eq((uintptr_t)p, m.identity.regions[0].address);
	files = mappings("memfd:image", &all);
	cr_assert_eq(files > 0, from_file, "%zu mappings of the file", files);
	cr_assert_eq(memcmp(p, m.data[0], pages[0] * PAGE), 0);
	/* Writes are the process's own. */
	memset(p, 0xaa, pages[0] * PAGE);
	cr_assert_null(model_differs(&m, image));
	/* It stays. */
	weir_image_close(image);
	cr_assert_eq(((uint8_t *)p)[pages[0] * PAGE - 1], 0xaa);
	cr_assert_eq(munmap(p, pages[0] * PAGE), 0);
	model_free(&m);
}

Test(image_map, where_it_was)
{
	map_and_compare(&(struct feed){.run = 512}, true);
	map_and_compare(&(struct feed){0}, true);
}

Test(image_map, small_runs)
{
	map_and_compare(&(struct feed){.run = 1, .batch = 1, .shuffled = true},
			false);
}

Test(image_map, compressed)
{
	if (!wi_codec_present(WEIR_CODEC_LZ4))
		cr_skip("built without lz4");
	map_and_compare(&(struct feed){.codec = WEIR_CODEC_LZ4}, false);
}

Test(image_map, elsewhere)
{
	struct model m;
	weir_image *image = make(&m, &(struct feed){.run = 512});
	void *want = free_range(pages[0] * PAGE), *p;

	cr_assert_eq(weir_image_map(image, 0, want, &p), 0);
	cr_assert_eq(p, want);
	cr_assert_eq(memcmp(p, m.data[0], pages[0] * PAGE), 0);
	cr_assert_eq(munmap(p, pages[0] * PAGE), 0);
	weir_image_close(image);
	model_free(&m);
}

Test(image_map, where_something_is)
{
	struct model m;
	weir_image *image = make(&m, &(struct feed){.run = 512});
	uint8_t *there = (uint8_t *)m.identity.regions[0].address +
			 (pages[0] - 1) * PAGE;
	void *p;

	/* In its last page. */
	cr_assert_eq(mmap(there, PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		     there);
	*there = 5;
	cr_assert_eq(weir_image_map(image, 0, NULL, &p), -EEXIST);
	cr_assert(strstr(weir_error_text(), "something is mapped"), "%s",
		  weir_error_text());
	cr_assert_eq(*there, 5);
	cr_assert_eq(munmap(there, PAGE), 0);
	cr_assert_eq(weir_image_map(image, 0, NULL, &p), 0);
	cr_assert_eq(weir_image_map(image, 0, NULL, &p), -EEXIST);
	cr_assert_eq(munmap(p, pages[0] * PAGE), 0);
	weir_image_close(image);
	model_free(&m);
}

/* Forty runs of 64 pages, each followed by zeros, when the process has hardly
 * any mappings left: all but a few are taken before. */
Test(image_map, few_mappings_left)
{
	enum { RUNS = 40, EACH = 64, LEFT = 24 };
	struct bytes file = {0};
	struct model m;
	weir_image *image;
	size_t all, taken = 0, most = 0, files;
	FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
	uint8_t *many;
	void *p;

	cr_assert(f && fscanf(f, "%zu", &most) == 1);
	fclose(f);
	if (most > 100000)
		cr_skip("vm.max_map_count is %zu", most);
	model_make(&m, 2, (size_t[]){2 * RUNS * EACH}, 1);
	m.identity.regions[0].address =
		(uintptr_t)free_range(2 * RUNS * EACH * PAGE);
	for (size_t i = 0; i < 2 * RUNS; i++)
		memset(m.data[0] + i * EACH * PAGE, i % 2 ? 0 : (int)i | 1,
		       EACH * PAGE);
	cr_assert_eq(model_write(&m, &(struct feed){.run = 512}, &file), 0);
	cr_assert_eq(bytes_open(&file, 1, false, &image), 0);

	/* Every other page of a range is another mapping. */
	many = mmap(NULL, most * PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	cr_assert_neq(many, MAP_FAILED);
	mappings("memfd:image", &all);
	while (all + taken + LEFT < most) {
		if (mprotect(many + taken * PAGE, PAGE, PROT_READ))
			break;
		taken += 2;
	}
	cr_assert_eq(weir_image_map(image, 0, NULL, &p), 0, "%s",
		     weir_error_text());
	cr_assert_eq(memcmp(p, m.data[0], 2 * RUNS * EACH * PAGE), 0);
	files = mappings("memfd:image", &all);
	cr_assert_lt(files, LEFT);
	munmap(p, 2 * RUNS * EACH * PAGE);
	munmap(many, most * PAGE);
	cr_assert_eq(weir_image_map(image, 0, NULL, &p), 0);
	cr_assert_eq(mappings("memfd:image", &all), RUNS);
	munmap(p, 2 * RUNS * EACH * PAGE);
	weir_image_close(image);
	bytes_free(&file);
	model_free(&m);
}

/* A file that was changed after it was opened: by its contents where they are
 * read, by its time where they are mapped. */
Test(image_map, a_file_that_changes)
{
	char path[] = "/tmp/weir-image-XXXXXX";
	const char *paths[] = {path};
	struct bytes file = {0};
	struct model m;
	weir_image *image;
	uint8_t page[PAGE];
	void *p;
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	model_make(&m, 3, (size_t[]){1}, 1);
	memset(m.data[0], 3, PAGE);
	cr_assert_eq(model_write(&m, &(struct feed){0}, &file), 0);
	cr_assert_eq(write(fd, file.data, file.count), (ssize_t)file.count);
	cr_assert_eq(weir_image_open(paths, 1, &image), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_image_read(image, 0, 0, page, PAGE), 0);
	usleep(20000);
	cr_assert_eq(pwrite(fd, "x", 1, 2 * PAGE + 7), 1);
	cr_assert_eq(weir_image_read(image, 0, 0, page, PAGE), -EIO);
	cr_assert(strstr(weir_error_text(), path), "%s", weir_error_text());
	cr_assert_eq(weir_image_map(image, 0, NULL, &p), -EIO);
	cr_assert_eq(ftruncate(fd, 100), 0);
	cr_assert_eq(weir_image_read(image, 0, 0, page, PAGE), -EIO);
	weir_image_close(image);
	close(fd);
	unlink(path);
	bytes_free(&file);
	model_free(&m);
}
