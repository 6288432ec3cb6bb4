/* SPDX-License-Identifier: MIT */
/*
 * The memory of snapshots' handles (runtime/old_handles.h), which is never
 * given back: a writer that waits for a snapshot needs nothing that keeps the
 * snapshot from ending meanwhile.
 *
 *   new, free     under its lock
 *   valid         any thread, without it
 *   wake, waiting writers in handlers, also beside free and new, which leave
 *                 the two as they are
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/own_memory.h"
#include "runtime/region.h"

static struct wr_old_handles ended;

struct weir_snapshot *wr_snapshot_new(void)
{
	static const size_t head = offsetof(struct weir_snapshot, ended);
	struct wr_old_handle *old = wr_old_handle_take(&ended);
	struct weir_snapshot *s;

	if (old) {
		s = (struct weir_snapshot *)((char *)old - head);
		memset((char *)s + head, 0, sizeof(*s) - head);
	} else {
		s = wr_own_alloc(sizeof(*s));
	}
	if (s)
		/* Release: pairs with wr_snapshot_valid(). */
		__atomic_store_n(&s->magic, WR_SNAPSHOT_MAGIC,
				 __ATOMIC_RELEASE);
	return s;
}

void wr_snapshot_free(struct weir_snapshot *s)
{
	/* Relaxed: nobody but who holds an old handle looks. */
	__atomic_store_n(&s->magic, 0, __ATOMIC_RELAXED);
	wr_old_handle_add(&ended, &s->ended);
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
	wr_old_handles_fork_child(&ended);
}
