/* SPDX-License-Identifier: MIT */
/*
 * The shim on weir.  It runs with the library's defaults; WEIR_OPTIONS in the
 * environment changes them.
 *
 * heap_events() turns the growth of weir's histograms between two calls into
 * events.  Only its one caller touches `seen`.
 */
#include "examples/heap_shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char heap_peer[] = "weir";

__thread weir_mutator *heap_self;

static weir_heap *heap;
static struct weir_histogram seen[3]; /* pause, assist, handshake */

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "word-index: %s: %s: %s\n", what, strerror(-err),
		weir_error_text());
	exit(1);
}

void heap_open(void)
{
	struct weir_heap_options options = {.size = sizeof(options)};

	must(weir_heap_create(&options, &heap), "creating the heap");
}

void heap_close(void)
{
	must(weir_heap_destroy(heap), "closing the heap");
	heap = NULL;
}

void heap_attach(void)
{
	must(weir_thread_attach(heap, &heap_self), "attaching a thread");
}

void heap_detach(void)
{
	must(weir_thread_detach(heap_self), "detaching a thread");
}

void heap_root(void *start, size_t size)
{
	must(weir_root_add(heap, start, size), "adding a root");
}

static void stats(struct weir_stats *s)
{
	s->size = sizeof(*s);
	must(weir_heap_stats(heap, s), "reading the statistics");
}

void heap_read(struct heap_figures *f)
{
	struct weir_stats s;

	stats(&s);
	f->used = s.heap_used;
	f->reserved = s.heap_committed;
	f->collections = s.cycles_full + s.cycles_minor;
	f->collector_cpu_ns = s.collector_cpu_ns;
}

/* The longest duration that `now` has and `then` has not; exact if it is the
 * only one or a new record, otherwise the end of its bucket. */
static uint64_t longest_new(const struct weir_histogram *now,
			    const struct weir_histogram *then)
{
	int i;

	if (now->max_ns > then->max_ns)
		return now->max_ns;
	if (now->count - then->count == 1)
		return now->total_ns - then->total_ns;
	for (i = WEIR_HISTOGRAM_BUCKETS - 1; i > 0; i--)
		if (now->bucket[i] > then->bucket[i])
			break;
	return i < 63 ? (UINT64_C(2) << i) - 1 : UINT64_MAX;
}

size_t heap_events(struct heap_event *event, size_t max)
{
	struct timespec t;
	struct weir_stats s;
	const struct weir_histogram *now[3] = {&s.pause, &s.assist,
					       &s.handshake};
	size_t n = 0;
	int i;

	stats(&s);
	clock_gettime(CLOCK_MONOTONIC, &t);
	for (i = 0; i < 3 && n < max; i++) {
		struct heap_event *e = &event[n];

		/* Count and sum are not read as one: take both or none. */
		if (now[i]->count == seen[i].count ||
		    now[i]->total_ns == seen[i].total_ns)
			continue;
		e->end_ns =
			(uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
		e->length_ns = now[i]->total_ns - seen[i].total_ns;
		e->count = (uint32_t)(now[i]->count - seen[i].count);
		e->max_ns = longest_new(now[i], &seen[i]);
		if (e->max_ns > e->length_ns)
			e->max_ns = e->length_ns;
		e->type = i ? HEAP_ASSIST : HEAP_PAUSE;
		seen[i] = *now[i];
		n++;
	}
	return n;
}

const char *heap_version(void)
{
	return weir_version();
}

const char *heap_configuration(void)
{
	static char text[64];
	struct weir_stats s;

	stats(&s);
	snprintf(text, sizeof(text), "concurrent, barrier %s", s.barrier);
	return text;
}

void heap_exhausted(size_t size)
{
	fprintf(stderr, "word-index: weir: %zu bytes: %s: %s\n", size,
		strerror(errno), weir_error_text());
	exit(1);
}
