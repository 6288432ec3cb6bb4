/* SPDX-License-Identifier: MIT */
/*
 * Running finalizers: on the program's threads or on one of the library's.
 *
 * Only a pause adds to the queue.  What is taken from it is at once on the
 * taker's stack, and stays there while the finalizer runs.
 *
 * The library's thread starts when there is work, so also in a child of
 * fork().  It is attached, runs what is queued and sleeps in a blocking
 * region; it takes the tables' lock there, hence lets go of it before it
 * leaves the region, which can take as long as a pause.
 *
 *   run            attached threads, at any time, any number
 *   wake           the collector, outside of pauses
 *   thread_stop,   one thread at a time (weir_heap_destroy())
 *     thread_allow
 */
#include "gc/weak_tables.h"

#include <errno.h>
#include <signal.h>

/* Take the first of the queue. */
static bool take(struct weir_heap *h, struct weir_mutator *m,
		 struct wg_finalizer *out)
{
	struct wg_finalizers *f = &h->weak->fin;
	bool any;

	/* A look without the lock: what is missed is there at the next. */
	if (!__atomic_load_n(&f->queued, __ATOMIC_ACQUIRE))
		return false;
	wg_weak_lock(h, m);
	any = f->head < f->tail;
	if (any) {
		uint32_t i = wg_indexes(&f->queue)[f->head++];

		*out = *(struct wg_finalizer *)(void *)wg_watch_at(&f->table,
								   i);
		wg_finalizer_drop(f, i);
		if (f->head == f->tail)
			f->head = f->tail = 0;
		__atomic_store_n(&f->queued, f->tail - f->head,
				 __ATOMIC_RELEASE);
	}
	wg_weak_unlock(h, m);
	return any;
}

long weir_finalizers_run(weir_mutator *m, size_t max)
{
	struct wg_finalizer e;
	size_t ran = 0;

	if (!wg_mutator_ok(m, __func__))
		return -EINVAL;
	while ((!max || ran < max) && take(m->heap, m, &e)) {
		m->callbacks++;
		e.fn((void *)e.watch.object, e.arg);
		m->callbacks--;
		ran++;
	}
	return (long)ran;
}

size_t weir_finalizers_queued(weir_heap *h)
{
	/* Relaxed: partner of the releases in take() and in the pause; a
	 * number, no other memory depends on it. */
	return wg_heap_ok(h)
		       ? __atomic_load_n(&h->weak->fin.queued, __ATOMIC_RELAXED)
		       : 0;
}

/* ---- The library's thread ----------------------------------------------- */

/* Sleep until there is work; false: return. */
static bool await_work(struct weir_heap *h, struct weir_mutator *m)
{
	struct wg_weak_tables *w = h->weak;
	bool quit;

	wr_thread_block_enter(&m->thread);
	wr_mutex_lock(&w->lock);
	while (!w->quit && w->fin.head == w->fin.tail)
		wr_mutex_wait(&w->lock, &w->wake);
	quit = w->quit;
	wr_mutex_unlock(&w->lock);
	wr_thread_block_leave(&m->thread);
	return !quit;
}

static bool asked_to_quit(struct weir_heap *h)
{
	return __atomic_load_n(&h->weak->quit, __ATOMIC_RELAXED);
}

/* No memory to attach: let a later cycle start another thread. */
static void give_up(struct weir_heap *h)
{
	struct wg_weak_tables *w = h->weak;

	wg_weak_lock(h, NULL);
	if (!w->quit) {
		pthread_detach(pthread_self());
		w->thread_up = false;
	}
	wg_weak_unlock(h, NULL);
}

static void *thread_main(void *arg)
{
	struct weir_heap *h = arg;
	struct weir_mutator *m;

	/* Who destroys the heap waits for this thread first. */
	if (wg_mutator_attach(h, &m)) {
		give_up(h);
		return NULL;
	}
	while (await_work(h, m))
		while (!asked_to_quit(h) && weir_finalizers_run(m, 1) > 0)
			;
	weir_thread_detach(m);
	return NULL;
}

/* With signals blocked: the thread is nobody's handler. */
static int start(struct weir_heap *h)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	/* Faults on protected pages are the barrier's to resolve. */
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&h->weak->thread, NULL, thread_main, h);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

void wg_finalizers_wake(struct weir_heap *h)
{
	struct wg_weak_tables *w = h->weak;

	if (!h->opt.finalizer_thread ||
	    !__atomic_load_n(&w->fin.queued, __ATOMIC_RELAXED))
		return;
	wg_weak_lock(h, NULL);
	if (w->thread_up)
		pthread_cond_signal(&w->wake);
	else if (!w->quit)
		/* If the system has no thread for it now, the next cycle
		 * tries again; weir_finalizers_run() works all the same. */
		w->thread_up = !start(h);
	wg_weak_unlock(h, NULL);
}

void wg_weak_thread_stop(struct weir_heap *h)
{
	struct wg_weak_tables *w = h->weak;
	struct weir_mutator *m = wg_mutator_self();
	bool up, blocked;

	if (!w)
		return;
	wg_weak_lock(h, m);
	up = w->thread_up;
	__atomic_store_n(&w->quit, true, __ATOMIC_RELAXED);
	w->thread_up = false;
	pthread_cond_signal(&w->wake);
	wg_weak_unlock(h, m);
	if (!up)
		return;
	blocked = m && wr_thread_block_enter(&m->thread);
	pthread_join(w->thread, NULL);
	if (blocked)
		wr_thread_block_leave(&m->thread);
}

void wg_weak_thread_allow(struct weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();

	wg_weak_lock(h, m);
	__atomic_store_n(&h->weak->quit, false, __ATOMIC_RELAXED);
	wg_weak_unlock(h, m);
	if (!h->opt.finalizer_thread ||
	    !__atomic_load_n(&h->weak->fin.queued, __ATOMIC_RELAXED))
		return;
	/* The next cycle starts the thread: malloc's lock, which that takes,
	 * may be a held thread's, and the stop would wait for this one. */
	wg_cycle_ask(h, m, WG_REQ_MINOR);
}

void wg_finalizers_fork_child(struct weir_heap *h)
{
	struct wg_weak_tables *w = h->weak;

	/* Who waited on it is not here. */
	pthread_cond_init(&w->wake, NULL);
	w->quit = false;
	if (w->thread_up && !pthread_equal(pthread_self(), w->thread))
		w->thread_up = false;
}
