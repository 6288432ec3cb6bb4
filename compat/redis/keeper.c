/* SPDX-License-Identifier: MIT */
/*
 * fork(): split, then the system's.  And the keeper, a thread that waits for
 * the children to go and folds what was split.
 *
 * A child is gone when it has exited (a pidfd tells) or runs another program,
 * and nobody holds the end of the pipe that it inherited (so that a child of a
 * child counts, too): the file is its memory as it was, and to be left alone
 * until then.
 *
 *   `lock`   the memory, the children.  fork() holds it until the child is
 *            noted, the keeper for a step: a chunk, or a slice of pages.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <weir/weir.h>

#include "compat/redis/internal.h"
#include "runtime/check.h"
#include "runtime/futex_lock.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define CHILDREN 16

/* Descriptors, -1 when what they tell has been told. */
struct child {
	pid_t pid; /* its number; 0 if there is no pidfd */
	int pidfd; /* readable when it has exited */
	int token; /* hung up when nobody has the other end */
};

enum wr_redis_role wr_redis_role;
struct wr_memory wr_redis_memory;
bool wr_redis_log;

static uint32_t lock; /* futex lock of the memory and what follows */
static struct child children[CHILDREN];
static unsigned child_count; /* of them */
static int kick = -1;        /* eventfd: something is to be done */
static int last_error;       /* of a fold, that was told; the keeper's */
static pid_t (*system_fork)(void);
static pid_t (*system_setsid)(void);

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void wr_redis_say(bool always, const char *format, ...)
{
	static const char prefix[] = "weir-redis: ";
	char text[512];
	size_t at = sizeof(prefix) - 1;
	va_list args;
	int n;

	if (!always && !wr_redis_log)
		return;
	memcpy(text, prefix, at);
	va_start(args, format);
	n = vsnprintf(text + at, sizeof(text) - at - 1, format, args);
	va_end(args);
	at += n < 0 ? 0 : (size_t)n;
	if (at > sizeof(text) - 2)
		at = sizeof(text) - 2;
	text[at++] = '\n';
	if (write(STDERR_FILENO, text, at) < 0)
		return; /* nobody to tell */
}

/* ---- The keeper --------------------------------------------------------- */

/* It runs another program: what it had is not there.  If the first page is, or
 * one may not look, it is taken to have all of it. */
static bool has_gone_on(const struct child *c)
{
	char byte;
	struct iovec here = {.iov_base = &byte, .iov_len = 1};
	struct iovec there = {.iov_base = wr_redis_memory.start, .iov_len = 1};

	return c->pid && process_vm_readv(c->pid, &here, 1, &there, 1, 0) < 0 &&
	       errno == EFAULT;
}

/* Lock held. */
static void look_after_children(void)
{
	unsigned left = 0;

	for (unsigned i = 0; i < child_count; i++) {
		struct child *c = &children[i];
		struct pollfd fds[] = {{.fd = c->pidfd, .events = POLLIN},
				       {.fd = c->token, .events = POLLIN}};

		if (poll(fds, 2, 0) > 0) {
			if (fds[1].revents) {
				close(c->token);
				c->token = -1;
			}
			if (fds[0].revents ||
			    (fds[1].revents && has_gone_on(c))) {
				close(c->pidfd);
				c->pidfd = -1;
			}
		}
		if (c->pidfd >= 0 || c->token >= 0)
			children[left++] = *c;
	}
	child_count = left;
}

/* Until something happens. */
static void wait_for_news(void)
{
	struct pollfd fds[1 + 2 * CHILDREN] = {{.fd = kick, .events = POLLIN}};
	nfds_t n = 1;
	uint64_t count;

	wr_futex_lock(&lock);
	for (unsigned i = 0; i < child_count; i++) {
		fds[n++] = (struct pollfd){.fd = children[i].pidfd,
					   .events = POLLIN};
		fds[n++] = (struct pollfd){.fd = children[i].token,
					   .events = POLLIN};
	}
	wr_futex_unlock(&lock);
	poll(fds, n, -1);
	if (fds[0].revents && read(kick, &count, sizeof(count)) < 0)
		return; /* another round */
}

/* Whoever reads the log is told once. */
static void wait_to_try_again(int err)
{
	static const struct timespec moment = {.tv_nsec = 100000000};

	if (err != last_error)
		wr_redis_say(true,
			     "what was written during the save cannot be "
			     "folded just now (%s); it is tried again ten "
			     "times a second, and is there twice meanwhile",
			     strerror(-err));
	last_error = err;
	nanosleep(&moment, NULL);
}

/* One step.  False: there is nothing to be done. */
static bool step(uint64_t *started)
{
	struct wr_memory *m = &wr_redis_memory;
	bool more = false;
	int err = 0;

	wr_futex_lock(&lock);
	look_after_children();
	if (!child_count && m->split) {
		size_t bytes = m->split;

		if (!*started) {
			*started = now_ns();
			m->copied = m->held_ns = 0;
		}
		err = wr_memory_fold(m);
		more = true;
		if (!m->split) {
			wr_redis_keep_pages(false);
			wr_redis_say(false,
				     "fold: %zu MiB, %lu pages copied, %lu us, "
				     "writers held %lu us at most",
				     bytes >> 20, (unsigned long)m->copied,
				     (unsigned long)(now_ns() - *started) /
					     1000,
				     (unsigned long)m->held_ns / 1000);
			*started = 0;
		}
	} else if (!m->split) {
		if (!child_count)
			wr_redis_keep_pages(false);
		more = wr_redis_discard_noted();
	} else {
		*started = 0;
	}
	wr_futex_unlock(&lock);
	if (err < 0)
		wait_to_try_again(err);
	else if (more)
		last_error = 0;
	return more;
}

