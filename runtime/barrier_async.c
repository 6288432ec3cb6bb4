/* SPDX-License-Identifier: MIT */
/*
 * The async back end: the kernel resolves write faults by itself (WP_ASYNC)
 * and the page tables hold the state.
 *
 *   CLEAN  = the page's entry has the uffd-wp bit
 *   DIRTY  = the page is populated and has it not
 *
 * An unpopulated page is neither: nothing is reported for it, and a write
 * populates it without the bit, so it is DIRTY then.  That is why no marker is
 * ever put on a hole: the first write there costs one fault, not two, huge
 * pages can still be allocated, and no page table is made for it.
 *
 * PAGEMAP_SCAN tests, sets the bits and flushes the TLBs under the page-table
 * lock, which is what the order promised in barrier.h rests on.  No lock of
 * our own, no memory of our own: fetch is safe with the world stopped, and
 * callers on disjoint ranges meet only at the kernel's mmap lock, as readers.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/barrier_ops.h"
#include "runtime/check.h"
#include "runtime/kernel_abi.h"

#define FEATURES                                                        \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | \
	 UFFD_FEATURE_WP_ASYNC)

/* Regions of one call.  The kernel buffers 512; 256 of both structs are 10 KiB
 * of stack, and a call costs little beside 256 separate dirty runs. */
#define VECTOR 256

/* How much one call walks.  Protecting is 15 us a MiB of 4 KiB pages, with
 * the mmap lock held for reading: pieces, so that mmap() gets in between.
 * Looking only is 1 us a MiB and happens in pauses, where calls are the cost.
 */
#define PIECE_PROTECT ((uintptr_t)64 << 20)
#define PIECE_LOOK ((uintptr_t)4 << 30)

/* Walk [start, end) once.  Returns the number of regions, *walked the address
 * up to which it got. */
static long scan(int fd, struct wr_pm_scan_arg *a, uintptr_t start,
		 uintptr_t end, uintptr_t *walked)
{
	long n;

	a->start = start;
	a->end = end;
	a->walk_end = 0;
	n = ioctl(fd, WR_PAGEMAP_SCAN, a);
	if (n < 0)
		return -errno;
	*walked = a->walk_end;
	return n;
}

static int scan_error(int err)
{
	if (err == ENOTTY)
		return wr_error(err, "the kernel lacks PAGEMAP_SCAN; it came "
				     "with Linux 6.7");
	if (err == EPERM)
		return wr_error(err, "PAGEMAP_SCAN: a part of the range is no "
				     "longer registered; do not map over it "
				     "while the barrier has it");
	return wr_error(err, "PAGEMAP_SCAN: %s; see weir-info", strerror(err));
}

/* Which pages: as in struct wr_pm_scan_arg. */
struct which {
	uint64_t inverted; /* category_inverted */
	uint64_t mask;     /* category_mask */
	uint64_t anyof;    /* category_anyof_mask */
	bool absent;       /* tell WR_RUN_ABSENT apart */
};

#define POPULATED (WR_PAGE_IS_PRESENT | WR_PAGE_IS_SWAPPED)

static const struct which written = {.mask = WR_PAGE_IS_WRITTEN,
				     .anyof = POPULATED};
static const struct which written_or_hole = {.mask = WR_PAGE_IS_WRITTEN};
/* A marker passes for a page that is swapped out, which in shared memory none
 * is: those leave markers, too. */
static const struct which vacant = {.inverted = WR_PAGE_IS_WRITTEN,
				    .mask = WR_PAGE_IS_WRITTEN |
					    WR_PAGE_IS_SWAPPED};

/* What is swapped out and not written is sorted out afterwards. */
static const struct which written_or_absent = {
	.inverted = WR_PAGE_IS_PRESENT,
	.anyof = WR_PAGE_IS_WRITTEN | WR_PAGE_IS_PRESENT,
	.absent = true,
};

/* Of a walk's regions, the runs that are told.  Returns how many. */
static size_t runs_of(const struct wr_page_region *regions, size_t n,
		      bool absent, struct wr_run *runs)
{
	size_t told = 0;

	for (size_t i = 0; i < n; i++) {
		uintptr_t mark = 0;

		/* An empty entry counts as written in some kernels. */
		if (absent && !(regions[i].categories & POPULATED))
			mark = WR_RUN_ABSENT;
		else if (absent &&
			 !(regions[i].categories & WR_PAGE_IS_WRITTEN))
			continue;
		runs[told++] = (struct wr_run){regions[i].start | mark,
					       regions[i].end};
	}
	return told;
}

