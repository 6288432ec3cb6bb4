/* SPDX-License-Identifier: MIT */
/*
 * runtime/thread.h: threads that come, go, end without a word and fork while
 * others stop the world all the time.
 */
#define _GNU_SOURCE
#include "tests/test_thread.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- A thread that stops the others without a break ---------------------- */

static int keep_stopping;
static unsigned long stops, holds; /* atomic */

static void look_at(struct wr_thread *t, void *arg)
{
	(void)arg;
	cr_assert_eq(t->owner, registry);
	cr_assert_lt(t->stack_sp, t->stack_base);
}

static void *stop_all_the_time(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (LOAD(keep_stopping)) {
		if (rand_r(&seed) % 4) {
			wr_threads_stop_world(registry, NULL);
			wr_threads_for_each(registry, look_at, NULL);
			wr_threads_resume_world(registry);
			ADD(stops, 1);
		} else {
			wr_threads_hold_each(registry, look_at, NULL, NULL);
			ADD(holds, 1);
		}
		if (rand_r(&seed) % 8 == 0)
			pause_us(rand_r(&seed) % 500);
		else
			sched_yield();
	}
	return NULL;
}

static pthread_t stopper_id;

/* Returns when the stopper has done both of what it does. */
static void start_stopper(void)
{
	keep_stopping = 1;
	pthread_create(&stopper_id, NULL, stop_all_the_time, (void *)1);
	while (!LOAD(stops) || !LOAD(holds))
		pause_us(100);
}

static void end_stopper(void)
{
	STORE(keep_stopping, 0);
	pthread_join(stopper_id, NULL);
}

/* ---- Coming and going ---------------------------------------------------- */

static unsigned exits; /* atomic: calls of on_exit */

static void count_exit(struct wr_thread *t, void *arg)
{
	struct mutator *m = (struct mutator *)t;

	(void)arg;
	/* It runs on the thread, which is attached. */
	cr_assert(pthread_equal(m->id, pthread_self()));
	cr_assert_eq(t->owner, registry);
	safepoint(m);
	ADD(exits, 1);
}

/* Detaches and frees by itself. */
static void free_on_exit(struct wr_thread *t, void *arg)
{
	(void)arg;
	ADD(exits, 1);
	wr_thread_detach(t);
	memset(t, 0xee, sizeof(struct mutator));
	free(t);
}

/* Every second one ends while it is attached. */
static void *live_shortly(void *arg)
{
	struct mutator *m = arg;

	m->id = pthread_self();
	attach(m);
	for (int i = 0; i < 50; i++)
		safepoint(m);
	if (m->result)
		wr_thread_detach(&m->thread);
	return NULL;
}

enum { BATCH = 8, LIVES = 2000 }; /* 3 batchers: 6000 threads a mode */

static void *make_short_lives(void *arg)
{
	static struct mutator all[3][LIVES];
	struct mutator *m = all[(uintptr_t)arg];

	for (int i = 0; i < LIVES; i += BATCH) {
		pthread_t id[BATCH];

		for (int k = 0; k < BATCH; k++) {
			m[i + k].result = k & 1;
			pthread_create(&id[k], NULL, live_shortly, &m[i + k]);
		}
		for (int k = 0; k < BATCH; k++)
			pthread_join(id[k], NULL);
	}
	return NULL;
}

EACH_MODE(thread_churn, short_lives_under_continuous_stops)
{
	pthread_t id[3];

	make(*mode, count_exit);
	start_stopper();
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&id[i], NULL, make_short_lives, (void *)i);
	for (int i = 0; i < 3; i++)
		pthread_join(id[i], NULL);
	end_stopper();
	cr_assert_eq(exits, 3 * LIVES / 2);
	cr_assert_eq(wr_threads_count(registry), 0);
	wr_threads_destroy(registry);
}

EACH_MODE(thread_churn, the_exit_callback_may_detach_and_free)
{
	make(*mode, free_on_exit);
	start_stopper();
	for (int i = 0; i < 300; i++) {
		struct mutator *m = calloc(1, sizeof(*m));
		pthread_t id;

		pthread_create(&id, NULL, live_shortly, m);
		pthread_join(id, NULL);
	}
	end_stopper();
	cr_assert_eq(exits, 300);
	cr_assert_eq(wr_threads_count(registry), 0);
	wr_threads_destroy(registry);
}

/* A destructor of the program's own, which still uses the heap: it must run
 * while the thread is attached, whatever the order of the keys. */
static pthread_key_t own_key;
static unsigned own_calls;

