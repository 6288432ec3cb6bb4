/* SPDX-License-Identifier: MIT */
/* What stands in the way of an allocation is named, and not tried against in
 * vain: the hard limit, the system's limits; and the soft limit. */
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/memory.h"
#include "tests/short.h"

#define MIB ((size_t)1 << 20)

static void **root;

static void open(const char *options, weir_oom_fn *oom)
{
	struct weir_heap_options o = {
		.size = sizeof(o), .options = options, .oom = oom};

	cr_assert_eq(weir_heap_create(&o, &heap), 0, "%s", weir_error_text());
	cr_assert_eq(weir_thread_attach(heap, &self), 0);
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
}

static uint64_t cycles(void)
{
	struct weir_stats s = heap_stats();

	return s.cycles_full + s.cycles_minor;
}

/* ---- The system --------------------------------------------------------- */

static void data_limit(size_t mib)
{
	struct rlimit r;

	cr_assert_eq(getrlimit(RLIMIT_DATA, &r), 0);
	r.rlim_cur = mib ? (rlim_t)mib << 20 : r.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_DATA, &r), 0, "%s", strerror(errno));
}

/* A list until no more is to be had; its length. */
static size_t exhaust(size_t size)
{
	size_t n = 0;
	void **p;

	for (; (p = weir_alloc(self, size)); n++) {
		cr_assert_lt(n * size, 400 * MIB, "the limit has no effect");
		p[0] = root;
		root = p;
	}
	cr_assert_eq(errno, ENOMEM);
	return n;
}

static void refused(size_t size)
{
	void **p;
	size_t n = 0;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer needs memory of its own");
#endif
	open("heap-max=512m,heap-min=4m,markers=1,pause-markers=1", NULL);
	data_limit(memory_mib("VmData") + 120);
	exhaust(size);
	cr_assert(strstr(weir_error_text(), "ulimit -d"), "%s",
		  weir_error_text());
	cr_assert(strstr(weir_error_text(), "vm.overcommit_memory"), "%s",
		  weir_error_text());
	cr_assert(!strstr(weir_error_text(), "heap-max"), "%s",
		  weir_error_text());
	/* The heap goes on, within what it has and, later, beyond. */
	for (p = root; p; p = p[0])
		n++;
	cr_assert_gt(n * size, 16 * MIB);
	root = NULL;
	scrub();
	for (size_t i = 0; i < 64 * MIB / size; i++)
		cr_assert_not_null(weir_alloc(self, size), "%s",
				   weir_error_text());
	data_limit(0);
	for (size_t i = 0; i < 200 * MIB / size; i++) {
		p = weir_alloc(self, size);
		cr_assert_not_null(p, "%s", weir_error_text());
		p[0] = root;
		root = p;
	}
	heap_close();
}

Test(limits, a_refusal_of_the_system_is_named)
{
	refused(4096);
}

Test(limits, a_refusal_of_the_system_is_named_large)
{
	refused(MIB);
}

/* ---- The hard limit ----------------------------------------------------- */

static unsigned asked;
static uint64_t cycles_when_asked;

static int no(weir_heap *h, size_t bytes, void *arg)
{
	(void)h;
	(void)arg;
	cr_assert_eq(bytes, 40 * MIB);
	asked++;
	cycles_when_asked = cycles();
	return 0;
}

static int yes_but_nothing(weir_heap *h, size_t bytes, void *arg)
{
	no(h, bytes, arg);
	return 1;
}

static int raise_limit(weir_heap *h, size_t bytes, void *arg)
{
	no(h, bytes, arg);
	cr_assert_eq(weir_heap_set_limits(h, 0, 60 * MIB), 0);
	return 1;
}

/* 40 MiB under a limit of 32; no cycle before the program was asked. */
static void *too_large(weir_oom_fn *oom, bool leaf)
{
	uint64_t before;
	void *p;

	open("heap-max=64m,heap-min=32m", oom);
	cr_assert_eq(weir_heap_set_limits(heap, 0, 32 * MIB), 0);
	before = cycles();
	errno = 0;
	p = weir_alloc_kind(self, 40 * MIB, leaf ? WEIR_KIND_LEAF : 0);
	if (!p) {
		cr_assert_eq(errno, ENOMEM);
		cr_assert(strstr(weir_error_text(), "limit of 32 MiB"), "%s",
			  weir_error_text());
		cr_assert_eq(cycles(), before);
	}
	if (asked)
		cr_assert_eq(cycles_when_asked, before);
	return p;
}

