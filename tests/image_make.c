/* SPDX-License-Identifier: MIT */
/* Snapshot files for tests; see image_make.h. */
#define _GNU_SOURCE
#include "tests/image_make.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <weir/embed.h>

#include "tests/must.h"

uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

static void *get_memory(size_t bytes)
{
	void *p = calloc(1, bytes ? bytes : 1);

	must(p);
	return p;
}

void *free_range(size_t bytes)
{
	/* The kernel gives out the highest first: the lowest stay free. */
	size_t more = (size_t)4 << 30;
	void *p = mmap(NULL, bytes + more, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must(p != MAP_FAILED && !munmap(p, bytes + more));
	return p;
}

/* ---- Bytes --------------------------------------------------------------- */

int bytes_output(void *arg, struct iovec *iov, int count)
{
	struct bytes *b = arg;

	if (++b->calls == b->failing)
		return weir_error_set(b->err, "planted: %s", strerror(b->err));
	for (int i = 0; i < count; i++) {
		size_t need = b->count + iov[i].iov_len;

		if (need > b->room) {
			b->room = need + need / 2;
			b->data = realloc(b->data, b->room);
			must(b->data);
		}
		memcpy(b->data + b->count, iov[i].iov_base, iov[i].iov_len);
		b->count = need;
	}
	return 0;
}

void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

int bytes_open(const struct bytes *files, size_t count, bool part,
	       weir_image **image)
{
	int fds[8];
	const char *names[8];

	must(count <= 8);
	for (size_t i = 0; i < count; i++) {
		fds[i] = memfd_create("image", MFD_CLOEXEC);
		must(fds[i] >= 0);
		for (size_t at = 0; at < files[i].count;) {
			ssize_t n = write(fds[i], files[i].data + at,
					  files[i].count - at);

			must(n > 0);
			at += (size_t)n;
		}
		names[i] = "image";
	}
	return wi_image_load(fds, names, count, part, image);
}

/* ---- Models -------------------------------------------------------------- */

static void fill_page(struct model *m, uint8_t *page)
{
	uint64_t r = random_next(&m->random);

	memset(page, 0, PAGE);
	switch (r % 8) {
	case 0:
	case 1:
	case 2: /* zero */
		break;
	case 3: /* all but one byte of it */
		page[r >> 8 & (PAGE - 1)] = (uint8_t)(r >> 32 | 1);
		break;
	case 4:
	case 5: /* noise */
		for (size_t i = 0; i < PAGE; i += 8) {
			r = random_next(&m->random);
			memcpy(page + i, &r, 8);
		}
		break;
	default: /* a pattern */
		for (size_t i = 0; i < PAGE; i++)
			page[i] = (uint8_t)(r >> i % 5 * 8);
	}
}

static void new_id(struct model *m)
{
	for (size_t i = 0; i < 16; i += 8) {
		uint64_t r = random_next(&m->random);

		memcpy(m->identity.id + i, &r, 8);
	}
}

size_t model_pages(const struct model *m, size_t region)
{
	return m->identity.regions[region].bytes / PAGE;
}

void model_make(struct model *m, uint64_t seed, const size_t *pages,
		size_t count)
{
	memset(m, 0, sizeof *m);
	m->random = seed * 0x9e3779b97f4a7c15u + 1;
	m->identity.page = PAGE;
	m->identity.count = (uint32_t)count;
	new_id(m);
	for (size_t i = 0; i < count; i++) {
		struct wi_region *r = &m->identity.regions[i];

		r->address = ((uint64_t)i + 1) << 40;
		r->bytes = pages[i] * PAGE;
		r->unit = PAGE;
		snprintf(r->name, sizeof r->name, "region %zu", i);
		m->data[i] = get_memory(r->bytes);
		m->changed[i] = get_memory(pages[i]);
		for (size_t p = 0; p < pages[i]; p++) {
			fill_page(m, m->data[i] + p * PAGE);
			m->changed[i][p] = true;
		}
	}
}

void model_change(struct model *m, unsigned one_of)
{
	memcpy(m->identity.base, m->identity.id, 16);
	new_id(m);
	for (size_t i = 0; i < m->identity.count; i++) {
		for (size_t p = 0; p < model_pages(m, i); p++) {
			m->changed[i][p] =
				random_next(&m->random) % one_of == 0;
			if (m->changed[i][p])
				fill_page(m, m->data[i] + p * PAGE);
		}
	}
}

void model_grow(struct model *m, size_t region, size_t pages)
{
	size_t old = model_pages(m, region);

	m->identity.regions[region].bytes += pages * PAGE;
	m->data[region] = realloc(m->data[region], (old + pages) * PAGE);
	m->changed[region] = realloc(m->changed[region], old + pages);
	must(m->data[region] && m->changed[region]);
	for (size_t p = old; p < old + pages; p++) {
		fill_page(m, m->data[region] + p * PAGE);
		m->changed[region][p] = true;
	}
}

void model_free(struct model *m)
{
	for (size_t i = 0; i < m->identity.count; i++) {
		free(m->data[i]);
		free(m->changed[i]);
	}
}

/* ---- Writing ------------------------------------------------------------- */

static bool page_is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

/* All runs of the model, as the engine could hand them over. */
static size_t make_runs(struct model *m, const struct feed *feed,
			struct weir_snapshot_run *runs)
{
	size_t n = 0;

	for (size_t i = 0; i < m->identity.count; i++) {
		size_t pages = model_pages(m, i);

		for (size_t p = 0, end; p < pages; p = end) {
			const uint8_t *data = m->data[i] + p * PAGE;
			bool zero = page_is_zero(data) && !feed->zero_as_data;
			size_t most = feed->run ? feed->run : 512;

			end = p + 1;
			if (!m->changed[i][p])
				continue;
			if (!feed->run)
				most = 1 + random_next(&m->random) % 512;
			while (end < pages && end - p < most &&
			       m->changed[i][end] &&
			       (feed->zero_as_data ||
				page_is_zero(m->data[i] + end * PAGE) == zero))
				end++;
			runs[n++] = (struct weir_snapshot_run){
				.region = i,
				.offset = p * PAGE,
				.bytes = (end - p) * PAGE,
				.data = zero ? NULL : data,
			};
		}
	}
	for (size_t i = n; feed->shuffled && i > 1; i--) {
		size_t j = random_next(&m->random) % i;
		struct weir_snapshot_run swap = runs[j];

		runs[j] = runs[i - 1];
		runs[i - 1] = swap;
	}
	return n;
}

/* Pages that are told again later. */
static int tell_wrong(struct model *m, const struct feed *feed,
		      struct wi_writer *w)
{
	uint8_t page[PAGE];
	int err = 0;

	for (size_t i = 0; i < feed->again && !err; i++) {
		size_t region = random_next(&m->random) % m->identity.count;
		size_t p = random_next(&m->random) % model_pages(m, region);
		struct weir_snapshot_run run = {
			.region = region,
			.offset = p * PAGE,
			.bytes = PAGE,
			.data = i % 3 ? page : NULL,
		};

		if (!m->changed[region][p])
			continue;
		memset(page, (int)i | 1, sizeof page);
		err = wi_writer_add(w, &run, 1);
	}
	return err;
}

int model_write(struct model *m, const struct feed *feed, struct bytes *to)
{
	struct weir_image_options options = {
		.size = sizeof options,
		.codec = feed->codec,
		.level = feed->level,
	};
	struct weir_snapshot_run *runs;
	struct wi_writer *w;
	size_t n = 0, some;
	int err;

	for (size_t i = 0; i < m->identity.count; i++)
		n += model_pages(m, i);
	runs = get_memory(n * sizeof *runs);
	err = wi_writer_create(&m->identity, &options, bytes_output, to, &w);
	if (err) {
		free(runs);
		return err;
	}
	err = tell_wrong(m, feed, w);
	n = make_runs(m, feed, runs);
	for (size_t i = 0; i < n && !err; i += some) {
		size_t bytes = 0;

		/* No call has more than 2 MiB. */
		for (some = 0; i + some < n && bytes < 1 << 20; some++) {
			if (feed->batch && some == feed->batch)
				break;
			bytes += runs[i + some].bytes;
		}
		err = wi_writer_add(w, runs + i, some);
	}
	if (!err)
		err = wi_writer_finish(w, 1234567890);
	wi_writer_destroy(w);
	free(runs);
	return err;
}

/* ---- Comparing ----------------------------------------------------------- */

static const char *region_differs(const struct model *m,
				  const weir_image *image, size_t i,
				  uint8_t *read)
{
	static _Thread_local char text[600];
	struct weir_image_region r = {.size = sizeof r};
	const struct wi_region *want = &m->identity.regions[i];
	uint64_t data = 0;

	if (weir_image_region(image, i, &r) || r.bytes != want->bytes ||
	    r.address != want->address || r.unit != want->unit ||
	    strcmp(r.name, want->name))
		return "a region is another";
	memset(read, 0x55, want->bytes);
	if (weir_image_read(image, i, 0, read, want->bytes)) {
		snprintf(text, sizeof text, "%s", weir_error_text());
		return text;
	}
	for (size_t p = 0; p < want->bytes / PAGE; p++) {
		data += page_is_zero(m->data[i] + p * PAGE) ? 0 : PAGE;
		if (memcmp(read + p * PAGE, m->data[i] + p * PAGE, PAGE)) {
			snprintf(text, sizeof text,
				 "region %zu, page %zu differs", i, p);
			return text;
		}
	}
	return data == r.data ? NULL : "the pages with data are miscounted";
}

const char *model_differs(const struct model *m, const weir_image *image)
{
	struct weir_image_info info = {.size = sizeof info};
	const char *what = NULL;

	if (weir_image_info(image, &info) ||
	    info.regions != m->identity.count || info.page != PAGE ||
	    memcmp(info.id, m->identity.id, 16) || info.time_ns != 1234567890)
		return "the image says other things of itself";
	for (size_t i = 0; i < m->identity.count && !what; i++) {
		uint8_t *read = get_memory(m->identity.regions[i].bytes);

		what = region_differs(m, image, i, read);
		free(read);
	}
	return what;
}