static void own_destructor(void *arg)
{
	struct mutator *m = arg;

	cr_assert_eq(m->thread.owner, registry);
	cr_assert_eq(LOAD(exits), 0);
	safepoint(m);
	own_calls++;
}

static void *end_with_key(void *arg)
{
	struct mutator *m = arg;

	m->id = pthread_self();
	attach(m);
	pthread_setspecific(own_key, m);
	return NULL;
}

EACH_MODE(thread_churn, destructors_run_attached)
{
	static struct mutator m;
	pthread_t id;

	make(*mode, count_exit);
	cr_assert_eq(pthread_key_create(&own_key, own_destructor), 0);
	pthread_create(&id, NULL, end_with_key, &m);
	pthread_join(id, NULL);
	cr_assert_eq(own_calls, 1);
	cr_assert_eq(exits, 1);
	cr_assert_eq(wr_threads_count(registry), 0);
	wr_threads_destroy(registry);
}

#if !UNDER_TSAN
/* Cancelled inside a blocking region.  (ThreadSanitizer goes on ignoring what
 * a thread does once it was cancelled inside one of its interceptors.) */
static void *block_for_ever(void *arg)
{
	struct mutator *m = arg;

	m->id = pthread_self();
	attach(m);
	wr_thread_block_enter(&m->thread);
	for (;;)
		pause();
	return NULL;
}

EACH_MODE(thread_churn, cancelled_threads_leave)
{
	static struct mutator m[50];
	pthread_t id;

	make(*mode, count_exit);
	start_stopper();
	for (int i = 0; i < 50; i++) {
		pthread_create(&id, NULL, block_for_ever, &m[i]);
		wait_for(&m[i].ready);
		pthread_cancel(id);
		pthread_join(id, NULL);
	}
	end_stopper();
	cr_assert_eq(exits, 50);
	cr_assert_eq(wr_threads_count(registry), 0);
	wr_threads_destroy(registry);
}

#if !defined(__SANITIZE_ADDRESS__) /* it must see every thread end */
/* Ends by the bare system call: no destructor runs. */
static void *vanish(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	syscall(SYS_exit, 0);
	return NULL;
}

EACH_MODE(thread_churn, threads_that_vanish_are_dropped)
{
	static struct mutator gone[2], m;
	pthread_t id;
	int n = 0;

	make(*mode, NULL);
	start_all(&m, 1, count_up);
	for (int i = 0; i < 2; i++) {
		pthread_create(&id, NULL, vanish, &gone[i]);
		pthread_join(id, NULL);
		cr_assert_eq(wr_threads_count(registry), 2);
		if (i == 0) {
			wr_threads_stop_world(registry, NULL);
			wr_threads_for_each(registry, count_one, &n);
			wr_threads_resume_world(registry);
		} else {
			wr_threads_hold_each(registry, count_one, &n, NULL);
		}
		cr_assert_eq(n, i + 1);
		cr_assert_eq(wr_threads_count(registry), 1);
	}
	end_all(&m, 1);
}

/* Ends when it is asked to stop: the signal was sent to a thread that was
 * there, and nothing comes of it. */
static void *vanish_when_asked(void *arg)
{
	struct mutator *m = arg;

	m->critical = 1;
	attach(m);
	while (!LOAD(m->pending))
		;
	syscall(SYS_exit, 0);
	return NULL;
}

EACH_MODE(thread_churn, threads_that_vanish_in_a_stop_are_dropped)
{
	static struct mutator gone[2], m;
	int n = 0;

	make(*mode, NULL);
	start_all(&m, 1, count_up);
	for (int i = 0; i < 2; i++) {
		start_all(&gone[i], 1, vanish_when_asked);
		if (i == 0) {
			wr_threads_stop_world(registry, NULL);
			wr_threads_for_each(registry, count_one, &n);
			wr_threads_resume_world(registry);
		} else {
			wr_threads_hold_each(registry, count_one, &n, NULL);
		}
		cr_assert_eq(n, i + 1);
		cr_assert_eq(wr_threads_count(registry), 1);
		pthread_join(gone[i].id, NULL);
	}
	end_all(&m, 1);
}

#endif

static void *unattached(void *arg)
{
	while (LOAD(*(int *)arg))
		;
	return NULL;
}

static void *keep_errno(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	errno = 4711;
	while (LOAD(m->go_on))
		cr_assert_eq(errno, 4711);
	wr_thread_detach(&m->thread);
	return NULL;
}

