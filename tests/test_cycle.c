/* SPDX-License-Identifier: MIT */
/* Whole cycles: what is reachable survives, what is not goes, in every kind of
 * cycle and under every limit of the mark stacks. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/short.h"

struct node {
	struct node *next;
	uint64_t id;
};

static struct node *make_list(size_t n)
{
	struct node *list = NULL;

	for (size_t i = 0; i < n; i++) {
		struct node *p = weir_alloc_inline(self, sizeof(*p), 0);

		cr_assert_not_null(p, "%s", weir_error_text());
		p->next = list;
		p->id = i;
		list = p;
	}
	return list;
}

static void check_list(const struct node *list, size_t n)
{
	for (size_t i = n; i-- > 0; list = list->next) {
		cr_assert_not_null(list);
		cr_assert_eq(list->id, i);
	}
	cr_assert_null(list);
}

static const unsigned all_kinds[] = {WEIR_COLLECT_FULL, WEIR_COLLECT_MINOR,
				     WEIR_COLLECT_STOPPED};

Test(cycle, lists_survive_and_garbage_goes)
{
	static struct node *root;

	heap_open("verify=on,poison=on,heap-min=4m");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = make_list(200000);
	for (int i = 0; i < rounds(12); i++) {
		make_list(100000);
		cr_assert_eq(weir_collect(heap, all_kinds[i % 3]), 0);
		check_list(root, 200000);
	}
	root = NULL;
	scrub();
	weir_collect(heap, WEIR_COLLECT_FULL);
	weir_collect(heap, WEIR_COLLECT_FULL);
	cr_assert_lt(heap_stats().heap_live, 1 << 20);
	heap_close();
}

Test(cycle, minor_cycles_find_young_objects_behind_old_ones)
{
	static void **table;
	const size_t n = 100000;

	heap_open("verify=on,poison=on,heap-min=64m");
	need_barrier(heap);
	cr_assert_eq(weir_root_add(heap, &table, sizeof(table)), 0);
	table = weir_alloc(self, n * sizeof(void *));
	for (size_t i = 0; i < n; i++) {
		table[i] = weir_alloc(self, 16);
		*(uint64_t *)table[i] = i;
	}
	weir_collect(heap, WEIR_COLLECT_FULL);
	for (int round = 1; round < 10; round++) {
		for (size_t i = (size_t)round; i < n; i += 997) {
			table[i] = weir_alloc(self, 48);
			*(uint64_t *)table[i] = i;
		}
		weir_collect(heap, WEIR_COLLECT_MINOR);
		for (size_t i = 0; i < n; i++)
			cr_assert_eq(*(uint64_t *)table[i], i);
	}
	cr_assert_geq(heap_stats().cycles_minor, 9);
	heap_close();
}

Test(cycle, interior_pointers_keep_objects)
{
	static char *inside[64];

	heap_open("verify=on,poison=on");
	cr_assert_eq(weir_root_add(heap, inside, sizeof(inside)), 0);
	for (int i = 0; i < 64; i++) {
		size_t size = (size_t)8 << (i % 16);
		char *p = weir_alloc_leaf(self, size);

		memset(p, i, size);
		inside[i] = p + size / 2;
	}
	scrub();
	for (int round = 0; round < 3; round++) {
		make_list(50000);
		weir_collect(heap, WEIR_COLLECT_FULL);
	}
	for (int i = 0; i < 64; i++) {
		size_t size = (size_t)8 << (i % 16);
		char *p = weir_object_base(heap, inside[i]);

		cr_assert_eq(inside[i] - p, (ptrdiff_t)(size / 2));
		for (size_t k = 0; k < size; k++)
			cr_assert_eq(p[k], i);
	}
	heap_close();
}

/* ThreadSanitizer takes ten times as long. */
#ifdef __SANITIZE_THREAD__
#define LIST_LINKS 1000000
#else
#define LIST_LINKS ((size_t)rounds(5000000))
#endif
/* The size of a test, which tests/large.sh makes larger. */
static size_t size_of(const char *variable, size_t usual)
{
	const char *n = getenv(variable);

	return n ? strtoul(n, NULL, 10) : usual;
}

/* A list of very many links needs almost no stack. */
Test(cycle, a_long_list)
{
	size_t links = size_of("WEIR_TEST_LIST", LIST_LINKS);
	static struct node *root;

	heap_open("mark-stack-max=2m");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = make_list(links);
	weir_collect(heap, WEIR_COLLECT_FULL);
	check_list(root, links);
	heap_close();
}

/* One object with very many references needs not much more. */
Test(cycle, a_wide_array)
{
	size_t n = size_of("WEIR_TEST_WIDE", 1000000);
	static uint64_t **root;

	heap_open("mark-stack-max=2m");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = weir_alloc(self, n * sizeof(*root));
	cr_assert_not_null(root, "%s", weir_error_text());
	for (size_t i = 0; i < n; i++) {
		root[i] = weir_alloc_inline(self, 16, 0);
		cr_assert_not_null(root[i], "%s", weir_error_text());
		*root[i] = i;
	}
	weir_collect(heap, WEIR_COLLECT_FULL);
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(*root[i], i);
	heap_close();
}

