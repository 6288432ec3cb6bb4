/* SPDX-License-Identifier: MIT */
/*
 * What the tests of snapshots out of the ordinary share: a region with
 * something in each page, its shadow, and a snapshot of it.
 */
#ifndef WEIR_TESTS_SNAPSHOT_SCENE_H
#define WEIR_TESTS_SNAPSHOT_SCENE_H

#include "tests/test_snapshot.h"

#define BYTES (4 * MIB)

struct scene {
	weir_region *region;
	char *memory; /* of it */
	char *shadow; /* what it held */
	struct weir_snapshot_options options;
	weir_snapshot *snapshot;
	struct image image;
};

/* A region with something in each page, and a snapshot of it not yet begun. */
static inline void scene_open(struct scene *c, unsigned barrier, unsigned flags)
{
	uint64_t state = 99;

	*c = (struct scene){.options = {.size = sizeof(c->options)}};
	c->region = region_of(BYTES, flags, barrier);
	c->memory = memory_of(c->region);
	c->shadow = malloc(BYTES);
	cr_assert(c->shadow);
	for (size_t i = 0; i < BYTES; i += 8)
		*(uint64_t *)(c->memory + i) = random_of(&state);
	memcpy(c->shadow, c->memory, BYTES);
	image_open(&c->image, BYTES);
}

static inline void scene_snapshot(struct scene *c)
{
	cr_assert_eq(
		weir_snapshot_create(&c->region, 1, &c->options, &c->snapshot),
		0, "%s", weir_error_text());
}

static inline void scene_begin(struct scene *c)
{
	scene_snapshot(c);
	cr_assert_eq(weir_snapshot_begin(c->snapshot), 0, "%s",
		     weir_error_text());
}

static inline void scene_read(struct scene *c)
{
	cr_assert_eq(weir_snapshot_read(c->snapshot, image_sink, &c->image), 0,
		     "%s", weir_error_text());
	cr_assert_eq(image_differs(&c->image, c->shadow), -1);
}

static inline void scene_close(struct scene *c)
{
	image_close(&c->image);
	free(c->shadow);
	cr_assert_eq(weir_region_release(c->region), 0, "%s",
		     weir_error_text());
}

/* Nothing of the region is protected: a write to every page is quick, and no
 * thread of the library has to hear of it. */
static inline void all_writable(struct scene *c)
{
	for (size_t at = 0; at < BYTES; at += PAGE)
		c->memory[at]++;
}

struct manner {
	unsigned barrier;
	unsigned flags;
};

__attribute__((unused)) static struct manner manners[] = {
	{WEIR_REGION_SYNC, 0},
	{WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES},
};

#define MANNERS() cr_make_param_array(struct manner, manners, 2)

/* A resume, and where there is nobody to stop. */
static inline void nothing(void *arg)
{
	(void)arg;
}

/* The image, as if nothing had been handed over. */
static inline void renew(struct image *m)
{
	image_close(m);
	image_open(m, BYTES);
}

#endif
