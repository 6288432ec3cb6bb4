/* SPDX-License-Identifier: MIT */
/* What the tests of the heap share: a heap with options, a mutator, scrubbing
 * of the conservative stack. */
#ifndef WEIR_TESTS_HEAP_UTIL_H
#define WEIR_TESTS_HEAP_UTIL_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include <weir/alloc.h>
#include <weir/weir.h>

#include "tests/need.h"

static weir_heap *heap;
static weir_mutator *self;

static inline void heap_open(const char *options)
{
	struct weir_heap_options o = {.size = sizeof(o), .options = options};
#ifdef __SANITIZE_THREAD__
	/* ThreadSanitizer delivers a signal at the next call that it knows: a
	 * thread that only computes would not stop. */
	char text[256] = "stop=safepoints";

	if (options) {
		strcat(text, ",");
		strncat(text, options, sizeof(text) - strlen(text) - 1);
	}
	o.options = text;
#endif

	cr_assert_eq(weir_heap_create(&o, &heap), 0, "%s", weir_error_text());
	cr_assert_eq(weir_thread_attach(heap, &self), 0, "%s",
		     weir_error_text());
}

static inline void heap_close(void)
{
	cr_assert_eq(weir_heap_destroy(heap), 0, "%s", weir_error_text());
}

/* A thread that allocates until the bool it is given is true. */
static inline void *allocate_until(void *stop)
{
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	/* Relaxed: nothing else is published by it. */
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED))
		for (int i = 0; i < 100; i++)
			cr_assert_not_null(weir_alloc_inline(m, 48, 0));
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

/* For weir_blocking_call(): wait for a thread's end. */
static inline void *join(void *thread)
{
	pthread_join(*(pthread_t *)thread, NULL);
	return NULL;
}

/* Run fn on a thread of its own: what it has in its hands no stack keeps. */
static inline void run_thread(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	cr_assert_eq(pthread_create(&t, NULL, fn, arg), 0);
	weir_blocking_call(self, join, &t);
}

/* Overwrite the part of the stack that calls before this one used. */
static __attribute__((noinline, unused)) void scrub(void)
{
	volatile char junk[8192];

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = 0;
}

static inline struct weir_stats heap_stats(void)
{
	struct weir_stats s = {.size = sizeof(s)};

	cr_assert_eq(weir_heap_stats(heap, &s), 0);
	return s;
}

#endif
