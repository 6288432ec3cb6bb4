/* SPDX-License-Identifier: MIT */
/*
 * An arena of jemalloc's in a region: what malloc() gave lies there, snapshots
 * of it are of one moment while threads allocate and free, and no page is given
 * back meanwhile.
 */
#define _GNU_SOURCE
#include <jemalloc/jemalloc.h>
#include <stdio.h>

#include <weir/jemalloc.h>

#include "tests/test_snapshot.h"

#define LIMIT (64 * MIB)
#define SLOTS 2000

static weir_arena *arena_of(unsigned flags)
{
	struct weir_region_options o = {.size = sizeof(o), .flags = flags};
	weir_arena *a = NULL;
	int err = weir_arena_create(LIMIT, &o, &a);

	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	return a;
}

Test(jemalloc, allocates_in_the_region)
{
	weir_arena *a = arena_of(0);
	struct weir_region_info info = {.size = sizeof(info)};
	char *p, *q;

	cr_assert_eq(weir_region_info(weir_arena_region(a), &info), 0);
	p = weir_arena_malloc(a, 100);
	cr_assert(p >= (char *)info.address &&
		  p < (char *)info.address + info.bytes);
	cr_assert_geq(weir_arena_usable_size(a, p), 100);
	memset(p, 1, 100);
	q = weir_arena_realloc(a, p, 10 * MIB);
	cr_assert(q && q[99] == 1);
	p = weir_arena_calloc(a, MIB, 2);
	for (size_t i = 0; i < 2 * MIB; i++)
		cr_assert_eq(p[i], 0);
	weir_arena_free(a, p);
	weir_arena_free(a, q);
	weir_arena_free(a, NULL);
	p = weir_arena_realloc(a, NULL, 0);
	cr_assert(p);
	errno = 0;
	cr_assert_null(weir_arena_malloc(a, LIMIT + 1));
	cr_assert_eq(errno, ENOMEM);
	errno = 0;
	cr_assert_null(weir_arena_calloc(a, SIZE_MAX, 2));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(weir_arena_destroy(a), 0, "%s", weir_error_text());
	cr_assert_eq(weir_arena_destroy(NULL), 0);
}

struct churn {
	weir_arena *arena;
	char *slot[SLOTS]; /* first 8 bytes: size, then one byte repeated */
	int quiet, parked, end; /* atomic, as in struct writers */
	uint64_t turns;         /* atomic */
};

