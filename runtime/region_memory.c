/* SPDX-License-Identifier: MIT */
/*
 * The memory of regions: reserved, made usable as they grow, or found there and
 * adopted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/procmaps.h"
#include "runtime/region.h"
#include "runtime/regions.h"

int wr_region_map(struct weir_region *r, void *address)
{
	int prot = r->flags & WEIR_REGION_SHARED ? PROT_READ | PROT_WRITE
						 : PROT_NONE;
	int flags = MAP_NORESERVE;
	size_t align = wr_region_grain(r), slack = address ? 0 : align;
	char *p;

	if (r->flags & WEIR_REGION_SHARED) {
		r->memfd = memfd_create(r->name[0] ? r->name : "weir-region",
					MFD_CLOEXEC);
		if (r->memfd < 0 || ftruncate(r->memfd, (off_t)r->limit))
			return wr_error(errno,
					"memfd_create: %s; raise "
					"RLIMIT_NOFILE or free memory",
					strerror(errno));
		r->shared = true;
	}
#ifdef MAP_FIXED_NOREPLACE
	if (address)
		flags |= MAP_FIXED_NOREPLACE;
#endif
	/* Address space first, aligned, then the file over it. */
	p = mmap(address, r->limit + slack, PROT_NONE,
		 flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED && address && p != address) {
		munmap(p, r->limit);
		p = MAP_FAILED;
		errno = EEXIST;
	}
	if (p == MAP_FAILED) {
		if (errno == EEXIST)
			return wr_error(EEXIST,
					"something is mapped in the %zu bytes "
					"from %p; choose another address",
					r->limit, address);
		return wr_error(ENOMEM,
				"no address space for %zu bytes: %s; raise "
				"RLIMIT_AS",
				r->limit, strerror(errno));
	}
	if (slack) {
		size_t head = (size_t)(-(uintptr_t)p & (align - 1));

		if (head)
			munmap(p, head);
		munmap(p + head + r->limit, slack - head);
		p += head;
	}
	if (r->shared && mmap(p, r->limit, prot, MAP_SHARED | MAP_FIXED,
			      r->memfd, 0) == MAP_FAILED) {
		int err = errno;

		munmap(p, r->limit);
		return wr_error(err,
				"the region's file cannot be mapped: %s; "
				"raise vm.max_map_count or free memory",
				strerror(err));
	}
	r->start = (uintptr_t)p;
	return 0;
}

int wr_region_open(struct weir_region *r, size_t from, size_t to)
{
	void *p = (void *)(r->start + from);

	if (from < to && !r->shared &&
	    mprotect(p, to - from, PROT_READ | PROT_WRITE))
		return wr_error(errno,
				"the system refused %zu bytes more: %s; raise "
				"RLIMIT_DATA or vm.overcommit_memory",
				to - from, strerror(errno));
	/* EINVAL: a kernel without huge pages. */
	if (from < to)
		madvise(p, to - from,
			r->flags & WEIR_REGION_HUGE ? MADV_HUGEPAGE
						    : MADV_NOHUGEPAGE);
	return 0;
}

/* What there is at `at` may not be part of r: why. */
static int cannot_adopt(uintptr_t at, bool private_file)
{
	if (private_file)
		return wr_error(EINVAL,
				"at %#lx: a private mapping of a file: what is "
				"written to that may change it unnoticed; map "
				"it shared (a memfd), or copy it to anonymous "
				"memory",
				(unsigned long)at);
	return wr_error(EINVAL,
			"at %#lx: not mapped read-write, or shared where what "
			"is before is private; adopt memory of one sort",
			(unsigned long)at);
}

int wr_region_look(struct weir_region *r)
{
	uintptr_t at = r->start, end = r->start + r->limit;
	bool first = true, private_file = false;
	struct wr_procmaps maps;
	struct wr_mapping m;
	int err = wr_procmaps_open(&maps);

	if (err)
		return wr_error(-err, WR_PROCMAPS ": %s; mount /proc",
				strerror(-err));
	while (at < end && wr_procmaps_next(&maps, &m)) {
		if (m.end <= at)
			continue;
		if (m.start > at)
			break;
		private_file = m.file && !m.shared;
		if (!m.readable || !m.writable || private_file ||
		    (!first && m.shared != r->shared))
			break;
		r->shared = m.shared;
		first = false;
		at = m.end;
	}
	wr_procmaps_close(&maps);
	return at < end ? cannot_adopt(at, private_file) : 0;
}
