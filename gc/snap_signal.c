/* SPDX-License-Identifier: MIT */
/*
 * Heap dumps of a program that knows nothing of them: a signal asks for one
 * (options dump-signal and dump-file).
 *
 * The handler posts a semaphore; a thread of the library's own, not attached,
 * takes the snapshot and writes the file.  What came of it is logged.  One heap
 * in a process, so one of each.  A child of fork() has the handler; its thread
 * starts with its collector, and a signal that it got before is not lost.
 *
 *   on_signal       any thread
 *   start           who starts the collector: at creation, or a child's first
 *                   request
 *   stop            who destroys the heap, the collector running
 */
#define _GNU_SOURCE
#include "gc/snap_signal.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <weir/heap_snapshot.h>

#define DEFAULT_FILE "weir-%p.heapsnapshot"

static sem_t asked;
static bool installed;       /* the handler is ours */
static struct sigaction old; /* what was before */
static bool up;              /* the thread is */
static pthread_t thread;     /* it */
static bool quit;            /* atomic: it is to return */

static void on_signal(int sig)
{
	int saved = errno;

	(void)sig;
	sem_post(&asked);
	errno = saved;
}

/* The option's text with the process's number for each %p. */
static void file_name(const struct weir_heap *h, char *to, size_t room)
{
	const char *from = *h->opt.dump_file ? h->opt.dump_file : DEFAULT_FILE;
	size_t n = 0;

	while (*from && n + 24 < room) {
		if (from[0] == '%' && from[1] == 'p') {
			n += (size_t)snprintf(to + n, room - n, "%ld",
					      (long)getpid());
			from += 2;
		} else {
			to[n++] = *from++;
		}
	}
	to[n] = 0;
}

static void dump(struct weir_heap *h)
{
	char name[4096];
	int err;

	file_name(h, name, sizeof(name));
	err = weir_heap_dump(h, name);
	if (err)
		wr_event_log(h->events, "heap dump: %s", weir_error_text());
	else
		wr_event_log(h->events, "heap dump: %s is written", name);
}

static bool quits(void)
{
	return __atomic_load_n(&quit, __ATOMIC_ACQUIRE);
}

static void *dump_main(void *arg)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	struct weir_heap *h = arg;

	for (;;) {
		while (sem_wait(&asked) && errno == EINTR)
			;
		/* One dump does for all who have asked by now. */
		while (!sem_trywait(&asked))
			;
		/* It may have come before the heap was quite there. */
		while (!quits() &&
		       __atomic_load_n(&wg_heap, __ATOMIC_ACQUIRE) != h)
			nanosleep(&moment, NULL);
		if (quits())
			return NULL;
		dump(h);
	}
}

/* ---- Start and stop ------------------------------------------------------ */

static int check(const struct weir_heap *h)
{
	static const int bad[] = {SIGSEGV, SIGBUS, SIGFPE,  SIGILL, SIGTRAP,
				  SIGABRT, SIGSYS, SIGKILL, SIGSTOP};
	int sig = (int)h->opt.dump_signal;

	if (!sig)
		return *h->opt.dump_file
			       ? wr_error(EINVAL,
					  "dump-file=%s: give dump-signal, "
					  "too, which asks for the dump",
					  h->opt.dump_file)
			       : 0;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (sig == bad[i])
			return wr_error(EINVAL,
					"dump-signal=%d: %s kills, stops or "
					"reports a fault; choose another, "
					"SIGUSR1 say",
					sig, strsignal(sig));
	if (sig ==
	    (h->opt.suspend_signal ? (int)h->opt.suspend_signal : SIGPWR))
		return wr_error(EINVAL,
				"dump-signal=%d: that stops threads; choose "
				"another, or another suspend-signal",
				sig);
	return 0;
}

static int install(struct weir_heap *h)
{
	struct sigaction action = {.sa_handler = on_signal,
				   .sa_flags = SA_RESTART};
	int sig = (int)h->opt.dump_signal;

	if (installed)
		return 0;
	sem_init(&asked, 0, 0);
	sigfillset(&action.sa_mask);
	if (sigaction(sig, &action, &old))
		return wr_error(errno,
				"dump-signal=%d: %s; choose another signal",
				sig, strerror(errno));
	installed = true;
	return 0;
}

int wg_dumper_start(struct weir_heap *h)
{
	sigset_t all, saved;
	int err = check(h);

	if (err || !h->opt.dump_signal || up)
		return err;
	err = install(h);
	if (err)
		return err;
	__atomic_store_n(&quit, false, __ATOMIC_RELEASE);
	/* It takes the one signal where the program's threads block it. */
	sigfillset(&all);
	sigdelset(&all, (int)h->opt.dump_signal);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = pthread_create(&thread, NULL, dump_main, h);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	up = !err;
	return err ? wr_error(err, "cannot start the thread that dumps the "
				   "heap; raise RLIMIT_NPROC")
		   : 0;
}

void wg_dumper_stop(struct weir_heap *h)
{
	int sig = (int)h->opt.dump_signal;
	struct sigaction now;

	if (up) {
		__atomic_store_n(&quit, true, __ATOMIC_RELEASE);
		sem_post(&asked);
		pthread_join(thread, NULL);
		up = false;
	}
	if (!installed)
		return;
	/* A handler that the program has put there since is its own. */
	if (!sigaction(sig, NULL, &now) && now.sa_handler == on_signal)
		sigaction(sig, &old, NULL);
	installed = false;
}

/* What the parent was asked for is the parent's. */
void wg_dumper_fork_child(void)
{
	up = false;
	if (installed)
		sem_init(&asked, 0, 0);
}
