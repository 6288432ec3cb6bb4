/* SPDX-License-Identifier: MIT */
/* What tests need of the system beside what they test. */
#ifndef WEIR_TESTS_NEED_H
#define WEIR_TESTS_NEED_H

#include <criterion/criterion.h>
#include <string.h>

#include <weir/weir.h>

/* Cycles beside the program: there are none where the kernel offers no
 * barrier, and every cycle is one stop. */
static inline void need_barrier(weir_heap *h)
{
	struct weir_stats s = {.size = sizeof(s)};

	cr_assert_eq(weir_heap_stats(h, &s), 0);
	if (!strcmp(s.barrier, "none"))
		cr_skip("the kernel offers no barrier: all cycles are stopped");
}

#endif
