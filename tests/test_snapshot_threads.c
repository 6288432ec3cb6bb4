/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of regions whose writers are threads attached to a heap, stopped by
 * the library (weir_snapshot_stop_threads(), gc/suspend.c).
 *
 * Each writer writes its part of the region a word at a time, step t storing t
 * in word place(t), in an order that jumps from page to page.  So whatever was
 * the moment, what it wrote is the first T steps for some T, and all words
 * follow from T: a page that is newer or older than another shows.
 */
#define _GNU_SOURCE
#include <sys/wait.h>

#include <weir/embed.h>
#include <weir/snapshot.h>

#include "tests/heap_util.h"
#include "tests/test_snapshot.h"

#define WRITERS 3
#define PART ((size_t)1 << 20) /* bytes a writer */
#define WORDS (PART / sizeof(uint64_t))
#define STRIDE 1031 /* words: some two pages; odd, so it comes to all */
#define REGION_BYTES (WRITERS * PART)

static uint64_t *memory;
static int over; /* atomic */
static pthread_t writer[WRITERS];
static uint64_t steps[WRITERS]; /* atomic */

static bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

static size_t place(uint64_t t)
{
	return t * STRIDE % WORDS;
}

static void *write_steps(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t *part = memory + me * WORDS;
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	for (uint64_t t = 1; !is_over(); t++) {
		/* Relaxed: the library alone reads them beside us.  In the
		 * program's order all the same: the compiler keeps it for the
		 * barrier below, and a stop sees what the thread has done. */
		__atomic_store_n(&part[place(t)], t, __ATOMIC_RELAXED);
		WEIR_COMPILER_BARRIER();
		if (t % 64 == 0) {
			__atomic_store_n(&steps[me], t, __ATOMIC_RELAXED);
			must(weir_alloc_inline(m, 48, 0));
		}
		weir_safepoint(m);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

/* Cycles, forks, and threads that come and go, beside the snapshots. */
static void *disturb(void *arg)
{
	(void)arg;
	for (unsigned n = 0; !is_over(); n++) {
		weir_mutator *m;

		must(!weir_thread_attach(heap, &m));
		must(weir_alloc(m, 64));
		must(!weir_collect(heap, n % 3 == 0   ? WEIR_COLLECT_FULL
					 : n % 3 == 1 ? WEIR_COLLECT_MINOR
						      : WEIR_COLLECT_STOPPED));
		must(!weir_thread_detach(m));
/* The sanitizers' children hang where another thread was in malloc(). */
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
		if (n % 8 == 0) {
			int status;
			pid_t pid = fork();

			if (!pid)
				_exit(weir_collect(heap, 0) ? 1 : 0);
			must(pid > 0 && waitpid(pid, &status, 0) == pid);
			must(!status);
		}
#endif
	}
	return NULL;
}

/* The writers' words in `image` are those of the first T steps of each. */
static bool consistent(const char *image)
{
	for (unsigned w = 0; w < WRITERS; w++) {
		const uint64_t *part =
			(const uint64_t *)(const void *)image + w * WORDS;
		uint64_t last = 0, t;

		for (size_t i = 0; i < WORDS; i++)
			if (part[i] > last)
				last = part[i];
		for (t = last; t && t + WORDS > last; t--)
			if (part[place(t)] != t)
				return false;
		/* Fewer steps than words: the others were not written yet. */
		for (t = last + 1; last < WORDS && t <= WORDS; t++)
			if (part[place(t)])
				return false;
	}
	return true;
}

static void await_steps(uint64_t n)
{
	for (unsigned w = 0; w < WRITERS; w++) {
		uint64_t from = __atomic_load_n(&steps[w], __ATOMIC_RELAXED);

		while (__atomic_load_n(&steps[w], __ATOMIC_RELAXED) < from + n)
			usleep(1000);
	}
}

static int nobody_stopped; /* atomic */

/* There is something to hand over: every writer has written. */
static int stop_nobody(void *arg)
{
	(void)arg;
	await_steps(128);
	__atomic_store_n(&nobody_stopped, 1, __ATOMIC_RELAXED);
	return 0;
}

static void resume_nobody(void *arg)
{
	(void)arg;
}

/* And that comes late: every writer has written all its words meanwhile. */
static void wait_for_writers(void *arg, unsigned calls)
{
	(void)arg;
	(void)calls;
	if (__atomic_load_n(&nobody_stopped, __ATOMIC_RELAXED))
		await_steps(WORDS);
}

struct job {
	weir_region *region;
	struct weir_snapshot_options options;
	bool was_consistent;
};

/* One snapshot, on whatever thread. */
static void *take(void *arg)
{
	struct job *j = arg;
	struct image image;
	weir_snapshot *s;

	image_open(&image, REGION_BYTES);
	image.again = j->options.kind == WEIR_SNAPSHOT_END;
	__atomic_store_n(&nobody_stopped, 0, __ATOMIC_RELAXED);
	if (j->options.stop == stop_nobody)
		image.hook = wait_for_writers;
	must(!weir_snapshot_create(&j->region, 1, &j->options, &s));
	must(!weir_snapshot_prepare(s, 0));
	must(!weir_snapshot_begin(s));
	must(!weir_snapshot_read(s, image_sink, &image));
	must(!weir_snapshot_end(s));
	j->was_consistent = consistent(image.data);
	image_close(&image);
	return NULL;
}

static void *take_attached(void *arg)
{
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	weir_blocking_call(m, take, arg);
	must(!weir_thread_detach(m));
	return NULL;
}

/* Attached and running while it begins; what takes long is in a region. */
static void *take_running(void *arg)
{
	struct job *j = arg;
	struct image image;
	weir_mutator *m;
	weir_snapshot *s;

	must(!weir_thread_attach(heap, &m));
	if (j->options.kind == WEIR_SNAPSHOT_END) {
		take(arg);
		must(!weir_thread_detach(m));
		return NULL;
	}
	image_open(&image, REGION_BYTES);
	must(!weir_snapshot_create(&j->region, 1, &j->options, &s));
	must(!weir_snapshot_begin(s));
	/* Detached: it reads for long. */
	must(!weir_thread_detach(m));
	must(!weir_snapshot_read(s, image_sink, &image));
	must(!weir_snapshot_end(s));
	j->was_consistent = consistent(image.data);
	image_close(&image);
	return NULL;
}

static void start_writers(unsigned flags, unsigned barrier, struct job *j)
{
	/* A thread that waits under sigbus is not at a safepoint. */
	heap_open("heap-min=1m");
	j->region = region_of(REGION_BYTES, flags, barrier);
	memory = (uint64_t *)(void *)memory_of(j->region);
	for (uintptr_t i = 0; i < WRITERS; i++)
		cr_assert_eq(pthread_create(&writer[i], NULL, write_steps,
					    (void *)i),
			     0);
	for (int i = 0; i < WRITERS; i++)
		while (!__atomic_load_n(&steps[i], __ATOMIC_RELAXED))
			weir_safepoint(self);
}

static void *join_writers(void *arg)
{
	(void)arg;
	for (int i = 0; i < WRITERS; i++)
		pthread_join(writer[i], NULL);
	return NULL;
}

static void end_writers(struct job *j)
{
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join_writers, NULL);
	cr_assert_eq(weir_region_release(j->region), 0);
	heap_close();
}

static struct weir_snapshot_options options_of(unsigned kind)
{
	return (struct weir_snapshot_options){
		.size = sizeof(struct weir_snapshot_options),
		.kind = kind,
		.stop = weir_snapshot_stop_threads,
		.resume = weir_snapshot_resume_threads,
		.stop_arg = heap,
	};
}

static void stopped(unsigned flags, unsigned barrier, unsigned kind, int n)
{
	struct job j;
	pthread_t other;

	start_writers(flags, barrier, &j);
	j.options = options_of(kind);
	cr_assert_eq(pthread_create(&other, NULL, disturb, NULL), 0);
	for (int i = 0; i < n; i++) {
		void *(*how[])(void *) = {take, take_attached, take_running};

		j.was_consistent = false;
		run_thread(how[i % 3], &j);
		cr_assert(j.was_consistent, "snapshot %d", i);
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &other);
	end_writers(&j);
}

Test(snapshot_threads, sync, .timeout = 180)
{
	stopped(0, WEIR_REGION_SYNC, WEIR_SNAPSHOT_BEGIN, rounds(30));
}

Test(snapshot_threads, sigbus, .timeout = 180)
{
	stopped(WEIR_REGION_USER_WRITES, WEIR_REGION_SIGBUS,
		WEIR_SNAPSHOT_BEGIN, rounds(30));
}

Test(snapshot_threads, async, .timeout = 180)
{
	stopped(0, WEIR_REGION_ASYNC, WEIR_SNAPSHOT_END, rounds(30));
}

/* The control: what the others show is not so by itself. */
Test(snapshot_threads, torn_without_a_stop, .timeout = 180)
{
	struct job j;
	bool torn = false;

	start_writers(0, WEIR_REGION_ASYNC, &j);
	j.options = options_of(WEIR_SNAPSHOT_END);
	j.options.stop = stop_nobody;
	j.options.resume = resume_nobody;
	for (int i = 0; i < 20 && !torn; i++) {
		run_thread(take, &j);
		torn = !j.was_consistent;
	}
	end_writers(&j);
	cr_assert(torn);
}

Test(snapshot_threads, alone)
{
	heap_open(NULL);
	cr_assert_eq(weir_snapshot_stop_threads(heap), 0);
	weir_snapshot_resume_threads(heap);
	heap_close();
}
