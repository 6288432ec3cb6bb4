/* SPDX-License-Identifier: MIT */
/*
 * The write barrier, what differs between its kinds: system calls that write
 * into protected pages, the events of sync, errors, and what is left when one
 * is destroyed.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier.h"
#include "runtime/barrier_ops.h"
#include "tests/memory.h"
#include "tests/quiet.h"

#define PAGE ((size_t)getpagesize())
#define NOBODY 65534

static void drop_privileges(void)
{
	if (geteuid() == 0) {
		cr_assert(!setresgid(NOBODY, NOBODY, NOBODY));
		cr_assert(!setresuid(NOBODY, NOBODY, NOBODY));
	}
	/* As after an execve(): changing the user took this away. */
	cr_assert(!prctl(PR_SET_DUMPABLE, 1));
}

static struct wr_barrier *make(enum wr_barrier_kind kind)
{
	struct wr_barrier *b = NULL;
	int err = wr_barrier_create(kind, &b);

	cr_assert(!strstr(weir_error_text(), "does not report"), "%s",
		  weir_error_text());
	if (err == -ENOTSUP)
		cr_skip("%s: %s", wr_barrier_name(kind), weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	return b;
}

static volatile char *map(size_t pages)
{
	char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
	memset(p, 1, pages * PAGE);
	return p;
}

static volatile char *map_range(struct wr_barrier *b, size_t pages)
{
	volatile char *p = map(pages);

	cr_assert_eq(wr_barrier_add_range(b, (void *)p, pages * PAGE), 0, "%s",
		     weir_error_text());
	return p;
}

static void arm(struct wr_barrier *b, volatile char *p, size_t pages)
{
	cr_assert_eq(wr_barrier_arm(b, (void *)p, pages * PAGE), 0, "%s",
		     weir_error_text());
}

static void count(void *arg, const struct wr_run *runs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*(size_t *)arg += (runs[i].end - runs[i].start) / PAGE;
}

static size_t dirty(struct wr_barrier *b, volatile char *p, size_t pages,
		    unsigned flags)
{
	size_t n = 0;

	cr_assert_eq(
		wr_barrier_fetch(b, (void *)p, pages * PAGE, flags, count, &n),
		0);
	return n;
}

static uint64_t faults(struct wr_barrier *b)
{
	struct wr_barrier_stats s;

	wr_barrier_stats(b, &s);
	return s.faults;
}

/* ---- System calls ------------------------------------------------------- */

static void check_system_calls(void)
{
	struct wr_barrier *b = make(WR_BARRIER_AUTO);
	bool none = wr_barrier_kind(b) == WR_BARRIER_NONE;
	volatile char *p = map_range(b, 16);
	char text[2 * PAGE], name[] = "/tmp/weir-barrier-XXXXXX";
	int ends[2], file = mkstemp(name);
	struct iovec iov[2] = {{(void *)(p + 5 * PAGE), 100},
			       {(void *)(p + 7 * PAGE), PAGE}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	cr_assert(wr_barrier_kind(b) == WR_BARRIER_ASYNC ||
		  wr_barrier_kind(b) == WR_BARRIER_SYNC || none);
	unlink(name);
	memset(text, 'x', sizeof(text));

	/* A pipe, across a page boundary. */
	cr_assert(!pipe(ends));
	arm(b, p, 16);
	cr_assert_eq(write(ends[1], text, PAGE), (ssize_t)PAGE);
	cr_assert_eq(read(ends[0], (void *)(p + PAGE + 10), PAGE),
		     (ssize_t)PAGE, "read from a pipe: %s", strerror(errno));
	cr_assert(p[PAGE + 10] == 'x' && p[2 * PAGE + 9] == 'x');
	cr_assert_eq(dirty(b, p, 16, WR_FETCH_REARM), none ? 16 : 2);

	/* A socket, scattered. */
	cr_assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	cr_assert_eq(write(ends[1], text, 100 + PAGE), (ssize_t)(100 + PAGE));
	cr_assert_eq(recvmsg(ends[0], &msg, 0), (ssize_t)(100 + PAGE),
		     "recvmsg: %s", strerror(errno));
	cr_assert(p[5 * PAGE] == 'x' && p[8 * PAGE - 1] == 'x');
	cr_assert_eq(dirty(b, p, 16, WR_FETCH_REARM), none ? 16 : 2);

	/* A file, and a page that the kernel writes a struct to. */
	cr_assert_eq(write(file, text, 2 * PAGE), (ssize_t)(2 * PAGE));
	cr_assert_eq(pread(file, (void *)(p + 9 * PAGE), 2 * PAGE, 0),
		     (ssize_t)(2 * PAGE), "pread: %s", strerror(errno));
	cr_assert(p[9 * PAGE] == 'x' && p[11 * PAGE - 1] == 'x');
	cr_assert(!getrlimit(RLIMIT_NOFILE, (void *)(p + 12 * PAGE)));
	cr_assert_eq(dirty(b, p, 16, WR_FETCH_REARM), none ? 16 : 3);
	cr_assert_eq(dirty(b, p, 16, 0), none ? 16 : 0);
	wr_barrier_destroy(b);
}

Test(barrier_kinds, system_calls_as_started)
{
	check_system_calls();
}

Test(barrier_kinds, system_calls_unprivileged)
{
	drop_privileges();
	check_system_calls();
}

static enum wr_barrier_kind unsafe_kinds[] = {
	WR_BARRIER_SYNC, WR_BARRIER_SIGBUS, WR_BARRIER_MPROTECT};

ParameterizedTestParameters(barrier_kinds, unsafe_ones_are_refused)
{
	return cr_make_param_array(enum wr_barrier_kind, unsafe_kinds, 3);
}

/* Unprivileged, read(2) into a protected page fails under these: the barrier
 * knows, so that AUTO leaves them alone, but works for what is written. */
ParameterizedTest(enum wr_barrier_kind *kind, barrier_kinds,
		  unsafe_ones_are_refused)
{
	struct wr_barrier *b, *safe;
	volatile char *p;
	int ends[2];

	drop_privileges();
	b = make(*kind);
	p = map_range(b, 4);
	arm(b, p, 4);
	cr_assert(!pipe(ends));
	cr_assert_eq(write(ends[1], "x", 1), 1);
	errno = 0;
	cr_assert_eq(read(ends[0], (void *)p, 1), -1);
	cr_assert_eq(errno, EFAULT);
	cr_assert_eq(dirty(b, p, 4, 0), 0);
	cr_assert_eq(wr_barrier_create_safe(*kind, &safe), -ENOTSUP);
	cr_assert(strstr(weir_error_text(), "system call"), "%s",
		  weir_error_text());
	p[0] = 2;
	cr_assert_eq(read(ends[0], (void *)p, 1), 1);
	cr_assert_eq(dirty(b, p, 4, 0), 1);
	wr_barrier_destroy(b);
}

/* ---- sync: what arrives, and how often ---------------------------------- */

#define COW_PAGES 64

/*
 * After fork() every page is shared copy-on-write.  Half of them are
 * protected: those report once at their first write and are copied then as
 * any other; the unprotected ones are copied without a word.
 */
Test(barrier_kinds, sync_reports_no_copy_on_write)
{
	struct wr_barrier *b = make(WR_BARRIER_SYNC);
	volatile char *p = map_range(b, COW_PAGES);
	int go[2], status;
	uint64_t before;
	pid_t pid;
	char c;

	arm(b, p, COW_PAGES / 2);
	cr_assert(!pipe(go));
	before = faults(b);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		/* Ordinary memory here, no registration: the old values stay
		 * whatever the parent writes, and writing reaches no one. */
		alarm(60);
		close(go[1]);
		if (read(go[0], &c, 1) != 0)
			_exit(1);
		for (size_t i = 0; i < COW_PAGES; i++)
			if (p[i * PAGE] != 1)
				_exit(2);
		for (size_t i = 0; i < COW_PAGES; i++)
			p[i * PAGE] = 7;
		_exit(0);
	}
	cr_assert_eq(faults(b), before, "fork itself reports nothing");
	for (size_t i = COW_PAGES / 2; i < COW_PAGES; i++)
		p[i * PAGE] = 2;
	cr_assert_eq(faults(b), before, "an unprotected page reported");
	for (size_t i = 0; i < COW_PAGES / 2; i++) {
		p[i * PAGE] = 2;
		cr_assert_eq(faults(b), before + i + 1, "page %zu", i);
	}
	/* Copied and unprotected now: no more events. */
	for (size_t i = 0; i < COW_PAGES; i++)
		p[i * PAGE + 1] = 3;
	cr_assert_eq(faults(b), before + COW_PAGES / 2);
	close(go[0]);
	close(go[1]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %#x",
		  (unsigned)status);
	for (size_t i = 0; i < COW_PAGES; i++)
		cr_assert(p[i * PAGE] == 2 && p[i * PAGE + 1] == 3);
	cr_assert_eq(faults(b), before + COW_PAGES / 2);
	cr_assert_eq(dirty(b, p, COW_PAGES / 2, 0), COW_PAGES / 2);
	wr_barrier_destroy(b);
}

static enum wr_barrier_kind fault_kinds[] = {WR_BARRIER_ASYNC, WR_BARRIER_SYNC,
					     WR_BARRIER_SIGBUS,
					     WR_BARRIER_MPROTECT};

ParameterizedTestParameters(barrier_kinds, one_fault_a_page)
{
	return cr_make_param_array(enum wr_barrier_kind, fault_kinds, 4);
}

ParameterizedTest(enum wr_barrier_kind *kind, barrier_kinds, one_fault_a_page)
{
	struct wr_barrier *b = make(*kind);
	volatile char *p = map_range(b, 100);
	bool seen = *kind != WR_BARRIER_ASYNC;

	for (size_t i = 0; i < 100; i++)
		p[i * PAGE] = 2;
	cr_assert_eq(faults(b), 0, "nothing is armed yet");
	for (unsigned round = 1; round <= 3; round++) {
		arm(b, p, 50);
		for (size_t i = 0; i < 100; i++)
			p[i * PAGE] = p[i * PAGE + 9] = 3;
		cr_assert_eq(faults(b), seen ? round * 50 : 0);
	}
	wr_barrier_destroy(b);
}

#define CROWD 8

struct crowd {
	struct wr_barrier *b;   /* the barrier */
	volatile char *p;       /* 64 pages */
	pthread_barrier_t gate; /* the crowd and the test */
	pthread_t threads[CROWD];
};

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;

