/* SPDX-License-Identifier: MIT */
/* The conformance tests' frame: tests in a table, each in a process of its own,
 * TAP on standard output.  They run on any libgc.so.1. */
#ifndef WEIR_TESTS_LIBGC_CHECK_H
#define WEIR_TESTS_LIBGC_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GC_THREADS
#include <gc.h>
#include <gc/gc_disclaim.h>
#include <gc/gc_inline.h>
#include <gc/gc_mark.h>
#include <gc/gc_typed.h>

struct test {
	const char *name; /* says what holds */
	void (*fn)(void); /* returns if it does */
};

/* Ends the test's process with the reason. */
#define check(condition, ...)                                          \
	do {                                                           \
		if (!(condition)) {                                    \
			fprintf(stderr, "%s:%d:", __FILE__, __LINE__); \
			fprintf(stderr, " " __VA_ARGS__);              \
			fprintf(stderr, " (%s)\n", #condition);        \
			exit(1);                                       \
		}                                                      \
	} while (0)

/* Words that look like references are left on stacks: overwrite them. */
static __attribute__((noinline, unused)) void scrub(void)
{
	volatile char deep[32768];

	memset((void *)deep, 0, sizeof(deep));
}

/* A collection that finds what is garbage; more than one, for what a
 * conservative collector may keep by chance for a while. */
static __attribute__((unused)) void collect(void)
{
	for (int i = 0; i < 3; i++) {
		scrub();
		GC_gcollect();
	}
}

extern const struct test alloc_tests[], kind_tests[], finalizer_tests[],
	link_tests[], thread_tests[], root_tests[], toggle_tests[],
	disclaim_tests[], surface_tests[], stack_tests[];

/* A process that leaves leaks behind. */
int leak_main(void);

#endif