static void *keep_main(void *arg)
{
	uint64_t started = 0;

	(void)arg;
	prctl(PR_SET_NAME, "weir-keeper");
	for (;;) {
		uint64_t from = now_ns(), spent;
		struct timespec nap = {.tv_sec = 0};

		if (!step(&started)) {
			wait_for_news();
			continue;
		}
		/* As long as it took: half of a processor is the program's. */
		spent = now_ns() - from;
		nap.tv_nsec = (long)(spent < 1000000 ? spent : 1000000);
		nanosleep(&nap, NULL);
	}
	return NULL;
}

int wr_redis_start_keeper(void)
{
	struct sched_param low = {.sched_priority =
					  sched_get_priority_min(SCHED_FIFO)};
	sigset_t all, saved;
	pthread_t thread;
	int err;

	system_fork = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
	system_setsid = (pid_t(*)(void))dlsym(RTLD_NEXT, "setsid");
	kick = eventfd(0, EFD_CLOEXEC);
	if (kick < 0)
		return wr_error(errno, "eventfd: %s; raise RLIMIT_NOFILE",
				strerror(errno));
	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = pthread_create(&thread, NULL, keep_main, NULL);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (!err) {
		/* Where it is allowed: writers wait for a chunk, at which it
		 * is not to be interrupted. */
		pthread_setschedparam(thread, SCHED_FIFO, &low);
		pthread_detach(thread);
		return 0;
	}
	close(kick);
	kick = -1;
	return wr_error(err, "a thread cannot be made: %s; raise RLIMIT_NPROC",
			strerror(err));
}

/* ---- fork --------------------------------------------------------------- */

/* Where the memory goes on there is nothing in a child; nothing else is to be
 * mapped there, lest it be taken for a part of it. */
static void in_child(void)
{
	struct wr_memory *m = &wr_redis_memory;

	wr_redis_role = WR_REDIS_CHILD;
	mmap(m->start + m->split, m->limit - m->split, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	lock = 0;
	wr_redis_hooks_in_child();
	for (unsigned i = 0; i < child_count; i++) {
		if (children[i].pidfd >= 0)
			close(children[i].pidfd);
		if (children[i].token >= 0)
			close(children[i].token);
	}
	child_count = 0;
	close(kick);
	kick = -1;
}

static void add_child(pid_t pid, int token)
{
	struct child *c = &children[child_count++];

	/* Without a pidfd the token has to do. */
	c->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	c->pid = c->pidfd >= 0 ? pid : 0;
	c->token = token;
}

/* Lock held, the token's pipe open. */
static pid_t split_and_fork(int token[2])
{
	uint64_t start = now_ns(), split;
	pid_t pid;
	int err;

	wr_redis_keep_pages(true);
	err = wr_memory_split(&wr_redis_memory, wr_redis_hold_extents());
	split = now_ns();
	pid = err ? -1 : system_fork();
	if (pid == 0) {
		in_child();
		close(token[0]);
		return 0;
	}
	if (!err)
		err = errno;
	else
		err = -err;
	wr_redis_release_extents();
	if (pid > 0) {
		add_child(pid, token[0]);
		wr_redis_say(false, "fork: split %lu us, fork %lu us, %zu MiB",
			     (unsigned long)(split - start) / 1000,
			     (unsigned long)(now_ns() - split) / 1000,
			     wr_redis_memory.split >> 20);
	} else {
		close(token[0]);
	}
	close(token[1]);
	errno = err;
	return pid;
}

__attribute__((visibility("default"))) pid_t fork(void)
{
	static const uint64_t one = 1;
	int token[2], err;
	pid_t pid;

	if (!system_fork)
		system_fork = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
	if (wr_redis_role != WR_REDIS_OWNER)
		return system_fork();
	wr_futex_lock(&lock);
	look_after_children();
	if (child_count == CHILDREN) {
		wr_futex_unlock(&lock);
		errno = EAGAIN;
		return -1;
	}
	if (pipe2(token, O_CLOEXEC)) {
		wr_futex_unlock(&lock);
		return -1;
	}
	pid = split_and_fork(token);
	if (pid == 0)
		return 0; /* its lock is a new one */
	err = errno;
	wr_futex_unlock(&lock);
	if (write(kick, &one, sizeof(one)) < 0)
		wr_redis_say(true, "eventfd: %s", strerror(errno));
	errno = err;
	return pid;
}

/* A child that goes to the background is the server from now on. */
static void become_owner(void)
{
	int err = wr_memory_renew(&wr_redis_memory, wr_redis_memory.split);

	if (!err) {
		wr_redis_keep_pages(false);
		err = wr_redis_start_keeper();
	}
	wr_require(!err, "redis: in the background: %s", weir_error_text());
	wr_redis_role = WR_REDIS_OWNER;
}

__attribute__((visibility("default"))) pid_t setsid(void)
{
	if (!system_setsid)
		system_setsid = (pid_t(*)(void))dlsym(RTLD_NEXT, "setsid");
	if (wr_redis_role == WR_REDIS_CHILD)
		become_owner();
	return system_setsid();
}