	for (unsigned round = 0; round < 50; round++) {
		pthread_barrier_wait(&c->gate);
		for (size_t i = 0; i < 64; i++)
			__atomic_fetch_add((uint32_t *)(c->p + i * PAGE), 1,
					   __ATOMIC_RELAXED);
		pthread_barrier_wait(&c->gate);
	}
	return NULL;
}

static void on_usr1(int signo)
{
	(void)signo;
}

ParameterizedTestParameters(barrier_kinds, all_who_wait_go_on)
{
	return cr_make_param_array(enum wr_barrier_kind, fault_kinds, 4);
}

/* Many threads fault on the same pages, disturbed by signals. */
ParameterizedTest(enum wr_barrier_kind *kind, barrier_kinds, all_who_wait_go_on)
{
	struct crowd c = {.b = make(*kind)};

	c.p = map_range(c.b, 64);
	memset((void *)c.p, 0, 64 * PAGE);
	signal(SIGUSR1, on_usr1);
	pthread_barrier_init(&c.gate, NULL, CROWD + 1);
	for (unsigned i = 0; i < CROWD; i++)
		cr_assert(!pthread_create(&c.threads[i], NULL, crowd_main, &c));
	for (unsigned round = 0; round < 50; round++) {
		arm(c.b, c.p, 64);
		pthread_barrier_wait(&c.gate);
		for (unsigned i = 0; i < 4 * CROWD; i++)
			pthread_kill(c.threads[i % CROWD], SIGUSR1);
		pthread_barrier_wait(&c.gate);
		cr_assert_eq(dirty(c.b, c.p, 64, 0), 64);
	}
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(c.threads[i], NULL);
	for (size_t i = 0; i < 64; i++)
		cr_assert_eq(*(volatile uint32_t *)(c.p + i * PAGE),
			     50 * CROWD);
	wr_barrier_destroy(c.b);
}

