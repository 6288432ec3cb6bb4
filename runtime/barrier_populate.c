/* SPDX-License-Identifier: MIT */
/*
 * See barrier_populate.h.
 *
 * Where transparent huge pages are asked for, what is read gets the huge zero
 * page.  Resolving one page of it splits it, and the protection of the others
 * must survive that; kernels before 6.2 without the fix in their stable series
 * lost it, and with it writes.  So it is tried, on memory of its own, before
 * anybody relies on it.
 */
#include "runtime/barrier_populate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/check.h"
#include "runtime/kernel_abi.h"
#include "runtime/uffd.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

int wr_populate(uintptr_t start, uintptr_t end)
{
	int saved = errno, n = 0;

	do {
		n++;
		if (!madvise((void *)start, end - start, MADV_POPULATE_READ))
			return n;
	} while (errno == EINTR || errno == EAGAIN);
	n = -errno;
	errno = saved;
	return n;
}

/* Is a write of the kernel's held up there?  Under SIGBUS it fails. */
static bool is_protected(uintptr_t p, int zero)
{
	return read(zero, (void *)p, 1) < 0 && errno == EFAULT;
}

/* Of a huge page's worth of holes the first page is resolved: the second and
 * the last must be protected still. */
static bool holes_hold(struct wr_uffd *u, uintptr_t p, size_t page, size_t huge,
		       int zero)
{
	if (wr_populate(p, p + huge) < 0 ||
	    wr_uffd_protect(u->fd, p, p + huge) < 0 || !is_protected(p, zero) ||
	    wr_uffd_unprotect(u->fd, p, p + page) < 0)
		return false;
	return !is_protected(p, zero) && is_protected(p + page, zero) &&
	       is_protected(p + huge - page, zero);
}

int wr_populate_try(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	/* What an entry one level up covers. */
	size_t huge = page / sizeof(uint64_t) * page;
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct wr_uffd u;
	uintptr_t start;
	bool ok = false;
	void *p;

	if (zero < 0)
		return wr_error(ENOTSUP, "/dev/zero: %s", strerror(errno));
	if (wr_uffd_open(&u,
			 UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS,
			 false)) {
		close(zero);
		return -ENOTSUP;
	}
	p = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p != MAP_FAILED) {
		start = ((uintptr_t)p + huge - 1) & ~(huge - 1);
		madvise((void *)start, huge, MADV_HUGEPAGE);
		ok = !wr_uffd_add_range(&u, start, start + huge) &&
		     holes_hold(&u, start, page, huge, zero);
	}
	wr_uffd_close(&u);
	if (p != MAP_FAILED)
		munmap(p, 2 * huge);
	close(zero);
	if (ok)
		return 0;
	return wr_error(ENOTSUP,
			"the kernel's userfaultfd lacks WP_UNPOPULATED (it "
			"came with Linux 6.4), and pages that are read first "
			"do not stay protected (for that a stable series of "
			"Linux 6.1 or later is needed)");
}
