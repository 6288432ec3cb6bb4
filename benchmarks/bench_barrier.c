/* SPDX-License-Identifier: MIT */
/*
 * bench-barrier: what the write barrier costs, each back end against the bare
 * loop of bare_barrier.c, in one process and in alternation.
 *
 * A round of one implementation: map and populate a range, arm it, write a
 * word to each of --pages pages scattered over it (the first write to each
 * since the arm), fetch those pages and arm them again, fetch once more when
 * nothing was written.  Each page that was written must be fetched: a wrong
 * count ends the program.
 *
 * Prints one line of JSON a round and implementation.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <weir/weir.h>

#include "benchmarks/bare_barrier.h"
#include "runtime/barrier.h"

#define PAGE 4096u

/* What was asked for. */
static struct {
	uint64_t size;  /* of the range */
	uint64_t pages; /* written in a round */
	unsigned rounds;
	bool thp;            /* let the range have huge pages */
	const char *barrier; /* one back end, or "all" */
} want = {1ull << 30, 16384, 5, false, "all"};

/* An implementation: the library's or the bare one. */
struct tracker {
	const char *name;
	void (*open)(enum wr_barrier_kind kind, void *start, size_t size);
	void (*close)(void);
	void (*arm)(void);
	size_t (*fetch)(void); /* pages that were dirty, armed again */
};

static struct wr_barrier *barrier;
static void *range;

static void __attribute__((noreturn)) die(const char *what, int err)
{
	fprintf(stderr, "bench-barrier: %s: %s: %s\n", what, strerror(err),
		weir_error_text());
	exit(2);
}

static void weir_open(enum wr_barrier_kind kind, void *start, size_t size)
{
	int rc = wr_barrier_create(kind, &barrier);

	if (rc)
		die(wr_barrier_name(kind), -rc);
	rc = wr_barrier_add_range(barrier, start, size);
	if (rc)
		die("wr_barrier_add_range", -rc);
}

static void weir_close(void)
{
	wr_barrier_destroy(barrier);
}

static void weir_arm(void)
{
	int rc = wr_barrier_arm(barrier, range, want.size);

	if (rc)
		die("wr_barrier_arm", -rc);
}

static void count_runs(void *arg, const struct wr_run *runs, size_t count)
{
	size_t *pages = arg, i;

	for (i = 0; i < count; i++)
		*pages += (runs[i].end - runs[i].start) / PAGE;
}

static size_t weir_fetch(void)
{
	size_t pages = 0;
	int rc = wr_barrier_fetch(barrier, range, want.size, WR_FETCH_REARM,
				  count_runs, &pages);

	if (rc)
		die("wr_barrier_fetch", -rc);
	return pages;
}

static const struct tracker trackers[] = {
	{"weir", weir_open, weir_close, weir_arm, weir_fetch},
	{"bare", bare_open, bare_close, bare_arm, bare_fetch},
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Write to page number (i * step) mod the pages of the range for i below
 * want.pages: scattered, each once, since step is odd and their number a
 * power of two.  Returns the time it took. */
static uint64_t write_pages(char *p)
{
	uint64_t all = want.size / PAGE, step = (all * 5 / 8) | 1, i, begin;

	begin = now();
	for (i = 0; i < want.pages; i++)
		*(volatile uint64_t *)(p + (i * step & (all - 1)) * PAGE) = i;
	return now() - begin;
}

static void round_of(const struct tracker *t, enum wr_barrier_kind kind,
		     unsigned number)
{
	uint64_t arm, write, fetch, clean, begin;
	double per_gib = (double)(1ull << 30) / (double)want.size;
	size_t found, none;

	range = mmap(NULL, want.size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (range == MAP_FAILED)
		die("mmap", errno);
	madvise(range, want.size, want.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(range, 1, want.size);
	t->open(kind, range, want.size);

	begin = now();
	t->arm();
	arm = now() - begin;
	write = write_pages(range);
	begin = now();
	found = t->fetch();
	fetch = now() - begin;
	begin = now();
	none = t->fetch();
	clean = now() - begin;
	t->close();
	munmap(range, want.size);
	if (found < want.pages || (!want.thp && found > want.pages) || none) {
		fprintf(stderr,
			"bench-barrier: %s, %s: %llu pages were written, %zu "
			"fetched, %zu fetched again\n",
			wr_barrier_name(kind), t->name,
			(unsigned long long)want.pages, found, none);
		exit(2);
	}
	printf("{\"workload\":\"barrier\",\"barrier\":\"%s\",\"peer\":\"%s\","
	       "\"round\":%u,\"params\":\"size=%llu pages=%llu thp=%d\","
	       "\"arm_ns_per_gib\":%.0f,\"write_ns\":%.1f,"
	       "\"fetch_ns_per_gib\":%.0f,\"clean_ns_per_gib\":%.0f}\n",
	       wr_barrier_name(kind), t->name, number,
	       (unsigned long long)want.size, (unsigned long long)want.pages,
	       want.thp, (double)arm * per_gib,
	       (double)write / (double)want.pages, (double)fetch * per_gib,
	       (double)clean * per_gib);
}

static void usage(void)
{
	fprintf(stderr,
		"usage: bench-barrier [--barrier KIND|all] [--rounds N] "
		"[--size BYTES] [--pages N] [--thp on|off]\n");
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (*end == 'k' || *end == 'm' || *end == 'g')
		n <<= *end == 'k' ? 10 : *end == 'm' ? 20 : 30;
	else if (*end)
		usage();
	return n;
}

static void parse(int argc, char **argv)
{
	int i;

	for (i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--barrier"))
			want.barrier = argv[i + 1];
		else if (!strcmp(argv[i], "--rounds"))
			want.rounds = (unsigned)number(argv[i + 1]);
		else if (!strcmp(argv[i], "--size"))
			want.size = number(argv[i + 1]);
		else if (!strcmp(argv[i], "--pages"))
			want.pages = number(argv[i + 1]);
		else if (!strcmp(argv[i], "--thp"))
			want.thp = !strcmp(argv[i + 1], "on");
		else
			usage();
	}
	if (i < argc || want.rounds == 0 || want.pages == 0 ||
	    want.size / PAGE < want.pages || (want.size & (want.size - 1)))
		usage();
}

int main(int argc, char **argv)
{
	static const enum wr_barrier_kind kinds[] = {
		WR_BARRIER_ASYNC, WR_BARRIER_SYNC, WR_BARRIER_SIGBUS,
		WR_BARRIER_MPROTECT};
	unsigned round, k;
	size_t i;
	bool any = false;

	parse(argc, argv);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(want.barrier, "all") != 0 &&
		    strcmp(want.barrier, wr_barrier_name(kinds[i])) != 0)
			continue;
		any = true;
		/* Either goes first every other round. */
		for (round = 0; round < want.rounds; round++) {
			for (k = 0; k < 2; k++)
				round_of(&trackers[(round + k) % 2], kinds[i],
					 round);
		}
	}
	if (!any)
		usage();
	return fflush(stdout) ? 2 : 0;
}
