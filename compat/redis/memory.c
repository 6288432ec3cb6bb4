/* SPDX-License-Identifier: MIT */
/*
 * Splitting and folding; memory.h says what that is and what holds.
 *
 * What a page of a private mapping of the file may be: the file's, or, once it
 * was written, a copy (anonymous memory, also when it is swapped out or just
 * being moved).  /proc/self/pagemap tells for certain only that a page is the
 * file's (present, bit 61).  Whatever is not is copied, which is right for
 * every page: where it was the file's after all it is copied onto itself. Holes
 * of the file are left out: a copy is only ever made of a page that is there.
 */
#define _GNU_SOURCE
#include "compat/redis/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "compat/redis/memory_copy.h"
#include "runtime/check.h"
#include "runtime/kernel_abi.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define PRESENT ((uint64_t)1 << 63)
#define OF_FILE ((uint64_t)1 << 61)
#define MOST_PAGES 512 /* of a chunk, with pages of 4 KiB */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The page tables of [at, at + bytes) of one mapping become those of the other;
 * the first stays mapped, without any. */
static int move_tables(char *from, char *to, size_t bytes)
{
	void *p = mremap(from, bytes, bytes,
			 MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);

	return p == MAP_FAILED ? -errno : 0;
}

/* ---- Splitting ---------------------------------------------------------- */

/* What may be refused (limits, strict accounts of memory) is asked for first:
 * kernels before 6.12 take away what is mapped, and refuse then. */
static int split_range(struct wr_memory *m, size_t from, size_t to)
{
	char *p = m->start + from, *private;
	size_t bytes = to - from;
	int err;

	if (from >= to)
		return 0;
	private = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_NORESERVE, m->file, (off_t)from);
	if (private == MAP_FAILED)
		return -errno;
	madvise(private, bytes, MADV_DONTDUMP);
	if (m->huge)
		madvise(private, bytes, MADV_HUGEPAGE);
	err = move_tables(p, m->alias + from, bytes);
	if (err) {
		munmap(private, bytes);
		/* It may have failed half way, with nothing mapped. */
		wr_memory_map(m, m->alias, from, to);
		return err;
	}
	/* Until here what is written is the file's, from here on the
	 * writer's. */
	if (mremap(private, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p) ==
	    MAP_FAILED) {
		err = -errno;
		munmap(private, bytes);
		wr_require(!wr_memory_map(m, m->start, from, to),
			   "redis: memory at %#lx is lost", (unsigned long)p);
	}
	return err;
}

int wr_memory_split(struct wr_memory *m, size_t bytes)
{
	size_t end = (bytes + WR_MEMORY_CHUNK - 1) & ~(WR_MEMORY_CHUNK - 1);
	int err;

	if (end > m->limit)
		return -EINVAL;
	/* What is new first: it can be taken for split if the rest fails. */
	if (end > m->split) {
		err = split_range(m, m->split, end);
		if (err)
			return err;
		m->split = end;
	}
	err = split_range(m, 0, m->folded);
	if (!err)
		m->folded = 0;
	return err;
}

/* ---- Folding ------------------------------------------------------------ */

/* [from, end) is to be protected.  Not more of it, as the kernel does not map
 * pages around one that is read where this may be done. */
