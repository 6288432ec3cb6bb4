/* SPDX-License-Identifier: MIT */
/*
 * Structs that the library fills for a program.  Their first member is `size`,
 * which the program sets to what it was compiled with: more than that is not
 * written, so that either may be the newer one.
 */
#ifndef WEIR_RUNTIME_SIZED_H
#define WEIR_RUNTIME_SIZED_H

#include <stddef.h>
#include <string.h>

#include "runtime/check.h"

/* 0, or what wr_invalid() says of a struct called `what`. */
static inline int wr_sized_check(const void *out, const char *function,
				 const char *what)
{
	if (out && *(const size_t *)out >= sizeof(size_t))
		return 0;
	return wr_invalid(function, "%s is NULL or its size not set", what);
}

/* As much of all[0, bytes) as out has room for; its size stays. */
static inline void wr_sized_fill(void *out, const void *all, size_t bytes)
{
	size_t size = *(const size_t *)out;

	memcpy(out, all, size < bytes ? size : bytes);
	*(size_t *)out = size;
}

#endif
