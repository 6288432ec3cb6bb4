/* SPDX-License-Identifier: MIT */
/*
 * The fuzzer of snapshot files: what one input is put through, and a loop that
 * mutates files of the library's own writer, checksums made right or not.
 */
#ifndef WEIR_TESTS_IMAGE_FUZZ_H
#define WEIR_TESTS_IMAGE_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/*
 * Open the bytes as a file, alone and as a delta on top of a whole one.  What
 * opens must hold what was promised: every region reads, in parts as at once,
 * what weir_image_data() says; aborts if not.  Returns 0, as libFuzzer wants
 * it.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a run of the loop came to. */
struct fuzz_result {
	uint64_t inputs; /* files tried */
	uint64_t opened; /* of them, opened */
};

/* Mutations for so many seconds, the same for the same seed. */
void fuzz_loop(double seconds, uint64_t seed, struct fuzz_result *result);

/* The files that mutations begin with, to a directory, for other fuzzers. */
int fuzz_seeds(const char *directory);

#endif
