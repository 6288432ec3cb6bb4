/* SPDX-License-Identifier: MIT */
/*
 * Threads that the program holds (gc/suspend.c, runtime/thread_park.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/must.h"
#include "tests/quiet.h"

#define THREADS 3
#define WORDS 16

struct worker {
	pthread_t thread;
	unsigned long steps; /* atomic */
	weir_mutator *m;     /* its own */
};

static struct worker worker[THREADS];
static int over; /* atomic */

static bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

static unsigned long steps(const struct worker *w)
{
	return __atomic_load_n(&w->steps, __ATOMIC_RELAXED);
}

static void step(struct worker *w)
{
	__atomic_add_fetch(&w->steps, 1, __ATOMIC_RELAXED);
}

/* What only its stack has is there yet after each step. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t *volatile mine;

	must(!weir_thread_attach(heap, &w->m));
	mine = weir_alloc_leaf(w->m, WORDS * sizeof(uint64_t));
	for (int i = 0; i < WORDS; i++)
		mine[i] = 77u + (unsigned)i;
	while (!is_over()) {
		for (int i = 0; i < WORDS; i++)
			must(mine[i] == 77u + (unsigned)i);
		must(weir_alloc_inline(w->m, 48, 0));
		weir_safepoint(w->m);
		step(w);
	}
	must(!weir_thread_detach(w->m));
	return NULL;
}

static void *nap(void *us)
{
	usleep((useconds_t)(uintptr_t)us);
	return NULL;
}

static void rest(unsigned us)
{
	weir_blocking_call(self, nap, (void *)(uintptr_t)us);
}

static void moves(const struct worker *w)
{
	unsigned long before = steps(w);

	while (steps(w) == before)
		rest(100);
}

static void stands(const struct worker *w)
{
	unsigned long before = steps(w);

	rest(10000);
	cr_assert_eq(steps(w), before);
}

static void begin(const char *options, int n)
{
	heap_open(options);
	for (int i = 0; i < n; i++) {
		cr_assert_eq(pthread_create(&worker[i].thread, NULL, work,
					    &worker[i]),
			     0);
		moves(&worker[i]);
	}
}

static void finish(int n)
{
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < n; i++)
		weir_blocking_call(self, join, &worker[i].thread);
	heap_close();
}

static void collect_thrice(void)
{
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_STOPPED), 0);
}

static void one(const char *options)
{
	struct worker *w = &worker[0];

	begin(options, 2);
	for (int i = 0; i < 10; i++) {
		cr_assert_eq(weir_thread_suspended(heap, w->thread), 0);
		cr_assert_eq(weir_thread_suspend(heap, w->thread), 0);
		cr_assert_eq(weir_thread_suspend(heap, w->thread), 0);
		cr_assert_eq(weir_thread_suspended(heap, w->thread), 1);
		stands(w);
		/* It is stopped, looked at and let go; and stands. */
		collect_thrice();
		stands(w);
		moves(&worker[1]);
		cr_assert_eq(weir_thread_resume(heap, w->thread), 0);
		moves(w);
	}
	finish(2);
}

Test(suspend, one_thread, .timeout = 180)
{
	one("verify=on,poison=on");
}

Test(suspend, one_thread_at_safepoints, .timeout = 180)
{
	one("verify=on,poison=on,stop=safepoints");
}

Test(suspend, one_thread_with_delays, .timeout = 180)
{
	one("verify=on,poison=on,delay=500");
}

/* ---- Itself, in regions ---------------------------------------------------
 */

static void *suspends_itself(void *arg)
{
	struct worker *w = arg;

	must(!weir_thread_attach(heap, &w->m));
	step(w);
	must(!weir_thread_suspend(heap, pthread_self()));
	step(w);
	must(!weir_thread_detach(w->m));
	return NULL;
}

