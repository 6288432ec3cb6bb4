/* SPDX-License-Identifier: MIT */
/* Assertions on threads of a test's own, where Criterion's may not be used. */
#ifndef WEIR_TESTS_MUST_H
#define WEIR_TESTS_MUST_H

#include <stdio.h>
#include <stdlib.h>

#include <weir/weir.h>

#define must(cond)                                                            \
	do {                                                                  \
		if (!(cond)) {                                                \
			fprintf(stderr, "%s:%d: failed: %s (%s)\n", __FILE__, \
				__LINE__, #cond, weir_error_text());          \
			abort();                                              \
		}                                                             \
	} while (0)

#endif
