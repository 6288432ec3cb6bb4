/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The checks.  Each says one sentence about the bit that marks a page-table
 * entry as write-protected by userfaultfd: see README.md for the specification.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"
#include "uffd.h"

#define WP UFFD_FEATURE_PAGEFAULT_FLAG_WP
#define PAGES 64

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

struct bench {
	struct area a;
	struct watcher w;
	int fd;
};

static bool begin(struct bench *b, enum backing backing, size_t pages,
		  uint64_t features)
{
	memset(b, 0, sizeof(*b));
	b->fd = uffd_open(features);
	return b->fd >= 0 && area_map(&b->a, backing, pages);
}

static bool attach(struct bench *b)
{
	if (!area_register(&b->a, b->fd))
		return false;
	watch(&b->w, &b->a, b->fd);
	return true;
}

static void end(struct bench *b)
{
	watch_end(&b->w);
	close(b->fd);
	area_unmap(&b->a);
}

static bool arm(struct bench *b, size_t from, size_t n)
{
	int err = area_protect(&b->a, b->fd, from, n, true);

	if (err)
		return fail("UFFDIO_WRITEPROTECT: %s", strerror(err));
	return true;
}

/* Write to pages [from, to) and look at them. */
static void write_pages(struct bench *b, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		*area_word(&b->a, i) = 1000 + i;
	for (size_t i = from; i < to; i++)
		expect(*area_word(&b->a, i) == 1000 + i,
		       "page %zu holds %llu after it was written", i,
		       (unsigned long long)*area_word(&b->a, i));
}

/* The events must be those of [from, to), one a page. */
static void expect_events(struct bench *b, size_t from, size_t to)
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

static void small_pages(void)
{
	half_armed(ANON, PAGES, WP);
}

static void shmem_pages(void)
{
	half_armed(SHMEM, PAGES, WP | FEATURE_WP_HUGETLBFS_SHMEM);
}

static void hugetlb_pages(void)
{
	half_armed(HUGETLB, 2, WP | FEATURE_WP_HUGETLBFS_SHMEM);
}

static void reads_do_not_report(void)
{
	struct bench b;
	uint64_t sum = 0;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES)) {
		for (size_t i = 0; i < PAGES; i++)
			sum += *area_word(&b.a, i);
		expect(sum == PAGES * (PAGES + 1) / 2, "the pages changed");
		expect_events(&b, 0, 0);
	}
	end(&b);
}

static void zero_page(void)
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

static void unpopulated_without(void)
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

static void unpopulated_with(void)
{
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP | FEATURE_WP_UNPOPULATED) || !attach(&b))
		return;
	if (arm(&b, 0, PAGES / 2)) {
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES / 2);
	}
	end(&b);
}

static void after_unregister(void)
{
	struct uffdio_range range;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
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

/* ---- What must keep the bit -----------------------------------------------
 */

static void mprotect_round(int there)
{
	struct bench b;
	size_t size;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
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

static void mprotect_read(void)
{
	mprotect_round(PROT_READ);
}

static void mprotect_none(void)
{
	mprotect_round(PROT_NONE);
}

/* Resolving forbids nothing that mprotect forbids, and allows nothing. */
static void resolve_under_mprotect(void)
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
static void huge_page(void)
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

static void huge_page_whole(void)
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
static void huge_page_split(void)
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

static void swapped_out(void)
{
	size_t out = 0;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
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

static void migrated(void)
{
	void *pages[PAGES];
	int node[PAGES], status[PAGES];
	size_t moved = 0;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES / 2)) {
		for (size_t i = 0; i < PAGES; i++)
			pages[i] = b.a.mem + i * b.a.page;
		if (syscall(SYS_move_pages, 0, (long)PAGES, pages, NULL, status,
			    0) < 0)
			skip("move_pages: %s", strerror(errno));
		for (size_t i = 0; i < PAGES; i++)
			node[i] = !status[i];
		if (!over() && syscall(SYS_move_pages, 0, (long)PAGES, pages,
				       node, status, 0) < 0)
			skip("move_pages to another node: %s", strerror(errno));
		for (size_t i = 0; i < PAGES / 2; i++)
			moved += status[i] == node[i];
		if (!moved)
			skip("no page could be moved to another node; is there "
			     "more than one?");
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES / 2);
	}
	end(&b);
}

/* ---- fork and copy-on-write ------------------------------------------------
 */

/* A child that waits until it is told to go on, and whose exit status is what
 * fn returns. */
struct child {
	pid_t pid;
	int go; /* closing it lets the child go on */
};

static bool start_child(struct child *c, int (*fn)(struct bench *),
			struct bench *b)
{
	int pipes[2];
	char byte;

	if (pipe(pipes))
		return fail("pipe: %s", strerror(errno));
	fflush(stdout);
	c->pid = fork();
	if (c->pid < 0)
		return fail("fork: %s", strerror(errno));
	if (!c->pid) {
		close(pipes[1]);
		while (read(pipes[0], &byte, 1) < 0 && errno == EINTR)
			;
		alarm(20);
		_exit(fn(b));
	}
	close(pipes[0]);
	c->go = pipes[1];
	return true;
}

