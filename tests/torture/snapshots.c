/* SPDX-License-Identifier: MIT */
/*
 * Snapshots under random circumstances, for some seconds: sizes of unit, ways
 * to notice writes, policies, pools, sinks and writers change from round to
 * round; what is handed over must be what the region held at the moment.
 *
 * usage: snapshots [--seconds N] [--seed N] [--delay US] [--mutant NAME]
 *
 * --delay and --mutant take a build with --enable-mutants (runtime/
 * snap_point.h).  Ways to notice writes that this kernel lacks are named and
 * left out.  Exit status: 0 all was right, 1 a page was not as it was or did
 * not come, 2 the program could not do its work, 77 no way to notice writes is
 * left.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "runtime/snap_point.h"
#include "tests/snapshot_util.h"

#define LARGEST (8 * MIB)

struct round {
	unsigned barrier; /* enum weir_region_barrier */
	unsigned flags;   /* WEIR_REGION_* */
	unsigned writers; /* threads */
	size_t bytes;     /* of the region */
};

static struct {
	unsigned barrier, flags;
	bool lacking; /* not on this kernel */
} manners[] = {
	{WEIR_REGION_SYNC, 0, false},
	{WEIR_REGION_SYNC, WEIR_REGION_TRACK, false},
	{WEIR_REGION_SYNC, WEIR_REGION_SHARED, false},
	{WEIR_REGION_SYNC, WEIR_REGION_HUGE, false},
	{WEIR_REGION_SYNC, WEIR_REGION_HUGE | WEIR_REGION_PAGES, false},
	{WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES, false},
	{WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES | WEIR_REGION_TRACK,
	 false},
	{WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES | WEIR_REGION_HUGE, false},
	{WEIR_REGION_SIGBUS,
	 WEIR_REGION_USER_WRITES | WEIR_REGION_HUGE | WEIR_REGION_PAGES |
		 WEIR_REGION_TRACK,
	 false},
	{WEIR_REGION_ASYNC, 0, false},
};

#define MANNERS (sizeof(manners) / sizeof(manners[0]))

/* Microseconds between writes. */
static const unsigned pauses[] = {0, 0, 1, 200};

static uint64_t seed = 1;
static uint64_t done; /* snapshots */