static void *churn_main(void *arg)
{
	struct churn *c = arg;
	uint64_t state = 77;

	while (!__atomic_load_n(&c->end, __ATOMIC_SEQ_CST)) {
		size_t i = random_of(&state) % SLOTS, n;

		if (__atomic_load_n(&c->quiet, __ATOMIC_SEQ_CST)) {
			__atomic_store_n(&c->parked, 1, __ATOMIC_SEQ_CST);
			while (__atomic_load_n(&c->quiet, __ATOMIC_SEQ_CST))
				sched_yield();
			__atomic_store_n(&c->parked, 0, __ATOMIC_SEQ_CST);
		}
		n = 16 + random_of(&state) % (i % 50 ? 500 : 60000);
		weir_arena_free(c->arena, c->slot[i]);
		c->slot[i] = weir_arena_malloc(c->arena, n);
		must(c->slot[i]);
		memset(c->slot[i], (int)(i % 251), n);
		memcpy(c->slot[i], &n, sizeof(n));
		__atomic_fetch_add(&c->turns, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static int churn_stop(void *arg)
{
	struct churn *c = arg;

	__atomic_store_n(&c->quiet, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&c->parked, __ATOMIC_SEQ_CST))
		sched_yield();
	return 0;
}

static void churn_resume(void *arg)
{
	struct churn *c = arg;

	__atomic_store_n(&c->quiet, 0, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&c->parked, __ATOMIC_SEQ_CST))
		sched_yield();
}

/* The slots as they were, in the image. */
static void check_image(const struct image *m, char *const *slots,
			const char *start)
{
	for (size_t i = 0; i < SLOTS; i++) {
		const char *p;
		size_t n;

		if (!slots[i])
			continue;
		p = m->data + (slots[i] - start);
		memcpy(&n, p, sizeof(n));
		must(n >= 16 && n <= 60016);
		for (size_t k = sizeof(n); k < n; k++)
			must(p[k] == (char)(i % 251));
	}
}

struct moment {
	struct churn *churn;
	char *slot[SLOTS]; /* as they were */
};

static int note_moment(void *arg)
{
	struct moment *m = arg;
	int err = churn_stop(m->churn);

	memcpy(m->slot, m->churn->slot, sizeof(m->slot));
	return err;
}

static void end_moment(void *arg)
{
	churn_resume(((struct moment *)arg)->churn);
}

static size_t resident(const char *start, size_t bytes)
{
	unsigned char seen[LIMIT / 4096];
	size_t n = 0;

	must(!mincore((void *)start, bytes, seen));
	for (size_t i = 0; i < bytes / PAGE; i++)
		n += seen[i] & 1;
	return n * PAGE;
}

static void purge(const weir_arena *a)
{
	char name[48];

	snprintf(name, sizeof(name), "arena.%d.purge",
		 (weir_arena_flags(a) >> 20) - 1);
	must(!mallctl(name, NULL, NULL, NULL, 0));
}

Test(jemalloc, snapshots_of_what_is_in_use)
{
	static struct churn churn;
	static struct moment moment = {.churn = &churn};
	weir_arena *a = arena_of(0);
	weir_region *r = weir_arena_region(a);
	struct weir_snapshot_options o = {
		.size = sizeof(o),
		.stop = note_moment,
		.resume = end_moment,
		.stop_arg = &moment,
	};
	struct weir_region_info info;
	pthread_t thread;

	churn.arena = a;
	must(!pthread_create(&thread, NULL, churn_main, &churn));
	for (int i = 0; i < 4; i++) {
		uint64_t turns =
			__atomic_load_n(&churn.turns, __ATOMIC_RELAXED);
		struct image image;
		weir_snapshot *s;

		while (__atomic_load_n(&churn.turns, __ATOMIC_RELAXED) <
		       turns + 5000)
			sched_yield();
		must(!weir_snapshot_create(&r, 1, &o, &s));
		must(!weir_snapshot_prepare(s, 0));
		must(!weir_snapshot_begin(s));
		info.size = sizeof(info);
		must(!weir_snapshot_region(s, 0, &info));
		image_open(&image, info.bytes);
		image.slow_us = 300;
		purge(a); /* refused, or the snapshot would fail or stall */
		must(!weir_snapshot_read(s, image_sink, &image));
		check_image(&image, moment.slot, info.address);
		must(weir_arena_destroy(a) == -EBUSY);
		must(!weir_snapshot_end(s));
		image_close(&image);
	}
	__atomic_store_n(&churn.end, 1, __ATOMIC_SEQ_CST);
	must(!pthread_join(thread, NULL));
	cr_assert_eq(weir_arena_destroy(a), 0, "%s", weir_error_text());
}

Test(jemalloc, memory_goes_back_but_not_during_a_snapshot)
{
	weir_arena *a = arena_of(0);
	weir_region *r = weir_arena_region(a);
	struct weir_region_info info = {.size = sizeof(info)};
	weir_snapshot *s;
	size_t before;
	char *p;

	p = weir_arena_malloc(a, 16 * MIB);
	cr_assert(p);
	memset(p, 1, 16 * MIB);
	cr_assert_eq(weir_region_info(r, &info), 0);
	cr_assert_eq(weir_snapshot_create(&r, 1, NULL, &s), 0);
	cr_assert_eq(weir_snapshot_begin(s), 0);
	weir_arena_free(a, p);
	purge(a);
	before = resident(info.address, info.bytes);
	cr_assert_geq(before, 16 * MIB);
	cr_assert_eq(weir_snapshot_end(s), -ECANCELED);
	/* jemalloc has noted the pages as dirty, for another try. */
	p = weir_arena_malloc(a, 16 * MIB);
	cr_assert(p);
	weir_arena_free(a, p);
	purge(a);
	cr_assert_lt(resident(info.address, info.bytes), before / 4);
	cr_assert_eq(weir_arena_destroy(a), 0, "%s", weir_error_text());
}