Test(thread_churn, stray_signals_do_nothing)
{
	static struct mutator m[2];
	int go_on = 1;
	pthread_t id;

	make(WR_STOP_SIGNALS, NULL);
	pthread_create(&id, NULL, unattached, &go_on);
	start_all(m, 1, count_up);
	start_all(m + 1, 1, keep_errno);
	start_stopper();
	for (int i = 0; i < 3000; i++) {
		pthread_kill(id, SIGPWR);
		pthread_kill(m[i & 1].id, SIGPWR);
		raise(SIGPWR);
	}
	end_stopper();
	wait_moving(&m[0]);
	STORE(go_on, 0);
	pthread_join(id, NULL);
	end_all(m, 2);
}

/* A thread that has the signal pending when the registry goes away. */
Test(thread_churn, a_late_signal_does_not_kill)
{
	struct mutator m = {.go_on = 1};
	sigset_t set;

	make(WR_STOP_SIGNALS, NULL);
	attach(&m);
	sigemptyset(&set);
	sigaddset(&set, SIGPWR);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	raise(SIGPWR);
	wr_thread_detach(&m.thread);
	wr_threads_destroy(registry);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static int own_handler_calls;

static void own_handler(int sig)
{
	own_handler_calls += sig == SIGUSR2;
}

Test(thread_churn, the_signal_is_given_back)
{
	struct wr_threads_config config = {.suspend_signal = SIGUSR2};
	struct sigaction action = {.sa_handler = own_handler};
	struct mutator m = {.go_on = 1};
	struct wr_threads *second;
	sigset_t set, old;

	sigaction(SIGUSR2, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	cr_assert_eq(wr_threads_create(&config, &registry), 0);
	cr_assert_eq(wr_threads_create(&config, &second), -EBUSY);
	attach(&m);
	cr_assert_eq(wr_thread_attach(registry, &m.thread), -EBUSY);
	/* Attached threads can be stopped; the mask comes back. */
	pthread_sigmask(SIG_BLOCK, NULL, &old);
	cr_assert_eq(sigismember(&old, SIGUSR2), 0);
	raise(SIGUSR2);
	wr_thread_detach(&m.thread);
	pthread_sigmask(SIG_UNBLOCK, &set, &old);
	cr_assert_eq(sigismember(&old, SIGUSR2), 1);
	wr_threads_destroy(registry);
	cr_assert_eq(own_handler_calls, 0);
	raise(SIGUSR2);
	cr_assert_eq(own_handler_calls, 1);
	config.suspend_signal = SIGKILL;
	cr_assert_eq(wr_threads_create(&config, &registry), -EINVAL);
}
#endif

/* A RUNNING thread that stops the world would wait for itself. */
EACH_MODE(thread_churn, running_stoppers_abort)
{
	struct mutator m = {.go_on = 1};
	int status;
	pid_t pid;

	make(*mode, NULL);
	attach(&m);
	pid = fork();
	if (pid == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		alarm(60);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		wr_threads_stop_world(registry, NULL);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	wr_thread_detach(&m.thread);
	wr_threads_destroy(registry);
}

/* ---- fork ---------------------------------------------------------------- */

#if !UNDER_TSAN /* it allows no thread in a child of a threaded process */
static void count_gone(struct wr_thread *t, void *arg)
{
	cr_assert_neq(t, NULL);
	++*(int *)arg;
}

/* In the child: it alone is left, and the registry works. */
static void be_a_child(struct mutator *self, int gone, int expected_gone,
		       int expected_left)
{
	static struct mutator m[2];
	int n = 0;

	alarm(60);
	if (gone != expected_gone ||
	    wr_threads_count(registry) != (size_t)expected_left)
		_exit(1);
	m[0].go_on = m[1].go_on = 1;
	if (pthread_create(&m[0].id, NULL, count_up, &m[0]) ||
	    pthread_create(&m[1].id, NULL, count_up, &m[1]))
		_exit(2);
	wait_for(&m[0].ready);
	wait_for(&m[1].ready);
	if (self && !wr_thread_block_enter(&self->thread))
		_exit(3);
	for (int i = 0; i < 10; i++) {
		n = 0;
		wr_threads_stop_world(registry, NULL);
		wr_threads_for_each(registry, count_one, &n);
		wr_threads_resume_world(registry);
		if (n != 2 + expected_left)
			_exit(4);
		n = 0;
		wr_threads_hold_each(registry, count_one, &n, NULL);
		if (n != 2 + expected_left)
			_exit(5);
	}
	if (self)
		wr_thread_block_leave(&self->thread);
	for (int i = 0; i < 2; i++) {
		STORE(m[i].go_on, 0);
		pthread_join(m[i].id, NULL);
	}
	if (self)
		wr_thread_detach(&self->thread);
	wr_threads_destroy(registry);
	_exit(0);
}

static void fork_and_check(struct mutator *self, int others)
{
	int status, gone = 0;
	pid_t pid;

	wr_threads_fork_prepare(registry);
	pid = fork();
	if (pid == 0) {
		wr_threads_fork_child(registry, count_gone, &gone);
		be_a_child(self, gone, others, self ? 1 : 0);
	}
	wr_threads_fork_parent(registry);
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		  "child status %x", status);
}

static void *fork_attached(void *arg)
{
	struct mutator *m = arg;

	attach(m);
	for (int i = 0; i < 15; i++) {
		bool entered = false;

		/* waitpid() in the parent is not a safepoint. */
		if (i % 3 == 0)
			entered = wr_thread_block_enter(&m->thread);
		if (entered)
			wr_thread_block_leave(&m->thread);
		fork_and_check(m, 4);
		safepoint(m);
	}
	wr_thread_detach(&m->thread);
	return NULL;
}

EACH_MODE(thread_churn, fork_leaves_the_caller_attached)
{
	static struct mutator m[4], forker;
	pthread_t id;

	make(*mode, NULL);
	start_all(m, 4, count_up);
	if (*mode == WR_STOP_SIGNALS)
		start_stopper();
	pthread_create(&id, NULL, fork_attached, &forker);
	pthread_join(id, NULL);
	for (int i = 0; i < 5; i++)
		fork_and_check(NULL, 4);
	if (*mode == WR_STOP_SIGNALS)
		end_stopper();
	for (int i = 0; i < 4; i++)
		wait_moving(&m[i]);
	end_all(m, 4);
}
#endif

/* ---- Everything at once ---------------------------------------------------
 */

static struct timespec deadline;

static bool time_is_up(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > deadline.tv_sec || (now.tv_sec == deadline.tv_sec &&
						now.tv_nsec > deadline.tv_nsec);
}

/* While the world is stopped nobody may be in here. */
static int busy; /* atomic: threads that compute with critical set */

static void *live_at_random(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	unsigned long rounds = 0;

	/* However late it starts: at least some. */
	while (!time_is_up() || rounds <= 100) {
		struct mutator m = {.id = pthread_self()};

		attach(&m);
		for (int i = rand_r(&seed) % 40; i >= 0; i--) {
			switch (rand_r(&seed) % 6) {
			case 0:
				cr_assert(wr_thread_block_enter(&m.thread));
				if (rand_r(&seed) % 2)
					pause_us(rand_r(&seed) % 200);
				wr_thread_block_leave(&m.thread);
				break;
			case 1:
				m.critical = 1;
				__atomic_signal_fence(__ATOMIC_SEQ_CST);
				ADD(busy, 1);
				for (int k = rand_r(&seed) % 2000; k > 0; k--)
					ADD(m.counter, 1);
				ADD(busy, -1);
				__atomic_signal_fence(__ATOMIC_SEQ_CST);
				m.critical = 0;
				__atomic_signal_fence(__ATOMIC_SEQ_CST);
				break;
			case 2:
				wr_thread_poll(&m.thread);
				break;
			case 3:
				sched_yield();
				break;
			default:
				for (int k = rand_r(&seed) % 2000; k > 0; k--)
					ADD(m.counter, 1);
			}
			safepoint(&m);
			rounds++;
		}
		wr_thread_detach(&m.thread);
	}
	return NULL;
}

static void none_is_busy(struct wr_thread *t, void *arg)
{
	(void)t;
	(void)arg;
	cr_assert_eq(LOAD(busy), 0);
}

EACH_MODE(thread_churn, random_lives_and_stops)
{
	pthread_t id[5], stopper;
	unsigned seed = 7;

	make(*mode, NULL);
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += rounds(3);
	for (uintptr_t i = 0; i < 5; i++)
		pthread_create(&id[i], NULL, live_at_random, (void *)(i + 1));
	keep_stopping = 1;
	pthread_create(&stopper, NULL, stop_all_the_time, (void *)99);
	while (!time_is_up()) {
		wr_threads_stop_world(registry, NULL);
		none_is_busy(NULL, NULL);
		if (rand_r(&seed) % 16 == 0)
			pause_us(rand_r(&seed) % 300);
		wr_threads_for_each(registry, none_is_busy, NULL);
		wr_threads_resume_world(registry);
		pause_us(rand_r(&seed) % 300);
	}
	for (int i = 0; i < 5; i++)
		pthread_join(id[i], NULL);
	STORE(keep_stopping, 0);
	pthread_join(stopper, NULL);
	cr_assert_eq(wr_threads_count(registry), 0);
	wr_threads_destroy(registry);
}
