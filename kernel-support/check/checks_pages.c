/* SPDX-License-Identifier: GPL-2.0-only */
/* Which writes report: by the kind of page, and what is no page yet. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "checks.h"

/* Half of the pages armed, all written: those report, the others do not. */
static void half_armed(enum backing backing, size_t pages, uint64_t features)
{
	struct bench b;

	if (!begin(&b, backing, pages, features))
		return;
	area_fill(&b.a, 0, b.a.pages);
	if (!attach(&b))
		return;
	if (arm(&b, 0, b.a.pages / 2)) {
		write_pages(&b, 0, b.a.pages);
		expect_events(&b, 0, b.a.pages / 2);
		/* The bit is gone: no more. */
		write_pages(&b, 0, b.a.pages);
		expect_events(&b, 0, b.a.pages / 2);
	}
	end(&b);
}

void small_pages(void)
{
	half_armed(ANON, PAGES, WP);
}

void shmem_pages(void)
{
	half_armed(SHMEM, PAGES, WP | FEATURE_WP_HUGETLBFS_SHMEM);
}

void hugetlb_pages(void)
{
	half_armed(HUGETLB, 2, WP | FEATURE_WP_HUGETLBFS_SHMEM);
}

void reads_do_not_report(void)
{
	struct bench b;
	uint64_t sum = 0;

	if (!begin_filled(&b, WP))
		return;
	if (arm(&b, 0, PAGES)) {
		for (size_t i = 0; i < PAGES; i++)
			sum += *area_word(&b.a, i);
		expect(sum == PAGES * (PAGES + 1) / 2, "the pages changed");
		expect_events(&b, 0, 0);
	}
	end(&b);
}

void zero_page(void)
{
	struct bench b;
	uint64_t sum = 0;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	/* Reading maps the zero page. */
	for (size_t i = 0; i < PAGES; i++)
		sum += *area_word(&b.a, i);
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES / 2)) {
		write_pages(&b, 0, PAGES);
		expect(!sum, "the zero page is not zero");
		expect_events(&b, 0, PAGES / 2);
	}
	end(&b);
}

void unpopulated_without(void)
{
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP) || !attach(&b))
		return;
	if (arm(&b, 0, PAGES)) {
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, 0);
	}
	end(&b);
}

static void half_armed_holes(enum backing backing, size_t pages,
			     uint64_t features)
{
	struct bench b;

	if (!begin(&b, backing, pages, features) || !attach(&b))
		return;
	if (arm(&b, 0, pages / 2)) {
		write_pages(&b, 0, pages);
		expect_events(&b, 0, pages / 2);
	}
	end(&b);
}

void unpopulated_with(void)
{
	half_armed_holes(ANON, PAGES, WP | FEATURE_WP_UNPOPULATED);
}

/* These kinds have markers for holes since they can be protected. */
void shmem_holes(void)
{
	half_armed_holes(SHMEM, PAGES, WP | FEATURE_WP_HUGETLBFS_SHMEM);
}

void hugetlb_holes(void)
{
	half_armed_holes(HUGETLB, 2, WP | FEATURE_WP_HUGETLBFS_SHMEM);
}

void after_unregister(void)
{
	struct uffdio_range range;
	struct bench b;

	if (!begin_filled(&b, WP))
		return;
	range = (struct uffdio_range){(uintptr_t)b.a.mem, PAGES * b.a.page};
	if (arm(&b, 0, PAGES)) {
		expect(!ioctl(b.fd, UFFDIO_UNREGISTER, &range),
		       "UFFDIO_UNREGISTER: %s", strerror(errno));
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, 0);
	}
	end(&b);
}
