/* SPDX-License-Identifier: MIT */
/*
 * fuzz_image: the fuzzer of snapshot files by itself.
 *
 *   fuzz_image SECONDS [SEED]    mutations of our own
 *   fuzz_image --seeds DIR       the files they begin with
 *   fuzz_image FILE...           each file once: a crash again, and AFL++
 *
 * Built with -DFUZZ_LIBFUZZER -fsanitize=fuzzer it has no main().
 */
#include "tests/image_fuzz.h"

#ifndef FUZZ_LIBFUZZER
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run_file(const char *path)
{
	static uint8_t data[4 << 20];
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f) {
		fprintf(stderr, "fuzz_image: %s: %s\n", path, strerror(errno));
		return 2;
	}
	n = fread(data, 1, sizeof data, f);
	fclose(f);
	return LLVMFuzzerTestOneInput(data, n);
}

int main(int argc, char **argv)
{
	struct fuzz_result result;
	char *end;
	double seconds;
	int err = 0;

	if (argc < 2) {
		fprintf(stderr,
			"usage: fuzz_image SECONDS [SEED] | --seeds DIR "
			"| FILE...\n");
		return 2;
	}
	if (!strcmp(argv[1], "--seeds"))
		return argc == 3 && !fuzz_seeds(argv[2]) ? 0 : 2;
	seconds = strtod(argv[1], &end);
	if (*end || end == argv[1]) {
		for (int i = 1; i < argc && !err; i++)
			err = run_file(argv[i]);
		return err;
	}
	fuzz_loop(seconds, argc > 2 ? strtoull(argv[2], NULL, 0) : 1, &result);
	printf("%llu files, %llu opened, none of them wrongly\n",
	       (unsigned long long)result.inputs,
	       (unsigned long long)result.opened);
	return 0;
}
#endif