/* ---- Nothing is left behind --------------------------------------------- */

ParameterizedTestParameters(barrier_kinds, destroy_leaves_nothing)
{
	return cr_make_param_array(enum wr_barrier_kind, fault_kinds, 4);
}

ParameterizedTest(enum wr_barrier_kind *kind, barrier_kinds,
		  destroy_leaves_nothing)
{
	unsigned fds, threads = threads_at_first();
	struct sigaction segv, bus, sa;

	cr_assert(!sigaction(SIGSEGV, NULL, &segv));
	cr_assert(!sigaction(SIGBUS, NULL, &bus));
	wr_barrier_destroy(make(*kind));
	fds = memory_entries("/proc/self/fd");
	for (unsigned i = 0; i < 50; i++) {
		struct wr_barrier *b = make(*kind), *other = make(*kind);
		volatile char *p = map_range(b, 8), *q = map_range(other, 8);

		arm(b, p, 8);
		arm(other, q, 8);
		p[0] = q[0] = 2;
		wr_barrier_destroy(b);
		p[PAGE] = q[PAGE] = 2;
		cr_assert_eq(dirty(other, q, 8, 0), 2);
		wr_barrier_destroy(other);
		p[2 * PAGE] = q[2 * PAGE] = 2;
		munmap((void *)p, 8 * PAGE);
		munmap((void *)q, 8 * PAGE);
	}
	cr_assert_eq(memory_entries("/proc/self/fd"), fds);
	cr_assert_eq(wait_for_threads(threads), threads);
	cr_assert(!sigaction(SIGSEGV, NULL, &sa));
	cr_assert_eq(sa.sa_handler, segv.sa_handler);
	cr_assert(!sigaction(SIGBUS, NULL, &sa));
	cr_assert_eq(sa.sa_handler, bus.sa_handler);
}