Test(limits, what_never_fits_costs_no_cycle)
{
	cr_assert_null(too_large(NULL, false));
	heap_close();
}

Test(limits, what_never_fits_asks_the_program_once)
{
	cr_assert_null(too_large(no, true));
	cr_assert_eq(asked, 1);
	heap_close();
}

Test(limits, what_never_fits_is_not_asked_for_ever)
{
	cr_assert_null(too_large(yes_but_nothing, false));
	cr_assert_eq(asked, 1);
	heap_close();
}

Test(limits, the_program_may_raise_the_limit)
{
	char *p = too_large(raise_limit, true);

	cr_assert_not_null(p, "%s", weir_error_text());
	cr_assert_eq(p[40 * MIB - 1], 0);
	cr_assert_eq(asked, 1);
	heap_close();
}

/* ---- The soft limit ----------------------------------------------------- */

/* Highest use with `mib` alive and much garbage; the live part is intact. */
static size_t peak_of(const char *options, size_t mib)
{
	size_t n = mib << 10, peak;

	open(options, NULL);
	root = weir_alloc(self, n * sizeof(*root));
	for (size_t i = 0; i < n; i++) {
		root[i] = weir_alloc(self, 1024);
		cr_assert_not_null(root[i], "%s", weir_error_text());
		*(size_t *)root[i] = i;
	}
	/* Each piece of garbage takes the place of a live object at times. */
	for (size_t i = 0; i < (size_t)rounds(400) << 10; i++) {
		size_t *p = weir_alloc(self, 1024);

		cr_assert_not_null(p, "%s", weir_error_text());
		if (i % 8)
			continue;
		p[0] = i / 8 % n;
		root[i / 8 % n] = p;
	}
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(*(size_t *)root[i], i);
	peak = heap_stats().heap_peak >> 20;
	root = NULL;
	heap_close();
	return peak;
}

Test(limits, the_soft_limit_bounds_use)
{
	size_t with = peak_of("heap-soft=32m,heap-max=512m,growth=4", 20);
	size_t without = peak_of("heap-max=512m,growth=4", 20);

	cr_assert_lt(with, 56, "%zu MiB", with);
	cr_assert_gt(without, with + 8, "%zu MiB, %zu without", with, without);
}

Test(limits, more_may_live_than_the_soft_limit)
{
	size_t peak = peak_of("heap-soft=16m,heap-max=512m", 40);

	cr_assert_geq(peak, 40, "%zu MiB", peak);
	cr_assert_lt(peak, 128, "%zu MiB", peak);
}

/* ---- Several threads at the hard limit ----------------------------------- */

struct greedy {
	pthread_t thread; /* it runs on */
	bool comes_back;  /* attaches for each object */
	size_t failures;  /* allocations that found no room */
};

static void *take_and_drop(void *arg)
{
	struct greedy *g = arg;
	weir_mutator *m;

	for (int i = 0; i < rounds(4000); i++) {
		if (weir_thread_attach(heap, &m))
			abort();
		for (int k = 0; k < (g->comes_back ? 1 : 64); k++)
			g->failures += !weir_alloc(m, 48 + (size_t)k * 16);
		weir_thread_detach(m);
	}
	return NULL;
}

/* What is free after a collection is for the one who waited, too, though the
 * others were faster; and who comes and goes uses up no memory. */
static void greedy(bool comes_back, size_t peak)
{
	struct greedy g[4];

	heap_open("heap-max=24m,heap-min=2m");
	/* A stop at safepoints would wait for this thread in its joins. */
	cr_assert_eq(weir_thread_detach(self), 0);
	for (int i = 0; i < 4; i++) {
		g[i] = (struct greedy){.comes_back = comes_back};
		cr_assert_eq(pthread_create(&g[i].thread, NULL, take_and_drop,
					    &g[i]),
			     0);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(g[i].thread, NULL);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(g[i].failures, 0, "%zu times no room",
			     g[i].failures);
	cr_assert_leq(heap_stats().heap_peak, peak);
	heap_close();
}

Test(limits, threads_compete_for_what_is_left)
{
	greedy(false, 24 * MIB);
}

Test(limits, threads_that_come_and_go_leave_their_blocks)
{
	greedy(true, 4 * MIB);
}
