/* SPDX-License-Identifier: MIT */
/*
 * Parked threads: held until somebody lets them go, whatever stops come.
 *
 * PARK in a thread's word keeps it from becoming RUNNING as REQ does.  It is no
 * request: who sets it also stops the thread, once, in the ordinary way.
 *
 *	(P) when park returns, the thread has stood still since, or is in a
 *	    blocking region, or was unparked
 *
 * PARK is set first, then REQ.  Either the request finds the thread RUNNING:
 * then it is held, and when REQ is cleared PARK is there still.  Or it finds it
 * HELD or BLOCKED: to become RUNNING that one has to replace a word that is its
 * state and nothing else.
 *
 * A parked thread is HELD or BLOCKED to every stopper, which owes nothing to it
 * and is owed nothing: stops and looks at its stack go on as ever.
 *
 * PARK_ALL is the same for all; two flags, so that one who is parked by itself
 * stays so.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "runtime/check.h"
#include "runtime/thread_private.h"

struct wr_thread_private *wr_thread_find(struct wr_threads *r,
					 wr_thread_match_fn *match, void *arg)
{
	struct wr_thread_private *p;

	wr_mutex_assert_held(&r->registry);
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link))
		if (match(p->thread, arg))
			break;
	return p;
}

int wr_threads_park(struct wr_threads *r, wr_thread_match_fn *match, void *arg)
{
	struct wr_thread_private *p;

	wr_thread_check_stopper(r);
	wr_mutex_lock(&r->stop);
	wr_mutex_lock(&r->registry);
	p = wr_thread_find(r, match, arg);
	if (p) {
		/* Relaxed: the request is an acquire-release operation on the
		 * same word. */
		__atomic_fetch_or(&p->word, WR_PARK, __ATOMIC_RELAXED);
		wr_thread_hold_one(r, p, NULL, NULL);
	}
	wr_mutex_unlock(&r->registry);
	wr_thread_end_stop(r);
	return p ? 0 : -ESRCH;
}

/* Registry lock held.  Release: what was written before is seen by the thread
 * when it runs on (the acquire in wr_thread_await_release()). */
static void clear(struct wr_thread_private *p, uint32_t flag)
{
	__atomic_fetch_and(&p->word, ~flag, __ATOMIC_RELEASE);
}

int wr_threads_unpark(struct wr_threads *r, wr_thread_match_fn *match,
		      void *arg)
{
	struct wr_thread_private *p;

	wr_mutex_lock(&r->registry);
	p = wr_thread_find(r, match, arg);
	if (p)
		clear(p, WR_PARK);
	wr_mutex_unlock(&r->registry);
	wr_thread_wake(r);
	return p ? 0 : -ESRCH;
}

int wr_threads_is_parked(struct wr_threads *r, wr_thread_match_fn *match,
			 void *arg)
{
	struct wr_thread_private *p;
	int parked = -ESRCH;

	wr_mutex_lock(&r->registry);
	p = wr_thread_find(r, match, arg);
	if (p)
		parked = (__atomic_load_n(&p->word, __ATOMIC_RELAXED) &
			  WR_PARK) != 0;
	wr_mutex_unlock(&r->registry);
	return parked;
}

void wr_threads_park_all(struct wr_threads *r)
{
	struct wr_thread_private *p;

	wr_thread_check_stopper(r);
	wr_mutex_lock(&r->registry);
	r->parked_all = true;
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link))
		if (p != wr_thread_self)
			__atomic_fetch_or(&p->word, WR_PARK_ALL,
					  __ATOMIC_RELAXED);
	wr_mutex_unlock(&r->registry);
	wr_threads_stop_world(r, NULL);
	wr_threads_resume_world(r);
}

void wr_threads_unpark_all(struct wr_threads *r)
{
	struct wr_thread_private *p;

	wr_mutex_lock(&r->registry);
	r->parked_all = false;
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link))
		clear(p, WR_PARK_ALL);
	wr_mutex_unlock(&r->registry);
	wr_thread_wake(r);
}

/* Relaxed: who must know for certain is ordered after the one who parks by a
 * lock. */
bool wr_thread_parked(const struct wr_thread *t)
{
	uint32_t word = __atomic_load_n(&t->priv->word, __ATOMIC_RELAXED);

	return word != wr_unparked(word);
}

/* In a region, as whoever is not to run. */
void wr_thread_await_unparked(struct wr_thread *t)
{
	if (wr_likely(!wr_thread_parked(t)))
		return;
	wr_thread_block_enter(t);
	wr_thread_block_leave(t);
}
