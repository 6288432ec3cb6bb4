/* SPDX-License-Identifier: MIT */
/* Preclean against a program that writes all over its heap: the cycle ends, in
 * short stops, and nothing is lost. */
#include <pthread.h>
#include <unistd.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/short.h"

#define SIZE 4080
#ifdef __SANITIZE_THREAD__
#define OBJECTS ((size_t)12 * 1024)
#define CYCLES 1 /* which take their time there */
#else
#define OBJECTS ((size_t)24 * 1024) /* of a page each: 96 MiB */
#define CYCLES rounds(6)
#endif

static void ***table;
static bool stop;

/* Each object's first word leads to a leaf with the object's number. */
static void make_table(void)
{
	table = weir_alloc(self, OBJECTS * sizeof(*table));
	for (size_t i = 0; i < OBJECTS; i++) {
		table[i] = weir_alloc(self, SIZE);
		table[i][0] = weir_alloc_leaf(self, 16);
		*(size_t *)table[i][0] = i;
	}
}

static void check_table(void)
{
	for (size_t i = 0; i < OBJECTS; i++)
		cr_assert_eq(*(size_t *)table[i][0], i, "object %zu", i);
}

/* Move leaves between words of their objects, as fast as can be. */
static void *write_all_over(void *arg)
{
	uint64_t r = 88172645463325252ull, *writes = arg;
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	/* Relaxed: nothing else is published by it. */
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		for (int k = 0; k < 64; k++) {
			void **p;

			r ^= r << 13;
			r ^= r >> 7;
			r ^= r << 17;
			p = table[r % OBJECTS];
			p[1 + (r >> 40) % 400] = p[0];
			p[0] = NULL;
			p[0] = p[1 + (r >> 40) % 400];
			++*writes;
		}
		weir_safepoint(m);
	}
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

/* While a cycle is asked for, slices are not put off. */
static void *ask(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		weir_collect(heap, WEIR_COLLECT_MINOR | WEIR_COLLECT_NOWAIT);
		usleep(1000);
	}
	return NULL;
}

static struct weir_stats storm(const char *options, int cycles)
{
	struct weir_stats before, after;
	uint64_t writes = 0;
	pthread_t writer, asker;

	heap_open(options);
	cr_assert_eq(weir_root_add(heap, &table, sizeof(table)), 0);
	make_table();
	weir_collect(heap, WEIR_COLLECT_FULL);
	before = heap_stats();
	cr_assert_eq(pthread_create(&writer, NULL, write_all_over, &writes), 0);
	cr_assert_eq(pthread_create(&asker, NULL, ask, NULL), 0);
	for (int i = 0; i < cycles; i++)
		cr_assert_eq(weir_collect(heap, i % 2 ? WEIR_COLLECT_MINOR
						      : WEIR_COLLECT_FULL),
			     0);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &writer);
	weir_blocking_call(self, join, &asker);
	after = heap_stats();
	cr_assert_gt(writes, 0);
	check_table();
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	check_table();
	after.pause.count -= before.pause.count;
	heap_close();
	return after;
}

Test(preclean, a_storm_is_cleaned_in_slices)
{
	struct weir_stats s =
		storm("heap-max=1g,heap-min=64m,verify=on", CYCLES);

	if (!strcmp(s.barrier, "none"))
		cr_skip("no barrier here tracks pages");
	/* 24,000 pages in stops of 0.7 ms. */
	cr_assert_gt(s.pause.count, 40);
}

/* With random delays each way to preclean is taken now and then. */
Test(preclean, all_ways_lose_nothing)
{
	storm("heap-max=1g,heap-min=64m,verify=on,poison=on,delay=200,seed=7",
	      CYCLES);
}
