/* SPDX-License-Identifier: MIT */
/*
 * The shim: what differs between the peers, and nothing else.
 *
 * Exactly one of BENCH_WEIR, BENCH_GC, BENCH_MALLOC, BENCH_JEMALLOC is
 * defined for a program.  The allocation functions are inline so that each
 * peer is called as its own users call it: weir by the inline path of
 * <weir/alloc.h>, libgc by GC_malloc() and GC_malloc_atomic() (which take
 * from the thread's own free lists), malloc by malloc().
 *
 * Rules for the workloads, which make one program text do for all:
 *  - what bench_alloc() returns need not be zero: write every field;
 *  - call bench_free() when an object dies: it costs nothing under the
 *    collectors, which find out for themselves;
 *  - keep live objects reachable from the stack of a mutator or from a range
 *    given to bench_root();
 *  - a bench_mutator is used by its own thread only.
 */
#ifndef WEIR_BENCH_SHIM_H
#define WEIR_BENCH_SHIM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(BENCH_WEIR) + defined(BENCH_GC) + defined(BENCH_MALLOC) + \
		defined(BENCH_JEMALLOC) !=                            \
	1
#error "define one of BENCH_WEIR, BENCH_GC, BENCH_MALLOC, BENCH_JEMALLOC"
#endif

/* Report that the heap is exhausted and exit. */
void bench_out_of_memory(void) __attribute__((noreturn, cold));

#if defined(BENCH_WEIR)

#include <weir/alloc.h>

#define BENCH_COLLECTS 1
typedef weir_mutator bench_mutator;

static inline void *bench_alloc_raw(bench_mutator *m, size_t size)
{
	return weir_alloc_inline(m, size, WEIR_KIND_CONSERVATIVE);
}

static inline void *bench_alloc_leaf_raw(bench_mutator *m, size_t size)
{
	return weir_alloc_inline(m, size, WEIR_KIND_LEAF);
}

static inline void bench_free(bench_mutator *m, void *p)
{
	(void)m;
	(void)p;
}

#elif defined(BENCH_GC)

#ifndef GC_THREADS
#define GC_THREADS
#endif
#include <gc/gc.h>

#define BENCH_COLLECTS 1
typedef struct bench_gc_mutator bench_mutator; /* libgc finds its own */

static inline void *bench_alloc_raw(bench_mutator *m, size_t size)
{
	(void)m;
	return GC_malloc(size);
}

static inline void *bench_alloc_leaf_raw(bench_mutator *m, size_t size)
{
	(void)m;
	return GC_malloc_atomic(size);
}

static inline void bench_free(bench_mutator *m, void *p)
{
	(void)m;
	(void)p;
}

#else /* malloc and jemalloc */

#include <stdlib.h>

#define BENCH_COLLECTS 0
typedef struct bench_malloc_mutator bench_mutator; /* there is no such thing */

static inline void *bench_alloc_raw(bench_mutator *m, size_t size)
{
	(void)m;
	return malloc(size);
}

static inline void *bench_alloc_leaf_raw(bench_mutator *m, size_t size)
{
	(void)m;
	return malloc(size);
}

static inline void bench_free(bench_mutator *m, void *p)
{
	(void)m;
	free(p);
}

#endif

/* An object that may hold references.  Never NULL. */
static inline void *bench_alloc(bench_mutator *m, size_t size)
{
	void *p = bench_alloc_raw(m, size);

	if (__builtin_expect(!p, 0))
		bench_out_of_memory();
	return p;
}

/* An object that holds none.  Never NULL. */
static inline void *bench_alloc_leaf(bench_mutator *m, size_t size)
{
	void *p = bench_alloc_leaf_raw(m, size);

	if (__builtin_expect(!p, 0))
		bench_out_of_memory();
	return p;
}

/* ---- What peer_weir.c, peer_gc.c and peer_malloc.c each implement -------- */

/* How the peer is to be set up: the command line's switches. */
struct bench_setup {
	bool idle;           /* no cycle may run */
	bool single;         /* libgc: do not enable threads, if none start */
	bool no_interior;    /* libgc: no interior references from the heap */
	const char *options; /* weir: options of the heap, or NULL */
};

/* The peer's own account of a stretch of time. */
struct bench_account {
	bool has_pauses;           /* false: nothing ever pauses (malloc) */
	uint64_t cycles;           /* collections finished */
	uint64_t cycles_minor;     /* of them, minor */
	uint64_t cycles_stopped;   /* of them, wholly stopped */
	uint64_t pauses;           /* stops, handshakes and assists */
	uint64_t pause_total_ns;   /* their sum */
	uint64_t pause_max_ns;     /* the longest; see bench_peer_account() */
	uint64_t assist_max_ns;    /* the longest assist (weir), ditto */
	uint64_t handshake_max_ns; /* one thread held for its stack, ditto */
	uint64_t collector_cpu_ns; /* CPU time spent on collecting, see bench.h
				    */
	uint64_t heap_bytes;       /* what the heap has from the system */
	char detail[64];           /* back end, markers and the like */
};

extern const char *const bench_peer_name;
/* Version of the library that is running, static storage. */
const char *bench_peer_version(void);

/* Start the peer and make the caller (the main thread) its mutator. */
bench_mutator *bench_peer_start(const struct bench_setup *setup);

/*
 * bench_peer_mark() notes a moment at which no other mutator runs;
 * bench_peer_account() tells what happened since then (`phase`) and since the
 * process began (`whole`).  A longest pause is exact where the peer allows it
 * and an upper bound where not: if weir's longest pause was before the mark,
 * that of the phase is known to its histogram bucket only.
 */
void bench_peer_mark(void);
void bench_peer_account(struct bench_account *phase,
			struct bench_account *whole);

/* [start, start + size) is a root from now on. */
void bench_root(void *start, size_t size);

/* Run a full collection and return when it is over.  Any thread that
 * bench_thread_start() made.  Exits with an error under malloc. */
void bench_collect(void);

/* CPU time of the calling thread, of the process, and of its mutators (those
 * that ended and the caller), in nanoseconds.  An ending mutator adds its own
 * by bench_mutator_ends(). */
uint64_t bench_thread_cpu_ns(void);
uint64_t bench_process_cpu_ns(void);
uint64_t bench_mutators_cpu_ns(void);
void bench_mutator_ends(void);

typedef void bench_thread_fn(bench_mutator *m, void *arg);

struct bench_thread {
	pthread_t id;        /* set by bench_thread_start() */
	bench_thread_fn *fn; /* what to run */
	void *arg;           /* its argument */
	bool mutator;        /* false: it only calls bench_collect() */
};

/* Run t->fn on a thread of its own.  A mutator may allocate; `m` is NULL for
 * others, whose CPU time counts as the collector's. */
void bench_thread_start(struct bench_thread *t);
void bench_thread_join(bench_mutator *self, struct bench_thread *t);

#endif