static int end_child(struct child *c)
{
	int status = 0;

	close(c->go);
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The child of all tests with copies: it must see what was there at fork. */
static int sees_old_values(struct bench *b)
{
	for (size_t i = 0; i < b->a.pages; i++)
		if (*area_word(&b->a, i) != i + 1)
			return 1;
	return 0;
}

/* At the event the writer stands still, and nothing was copied: the frame is
 * the one from before, its content old. */
static void look_before(struct watcher *w, size_t page)
{
	const char *p = w->area->mem + page * w->area->page;

	if (*area_word(w->area, page) != page + 1)
		w->note[0]++;
	if (w->note[2 + 0] && frame_of(p) != w->note[3] && page == 0)
		w->note[1]++;
}

static void cow_order(void)
{
	struct child c;
	struct bench b;
	uint64_t before;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	b.w.on_fault = look_before;
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES / 2) && start_child(&c, sees_old_values, &b)) {
		before = frame_of(b.a.mem);
		b.w.note[2] = before != 0;
		b.w.note[3] = before;
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES / 2);
		expect(!b.w.note[0],
		       "%llu pages had been written when they "
		       "were reported",
		       (unsigned long long)b.w.note[0]);
		expect(!b.w.note[1], "a page had been copied when it was "
				     "reported");
		expect(!before || frame_of(b.a.mem) != before,
		       "a shared page was not copied after it was resolved");
		expect(!end_child(&c), "the child sees the parent's writes");
	}
	end(&b);
}

/* Copy-on-write pages without the bit, in the same mapping: nothing. */
static void cow_alone(void)
{
	struct child c;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
		return;
	if (start_child(&c, sees_old_values, &b)) {
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, 0);
		expect(!end_child(&c), "the child sees the parent's writes");
	}
	end(&b);
}

/* Armed after the fork, when the pages are shared already. */
static void cow_armed_later(void)
{
	struct child c;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
		return;
	if (start_child(&c, sees_old_values, &b)) {
		if (arm(&b, 0, PAGES / 2)) {
			write_pages(&b, 0, PAGES);
			expect_events(&b, 0, PAGES / 2);
		}
		expect(!end_child(&c), "the child sees the parent's writes");
	}
	end(&b);
}

/* Disarmed while they are shared: still to be copied. */
static void cow_disarmed(void)
{
	struct child c;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES) && start_child(&c, sees_old_values, &b)) {
		area_protect(&b.a, b.fd, 0, PAGES, false);
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, 0);
		expect(!end_child(&c), "the child sees the parent's writes");
	}
	end(&b);
}

static int writes_all(struct bench *b)
{
	for (size_t i = 0; i < b->a.pages; i++)
		*area_word(&b->a, i) = 7;
	return 0;
}

static void fork_drops(void)
{
	struct child c;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES) && start_child(&c, writes_all, &b)) {
		expect(!end_child(&c), "the child was held, or died");
		expect_events(&b, 0, 0);
		/* The parent's are armed still. */
		for (size_t i = 0; i < PAGES; i++)
			expect(*area_word(&b.a, i) == i + 1,
			       "the parent sees the child's writes");
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES);
	}
	end(&b);
}

static void fork_keeps(void)
{
	struct watcher theirs = {0};
	struct child c;
	struct bench b;

	if (!begin(&b, ANON, PAGES, WP | UFFD_FEATURE_EVENT_FORK))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES / 2) && start_child(&c, writes_all, &b)) {
		int fd = watch_child(&b.w);

		if (fd < 0) {
			fail("no event came of the fork");
			kill(c.pid, SIGKILL);
			end_child(&c);
		} else {
			watch(&theirs, &b.a, fd);
			expect(!end_child(&c), "the child died");
			watch_end(&theirs);
			expect(theirs.events == PAGES / 2,
			       "%llu events of %d protected pages of the child",
			       (unsigned long long)theirs.events, PAGES / 2);
			close(fd);
		}
		expect_events(&b, 0, 0);
	}
	end(&b);
}

/* ---- Without events --------------------------------------------------------
 */

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

static void async_mode(void)
{
	uint8_t dirty[PAGES];
	struct bench b;

	if (!begin(&b, ANON, PAGES,
		   WP | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC))
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

static void async_cow(void)
{
	uint8_t dirty[PAGES];
	struct child c;
	struct bench b;

	if (!begin(&b, ANON, PAGES,
		   WP | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC))
		return;
	area_fill(&b.a, 0, PAGES);
	if (!attach(&b))
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

const struct check checks[] = {
	{"protected 4 KiB pages report one write each, others none",
	 small_pages},
	{"reads of protected pages report nothing", reads_do_not_report},
	{"protected zero pages report one write each", zero_page},
	{"protecting holes has no effect without WP_UNPOPULATED",
	 unpopulated_without},
	{"protected holes report with WP_UNPOPULATED", unpopulated_with},
	{"unregistering clears the bit", after_unregister},
	{"shmem pages", shmem_pages},
	{"hugetlb pages", hugetlb_pages},
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
