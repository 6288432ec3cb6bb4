/* SPDX-License-Identifier: MIT */
/*
 * The stack that another thread runs on (weir_thread_set_stack_of).
 *
 * The thread is held while what it noted is changed: by a stop of its own, or
 * by the pause, in a root callback.  There threads were scanned before the
 * callbacks are called, so what is live of this one is scanned once more.
 *
 *   all of it: any thread; the collector within wg_roots_paused()
 */
#include <errno.h>

#include <weir/embed.h>

#include "gc/mark.h"

static bool is_mutator(const struct wr_thread *t, void *mutator)
{
	return t == &((struct weir_mutator *)mutator)->thread;
}

struct told {
	struct weir_mutator *m; /* whose stack, NULL once it was found */
	uintptr_t base;         /* its base */
	struct wg_marker *marker;
};

static void tell(struct wr_thread *t, void *arg)
{
	struct told *told = arg;

	if (!told->m || !is_mutator(t, told->m))
		return;
	told->m = NULL;
	/* The verifier, which asks again, finds nothing changed. */
	if (wr_thread_set_stack_held(t, told->base))
		wg_scan_thread(told->marker, t);
}

/* In the pause threads were scanned before root callbacks are called. */
static int set_in_pause(struct weir_heap *h, struct weir_mutator *m,
			uintptr_t base)
{
	struct told told = {m, base, h->marker[0]};

	wr_threads_for_each(h->threads, tell, &told);
	return told.m ? -ESRCH : 0;
}

int weir_thread_set_stack_of(weir_heap *h, weir_mutator *m, void *base)
{
	struct weir_mutator *self = wg_mutator_self();
	bool in_roots = wg_on_collector_thread() && wr_roots_in_pause();
	int err = in_roots ? 0 : wg_heap_enter(h);
	bool blocked;

	if (err)
		return err;
	if (!m)
		return wr_invalid(__func__, "the mutator is NULL");
	if (in_roots) {
		err = set_in_pause(h, m, (uintptr_t)base);
	} else {
		blocked = wg_region_enter(self);
		err = wr_threads_set_stack(h->threads, is_mutator, m,
					   (uintptr_t)base);
		wg_region_leave(self, blocked);
	}
	return err ? wr_error(ESRCH, "weir_thread_set_stack_of: the thread is "
				     "not attached")
		   : 0;
}
