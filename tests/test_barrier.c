/* SPDX-License-Identifier: MIT */
/*
 * Conformance of the write barrier: one suite over every back end, each as it
 * is started (root, usually) and as an unprivileged user.  Writers beside the
 * collector are in test_barrier_race.c, what differs between kinds is in
 * test_barrier_kinds.c.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/memory.h"
#include "tests/quiet.h"
#include "tests/test_barrier.h"

ParameterizedTestParameters(barrier, states)
{
	return VARIANTS();
}

ParameterizedTest(struct variant *v, barrier, states)
{
	struct wr_barrier *b = make(v);
	size_t size = 3 * HUGE_PAGE, pages = size / PAGE;
	char *p = map_range(b, size);
	bool none = v->kind == WR_BARRIER_NONE;
	struct report r = {0};

	madvise(p, size, MADV_NOHUGEPAGE);
	memset(p, 1, size);
	fetch(b, &r, p, size, 0);
	cr_assert_eq(r.count, pages, "registered pages begin DIRTY");
	arm(b, p, size);
	fetch(b, &r, p, size, 0);
	cr_assert_eq(r.count, expected(v, 0, pages),
		     "armed pages are CLEAN, not %zu of them DIRTY", r.count);

	/* Reading is not writing; a written page is reported until re-armed. */
	for (size_t i = 0; i < pages; i += 7)
		p[i * PAGE + i % PAGE] = 2;
	for (size_t i = 0; i < pages; i++)
		cr_assert_eq(((volatile char *)p)[i * PAGE],
			     i % 7 == 0 && i % PAGE == 0 ? 2 : 1);
	for (unsigned round = 0; round < 3; round++) {
		fetch(b, &r, p, size, round == 2 ? WR_FETCH_REARM : 0);
		for (size_t i = 0; i < pages; i++)
			cr_assert_eq(r.seen[i], none || i % 7 == 0, "page %zu",
				     i);
	}
	fetch(b, &r, p, size, 0);
	cr_assert_eq(r.count, expected(v, 0, pages));

	/* Only the area asked for is looked at and re-armed. */
	p[5 * PAGE] = p[6 * PAGE] = p[7 * PAGE] = 3;
	fetch(b, &r, p + 6 * PAGE, PAGE, WR_FETCH_REARM);
	cr_assert_eq(r.count, 1);
	fetch(b, &r, p, size, 0);
	cr_assert(r.count == expected(v, 2, pages) && r.seen[5] && r.seen[7]);

	/* forget: DIRTY again, whether written or not. */
	cr_assert_eq(wr_barrier_forget(b, p + 500 * PAGE, 100 * PAGE), 0);
	fetch(b, &r, p, size, WR_FETCH_REARM);
	cr_assert_eq(r.count, expected(v, 102, pages));
	cr_assert(r.seen[500] && r.seen[599]);
	cr_assert(none || (!r.seen[499] && !r.seen[600]));

	/* Removed and added again: DIRTY, and it works as before. */
	cr_assert_eq(wr_barrier_remove_range(b, p, size), 0);
	p[0] = 4;
	cr_assert_eq(wr_barrier_add_range(b, p, size), 0);
	fetch(b, &r, p, size, WR_FETCH_REARM);
	cr_assert_eq(r.count, pages);
	p[PAGE] = 4;
	fetch(b, &r, p, size, 0);
	cr_assert(r.count == expected(v, 1, pages) && r.seen[1]);
	wr_barrier_destroy(b);
	p[2 * PAGE] = 5; /* nothing protects it any more */
	free(r.seen);
}

ParameterizedTestParameters(barrier, holes)
{
	return VARIANTS();
}

