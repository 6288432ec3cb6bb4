/* SPDX-License-Identifier: MIT */
/*
 * Threads that the program holds (runtime/thread_park.c).
 *
 * Such a thread must not have what others cannot do without:
 *
 *   - locks of the library.  A mutator holds them while it is CRITICAL, when it
 *     is not held, or in a blocking region, where it goes on; all but that of a
 *     heap's creation and end, and one,
 *   - the lock of weir_locked_call().  Whoever holds a thread has that one; and
 *     who waited for it in a region lets go of it rather than be held with it.
 *
 * The caller is in a blocking region, as any stopper is; also where it only
 * takes the registry's lock, with which no thread may be held.  If it is the
 * thread itself, it is held when it leaves the region: it lets go of the lock
 * before.
 *
 *   all of it: any thread but the collector's
 */
#include <errno.h>

#include <weir/snapshot.h>

#include "gc/heap.h"
#include "gc/locked.h"

/* Of who has suspended all. */
static __thread unsigned suspended_all;

static bool is_thread(const struct wr_thread *t, void *thread)
{
	const struct weir_mutator *m =
		(const struct weir_mutator *)((const char *)t -
					      offsetof(struct weir_mutator,
						       thread));

	return pthread_equal(m->self, *(pthread_t *)thread);
}

static int none(const char *function)
{
	return wr_error(ESRCH, "%s: the thread is not attached", function);
}

int weir_thread_suspend(weir_heap *h, pthread_t thread)
{
	struct weir_mutator *m = wg_mutator_self();
	bool self = pthread_equal(thread, pthread_self());
	int err = wg_heap_enter(h);
	bool blocked;

	if (!err && self)
		err = wg_locked_check(__func__);
	if (err)
		return err;
	/* It lets go of the lock in the region, which it may be held at the end
	 * of: by itself, or by one that it suspends. */
	wg_locked_begin(h);
	blocked = wg_region_enter(m);
	err = wr_threads_park(h->threads, is_thread, &thread);
	wg_locked_end(h);
	wg_region_leave(m, blocked);
	return err ? none(__func__) : 0;
}

int weir_thread_resume(weir_heap *h, pthread_t thread)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;

	if (err)
		return err;
	blocked = wg_region_enter(m);
	err = wr_threads_unpark(h->threads, is_thread, &thread);
	wg_region_leave(m, blocked);
	return err ? none(__func__) : 0;
}

int weir_thread_suspended(weir_heap *h, pthread_t thread)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;

	if (err)
		return err;
	blocked = wg_region_enter(m);
	err = wr_threads_is_parked(h->threads, is_thread, &thread);
	wg_region_leave(m, blocked);
	return err < 0 ? none(__func__) : err;
}

int weir_threads_suspend_begin(weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;

	if (!err)
		err = weir_locked_begin(h);
	if (err || suspended_all++)
		return err;
	blocked = wg_region_enter(m);
	wr_threads_park_all(h->threads);
	wg_region_leave(m, blocked);
	return 0;
}

int weir_threads_suspend_end(weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;

	if (err)
		return err;
	if (!suspended_all)
		return wr_invalid(__func__, "this thread did not begin");
	if (!--suspended_all) {
		blocked = wg_region_enter(m);
		wr_threads_unpark_all(h->threads);
		wg_region_leave(m, blocked);
	}
	return weir_locked_end(h);
}

/* ---- For snapshots of regions -------------------------------------------- */

/*
 * Suspended, and not stopped as for a pause: the collector's stops and these
 * come in any order, and none waits for the other for longer than it lasts,
 * but for the pause, which waits until they run again.  And the caller, who
 * goes on with its work in between, need not be in a region for all of it.
 *
 * What the library does in between waits for no thread that may be suspended:
 * handlers of faults run with all signals blocked, so a thread is not stopped
 * in one; and what they lock others lock with all signals blocked.
 */
int weir_snapshot_stop_threads(void *heap)
{
	return weir_threads_suspend_begin(heap);
}

void weir_snapshot_resume_threads(void *heap)
{
	weir_threads_suspend_end(heap);
}
