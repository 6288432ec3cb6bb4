/* SPDX-License-Identifier: MIT */
/*
 * The memory of compat/redis: a child of fork() sees what it held when it was
 * forked, whatever the parent writes, by instructions and by system calls; and
 * nothing that is written is lost when it is folded, beside the writers, often.
 */
#define _GNU_SOURCE
#include "compat/redis/memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#include "tests/must.h"
#include "tests/short.h"

#define THREADS 3
#define MIB ((size_t)1 << 20)
#define BYTES (16 * MIB)
#define WORDS (BYTES / 8)

static struct wr_memory memory;
static uint64_t *shadow; /* what each word was last set to */
static int quiet, parked, finish;
static uint64_t writes;

static uint64_t random_of(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void park(void)
{
	__atomic_fetch_add(&parked, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&quiet, __ATOMIC_SEQ_CST))
		sched_yield();
	__atomic_fetch_sub(&parked, 1, __ATOMIC_SEQ_CST);
}

/* Thread i writes the words that are i modulo THREADS; every other write of the
 * last is the kernel's. */
static void *write_main(void *arg)
{
	uint64_t me = (uintptr_t)arg, state = 88172645463325252u + me;
	int pipe_fd[2];

	must(!pipe(pipe_fd));
	while (!__atomic_load_n(&finish, __ATOMIC_ACQUIRE)) {
		uint64_t r = random_of(&state);
		size_t at = r % (WORDS / THREADS) * THREADS + me;
		uint64_t *word = (uint64_t *)memory.start + at;

		if (__atomic_load_n(&quiet, __ATOMIC_SEQ_CST))
			park();
		/* Half of them close together. */
		if (r >> 63)
			at = at % (32 * THREADS * 512) / THREADS * THREADS + me;
		word = (uint64_t *)memory.start + at;
		if (me == THREADS - 1 && r >> 62 & 1) {
			must(write(pipe_fd[1], &r, 8) == 8);
			must(read(pipe_fd[0], word, 8) == 8);
		} else {
			__atomic_store_n(word, r, __ATOMIC_RELAXED);
		}
		shadow[at] = r;
		__atomic_fetch_add(&writes, 1, __ATOMIC_RELAXED);
	}
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	return NULL;
}

static void stop(void)
{
	__atomic_store_n(&quiet, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&parked, __ATOMIC_SEQ_CST) < THREADS)
		sched_yield();
}

static void go(void)
{
	__atomic_store_n(&quiet, 0, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&parked, __ATOMIC_SEQ_CST))
		sched_yield();
}

static void wait_for_writes(uint64_t n)
{
	uint64_t from = __atomic_load_n(&writes, __ATOMIC_RELAXED);

	while (__atomic_load_n(&writes, __ATOMIC_RELAXED) < from + n)
		sched_yield();
}

/* Its memory and the shadow are of the moment. */
static pid_t fork_reader(int go_on)
{
	pid_t pid = fork();
	char byte;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < 2; i++) {
		CHILD(!memcmp(memory.start, shadow, BYTES));
		/* What it writes itself is nobody else's. */
		for (size_t at = 0; at < BYTES; at += 37 * 4096) {
			CHILD(!memcmp(memory.start + at, (char *)shadow + at,
				      8));
			memset(memory.start + at, 0x55, 8);
			memset((char *)shadow + at, 0x55, 8);
		}
		if (!i)
			CHILD(read(go_on, &byte, 1) == 1);
	}
	_exit(0);
}

static void whole(void)
{
	stop();
	must(!memcmp(memory.start, shadow, BYTES));
	go();
}

static void fold_all(unsigned most)
{
	int err = 1;

	while (err > 0 && most--)
		err = wr_memory_fold(&memory);
	must(err >= 0);
}

/* One save; the fold comes to `chunks` of its chunks. */
static void once(unsigned chunks)
{
	int status, go_on[2];
	pid_t pid;

	must(!pipe(go_on));
	stop();
	must(!wr_memory_split(&memory, BYTES));
	pid = fork_reader(go_on[0]);
	must(pid > 0);
	go();
	wait_for_writes(20000);
	must(write(go_on[1], "", 1) == 1);
	must(waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status),
		  "the child saw something else");
	fold_all(chunks);
	whole();
	close(go_on[0]);
	close(go_on[1]);
}

static void open_huge(bool huge)
{
	int err = wr_memory_open(&memory, BYTES, huge);

	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	shadow = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(shadow, MAP_FAILED);
}

static void open_or_skip(void)
{
	open_huge(false);
}

static void children_see_their_moments(void)
{
	pthread_t thread[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&thread[i], NULL, write_main, (void *)i));
	wait_for_writes(5000);
	/* Folded to the end, in part, not at all. */
	for (int i = 0; i < rounds(12); i++)
		once(i % 3 == 0 ? 100 : i % 3 == 1 ? 3 : 0);
	fold_all(100);
	cr_assert_eq(memory.split, 0);
	whole();
	__atomic_store_n(&finish, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < THREADS; i++)
		must(!pthread_join(thread[i], NULL));
	cr_assert(!memcmp(memory.alias, shadow, BYTES), "the file is not it");
	wr_memory_close(&memory);
}

