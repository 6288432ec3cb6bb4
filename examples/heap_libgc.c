/* SPDX-License-Identifier: MIT */
/*
 * The shim on libgc.  It runs as it comes: default growth, default number of
 * marker threads, no incremental mode.
 *
 * libgc calls on_event() with its allocation lock held, so the ring has one
 * writer at a time; `ring_end` is released by it and acquired by the one
 * reader in heap_events(), which makes the slots before it whole.
 */
#include "examples/heap_shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RING 4096u /* stops between two calls of heap_events(), at most */

static struct {
	uint64_t begin_ns;            /* the stop under way began here */
	uint32_t ring_end;            /* stops recorded so far */
	uint32_t ring_begin;          /* stops handed out so far */
	struct heap_event ring[RING]; /* slot i % RING holds stop i */
} stops;

const char heap_peer[] = "libgc";

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void GC_CALLBACK on_event(GC_EventType type)
{
	struct heap_event *e;

	if (type == GC_EVENT_PRE_STOP_WORLD) {
		stops.begin_ns = now_ns();
	} else if (type == GC_EVENT_POST_START_WORLD) {
		e = &stops.ring[stops.ring_end % RING];
		e->end_ns = now_ns();
		e->length_ns = e->end_ns - stops.begin_ns;
		e->max_ns = e->length_ns;
		e->count = 1;
		e->type = HEAP_PAUSE;
		__atomic_store_n(&stops.ring_end, stops.ring_end + 1,
				 __ATOMIC_RELEASE);
	}
}

void heap_open(void)
{
	GC_INIT();
	GC_allow_register_threads();
	GC_set_on_collection_event(on_event);
}

void heap_close(void)
{
	GC_set_on_collection_event(NULL);
}

void heap_attach(void)
{
	struct GC_stack_base base;

	if (GC_get_stack_base(&base) != GC_SUCCESS) {
		fprintf(stderr, "word-index: libgc finds no stack base\n");
		exit(1);
	}
	/* GC_DUPLICATE: the main thread, which GC_INIT() registered. */
	(void)GC_register_my_thread(&base);
}

void heap_detach(void)
{
	(void)GC_unregister_my_thread();
}

void heap_root(void *start, size_t size)
{
	/* Static data of the program is a root already. */
	(void)start;
	(void)size;
}

void heap_read(struct heap_figures *f)
{
	struct GC_prof_stats_s s;

	GC_get_prof_stats(&s, sizeof(s));
	f->used = s.heapsize_full - s.free_bytes_full;
	f->reserved = s.heapsize_full;
	f->collections = s.gc_no;
	f->collector_cpu_ns = 0;
}

size_t heap_events(struct heap_event *event, size_t max)
{
	uint32_t end = __atomic_load_n(&stops.ring_end, __ATOMIC_ACQUIRE);
	size_t n = 0;

	while (stops.ring_begin != end && n < max)
		event[n++] = stops.ring[stops.ring_begin++ % RING];
	return n;
}

const char *heap_version(void)
{
	static char text[32];
	unsigned v = GC_get_version();

	snprintf(text, sizeof(text), "%u.%u.%u", v >> 16, v >> 8 & 255,
		 v & 255);
	return text;
}

const char *heap_configuration(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "stop-the-world, markers: %d",
		 GC_get_parallel() + 1);
	return text;
}

void heap_exhausted(size_t size)
{
	fprintf(stderr, "word-index: libgc has no memory for %zu bytes\n",
		size);
	exit(1);
}
