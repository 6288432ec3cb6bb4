/* SPDX-License-Identifier: MIT */
/* For tests that look at marks, on a heap whose collector is asleep. */
#ifndef WEIR_TESTS_MARKED_H
#define WEIR_TESTS_MARKED_H

#include "gc/mark.h"
#include "tests/heap_util.h"

static inline bool black(const void *p)
{
	return wg_is_black(heap, wg_granule_of(heap, (uintptr_t)p));
}

#endif
