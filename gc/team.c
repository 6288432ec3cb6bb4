/* SPDX-License-Identifier: MIT */
/*
 * The team: the collector's thread and its helpers, run jobs together.
 *
 * A job's workers are numbered 0 (the caller of wg_team_run) to n - 1.  For a
 * marking job the end is found by counting the idle: a worker is idle only
 * while its own stack and deque are empty, and it stops being idle before it
 * steals.  Hence, when all are idle, no work exists: only a worker that is not
 * idle can make some.  `idle` and the deques' ends are sequentially consistent.
 *
 *   run                      the collector
 *   announce, hungry, idle   workers of the running job
 */
#include "gc/mark.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gc/team.h"

static void futex_wait(uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Set on the collector's threads, for calls that must not come from there. */
static __thread bool on_collector;

bool wg_on_collector_thread(void)
{
	return on_collector;
}

static void work(struct weir_heap *h, unsigned index)
{
	struct wg_team *t = h->team;
	uint64_t cpu = h->sys->thread_cpu_ns();

	t->fn(h, h->marker[index], t->arg);
	__atomic_add_fetch(&h->cpu_ns, h->sys->thread_cpu_ns() - cpu,
			   __ATOMIC_RELAXED);
}

static void *helper_main(void *arg)
{
	struct wg_helper *self = arg;
	struct weir_heap *h = self->heap;
	struct wg_team *t = h->team;
	uint32_t seen = 0;

	wg_delay_thread(h, WG_DELAY_COLLECTOR + self->index);
	for (;;) {
		uint32_t job;

		while ((job = __atomic_load_n(&t->job, __ATOMIC_ACQUIRE)) ==
		       seen)
			futex_wait(&t->job, seen);
		seen = job;
		/* Stored before the job, whose load has acquired it. */
		if (__atomic_load_n(&t->quit, __ATOMIC_RELAXED))
			return NULL;
		/* The number of workers is in the word: t->workers may already
		 * be that of a later job, if this one does without us. */
		if (self->index < (job & WG_JOB_WORKERS)) {
			work(h, self->index);
			if (__atomic_sub_fetch(&t->busy, 1, __ATOMIC_ACQ_REL) ==
			    0)
				futex_wake(&t->busy);
		}
	}
}

struct start {
	void *(*fn)(void *); /* what the thread runs */
	void *arg;           /* its argument */
};

static void *start_main(void *p)
{
	struct start s = *(struct start *)p;

	free(p);
	on_collector = true;
	return s.fn(s.arg);
}

/* Threads of the library block signals: they are nobody's handler. */
int wg_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	struct start *s = malloc(sizeof(*s));
	sigset_t all, old;
	int err;

	if (!s)
		return -ENOMEM;
	*s = (struct start){fn, arg};
	sigfillset(&all);
	/* Faults on protected pages are the barrier's to resolve. */
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(thread, NULL, start_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		free(s);
	return -err;
}

int wg_team_create(struct weir_heap *h)
{
	unsigned n =
		h->markers > h->pause_markers ? h->markers : h->pause_markers;
	struct wg_team *t = calloc(1, sizeof(*t));

	if (!t)
		return wr_error(ENOMEM, "no memory for the marker threads");
	h->team = t;
	for (unsigned i = 0; i < n; i++) {
		if (!h->marker[i])
			h->marker[i] = wg_marker_create(h, i);
		if (!h->marker[i])
			return wr_error(ENOMEM, "no memory for a marker");
	}
	t->size = n;
	for (unsigned i = 1; i < n; i++) {
		struct wg_helper *w = &t->helper[i];
		int err;

		w->heap = h;
		w->index = i;
		err = wg_thread_start(&w->thread, helper_main, w);
		if (err) {
			t->size = i;
			return wr_error(-err, "cannot start a marker thread; "
					      "raise RLIMIT_NPROC or lower "
					      "markers and pause-markers");
		}
	}
	return 0;
}

static void next_job(struct wg_team *t, unsigned workers)
{
	uint32_t job = (t->job & ~WG_JOB_WORKERS) + WG_JOB_WORKERS + 1;

	/* Pairs with the acquire load in helper_main. */
	__atomic_store_n(&t->job, job | workers, __ATOMIC_RELEASE);
	futex_wake(&t->job);
}

void wg_team_destroy(struct weir_heap *h)
{
	struct wg_team *t = h->team;

	if (!t)
		return;
	__atomic_store_n(&t->quit, true, __ATOMIC_RELAXED);
	next_job(t, 0);
	for (unsigned i = 1; i < t->size; i++)
		pthread_join(t->helper[i].thread, NULL);
	h->team = NULL;
	free(t);
}

void wg_team_run(struct weir_heap *h, unsigned workers, wg_job_fn *fn,
		 void *arg)
{
	struct wg_team *t = h->team;
	uint32_t busy;

	if (workers > t->size)
		workers = t->size;
	t->fn = fn;
	t->arg = arg;
	t->workers = workers;
	t->done = 0;
	__atomic_store_n(&t->idle, 0, __ATOMIC_SEQ_CST);
	/* Helpers see it by the release of the job. */
	__atomic_store_n(&t->busy, workers - 1, __ATOMIC_RELAXED);
	if (workers > 1)
		next_job(t, workers);
	fn(h, h->marker[0], arg);
	/* Acquire: partner of the release in helper_main; what the helpers
	 * marked, stacked and counted is seen after the job. */
	while ((busy = __atomic_load_n(&t->busy, __ATOMIC_ACQUIRE)) != 0)
		futex_wait(&t->busy, busy);
}

void wg_team_announce(struct weir_heap *h)
{
	struct wg_team *t = h->team;

	/* Pairs with the load in idle: who read the old number saw the deques
	 * before this push, and its wait returns at once. */
	__atomic_add_fetch(&t->offers, 1, __ATOMIC_SEQ_CST);
	futex_wake(&t->offers);
}

bool wg_team_hungry(const struct weir_heap *h)
{
	return __atomic_load_n(&h->team->idle, __ATOMIC_RELAXED) != 0;
}

static bool steal(struct wg_marker *m)
{
	struct weir_heap *h = m->heap;
	struct wg_team *t = h->team;

	for (unsigned k = 1; k < t->workers; k++) {
		struct wg_marker *v = h->marker[(m->index + k) % t->workers];
		struct wg_segment *s = wg_deque_steal(&v->deque);

		if (s) {
			s->next = m->full;
			m->full = s;
			return true;
		}
	}
	return false;
}

static bool something_to_steal(struct wg_marker *m)
{
	struct weir_heap *h = m->heap;
	struct wg_team *t = h->team;

	for (unsigned k = 1; k < t->workers; k++)
		if (!wg_deque_empty(
			    &h->marker[(m->index + k) % t->workers]->deque))
			return true;
	return false;
}

bool wg_team_idle(struct wg_marker *m)
{
	struct wg_team *t = m->heap->team;

	if (t->workers == 1)
		return false;
	__atomic_add_fetch(&t->idle, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		uint32_t offers = __atomic_load_n(&t->offers, __ATOMIC_SEQ_CST);

		if (__atomic_load_n(&t->done, __ATOMIC_SEQ_CST))
			return false;
		if (something_to_steal(m)) {
			__atomic_sub_fetch(&t->idle, 1, __ATOMIC_SEQ_CST);
			if (steal(m))
				return true;
			__atomic_add_fetch(&t->idle, 1, __ATOMIC_SEQ_CST);
			continue;
		}
		if (__atomic_load_n(&t->idle, __ATOMIC_SEQ_CST) == t->workers) {
			/* Sticky, so that a worker which counts itself idle
			 * late does not hide the end from the others. */
			__atomic_store_n(&t->done, 1, __ATOMIC_SEQ_CST);
			wg_team_announce(m->heap);
			return false;
		}
		futex_wait(&t->offers, offers);
	}
}

static void mark_job(struct weir_heap *h, struct wg_marker *m, void *arg)
{
	(void)h;
	(void)arg;
	wg_mark_loop(m);
}

/* Scan the marked objects of blocks whose marking overflowed. */
static void rescan_overflow(struct weir_heap *h)
{
	__atomic_store_n(&h->overflow, false, __ATOMIC_RELAXED);
	for (int sp = 0; sp < 2; sp++) {
		struct wg_space *s = &h->space[sp];

		for (uint32_t i = s->first; i < wg_high(s); i++) {
			struct wg_block *b = &h->blocks[i];
			uintptr_t at = wg_block_start(h, i);
			size_t size = WG_BLOCK;

			if (!(__atomic_fetch_and(&b->overflow,
						 (uint8_t)~WG_OVERFLOW,
						 __ATOMIC_RELAXED) &
			      WG_OVERFLOW))
				continue;
			h->marker[0]->traced = 0;
			if (wg_block_state(b) == WG_LARGE_HEAD)
				size = (size_t)b->blocks << WG_BLOCK_SHIFT;
			/* In pieces, so that the stack is empty between. */
			for (size_t d = 0; d < size; d += WG_BLOCK / 16) {
				wg_scan_marked(h->marker[0], at + d,
					       at + d + WG_BLOCK / 16);
				wg_mark_loop(h->marker[0]);
			}
		}
	}
}

void wg_team_mark(struct weir_heap *h, unsigned workers)
{
	wg_team_run(h, workers, mark_job, NULL);
	while (__atomic_load_n(&h->overflow, __ATOMIC_RELAXED)) {
		h->team->workers = 1;
		rescan_overflow(h);
		wg_team_run(h, workers, mark_job, NULL);
	}
}
