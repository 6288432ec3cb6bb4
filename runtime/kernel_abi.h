/* SPDX-License-Identifier: MIT */
/*
 * Kernel interfaces that the system's headers may be too old to declare:
 * the later userfaultfd feature bits and the PAGEMAP_SCAN ioctl.
 *
 * The one place for them.  Values are kernel ABI and never change; whether
 * the running kernel knows them is found by doing (runtime/probe.h), never
 * from these definitions and never from a version number.
 */
#ifndef WEIR_RUNTIME_KERNEL_ABI_H
#define WEIR_RUNTIME_KERNEL_ABI_H

#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>

/* ---- userfaultfd -------------------------------------------------------- */

/* Flag of the system call (5.11): user-mode faults only, no privilege. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* ioctl of /dev/userfaultfd (6.1): a descriptor as by the system call. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Write-protect markers on unpopulated anonymous pages (6.4). */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
/* Write faults are resolved by the kernel, no event (6.7). */
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/* ---- madvise(2) -----------------------------------------------------------
 */

#ifndef MADV_POPULATE_READ /* 5.14 */
#define MADV_POPULATE_READ 22
#endif

/* ---- /proc/PID/pagemap: PAGEMAP_SCAN (6.7) ------------------------------ */

/* Page categories.  WRITTEN means "not write-protected by userfaultfd", so
 * unpopulated pages count as written unless PRESENT or SWAPPED is asked for
 * beside it; those two together are "populated" (SWAPPED includes pages that
 * are being migrated). */
#define WR_PAGE_IS_WPALLOWED (1ull << 0)
#define WR_PAGE_IS_WRITTEN (1ull << 1)
#define WR_PAGE_IS_FILE (1ull << 2)
#define WR_PAGE_IS_PRESENT (1ull << 3)
#define WR_PAGE_IS_SWAPPED (1ull << 4)
#define WR_PAGE_IS_PFNZERO (1ull << 5)
#define WR_PAGE_IS_HUGE (1ull << 6)
#define WR_PAGE_IS_SOFT_DIRTY (1ull << 7)

/* Write-protect the pages that match. */
#define WR_PM_SCAN_WP_MATCHING (1ull << 0)
/* Fail with EPERM when a mapping in the range is not registered WP_ASYNC. */
#define WR_PM_SCAN_CHECK_WPASYNC (1ull << 1)

/* struct page_region: a run of pages of equal categories. */
struct wr_page_region {
	uint64_t start;      /* first byte */
	uint64_t end;        /* one past the last byte */
	uint64_t categories; /* WR_PAGE_IS_*, those of return_mask */
};

/* struct pm_scan_arg. */
struct wr_pm_scan_arg {
	uint64_t size;                /* of this struct */
	uint64_t flags;               /* WR_PM_SCAN_* */
	uint64_t start;               /* of the range, page-aligned */
	uint64_t end;                 /* of the range */
	uint64_t walk_end;            /* out: where the walk stopped */
	uint64_t vec;                 /* struct wr_page_region[vec_len] or 0 */
	uint64_t vec_len;             /* entries of vec */
	uint64_t max_pages;           /* stop after so many matches; 0: never */
	uint64_t category_inverted;   /* bits to flip before matching */
	uint64_t category_mask;       /* all of these must be set */
	uint64_t category_anyof_mask; /* one of these must be; 0: no matter */
	uint64_t return_mask;         /* bits to return */
};

_Static_assert(sizeof(struct wr_page_region) == 24, "kernel ABI");
_Static_assert(sizeof(struct wr_pm_scan_arg) == 96, "kernel ABI");

#define WR_PAGEMAP_SCAN _IOWR('f', 16, struct wr_pm_scan_arg)

#endif