Test(suspend, itself, .timeout = 180)
{
	struct worker *w = &worker[0];

	heap_open("verify=on");
	cr_assert_eq(pthread_create(&w->thread, NULL, suspends_itself, w), 0);
	while (weir_thread_suspended(heap, w->thread) != 1)
		rest(100);
	collect_thrice();
	cr_assert_eq(steps(w), 1);
	cr_assert_eq(weir_thread_resume(heap, w->thread), 0);
	weir_blocking_call(self, join, &w->thread);
	cr_assert_eq(steps(w), 2);
	cr_assert_eq(weir_thread_resume(heap, w->thread), -ESRCH);
	heap_close();
}

static int stay_in; /* atomic */

static void *stays_in(void *arg)
{
	struct worker *w = arg;

	while (__atomic_load_n(&stay_in, __ATOMIC_RELAXED)) {
		usleep(100);
		step(w);
	}
	return NULL;
}

static void *works_blocked(void *arg)
{
	struct worker *w = arg;

	must(!weir_thread_attach(heap, &w->m));
	weir_blocking_call(w->m, stays_in, w);
	__atomic_store_n(&w->steps, 1000000, __ATOMIC_RELAXED);
	must(!weir_thread_detach(w->m));
	return NULL;
}

Test(suspend, in_a_region, .timeout = 180)
{
	struct worker *w = &worker[0];

	heap_open("verify=on");
	stay_in = 1;
	cr_assert_eq(pthread_create(&w->thread, NULL, works_blocked, w), 0);
	moves(w);
	cr_assert_eq(weir_thread_suspend(heap, w->thread), 0);
	moves(w);
	__atomic_store_n(&stay_in, 0, __ATOMIC_RELAXED);
	rest(20000);
	collect_thrice();
	cr_assert_lt(steps(w), 1000000);
	cr_assert_eq(weir_thread_resume(heap, w->thread), 0);
	weir_blocking_call(self, join, &w->thread);
	cr_assert_eq(steps(w), 1000000);
	heap_close();
}

/* ---- Not with the lock -----------------------------------------------------
 */

static int in_call; /* atomic */

static void *is_in(void *arg)
{
	__atomic_store_n(&in_call, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 50; i++)
		sched_yield();
	__atomic_store_n(&in_call, 0, __ATOMIC_RELAXED);
	return arg;
}

static void *calls(void *arg)
{
	struct worker *w = arg;

	must(!weir_thread_attach(heap, &w->m));
	while (!is_over()) {
		weir_locked_call(heap, is_in, NULL);
		step(w);
		weir_safepoint(w->m);
		/* Locks are not fair. */
		usleep(50);
	}
	must(!weir_thread_detach(w->m));
	return NULL;
}

static void *refused(void *arg)
{
	return weir_thread_suspend(heap, pthread_self()) == -EDEADLK ? arg
								     : NULL;
}

static void not_in_a_call(const char *options)
{
	struct worker *w = &worker[0];

	heap_open(options);
	cr_assert_eq(pthread_create(&w->thread, NULL, calls, w), 0);
	moves(w);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(weir_thread_suspend(heap, w->thread), 0);
		cr_assert_eq(__atomic_load_n(&in_call, __ATOMIC_RELAXED), 0);
		if (i % 20 == 0)
			cr_assert_eq(weir_collect(heap, 0), 0);
		cr_assert_eq(weir_thread_resume(heap, w->thread), 0);
		if (i % 10 == 0)
			moves(w);
	}
	cr_assert_not_null(weir_locked_call(heap, refused, &over));
	finish(1);
}

Test(suspend, not_in_a_locked_call, .timeout = 180)
{
	not_in_a_call(NULL);
}

Test(suspend, not_in_a_locked_call_at_safepoints, .timeout = 180)
{
	not_in_a_call("stop=safepoints");
}

/* ---- All ------------------------------------------------------------------
 */

static void *attaches(void *arg)
{
	struct worker *w = arg;

	must(!weir_thread_attach(heap, &w->m));
	step(w);
	must(!weir_thread_detach(w->m));
	return NULL;
}

