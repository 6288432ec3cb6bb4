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
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/kernel_abi.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define GIB ((size_t)1 << 30)
#define PRESENT ((uint64_t)1 << 63)
#define OF_FILE ((uint64_t)1 << 61)
#define MOST_PAGES 512 /* of a chunk, with pages of 4 KiB */

#define CURE_UFFD                                                  \
	"sysctl vm.unprivileged_userfaultfd=1, CAP_SYS_PTRACE or " \
	"permission to open /dev/userfaultfd would allow it, and root has it"

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

static int split_range(struct wr_memory *m, size_t from, size_t to)
{
	char *p = m->start + from;
	int err;

	if (from >= to)
		return 0;
	err = move_tables(p, m->alias + from, to - from);
	if (err)
		return err;
	/* Until here what is written is the file's, from here on the
	 * writer's.  If it fails it is shared, as it was. */
	if (mmap(p, to - from, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, m->file,
		 (off_t)from) == MAP_FAILED)
		return -errno;
	return 0;
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
	m->registered = false;
	err = split_range(m, 0, m->folded);
	if (!err)
		m->folded = 0;
	return err;
}

/* ---- Folding ------------------------------------------------------------ */

/* The mappings of [folded, split) to be protected, in part, soon. */
static int watch(struct wr_memory *m)
{
	struct uffdio_register r = {
		.range = {.start = (uintptr_t)m->start + m->folded,
			  .len = m->split - m->folded},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (m->registered)
		return 0;
	if (ioctl(m->uffd.fd, UFFDIO_REGISTER, &r))
		return -errno;
	m->registered = true;
	return 0;
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

__attribute__((no_sanitize("thread", "address"), noinline)) static bool
is_zero(const char *p, size_t bytes)
{
	const volatile uint64_t *in = (const volatile uint64_t *)p;
	const volatile uint64_t *end = in + bytes / 8;

	while (in < end && !*in)
		in++;
	return in == end;
}

/* ThreadSanitizer is not told that the kernel holds the writers back; so not
 * memcpy(), which it takes over. */
__attribute__((no_sanitize("thread", "address"), noinline)) static void
copy_page(void *to, const void *from, size_t bytes)
{
#if defined(__x86_64__)
	__asm__ volatile("rep movsb"
			 : "+D"(to), "+S"(from), "+c"(bytes)
			 :
			 : "memory");
#else
	volatile uint64_t *out = to;
	const volatile uint64_t *in = from;

	for (; bytes; bytes -= 8)
		*out++ = *in++;
#endif
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
		    is_zero(p, page)) {
			wr_memory_discard(m, m->start + from, page);
			continue;
		}
		copy_page(m->alias + from, p, page);
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
	char *p = m->start + from;
	int err = move_tables(m->alias + from, p, end - from);

	if (!err)
		return 0;
	/* It may have failed half way, with nothing mapped. */
	if (mmap(p, end - from, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->file,
		 (off_t)from) == MAP_FAILED)
		return err;
	madvise(p, end - from, MADV_DONTFORK);
	return 0;
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
	err = watch(m);
	if (err)
		return err;
	populate(m, from, end, had);
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
	m->registered = false;
	return 0;
}

int wr_memory_discard(const struct wr_memory *m, void *at, size_t bytes)
{
	return fallocate(m->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (char *)at - m->start, (off_t)bytes)
		       ? -errno
		       : 0;
}

/* ---- Life --------------------------------------------------------------- */

static int open_file(struct wr_memory *m)
{
	m->file = memfd_create("weir-redis", MFD_CLOEXEC);
	if (m->file < 0 || ftruncate(m->file, (off_t)m->limit))
		return wr_error(errno, "memfd_create: %s; raise RLIMIT_NOFILE",
				strerror(errno));
	m->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (m->pagemap < 0)
		return wr_error(ENOTSUP,
				"/proc/self/pagemap: %s; mount /proc and let "
				"this user read it",
				strerror(errno));
	return 0;
}

static int open_uffd(struct wr_memory *m)
{
	int err = wr_uffd_open(&m->uffd,
			       UFFD_FEATURE_PAGEFAULT_FLAG_WP |
				       UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
			       true);

	if (err)
		return err;
	if (!wr_uffd_serves_kernel(&m->uffd))
		return wr_error(ENOTSUP,
				"no privilege to hold back system calls that "
				"write to the memory: " CURE_UFFD);
	return 0;
}

/* The file at `at`, or at an address of the kernel's choice. */
static char *map_file(const struct wr_memory *m, char *at)
{
	char *p = at, *raw;

	if (!at) {
		size_t head;

		raw = mmap(NULL, m->limit + GIB, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (raw == MAP_FAILED)
			return NULL;
		head = (size_t)(-(uintptr_t)raw & (GIB - 1));
		p = raw + head;
		if (head)
			munmap(raw, head);
		munmap(p + m->limit, GIB - head);
	}
	if (mmap(p, m->limit, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->file,
		 0) == MAP_FAILED ||
	    madvise(p, m->limit, MADV_DONTFORK)) {
		if (!at)
			munmap(p, m->limit);
		return NULL;
	}
	return p;
}

static int no_mapping(const struct wr_memory *m)
{
	return wr_error(ENOMEM,
			"no address space for %zu GiB twice: %s; raise "
			"RLIMIT_AS, or give a lower WEIR_REDIS_LIMIT",
			m->limit / GIB, strerror(errno));
}

/* All of it once, on one chunk. */
static int try_out(struct wr_memory *m)
{
	static const char before[] = "before", after[] = "after";
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int err;

	strcpy(m->start, before);
	strcpy(m->start + page, before);
	err = wr_memory_split(m, WR_MEMORY_CHUNK);
	if (err)
		return wr_error(ENOTSUP,
				"the memory cannot be split: %s; it takes "
				"Linux 5.13",
				strerror(-err));
	strcpy(m->start + page, after);
	if (strcmp(m->start, before) || strcmp(m->alias + page, before))
		return wr_error(ENOTSUP, "what was split is not apart on this "
					 "kernel");
	err = wr_memory_fold(m);
	if (err)
		return wr_error(ENOTSUP,
				"the memory cannot be write-protected: %s; it "
				"takes Linux 5.19",
				strerror(-err));
	if (strcmp(m->start, before) || strcmp(m->start + page, after) ||
	    strcmp(m->alias + page, after))
		return wr_error(ENOTSUP, "what was folded is not whole on this "
					 "kernel");
	m->copied = 0;
	wr_memory_discard(m, m->start, WR_MEMORY_CHUNK);
	return 0;
}

int wr_memory_open(struct wr_memory *m, size_t limit)
{
	int err;

	*m = (struct wr_memory){
		.limit = (limit + GIB - 1) & ~(GIB - 1),
		.file = -1,
		.pagemap = -1,
		.uffd = {.fd = -1},
	};
	err = open_file(m);
	if (!err)
		err = open_uffd(m);
	if (!err) {
		m->start = map_file(m, NULL);
		m->alias = m->start ? map_file(m, NULL) : NULL;
		err = m->alias ? try_out(m) : no_mapping(m);
	}
	if (err)
		wr_memory_close(m);
	return err;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void wr_memory_close(struct wr_memory *m)
{
	if (m->start)
		munmap(m->start, m->limit);
	if (m->alias)
		munmap(m->alias, m->limit);
	m->start = m->alias = NULL;
	close_fd(&m->file);
	close_fd(&m->pagemap);
	wr_uffd_close(&m->uffd);
}

int wr_memory_renew(struct wr_memory *m, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct wr_memory n = {
		.start = m->start,
		.limit = m->limit,
		.used = m->used,
		.file = -1,
		.pagemap = -1,
		.uffd = {.fd = -1},
	};
	int err = open_file(&n);

	if (!err)
		err = open_uffd(&n);
	if (!err && !(n.alias = map_file(&n, NULL)))
		err = no_mapping(&n);
	for (size_t at = 0; !err && at < bytes; at += page)
		if (!is_zero(n.start + at, page))
			memcpy(n.alias + at, n.start + at, page);
	/* If this fails, nothing has happened to what is there. */
	if (!err && !map_file(&n, n.start))
		err = no_mapping(&n);
	if (err) {
		n.start = NULL; /* in use */
		wr_memory_close(&n);
		return err;
	}
	close_fd(&m->file);
	close_fd(&m->pagemap);
	wr_uffd_close(&m->uffd);
	*m = n;
	return 0;
}
