/* SPDX-License-Identifier: MIT */
/*
 * Regions of others' making: memory that is adopted, and children of fork().
 *
 * A child has the memory, unprotected and watched by nobody; descriptors and
 * the listener were the parent's.  Only the forking thread came along, with the
 * table's lock.  A region is
 * watched again when a snapshot of it is made.  Snapshots that were under way
 * are marked as failed: their handles may be ended, and nothing else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/procmaps.h"
#include "runtime/region.h"
#include "runtime/regions.h"

int wr_region_look(struct weir_region *r)
{
	uintptr_t at = r->start, end = r->start + r->limit;
	struct wr_procmaps maps;
	struct wr_mapping m;
	bool first = true;
	int err = wr_procmaps_open(&maps);

	if (err)
		return wr_error(-err, WR_PROCMAPS ": %s; mount /proc",
				strerror(-err));
	while (at < end && wr_procmaps_next(&maps, &m)) {
		if (m.end <= at)
			continue;
		if (m.start > at)
			break;
		if (!m.readable || !m.writable ||
		    (!first && m.shared != r->shared))
			break;
		r->shared = m.shared;
		first = false;
		at = m.end;
	}
	wr_procmaps_close(&maps);
	if (at < end)
		return wr_error(EINVAL,
				"at %#lx: not mapped read-write, or shared "
				"where what is before is private; adopt memory "
				"of one sort",
				(unsigned long)at);
	return 0;
}

static void child(void)
{
	struct weir_region *r;

	wr_watch_fork_child();
	for (unsigned i = 0; (r = wr_region_next(&i));) {
		struct weir_snapshot *s = r->snapshot;

		r->watch = NULL;
		r->phase = WR_PHASE_IDLE;
		/* Where it is protected it is so no more. */
		for (size_t u = 0; u < r->bytes >> r->shift; u++)
			if (r->state[u])
				r->state[u] = WR_UNIT_OPEN | WR_UNIT_DIRTY;
		r->armed_once = false;
		r->snapshot = NULL;
		r->snap_units = 0;
		memset(r->last, 0, sizeof(r->last));
		if (r->async) {
			wr_barrier_abandon(r->async);
			r->async = NULL;
		}
		if (s) {
			/* Not copied, and not to be unmapped: another mapping
			 * may be there.  A thread that is not here may have
			 * held the lock. */
			s->pool.memory = NULL;
			wr_mutex_init(&s->arming, WR_RANK_arming);
		}
		if (s && !s->failed) {
			s->text_lock = 0;
			strcpy(s->text, "the snapshot is the parent process's; "
					"make a new one in this one");
			s->failed = -ESTALE;
		}
		if (s)
			s->orphan = true;
	}
	wr_regions_unlock();
}

int wr_regions_fork_ready(void)
{
	static bool done;
	int err;

	if (done)
		return 0;
	err = pthread_atfork(wr_regions_lock_fork, wr_regions_unlock, child);
	if (err)
		return wr_error(err, "no memory for a handler of fork(); free "
				     "some");
	done = true;
	return 0;
}

int wr_region_ready(struct weir_region *r)
{
	if (r->watch || r->async)
		return 0;
	return wr_region_watch(r, r->barrier);
}
