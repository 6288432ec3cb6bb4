/* SPDX-License-Identifier: MIT */
/* The back ends and privileges of the barrier's conformance tests, a range
 * under test, and what fetches report. */
#ifndef WEIR_TESTS_TEST_BARRIER_H
#define WEIR_TESTS_TEST_BARRIER_H

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier.h"
#include "runtime/barrier_ops.h"
#include "runtime/kernel_abi.h"

/* Huge pages are those of x86-64; with other pages the tests only need a
 * size of many of them. */
#define PAGE ((size_t)getpagesize())
#define MIB ((size_t)1 << 20)
#define HUGE_PAGE (512 * PAGE)
#define NOBODY 65534
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

struct variant {
	enum wr_barrier_kind kind;
	bool unprivileged;
	bool old; /* on a kernel before 6.4, without WP_UNPOPULATED */
};

static struct variant variants[] = {
	{WR_BARRIER_ASYNC, false, false},   {WR_BARRIER_ASYNC, true, false},
	{WR_BARRIER_SYNC, false, false},    {WR_BARRIER_SYNC, true, false},
	{WR_BARRIER_SYNC, false, true},     {WR_BARRIER_SYNC, true, true},
	{WR_BARRIER_SIGBUS, false, false},  {WR_BARRIER_SIGBUS, true, false},
	{WR_BARRIER_SIGBUS, false, true},   {WR_BARRIER_MPROTECT, false, false},
	{WR_BARRIER_MPROTECT, true, false}, {WR_BARRIER_NONE, false, false},
	{WR_BARRIER_NONE, true, false},
};

#define VARIANTS()                                    \
	cr_make_param_array(struct variant, variants, \
			    sizeof(variants) / sizeof(variants[0]))

/*
 * Under none every page is DIRTY, whatever was armed: what a fetch reports is
 * `pages`, the ones that were asked for, and not the `few` that were written.
 */
static inline size_t expected(const struct variant *v, size_t few, size_t pages)
{
	return v->kind == WR_BARRIER_NONE ? pages : few;
}

static inline void drop_privileges(void)
{
	if (geteuid() == 0) {
		cr_assert(!setresgid(NOBODY, NOBODY, NOBODY));
		cr_assert(!setresuid(NOBODY, NOBODY, NOBODY));
	}
	/* As after an execve(): changing the user took this away. */
	cr_assert(!prctl(PR_SET_DUMPABLE, 1));
}

/* Skips, with the library's reason, where the kernel lacks the kind. */
static inline struct wr_barrier *make(const struct variant *v)
{
	struct wr_barrier *b = NULL;
	int err;

	if (v->unprivileged)
		drop_privileges();
	wr_uffd_hidden = v->old ? UFFD_FEATURE_WP_UNPOPULATED : 0;
	err = wr_barrier_create(v->kind, &b);
	/* Missing is one thing, wrong another. */
	cr_assert(!strstr(weir_error_text(), "does not report"), "%s",
		  weir_error_text());
	if (err == -ENOTSUP)
		cr_skip("%s %s: %s", wr_barrier_name(v->kind),
			v->unprivileged ? "unprivileged" : "as started",
			weir_error_text());
	cr_assert_eq(err, 0, "%s: %s", wr_barrier_name(v->kind),
		     weir_error_text());
	cr_assert_eq(wr_barrier_kind(b), v->kind);
	return b;
}

static inline char *map(size_t size, int prot)
{
	/* Aligned for huge pages; the rest around it is never used. */
	char *p = mmap(NULL, size + HUGE_PAGE, prot,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	return (char *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
}

static inline char *map_range(struct wr_barrier *b, size_t size)
{
	char *p = map(size, PROT_READ | PROT_WRITE);

	cr_assert_eq(wr_barrier_add_range(b, p, size), 0, "%s",
		     weir_error_text());
	return p;
}

/* The pages that a fetch reported. */
struct report {
	const char *base; /* page 0 */
	size_t pages;     /* of the area */
	size_t count;     /* reported */
	uintptr_t last;   /* end of the last run */
	uint8_t *seen;    /* by page */
};

static inline void note(void *arg, const struct wr_run *runs, size_t count)
{
	struct report *r = arg;

	cr_assert_gt(count, 0);
	for (size_t i = 0; i < count; i++) {
		cr_assert_geq(runs[i].start, r->last, "not ascending");
		cr_assert_gt(runs[i].end, runs[i].start, "empty run");
		cr_assert_eq((runs[i].start | runs[i].end) % PAGE, 0);
		r->last = runs[i].end;
		for (uintptr_t p = runs[i].start; p < runs[i].end; p += PAGE) {
			size_t page = (p - (uintptr_t)r->base) / PAGE;

			cr_assert_lt(page, r->pages, "outside the area");
			r->seen[page] = 1;
			r->count++;
		}
	}
}

static inline void fetch(struct wr_barrier *b, struct report *r, char *p,
			 size_t size, unsigned flags)
{
	free(r->seen);
	*r = (struct report){.base = p, .pages = size / PAGE};
	r->seen = calloc(r->pages, 1);
	cr_assert_eq(wr_barrier_fetch(b, p, size, flags, note, r), 0, "%s",
		     weir_error_text());
}

static inline void arm(struct wr_barrier *b, char *p, size_t size)
{
	cr_assert_eq(wr_barrier_arm(b, p, size), 0, "%s", weir_error_text());
}

#endif
