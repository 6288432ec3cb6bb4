/* SPDX-License-Identifier: MIT */
/*
 * For tests that need an object to be unreachable.
 *
 * Stacks are scanned conservatively, so a test that has ever had an object's
 * address in its hands may keep it alive by a stale word.  Whatever touches
 * addresses therefore runs on a thread of its own, which attaches, does it,
 * detaches and ends: what was on its stack is no root any more.  The test's
 * own thread is not attached and sees only numbers.
 */
#ifndef WEIR_TESTS_HIDDEN_H
#define WEIR_TESTS_HIDDEN_H

#include <time.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/weir.h>

#include "tests/must.h"
#include "tests/need.h"
#include "tests/short.h"

typedef long hidden_fn(weir_heap *heap, weir_mutator *m, void *arg);

struct hidden {
	weir_heap *heap; /* the heap */
	hidden_fn *fn;   /* what to run */
	void *arg;       /* its argument */
	long result;     /* what it returned */
	int err;         /* of attach and detach */
};

static inline void *hidden_main(void *p)
{
	struct hidden *d = p;
	weir_mutator *m;

	d->err = weir_thread_attach(d->heap, &m);
	if (d->err)
		return NULL;
	d->result = d->fn(d->heap, m, d->arg);
	d->err = weir_thread_detach(m);
	return NULL;
}

/* fn(heap, mutator, arg) on a thread of its own; what it returned. */
static inline long hidden(weir_heap *heap, hidden_fn *fn, void *arg)
{
	struct hidden d = {.heap = heap, .fn = fn, .arg = arg};
	pthread_t t;

	cr_assert_eq(pthread_create(&t, NULL, hidden_main, &d), 0);
	cr_assert_eq(pthread_join(t, NULL), 0);
	cr_assert_eq(d.err, 0, "%s", weir_error_text());
	return d.result;
}

static inline weir_heap *hidden_heap(const char *options)
{
	struct weir_heap_options o = {.size = sizeof(o), .options = options};
	weir_heap *h = NULL;
	int err = weir_heap_create(&o, &h);

	cr_assert_eq(err, 0, "%s", weir_error_text());
	return h;
}

static inline void full(weir_heap *h)
{
	cr_assert_eq(weir_collect(h, WEIR_COLLECT_FULL), 0);
}

static inline void minor(weir_heap *h)
{
	cr_assert_eq(weir_collect(h, WEIR_COLLECT_MINOR), 0);
}

static inline void stopped(weir_heap *h)
{
	cr_assert_eq(weir_collect(h, WEIR_COLLECT_STOPPED), 0);
}

/* The n'th of many cycles: of all three sorts, minor ones mostly. */
static inline void some_cycle(weir_heap *h, long n)
{
	if (n % 7 == 6)
		stopped(h);
	else if (n % 3)
		minor(h);
	else
		full(h);
}

/* The heap of those who allocate as fast as they can meanwhile: a full one is
 * marked in seconds.  Under the thread sanitizer a large one takes minutes on a
 * busy machine, and is full by the time. */
#ifdef __SANITIZE_THREAD__
#define RACE_HEAP "heap-max=64m"
#define RACE_CYCLES 21
#else
#define RACE_HEAP "heap-max=512m"
#define RACE_CYCLES 30
#endif

/* Such cycles for two seconds, and RACE_CYCLES at the least (less where tests
 * are to be short); how many. */
static inline long many_cycles(weir_heap *h)
{
	struct timespec begin, now;
	long cycles = 0;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		some_cycle(h, cycles++);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (cycles < rounds(RACE_CYCLES) ||
		 now.tv_sec - begin.tv_sec < rounds(2));
	return cycles;
}

static long hidden_get(weir_heap *heap, weir_mutator *m, void *weak)
{
	(void)heap;
	(void)m;
	return weir_weak_get(weak) != NULL;
}

/* Whether a weak reference has a target. */
static inline bool alive(weir_heap *heap, weir_weak *weak)
{
	return hidden(heap, hidden_get, weak);
}

#endif