Test(redis_memory, child_sees_the_moment)
{
	open_or_skip();
	children_see_their_moments();
}

Test(redis_memory, child_sees_the_moment_huge)
{
	open_huge(true);
	children_see_their_moments();
}

/* As often as it goes, with nobody reading: writers against the fold alone. */
Test(redis_memory, folding_loses_no_write)
{
	pthread_t thread[THREADS];

	open_or_skip();
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&thread[i], NULL, write_main, (void *)i));
	for (int i = 0; i < rounds(60); i++) {
#ifdef __SANITIZE_THREAD__ /* it takes mmap() for a write of it all */
		stop();
		must(!wr_memory_split(&memory, BYTES));
		go();
#else
		must(!wr_memory_split(&memory, BYTES));
#endif
		wait_for_writes(i % 4 * 500);
		fold_all(i % 5 == 4 ? 2 : 100);
		if (i % 10 == 9)
			whole();
	}
	fold_all(100);
	__atomic_store_n(&finish, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < THREADS; i++)
		must(!pthread_join(thread[i], NULL));
	cr_assert(!memcmp(memory.start, shadow, BYTES));
	cr_assert(!memcmp(memory.alias, shadow, BYTES));
	wr_memory_close(&memory);
}

/* Pages that nobody has are not made by splitting and folding. */
Test(redis_memory, holes_stay_holes)
{
	off_t data;

	open_or_skip();
	memory.start[10 * MIB] = 1;
	must(!wr_memory_split(&memory, BYTES));
	memory.start[10 * MIB + 4096] = 2;
	fold_all(100);
	cr_assert_eq(memory.start[10 * MIB], 1);
	cr_assert_eq(memory.start[10 * MIB + 4096], 2);
	data = lseek(memory.file, 0, SEEK_DATA);
	cr_assert_eq(data, 10 * MIB);
	data = lseek(memory.file, 10 * MIB, SEEK_HOLE);
	cr_assert_eq(data, 10 * MIB + 8192);
	must(!wr_memory_discard(&memory, memory.start + 10 * MIB, 4096));
	cr_assert_eq(memory.start[10 * MIB], 0);
	wr_memory_close(&memory);
}

/* Half of the file is holes when it is split, which the writers fill beside the
 * fold. */
Test(redis_memory, holes_are_filled_beside_it)
{
	pthread_t thread[THREADS];
	uint64_t state = 4711;

	open_or_skip();
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&thread[i], NULL, write_main, (void *)i));
	for (int i = 0; i < rounds(15); i++) {
		stop();
		for (unsigned k = 0; k < 100; k++) {
			size_t at = random_of(&state) % (BYTES / 4096 - 40);

			must(!wr_memory_discard(
				&memory, memory.start + at * 4096, 40 * 4096));
			memset((char *)shadow + at * 4096, 0, 40 * 4096);
		}
		must(!wr_memory_split(&memory, BYTES));
		go();
		wait_for_writes(3000);
		for (int err = 1; err > 0;) {
			err = wr_memory_fold(&memory);
			must(err >= 0);
			sched_yield();
		}
		whole();
	}
	__atomic_store_n(&finish, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < THREADS; i++)
		must(!pthread_join(thread[i], NULL));
	wr_memory_close(&memory);
}

/* A child that lives on has the memory for itself and can split it again. */
Test(redis_memory, child_renews)
{
	int status, up[2];
	pid_t pid;
	char byte;

	open_or_skip();
	strcpy(memory.start + 3 * MIB, "parent");
	must(!wr_memory_split(&memory, BYTES));
	must(!pipe(up));
	pid = fork();
	if (!pid) {
		CHILD(!wr_memory_renew(&memory, BYTES));
		CHILD(!strcmp(memory.start + 3 * MIB, "parent"));
		strcpy(memory.start + 3 * MIB, "child");
		CHILD(write(up[1], "", 1) == 1);
		CHILD(!wr_memory_split(&memory, BYTES));
		strcpy(memory.start + 4 * MIB, "later");
		CHILD(!strcmp(memory.alias + 4 * MIB, ""));
		while (wr_memory_fold(&memory) > 0)
			;
		CHILD(!strcmp(memory.alias + 4 * MIB, "later"));
		CHILD(!strcmp(memory.start + 3 * MIB, "child"));
		_exit(0);
	}
	must(read(up[0], &byte, 1) == 1);
	fold_all(100);
	cr_assert_str_eq(memory.start + 3 * MIB, "parent");
	must(waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status));
	cr_assert_str_eq(memory.start + 3 * MIB, "parent");
	wr_memory_close(&memory);
}

Test(redis_memory, says_what_is_missing)
{
	int err;

	if (geteuid() == 0) {
		cr_assert(!setresgid(65534, 65534, 65534));
		cr_assert(!setresuid(65534, 65534, 65534));
	}
	prctl(PR_SET_DUMPABLE, 1);
	err = wr_memory_open(&memory, BYTES, false);
	if (!err)
		cr_skip("anybody may, here");
	cr_assert_eq(err, -ENOTSUP);
	cr_assert(strstr(weir_error_text(), "userfaultfd"), "%s",
		  weir_error_text());
}
