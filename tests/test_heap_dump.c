/* SPDX-License-Identifier: MIT */
/*
 * Heap dumps beside what programs do: links, stops, cancellation, signals of
 * their own.  tests/heap_dump.sh has what is in them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/heap_snapshot.h>

#include "tests/heap_snapshot.h"
#include "tests/heap_util.h"
#include "tests/must.h"

static void *chain; /* a root */

static void fill(unsigned objects)
{
	cr_assert_eq(weir_root_add(heap, &chain, sizeof(chain)), 0);
	while (objects--) {
		void **p = weir_alloc(self, 64);

		p[0] = chain;
		chain = p;
	}
}

static bool is_there(const char *path)
{
	return !access(path, F_OK);
}

/* ---- Links --------------------------------------------------------------- */

Test(heap_dump, a_link_to_nothing_stays, .timeout = 60)
{
	char dir[] = "/tmp/weir-dump.XXXXXX", link[64], target[64];
	struct stat st;

	cr_assert(mkdtemp(dir));
	snprintf(link, sizeof(link), "%s/link", dir);
	snprintf(target, sizeof(target), "%s/target", dir);
	cr_assert_eq(symlink(target, link), 0);
	heap_open(NULL);
	cr_assert_eq(weir_heap_dump(heap, link), -ENOENT);
	cr_assert(!lstat(link, &st) && S_ISLNK(st.st_mode));
	cr_assert(!is_there(target));
	/* And one to a file, which is replaced. */
	cr_assert_eq(close(open(target, O_CREAT | O_WRONLY, 0644)), 0);
	cr_assert_eq(weir_heap_dump(heap, link), 0);
	cr_assert(!lstat(link, &st) && S_ISLNK(st.st_mode));
	cr_assert(!lstat(target, &st) && st.st_size > 1000 &&
		  (st.st_mode & 07777) == 0600);
	heap_close();
	unlink(link);
	unlink(target);
	cr_assert_eq(rmdir(dir), 0);
}

/* ---- Threads that dump --------------------------------------------------- */

struct dumper {
	weir_heap_snapshot *s;
	int fd;           /* where to */
	bool at_it;       /* atomic: it is about to */
	bool returned;    /* it came back */
	const char *path; /* or where to */
};

/* To a pipe that nobody reads. */
static void *dump_main(void *arg)
{
	struct dumper *d = arg;
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	__atomic_store_n(&d->at_it, true, __ATOMIC_RELAXED);
	must(!weir_heap_snapshot_dump_fd(d->s, d->fd));
	close(d->fd);
	must(!weir_thread_detach(m));
	return NULL;
}

static void *read_all(void *fd)
{
	static char text[1 << 16];

	while (read(*(int *)fd, text, sizeof(text)) > 0)
		;
	return NULL;
}

/* One that is stopped at safepoints only comes to none while it waits. */
Test(heap_dump, nobody_waits_for_who_dumps, .timeout = 60)
{
	struct dumper d = {.s = NULL};
	pthread_t thread;
	int ends[2];

	heap_open("stop=safepoints");
	fill(50000);
	d.s = take();
	cr_assert_eq(pipe(ends), 0);
	d.fd = ends[1];
	cr_assert_eq(pthread_create(&thread, NULL, dump_main, &d), 0);
	while (!__atomic_load_n(&d.at_it, __ATOMIC_RELAXED))
		weir_safepoint(self);
	usleep(50000);
	cr_assert_eq(weir_collect(heap, 0), 0);
	weir_blocking_call(self, read_all, &ends[0]);
	weir_blocking_call(self, join, &thread);
	close(ends[0]);
	weir_heap_snapshot_free(d.s);
	heap_close();
}

/* It is cancelled when the dump is done, not in its midst. */
static void *cancelled_main(void *arg)
{
	struct dumper *d = arg;
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	pthread_cancel(pthread_self());
	must(!weir_heap_dump(heap, d->path));
	d->returned = true;
	pthread_testcancel();
	return NULL;
}

Test(heap_dump, is_no_cancellation_point, .timeout = 60)
{
	char dir[] = "/tmp/weir-dump.XXXXXX", path[64];
	struct dumper d = {.path = path};

	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	heap_open(NULL);
	fill(1000);
	run_thread(cancelled_main, &d);
	cr_assert(d.returned);
	unlink(path);
	/* Nothing else is there. */
	cr_assert_eq(rmdir(dir), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	heap_close();
}

/* ---- On a signal --------------------------------------------------------- */

static void mine(int sig)
{
	(void)sig;
}

/* The file is there, whole, within a minute. */
static bool comes(const char *path)
{
	char text[12] = "";

	for (int i = 0; i < 6000; i++) {
		FILE *f = fopen(path, "re");

		if (f) {
			must(fread(text, 1, 11, f) == 11);
			fclose(f);
			return !strcmp(text, "{\"snapshot\"");
		}
		usleep(10000);
	}
	return false;
}

Test(heap_dump, a_signal_asks_for_a_dump, .timeout = 120)
{
	char dir[] = "/tmp/weir-dump.XXXXXX", options[192], path[96];
	struct sigaction before = {.sa_handler = mine}, after;

	cr_assert(mkdtemp(dir));
	snprintf(options, sizeof(options),
		 "dump-signal=%d,dump-file=%s/%%p.heapsnapshot", SIGUSR1, dir);
	snprintf(path, sizeof(path), "%s/%ld.heapsnapshot", dir,
		 (long)getpid());
	cr_assert_eq(sigaction(SIGUSR1, &before, NULL), 0);
	heap_open(options);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(kill(getpid(), SIGUSR1), 0);
		while (access(path, R_OK))
			weir_safepoint(self);
		cr_assert(comes(path));
		unlink(path);
	}
	heap_close();
	cr_assert_eq(sigaction(SIGUSR1, NULL, &after), 0);
	cr_assert(after.sa_handler == mine);
	/* A dump that was under way when it came is done by now. */
	unlink(path);
	cr_assert_eq(rmdir(dir), 0);
}