static void all(const char *options)
{
	static struct worker late;

	begin(options, THREADS);
	for (int i = 0; i < 10; i++) {
		cr_assert_eq(weir_threads_suspend_begin(heap), 0);
		cr_assert_eq(weir_threads_suspend_begin(heap), 0);
		cr_assert_eq(
			pthread_create(&late.thread, NULL, attaches, &late), 0);
		for (int k = 0; k < THREADS; k++)
			stands(&worker[k]);
		cr_assert_eq(weir_collect(heap, 0), -EDEADLK);
		cr_assert_eq(weir_threads_suspend_end(heap), 0);
		stands(&worker[0]);
		cr_assert_eq(steps(&late), i);
		cr_assert_eq(weir_threads_suspend_end(heap), 0);
		weir_blocking_call(self, join, &late.thread);
		cr_assert_eq(steps(&late), i + 1);
		for (int k = 0; k < THREADS; k++)
			moves(&worker[k]);
		collect_thrice();
	}
	/* One stays held. */
	cr_assert_eq(weir_thread_suspend(heap, worker[1].thread), 0);
	cr_assert_eq(weir_threads_suspend_begin(heap), 0);
	cr_assert_eq(weir_threads_suspend_end(heap), 0);
	moves(&worker[0]);
	stands(&worker[1]);
	cr_assert_eq(weir_thread_resume(heap, worker[1].thread), 0);
	moves(&worker[1]);
	finish(THREADS);
}

Test(suspend, all_threads, .timeout = 180)
{
	all("verify=on,poison=on");
}

Test(suspend, all_threads_at_safepoints, .timeout = 180)
{
	all("verify=on,poison=on,stop=safepoints");
}

/* ---- Races ----------------------------------------------------------------
 */

static void *short_lived(void *arg)
{
	struct worker *w = arg;

	must(!weir_thread_attach(heap, &w->m));
	for (int i = 0; i < 20; i++)
		must(weir_alloc(w->m, 100));
	must(!weir_thread_detach(w->m));
	return NULL;
}

/* Threads that come and go. */
static void *breeds(void *arg)
{
	static struct worker w;

	while (!is_over()) {
		must(!pthread_create(&w.thread, NULL, short_lived, &w));
		pthread_join(w.thread, NULL);
	}
	return arg;
}

static void *collects(void *arg)
{
	for (int i = 0; !is_over(); i++)
		weir_collect(heap, i % 5 == 4 ? WEIR_COLLECT_STOPPED
				   : i % 3    ? WEIR_COLLECT_MINOR
					      : WEIR_COLLECT_FULL);
	return arg;
}

