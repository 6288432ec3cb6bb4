/* SPDX-License-Identifier: MIT */
/*
 * Probes of userfaultfd and /proc/self/pagemap.
 *
 * Whether a page is really protected is asked with read(2) from a pipe into
 * it.  On a descriptor with UFFD_FEATURE_SIGBUS a fault in kernel mode fails
 * the call with EFAULT at once: no signal, no thread that could hang.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/kernel_abi.h"
#include "runtime/probe_impl.h"
#include "runtime/uffd.h"

static void probe_way(enum wr_uffd_way way, struct wr_probe_result *r)
{
	int fd = wr_uffd_open_way(way);
	const char *cause, *cure;
	uint64_t all = 0;

	if (fd < 0) {
		wr_uffd_explain(way, -fd, &cause, &cure);
		wr_probe_no(r, cause, cure);
		return;
	}
	if (wr_uffd_handshake(fd, 0, &all))
		wr_probe_no(r, "the kernel's userfaultfd speaks another API",
			    WR_UFFD_CURE);
	else
		wr_probe_yes(r, "features %#llx", (unsigned long long)all);
	close(fd);
}

void wr_probe_user_mode(const char *root, struct wr_probe_result *r)
{
	(void)root;
	probe_way(WR_UFFD_USER_ONLY, r);
}

void wr_probe_syscall(const char *root, struct wr_probe_result *r)
{
	char text[32];

	probe_way(WR_UFFD_SYSCALL, r);
	if (wr_probe_read(root, "/proc/sys/vm/unprivileged_userfaultfd", text,
			  sizeof(text))) {
		size_t n = strlen(r->detail);

		snprintf(r->detail + n, sizeof(r->detail) - n,
			 "%svm.unprivileged_userfaultfd=%s", n ? ", " : "",
			 text);
	}
}

void wr_probe_device(const char *root, struct wr_probe_result *r)
{
	(void)root;
	probe_way(WR_UFFD_DEVICE, r);
}

/* ---- Protection, tried -------------------------------------------------- */

/* What a trial needs. */
struct trial {
	struct wr_uffd uffd; /* with the features in question */
	char *p;             /* two pages, registered; the first populated */
	size_t page;         /* size of one */
	int ends[2];         /* a pipe */
};

static void explain_open(uint64_t features, const char *lacks,
			 struct wr_probe_result *r)
{
	static const enum wr_uffd_way ways[] = {
		WR_UFFD_USER_ONLY, WR_UFFD_DEVICE, WR_UFFD_SYSCALL};
	const char *cause, *cure;
	int fd = -1;

	for (unsigned i = 0; i < WR_UFFD_WAYS && fd < 0; i++)
		fd = wr_uffd_open_way(ways[i]);
	if (fd < 0) {
		wr_uffd_explain(WR_UFFD_USER_ONLY,
				-wr_uffd_open_way(WR_UFFD_USER_ONLY), &cause,
				&cure);
		wr_probe_no(r, cause, cure);
	} else {
		wr_probe_no(r,
			    wr_uffd_handshake(fd, features, NULL)
				    ? lacks
				    : "the feature is announced, but does not "
				      "work",
			    WR_UFFD_CURE);
		close(fd);
	}
}

static bool begin(struct trial *t, uint64_t features)
{
	t->page = (size_t)sysconf(_SC_PAGESIZE);
	if (wr_uffd_open(&t->uffd, features, false))
		return false;
	t->p = mmap(NULL, 2 * t->page, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->p != MAP_FAILED) {
		*t->p = 1;
		if (!wr_uffd_add_range(&t->uffd, (uintptr_t)t->p,
				       (uintptr_t)t->p + 2 * t->page) &&
		    !pipe2(t->ends, O_CLOEXEC | O_NONBLOCK))
			return true;
		munmap(t->p, 2 * t->page);
	}
	wr_uffd_close(&t->uffd);
	return false;
}

static void end(struct trial *t)
{
	wr_uffd_close(&t->uffd);
	munmap(t->p, 2 * t->page);
	close(t->ends[0]);
	close(t->ends[1]);
}

/* Can the kernel write to page i?  0, or the errno it failed with. */
static int kernel_write(struct trial *t, unsigned i)
{
	char c;
	int err = 0;

	if (write(t->ends[1], "w", 1) != 1)
		return errno;
	if (read(t->ends[0], t->p + i * t->page, 1) != 1) {
		err = errno;
		if (read(t->ends[0], &c, 1) != 1)
			return errno;
	}
	return err;
}

/* Protect page i; a write must fail, and work again once it is let go. */
static bool protects(struct trial *t, unsigned i)
{
	uintptr_t at = (uintptr_t)t->p + i * t->page;

	return wr_uffd_protect(t->uffd.fd, at, at + t->page) > 0 &&
	       kernel_write(t, i) == EFAULT &&
	       wr_uffd_unprotect(t->uffd.fd, at, at + t->page) > 0 &&
	       kernel_write(t, i) == 0;
}

