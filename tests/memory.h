/* SPDX-License-Identifier: MIT */
/* What the system says about this process's memory. */
#ifndef WEIR_TESTS_MEMORY_H
#define WEIR_TESTS_MEMORY_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A line of /proc/self/status in MiB: "VmRSS", "VmData". */
static inline size_t memory_mib(const char *what)
{
	FILE *f = fopen("/proc/self/status", "r");
	size_t kib = 0, n = strlen(what);
	char line[256];
	bool found = false;

	cr_assert_not_null(f);
	while (!found && fgets(line, sizeof(line), f))
		found = !strncmp(line, what, n) && line[n] == ':' &&
			sscanf(line + n + 1, "%zu", &kib) == 1;
	fclose(f);
	cr_assert(found, "no %s in /proc/self/status", what);
	return kib >> 10;
}

/* What /proc/self/smaps has behind `key` ("VmFlags:") for the mapping at p. */
static inline bool memory_of_mapping(const volatile void *p, const char *key,
				     char *text, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	size_t at, end, n = strlen(key);
	bool here = false, found = false;
	char line[512];

	cr_assert_not_null(f);
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%zx-%zx ", &at, &end) == 2)
			here = at <= (size_t)p && (size_t)p < end;
		else if (here && !strncmp(line, key, n))
			found = snprintf(text, size, "%s", line + n) > 0;
	}
	fclose(f);
	return found;
}

/* Wait until resident memory is below `mib`, a minute at most; what it is. */
static inline size_t wait_for_rss(size_t mib)
{
	size_t now = memory_mib("VmRSS");

	for (int i = 0; i < 600 && now >= mib; i++) {
		usleep(100000);
		now = memory_mib("VmRSS");
	}
	return now;
}

#endif
