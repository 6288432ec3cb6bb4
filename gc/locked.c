/* SPDX-License-Identifier: MIT */
/*
 * Calls that no pause comes into.
 *
 * One lock, of the rank `calls`, which the collector takes before it stops the
 * world for the pause and drops when the world runs again.  So while a thread
 * has it there is no pause; nor are links and weak references cleared, which
 * pauses alone do.  A thread has it once: the calls within are counted.
 *
 * Why nobody waits for ever:
 *
 *   - The collector waits for the lock with nothing stopped, so its holder, and
 *     whoever that waits for, go on.
 *   - A mutator waits for the lock in a blocking region, so the stop of the
 *     pause, which has the lock, does not wait for it.
 *   - Once it has the lock the mutator leaves the region, which waits for a
 *     stop under way to end; not if it is to be held by the program, which
 *     could be for ever: then it lets go of the lock first.  That is a
 * handshake or a slice of preclean, not the pause, and these do not want the
 * lock.
 *   - The holder is not CRITICAL: a handshake or a slice stops it in the middle
 *     of the call, and lets it go.  Were it CRITICAL, a slice would have to
 *     wait for it with others stopped, malloc()'s lock among what they have;
 *     a call of malloc() from the function would then never return.
 *   - What waits for a whole cycle, weir_collect() and allocation, is refused
 *     to the holder; so are weir_heap_create() and weir_heap_destroy(), whose
 *     lock comes before this one.
 *
 * The collector does not take the lock from the hands of a thread that drops
 * it.  Such a thread often has yet to store what it got: Guile moves a stack
 * in such a call, and sets the pointer into it right after.  So the collector
 * does not sleep on the lock but looks, and begins its pause only when nobody
 * left a call within the last GRACE_NS; once QUIET_NS have gone by, at any
 * moment at which it finds the lock free; after PATIENCE_NS it does sleep.
 * That is kindness, not a promise: the promise ends with fn.
 *
 *   weir_locked_*       any thread but the collector's; end: who began
 *   hold, drop          the collector; who forks, in a blocking region
 */
#include "gc/locked.h"

#include <errno.h>
#include <time.h>

#include "gc/mutant.h"

__thread unsigned wg_locked_depth;

void wg_locked_init(struct weir_heap *h)
{
	wr_mutex_init(&h->calls_lock, WR_RANK_calls);
}

void wg_locked_hold(struct weir_heap *h)
{
	wr_mutex_lock(&h->calls_lock);
}

#define GRACE_NS 50000
#define QUIET_NS 2000000
#define PATIENCE_NS 20000000

void wg_locked_hold_quiet(struct weir_heap *h)
{
	uint64_t begin = h->sys->now_ns();

	for (;;) {
		uint64_t now = h->sys->now_ns();
		struct timespec pause = {.tv_nsec = GRACE_NS};

		if (now - begin > PATIENCE_NS)
			break;
		/* Relaxed: a guess at when. */
		if ((now - begin > QUIET_NS ||
		     now - __atomic_load_n(&h->calls_left_ns,
					   __ATOMIC_RELAXED) >
			     GRACE_NS) &&
		    wr_mutex_trylock(&h->calls_lock))
			return;
		nanosleep(&pause, NULL);
	}
	wr_mutex_lock(&h->calls_lock);
}

void wg_locked_drop(struct weir_heap *h)
{
	wr_mutex_unlock(&h->calls_lock);
}

int wg_in_locked_call(const char *function)
{
	errno = EDEADLK;
	return wr_error(EDEADLK,
			"%s: called within weir_locked_call(), which may not: "
			"it would wait for a pause, and the pause for it",
			function);
}

/* Take the lock.  False: the thread was to be held meanwhile (gc/suspend.c),
 * and let go of it: now it runs again.  That it is to be held does not come
 * about while it has the lock, since those who say so have it. */
static bool take(struct weir_heap *h, struct weir_mutator *m)
{
	bool entered, parked;

	if (wr_mutex_trylock(&h->calls_lock))
		return true;
	entered = wg_region_enter(m);
	wg_locked_hold(h);
	parked = entered && wr_thread_parked(&m->thread);
	if (parked)
		wg_locked_drop(h);
	wg_region_leave(m, entered);
	return !parked;
}

void wg_locked_begin(struct weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();

	if (!wg_locked_depth) {
		while (!take(h, m))
			;
		wg_delay_rarely(h);
	}
	wg_locked_depth++;
}

void wg_locked_end(struct weir_heap *h)
{
	wg_locked_depth--;
	if (!wg_locked_depth) {
		wg_delay_rarely(h);
		__atomic_store_n(&h->calls_left_ns, h->sys->now_ns(),
				 __ATOMIC_RELAXED);
		wg_locked_drop(h);
	}
}

void *weir_locked_call(weir_heap *h, void *(*fn)(void *), void *arg)
{
	void *result;

	if (wg_heap_enter(h))
		return NULL;
	if (!fn) {
		wr_invalid(__func__, "the function is NULL");
		return NULL;
	}
	wg_locked_begin(h);
	result = fn(arg);
	wg_locked_end(h);
	return result;
}

int weir_locked_begin(weir_heap *h)
{
	int err = wg_heap_enter(h);

	if (!err)
		wg_locked_begin(h);
	return err;
}

int weir_locked_end(weir_heap *h)
{
	int err = wg_heap_enter(h);

	if (err)
		return err;
	if (!wg_locked_depth)
		return wr_invalid(__func__, "this thread did not begin");
	wg_locked_end(h);
	return 0;
}