/* Of a large object only the pages that were written are scanned again. */
Test(cycle, a_write_to_a_large_array_costs_a_page)
{
	const size_t n = ((size_t)64 << 20) / sizeof(void *);
	struct weir_stats before, after;
	static uint64_t **root;

	heap_open("heap-min=256m,verify=on");
	if (!strcmp(heap_stats().barrier, "none"))
		cr_skip("no barrier here");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = weir_alloc(self, n * sizeof(*root));
	for (size_t i = 0; i < n; i += 64)
		root[i] = (uint64_t *)root;
	/* The second finds clean pages. */
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	for (int round = 0; round < 3; round++) {
		size_t at = n / 4 * (size_t)(round + 1) - 1000;

		before = heap_stats();
		root[at] = weir_alloc_leaf(self, 16);
		*root[at] = at;
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
		after = heap_stats();
		cr_assert_eq(*root[at], at);
		cr_assert_eq(after.cycles_minor, before.cycles_minor + 1);
		/* Of 16384.  Holes count, where they cannot be told apart. */
		cr_assert_geq(after.dirty_pages, before.dirty_pages + 1);
		cr_assert_lt(after.dirty_pages, before.dirty_pages + 200,
			     "%lu pages",
			     after.dirty_pages - before.dirty_pages);
	}
	heap_close();
}

/* More roots than a small stack has room for: it overflows, again and again;
 * nothing is lost. */
Test(cycle, overflow_loses_nothing)
{
	const size_t n = 1500000;
	void ***root = calloc(n / 4, sizeof(*root));

	heap_open("mark-stack-max=1m,poison=on,verify=on,heap-min=512m");
	cr_assert_eq(weir_root_add(heap, root, n / 4 * sizeof(*root)), 0);
	/* Small nodes of 4 references each, in random places. */
	for (size_t i = 0; i < n; i += 4) {
		void **node = weir_alloc(self, 4 * sizeof(void *));

		root[i * 7919 % n / 4] = node;
		for (size_t k = 0; k < 4; k++) {
			node[k] = weir_alloc(self, 32);
			*(uint64_t *)node[k] = i + k;
		}
	}
	for (int round = 0; round < rounds(2); round++) {
		weir_collect(heap,
			     round ? WEIR_COLLECT_STOPPED : WEIR_COLLECT_FULL);
		for (size_t i = 0; i < n; i++)
			cr_assert_eq(
				*(uint64_t *)
					root[i / 4 * 4 * 7919 % n / 4][i % 4],
				i);
	}
	cr_assert_gt(heap_stats().overflows, 0);
	heap_close();
	free(root);
}

static double cpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Test(cycle, an_idle_program_uses_no_cpu)
{
	double used = 1;

	heap_open("heap-min=4m");
	make_list(1000000);
	weir_collect(heap, WEIR_COLLECT_FULL);
	/* Let the sweep end, and free memory go back, which is done once. */
	usleep(300000);
	for (int i = 0;
	     i < 600 && __atomic_load_n(&heap->trim_due, __ATOMIC_RELAXED); i++)
		usleep(100000);
	/* A second without is enough: what the host takes from a virtual
	 * machine's processor may be counted as the program's, and a slow one
	 * may be sweeping yet. */
	for (int i = 0; i < 30 && used >= 0.005; i++) {
		double before = cpu_now();

		usleep(1000000);
		used = cpu_now() - before;
	}
	cr_assert_lt(used, 0.005);
	heap_close();
}

/* Garbage that appears while the limit is near is found in time. */
Test(cycle, a_small_heap_lives_on)
{
	static struct node *root;

	heap_open("heap-max=32m,heap-min=1m,poison=on");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = make_list(500000);
	for (int i = 0; i < rounds(40); i++)
		make_list(200000);
	check_list(root, 500000);
	cr_assert_leq(heap_stats().heap_peak, 32 << 20);
	heap_close();
}

static int collecting; /* atomic */

static void *collects_for_ever(void *arg)
{
	weir_mutator *m;

	(void)arg;
	if (weir_thread_attach(heap, &m))
		return NULL;
	__atomic_store_n(&collecting, 1, __ATOMIC_RELEASE);
	for (;;) {
		weir_collect(heap, WEIR_COLLECT_FULL);
		pthread_testcancel();
	}
}

/* Nor does a thread that waits for a cycle take a lock with it. */
Test(cycle, a_thread_that_waits_is_cancelled)
{
	heap_open("heap-max=64m");
	/* A stop at safepoints would wait for this thread in its join. */
	cr_assert_eq(weir_thread_detach(self), 0);
	for (int i = 0; i < 20; i++) {
		pthread_t t;
		void *result;

		collecting = 0;
		cr_assert_eq(pthread_create(&t, NULL, collects_for_ever, NULL),
			     0);
		while (!__atomic_load_n(&collecting, __ATOMIC_ACQUIRE))
			usleep(100);
		usleep((useconds_t)(i * 50));
		pthread_cancel(t);
		cr_assert_eq(pthread_join(t, &result), 0);
		cr_assert_eq(result, PTHREAD_CANCELED);
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	}
	heap_close();
}
