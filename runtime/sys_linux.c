/* SPDX-License-Identifier: MIT */
/*
 * The real system under runtime/sys.h.
 *
 * A reserved range is one private anonymous PROT_NONE mapping; commit makes
 * parts of it accessible with mprotect(), so that a registration with
 * userfaultfd, which belongs to the mapping, stays.  Nothing here unmaps or
 * maps over a part of a range.
 *
 *   who may call          beside whom
 *   reserve, release      everybody; release: nobody uses the range
 *   commit, discard       everybody, on ranges that do not overlap
 *   the rest              everybody
 */
#define _GNU_SOURCE
#include "runtime/sys.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/cgroup.h"
#include "runtime/check.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- Memory ------------------------------------------------------------- */

static void *sys_reserve(size_t size, size_t align)
{
	size_t page = page_size();
	size_t slack, total, head;
	char *p;

	if (!size || size % page || align < page || (align & (align - 1))) {
		errno = EINVAL;
		return NULL;
	}
	/* More than is needed, then the ends go back. */
	slack = align - page;
	if (__builtin_add_overflow(size, slack, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	p = mmap(NULL, total, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	head = (size_t)(-(uintptr_t)p & (align - 1));
	if (head)
		munmap(p, head);
	if (slack - head)
		munmap(p + head + size, slack - head);
	return p + head;
}

static void sys_release(void *p, size_t size)
{
	wr_require(!munmap(p, size), "munmap(%p, %zu): %s", p, size,
		   strerror(errno));
}

static int sys_commit(void *p, size_t size, bool huge)
{
	if (mprotect(p, size, PROT_READ | PROT_WRITE)) {
		int err = errno;

		return wr_error(err,
				"the system refused %zu more bytes of memory: "
				"%s; raise the limit on data (ulimit -d), the "
				"commit limit (vm.overcommit_ratio) or the "
				"number of mappings (vm.max_map_count)",
				size, strerror(err));
	}
	/* Advice: EINVAL only says that this kernel has no huge pages. */
	if (huge)
		madvise(p, size, MADV_HUGEPAGE);
	return 0;
}

static int sys_discard(void *p, size_t size)
{
	int err;

	if (!madvise(p, size, MADV_DONTNEED))
		return 0;
	/* Locked memory (mlockall) is refused above.  It is given back where
	 * the kernel knows how; elsewhere it at least reads as zero, which is
	 * what callers rely on. */
	if (errno == EINVAL) {
		if (!madvise(p, size, MADV_DONTNEED_LOCKED))
			return 0;
		if (errno == EINVAL) {
			memset(p, 0, size);
			return 0;
		}
	}
	err = errno;
	return wr_error(err, "madvise(%p, %zu, MADV_DONTNEED): %s", p, size,
			strerror(err));
}

static size_t sys_memory_limit(void)
{
	size_t ram = (size_t)sysconf(_SC_PHYS_PAGES) * page_size();
	size_t group = wr_cgroup_memory_limit("");

	return group < ram ? group : ram;
}

/* ---- Clocks and processors ---------------------------------------------- */

static uint64_t read_clock(clockid_t clock)
{
	struct timespec t;

	wr_require(!clock_gettime(clock, &t), "clock_gettime(%d): %s",
		   (int)clock, strerror(errno));
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t sys_now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

static uint64_t sys_thread_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

static unsigned sys_cpus(void)
{
	/* The call fails while the set is smaller than the kernel's. */
	for (int n = CPU_SETSIZE; n <= 1 << 20; n *= 2) {
		cpu_set_t *set = CPU_ALLOC((size_t)n);
		size_t bytes = CPU_ALLOC_SIZE((size_t)n);
		int count = 0;

		if (!set)
			break;
		if (!sched_getaffinity(0, bytes, set))
			count = CPU_COUNT_S(bytes, set);
		CPU_FREE(set);
		if (count > 0)
			return (unsigned)count;
	}
	return 1;
}

const struct wr_sys *wr_sys_linux(void)
{
	static struct wr_sys sys = {
		.reserve = sys_reserve,
		.release = sys_release,
		.commit = sys_commit,
		.discard = sys_discard,
		.now_ns = sys_now_ns,
		.thread_cpu_ns = sys_thread_cpu_ns,
		.memory_limit = sys_memory_limit,
		.cpus = sys_cpus,
	};

	/* Relaxed: every caller stores the same value. */
	__atomic_store_n(&sys.page_size, page_size(), __ATOMIC_RELAXED);
	return &sys;
}
