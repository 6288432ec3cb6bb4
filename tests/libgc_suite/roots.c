/* SPDX-License-Identifier: MIT */
/* Roots: data segments, ranges, the program's own, callbacks of collections. */
#include "check.h"

#include <stdint.h>
#include <sys/mman.h>

#define N 500

static void *in_data[N] = {(void *)1};
static uintptr_t hidden[N];

static __attribute__((noinline)) void make(void **at)
{
	for (int i = 0; i < N; i++) {
		char *p = GC_malloc_atomic(64);

		memset(p, i, 64);
		at[i] = p;
		hidden[i] = ~(uintptr_t)p;
	}
}

static int alive(void)
{
	int n = 0;

	for (int i = 0; i < N; i++)
		n += GC_base((void *)~hidden[i]) != NULL;
	return n;
}

static void **map(void)
{
	void **p = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(p != MAP_FAILED);
	return p;
}

static void data_segments(void)
{
	make(in_data);
	collect();
	check(alive() == N, "%d", alive());
	memset(in_data, 0, sizeof(in_data));
	collect();
	check(alive() < N / 10, "%d", alive());
}

static void added_and_removed(void)
{
	void **p = map();

	GC_add_roots(p, p + N);
	make(p);
	collect();
	check(alive() == N, "%d", alive());
	GC_remove_roots(p, p + N);
	collect();
	check(alive() < N / 10, "%d", alive());
}

/* Added twice is added once. */
static void added_twice(void)
{
	void **p = map();

	GC_add_roots(p, p + N);
	GC_add_roots(p, p + N);
	make(p);
	collect();
	check(alive() == N);
	GC_remove_roots(p, p + N);
	collect();
	check(alive() < N / 10, "%d", alive());
}

static void cleared(void)
{
	void **p = map();

	GC_add_roots(p, p + N);
	make(p);
	GC_clear_roots();
	collect();
	check(alive() < N / 10, "%d", alive());
}

static void **pushed;

static GC_push_other_roots_proc before;

static void push(void)
{
	GC_push_all(pushed, pushed + N);
	if (before)
		before();
}

static void pushed_by_the_program(void)
{
	pushed = map();
	before = GC_get_push_other_roots();
	GC_set_push_other_roots(push);
	check(GC_get_push_other_roots() == push);
	make(pushed);
	collect();
	check(alive() == N, "%d", alive());
	for (int round = 0; round < 20; round++) {
		make(pushed);
		for (int i = 0; i < 20000; i++)
			memset(GC_malloc_atomic(64), 0xdd, 64);
	}
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 64; k++)
			check(((char *)pushed[i])[k] == (char)i, "%d", i);
}

static int starts, events[16];

static void on_start(void)
{
	__atomic_add_fetch(&starts, 1, __ATOMIC_RELAXED);
}

static void on_event(GC_EventType e)
{
	__atomic_add_fetch(&events[e], 1, __ATOMIC_RELAXED);
}

static void told(void)
{
	GC_set_start_callback(on_start);
	check(GC_get_start_callback() == on_start);
	GC_set_on_collection_event(on_event);
	check(GC_get_on_collection_event() == on_event);
	collect();
	check(starts >= 3, "%d", starts);
	check(events[GC_EVENT_START] >= 3 && events[GC_EVENT_END] >= 3);
	check(events[GC_EVENT_MARK_START] >= 3 &&
	      events[GC_EVENT_MARK_END] >= 3);
}

static int answer;

static int stop(void)
{
	return answer;
}

static void tried(void)
{
	GC_word no = GC_get_gc_no();

	answer = 1;
	check(!GC_try_to_collect(stop));
	answer = 0;
	check(GC_try_to_collect(stop));
	check(GC_get_gc_no() > no);
	GC_enable_incremental();
	check(GC_collect_a_little() == 0 || GC_collect_a_little() >= 0);
}

static void settings(void)
{
	GC_set_free_space_divisor(5);
	check(GC_get_free_space_divisor() == 5);
	GC_set_max_retries(2);
	check(GC_get_max_retries() == 2);
	GC_set_time_limit(50);
	check(GC_get_time_limit() == 50);
	GC_set_full_freq(7);
	check(GC_get_full_freq() == 7);
	GC_set_dont_expand(0);
	check(GC_get_dont_expand() == 0);
	check(GC_expand_hp(1 << 20));
	GC_register_displacement(8);
	check(GC_is_visible(in_data) == in_data);
	check(GC_same_obj(in_data + 1, in_data) == in_data + 1);
}

const struct test root_tests[] = {
	{"roots: data segments", data_segments},
	{"roots: ranges", added_and_removed},
	{"roots: a range added twice", added_twice},
	{"roots: cleared", cleared},
	{"roots: pushed by the program", pushed_by_the_program},
	{"collections: callbacks", told},
	{"collections: tried", tried},
	{"settings", settings},
	{NULL, NULL},
};