static int watch(const struct wr_memory *m, size_t from, size_t end)
{
	struct uffdio_register r = {
		.range = {.start = (uintptr_t)m->start + from,
			  .len = end - from},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(m->uffd.fd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

/* A huge page of a file that is protected is not mapped any more, so that all
 * of it would be in doubt.  Page by page it stays. */
static int unhuge(const struct wr_memory *m, size_t from)
{
	uintptr_t p = (uintptr_t)m->start + from;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int err = wr_uffd_protect(m->uffd.fd, p, p + page);

	if (err >= 0)
		err = wr_uffd_unprotect(m->uffd.fd, p, p + page);
	return err < 0 ? err : 0;
}

/*
 * Which pages of [from, end) the file has, as far as one can tell while it is
 * written to (lseek() with SEEK_HOLE would look through all of the file); and
 * these are made present, so that few are in doubt while writers have to wait.
 */
static void populate(const struct wr_memory *m, size_t from, size_t end,
		     unsigned char *had)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (end - from) / page;
	uintptr_t p = (uintptr_t)m->start + from;

	if (mincore(m->alias + from, end - from, had))
		memset(had, 1, n);
	for (size_t i = 0, to; i < n; i = to + 1) {
		for (to = i; to < n && had[to] & 1;)
			to++;
		if (i < to)
			wr_uffd_populate(p + i * page, p + to * page);
	}
}

/* Whether somebody may want what page n holds.  Acquire: pairs with who sets
 * the bit before he writes; the page was protected before this look. */
static bool in_use(const struct wr_memory *m, size_t n)
{
	return !m->used ||
	       __atomic_load_n(&m->used[n / 64], __ATOMIC_ACQUIRE) >> n % 64 &
		       1;
}

/* Copies of pages of [from, end) into the file.  Nobody writes to them.  What
 * the file did not have, was read here and is zero, is a hole again. */
static int copy_back(struct wr_memory *m, size_t from, size_t end,
		     const unsigned char *had)
{
	uint64_t entry[MOST_PAGES];
	size_t page = (size_t)sysconf(_SC_PAGESIZE), base = from;
	size_t n = (end - from) / page * sizeof(entry[0]);

	if (pread(m->pagemap, entry, n,
		  (off_t)(((uintptr_t)m->start + from) / page *
			  sizeof(entry[0]))) != (ssize_t)n)
		return errno ? -errno : -EIO;
	for (; from < end; from += page) {
		size_t i = (from - base) / page;
		const char *p = m->start + from;

		if ((entry[i] & (PRESENT | OF_FILE)) == (PRESENT | OF_FILE) ||
		    !in_use(m, from / page))
			continue;
		if (!(entry[i] & PRESENT) && !(had[i] & 1) &&
		    wr_memory_is_zero(p, page)) {
			wr_memory_discard(m, m->start + from, page);
			continue;
		}
		wr_memory_copy_page(m->alias + from, p, page);
		m->copied++;
	}
	return 0;
}

static void let_go(const struct wr_memory *m, size_t from, size_t end)
{
	struct uffdio_range r = {.start = (uintptr_t)m->start + from,
				 .len = end - from};

	ioctl(m->uffd.fd, UFFDIO_WAKE, &r);
}

/* The file in place of the private mapping; its content is the same. */
static int put_back(const struct wr_memory *m, size_t from, size_t end)
{
	int err = move_tables(m->alias + from, m->start + from, end - from);

	if (!err)
		return 0;
	/* It may have failed half way, with nothing mapped. */
	return wr_memory_map(m, m->start, from, end) ? err : 0;
}

int wr_memory_fold(struct wr_memory *m)
{
	size_t from = m->folded, end = from + WR_MEMORY_CHUNK;
	uintptr_t p = (uintptr_t)m->start + from;
	unsigned char had[MOST_PAGES];
	uint64_t since;
	int err;

	if (m->folded == m->split)
		return 0;
	populate(m, from, end, had);
	err = watch(m, from, end);
	if (!err && m->huge) {
		err = unhuge(m, from);
		populate(m, from, end, had);
	}
	if (err)
		return err;
	since = now_ns();
	err = wr_uffd_protect(m->uffd.fd, p, p + (end - from));
	if (err >= 0)
		err = copy_back(m, from, end, had);
	if (!err)
		err = put_back(m, from, end);
	if (err) {
		/* Still mapped and split, or the memory is lost. */
		wr_require(wr_uffd_unprotect(m->uffd.fd, p, p + (end - from)) >=
				   0,
			   "redis: memory at %#lx is lost", (unsigned long)p);
		return err;
	}
	let_go(m, from, end);
	since = now_ns() - since;
	if (since > m->held_ns)
		m->held_ns = since;
	m->folded = end;
	if (m->folded < m->split)
		return 1;
	m->folded = m->split = 0;
	return 0;
}

int wr_memory_discard(const struct wr_memory *m, void *at, size_t bytes)
{
	return fallocate(m->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (char *)at - m->start, (off_t)bytes)
		       ? -errno
		       : 0;
}