/* Unpopulated and PROT_NONE parts: armed, populated later, reported then. */
ParameterizedTest(struct variant *v, barrier, holes)
{
	struct wr_barrier *b = make(v);
	size_t size = 4 * HUGE_PAGE;
	char *p = map(size, PROT_NONE);
	size_t half = size / 2 / PAGE;
	bool exact = v->kind == WR_BARRIER_ASYNC;
	bool none = v->kind == WR_BARRIER_NONE;
	struct report r = {0};

	cr_assert_eq(wr_barrier_add_range(b, p, size), 0, "%s",
		     weir_error_text());
	arm(b, p, size);
	fetch(b, &r, p, size, 0);
	cr_assert(!exact || r.count == 0, "PROT_NONE was reported");
	cr_assert(!mprotect(p, size / 2, PROT_READ | PROT_WRITE));
	/* One page of a page table, the other way round than the next one. */
	p[3 * PAGE] = 1;
	p[HUGE_PAGE + 8 * PAGE] = 1;
	fetch(b, &r, p, size, WR_FETCH_REARM);
	cr_assert(r.seen[3] && r.seen[520]);
	cr_assert(!exact || r.count == 2, "%zu holes reported", r.count - 2);
	fetch(b, &r, p, size / 2, 0);
	cr_assert_eq(r.count, expected(v, 0, half),
		     "armed holes are not DIRTY");
	p[4 * PAGE] = 1;
	p[HUGE_PAGE - PAGE] = 1;
	fetch(b, &r, p, size / 2, 0);
	cr_assert(r.count == expected(v, 2, half) && r.seen[4] && r.seen[511]);
	fetch(b, &r, p, size / 2, WR_FETCH_HOLES);
	cr_assert(r.count >= 2 && r.seen[4] && r.seen[511]);
	cr_assert(none || !r.seen[3]);

	/* An armed hole costs async no second fault when it is written.  (A
	 * sanitizer's shadow would have faults of its own.) */
	if (exact && !SANITIZED) {
		struct rusage before, after;

		arm(b, p, size / 2);
		getrusage(RUSAGE_THREAD, &before);
		for (size_t i = 100; i < 500; i++)
			p[i * PAGE] = 1;
		getrusage(RUSAGE_THREAD, &after);
		cr_assert_lt(after.ru_minflt - before.ru_minflt, 500);
		arm(b, p, size / 2);
	}

	/* The second half comes in two pieces, so there are three mappings. */
	cr_assert(!mprotect(p + size / 2, size / 4, PROT_READ | PROT_WRITE));
	madvise(p + size / 2, HUGE_PAGE, MADV_HUGEPAGE);
	cr_assert(
		!mprotect(p + size / 4 * 3, size / 4, PROT_READ | PROT_WRITE));
	for (size_t at = size / 2; at < size; at += 64 * PAGE)
		p[at] = 1;
	fetch(b, &r, p, size, WR_FETCH_REARM);
	for (size_t at = size / 2; at < size; at += 64 * PAGE)
		cr_assert(r.seen[at / PAGE], "page %zu", at / PAGE);
	p[size - PAGE] = 1;
	p[size / 2] = 2;
	fetch(b, &r, p, size, 0);
	cr_assert(r.seen[size / PAGE - 1] && r.seen[size / 2 / PAGE]);
	cr_assert_eq(r.count, expected(v, 2, 2 * half));
	cr_assert_eq(wr_barrier_forget(b, p, size), 0);
	wr_barrier_destroy(b);
	free(r.seen);
}

ParameterizedTestParameters(barrier, discard)
{
	return VARIANTS();
}

