/* SPDX-License-Identifier: MIT */
/*
 * libweir-redis.so: preloaded into a redis-server that is linked to jemalloc,
 * it puts what jemalloc hands out into memory that fork() does not copy
 * (memory.h).
 *
 *   start.c    the beginning: what is to be had, or why it is not
 *   hooks.c    jemalloc's extents: where they come from and go to
 *   keeper.c   fork(), and the thread that folds when the children are gone
 *   memory.c   the memory
 *
 * The process is one of
 *
 *   OFF     not redis, or not jemalloc: everything is as without it
 *   OWNER   the server
 *   CHILD   of fork(): as any child, until it calls setsid(), by which a
 *           server that goes to the background becomes the owner
 */
#ifndef WEIR_COMPAT_REDIS_INTERNAL_H
#define WEIR_COMPAT_REDIS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "compat/redis/memory.h"

enum wr_redis_role {
	WR_REDIS_OFF,
	WR_REDIS_OWNER,
	WR_REDIS_CHILD,
};

/* Changes in start and in children, when there is one thread. */
extern enum wr_redis_role wr_redis_role;
/* Of the owner; `lock` of keeper.c. */
extern struct wr_memory wr_redis_memory;

/* ---- hooks.c ------------------------------------------------------------ */

/* New extents come from the memory from now on.  A negative errno with text:
 * jemalloc does not do as it should. */
int wr_redis_hook(void *mallctl);

/* Between the two no extent comes from the memory, and what `split` is told is
 * all that did.  Returns how many bytes. */
size_t wr_redis_hold_extents(void);
void wr_redis_release_extents(void);

/* May pages be given back at once?  Not while the memory is or may be split:
 * then they are noted. */
void wr_redis_keep_pages(bool keep);
/* Give some of what was noted back.  True: there is more. */
bool wr_redis_discard_noted(void);

/* In a child: locks of threads that it does not have. */
void wr_redis_hooks_in_child(void);

/* ---- keeper.c ----------------------------------------------------------- */

int wr_redis_start_keeper(void);
/* Write "weir-redis: ..." to standard error: where WEIR_REDIS_LOG is set, or
 * `always`. */
void wr_redis_say(bool always, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
extern bool wr_redis_log;

#endif
