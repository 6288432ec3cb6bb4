/* SPDX-License-Identifier: MIT */
/*
 * Memory and clock primitives, behind a table so that tests can put a fake
 * under the collector.
 */
#ifndef WEIR_RUNTIME_SYS_H
#define WEIR_RUNTIME_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wr_sys {
	/* Address space, PROT_NONE, aligned (a power of two >= a page); NULL
	 * with errno.  Costs no memory and no commit charge. */
	void *(*reserve)(size_t size, size_t align);
	void (*release)(void *p, size_t size);
	/* Make [p, p + size) readable, writable and zero.  -ENOMEM when the
	 * system refuses (overcommit, RLIMIT). */
	int (*commit)(void *p, size_t size, bool huge);
	/* Give the pages back to the system; the range stays committed and
	 * reads as zero. */
	int (*discard)(void *p, size_t size);
	uint64_t (*now_ns)(void);        /* CLOCK_MONOTONIC */
	uint64_t (*thread_cpu_ns)(void); /* CPU time of the caller */
	size_t (*memory_limit)(void);    /* bytes: RAM or cgroup limit */
	unsigned (*cpus)(void);          /* allowed to this process */
	size_t page_size;
};

/* n bytes as whole pages. */
static inline size_t wr_sys_pages(const struct wr_sys *sys, size_t n)
{
	return (n + sys->page_size - 1) & ~(sys->page_size - 1);
}

/* Whether as much could be reserved now. */
static inline bool wr_sys_has_room(const struct wr_sys *sys, size_t size,
				   size_t align)
{
	void *p = sys->reserve(size, align);

	if (p)
		sys->release(p, size);
	return p;
}

/* The real system. */
const struct wr_sys *wr_sys_linux(void);

#endif
