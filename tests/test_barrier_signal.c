/* SPDX-License-Identifier: MIT */
/*
 * SIGSEGV and SIGBUS under the mprotect and sigbus barriers: what is not the
 * barrier's goes where it would have gone without it.  And the end of the
 * mappings, which the handler of mprotect must survive.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier.h"

#define PAGE ((size_t)getpagesize())

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

/* ---- Foreign faults ----------------------------------------------------- */

static sigjmp_buf escape;
static volatile sig_atomic_t caught, caught_with_info;
static void *volatile caught_at;
static volatile sig_atomic_t usr2_blocked;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)context;
	caught = signo;
	caught_at = info->si_addr;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	usr2_blocked = sigismember(&now, SIGUSR2);
	siglongjmp(escape, 1);
}

static void on_fault_plain(int signo)
{
	caught = signo;
	siglongjmp(escape, 1);
}

/* A fault that is the program's own: beyond the end of a file, or a page
 * without access. */
static volatile char *bad_page(int signo)
{
	char name[] = "/tmp/weir-barrier-XXXXXX";
	int fd = -1;
	char *p;

	if (signo == SIGBUS) {
		fd = mkstemp(name);
		cr_assert_geq(fd, 0);
		unlink(name);
	}
	p = mmap(NULL, PAGE, signo == SIGBUS ? PROT_READ | PROT_WRITE : 0,
		 signo == SIGBUS ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd,
		 0);
	cr_assert_neq(p, MAP_FAILED);
	return p;
}

static enum wr_barrier_kind signal_kinds[] = {WR_BARRIER_SIGBUS,
					      WR_BARRIER_MPROTECT};

ParameterizedTestParameters(barrier_signal, foreign_faults)
{
	return cr_make_param_array(enum wr_barrier_kind, signal_kinds, 2);
}

ParameterizedTest(enum wr_barrier_kind *kind, barrier_signal, foreign_faults)
{
	int signo = *kind == WR_BARRIER_SIGBUS ? SIGBUS : SIGSEGV, status;
	struct sigaction sa = {.sa_sigaction = on_fault,
			       .sa_flags = SA_SIGINFO},
			 now;
	struct wr_barrier *b;
	volatile char *p, *bad = bad_page(signo);
	pid_t pid;

	/* The program's handler from before gets them, its mask applied. */
	sigaddset(&sa.sa_mask, SIGUSR2);
	cr_assert(!sigaction(signo, &sa, NULL));
	b = make(*kind);
	p = map_range(b, 8);
	for (int round = 1; round <= 3; round++) {
		caught = 0;
		arm(b, p, 8);
		if (!sigsetjmp(escape, 1)) {
			bad[8] = 1;
			cr_assert_fail("the write went through");
		}
		cr_assert(caught == signo && caught_at == bad + 8);
		cr_assert_eq(usr2_blocked, 1);
		caught = 0;
		p[PAGE] = 2;
		cr_assert_eq(caught, 0);
		cr_assert_eq(dirty(b, p, 8, 0), 1);
		cr_assert_eq(faults(b), (uint64_t)round);
	}
	/* A part of a range that the program may not touch, too. */
	if (signo == SIGSEGV) {
		volatile char *hole = mmap(NULL, 2 * PAGE, PROT_NONE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		cr_assert_eq(wr_barrier_add_range(b, (void *)hole, 2 * PAGE),
			     0);
		arm(b, hole, 2);
		if (!sigsetjmp(escape, 1)) {
			hole[0] = 1;
			cr_assert_fail("PROT_NONE was lifted");
		}
		cr_assert(caught == signo && caught_at == hole);
	}
	wr_barrier_destroy(b);
	cr_assert(!sigaction(signo, NULL, &now));
	cr_assert_eq(now.sa_sigaction, on_fault, "the old handler is back");

	/* One without SA_SIGINFO. */
	signal(signo, on_fault_plain);
	b = make(*kind);
	caught = 0;
	if (!sigsetjmp(escape, 1))
		bad[0] = 1;
	cr_assert_eq(caught, signo);
	wr_barrier_destroy(b);

	/* None: the process dies of it, as it would without us; ignoring is
	 * not possible for a fault, and works for a signal that was sent. */
	for (int ignore = 0; ignore < 2; ignore++) {
		signal(signo, ignore ? SIG_IGN : SIG_DFL);
		b = make(*kind);
		pid = fork();
		if (pid == 0) {
			struct rlimit no_core = {0, 0};

			setrlimit(RLIMIT_CORE, &no_core);
			alarm(60);
			if (ignore)
				raise(signo);
			bad[0] = 1;
			_exit(0);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == signo);
		wr_barrier_destroy(b);
	}
}

/* More isolated pages than vm.max_map_count allows mappings for. */
Test(barrier_signal, mprotect_runs_out_of_mappings)
{
	struct wr_barrier *b = make(WR_BARRIER_MPROTECT);
	FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
	size_t limit = 0, pages, n;
	volatile char *p;

	cr_assert(f && fscanf(f, "%zu", &limit) == 1);
	fclose(f);
	if (limit > 300000)
		cr_skip("vm.max_map_count is %zu: too high to reach", limit);
	pages = limit + 1000;
	if (pages > (size_t)sysconf(_SC_PHYS_PAGES) / 2)
		cr_skip("%zu pages need more memory than there is", pages);
	p = map_range(b, pages);
	arm(b, p, pages);
	for (size_t i = 0; i < pages; i += 2)
		p[i * PAGE] = 2;
	n = dirty(b, p, pages, WR_FETCH_REARM);
	/* More than were written: once, all were let go. */
	cr_assert_gt(n, pages / 2 + 1000, "%zu of %zu", n, pages / 2);
	for (size_t i = 0; i < pages; i++)
		cr_assert_eq(p[i * PAGE], i % 2 ? 1 : 2);
	cr_assert_eq(dirty(b, p, pages, 0), 0);
	p[7 * PAGE] = 3;
	cr_assert_eq(dirty(b, p, pages, 0), 1);
	wr_barrier_destroy(b);
}
