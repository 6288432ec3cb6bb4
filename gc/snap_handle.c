/* SPDX-License-Identifier: MIT */
/*
 * The memory of the handles of heap snapshots (runtime/old_handles.h); all else
 * that a snapshot has is given back when it is freed.
 *
 *   new, free      any thread, under its lock
 *   valid          any thread, without it
 *   fork_child     the child's only thread
 */
#include <string.h>

#include "gc/snap.h"
#include "runtime/own_memory.h"

static struct wr_old_handles freed;

struct weir_heap_snapshot *wg_snap_handle_new(void)
{
	static const size_t at = offsetof(struct weir_heap_snapshot, freed);
	struct wr_old_handle *old = wr_old_handle_take(&freed);
	struct weir_heap_snapshot *s;

	if (old) {
		s = (struct weir_heap_snapshot *)((char *)old - at);
		memset(s, 0, sizeof(*s));
	} else {
		s = wr_own_alloc(sizeof(*s));
	}
	if (s)
		/* Release: pairs with wg_snap_valid(). */
		__atomic_store_n(&s->magic, WG_SNAP_MAGIC, __ATOMIC_RELEASE);
	return s;
}

void wg_snap_handle_free(struct weir_heap_snapshot *s)
{
	/* Relaxed: nobody but who holds an old handle looks. */
	__atomic_store_n(&s->magic, 0, __ATOMIC_RELAXED);
	wr_old_handle_add(&freed, &s->freed);
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
	wr_old_handles_fork_child(&freed);
}
