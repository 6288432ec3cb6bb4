/* SPDX-License-Identifier: MIT */
/*
 * Deltas: what changed since the last snapshot, all of that and little else.
 */
#define _GNU_SOURCE
#include "tests/snapshot_scene.h"

/* What came of a delta over what was there before. */
static void apply(const struct image *m, char *whole)
{
	for (size_t p = 0; p < m->bytes / PAGE; p++)
		if (m->times[p])
			memcpy(whole + p * PAGE, m->data + p * PAGE, PAGE);
}

static size_t pages_of(const struct image *m)
{
	size_t n = 0;

	for (size_t p = 0; p < m->bytes / PAGE; p++)
		n += m->times[p] != 0;
	return n;
}

static void chain(unsigned barrier, unsigned flags)
{
	struct weir_snapshot_identity id = {.size = sizeof(id)}, last;
	static const uint8_t none[16];
	char *whole = malloc(BYTES);
	struct scene c;
	uint64_t state = 5;

	cr_assert(whole);
	scene_open(&c, barrier, flags | WEIR_REGION_TRACK);
	c.options.flags = WEIR_SNAPSHOT_DELTA;
	c.image.again = barrier == WEIR_REGION_ASYNC;
	if (barrier == WEIR_REGION_ASYNC) {
		c.options.kind = WEIR_SNAPSHOT_END;
		c.options.stop = (int (*)(void *))writers_stop;
		c.options.resume = nothing;
	}
	for (int i = 0; i < 6; i++) {
		struct writers none_to_stop = {.memory = c.memory,
					       .bytes = BYTES};
		bool whole_one;
		size_t pages;

		last = id;
		c.options.stop_arg = &none_to_stop;
		memcpy(c.shadow, c.memory, BYTES);
		scene_snapshot(&c);
		if (i % 2)
			cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), 0);
		cr_assert_eq(weir_snapshot_begin(c.snapshot), 0);
		/* After the moment: in the next one. */
		if (barrier != WEIR_REGION_ASYNC)
			c.memory[(size_t)i * PAGE + 1]++;
		cr_assert_eq(
			weir_snapshot_read(c.snapshot, image_sink, &c.image), 0,
			"%s", weir_error_text());
		cr_assert_eq(weir_snapshot_identity(c.snapshot, &id), 0);
		whole_one = !i || (i == 4 && barrier == WEIR_REGION_ASYNC);
		cr_assert(!memcmp(id.base, whole_one ? none : last.id, 16));
		/* One that does not count: the next has all of it again. */
		if (i == 3) {
			cr_assert_eq(weir_snapshot_abort(c.snapshot), 0);
			cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);
			id = last;
			renew(&c.image);
			c.image.again = barrier == WEIR_REGION_ASYNC;
			continue;
		}
		cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
		apply(&c.image, whole);
		cr_assert(!memcmp(whole, c.shadow, BYTES), "round %d", i);
		pages = pages_of(&c.image);
		if (whole_one)
			cr_assert_eq(pages, BYTES / PAGE);
		else
			cr_assert_leq(pages, 250, "round %d: %zu pages", i,
				      pages);
		renew(&c.image);
		c.image.again = barrier == WEIR_REGION_ASYNC;
		for (int k = 0; k < 100; k++)
			c.memory[random_of(&state) % BYTES]++;
	}
	free(whole);
	scene_close(&c);
}

Test(snapshot_delta, deltas_under_sync)
{
	chain(WEIR_REGION_SYNC, 0);
}

Test(snapshot_delta, deltas_under_sigbus)
{
	chain(WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES);
}

Test(snapshot_delta, deltas_under_async)
{
	chain(WEIR_REGION_ASYNC, 0);
}

/* A page that was given back, and written again, has changed: also when the
 * listener is slow to apply what it has read. */
Test(snapshot_delta, given_back_and_written_is_in_the_delta)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO,
		   WEIR_REGION_TRACK | WEIR_REGION_USER_WRITES);
	c.options.flags = WEIR_SNAPSHOT_DELTA;
	c.options.pool = MIB;
	for (int i = 0; i < rounds(300); i++) {
		size_t page = (size_t)i % 50;

		scene_snapshot(&c);
		must(!weir_snapshot_prepare(c.snapshot, 0));
		must(!weir_region_discard(c.region, c.memory + page * PAGE,
					  PAGE));
		c.memory[page * PAGE] = (char)(i | 1);
		must(!weir_snapshot_begin(c.snapshot));
		renew(&c.image);
		must(!weir_snapshot_read(c.snapshot, image_sink, &c.image));
		must(c.image.times[page] == 1);
		must(c.image.data[page * PAGE] == (char)(i | 1));
		must(!weir_snapshot_end(c.snapshot));
	}
	scene_close(&c);
}

/* ---- Holes --------------------------------------------------------------- */

/* What the stop of a delta under async has to do with a region that is mostly
 * holes: only with pages that were written, or given back. */
struct sparse {
	char *memory;         /* of the region */
	size_t bytes;         /* of it */
	unsigned calls;       /* of the sink, when the writers were stopped */
	struct image *image;  /* what was handed over */
	int advice;           /* that gives memory back */
	bool give_back;       /* page 1, in the stop */
	unsigned stop_sinked; /* calls of the sink in the stop */
};