Test(heap_dump, a_bad_signal_is_refused)
{
	static const char *const bad[] = {"dump-file=/tmp/x", "dump-signal=11",
					  "dump-signal=9", "dump-signal=30",
					  "suspend-signal=12,dump-signal=12"};
	struct weir_heap_options o = {.size = sizeof(o)};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		o.options = bad[i];
		cr_assert_eq(weir_heap_create(&o, &heap), -EINVAL, "%s",
			     bad[i]);
		cr_assert(strstr(weir_error_text(), "dump-"), "%s",
			  weir_error_text());
	}
}

Test(heap_dump, a_later_handler_stays, .timeout = 60)
{
	struct sigaction other = {.sa_handler = mine}, after;

	heap_open("dump-signal=10");
	cr_assert_eq(sigaction(SIGUSR1, &other, NULL), 0);
	heap_close();
	cr_assert_eq(sigaction(SIGUSR1, NULL, &after), 0);
	cr_assert(after.sa_handler == mine);
}

/* A program may have all its threads block it, or wait for it with sigwait().
 */
Test(heap_dump, a_blocked_signal_asks_too, .timeout = 60)
{
	char dir[] = "/tmp/weir-dump.XXXXXX", options[192], path[96];
	sigset_t usr1;

	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	snprintf(options, sizeof(options), "dump-signal=%d,dump-file=%s",
		 SIGUSR1, path);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	cr_assert_eq(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
	heap_open(options);
	cr_assert_eq(kill(getpid(), SIGUSR1), 0);
	while (!is_there(path))
		weir_safepoint(self);
	heap_close();
	unlink(path);
	cr_assert_eq(rmdir(dir), 0);
}

static uint64_t full_cycles(void)
{
	return heap_stats().cycles_full;
}

/* What is asked for before a dump begins it does for. */
Test(heap_dump, many_signals_ask_for_few_dumps, .timeout = 60)
{
	char dir[] = "/tmp/weir-dump.XXXXXX", options[192], path[96];
	uint64_t before;

	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	snprintf(options, sizeof(options),
		 "generational=off,dump-signal=%d,dump-file=%s", SIGUSR1, path);
	heap_open(options);
	fill(20000);
	before = full_cycles();
	for (int i = 0; i < 50; i++)
		cr_assert_eq(kill(getpid(), SIGUSR1), 0);
	while (!is_there(path))
		weir_safepoint(self);
	for (int i = 0; i < 50; i++) {
		usleep(10000);
		weir_safepoint(self);
	}
	cr_assert_leq(full_cycles() - before, 10);
	heap_close();
	unlink(path);
	cr_assert_eq(rmdir(dir), 0);
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
/* A child of fork() dumps when it is asked, not because its parent was. */
Test(heap_dump, a_child_is_asked_itself, .timeout = 60)
{
	char dir[] = "/tmp/weir-dump.XXXXXX", options[192], path[96];
	int status;
	pid_t pid;

	cr_assert(mkdtemp(dir));
	snprintf(options, sizeof(options), "dump-signal=%d,dump-file=%s/%%p",
		 SIGUSR1, dir);
	heap_open(options);
	fill(200000);
	snprintf(path, sizeof(path), "%s/%ld", dir, (long)getpid());
	/* While the first is written, the second waits. */
	cr_assert_eq(kill(getpid(), SIGUSR1), 0);
	while (!full_cycles())
		weir_safepoint(self);
	cr_assert_eq(kill(getpid(), SIGUSR1), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		snprintf(path, sizeof(path), "%s/%ld", dir, (long)getpid());
		CHILD(!weir_collect(heap, 0));
		for (int i = 0; i < 50; i++) {
			usleep(10000);
			weir_safepoint(self);
		}
		CHILD(!is_there(path));
		CHILD(!kill(getpid(), SIGUSR1));
		while (!is_there(path))
			weir_safepoint(self);
		CHILD(!weir_heap_destroy(heap));
		CHILD(!unlink(path));
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	heap_close();
	unlink(path);
	cr_assert_eq(rmdir(dir), 0);
}
#endif
