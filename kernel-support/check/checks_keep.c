/* SPDX-License-Identifier: GPL-2.0-only */
/* What must keep the bit, or must not give more than it took: mprotect, the
 * splitting of huge pages, swapping, migration. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "checks.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static void mprotect_round(int there)
{
	struct bench b;
	size_t size;

	if (!begin_filled(&b, WP))
		return;
	size = PAGES * b.a.page;
	if (arm(&b, 0, PAGES / 2)) {
		expect(!mprotect(b.a.mem, size, there), "mprotect: %s",
		       strerror(errno));
		expect(!mprotect(b.a.mem, size, PROT_READ | PROT_WRITE),
		       "mprotect: %s", strerror(errno));
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES / 2);
	}
	end(&b);
}

void mprotect_read(void)
{
	mprotect_round(PROT_READ);
}

void mprotect_none(void)
{
	mprotect_round(PROT_NONE);
}

/* Resolving forbids nothing that mprotect forbids, and allows nothing. */
void resolve_under_mprotect(void)
{
	struct bench b;
	int pipes[2];

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b) || pipe(pipes))
		return;
	if (arm(&b, 0, PAGES)) {
		mprotect(b.a.mem, PAGES * b.a.page, PROT_READ);
		area_protect(&b.a, b.fd, 0, PAGES, false);
		/* write(2) says whether memory can be written: EFAULT. */
		expect(write(pipes[1], "x", 1) == 1 &&
			       read(pipes[0], b.a.mem, 1) < 0 &&
			       errno == EFAULT,
		       "a page of a read-only mapping can be written");
		expect_events(&b, 0, 0);
	}
	close(pipes[0]);
	close(pipes[1]);
	end(&b);
}

/* Is all of the area one huge page? */
static bool is_huge(const struct area *a)
{
	char line[256];
	unsigned long start, stop, kib = 0;
	FILE *f = fopen("/proc/self/smaps", "r");
	bool here = false;

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &stop) == 2)
			here = start <= (uintptr_t)a->mem &&
			       (uintptr_t)a->mem < stop;
		else if (here && sscanf(line, "AnonHugePages: %lu", &kib) == 1)
			break;
	}
	fclose(f);
	return kib >= a->page * a->pages >> 10;
}

static bool begin_huge(struct bench *b)
{
	if (!begin(b, ANON_HUGE, 0, WP))
		return false;
	area_fill(&b->a, 0, b->a.pages);
	if (!is_huge(&b->a))
		return skip("no transparent huge page came");
	return attach(b);
}

/* All of a huge page is armed at once; each write reports its own page, since
 * resolving one page splits it, and the others keep the bit. */
void huge_page(void)
{
	struct bench b;

	if (!begin_huge(&b))
		return;
	if (arm(&b, 0, b.a.pages)) {
		expect(is_huge(&b.a), "arming has split the huge page");
		write_pages(&b, 0, b.a.pages);
		expect_events(&b, 0, b.a.pages);
	}
	end(&b);
}

void huge_page_whole(void)
{
	struct bench b;

	if (!begin_huge(&b))
		return;
	if (arm(&b, 0, b.a.pages)) {
		area_protect(&b.a, b.fd, 0, b.a.pages, false);
		write_pages(&b, 0, b.a.pages);
		expect_events(&b, 0, 0);
	}
	end(&b);
}

/* A part that is given back splits it too. */
void huge_page_split(void)
{
	struct bench b;

	if (!begin_huge(&b))
		return;
	if (arm(&b, 0, b.a.pages)) {
		expect(!madvise(b.a.mem, b.a.page, MADV_DONTNEED),
		       "madvise: %s", strerror(errno));
		write_pages(&b, 1, b.a.pages);
		expect_events(&b, 1, b.a.pages);
	}
	end(&b);
}

void swapped_out(void)
{
	size_t out = 0;
	struct bench b;

	if (!begin_filled(&b, WP))
		return;
	if (arm(&b, 0, PAGES / 2)) {
		if (madvise(b.a.mem, PAGES * b.a.page, MADV_PAGEOUT))
			skip("MADV_PAGEOUT: %s", strerror(errno));
		for (size_t i = 0; i < PAGES / 2; i++)
			out += pagemap_of(b.a.mem + i * b.a.page) >> 62 & 1;
		if (out < PAGES / 4)
			skip("%zu of %d protected pages were swapped out; is "
			     "there swap space?",
			     out, PAGES / 2);
		/* Read some in first. */
		for (size_t i = 0; i < PAGES; i += 3)
			expect(*area_word(&b.a, i) == i + 1,
			       "page %zu came back changed", i);
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES / 2);
	}
	end(&b);
}

/* Move pages to the other node of two; how many are there. */
static size_t moved(void **pages, size_t n)
{
	int node[PAGES], status[PAGES] = {0};
	size_t there = 0;

	if (syscall(SYS_move_pages, 0, (long)n, pages, NULL, status, 0) < 0) {
		skip("move_pages: %s", strerror(errno));
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		node[i] = !status[i];
	if (syscall(SYS_move_pages, 0, (long)n, pages, node, status, 0) < 0) {
		skip("move_pages to another node: %s", strerror(errno));
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		there += status[i] == node[i];
	if (!there)
		skip("no page could be moved to another node; is there more "
		     "than one?");
	return there;
}

void migrated(void)
{
	void *pages[PAGES];
	struct bench b;

	if (!begin_filled(&b, WP))
		return;
	if (arm(&b, 0, PAGES / 2)) {
		for (size_t i = 0; i < PAGES; i++)
			pages[i] = b.a.mem + i * b.a.page;
		moved(pages, PAGES);
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES / 2);
	}
	end(&b);
}

/* Its first page names all of it. */
void migrated_huge(void)
{
	struct bench b;
	void *page;

	if (!begin_huge(&b))
		return;
	page = b.a.mem;
	if (arm(&b, 0, b.a.pages)) {
		if (moved(&page, 1) && !is_huge(&b.a))
			skip("migration has split the huge page");
		write_pages(&b, 0, b.a.pages);
		expect_events(&b, 0, b.a.pages);
	}
	end(&b);
}
