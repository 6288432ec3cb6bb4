/* SPDX-License-Identifier: MIT */
/* What the tests of snapshots of the heap share. */
#ifndef WEIR_TESTS_HEAP_SNAPSHOT_H
#define WEIR_TESTS_HEAP_SNAPSHOT_H

#include <errno.h>
#include <stdio.h>

#include <weir/heap_snapshot.h>

#include "tests/heap_util.h"

/* The test is skipped where the kernel has no such barrier. */
static inline void need_kind(const char *barrier)
{
	char text[64];
	struct weir_heap_options o = {.size = sizeof(o), .options = text};
	int err;

	snprintf(text, sizeof(text), "barrier=%s", barrier);
	err = weir_heap_create(&o, &heap);
	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	cr_assert_eq(weir_heap_destroy(heap), 0);
}

static inline weir_heap_snapshot *take(void)
{
	weir_heap_snapshot *s;

	cr_assert_eq(weir_heap_snapshot_take(heap, &s), 0, "%s",
		     weir_error_text());
	return s;
}

#endif
