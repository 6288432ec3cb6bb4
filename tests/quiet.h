/* SPDX-License-Identifier: MIT */
/*
 * gcc's address sanitizer does not hold its locks over fork(): a thread that
 * was in malloc(), or was being started, leaves them locked in the child, where
 * the next thread waits for ever.  Tests whose other threads have nothing to do
 * wait here until all of them are asleep; whoever sleeps holds no such lock.
 */
#ifndef WEIR_TESTS_QUIET_H
#define WEIR_TESTS_QUIET_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether all threads but this one are asleep, one after the other. */
static inline bool others_sleep(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	bool sleep = true;

	cr_assert(d);
	while (sleep && (e = readdir(d))) {
		char path[64], text[128];
		const char *end;
		size_t n;
		FILE *f;

		if (e->d_name[0] == '.' ||
		    atoi(e->d_name) == syscall(SYS_gettid))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%.20s/stat",
			 e->d_name);
		f = fopen(path, "r");
		if (!f)
			continue; /* it has ended */
		n = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
		text[n] = '\0';
		/* The state is behind the name, which is in brackets. */
		end = strrchr(text, ')');
		/* Nothing there: it has ended. */
		sleep = !end || !end[1] || end[2] == 'S';
	}
	closedir(d);
	return sleep;
}

static inline void quiet_before_fork(void)
{
#ifdef __SANITIZE_ADDRESS__
	/* Twice in a row: one may have woken another that was seen asleep. */
	for (int i = 0, n = 0; n < 2; i++) {
		cr_assert_lt(i, 60000, "threads do not go to sleep");
		n = others_sleep() ? n + 1 : 0;
		usleep(1000);
	}
#endif
}

#endif