/* In a child that can open nothing the barrier turns into none. */
ParameterizedTestParameters(barrier_kinds, child_without_descriptors)
{
	return cr_make_param_array(enum wr_barrier_kind, fault_kinds, 3);
}

ParameterizedTest(enum wr_barrier_kind *kind, barrier_kinds,
		  child_without_descriptors)
{
	struct wr_barrier *b = make(*kind);
	volatile char *p = map_range(b, 8);
	struct rlimit none = {0, 0};
	int status;
	size_t n = 0;
	pid_t pid;

	arm(b, p, 8);
	quiet_before_fork();
	wr_barrier_fork_prepare(b);
	pid = fork();
	if (pid == 0) {
		alarm(60);
		setrlimit(RLIMIT_NOFILE, &none);
		if (wr_barrier_fork_child(b) != -ENOTSUP)
			_exit(1);
		if (!strstr(weir_error_text(), "descriptor"))
			_exit(2);
		if (wr_barrier_kind(b) != WR_BARRIER_NONE ||
		    wr_barrier_arm(b, (void *)p, 8 * PAGE) ||
		    wr_barrier_fetch(b, (void *)p, 8 * PAGE, WR_FETCH_REARM,
				     count, &n) ||
		    n != 8)
			_exit(3);
		p[0] = 1;
		if (wr_barrier_forget(b, (void *)p, 8 * PAGE) ||
		    wr_barrier_remove_range(b, (void *)p, 8 * PAGE))
			_exit(4);
		wr_barrier_destroy(b);
		_exit(0);
	}
	wr_barrier_fork_parent(b);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %#x",
		  (unsigned)status);
	cr_assert_eq(dirty(b, p, 8, 0), 0);
	wr_barrier_destroy(b);
}

/* ---- Merging ------------------------------------------------------------ */

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

static bool has_flag(volatile char *p, const char *flag)
{
	char text[512];

	return memory_of_mapping(p, "VmFlags:", text, sizeof(text)) &&
	       strstr(text, flag);
}

/* A page that KSM merges loses its protection without an event: where all
 * memory of the process is to be merged, ranges are not. */
ParameterizedTestParameters(barrier_kinds, ranges_are_not_merged)
{
	static enum wr_barrier_kind synchronous[] = {WR_BARRIER_SYNC,
						     WR_BARRIER_SIGBUS};

	return cr_make_param_array(enum wr_barrier_kind, synchronous, 2);
}

ParameterizedTest(enum wr_barrier_kind *kind, barrier_kinds,
		  ranges_are_not_merged)
{
	struct wr_barrier *b = make(*kind);
	volatile char *p;

	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
		cr_skip("PR_SET_MEMORY_MERGE: %s", strerror(errno));
	p = map(8);
	cr_assert(has_flag(p, " mg"), "the kernel merges no such memory");
	cr_assert_eq(wr_barrier_add_range(b, (char *)p, 8 * PAGE), 0);
	cr_assert_not(has_flag(p, " mg"));
	wr_barrier_destroy(b);
}

/* ---- Errors and names --------------------------------------------------- */

