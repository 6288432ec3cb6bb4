/* SPDX-License-Identifier: MIT */
/*
 * The program's event handler, called on the collector's thread.
 *
 * A lock of the rank `hook` is held around a call of the handler, and from
 * before to after the stop of a pause, since nothing may be waited for in
 * there.  So who replaces the handler waits for a call under way, or for the
 * end of the pause; a mutator does so in a blocking region, else the stop would
 * wait for it.  Its holder may be stopped with it by a handshake or by a slice
 * of preclean, which do not want it.
 *
 * fork() does not wait for the handler, which could wait for what the forking
 * thread has: it does not take this lock, the child's is made anew.  That the
 * child finds the function with its own argument is the control lock's doing.
 *
 *   init                      before all others, and the child's only thread
 *   hold, drop, tell, call    the collector
 *   each_held                 the collector, in the handler
 *   weir_heap_on_event        any other thread
 *
 * Fields hook, hook_arg: written with both locks held, read with either.
 */
#include "gc/event_hook.h"

#include <errno.h>

void wg_hook_init(struct weir_heap *h)
{
	wr_mutex_init(&h->hook_lock, WR_RANK_hook);
}

void wg_hook_hold(struct weir_heap *h)
{
	wr_mutex_lock(&h->hook_lock);
}

void wg_hook_drop(struct weir_heap *h)
{
	wr_mutex_unlock(&h->hook_lock);
}

void wg_hook_tell(struct weir_heap *h, enum weir_event event)
{
	wr_mutex_assert_held(&h->hook_lock);
	if (h->hook)
		h->hook(h, event, h->hook_arg);
}

void wg_hook_call(struct weir_heap *h, enum weir_event event)
{
	wg_hook_hold(h);
	wg_hook_tell(h, event);
	wg_hook_drop(h);
}

int weir_heap_on_event(weir_heap *h, weir_event_fn *fn, void *arg)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool entered;

	if (err)
		return err;
	entered = wg_region_enter(m);
	wr_mutex_lock(&h->hook_lock);
	wr_mutex_lock(&h->ctl_lock);
	h->hook = fn;
	h->hook_arg = arg;
	wr_mutex_unlock(&h->ctl_lock);
	wr_mutex_unlock(&h->hook_lock);
	wg_region_leave(m, entered);
	return 0;
}

struct each {
	weir_thread_fn *fn; /* to be called */
	void *arg;          /* its argument */
};

static void held(struct wr_thread *t, void *arg)
{
	const struct each *e = arg;

	e->fn(wg_mutator_of(t)->self, e->arg);
}

int weir_thread_each_held(weir_heap *h, weir_thread_fn *fn, void *arg)
{
	struct each e = {fn, arg};

	if (!wg_heap_ok(h))
		return -EINVAL;
	if (!fn)
		return wr_invalid(__func__, "the function is NULL");
	/* The stage is the pause's between the two events, on that thread. */
	if (!pthread_equal(pthread_self(), h->collector) ||
	    h->stage != WR_PHASE_pause)
		return wr_invalid(__func__, "not in an event handler from "
					    "STOPPED to RESUMING");
	wr_threads_for_each_held(h->threads, held, &e);
	return 0;
}
