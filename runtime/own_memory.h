/* SPDX-License-Identifier: MIT */
/*
 * Memory that is surely not in a region, and not from malloc(): a program may
 * keep all that malloc() gives in regions, and what the fault handlers write to
 * must never be protected.  Nor may a lock of malloc() be needed while threads
 * are stopped that may hold it.  Whole pages, zeroed.
 *
 * Any thread.  NULL: none is left.
 */
#ifndef WEIR_RUNTIME_OWN_MEMORY_H
#define WEIR_RUNTIME_OWN_MEMORY_H

#include <stddef.h>
#include <sys/mman.h>

static inline void *wr_own_alloc(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* p may be NULL. */
static inline void wr_own_free(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

/* `more` bytes with the contents of p's `bytes` (0: p is NULL), which is gone
 * then; or NULL, and p stays. */
static inline void *wr_own_grow(void *p, size_t bytes, size_t more)
{
	char *bigger = wr_own_alloc(more);

	if (bigger && bytes) {
		__builtin_memcpy(bigger, p, bytes);
		wr_own_free(p, bytes);
	}
	return bigger;
}

#endif
