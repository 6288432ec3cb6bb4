/* SPDX-License-Identifier: MIT */
/*
 * Opening the memory, with all of it tried out, so that what is missing is
 * named before anything depends on it; closing it; and a new one for a child.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "compat/redis/memory.h"
#include "compat/redis/memory_copy.h"
#include "runtime/check.h"
#include "runtime/kernel_abi.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

#define GIB ((size_t)1 << 30)
#define CURE_UFFD                                                  \
	"sysctl vm.unprivileged_userfaultfd=1, CAP_SYS_PTRACE or " \
	"permission to open /dev/userfaultfd would allow it, and root has it"

int wr_memory_map(const struct wr_memory *m, char *base, size_t from, size_t to)
{
	char *p = base + from;

	if (mmap(p, to - from, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->file,
		 (off_t)from) == MAP_FAILED ||
	    madvise(p, to - from, MADV_DONTFORK) ||
	    madvise(p, to - from, MADV_DONTDUMP) ||
	    (m->huge && madvise(p, to - from, MADV_HUGEPAGE)))
		return -errno;
	return 0;
}

/* Where the system keeps strict account of memory, a page that is not to be had
 * is a SIGBUS and not the NULL from malloc() that Redis reports. */
static int check_overcommit(void)
{
	char mode = '0';
	int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, &mode, 1);

	if (fd >= 0)
		close(fd);
	if (n == 1 && mode == '2')
		return wr_error(ENOTSUP,
				"vm.overcommit_memory is 2, with which memory "
				"that runs out would end the server unasked: "
				"sysctl vm.overcommit_memory=1 is what Redis "
				"wants, too");
	return 0;
}

/* Shared memory has a switch of its own, which is off unless somebody has
 * turned it on. */
static int check_huge(void)
{
	static const char name[] =
		"/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	char text[128] = "";
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			*text = 0;
		close(fd);
	}
	if (strstr(text, "[a") || strstr(text, "[within_size]") ||
	    strstr(text, "[force]"))
		return 0;
	return wr_error(ENOTSUP,
			"no huge pages for shared memory: echo advise >%s "
			"would allow them%s",
			name, *text ? "" : ", if this kernel had them");
}

static int open_file(struct wr_memory *m)
{
	struct rlimit most;

	m->file = memfd_create("weir-redis", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	if (m->file < 0 && errno == EINVAL) /* before Linux 6.3 */
		m->file = memfd_create("weir-redis", MFD_CLOEXEC);
	if (m->file < 0)
		return wr_error(errno, "memfd_create: %s%s", strerror(errno),
				errno == EMFILE || errno == ENFILE
					? "; raise RLIMIT_NOFILE"
					: "; something forbids it, such as a "
					  "container's seccomp profile");
	/* ftruncate() beyond it is a signal that ends the process. */
	if (getrlimit(RLIMIT_FSIZE, &most) || most.rlim_cur < m->limit)
		return wr_error(EFBIG,
				"RLIMIT_FSIZE is below %zu GiB: raise it, or "
				"give a lower WEIR_REDIS_LIMIT",
				m->limit / GIB);
	if (ftruncate(m->file, (off_t)m->limit))
		return wr_error(errno, "ftruncate: %s", strerror(errno));
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
	if (wr_memory_map(m, p, 0, m->limit)) {
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

int wr_memory_open(struct wr_memory *m, size_t limit, bool huge)
{
	int err;

	*m = (struct wr_memory){
		.limit = (limit + GIB - 1) & ~(GIB - 1),
		.huge = huge,
		.file = -1,
		.pagemap = -1,
		.uffd = {.fd = -1},
	};
	err = check_overcommit();
	if (!err && huge)
		err = check_huge();
	if (!err)
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
		.huge = m->huge,
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
		if (!wr_memory_is_zero(n.start + at, page))
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