Test(barrier_kinds, errors)
{
	struct wr_barrier *b = make(WR_BARRIER_ASYNC);
	struct wr_barrier *other = make(WR_BARRIER_SYNC), *never = NULL;
	volatile char *p = map_range(b, 8);
	int fd = open("/proc/self/exe", O_RDONLY);
	char *file = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	struct statfs fs;

	cr_assert_eq(wr_barrier_add_range(b, (char *)p + 1, PAGE), -EINVAL);
	cr_assert_eq(wr_barrier_add_range(b, (char *)p, 0), -EINVAL);
	cr_assert_eq(wr_barrier_add_range(b, (char *)p + PAGE, PAGE), -EEXIST);
	cr_assert_eq(wr_barrier_remove_range(b, (char *)p, PAGE), -ENOENT);
	cr_assert_eq(wr_barrier_add_range(other, (char *)p, 8 * PAGE), -EBUSY);
	cr_assert(strstr(weir_error_text(), "userfaultfd"), "%s",
		  weir_error_text());
	cr_assert_neq(file, MAP_FAILED);
	/* A file; but in a guest whose root is a tmpfs it is shared memory. */
	cr_assert_eq(fstatfs(fd, &fs), 0);
	if (fs.f_type != TMPFS_MAGIC) {
		cr_assert_eq(wr_barrier_add_range(other, file, PAGE), -EINVAL);
		cr_assert(strstr(weir_error_text(), "anonymous"), "%s",
			  weir_error_text());
	}
	/* Free again once the owner let it go. */
	cr_assert_eq(wr_barrier_remove_range(b, (char *)p, 8 * PAGE), 0);
	cr_assert_eq(wr_barrier_add_range(other, (char *)p, 8 * PAGE), 0);
	/* Mapped over: arm says so; fetch too, after it reported all. */
	cr_assert_eq(wr_barrier_remove_range(other, (char *)p, 8 * PAGE), 0);
	cr_assert_eq(wr_barrier_add_range(b, (char *)p, 8 * PAGE), 0);
	mmap((void *)p, 8 * PAGE, PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cr_assert_eq(wr_barrier_arm(b, (char *)p, 8 * PAGE), -EPERM);
	{
		size_t n = 0;

		cr_assert_eq(wr_barrier_fetch(b, (char *)p, 8 * PAGE,
					      WR_FETCH_REARM, count, &n),
			     -EPERM);
		cr_assert_eq(n, 8);
	}
	wr_barrier_destroy(b);
	wr_barrier_destroy(other);
	wr_barrier_destroy(NULL);
	cr_assert_eq(wr_barrier_create(WR_BARRIER_KINDS, &never), -EINVAL);
	cr_assert_null(never);
}

Test(barrier_kinds, names)
{
	enum wr_barrier_kind k;

	for (unsigned i = 0; i < WR_BARRIER_KINDS; i++) {
		cr_assert_eq(wr_barrier_parse(wr_barrier_name(i), &k), 0);
		cr_assert_eq(k, i);
	}
	cr_assert_eq(wr_barrier_parse("Async", &k), -EINVAL);
	cr_assert_eq(wr_barrier_parse("", &k), -EINVAL);
	cr_assert_str_eq(wr_barrier_name(WR_BARRIER_KINDS), "?");
}

#define SPANS 40

/* Ranges come and go while another one is written and fetched. */
static void *churn_main(void *arg)
{
	struct wr_barrier *b = arg;
	volatile char *p = map(SPANS * 2);

	for (unsigned round = 0; round < 200; round++) {
		for (size_t i = 0; i < SPANS; i++)
			cr_assert_eq(wr_barrier_add_range(
					     b, (char *)p + 2 * i * PAGE, PAGE),
				     0);
		for (size_t i = 0; i < SPANS; i++)
			cr_assert_eq(wr_barrier_remove_range(
					     b, (char *)p + 2 * i * PAGE, PAGE),
				     0);
	}
	return NULL;
}

ParameterizedTestParameters(barrier_kinds, ranges_come_and_go)
{
	return cr_make_param_array(enum wr_barrier_kind, fault_kinds, 4);
}

ParameterizedTest(enum wr_barrier_kind *kind, barrier_kinds, ranges_come_and_go)
{
	struct wr_barrier *b = make(*kind);
	volatile char *p = map_range(b, 64);
	pthread_t thread;
	size_t n;

	arm(b, p, 64);
	cr_assert(!pthread_create(&thread, NULL, churn_main, b));
	for (unsigned round = 0; round < 300; round++) {
		for (size_t i = 0; i < 64; i += 3)
			p[i * PAGE] = (char)round;
		n = dirty(b, p, 64, WR_FETCH_REARM);
		cr_assert_eq(n, 22, "round %u: %zu", round, n);
	}
	pthread_join(thread, NULL);
	wr_barrier_destroy(b);
}
