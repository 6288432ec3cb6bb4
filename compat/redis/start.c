/* SPDX-License-Identifier: MIT */
/*
 * The beginning, before main().  A program without jemalloc is left alone (a
 * shell that the server starts inherits the preload); with it the program runs
 * as promised or does not run: it exits with status 1 and the cause.
 *
 *   WEIR_REDIS_LIMIT   bytes of address space for the data, with k, m, g, t;
 *                      four times the machine's memory unless given
 *   WEIR_REDIS_HUGE    1: in pages of 2 MiB
 *   WEIR_REDIS_LOG     1: a line for every fork() and every fold
 *   WEIR_REDIS_CHECK   1: only say whether it would run, and exit
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <weir/weir.h>

#include "compat/redis/internal.h"
#include "runtime/check.h"

static int limit_of(size_t *bytes)
{
	const char *text = getenv("WEIR_REDIS_LIMIT");
	unsigned shift = 0;
	char *end;

	if (!text) {
		*bytes = 4 * (size_t)sysconf(_SC_PHYS_PAGES) *
			 (size_t)sysconf(_SC_PAGESIZE);
		return 0;
	}
	*bytes = strtoull(text, &end, 10);
	switch (*end | 0x20) {
	case 'k':
		shift = 10;
		break;
	case 'm':
		shift = 20;
		break;
	case 'g':
		shift = 30;
		break;
	case 't':
		shift = 40;
		break;
	}
	if (shift)
		end++;
	if (end == text || *end || !*bytes ||
	    *bytes > ((size_t)1 << 46) >> shift)
		return wr_error(EINVAL,
				"WEIR_REDIS_LIMIT=%s: not a size such as 64g",
				text);
	*bytes <<= shift;
	return 0;
}

/* 1, 0 or not given. */
static int flag_of(const char *name, bool *flag)
{
	const char *text = getenv(name);

	*flag = text && !strcmp(text, "1");
	if (!text || !*text || *flag || !strcmp(text, "0"))
		return 0;
	return wr_error(EINVAL, "%s=%s: neither 0 nor 1", name, text);
}

__attribute__((constructor)) static void start(void)
{
	void *mallctl = dlsym(RTLD_DEFAULT, "mallctl");
	bool check = false, huge = false;
	size_t limit = 0;
	int err;

	if (!mallctl)
		return;
	err = limit_of(&limit);
	if (!err)
		err = flag_of("WEIR_REDIS_LOG", &wr_redis_log);
	if (!err)
		err = flag_of("WEIR_REDIS_HUGE", &huge);
	if (!err)
		err = flag_of("WEIR_REDIS_CHECK", &check);
	if (!err)
		err = wr_memory_open(&wr_redis_memory, limit, huge);
	if (!err)
		err = wr_redis_start_keeper();
	if (!err)
		err = wr_redis_hook(mallctl);
	if (err) {
		wr_redis_say(true, "%s", weir_error_text());
		_exit(1);
	}
	wr_redis_role = WR_REDIS_OWNER;
	if (check) {
		wr_redis_say(true, "fork() will not copy the data: it runs");
		_exit(0);
	}
}
