/* SPDX-License-Identifier: MIT */
/* Assertions where Criterion's may not be used: must() on threads of a test's
 * own, CHILD() in child processes, whose parent's Criterion is. */
#ifndef WEIR_TESTS_MUST_H
#define WEIR_TESTS_MUST_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <weir/weir.h>

#define must(cond)                                                            \
	do {                                                                  \
		if (!(cond)) {                                                \
			fprintf(stderr, "%s:%d: failed: %s (%s)\n", __FILE__, \
				__LINE__, #cond, weir_error_text());          \
			abort();                                              \
		}                                                             \
	} while (0)

#define CHILD(condition)                                             \
	do {                                                         \
		if (!(condition)) {                                  \
			dprintf(2, "child, line %d: %s\n", __LINE__, \
				#condition);                         \
			_exit(1);                                    \
		}                                                    \
	} while (0)

#endif
