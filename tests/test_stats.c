/* SPDX-License-Identifier: MIT */
/* What weir_heap_stats() tells agrees with itself and with what was done. */
#include <pthread.h>
#include <stdlib.h>

#include "tests/heap_util.h"
#include "tests/short.h"

static uint64_t sum(const struct weir_histogram *h)
{
	uint64_t n = 0;

	for (int i = 0; i < WEIR_HISTOGRAM_BUCKETS; i++)
		n += h->bucket[i];
	return n;
}

/* With nothing under way that adds to it. */
static void check_histogram(const struct weir_histogram *h, const char *name)
{
	unsigned top = 0;

	cr_assert_eq(sum(h), h->count, "%s", name);
	cr_assert_leq(h->max_ns, h->total_ns, "%s", name);
	if (!h->count)
		return;
	cr_assert_leq(h->total_ns / h->count, h->max_ns, "%s", name);
	for (unsigned i = 0; i < WEIR_HISTOGRAM_BUCKETS; i++)
		if (h->bucket[i])
			top = i;
	cr_assert_geq(h->max_ns, top ? 1ull << top : 0, "%s", name);
	cr_assert_lt(h->max_ns >> top, 2, "%s", name);
}

static bool stop;

Test(stats, histograms_agree)
{
	pthread_t t[2];
	struct weir_stats s;
	uint64_t cycles = 0;

	heap_open("heap-min=1m");
	need_barrier(heap);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, allocate_until, &stop),
			     0);
	/* A thread that runs when a cycle comes has its handshake: sooner or
	 * later one does. */
	for (int i = 0; i < 20 || heap_stats().handshake.count < 3; i++)
		cr_assert_eq(weir_collect(heap, i % 2 ? WEIR_COLLECT_FULL
						      : WEIR_COLLECT_MINOR),
			     0);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	/* One more: what was under way before is over when it is. */
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	s = heap_stats();
	cycles = s.cycles_full + s.cycles_minor;
	cr_assert_geq(cycles, 21);
	cr_assert_geq(s.pause.count, cycles);
	cr_assert_eq(s.pause.count, s.stop.count);
	cr_assert_geq(s.pause.total_ns, s.stop.total_ns);
	cr_assert_gt(s.handshake.count, 0);
	check_histogram(&s.pause, "pause");
	check_histogram(&s.stop, "stop");
	check_histogram(&s.handshake, "handshake");
	check_histogram(&s.assist, "assist");
	heap_close();
}

/* Whoever must wait for memory is counted. */
Test(stats, pressure_makes_assists)
{
	static void *kept[1024];

	heap_open("heap-max=16m,heap-min=1m");
	cr_assert_eq(weir_root_add(heap, kept, sizeof(kept)), 0);
	for (int i = 0; i < rounds(40000); i++) {
		kept[i % 1024] = weir_alloc(self, 8192);
		cr_assert_not_null(kept[i % 1024], "%s", weir_error_text());
	}
	cr_assert_gt(heap_stats().assist.count, 0);
	heap_close();
}

/* An older program's struct is shorter: nothing behind it is touched. */
Test(stats, short_struct)
{
	size_t sizes[] = {sizeof(size_t),
			  offsetof(struct weir_stats, heap_used),
			  offsetof(struct weir_stats, heap_used) + 3,
			  offsetof(struct weir_stats, pause) + 8,
			  sizeof(struct weir_stats) - 1,
			  sizeof(struct weir_stats)};
	union {
		struct weir_stats s;
		unsigned char byte[sizeof(struct weir_stats) + 64];
	} u;

	heap_open(NULL);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		memset(&u, 0xa5, sizeof(u));
		u.s.size = sizes[i];
		cr_assert_eq(weir_heap_stats(heap, &u.s), 0);
		cr_assert_eq(u.s.size, sizes[i]);
		for (size_t k = sizes[i]; k < sizeof(u); k++)
			cr_assert_eq(u.byte[k], 0xa5, "size %zu, byte %zu",
				     sizes[i], k);
		if (sizes[i] > offsetof(struct weir_stats, cycles_full) + 8)
			cr_assert_geq(u.s.cycles_full, 1);
	}
	/* A longer one of a newer program is left alone where we know
	 * nothing. */
	memset(&u, 0xa5, sizeof(u));
	u.s.size = sizeof(u);
	cr_assert_eq(weir_heap_stats(heap, &u.s), 0);
	for (size_t k = sizeof(struct weir_stats); k < sizeof(u); k++)
		cr_assert_eq(u.byte[k], 0xa5);
	heap_close();
}

/* Waits for a collection that was asked for; not those of others. */
static void *collect_unattached(void *arg)
{
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	return arg;
}

Test(stats, waits_for_collections)
{
	struct weir_stats s;
	pthread_t t;

	heap_open(NULL);
	cr_assert_eq(heap_stats().waited.count, 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	cr_assert_eq(pthread_create(&t, NULL, collect_unattached, NULL), 0);
	weir_blocking_call(self, join, &t);
	s = heap_stats();
	cr_assert_eq(s.waited.count, 2);
	cr_assert_gt(s.waited.total_ns, 0);
	cr_assert_leq(s.waited.max_ns, s.waited.total_ns);
	heap_close();
}

/* Faults are counted where they come to user space, and only there. */
Test(stats, faults_of_the_barrier)
{
	static void *volatile kept;
	uint64_t before;

	heap_open("barrier=mprotect,heap-min=4m");
	cr_assert_eq(weir_root_add(heap, (void *)&kept, sizeof(kept)), 0);
	kept = weir_alloc(self, 256 << 10);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	/* What that one marked is armed by a minor one. */
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	before = heap_stats().barrier_faults;
	((char *volatile)kept)[100000] = 1;
	((char *volatile)kept)[100001] = 1;
	cr_assert_eq(heap_stats().barrier_faults, before + 1);
	heap_close();
	heap_open("barrier=none,heap-min=4m");
	for (int i = 0; i < 2; i++)
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(heap_stats().barrier_faults, 0);
	heap_close();
}
