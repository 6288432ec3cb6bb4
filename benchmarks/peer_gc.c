/* SPDX-License-Identifier: MIT */
/*
 * The shim over libgc (the Boehm-Demers-Weiser collector).
 *
 * Pauses are timed by its collection events: from PRE_STOP_WORLD to
 * POST_START_WORLD, on the thread that collects, under the allocation lock,
 * which is why the counters here need no other protection.  bench_peer_mark()
 * and bench_peer_account() are called while no other thread collects.
 *
 * libgc collects on the thread whose allocation asked for it and on marker
 * threads of its own.  Its CPU time is therefore what the process used less
 * what its mutators used, plus what a mutator used between the events of a
 * stop and of a reclaim.  Lazy sweeping within GC_malloc() is not seen and
 * counts as the mutator's.
 */
#include <stdio.h>
#include <string.h>

#include "benchmarks/bench.h"

const char *const bench_peer_name = "libgc";

/* Everything since the process began.  Static data is a root of libgc's, but
 * none of these values looks like an address. */
static struct {
	uint64_t stops;           /* stops of the world */
	uint64_t stop_total_ns;   /* their sum */
	uint64_t stop_max_ns;     /* the longest since the mark */
	uint64_t stop_max_all_ns; /* the longest of all */
	uint64_t mutator_cpu_ns;  /* CPU time that mutators collected */
	uint64_t stop_begin_ns;   /* clock at PRE_STOP_WORLD */
	uint64_t stop_cpu_ns;     /* thread's CPU time at PRE_STOP_WORLD */
	uint64_t reclaim_cpu_ns;  /* the same at RECLAIM_START */
	/* As of the mark: */
	uint64_t marked_gc_no;    /* collections */
	uint64_t marked_stops;    /* stops */
	uint64_t marked_total_ns; /* stop_total_ns */
	uint64_t marked_cpu_ns;   /* collector_cpu() */
} gc;

/* Whether the calling thread's CPU time counts as a mutator's. */
static _Thread_local bool is_mutator;

const char *bench_peer_version(void)
{
	static char text[24];
	unsigned v = GC_get_version();

	snprintf(text, sizeof(text), "%u.%u.%u", v >> 16, v >> 8 & 255,
		 v & 255);
	return text;
}

static void GC_CALLBACK on_event(GC_EventType event)
{
	uint64_t ns;

	switch (event) {
	case GC_EVENT_PRE_STOP_WORLD:
		gc.stop_cpu_ns = bench_thread_cpu_ns();
		gc.stop_begin_ns = bench_now();
		break;
	case GC_EVENT_POST_START_WORLD:
		ns = bench_now() - gc.stop_begin_ns;
		gc.stops++;
		gc.stop_total_ns += ns;
		if (ns > gc.stop_max_ns)
			gc.stop_max_ns = ns;
		if (ns > gc.stop_max_all_ns)
			gc.stop_max_all_ns = ns;
		if (is_mutator)
			gc.mutator_cpu_ns +=
				bench_thread_cpu_ns() - gc.stop_cpu_ns;
		break;
	case GC_EVENT_RECLAIM_START:
		gc.reclaim_cpu_ns = bench_thread_cpu_ns();
		break;
	case GC_EVENT_RECLAIM_END:
		if (is_mutator)
			gc.mutator_cpu_ns +=
				bench_thread_cpu_ns() - gc.reclaim_cpu_ns;
		break;
	default:
		break;
	}
}

bench_mutator *bench_peer_start(const struct bench_setup *setup)
{
	if (setup->no_interior)
		GC_set_all_interior_pointers(0);
	GC_INIT();
	GC_set_on_collection_event(on_event);
	if (!setup->single)
		GC_allow_register_threads();
	if (setup->idle)
		GC_disable();
	is_mutator = true;
	return NULL;
}

static uint64_t collector_cpu(void)
{
	return bench_process_cpu_ns() - bench_mutators_cpu_ns() +
	       gc.mutator_cpu_ns;
}

void bench_peer_mark(void)
{
	gc.stop_max_ns = 0;
	gc.marked_gc_no = GC_get_gc_no();
	gc.marked_stops = gc.stops;
	gc.marked_total_ns = gc.stop_total_ns;
	gc.marked_cpu_ns = collector_cpu();
}

void bench_peer_account(struct bench_account *phase,
			struct bench_account *whole)
{
	memset(whole, 0, sizeof(*whole));
	whole->has_pauses = true;
	whole->cycles = GC_get_gc_no();
	whole->cycles_stopped = GC_is_incremental_mode() ? 0 : whole->cycles;
	whole->pauses = gc.stops;
	whole->pause_total_ns = gc.stop_total_ns;
	whole->pause_max_ns = gc.stop_max_all_ns;
	whole->collector_cpu_ns = collector_cpu();
	whole->heap_bytes = GC_get_heap_size();
	snprintf(whole->detail, sizeof(whole->detail), "markers=%d%s",
		 GC_get_parallel() + 1,
		 GC_is_incremental_mode() ? " incremental" : "");

	*phase = *whole;
	phase->cycles -= gc.marked_gc_no;
	if (phase->cycles_stopped)
		phase->cycles_stopped = phase->cycles;
	phase->pauses -= gc.marked_stops;
	phase->pause_total_ns -= gc.marked_total_ns;
	phase->pause_max_ns = gc.stop_max_ns;
	phase->collector_cpu_ns -= gc.marked_cpu_ns;
}

/* What the workloads register is static data of the program, which libgc
 * scans unasked. */
void bench_root(void *start, size_t size)
{
	(void)start;
	(void)size;
}

void bench_collect(void)
{
	GC_gcollect();
}

static void *thread_main(void *arg)
{
	struct bench_thread *t = arg;

	is_mutator = t->mutator;
	t->fn(NULL, t->arg);
	if (t->mutator)
		bench_mutator_ends();
	return NULL;
}

void bench_thread_start(struct bench_thread *t)
{
	int rc = GC_pthread_create(&t->id, NULL, thread_main, t);

	if (rc)
		bench_die("GC_pthread_create: %s", strerror(rc));
}

void bench_thread_join(bench_mutator *self, struct bench_thread *t)
{
	(void)self;
	GC_pthread_join(t->id, NULL);
}
