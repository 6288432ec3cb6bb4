/* SPDX-License-Identifier: MIT */
/*
 * compat/redis's extent hooks and fork(), driven as jemalloc and Redis do: what
 * is committed is kept, what is decommitted reads as zero when it is committed
 * again and goes back to the system, and every child sees its moment.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <weir/weir.h>

#include "compat/redis/extent_hooks.h"
#include "compat/redis/internal.h"
#include "tests/must.h"
#include "tests/seccomp.h"

#define PAGE ((size_t)4096)
#define MIB ((size_t)1 << 20)
#define THREADS 3
#define PAGES 1024 /* of each thread's extent */

static struct extent_hooks *hooks;

static int fake_mallctl(const char *name, void *old, size_t *old_size,
			void *new, size_t new_size)
{
	(void)old_size;
	(void)new_size;
	if (!strcmp(name, "opt.narenas"))
		*(unsigned *)old = 1;
	else if (!strcmp(name, "opt.oversize_threshold"))
		*(size_t *)old = 0;
	else if (!strcmp(name, "arena.0.extent_hooks"))
		hooks = *(struct extent_hooks **)new;
	else
		return ENOENT;
	return 0;
}

static void begin(void)
{
	int err = wr_memory_open(&wr_redis_memory, (size_t)1 << 30, false);

	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	must(!wr_redis_start_keeper());
	must(!wr_redis_hook((void *)fake_mallctl));
	wr_redis_role = WR_REDIS_OWNER;
}

static char *new_extent(size_t bytes, bool committed)
{
	bool zero = false, commit = committed;
	char *p = hooks->alloc(hooks, NULL, bytes, PAGE, &zero, &commit, 0);

	must(p && zero && (commit || !committed));
	if (!commit)
		must(!hooks->commit(hooks, p, bytes, 0, bytes, 0));
	return p;
}

static bool commit(char *p, size_t pages)
{
	return !hooks->commit(hooks, p, pages * PAGE, 0, pages * PAGE, 0);
}

static bool decommit(char *p, size_t pages)
{
	return !hooks->decommit(hooks, p, pages * PAGE, 0, pages * PAGE, 0);
}

/* Is there a private mapping of the memory? */
static bool is_split(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	bool yes = false;
	char line[512];

	must(f);
	while (fgets(line, sizeof(line), f))
		yes |= strstr(line, "memfd:weir-redis") &&
		       strstr(line, " rw-p ");
	fclose(f);
	return yes;
}

static void moment(void)
{
	static const struct timespec t = {.tv_nsec = 2000000};

	nanosleep(&t, NULL);
}

static void wait_for_fold(void)
{
	while (is_split())
		moment();
}

