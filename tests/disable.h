/* SPDX-License-Identifier: MIT */
/* What the tests of weir_collect_disable() share. */
#ifndef WEIR_TESTS_DISABLE_H
#define WEIR_TESTS_DISABLE_H

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "gc/weak.h"
#include "tests/heap_util.h"
#include "tests/must.h"

#define MIB ((size_t)1 << 20)
#define THREADS 3

static int over;

static inline bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

static inline uint64_t cycles(void)
{
	struct weir_stats s = heap_stats();

	return s.cycles_full + s.cycles_minor;
}

static inline void garbage(size_t mib)
{
	for (size_t i = 0; i < mib << 10; i++)
		cr_assert_not_null(weir_alloc(self, 1000), "%s",
				   weir_error_text());
}

static inline void disable(void)
{
	cr_assert_eq(weir_collect_disable(heap), 0, "%s", weir_error_text());
}

static inline void enable(void)
{
	cr_assert_eq(weir_collect_enable(heap), 0, "%s", weir_error_text());
}

static inline void *nap(void *arg)
{
	usleep(200);
	return arg;
}

/* Within a minute; nothing is allocated meanwhile. */
static inline bool cycle_comes(uint64_t before)
{
	for (int i = 0; i < 300000 && cycles() == before; i++)
		weir_blocking_call(self, nap, NULL);
	return cycles() != before;
}

/* With the collector asleep before and after. */
static inline void settle(void)
{
	cr_assert_eq(weir_collect(heap, 0), 0, "%s", weir_error_text());
}

/* ---- A cycle that is under way ------------------------------------------ */

static int begun, ended, hold; /* atomic */

static inline void holds(weir_heap *h, enum weir_event event, void *arg)
{
	(void)h;
	(void)arg;
	if (event == WEIR_EVENT_CYCLE_BEGIN)
		__atomic_add_fetch(&begun, 1, __ATOMIC_RELAXED);
	if (event == WEIR_EVENT_CYCLE_END) {
		while (__atomic_load_n(&hold, __ATOMIC_RELAXED))
			usleep(100);
		__atomic_add_fetch(&ended, 1, __ATOMIC_RELAXED);
	}
}

static inline int read_int(const int *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* Begin a cycle that does not end before `hold` is 0. */
static inline void begin_and_hold(void)
{
	__atomic_store_n(&hold, 1, __ATOMIC_RELAXED);
	cr_assert_eq(weir_heap_on_event(heap, holds, NULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_NOWAIT), 0);
	while (!read_int(&begun))
		weir_blocking_call(self, nap, NULL);
}

static inline void *lets_go(void *arg)
{
	usleep(30000);
	__atomic_store_n(&hold, 0, __ATOMIC_RELAXED);
	return arg;
}

static int disabled_now; /* atomic */

static inline void *disables_once(void *arg)
{
	must(!weir_collect_disable(heap));
	__atomic_store_n(&disabled_now, 1, __ATOMIC_RELAXED);
	return arg;
}

static inline void until_disabled_is(unsigned n)
{
	while (__atomic_load_n(&heap->disabled, __ATOMIC_RELAXED) != n)
		weir_blocking_call(self, nap, NULL);
}

#endif
