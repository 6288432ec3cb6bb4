/* SPDX-License-Identifier: GPL-2.0-only */
/* The mode without events: the kernel clears the bit, PAGEMAP_SCAN tells. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "checks.h"

#define ASYNC (WP | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC)

static size_t scan(const struct area *a, uint64_t flags, uint8_t *pages)
{
	struct scan_region region[PAGES];
	struct scan_arg arg = {
		.size = sizeof(arg),
		.flags = flags,
		.start = (uintptr_t)a->mem,
		.end = (uintptr_t)a->mem + a->pages * a->page,
		.vec = (uintptr_t)region,
		.vec_len = PAGES,
		.category_mask = SCAN_WRITTEN,
		.return_mask = SCAN_WRITTEN,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t total = 0;
	int n;

	memset(pages, 0, a->pages);
	n = fd < 0 ? -1 : ioctl(fd, PAGEMAP_SCAN_IOCTL, &arg);
	if (n < 0)
		fail("PAGEMAP_SCAN: %s", strerror(errno));
	for (int i = 0; i < n; i++)
		for (uint64_t p = region[i].start; p < region[i].end;
		     p += a->page, total++)
			pages[(p - (uintptr_t)a->mem) / a->page] = 1;
	if (fd >= 0)
		close(fd);
	return total;
}

void async_mode(void)
{
	uint8_t dirty[PAGES];
	struct bench b;

	if (!begin(&b, ANON, PAGES, ASYNC))
		return;
	area_fill(&b.a, 0, PAGES / 2);
	if (!attach(&b))
		return;
	scan(&b.a, SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC, dirty);
	expect(scan(&b.a, SCAN_CHECK_WPASYNC, dirty) == 0,
	       "pages are dirty right after they were armed");
	for (size_t i = 0; i < PAGES; i += 3)
		*area_word(&b.a, i) = 1;
	expect(scan(&b.a, SCAN_CHECK_WPASYNC, dirty) == (PAGES + 2) / 3,
	       "not as many pages are dirty as were written");
	for (size_t i = 0; i < PAGES; i++)
		expect(dirty[i] == (i % 3 == 0), "page %zu is %s", i,
		       dirty[i] ? "dirty" : "clean");
	/* And once more, armed by the scan. */
	scan(&b.a, SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC, dirty);
	*area_word(&b.a, 5) = 1;
	expect(scan(&b.a, SCAN_CHECK_WPASYNC, dirty) == 1 && dirty[5],
	       "a page that the scan armed was not reported");
	expect_events(&b, 0, 0);
	end(&b);
}

void async_cow(void)
{
	uint8_t dirty[PAGES];
	struct child c;
	struct bench b;

	if (!begin_filled(&b, ASYNC))
		return;
	scan(&b.a, SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC, dirty);
	if (start_child(&c, sees_old_values, &b)) {
		for (size_t i = 0; i < PAGES / 2; i++)
			*area_word(&b.a, i) = 1;
		expect(scan(&b.a, SCAN_CHECK_WPASYNC, dirty) == PAGES / 2,
		       "not as many pages are dirty as were written");
		expect(!end_child(&c), "the child sees the parent's writes");
	}
	end(&b);
}
