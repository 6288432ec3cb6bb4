/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table of checks, and what they are made of.  Each says one sentence about
 * the bit that marks a page-table entry as write-protected by userfaultfd: see
 * README.md for the specification.
 */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "checks.h"

bool begin(struct bench *b, enum backing backing, size_t pages,
	   uint64_t features)
{
	memset(b, 0, sizeof(*b));
	b->fd = uffd_open(features);
	return b->fd >= 0 && area_map(&b->a, backing, pages);
}

bool attach(struct bench *b)
{
	if (!area_register(&b->a, b->fd))
		return false;
	watch(&b->w, &b->a, b->fd);
	return true;
}

bool begin_filled(struct bench *b, uint64_t features)
{
	if (!begin(b, ANON, PAGES, features))
		return false;
	area_fill(&b->a, 0, PAGES);
	return attach(b);
}

void end(struct bench *b)
{
	watch_end(&b->w);
	close(b->fd);
	area_unmap(&b->a);
}

bool arm(struct bench *b, size_t from, size_t n)
{
	int err = n ? area_protect(&b->a, b->fd, from, n, true) : 0;

	if (err)
		return fail("UFFDIO_WRITEPROTECT: %s", strerror(err));
	return true;
}

void write_pages(struct bench *b, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		*area_word(&b->a, i) = 1000 + i;
	for (size_t i = from; i < to; i++)
		expect(*area_word(&b->a, i) == 1000 + i,
		       "page %zu holds %llu after it was written", i,
		       (unsigned long long)*area_word(&b->a, i));
}

void expect_events(struct bench *b, size_t from, size_t to)
{
	uint64_t n = __atomic_load_n(&b->w.events, __ATOMIC_RELAXED);

	expect(n == to - from, "%llu events for %zu protected pages",
	       (unsigned long long)n, to - from);
	for (size_t i = 0; i < b->a.pages; i++)
		expect(b->w.seen[i] == (i >= from && i < to),
		       "page %zu reported %u times", i, b->w.seen[i]);
	expect(!b->w.other, "%llu events of another kind",
	       (unsigned long long)b->w.other);
}

const struct check checks[] = {
	{"protected pages of the base size report one write each, others none",
	 small_pages},
	{"reads of protected pages report nothing", reads_do_not_report},
	{"protected zero pages report one write each", zero_page},
	{"protecting holes has no effect without WP_UNPOPULATED",
	 unpopulated_without},
	{"protected holes report with WP_UNPOPULATED", unpopulated_with},
	{"unregistering clears the bit", after_unregister},
	{"shmem pages", shmem_pages},
	{"protected holes of shmem report", shmem_holes},
	{"hugetlb pages", hugetlb_pages},
	{"protected holes of hugetlb report", hugetlb_holes},
	{"huge pages (PMD): the bit survives the split by a resolved page",
	 huge_page},
	{"huge pages (PMD): the bit survives the split by MADV_DONTNEED",
	 huge_page_split},
	{"huge pages (PMD) are resolved whole", huge_page_whole},
	{"the bit survives mprotect to read-only and back", mprotect_read},
	{"the bit survives mprotect to none and back", mprotect_none},
	{"resolving does not make a read-only mapping writable",
	 resolve_under_mprotect},
	{"the bit survives swap-out and swap-in", swapped_out},
	{"the bit survives migration", migrated},
	{"huge pages (PMD): the bit survives migration", migrated_huge},
	{"protected and copy-on-write: userfaultfd first, then the copy",
	 cow_order},
	{"copy-on-write without the bit reports nothing", cow_alone},
	{"protected while shared: one report, then the copy", cow_armed_later},
	{"resolved while shared: no report, still the copy", cow_disarmed},
	{"fork drops the bit in the child without EVENT_FORK", fork_drops},
	{"fork keeps the bit in the child with EVENT_FORK", fork_keeps},
	{"WP_ASYNC and PAGEMAP_SCAN report the written pages", async_mode},
	{"WP_ASYNC and copy-on-write", async_cow},
	{NULL, NULL},
};