/* Pages given back and used again, CLEAN and DIRTY before. */
ParameterizedTest(struct variant *v, barrier, discard)
{
	struct wr_barrier *b = make(v);
	size_t size = 2 * HUGE_PAGE, pages = size / PAGE;
	char *p = map_range(b, size);
	struct report r = {0};

	for (int thp = 0; thp < 2; thp++) {
		madvise(p, size, thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		memset(p, 1, size);
		arm(b, p, size);
		p[20 * PAGE] = 2;
		cr_assert(!madvise(p + 10 * PAGE, 20 * PAGE, MADV_DONTNEED));
		cr_assert(!madvise(p + HUGE_PAGE, HUGE_PAGE, MADV_DONTNEED));
		/* First read, so that the zero page comes in. */
		cr_assert_eq(((volatile char *)p)[11 * PAGE], 0);
		p[11 * PAGE] = 3;
		p[20 * PAGE] = 3;
		p[HUGE_PAGE + 77 * PAGE] = 3;
		fetch(b, &r, p, size, WR_FETCH_REARM);
		cr_assert(r.seen[11] && r.seen[20] && r.seen[512 + 77]);
		p[12 * PAGE] = 4;
		p[13 * PAGE] = 4;
		fetch(b, &r, p, size, 0);
		cr_assert(r.seen[12] && r.seen[13]);
		cr_assert_eq(r.count, expected(v, 2, pages));
	}
	/* At once after the discard: nothing else tells of this write. */
	for (unsigned round = 0; round < 500; round++) {
		arm(b, p, 4 * PAGE);
		cr_assert(!madvise(p, 4 * PAGE, MADV_DONTNEED));
		p[2 * PAGE] = 1;
		fetch(b, &r, p, 4 * PAGE, 0);
		cr_assert(r.seen[2], "round %u", round);
	}
	wr_barrier_destroy(b);
	free(r.seen);
}

static size_t huge_kib(const char *p)
{
	char text[64];
	size_t kib = 0;

	if (memory_of_mapping(p, "AnonHugePages:", text, sizeof(text)))
		sscanf(text, "%zu", &kib);
	return kib;
}

ParameterizedTestParameters(barrier, huge_pages)
{
	return VARIANTS();
}

ParameterizedTest(struct variant *v, barrier, huge_pages)
{
	struct wr_barrier *b = make(v);
	size_t size = 8 * HUGE_PAGE, pages = size / PAGE;
	char *p = map_range(b, size);
	struct report r = {0};

	madvise(p, size, MADV_HUGEPAGE);
	memset(p, 1, size);
	if (huge_kib(p) == 0)
		cr_skip("no huge page was to be had");
	arm(b, p, size);
	fetch(b, &r, p, size, 0);
	cr_assert_eq(r.count, expected(v, 0, pages));
	p[9 * PAGE] = 2;
	p[HUGE_PAGE * 3 - 1] = 2;
	p[HUGE_PAGE * 3] = 2;
	/* Arming and looking at a part of a huge page. */
	fetch(b, &r, p + PAGE, PAGE, WR_FETCH_REARM);
	cr_assert_eq(r.count, expected(v, 0, 1));
	fetch(b, &r, p, size, WR_FETCH_REARM);
	cr_assert(r.seen[9] && r.seen[1535] && r.seen[1536]);
	cr_assert_eq(r.count, expected(v, 3, pages), "%zu pages for 3 writes",
		     r.count);
	fetch(b, &r, p, size, 0);
	cr_assert_eq(r.count, expected(v, 0, pages));
	cr_assert_eq(wr_barrier_forget(b, p + 5 * HUGE_PAGE + PAGE, PAGE), 0);
	fetch(b, &r, p, size, 0);
	cr_assert(r.count == expected(v, 1, pages) && r.seen[5 * 512 + 1]);
	cr_assert_eq(wr_barrier_forget(b, p, size), 0);
	fetch(b, &r, p, size, WR_FETCH_REARM);
	cr_assert_eq(r.count, pages);
	arm(b, p + 11 * PAGE, 3 * HUGE_PAGE);
	for (size_t i = 0; i < size; i++)
		cr_assert_eq(p[i], i == 9 * PAGE || i == HUGE_PAGE * 3 - 1 ||
						   i == HUGE_PAGE * 3
					   ? 2
					   : 1);
	wr_barrier_destroy(b);
	free(r.seen);
}

/* ---- fork --------------------------------------------------------------- */

/* Run fn in a forked child, which must exit with 0. */
static void in_child(struct wr_barrier *b,
		     int (*fn)(struct wr_barrier *, char *), char *p)
{
	int status;
	pid_t pid;

	quiet_before_fork();
	wr_barrier_fork_prepare(b);
	pid = fork();
	if (pid == 0) {
		alarm(60);
		_exit(wr_barrier_fork_child(b) ? 99 : fn(b, p));
	}
	wr_barrier_fork_parent(b);
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		  "child: wait status %#x", (unsigned)status);
}

