/* SPDX-License-Identifier: MIT */
/*
 * Who waits for whom: the sink that writes to its own region, crowds of
 * writers, snapshots beside writers that wait, and real-time savers.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include "runtime/region.h"
#include "tests/snapshot_scene.h"

/* ---- The sink's own writes ----------------------------------------------- */

/* What can be full has EDEADLK; alarm() ends what hangs. */
struct own {
	unsigned full; /* enum weir_snapshot_full */
	size_t pool;   /* bytes */
	int expect;    /* of read */
	struct manner manner;
	bool discards; /* instead of writing */
};

#define SYNC                        \
	{                           \
		WEIR_REGION_SYNC, 0 \
	}
#define SIGBUS_                                             \
	{                                                   \
		WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES \
	}

static struct own owns[] = {
	{WEIR_FULL_STALL, 8192, -EDEADLK, SYNC, false},
	{WEIR_FULL_STALL, 8192, -EDEADLK, SIGBUS_, false},
	{WEIR_FULL_WRITE_THROUGH, 8192, -EDEADLK, SYNC, false},
	{WEIR_FULL_WRITE_THROUGH, 8192, -EDEADLK, SIGBUS_, false},
	{WEIR_FULL_STALL, 2 * BYTES, 0, SYNC, false},
	{WEIR_FULL_STALL, 2 * BYTES, 0, SIGBUS_, false},
	{WEIR_FULL_STALL, 8192, -EDEADLK, SYNC, true},
	{WEIR_FULL_STALL, 2 * BYTES, 0, SIGBUS_, true},
};

static void write_from_sink(void *arg, unsigned call)
{
	struct scene *c = arg;

	if (call == 1)
		all_writable(c);
}

static void discard_from_sink(void *arg, unsigned call)
{
	struct scene *c = arg;

	if (call == 1)
		must(!weir_region_discard(c->region, c->memory, BYTES));
}

ParameterizedTestParameters(snapshot_wait, the_sink_writes)
{
	return cr_make_param_array(struct own, owns,
				   sizeof(owns) / sizeof(owns[0]));
}

ParameterizedTest(struct own *o, snapshot_wait, the_sink_writes)
{
	struct scene c;

	alarm(60);
	scene_open(&c, o->manner.barrier, o->manner.flags);
	c.options.full = o->full;
	c.options.pool = o->pool;
	c.image.hook = o->discards ? discard_from_sink : write_from_sink;
	c.image.hook_arg = &c;
	scene_begin(&c);
	cr_assert_eq(weir_snapshot_read(c.snapshot, image_sink, &c.image),
		     o->expect, "%s", weir_error_text());
	if (o->expect)
		cr_assert(strstr(weir_error_text(), "pool larger"), "%s",
			  weir_error_text());
	else
		cr_assert_eq(image_differs(&c.image, c.shadow), -1);
	all_writable(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), o->expect);
	scene_close(&c);
}

static int write_from_progress(const struct weir_snapshot_progress *p,
			       void *arg)
{
	(void)p;
	all_writable(arg);
	return 0;
}

Test(snapshot_wait, progress_writes)
{
	struct scene c;

	alarm(60);
	scene_open(&c, WEIR_REGION_SYNC, 0);
	c.options.pool = 8192;
	c.options.progress = write_from_progress;
	c.options.progress_arg = &c;
	c.options.progress_ns = 1;
	scene_begin(&c);
	cr_assert_eq(weir_snapshot_read(c.snapshot, image_sink, &c.image),
		     -EDEADLK);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -EDEADLK);
	scene_close(&c);
}

/* ---- Crowds -------------------------------------------------------------- */

#define CROWD 1400

struct crowd {
	char *memory;
	int arrived; /* atomic */
};

static void *one_of_crowd(void *arg)
{
	struct crowd *w = arg;
	size_t i = (size_t)__atomic_fetch_add(&w->arrived, 1, __ATOMIC_SEQ_CST);

	__atomic_fetch_add(&w->memory[i % (MIB / PAGE) * PAGE], 1,
			   __ATOMIC_RELAXED);
	return NULL;
}

static void *give_back_last(void *arg)
{
	struct crowd *w = arg;

	must(!madvise(w->memory + 2 * MIB, PAGE, MADV_DONTNEED));
	return NULL;
}

static pthread_t small_thread(void *(*main)(void *), void *arg)
{
	pthread_attr_t small;
	pthread_t thread;

	must(!pthread_attr_init(&small));
	must(!pthread_attr_setstacksize(&small, 256 << 10));
	must(!pthread_create(&thread, &small, main, arg));
	must(!pthread_attr_destroy(&small));
	return thread;
}

/* While a snapshot begins, more writers than were ever foreseen wait for it,
 * and behind them there is news of a page that was given back, which begin
 * itself needs to be read. */