/* A child that checks with `see` at once and when it is told to by *go. */
static pid_t child_that_sees(bool (*see)(void), int *go)
{
	int p[2];
	char byte;
	pid_t pid;

	must(!pipe(p));
	pid = fork();
	if (!pid) {
		close(p[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		CHILD(see());
		CHILD(read(p[0], &byte, 1) == 1);
		CHILD(see());
		_exit(0);
	}
	must(pid > 0);
	close(p[0]);
	*go = p[1];
	return pid;
}

static void ends_well(pid_t pid, int go)
{
	int status;

	must(write(go, "", 1) == 1);
	close(go);
	must(waitpid(pid, &status, 0) == pid);
	must(WIFEXITED(status) && !WEXITSTATUS(status));
}

/* ---- Extents and pages -------------------------------------------------- */

static char *extent;

static bool says_one(void)
{
	return !strcmp(extent, "one") && !strcmp(extent + 4 * MIB, "one");
}

/* An extent that is asked for committed has no `commit` of its own. */
Test(redis_hooks, committed_at_once)
{
	int go;
	pid_t pid;

	begin();
	extent = new_extent(6 * MIB, true);
	strcpy(extent, "one");
	strcpy(extent + 4 * MIB, "one");
	pid = child_that_sees(says_one, &go);
	strcpy(extent, "two");
	strcpy(extent + 4 * MIB, "two");
	ends_well(pid, go);
	wait_for_fold();
	must(!strcmp(extent, "two"));
	must(!strcmp(extent + 4 * MIB, "two"));
}

static blkcnt_t blocks(void)
{
	struct stat st;

	must(!fstat(wr_redis_memory.file, &st));
	return st.st_blocks;
}

static bool is_zero(const char *p)
{
	static const char zero[PAGE];

	return !memcmp(p, zero, PAGE);
}

/* What is freed in a save is the child's until the end, zero if it is used
 * again, and the system's after it. */
Test(redis_hooks, decommitted_in_a_save)
{
	blkcnt_t before;
	pid_t pid;
	int go;

	begin();
	extent = new_extent(6 * MIB, false);
	memset(extent, 7, 6 * MIB);
	strcpy(extent, "one");
	strcpy(extent + 4 * MIB, "one");
	before = blocks();
	pid = child_that_sees(says_one, &go);
	must(decommit(extent, 6 * MIB / PAGE));
	must(blocks() >= before);
	must(commit(extent + 4 * MIB, 2));
	must(is_zero(extent + 4 * MIB));
	strcpy(extent + 4 * MIB + PAGE, "new");
	ends_well(pid, go);
	wait_for_fold();
	must(is_zero(extent + 4 * MIB));
	must(!strcmp(extent + 4 * MIB + PAGE, "new"));
	for (int i = 0; blocks() > 4 * 8 && i < 5000; i++)
		moment();
	must(blocks() <= 4 * 8); /* given back */
	must(commit(extent, 1));
	must(is_zero(extent));
	/* And at once when there is no save. */
	strcpy(extent, "three");
	must(decommit(extent, 1) && commit(extent, 1));
	must(is_zero(extent));
}

/* ---- fork() ------------------------------------------------------------- */

static void *fail_to_fork(void *arg)
{
	must(!seccomp_deny(SYS_clone, EAGAIN)); /* on this thread */
	errno = 0;
	must(fork() == -1);
	must(errno == EAGAIN);
	return arg;
}

/* The system's fork() fails: errno is its own, nothing is lost, and what was
 * split for it is folded again. */
Test(redis_hooks, fork_fails)
{
	pthread_t thread;

	begin();
	extent = new_extent(6 * MIB, false);
	strcpy(extent, "one");
	must(!pthread_create(&thread, NULL, fail_to_fork, NULL));
	must(!pthread_join(thread, NULL));
	strcpy(extent + 4 * MIB, "two");
	wait_for_fold();
	must(!strcmp(extent, "one"));
	must(!strcmp(extent + 4 * MIB, "two"));
	/* Soon pages are given back at once again. */
	for (int i = 0;; i++) {
		must(i < 5000 && decommit(extent, 1));
		if (blocks() <= 8)
			break;
		must(commit(extent, 1));
		moment();
	}
	must(commit(extent, 1) && is_zero(extent));
}

static bool says_two(void)
{
	return !strcmp(extent, "two") && !strcmp(extent + 4 * MIB, "one");
}

/* The second of two at a time sees a moment of its own. */
Test(redis_hooks, two_children)
{
	int go[2];
	pid_t pid[2];

	begin();
	extent = new_extent(6 * MIB, false);
	strcpy(extent, "one");
	strcpy(extent + 4 * MIB, "one");
	pid[0] = child_that_sees(says_one, &go[0]);
	strcpy(extent, "two");
	pid[1] = child_that_sees(says_two, &go[1]);
	strcpy(extent, "three");
	strcpy(extent + 4 * MIB, "three");
	ends_well(pid[0], go[0]);
	moment();
	must(is_split()); /* not folded under the second child */
	ends_well(pid[1], go[1]);
	wait_for_fold();
	must(!strcmp(extent, "three"));
	must(!strcmp(extent + 4 * MIB, "three"));
}

/* A child's child counts after the child has gone. */
Test(redis_hooks, grandchild)
{
	int go[2], seen[2], status;
	char byte = 0;
	pid_t pid;

	begin();
	extent = new_extent(6 * MIB, false);
	strcpy(extent, "one");
	strcpy(extent + 4 * MIB, "one");
	must(!pipe(go) && !pipe(seen));
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		if (!fork()) {
			close(go[1]);
			CHILD(!read(go[0], &byte, 1));
			byte = says_one();
			CHILD(write(seen[1], &byte, 1) == 1);
		}
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid);
	strcpy(extent, "two");
	for (int i = 0; i < 20; i++)
		moment();
	must(is_split()); /* not folded under the grandchild */
	close(go[1]);
	must(read(seen[0], &byte, 1) == 1);
	must(byte); /* it saw the moment */
	wait_for_fold();
	must(!strcmp(extent, "two"));
}

/* A child that runs another program has no memory of this one, as long as it
 * runs; one that has closed what it inherited has it still. */
Test(redis_hooks, child_runs_another_program)
{
	pid_t pid[2];
	int go[2];
	char byte;

	begin();
	extent = new_extent(6 * MIB, false);
	strcpy(extent, "one");
	strcpy(extent + 4 * MIB, "one");
	must(!pipe(go));
	pid[0] = fork();
	if (!pid[0]) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("sleep", "sleep", "1000", (char *)NULL);
		_exit(1);
	}
	must(pid[0] > 0);
	strcpy(extent, "two");
	wait_for_fold();
	must(!strcmp(extent, "two"));
	pid[1] = fork();
	if (!pid[1]) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int fd = 3; fd < 1000; fd++)
			if (fd != go[0])
				close(fd);
		CHILD(read(go[0], &byte, 1) == 1);
		CHILD(says_two());
		_exit(0);
	}
	must(pid[1] > 0);
	strcpy(extent, "three");
	for (int i = 0; i < 20; i++)
		moment();
	must(is_split());
	ends_well(pid[1], go[1]);
	wait_for_fold();
	must(!kill(pid[0], SIGKILL));
	must(waitpid(pid[0], NULL, 0) == pid[0]);
}

