/* SPDX-License-Identifier: MIT */
/*
 * The memory of the handles of heap snapshots; all else that a snapshot has is
 * given back when it is freed.
 *
 * It is never given back, so that a handle that was freed is recognised by its
 * magic number.  What was freed is used again in its order, when KEPT others
 * have been freed since; until then an old handle is refused.
 *
 *   new, free      any thread, under `lock`
 *   valid          any thread, without it
 *   fork_child     the child's only thread
 */
#include <string.h>

#include "gc/snap.h"
#include "runtime/futex_lock.h"
#include "runtime/own_memory.h"

#define KEPT 8

static uint32_t lock; /* futex lock of what follows */
static struct weir_heap_snapshot *oldest, *newest; /* those that were freed */
static unsigned count;                             /* of them */

/* Lock held: the oldest, if it has been there for long enough. */
static struct weir_heap_snapshot *take(void)
{
	struct weir_heap_snapshot *s = oldest;

	if (count <= KEPT)
		return NULL;
	oldest = s->freed;
	count--;
	return s;
}

struct weir_heap_snapshot *wg_snap_handle_new(void)
{
	struct weir_heap_snapshot *s;
	sigset_t saved;

	wr_futex_enter(&lock, &saved);
	s = take();
	wr_futex_leave(&lock, &saved);
	if (s)
		memset(s, 0, sizeof(*s));
	else
		s = wr_own_alloc(sizeof(*s));
	if (s)
		/* Release: pairs with wg_snap_valid(). */
		__atomic_store_n(&s->magic, WG_SNAP_MAGIC, __ATOMIC_RELEASE);
	return s;
}

void wg_snap_handle_free(struct weir_heap_snapshot *s)
{
	sigset_t saved;

	/* Relaxed: nobody but who holds an old handle looks. */
	__atomic_store_n(&s->magic, 0, __ATOMIC_RELAXED);
	wr_futex_enter(&lock, &saved);
	s->freed = NULL;
	if (count++)
		newest->freed = s;
	else
		oldest = s;
	newest = s;
	wr_futex_leave(&lock, &saved);
}

int wg_snap_valid(const struct weir_heap_snapshot *s, const char *function)
{
	if (!s)
		return wr_invalid(function, "the snapshot is NULL");
	/* Acquire: pairs with the release in wg_snap_handle_new(). */
	if (__atomic_load_n(&s->magic, __ATOMIC_ACQUIRE) == WG_SNAP_MAGIC)
		return 0;
	return wr_invalid(function, "the snapshot was freed, or is none");
}

void wg_snap_handles_fork_child(void)
{
	/* Who held it is not here.  The list may lack its end. */
	lock = 0;
	count = 0;
}
