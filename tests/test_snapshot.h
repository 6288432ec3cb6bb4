/* SPDX-License-Identifier: MIT */
/* What Criterion's tests of snapshots share beside snapshot_util.h. */
#ifndef WEIR_TESTS_TEST_SNAPSHOT_H
#define WEIR_TESTS_TEST_SNAPSHOT_H

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <sys/prctl.h>

#include "tests/short.h"
#include "tests/snapshot_util.h"

#define NOBODY 65534

static inline void drop_privileges(void)
{
	if (geteuid() == 0) {
		cr_assert(!setresgid(NOBODY, NOBODY, NOBODY));
		cr_assert(!setresuid(NOBODY, NOBODY, NOBODY));
	}
	/* As after an execve(): changing the user took this away. */
	cr_assert(!prctl(PR_SET_DUMPABLE, 1));
}

/* A region, or the test is skipped where the kernel has no such barrier. */
static inline weir_region *region_of(size_t bytes, unsigned flags,
				     unsigned barrier)
{
	struct weir_region_options o = {.size = sizeof(o),
					.flags = flags,
					.barrier = barrier,
					.name = "test"};
	weir_region *r = NULL;
	int err = weir_region_reserve(bytes, 0, &o, &r);

	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	return r;
}

#endif
