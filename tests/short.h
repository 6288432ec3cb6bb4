/* SPDX-License-Identifier: MIT */
/*
 * Less of the same, where a test is run in a guest that is emulated, or by the
 * way under a sanitizer.
 */
#ifndef WEIR_TESTS_SHORT_H
#define WEIR_TESTS_SHORT_H

#include <stdlib.h>

/* How often a test does something, or how much of it there is: a third with
 * WEIR_TEST_SHORT. */
static inline int rounds(int n)
{
	const char *is_short = getenv("WEIR_TEST_SHORT");

	return is_short && *is_short ? (n + 2) / 3 : n;
}

#endif
