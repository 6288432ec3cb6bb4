/* SPDX-License-Identifier: MIT */
/* A few seconds of the fuzzer of snapshot files (WEIR_FUZZ_SECONDS), always the
 * same; tests/sanitizers.sh has a minute of it, `make fuzz-image` goes on for
 * longer. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/image_fuzz.h"

#define SECONDS 3

Test(image_fuzz, mutations)
{
	const char *text = getenv("WEIR_FUZZ_SECONDS");
	struct fuzz_result result;

	fuzz_loop(text ? atof(text) : SECONDS, 1, &result);
	fprintf(stderr, "%llu files, %llu opened\n",
		(unsigned long long)result.inputs,
		(unsigned long long)result.opened);
	/* It gets behind the checksums, and not all of the files are good. */
	cr_assert_gt(result.opened, 0);
	cr_assert_lt(result.opened, result.inputs);
}
