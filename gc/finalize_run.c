/* SPDX-License-Identifier: MIT */
/*
 * Running finalizers: on the program's threads or on one of the library's.
 *
 * Only a pause adds to the queue.  What is taken from it is at once on the
 * taker's stack, and stays there while the finalizer runs.
 *
 * If the program wants to be told of what is queued, the collector does so when
 * the pause is over, with the lock of weir_locked_call(); until then nobody
 * takes it.
 *
 * To run all there are, entries are taken from the table, too, outside of the
 * pause.  An entry there is of an object that the last pause did not find dead,
 * and has its address; with that on its stack the taker is found by the pause
 * to come, as in weir_weak_get().
 *
 * The library's thread starts when there is work, so also in a child of
 * fork().  It is attached, runs what is queued and sleeps in a blocking
 * region; it takes the tables' lock there, hence lets go of it before it
 * leaves the region, which can take as long as a pause.
 *
 *   run            attached threads, at any time, any number
 *   tell, wake     the collector, outside of pauses
 *   thread_stop,   one thread at a time (weir_heap_destroy())
 *     thread_allow
 */
#include "gc/weak_tables.h"

#include <errno.h>
#include <signal.h>

#include <weir/embed.h>

#include "gc/locked.h"

/* An entry that is out of the queue. */
static void take_entry(struct wg_finalizers *f, uint32_t i,
		       struct wg_finalizer *out)
{
	*out = *(struct wg_finalizer *)(void *)wg_watch_at(&f->table, i);
	wg_finalizer_drop(f, i);
}

/* Release: partner of the acquire load in take(). */
static void publish_count(struct wg_finalizers *f)
{
	__atomic_store_n(&f->queued, f->ready - f->head, __ATOMIC_RELEASE);
}

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
	any = f->head < f->ready;
	if (any) {
		take_entry(f, wg_indexes(&f->queue)[f->head++], out);
		if (f->head == f->tail)
			f->head = f->tail = f->ready = 0;
		publish_count(f);
	}
	wg_weak_unlock(h, m);
	return any;
}

/* The same, and if there is none in the queue any that is set.  *at: where to
 * go on looking.  Who is told of them first may be about to be: those come to
 * the queue later.  A little at a time: others wait for the lock. */
static bool take_any(struct weir_heap *h, struct weir_mutator *m, uint32_t *at,
		     struct wg_finalizer *out)
{
	struct wg_finalizers *f = &h->weak->fin;
	struct wg_watches *t = &f->table;
	bool any = take(h, m, out), more = !any;

	for (uint32_t looked = 0; more;) {
		wg_weak_lock(h, m);
		for (uint32_t n = 0; n < WG_WEAK_BATCH && !any; n++) {
			if (++looked >= t->high)
				break; /* entry 0 is none */
			if (*at >= t->high)
				*at = 1;
			any = wg_watch_at(t, *at)->state & WG_WATCH_LIVE;
			if (any)
				take_entry(f, *at, out);
			++*at;
		}
		more = !any && looked < t->high;
		wg_weak_unlock(h, m);
	}
	/* A pause may have queued some that were yet to be looked at. */
	return any || take(h, m, out);
}

static void run(struct weir_mutator *m, const struct wg_finalizer *e)
{
	m->callbacks++;
	e->fn((void *)e->watch.object, e->arg);
	m->callbacks--;
}

long weir_finalizers_run(weir_mutator *m, size_t max)
{
	struct wg_finalizer e;
	size_t ran = 0;

	if (!wg_mutator_ok(m, __func__))
		return -EINVAL;
	for (; (!max || ran < max) && take(m->heap, m, &e); ran++)
		run(m, &e);
	return (long)ran;
}

long weir_finalizers_run_all(weir_mutator *m)
{
	struct wg_finalizer e;
	uint32_t at = 1;
	long ran = 0;

	if (!wg_mutator_ok(m, __func__))
		return -EINVAL;
	for (; take_any(m->heap, m, &at, &e); ran++)
		run(m, &e);
	return ran;
}

size_t weir_finalizers_queued(weir_heap *h)
{
	/* Relaxed: partner of the releases in take() and in the pause; a
	 * number, no other memory depends on it. */
	return wg_heap_ok(h)
		       ? __atomic_load_n(&h->weak->fin.queued, __ATOMIC_RELAXED)
		       : 0;
}

/* ---- Telling of what was queued ----------------------------------------- */

void wg_finalizers_tell(struct weir_heap *h)
{
	struct wg_finalizers *f = &h->weak->fin;
	bool more;

	wg_weak_lock(h, NULL);
	more = f->ready < f->tail;
	wg_weak_unlock(h, NULL);
	if (!more)
		return;
	wg_locked_hold(h);
	do {
		uintptr_t object = 0;

		wg_weak_lock(h, NULL);
		more = f->ready < f->tail;
		if (more)
			object = wg_watch_at(&f->table,
					     wg_indexes(&f->queue)[f->ready])
					 ->object;
		wg_weak_unlock(h, NULL);
		if (more && f->told)
			f->told((void *)object, f->told_arg);
		wg_weak_lock(h, NULL);
		f->ready += more;
		publish_count(f);
		wg_weak_unlock(h, NULL);
	} while (more);
	wg_locked_drop(h);
}

struct told {
	struct wg_finalizers *f;
	weir_queued_fn *fn;
	void *arg;
};

static void *set_told(void *arg)
{
	struct told *t = arg;

	t->f->told = t->fn;
	t->f->told_arg = t->arg;
	return t;
}

int weir_finalizers_on_queued(weir_heap *h, weir_queued_fn *fn, void *arg)
{
	int err = wg_heap_enter(h);
	struct told t;

	if (err)
		return err;
	/* Neither a pause nor the telling comes in between. */
	t = (struct told){&h->weak->fin, fn, arg};
	weir_locked_call(h, set_told, &t);
	return 0;
}

/* ---- The library's thread ----------------------------------------------- */

/* Sleep until there is work; false: return. */
static bool await_work(struct weir_heap *h, struct weir_mutator *m)
{
	struct wg_weak_tables *w = h->weak;
	bool quit;

	wr_thread_block_enter(&m->thread);
	wr_mutex_lock(&w->lock);
	while (!w->quit && w->fin.head == w->fin.ready)
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
	blocked = wg_region_enter(m);
	pthread_join(w->thread, NULL);
	wg_region_leave(m, blocked);
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
