/* SPDX-License-Identifier: MIT */
/*
 * Snapshots against a shadow copy: what is handed over is, page for page, what
 * the region held at the moment, while threads write to it at random; under
 * every barrier, policy, size of unit and way of preparing.
 */
#define _GNU_SOURCE
#include "tests/test_snapshot.h"

struct variant {
	char name[32];
	unsigned barrier;      /* enum weir_region_barrier */
	unsigned region_flags; /* WEIR_REGION_* */
	unsigned full;         /* enum weir_snapshot_full */
	unsigned writers;      /* threads */
	unsigned hot_pages;    /* see struct writers */
	size_t pool;           /* bytes */
	unsigned slow_us;      /* the sink's delay a call */
	bool prepare;          /* before begin */
	bool unprivileged;     /* as nobody */
};

#define SYNC WEIR_REGION_SYNC
#define SIGBUS_ WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES

static struct variant variants[] = {
	{"sync", SYNC, 0, WEIR_FULL_STALL, 2, 64, 8 << 20, 100, true, false},
	{"sync, not prepared", SYNC, 0, WEIR_FULL_STALL, 2, 64, 8 << 20, 100,
	 false, false},
	{"sync, one writer", SYNC, 0, WEIR_FULL_STALL, 1, 0, 8 << 20, 0, true,
	 false},
	{"sync, little pool", SYNC, 0, WEIR_FULL_STALL, 4, 0, 16 << 10, 200,
	 true, false},
	{"sync, write through", SYNC, 0, WEIR_FULL_WRITE_THROUGH, 4, 0,
	 16 << 10, 200, true, false},
	{"sync, huge", SYNC, WEIR_REGION_HUGE, WEIR_FULL_STALL, 2, 64, 8 << 20,
	 500, true, false},
	{"sync, huge, little pool", SYNC, WEIR_REGION_HUGE,
	 WEIR_FULL_WRITE_THROUGH, 3, 0, 1, 500, false, false},
	{"sync, shared", SYNC, WEIR_REGION_SHARED, WEIR_FULL_STALL, 2, 64,
	 8 << 20, 100, true, false},
	{"sync, tracked", SYNC, WEIR_REGION_TRACK, WEIR_FULL_STALL, 2, 64,
	 64 << 10, 100, true, false},
	{"sync, nobody's", SYNC, WEIR_REGION_USER_WRITES, WEIR_FULL_STALL, 2,
	 64, 8 << 20, 100, true, true},
	{"sigbus", SIGBUS_, WEIR_FULL_STALL, 2, 64, 8 << 20, 100, true, false},
	{"sigbus, nobody's", SIGBUS_, WEIR_FULL_STALL, 3, 64, 8 << 20, 100,
	 true, true},
	{"sigbus, little pool", SIGBUS_, WEIR_FULL_STALL, 4, 0, 16 << 10, 200,
	 true, true},
	{"sigbus, write through", SIGBUS_, WEIR_FULL_WRITE_THROUGH, 4, 0,
	 16 << 10, 200, false, true},
	{"sigbus, tracked", WEIR_REGION_SIGBUS,
	 WEIR_REGION_USER_WRITES | WEIR_REGION_TRACK, WEIR_FULL_STALL, 4, 0,
	 16 << 10, 200, true, true},
	{"sigbus, huge, shared", WEIR_REGION_SIGBUS,
	 WEIR_REGION_USER_WRITES | WEIR_REGION_HUGE | WEIR_REGION_SHARED,
	 WEIR_FULL_STALL, 2, 64, 8 << 20, 500, true, true},
	{"async", WEIR_REGION_ASYNC, 0, WEIR_FULL_STALL, 2, 64, 8 << 20, 0,
	 false, false},
	{"async, nobody's, little pool", WEIR_REGION_ASYNC, 0, WEIR_FULL_STALL,
	 4, 0, 16 << 10, 50, false, true},
	{"async, huge", WEIR_REGION_ASYNC, WEIR_REGION_HUGE, WEIR_FULL_STALL, 2,
	 64, 8 << 20, 0, false, true},
	{"async, shared", WEIR_REGION_ASYNC, WEIR_REGION_SHARED,
	 WEIR_FULL_STALL, 2, 64, 8 << 20, 0, false, true},
};

/* Half of the pages hold something, the rest was never touched. */
static void fill(char *p, size_t bytes)
{
	uint64_t state = 4711;

	for (size_t at = 0; at < bytes; at += 2 * PAGE)
		for (size_t i = 0; i < PAGE; i += 8)
			*(uint64_t *)(p + at + i) = random_of(&state);
}

static void once(const struct variant *v, weir_region *r, struct writers *w,
		 unsigned flags)
{
	struct weir_snapshot_options o = {
		.size = sizeof(o),
		.flags = flags,
		.kind = v->barrier == WEIR_REGION_ASYNC ? WEIR_SNAPSHOT_END
							: WEIR_SNAPSHOT_BEGIN,
		.full = v->full,
		.pool = v->pool,
		.stop = writers_stop,
		.resume = writers_resume,
		.stop_arg = w,
	};
	struct weir_snapshot_progress p;
	struct image image;
	weir_snapshot *s;

	image_open(&image, w->bytes);
	image.slow_us = v->slow_us;
	image.again = v->barrier == WEIR_REGION_ASYNC;
	must(!weir_snapshot_create(&r, 1, &o, &s));
	if (v->prepare)
		must(!weir_snapshot_prepare(s, 0));
	writers_wait(w, 100);
	must(!weir_snapshot_begin(s));
	must(!weir_snapshot_read(s, image_sink, &image));
	p = figures_of(s);
	must(p.bytes_saved == w->bytes);
	must(p.pool_peak <= p.pool_bytes);
	if (image_differs(&image, w->shadow) >= 0)
		fprintf(stderr, "%s: page %ld is not as it was\n", v->name,
			image_differs(&image, w->shadow));
	must(image_differs(&image, w->shadow) == -1);
	must(!weir_snapshot_end(s));
	image_close(&image);
	/* Nobody waits for anything any more. */
	writers_wait(w, 1000);
}

ParameterizedTestParameters(snapshot, equals_the_shadow)
{
	return cr_make_param_array(struct variant, variants,
				   sizeof(variants) / sizeof(variants[0]));
}

ParameterizedTest(struct variant *v, snapshot, equals_the_shadow)
{
	struct writers w = {.bytes = 16 * MIB, .hot_pages = v->hot_pages};
	weir_region *r;

	if (v->unprivileged)
		drop_privileges();
	r = region_of(w.bytes, v->region_flags, v->barrier);
	w.memory = memory_of(r);
	w.shadow = malloc(w.bytes);
	cr_assert(w.shadow);
	fill(w.memory, w.bytes);
	writers_start(&w, v->writers);
	for (int i = 0; i < 3; i++)
		once(v, r, &w, 0);
	writers_end(&w);
	free(w.shadow);
	cr_assert_eq(weir_region_release(r), 0, "%s", weir_error_text());
}