/* ---- All of it at once -------------------------------------------------- */

/* Of thread i; where it was last stopped. */
static struct owned {
	char *extent;
	uint64_t value[PAGES]; /* of each page; 0: not committed */
} owned[THREADS];
static int quiet, parked, finish;

static uint64_t *word_of(struct owned *o, size_t page)
{
	return (uint64_t *)(void *)(o->extent + page * PAGE) + page % 512;
}

static void act(struct owned *o, uint64_t r)
{
	size_t page = r % PAGES, end = page + 1 + (r >> 20) % 16;

	if (end > PAGES)
		end = PAGES;
	for (; page < end; page++) {
		if (o->value[page] && r >> 40 & 3) {
			*word_of(o, page) = o->value[page] = r | 1;
		} else if (o->value[page]) {
			must(decommit(o->extent + page * PAGE, 1));
			o->value[page] = 0;
		} else {
			must(commit(o->extent + page * PAGE, 1));
			must(is_zero(o->extent + page * PAGE));
			*word_of(o, page) = o->value[page] = r | 1;
		}
	}
}

static void *act_main(void *arg)
{
	struct owned *o = &owned[(uintptr_t)arg];
	uint64_t r = 88172645463325252u + (uintptr_t)arg;

	while (!__atomic_load_n(&finish, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&quiet, __ATOMIC_SEQ_CST)) {
			__atomic_fetch_add(&parked, 1, __ATOMIC_SEQ_CST);
			while (__atomic_load_n(&quiet, __ATOMIC_SEQ_CST))
				sched_yield();
			__atomic_fetch_sub(&parked, 1, __ATOMIC_SEQ_CST);
		}
		r ^= r << 13;
		r ^= r >> 7;
		r ^= r << 17;
		act(o, r);
	}
	return NULL;
}

static bool all_there(void)
{
	for (size_t i = 0; i < THREADS; i++)
		for (size_t page = 0; page < PAGES; page++)
			if (owned[i].value[page] &&
			    *word_of(&owned[i], page) != owned[i].value[page])
				return false;
	return true;
}

/* In a child: also, what it takes anew is zero. */
static bool all_there_and_zero(void)
{
	if (!all_there())
		return false;
	for (size_t page = 0; page < PAGES; page += 7) {
		char *at = owned[1].extent + page * PAGE;

		if (owned[1].value[page])
			continue;
		if (!commit(at, 1) || !is_zero(at))
			return false;
		*word_of(&owned[1], page) = owned[1].value[page] = page + 1;
	}
	return true;
}

static void hush(bool on)
{
	__atomic_store_n(&quiet, on, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&parked, __ATOMIC_SEQ_CST) != (on ? THREADS : 0))
		sched_yield();
}

Test(redis_hooks, everything_at_once)
{
	pthread_t thread[THREADS];

	begin();
	for (uintptr_t i = 0; i < THREADS; i++) {
		owned[i].extent = new_extent(PAGES * PAGE, false);
		must(decommit(owned[i].extent, PAGES));
	}
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&thread[i], NULL, act_main, (void *)i));
	for (int i = 0; i < 40; i++) {
		int go;
		pid_t pid;

		hush(true);
		must(all_there());
		pid = child_that_sees(all_there_and_zero, &go);
		hush(false);
		moment();
		if (i % 5 == 4)
			kill(pid, SIGKILL);
		if (i % 5 == 4) {
			close(go);
			must(waitpid(pid, NULL, 0) == pid);
		} else {
			ends_well(pid, go);
		}
		/* To the end, a part of it, or not at all. */
		if (i % 3 == 0)
			wait_for_fold();
		else if (i % 3 == 1)
			moment();
	}
	__atomic_store_n(&finish, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < THREADS; i++)
		must(!pthread_join(thread[i], NULL));
	wait_for_fold();
	must(all_there());
}