/* read_first: a hole is read, so that there is a page to protect. */
static void probe_protection(unsigned page, uint64_t features, bool read_first,
			     const char *lacks, struct wr_probe_result *r)
{
	struct trial t;
	uintptr_t at;
	bool ok;

	/* SIGBUS for the trial's sake, see above; it is older than WP. */
	features |= UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS;
	if (begin(&t, features)) {
		at = (uintptr_t)t.p + page * t.page;
		ok = (!read_first || wr_uffd_populate(at, at + t.page) > 0) &&
		     protects(&t, page);
		end(&t);
		if (ok) {
			wr_probe_yes(r, "a write was held up, through %s",
				     wr_uffd_way_name(t.uffd.way));
			return;
		}
	}
	explain_open(features, lacks, r);
}

void wr_probe_wp(const char *root, struct wr_probe_result *r)
{
	(void)root;
	probe_protection(0, 0, false,
			 "the kernel has no write protection by "
			 "userfaultfd: " WR_UFFD_WP_SINCE,
			 r);
}

void wr_probe_wp_unpopulated(const char *root, struct wr_probe_result *r)
{
	(void)root;
	probe_protection(1, UFFD_FEATURE_WP_UNPOPULATED, false,
			 "the kernel (older than 6.4) protects no page that "
			 "is not there yet",
			 r);
}

void wr_probe_wp_read_first(const char *root, struct wr_probe_result *r)
{
	(void)root;
	probe_protection(1, 0, true,
			 "the kernel (older than 5.14, or without write "
			 "protection) has no such pages to protect",
			 r);
}

void wr_probe_sigbus(const char *root, struct wr_probe_result *r)
{
	(void)root;
	probe_protection(0, UFFD_FEATURE_SIGBUS, false,
			 "the kernel's userfaultfd sends no SIGBUS", r);
}

void wr_probe_wp_async(const char *root, struct wr_probe_result *r)
{
	uint64_t features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;
	struct trial t;
	uintptr_t at;
	bool ok;

	(void)root;
	if (begin(&t, features)) {
		at = (uintptr_t)t.p;
		ok = wr_uffd_protect(t.uffd.fd, at, at + t.page) > 0 &&
		     kernel_write(&t, 0) == 0;
		end(&t);
		if (ok) {
			wr_probe_yes(r,
				     "a system call wrote to a protected page, "
				     "through %s",
				     wr_uffd_way_name(t.uffd.way));
			return;
		}
	}
	explain_open(features,
		     "the kernel (older than 6.7) does not resolve write "
		     "faults by itself",
		     r);
}

/* ---- /proc/self/pagemap ------------------------------------------------- */

static int open_pagemap(struct wr_probe_result *r)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == EACCES || errno == EPERM)
		wr_probe_no(r,
			    "the process is not dumpable, so it may not open "
			    "/proc/self/pagemap",
			    "make the heap before changing the user, or "
			    "prctl(PR_SET_DUMPABLE, 1)");
	else if (errno == ENOENT && access("/proc/self", F_OK))
		wr_probe_no(r, "/proc is not mounted", "mount /proc");
	else if (errno == ENOENT)
		wr_probe_no(r, "there is no /proc/self/pagemap",
			    "build the kernel with CONFIG_PROC_PAGE_MONITOR");
	else
		wr_probe_no(r, strerror(errno),
			    "raise RLIMIT_NOFILE if descriptors ran out");
	return -1;
}

void wr_probe_pagemap_scan(const char *root, struct wr_probe_result *r)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct wr_page_region region = {0};
	struct wr_pm_scan_arg a = {
		.size = sizeof(a),
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_mask = WR_PAGE_IS_PRESENT,
		.return_mask = WR_PAGE_IS_PRESENT,
	};
	int fd = open_pagemap(r), n;
	char *p;

	(void)root;
	if (fd < 0)
		return;
	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		wr_probe_no(r, "no memory for a scratch page",
			    "raise RLIMIT_AS or free memory");
		close(fd);
		return;
	}
	p[page] = 1;
	a.start = (uintptr_t)p;
	a.end = (uintptr_t)p + 2 * page;
	n = ioctl(fd, WR_PAGEMAP_SCAN, &a);
	if (n == 1 && region.start == (uintptr_t)p + page)
		wr_probe_yes(r, "found the one populated page of two");
	else if (n < 0 && errno == ENOTTY)
		wr_probe_no(r,
			    "the kernel (older than 6.7) has no PAGEMAP_SCAN",
			    WR_UFFD_CURE);
	else
		wr_probe_no(r, n < 0 ? strerror(errno) : "wrong answer",
			    "report the kernel's version");
	munmap(p, 2 * page);
	close(fd);
}

void wr_probe_soft_dirty(const char *root, struct wr_probe_result *r)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = open_pagemap(r);
	uint64_t entry = 0;
	char *p;

	(void)root;
	if (fd < 0)
		return;
	p = mmap(NULL, page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED) {
		*p = 1;
		/* Every page of a new mapping is soft-dirty, bit 55. */
		if (pread(fd, &entry, sizeof(entry),
			  (off_t)((uintptr_t)p / page * sizeof(entry))) !=
		    (ssize_t)sizeof(entry))
			entry = 0;
		munmap(p, page);
	}
	close(fd);
	if (entry >> 55 & 1)
		wr_probe_yes(r, "a written page has the bit");
	else
		wr_probe_no(r,
			    "a written page has no soft-dirty bit: the kernel "
			    "lacks CONFIG_MEM_SOFT_DIRTY",
			    "none needed: weir does not use it");
}