Test(snapshot_wait, a_crowd_of_writers)
{
	static pthread_t thread[CROWD];
	struct crowd crowd = {.arrived = 0};
	pthread_t giver;
	struct scene c;

#ifdef __SANITIZE_THREAD__
	cr_skip("so many threads: not under the thread sanitizer");
#endif
	alarm(120);
	scene_open(&c, WEIR_REGION_SYNC, 0);
	crowd.memory = c.memory;
	scene_snapshot(&c);
	must(!weir_snapshot_prepare(c.snapshot, 0));
	/* As begin has it, for as long as we like. */
	__atomic_store_n(&c.region->phase, WR_PHASE_TURNING, __ATOMIC_SEQ_CST);
	for (int i = 0; i < CROWD; i++)
		thread[i] = small_thread(one_of_crowd, &crowd);
	while (figures_of(c.snapshot).faults < CROWD)
		usleep(1000);
	giver = small_thread(give_back_last, &crowd);
	/* The kernel lets it go on when its news was read. */
	must(!pthread_join(giver, NULL));
	__atomic_store_n(&c.region->phase, WR_PHASE_ARMING, __ATOMIC_SEQ_CST);
	for (int i = 0; i < CROWD; i++)
		must(!pthread_join(thread[i], NULL));
	must(weir_snapshot_end(c.snapshot) == -ECANCELED);
	scene_close(&c);
}

/* ---- Beside writers that wait -------------------------------------------- */

#define WAITERS 8

static void *write_one(void *arg)
{
	(*(char *)arg)++;
	return NULL;
}

/* Writers that wait, in their handlers, for one snapshot's pool do not hold up
 * the beginning of another. */
Test(snapshot_wait, begin_beside_waiting_writers)
{
	uint64_t least = UINT64_MAX;
	pthread_t thread[WAITERS];
	struct scene c, other;

	alarm(60);
	scene_open(&c, WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES);
	scene_open(&other, WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES);
	c.options.pool = 4 * PAGE;
	scene_begin(&c);
	for (size_t i = 0; i < 4; i++)
		c.memory[i * PAGE]++;
	for (size_t i = 0; i < WAITERS; i++)
		must(!pthread_create(&thread[i], NULL, write_one,
				     c.memory + MIB + i * PAGE));
	while (figures_of(c.snapshot).waits < WAITERS)
		usleep(1000);
	for (int i = 0; i < 20; i++) {
		uint64_t ns;

		scene_snapshot(&other);
		must(!weir_snapshot_prepare(other.snapshot, 0));
		must(!weir_snapshot_begin(other.snapshot));
		ns = figures_of(other.snapshot).begin_ns;
		if (ns < least)
			least = ns;
		must(weir_snapshot_end(other.snapshot) == -ECANCELED);
	}
	must(!weir_snapshot_abort(c.snapshot));
	for (size_t i = 0; i < WAITERS; i++)
		must(!pthread_join(thread[i], NULL));
	must(weir_snapshot_end(c.snapshot) == -ECANCELED);
	/* They look again every 2 ms; each begin waited for all of them. */
	cr_assert_lt(least, 1000000, "%llu ns", (unsigned long long)least);
	scene_close(&c);
	scene_close(&other);
}

/* ---- Real-time savers ---------------------------------------------------- */

/* Of a higher priority than the writers, and on their processor: it must let
 * them finish what it waits for.  The kernel would take the processor from it
 * only after 950 ms. */
Test(snapshot_wait, a_real_time_saver)
{
	struct sched_param first = {.sched_priority = 10},
			   plain = {.sched_priority = 0};
	struct writers w = {.bytes = BYTES};
	uint64_t longest = 0;
	struct scene c;
	cpu_set_t one;

	alarm(120);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	cr_assert(!sched_setaffinity(0, sizeof(one), &one));
	scene_open(&c, WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES);
	w.memory = c.memory;
	writers_start(&w, 3);
	if (sched_setscheduler(0, SCHED_FIFO, &first)) {
		writers_end(&w);
		cr_skip("SCHED_FIFO: %s", strerror(errno));
	}
	for (int i = 0; i < rounds(60); i++) {
		struct weir_snapshot_progress p;

		scene_snapshot(&c);
		must(!weir_snapshot_prepare(c.snapshot, 0));
		usleep(500 + (unsigned)i * 10);
		must(!weir_snapshot_begin(c.snapshot)); /* of no one moment */
		p = figures_of(c.snapshot);
		if (p.begin_ns > longest)
			longest = p.begin_ns;
		renew(&c.image);
		must(!weir_snapshot_read(c.snapshot, image_sink, &c.image));
		must(!weir_snapshot_end(c.snapshot));
	}
	must(!sched_setscheduler(0, SCHED_OTHER, &plain));
	writers_end(&w);
	cr_assert_lt(longest, 500000000, "%llu ns",
		     (unsigned long long)longest);
	scene_close(&c);
}