#define FORK_SIZE (2 * HUGE_PAGE)

static void count(void *arg, const struct wr_run *runs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*(size_t *)arg += (runs[i].end - runs[i].start) / PAGE;
}

static size_t count_dirty(struct wr_barrier *b, char *p, size_t size,
			  unsigned flags)
{
	size_t n = 0;

	return wr_barrier_fetch(b, p, size, flags, count, &n) ? (size_t)-1 : n;
}

static int child_cycle(struct wr_barrier *b, char *p)
{
	/* As expected(), for a barrier. */
	bool none = wr_barrier_kind(b) == WR_BARRIER_NONE;
	size_t all = FORK_SIZE / PAGE;
	char *q = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (count_dirty(b, p, FORK_SIZE, WR_FETCH_REARM) != all)
		return 1;
	if (count_dirty(b, p, FORK_SIZE, 0) != (none ? all : 0))
		return 2;
	p[0] = p[700 * PAGE] = 9;
	if (count_dirty(b, p, FORK_SIZE, WR_FETCH_REARM) != (none ? all : 2))
		return 3;
	if (wr_barrier_forget(b, p, FORK_SIZE) ||
	    count_dirty(b, p, FORK_SIZE, 0) != all)
		return 4;
	/* The child's own ranges, and its own child. */
	if (wr_barrier_add_range(b, q, PAGE) || wr_barrier_arm(b, q, PAGE))
		return 5;
	q[0] = 1;
	if (count_dirty(b, q, PAGE, 0) != 1)
		return 6;
	wr_barrier_destroy(b);
	return 0;
}

ParameterizedTestParameters(barrier, fork_child)
{
	return VARIANTS();
}

ParameterizedTest(struct variant *v, barrier, fork_child)
{
#ifdef __SANITIZE_THREAD__
	if (v->kind == WR_BARRIER_SYNC || v->kind == WR_BARRIER_SIGBUS)
		cr_skip("ThreadSanitizer dies of a thread that is made in a "
			"forked child (\"dup thread with used id\")");
#endif
	struct wr_barrier *b = make(v);
	char *p = map_range(b, FORK_SIZE);
	struct report r = {0};

	memset(p, 1, FORK_SIZE);
	arm(b, p, FORK_SIZE);
	p[3 * PAGE] = 2;
	in_child(b, child_cycle, p);
	/* The parent goes on as if nothing had been. */
	cr_assert_eq(p[0], 1);
	p[4 * PAGE] = 2;
	fetch(b, &r, p, FORK_SIZE, WR_FETCH_REARM);
	cr_assert(r.seen[3] && r.seen[4]);
	cr_assert_eq(r.count, expected(v, 2, FORK_SIZE / PAGE));
	in_child(b, child_cycle, p);
	wr_barrier_destroy(b);
	free(r.seen);
}

ParameterizedTestParameters(barrier, several_mappings)
{
	return VARIANTS();
}

/* What the program makes of a part of a range makes mappings of it: each is
 * armed, and one that cannot be is no reason to leave out the others. */
ParameterizedTest(struct variant *v, barrier, several_mappings)
{
	struct wr_barrier *b = make(v);
	size_t size = 2 * HUGE_PAGE, pages = size / PAGE;
	char *p = map_range(b, size);
	struct report r = {0};

	memset(p, 1, size);
	cr_assert(!madvise(p + 16 * PAGE, 16 * PAGE, MADV_DONTDUMP));
	arm(b, p, size);
	p[3 * PAGE] = p[20 * PAGE] = p[40 * PAGE] = p[HUGE_PAGE] = 2;
	fetch(b, &r, p, size, WR_FETCH_REARM);
	cr_assert_eq(r.count, expected(v, 4, pages));
	p[21 * PAGE] = 2;
	fetch(b, &r, p, size, 0);
	cr_assert_eq(r.count, expected(v, 1, pages));
	cr_assert(r.seen[21]);
	free(r.seen);
	wr_barrier_destroy(b);
}