static int sparse_stop(void *arg)
{
	struct sparse *s = arg;

	if (s->give_back)
		must(!madvise(s->memory + PAGE, PAGE, s->advice));
	s->calls = s->image->calls;
	return 0;
}

static void sparse_resume(void *arg)
{
	struct sparse *s = arg;

	s->stop_sinked = s->image->calls - s->calls;
}

static void sparse_snapshot(struct sparse *s, weir_region *r)
{
	struct weir_snapshot_options o = {
		.size = sizeof(o),
		.kind = WEIR_SNAPSHOT_END,
		.flags = WEIR_SNAPSHOT_DELTA,
		.pool = 1 << 20,
		.stop = sparse_stop,
		.resume = sparse_resume,
		.stop_arg = s,
	};
	weir_snapshot *snapshot;

	image_close(s->image);
	image_open(s->image, s->bytes);
	s->image->again = true;
	must(!weir_snapshot_create(&r, 1, &o, &snapshot));
	must(!weir_snapshot_begin(snapshot));
	must(!weir_snapshot_read(snapshot, image_sink, s->image));
	must(!weir_snapshot_end(snapshot));
}

/* Tracked, under async, with an image to go with it. */
static weir_region *sparse_region(struct sparse *s, unsigned flags,
				  size_t limit)
{
	struct weir_region_options o = {
		.size = sizeof(o),
		.barrier = WEIR_REGION_ASYNC,
		.flags = WEIR_REGION_TRACK | flags,
	};
	weir_region *r;
	int err = weir_region_reserve(s->bytes, limit, &o, &r);

	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	s->memory = memory_of(r);
	image_open(s->image, s->bytes);
	return r;
}

static unsigned kinds_of_memory[] = {0, WEIR_REGION_HUGE | WEIR_REGION_PAGES,
				     WEIR_REGION_SHARED};

ParameterizedTestParameters(snapshot_delta, async_holes_cost_no_stop)
{
	return cr_make_param_array(unsigned, kinds_of_memory, 3);
}

ParameterizedTest(unsigned *flags, snapshot_delta, async_holes_cost_no_stop)
{
	struct image image;
	struct sparse s = {.bytes = 64 * MIB,
			   .image = &image,
			   .advice = *flags & WEIR_REGION_SHARED
					     ? MADV_REMOVE
					     : MADV_DONTNEED};
	weir_region *r = sparse_region(&s, *flags, s.bytes + 2 * MIB);

	memset(s.memory, 1, 8 * PAGE);
	sparse_snapshot(&s, r);
	cr_assert_eq(pages_of(&image), s.bytes / PAGE);
	/* All of it may be given back: that makes holes where there was nothing
	 * but zero. */
	cr_assert(!madvise(s.memory + MIB, 63 * MIB, s.advice));

	/* One that was written, two that are no more, one of them in the
	 * stop. */
	s.memory[3 * PAGE] = 2;
	cr_assert_eq(weir_region_discard(r, s.memory, PAGE), 0);
	s.give_back = true;
	sparse_snapshot(&s, r);
	cr_assert_eq(pages_of(&image), 3, "%zu pages", pages_of(&image));
	cr_assert(image.times[0] && image.times[1] && image.times[3]);
	cr_assert_eq(image.data[0], 0);
	cr_assert_eq(image.data[PAGE], 0);
	cr_assert_eq(image.data[3 * PAGE], 2);
	cr_assert_eq(s.stop_sinked, 0);

	/* Nothing; then what it has grown by, though that is a hole. */
	s.give_back = false;
	sparse_snapshot(&s, r);
	cr_assert_leq(pages_of(&image), 3);
	cr_assert_eq(weir_region_grow(r, s.bytes + 2 * MIB), 0);
	s.bytes += 2 * MIB;
	sparse_snapshot(&s, r);
	cr_assert(image.times[s.bytes / PAGE - 1]);
	cr_assert_eq(image.data[s.bytes - 1], 0);
	cr_assert_leq(pages_of(&image), 2 * MIB / PAGE);
	image_close(&image);
	cr_assert_eq(weir_region_release(r), 0);
}

/* What the page table has no entries for, as where a huge page was. */
ParameterizedTestParameters(snapshot_delta, a_huge_page_is_given_back)
{
	return cr_make_param_array(unsigned, kinds_of_memory, 3);
}

ParameterizedTest(unsigned *flags, snapshot_delta, a_huge_page_is_given_back)
{
	struct image image;
	struct sparse s = {.bytes = 8 * MIB, .image = &image};
	weir_region *r = sparse_region(&s, *flags, s.bytes);
	size_t at, lost = 0;

	at = -(uintptr_t)s.memory & (2 * MIB - 1);
	memset(s.memory, 1, s.bytes);
	sparse_snapshot(&s, r);
	cr_assert_eq(weir_region_discard(r, s.memory + at, 2 * MIB), 0);
	/* One of them is there again, but only read. */
	if (*flags & WEIR_REGION_SHARED)
		cr_assert_eq(s.memory[at], 0);
	sparse_snapshot(&s, r);
	for (size_t p = at; p < at + 2 * MIB; p += PAGE)
		lost += !image.times[p / PAGE] || image.data[p];
	cr_assert_eq(lost, 0, "%zu pages are missing", lost);
	cr_assert_eq(pages_of(&image), 2 * MIB / PAGE);
	image_close(&image);
	cr_assert_eq(weir_region_release(r), 0);
}
