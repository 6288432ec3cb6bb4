/* SPDX-License-Identifier: MIT */
/* What the system says about this process's memory, and its threads. */
#ifndef WEIR_TESTS_MEMORY_H
#define WEIR_TESTS_MEMORY_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <pthread.h>
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

static inline unsigned memory_entries(const char *directory)
{
	DIR *d = opendir(directory);
	unsigned n = 0;

	cr_assert(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline void *wait_at_gate(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

/* Entries of /proc/self/task before a test has made threads.  They are counted
 * with one more, for that of a sanitizer, which starts with the first. */
static inline unsigned threads_at_first(void)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	unsigned n;
	pthread_t t;

	pthread_mutex_lock(&gate);
	cr_assert_eq(pthread_create(&t, NULL, wait_at_gate, &gate), 0);
	n = memory_entries("/proc/self/task") - 1;
	pthread_mutex_unlock(&gate);
	pthread_join(t, NULL);
	return n;
}

/* Entries now; one that was joined may be listed for a moment, or for longer on
 * a slow machine: a minute at most. */
static inline unsigned wait_for_threads(unsigned n)
{
	for (int i = 0; i < 60000 && memory_entries("/proc/self/task") > n; i++)
		usleep(1000);
	return memory_entries("/proc/self/task");
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