static int walk(struct wr_barrier *b, uintptr_t start, uintptr_t end,
		const struct which *which, uint64_t flags, wr_run_fn *fn,
		void *arg)
{
	uintptr_t piece =
		flags & WR_PM_SCAN_WP_MATCHING ? PIECE_PROTECT : PIECE_LOOK;
	struct wr_page_region regions[VECTOR];
	struct wr_run runs[VECTOR];
	struct wr_pm_scan_arg a = {
		.size = sizeof(a),
		.flags = flags | WR_PM_SCAN_CHECK_WPASYNC,
		.vec = (uintptr_t)regions,
		.vec_len = VECTOR,
		.category_inverted = which->inverted,
		.category_mask = which->mask,
		.category_anyof_mask = which->anyof,
		.return_mask =
			WR_PAGE_IS_WRITTEN | (which->absent ? POPULATED : 0),
	};
	uint64_t calls = 0;
	int err = 0;

	while (start < end) {
		uintptr_t stop = end - start > piece ? start + piece : end;
		long n = scan(b->pagemap, &a, start, stop, &start);

		calls++;
		if (wr_unlikely(n < 0)) {
			runs[0] = (struct wr_run){start, end};
			if (fn)
				fn(arg, runs, 1);
			err = scan_error((int)-n);
			break;
		}
		if (!n || !fn)
			continue;
		n = (long)runs_of(regions, (size_t)n, which->absent, runs);
		if (n)
			fn(arg, runs, (size_t)n);
	}
	wr_barrier_count_calls(b, calls);
	return err;
}

static int async_arm(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	/* With a vector although nobody reads it: without one the kernel puts
	 * markers on the holes of populated page tables. */
	return walk(b, start, end, &written, WR_PM_SCAN_WP_MATCHING, NULL,
		    NULL);
}

static int async_fetch(struct wr_barrier *b, uintptr_t start, uintptr_t end,
		       unsigned flags, wr_run_fn *fn, void *arg)
{
	if (flags & WR_FETCH_REARM)
		return walk(b, start, end, &written, WR_PM_SCAN_WP_MATCHING, fn,
			    arg);
	if (flags & WR_FETCH_VACANT)
		return walk(b, start, end, &vacant, 0, fn, arg);
	if (flags & WR_FETCH_ABSENT)
		return walk(b, start, end, &written_or_absent, 0, fn, arg);
	/* WRITTEN alone is the kernel's fast path, twice as fast, but it
	 * cannot tell holes from dirty pages. */
	return walk(b, start, end,
		    flags & WR_FETCH_HOLES ? &written_or_hole : &written, 0, fn,
		    arg);
}

static int async_forget(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	int n = wr_uffd_unprotect(b->uffd.fd, start, end);

	if (n < 0)
		return wr_error(-n,
				"the protection of [%#lx, %#lx) cannot be "
				"taken off: %s; see weir-info",
				(unsigned long)start, (unsigned long)end,
				strerror(-n));
	wr_barrier_count_calls(b, (uint64_t)n);
	return 0;
}

static int open_pagemap(int *fd)
{
	*fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	switch (errno) {
	case EACCES:
	case EPERM:
		return wr_error(ENOTSUP, "/proc/self/pagemap may not be opened:"
					 " the process is not dumpable (it "
					 "changed its user, or prctl); make "
					 "the heap before that, or "
					 "prctl(PR_SET_DUMPABLE, 1)");
	case ENOENT:
		return wr_error(ENOTSUP, "there is no /proc/self/pagemap: %s",
				access("/proc/self", F_OK)
					? "/proc is not mounted; mount it"
					: "the kernel lacks "
					  "CONFIG_PROC_PAGE_MONITOR; build it "
					  "with that");
	default:
		return wr_error(ENOTSUP,
				"/proc/self/pagemap: %s; raise "
				"RLIMIT_NOFILE if descriptors ran out",
				strerror(errno));
	}
}

static int async_open(struct wr_barrier *b)
{
	int err = wr_uffd_open(&b->uffd, FEATURES, false);

	if (err)
		return err;
	err = open_pagemap(&b->pagemap);
	if (err)
		wr_uffd_close(&b->uffd);
	return err;
}

static void async_close(struct wr_barrier *b)
{
	close(b->pagemap);
	wr_uffd_close(&b->uffd);
}

static int async_add(struct wr_barrier *b, struct wr_range *r)
{
	return wr_uffd_add_range(&b->uffd, r->start, r->end);
}

static void async_remove(struct wr_barrier *b, struct wr_range *r)
{
	wr_uffd_remove_range(&b->uffd, r->start, r->end);
}

/* Both descriptors speak of the parent's memory: get the child's own. */
static int async_fork_child(struct wr_barrier *b)
{
	int err;

	close(b->pagemap);
	err = wr_uffd_reopen(&b->uffd);
	if (err)
		return err;
	err = open_pagemap(&b->pagemap);
	if (err)
		wr_uffd_close(&b->uffd);
	return err;
}

const struct wr_barrier_ops wr_barrier_async_ops = {
	.open = async_open,
	.close = async_close,
	.add = async_add,
	.remove = async_remove,
	.arm = async_arm,
	.fetch = async_fetch,
	.forget = async_forget,
	.fork_child = async_fork_child,
};