static unsigned choose(unsigned n)
{
	return (unsigned)(random_of(&seed) >> 20) % n;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void give_up(const char *what)
{
	fprintf(stderr, "snapshots: %s: %s\n", what, weir_error_text());
	exit(2);
}

static struct weir_snapshot_options options_of(const struct round *r,
					       struct writers *w)
{
	static const size_t pools[] = {4096, 64 << 10, 1 << 20, 16 << 20};

	return (struct weir_snapshot_options){
		.size = sizeof(struct weir_snapshot_options),
		.kind = r->barrier == WEIR_REGION_ASYNC ? WEIR_SNAPSHOT_END
							: WEIR_SNAPSHOT_BEGIN,
		.full = choose(2) ? WEIR_FULL_STALL : WEIR_FULL_WRITE_THROUGH,
		.pool = pools[choose(4)],
		.stop = writers_stop,
		.resume = writers_resume,
		.stop_arg = w,
	};
}

/* One snapshot.  What is wrong ends the program, writers or not. */
static void snapshot(const struct round *r, weir_region *region,
		     struct writers *w)
{
	struct weir_snapshot_options o = options_of(r, w);
	struct image image;
	weir_snapshot *s;
	long page;

	if (weir_snapshot_create(&region, 1, &o, &s))
		give_up("create");
	for (unsigned i = choose(3); i > 0; i--)
		if (weir_snapshot_prepare(s, 0))
			give_up("prepare");
	writers_wait(w, 1 + choose(w->pause_us > 1 ? 4 : 200));
	if (weir_snapshot_begin(s))
		give_up("begin");
	image_open(&image, r->bytes);
	image.slow_us = choose(3) ? 0 : choose(500);
	image.again = r->barrier == WEIR_REGION_ASYNC;
	/* Aborted now and then: nobody may be left waiting. */
	if (!choose(8))
		weir_snapshot_abort(s);
	else if (weir_snapshot_read(s, image_sink, &image))
		give_up("read");
	else if ((page = image_differs(&image, w->shadow)) >= 0) {
		fprintf(stderr,
			"snapshots: round %llu, barrier %u, flags %u: page %ld "
			"%s\n",
			(unsigned long long)done, r->barrier, r->flags, page,
			image.times[page] ? "is not as it was"
					  : "did not come");
		_exit(1);
	}
	weir_snapshot_end(s);
	image_close(&image);
	writers_wait(w, w->pause_us > 1 ? 4 : 100);
	done++;
}

/* False: not on this kernel. */
static bool region(const struct round *r)
{
	struct weir_region_options o = {
		.size = sizeof(o), .flags = r->flags, .barrier = r->barrier};
	struct writers w = {.bytes = r->bytes,
			    .hot_pages = choose(3) ? choose(150) : 0,
			    .pause_us = pauses[choose(4)]};
	weir_region *region;
	int err = weir_region_reserve(r->bytes, 0, &o, &region);

	if (err == -ENOTSUP)
		return false;
	if (err)
		give_up("reserve");
	w.memory = memory_of(region);
	w.shadow = malloc(r->bytes);
	if (!w.shadow)
		give_up("malloc");
	memset(w.memory, 1, r->bytes / (1 + choose(4)));
	writers_start(&w, r->writers);
	for (unsigned i = 1 + choose(6); i > 0; i--)
		snapshot(r, region, &w);
	writers_end(&w);
	free(w.shadow);
	if (weir_region_release(region))
		give_up("release");
	return true;
}

/* A manner that is there; ends the program when none is. */
static unsigned choose_manner(void)
{
	unsigned m = choose(MANNERS);

	for (unsigned i = 0; i < MANNERS; i++, m = (m + 1) % MANNERS)
		if (!manners[m].lacking)
			return m;
	printf("snapshots: SKIP: %s\n", weir_error_text());
	exit(77);
}

static void too_long(int signo)
{
	static const char text[] = "snapshots: a round takes too long\n";

	(void)signo;
	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(2);
	abort();
}

#ifdef WEIR_MUTANTS
static int plant(const char *mutant, const char *delay)
{
	if (delay)
		wr_snap_delay_us = (unsigned)strtoul(delay, NULL, 0);
	return mutant ? wr_snap_mutant_choose(mutant) : 0;
}
#else
static int plant(const char *mutant, const char *delay)
{
	return mutant || delay ? -1 : 0;
}
#endif

static const struct option long_options[] = {
	{"seconds", required_argument, NULL, 't'},
	{"seed", required_argument, NULL, 's'},
	{"delay", required_argument, NULL, 'd'},
	{"mutant", required_argument, NULL, 'm'},
	{0},
};

int main(int argc, char **argv)
{
	const char *mutant = NULL, *delay = NULL;
	uint64_t seconds = 5, end;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		switch (c) {
		case 't':
			seconds = strtoull(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0) * 2 + 1;
			break;
		case 'd':
			delay = optarg;
			break;
		case 'm':
			mutant = optarg;
			break;
		default:
			return 2;
		}
	}
	if (plant(mutant, delay)) {
		fprintf(stderr, "snapshots: no such mutant, or a build without "
				"--enable-mutants\n");
		return 2;
	}
	signal(SIGALRM, too_long);
	for (int i = 0; i < 10; i++)
		random_of(&seed);
	end = now_ns() + seconds * 1000000000;
	while (now_ns() < end) {
		unsigned m = choose_manner();
		struct round r = {
			.barrier = manners[m].barrier,
			.flags = manners[m].flags,
			.writers = 1 + choose(MOST_WRITERS),
			.bytes = manners[m].flags & WEIR_REGION_HUGE
					 ? LARGEST
					 : ((size_t)1 << (20 + choose(5))) -
						   choose(100) * 4096,
		};

		alarm(60);
		manners[m].lacking = !region(&r);
		if (manners[m].lacking)
			fprintf(stderr,
				"snapshots: without barrier %u, flags %u: "
				"%s\n",
				r.barrier, r.flags, weir_error_text());
	}
	printf("%llu snapshots\n", (unsigned long long)done);
	return 0;
}
