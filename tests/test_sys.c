/* SPDX-License-Identifier: MIT */
/* The real system: reservations, commits, discards, clocks, limits. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/sys.h"

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static const struct wr_sys *sys;

static void setup(void)
{
	sys = wr_sys_linux();
}

TestSuite(sys, .init = setup);

/* Bytes of [p, p + size) that have a page behind them. */
static size_t resident(char *p, size_t size)
{
	size_t pages = size / sys->page_size, n = 0;
	unsigned char *map = malloc(pages);

	cr_assert_eq(mincore(p, size, map), 0);
	for (size_t i = 0; i < pages; i++)
		n += map[i] & 1;
	free(map);
	return n * sys->page_size;
}

/* Does writing (or reading) a byte at p end the process? */
static bool dies(volatile char *p, bool write)
{
	int status;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		if (write)
			*p = 1;
		else
			(void)*p;
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

Test(sys, page_size)
{
	cr_assert_eq(sys->page_size, (size_t)sysconf(_SC_PAGESIZE));
}

Test(sys, reserve_is_aligned)
{
	const size_t align[] = {sys->page_size, 64 << 10, 2 << 20, 1 << 30};

	for (size_t i = 0; i < sizeof align / sizeof *align; i++) {
		char *p = sys->reserve(3 * sys->page_size, align[i]);

		cr_assert_not_null(p);
		cr_assert_eq((uintptr_t)p % align[i], 0, "%zu", align[i]);
		sys->release(p, 3 * sys->page_size);
	}
}

Test(sys, reserve_keeps_what_it_gave)
{
	/* The ends that alignment cuts off must not be ends of the range. */
	size_t size = 2 * MIB + sys->page_size;
	char *p = sys->reserve(size, 16 * MIB);
	unsigned char map[1024];

	cr_assert_not_null(p);
	cr_assert_eq(sys->commit(p, size, false), 0);
	memset(p, 1, size);
	cr_assert_eq(resident(p, size), size);
	sys->release(p, size);
	cr_assert_eq(mincore(p, size, map), -1);
	cr_assert_eq(errno, ENOMEM);
}

Test(sys, reserve_costs_nothing)
{
	/* Far above most machines' memory.  ThreadSanitizer leaves a program
	 * about a terabyte of addresses. */
#ifdef __SANITIZE_THREAD__
	size_t size = 512 * GIB;
#else
	size_t size = 4096 * GIB;
#endif
	char *p = sys->reserve(size, 2 * MIB);

	cr_assert_not_null(p, "%s", strerror(errno));
	cr_assert(dies(p, false));
	cr_assert(dies(p + size - 1, true));
	cr_assert_eq(resident(p, 64 * MIB), 0);
	sys->release(p, size);
}

Test(sys, reserve_refuses_nonsense)
{
	const size_t page = sys->page_size;

	errno = 0;
	cr_assert_null(sys->reserve(0, page));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(sys->reserve(100, page));
	cr_assert_null(sys->reserve(page, 100));
	cr_assert_null(sys->reserve(page, 3 * page));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(sys->reserve(-page, 2 * MIB));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_null(sys->reserve((size_t)1 << 62, page));
	cr_assert_eq(errno, ENOMEM);
}

Test(sys, commit_gives_zeroed_memory)
{
	size_t size = 8 * MIB;
	char *p = sys->reserve(size, 2 * MIB);

	cr_assert_not_null(p);
	cr_assert_eq(sys->commit(p + MIB, MIB, false), 0);
	for (size_t i = MIB; i < 2 * MIB; i++)
		cr_assert_eq(p[i], 0);
	memset(p + MIB, 0x55, MIB);
	cr_assert(dies(p + MIB - 1, false));
	cr_assert(dies(p + 2 * MIB, false));
	cr_assert_eq(p[MIB], 0x55);
	sys->release(p, size);
}

Test(sys, commit_huge_works_with_and_without_support)
{
	size_t size = 8 * MIB;
	char *p = sys->reserve(size, 2 * MIB);

	cr_assert_not_null(p);
	cr_assert_eq(sys->commit(p, size, true), 0);
	memset(p, 1, size);
	cr_assert_eq(sys->discard(p, size), 0);
	for (size_t i = 0; i < size; i += 512)
		cr_assert_eq(p[i], 0);
	sys->release(p, size);
}

Test(sys, commit_reports_refusal)
{
	struct rlimit limit, old;
	char *p = sys->reserve(GIB, 2 * MIB);
	int err;

	cr_assert_not_null(p);
	getrlimit(RLIMIT_DATA, &old);
	limit = old;
	limit.rlim_cur = 64 * MIB;
	cr_assert_eq(setrlimit(RLIMIT_DATA, &limit), 0);
	err = sys->commit(p, GIB, false);
	setrlimit(RLIMIT_DATA, &old);
	cr_assert_eq(err, -ENOMEM);
	cr_assert(strstr(weir_error_text(), "1073741824"), "%s",
		  weir_error_text());
	cr_assert(strstr(weir_error_text(), "ulimit"));
	cr_assert(dies(p, false));
	sys->release(p, GIB);
}

Test(sys, discard_gives_back_and_zeroes)
{
	size_t size = 4 * MIB;
	char *p = sys->reserve(size, 2 * MIB);

	cr_assert_not_null(p);
	cr_assert_eq(sys->commit(p, size, false), 0);
	memset(p, 1, size);
	cr_assert_eq(resident(p, size), size);
	cr_assert_eq(sys->discard(p + MIB, 2 * MIB), 0);
	cr_assert_eq(resident(p, size), 2 * MIB);
	cr_assert_eq(p[MIB - 1], 1);
	cr_assert_eq(p[3 * MIB], 1);
	for (size_t i = MIB; i < 3 * MIB; i++)
		cr_assert_eq(p[i], 0);
	memset(p, 2, size); /* still committed */
	sys->release(p, size);
}

Test(sys, discard_of_locked_memory_zeroes)
{
	size_t size = 16 * sys->page_size;
	char *p = sys->reserve(size, sys->page_size);

	cr_assert_not_null(p);
	cr_assert_eq(sys->commit(p, size, false), 0);
	if (mlock(p, size))
		cr_skip("mlock: %s", strerror(errno));
	memset(p, 1, size);
	cr_assert_eq(sys->discard(p, size), 0);
	for (size_t i = 0; i < size; i++)
		cr_assert_eq(p[i], 0);
	sys->release(p, size);
}

Test(sys, discard_reports_errors)
{
	char *p = sys->reserve(sys->page_size, sys->page_size);

	sys->release(p, sys->page_size);
	cr_assert_eq(sys->discard(p, sys->page_size), -ENOMEM);
	cr_assert(strstr(weir_error_text(), "MADV_DONTNEED"));
}

Test(sys, clock_advances)
{
	uint64_t a = sys->now_ns(), b;

	usleep(20000);
	b = sys->now_ns();
	cr_assert_geq(b - a, 20000000u);
	cr_assert_lt(b - a, 20000000000u);
}

static void *burn(void *arg)
{
	volatile uint64_t *x = arg;

	while (sys->thread_cpu_ns() < 20000000u)
		++*x;
	return NULL;
}

Test(sys, cpu_clock_is_the_threads_own)
{
	uint64_t used = UINT64_MAX, x = 0;
	pthread_t t;

	/* The other thread's 20 ms are not ours; those that the host takes
	 * from a virtual machine's processor may be, now and then. */
	for (int i = 0; i < 20 && used >= 15000000u; i++) {
		uint64_t before = sys->thread_cpu_ns();

		cr_assert_eq(pthread_create(&t, NULL, burn, &x), 0);
		pthread_join(t, NULL);
		used = sys->thread_cpu_ns() - before;
	}
	cr_assert_gt(x, 0);
	cr_assert_lt(used, 15000000u);
}

Test(sys, cpus_follow_affinity)
{
	cpu_set_t all, one;
	unsigned n = sys->cpus();

	cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
	cr_assert_eq(n, (unsigned)CPU_COUNT(&all));
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &one);
			break;
		}
	}
	cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
	cr_assert_eq(sys->cpus(), 1);
}

Test(sys, memory_limit_is_within_ram)
{
	size_t ram = (size_t)sysconf(_SC_PHYS_PAGES) * sys->page_size;

	cr_assert_gt(sys->memory_limit(), MIB);
	cr_assert_leq(sys->memory_limit(), ram);
}
