/* SPDX-License-Identifier: MIT */
/*
 * One small interface over two collectors, so that the word index is the same
 * program text for both: compiled with -DHEAP_WEIR it runs on libweir, with
 * -DHEAP_LIBGC on the Boehm-Demers-Weiser collector.
 *
 *   who may call                   from
 *   heap_open, heap_close          the main thread, first and last
 *   heap_attach, heap_detach       any thread, around its use of the heap
 *   heap_alloc, heap_leaf          attached threads
 *   heap_read                      any thread
 *   heap_events                    one thread
 */
#ifndef WEIR_EXAMPLES_HEAP_SHIM_H
#define WEIR_EXAMPLES_HEAP_SHIM_H

#include <stddef.h>
#include <stdint.h>

#if defined(HEAP_WEIR)
#include <weir/alloc.h>
#elif defined(HEAP_LIBGC)
/* Threads register themselves in heap_attach(). */
#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include <gc.h>
#else
#error "compile with -DHEAP_WEIR or -DHEAP_LIBGC"
#endif

/* What kept the program from running, as the collector itself reports it. */
enum heap_event_type {
	HEAP_PAUSE,  /* all threads stopped: weir's pause, libgc's stop */
	HEAP_ASSIST, /* weir: one thread held to help, wait or show its stack */
	HEAP_EVENT_TYPES
};

struct heap_event {
	uint64_t end_ns;    /* CLOCK_MONOTONIC at its end, or soon after */
	uint64_t length_ns; /* length; of several, their sum */
	uint64_t max_ns;    /* length of the longest of them, or a bound */
	uint32_t count;     /* how many this stands for */
	uint32_t type;      /* enum heap_event_type */
};

struct heap_figures {
	uint64_t used;             /* bytes in blocks that hold objects */
	uint64_t reserved;         /* bytes taken from the system */
	uint64_t collections;      /* cycles of all sorts so far */
	uint64_t collector_cpu_ns; /* weir: of the collector's own threads */
};

/* Open the heap; on failure print why and exit. */
void heap_open(void);
void heap_close(void);
void heap_attach(void);
void heap_detach(void);
/* Scan [start, start + size) for references from now on. */
void heap_root(void *start, size_t size);
void heap_read(struct heap_figures *figures);
/*
 * Events since the last call, oldest first, at most `max`.  weir tells sums and
 * not single events, so this is called every few milliseconds: two pauses
 * between two calls come back as one event with count 2.
 */
size_t heap_events(struct heap_event *event, size_t max);

extern const char heap_peer[];        /* "weir" or "libgc" */
const char *heap_version(void);       /* the library that is running */
const char *heap_configuration(void); /* what it runs with, in words */
void heap_exhausted(size_t size) __attribute__((noreturn, cold));

#if defined(HEAP_WEIR)
extern __thread weir_mutator *heap_self;

static inline void *heap_alloc(size_t size)
{
	void *p = weir_alloc_inline(heap_self, size, WEIR_KIND_CONSERVATIVE);

	if (__builtin_expect(!p, 0))
		heap_exhausted(size);
	return p;
}

static inline void *heap_leaf(size_t size)
{
	void *p = weir_alloc_inline(heap_self, size, WEIR_KIND_LEAF);

	if (__builtin_expect(!p, 0))
		heap_exhausted(size);
	return p;
}
#else
static inline void *heap_alloc(size_t size)
{
	void *p = GC_MALLOC(size);

	if (__builtin_expect(!p, 0))
		heap_exhausted(size);
	return p;
}

/* Not zeroed under libgc; callers write every byte that they read. */
static inline void *heap_leaf(size_t size)
{
	void *p = GC_MALLOC_ATOMIC(size);

	if (__builtin_expect(!p, 0))
		heap_exhausted(size);
	return p;
}
#endif

#endif
