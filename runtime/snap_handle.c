/* SPDX-License-Identifier: MIT */
/*
 * The memory of snapshots' handles.
 *
 * It is never given back: a handle that has ended is recognised by its magic
 * number, and a writer that waits for a snapshot needs nothing that keeps the
 * snapshot from ending meanwhile.  What has ended is used again in its order,
 * when KEPT others have ended since; until then an old handle is refused.
 *
 *   new, free     under `lock`
 *   valid         any thread, without it
 *   wake, waiting writers in handlers, also beside free and new, which leave
 *                 the two as they are
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/futex_lock.h"
#include "runtime/own_memory.h"
#include "runtime/region.h"

#define KEPT 8

static uint32_t lock;                         /* futex lock of what follows */
static struct weir_snapshot *oldest, *newest; /* those that have ended */
static unsigned count;                        /* of them */

/* Lock held: the oldest, if it has been there for long enough. */
static struct weir_snapshot *take(void)
{
	struct weir_snapshot *s = oldest;

	if (count <= KEPT)
		return NULL;
	oldest = s->ended;
	count--;
	return s;
}

struct weir_snapshot *wr_snapshot_new(void)
{
	static const size_t head = offsetof(struct weir_snapshot, ended);
	struct weir_snapshot *s;
	sigset_t saved;

	wr_futex_enter(&lock, &saved);
	s = take();
	wr_futex_leave(&lock, &saved);
	if (s)
		memset((char *)s + head, 0, sizeof(*s) - head);
	else
		s = wr_own_alloc(sizeof(*s));
	if (s)
		/* Release: pairs with wr_snapshot_valid(). */
		__atomic_store_n(&s->magic, WR_SNAPSHOT_MAGIC,
				 __ATOMIC_RELEASE);
	return s;
}

void wr_snapshot_free(struct weir_snapshot *s)
{
	sigset_t saved;

	/* Relaxed: nobody but who holds an old handle looks. */
	__atomic_store_n(&s->magic, 0, __ATOMIC_RELAXED);
	wr_futex_enter(&lock, &saved);
	s->ended = NULL;
	if (count++)
		newest->ended = s;
	else
		oldest = s;
	newest = s;
	wr_futex_leave(&lock, &saved);
}

int wr_snapshot_valid(const struct weir_snapshot *s, const char *function)
{
	if (!s)
		return wr_invalid(function, "the snapshot is NULL");
	/* Acquire: pairs with the release in wr_snapshot_new(). */
	if (__atomic_load_n(&s->magic, __ATOMIC_ACQUIRE) == WR_SNAPSHOT_MAGIC)
		return 0;
	return wr_invalid(function, "the snapshot has ended");
}

void wr_snapshots_fork_child(void)
{
	/* Who held it is not here.  The list may lack its end. */
	lock = 0;
	count = 0;
}