static void *suspends(void *arg)
{
	struct worker *w = arg;
	weir_mutator *m;
	unsigned seed = 7;

	must(!weir_thread_attach(heap, &m));
	for (int i = 0; i < 600; i++) {
		pthread_t t = w[rand_r(&seed) % 2].thread;

		if (i % 7 == 0) {
			must(!weir_threads_suspend_begin(heap));
			must(!weir_threads_suspend_end(heap));
		}
		must(!weir_thread_suspend(heap, t));
		must(weir_alloc(m, 64));
		must(weir_thread_suspended(heap, t) == 1);
		must(!weir_thread_resume(heap, t));
		weir_safepoint(m);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

static void races(const char *options)
{
	pthread_t t[3];

	begin(options, THREADS);
	pthread_create(&t[0], NULL, breeds, NULL);
	pthread_create(&t[1], NULL, collects, NULL);
	pthread_create(&t[2], NULL, suspends, worker);
	weir_blocking_call(self, join, &t[2]);
	for (int i = 0; i < THREADS; i++)
		moves(&worker[i]);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t[0]);
	weir_blocking_call(self, join, &t[1]);
	finish(THREADS);
}

Test(suspend, races, .timeout = 240)
{
	races("heap-min=2m,verify=on,poison=on");
}

Test(suspend, races_at_safepoints, .timeout = 240)
{
	races("heap-min=2m,poison=on,stop=safepoints");
}

Test(suspend, races_with_delays, .timeout = 240)
{
	races("heap-min=2m,poison=on,delay=300");
}

/* ---- Each other -----------------------------------------------------------
 */

static pthread_t both[2];
static int started; /* atomic */

static void *suspends_the_other(void *arg)
{
	long me = (long)arg;
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	__atomic_add_fetch(&started, 1, __ATOMIC_RELAXED);
	while (__atomic_load_n(&started, __ATOMIC_RELAXED) < 2)
		weir_safepoint(m);
	for (int i = 0; i < 2000; i++) {
		int err = weir_thread_suspend(heap, both[!me]);

		must(!err || err == -ESRCH);
		if (!err)
			must(!weir_thread_resume(heap, both[!me]));
		/* That takes the same lock. */
		must(!weir_collect_hold(heap));
		must(!weir_collect_release(heap));
		if (i % 100 == 0)
			weir_collect(heap, WEIR_COLLECT_MINOR);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

Test(suspend, each_other, .timeout = 240)
{
	begin("heap-min=2m,poison=on", 0);
	for (long i = 0; i < 2; i++)
		must(!pthread_create(&both[i], NULL, suspends_the_other,
				     (void *)i));
	for (int i = 0; i < 2; i++)
		weir_blocking_call(self, join, &both[i]);
	finish(0);
}

/* ---- fork -----------------------------------------------------------------
 */

#ifndef __SANITIZE_THREAD__ /* it allows no thread in the child */
static int child_status;    /* atomic: plus 1 */

static void *forks(void *arg)
{
	int status;
	pid_t pid;

	quiet_before_fork();
	pid = fork();
	if (!pid) {
		alarm(60);
		return arg;
	}
	waitpid(pid, &status, 0);
	__atomic_store_n(&child_status, status + 1, __ATOMIC_RELAXED);
	return NULL;
}

/* A child of a thread that is to be held is not held. */
static void *region_fork(void *arg)
{
	while (weir_thread_suspended(heap, pthread_self()) != 1)
		usleep(100);
	return forks(arg);
}

static void *forks_suspended(void *arg)
{
	struct worker *w = arg;

	must(!weir_thread_attach(heap, &w->m));
	step(w);
	if (weir_blocking_call(w->m, region_fork, w)) {
		/* The child. */
		must(weir_alloc(w->m, 64));
		must(!weir_collect(heap, 0));
		_exit(0);
	}
	must(!weir_thread_detach(w->m));
	return NULL;
}

Test(suspend, a_child_runs, .timeout = 180)
{
	struct worker *w = &worker[0];

	heap_open(NULL);
	cr_assert_eq(pthread_create(&w->thread, NULL, forks_suspended, w), 0);
	while (!steps(w))
		rest(100);
	cr_assert_eq(weir_thread_suspend(heap, w->thread), 0);
	while (!__atomic_load_n(&child_status, __ATOMIC_RELAXED))
		rest(1000);
	cr_assert_eq(child_status - 1, 0);
	cr_assert_eq(weir_thread_resume(heap, w->thread), 0);
	weir_blocking_call(self, join, &w->thread);
	heap_close();
}

/* Who is about to fork is not held with all the library's locks. */
static void *forks_often(void *arg)
{
	struct worker *w = arg;
	int status;

	must(!weir_thread_attach(heap, &w->m));
	while (!is_over()) {
		pid_t pid = fork();

		if (!pid) {
			alarm(60);
			must(weir_alloc(w->m, 64));
			_exit(0);
		}
		must(waitpid(pid, &status, 0) == pid && !status);
		step(w);
		weir_safepoint(w->m);
	}
	must(!weir_thread_detach(w->m));
	return NULL;
}

static void forks_beside(const char *options)
{
	struct worker *w = &worker[0];

	heap_open(options);
	cr_assert_eq(pthread_create(&w->thread, NULL, forks_often, w), 0);
	moves(w);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(weir_thread_suspend(heap, w->thread), 0);
		if (i % 10 == 0)
			cr_assert_eq(weir_collect(heap, 0), 0);
		cr_assert_not_null(weir_alloc(self, 64));
		cr_assert_eq(weir_thread_resume(heap, w->thread), 0);
		if (i % 5 == 0)
			moves(w);
		else
			rest(200);
	}
	finish(1);
}

Test(suspend, who_forks, .timeout = 240)
{
	forks_beside(NULL);
}

Test(suspend, who_forks_with_delays, .timeout = 240)
{
	forks_beside("delay=300");
}
#endif
