/* SPDX-License-Identifier: MIT */
/*
 * Starting: the heap's options from libgc's variables and environment, the
 * first attached thread.
 *
 * libgc initialises itself on the first allocation; so does this.  Threads may
 * come at once: the first one makes the heap, the others wait.  A failure is
 * told on standard error and ends the process: the program cannot go on.
 */
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

weir_heap *lg_heap;
__thread weir_mutator *lg_self;
__thread weir_visitor *lg_visitor;
pthread_mutex_t lg_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t lg_outer = PTHREAD_MUTEX_INITIALIZER;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static weir_heap *made;      /* before it is published */
static __thread bool making; /* this thread is in make_heap() */
static size_t max_heap_size; /* GC_set_max_heap_size() before init */
static unsigned markers;     /* GC_set_markers_count() */

void lg_fatal(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (GC_on_abort)
		GC_on_abort(text);
	abort();
}

/* The environment's number with an optional k, m or g; 0 if none. */
static unsigned long long env_size(const char *name)
{
	const char *s = getenv(name);
	unsigned long long n;
	char *end;

	if (!s || !*s)
		return 0;
	n = strtoull(s, &end, 10);
	switch (*end) {
	case 'g':
	case 'G':
		return n << 30;
	case 'm':
	case 'M':
		return n << 20;
	case 'k':
	case 'K':
		return n << 10;
	default:
		return n;
	}
}

static void add(char *text, size_t size, const char *format,
		unsigned long long value)
{
	size_t n = strlen(text);

	snprintf(text + n, size - n, format, value);
}

static void options(char *text, size_t size)
{
	unsigned long long n;

	snprintf(text, size, "data-segments=%s", GC_no_dls ? "off" : "on");
	n = env_size("GC_INITIAL_HEAP_SIZE");
	if (n >= 1 << 20)
		add(text, size, ",heap-min=%llu", n);
	n = env_size("GC_MAXIMUM_HEAP_SIZE");
	if (!n)
		n = max_heap_size;
	if (n)
		add(text, size, ",heap-max=%llu", n < 1 << 22 ? 1 << 22 : n);
	n = env_size("GC_MARKERS");
	if (!n)
		n = env_size("GC_NPROCS");
	if (!n)
		n = markers;
	if (n)
		add(text, size, ",pause-markers=%llu", n > 64 ? 64 : n);
	if (getenv("GC_PRINT_STATS") || getenv("GC_PRINT_VERBOSE_STATS"))
		add(text, size, ",log=gc", 0);
	n = env_size("GC_FREE_SPACE_DIVISOR");
	if (n)
		GC_free_space_divisor = n;
	if (GC_free_space_divisor != 3) {
		double growth = 0.75 / (double)GC_free_space_divisor;
		size_t at = strlen(text);

		snprintf(text + at, size - at, ",growth=%.3f",
			 growth < 0.05 ? 0.05 : growth);
	}
}

/*
 * fork() with a lock held by a thread that the child does not have.  What
 * prepares for fork() runs in the opposite order of registration: lg_outer's
 * handlers come after weir's, so it is taken first, and weir may be called
 * under it; lg_lock's come before, so it is taken last, and weir may not.
 */
static void outer_prepare(void)
{
	pthread_mutex_lock(&lg_outer);
}

static void outer_parent(void)
{
	pthread_mutex_unlock(&lg_outer);
}

static void outer_child(void)
{
	pthread_mutex_init(&lg_outer, NULL);
}

static void inner_prepare(void)
{
	pthread_mutex_lock(&lg_lock);
}

static void inner_parent(void)
{
	pthread_mutex_unlock(&lg_lock);
}

static void inner_child(void)
{
	pthread_mutex_init(&lg_lock, NULL);
}

/* Published last: who finds lg_heap set finds all that belongs to it.  A child
 * of fork may have to begin again, with the heap that was made before. */
static void make_heap(void)
{
	char text[256];
	struct weir_heap_options o = {.size = sizeof(o), .options = text};

	making = true;
	if (!made) {
		options(text, sizeof(text));
		pthread_atfork(inner_prepare, inner_parent, inner_child);
		if (weir_heap_create(&o, &made))
			lg_fatal("libgc on weir: %s", weir_error_text());
		pthread_atfork(outer_prepare, outer_parent, outer_child);
	}
	lg_roots_init(made);
	lg_events_init(made);
	lg_stack_first();
	if (getenv("GC_DONT_GC"))
		GC_dont_gc = 1;
	if (GC_dont_gc)
		weir_collect_hold(made);
	__atomic_store_n(&lg_heap, made, __ATOMIC_RELEASE);
	lg_leak_init();
	making = false;
}

weir_heap *lg_init(void)
{
	weir_heap *h = __atomic_load_n(&lg_heap, __ATOMIC_ACQUIRE);

	if (lg_likely(h))
		return h;
	if (making)
		lg_fatal("libgc on weir: the program's malloc() allocates from "
			 "the collector, which cannot start then");
	pthread_once(&once, make_heap);
	return lg_heap;
}

weir_mutator *lg_attach(void)
{
	weir_heap *h = lg_init();
	weir_mutator *m = weir_thread_self(h);

	if (!m && weir_thread_attach(h, &m))
		lg_fatal("libgc on weir: cannot attach a thread: %s",
			 weir_error_text());
	lg_stack_attached(m);
	return lg_self = m;
}

LG_API void GC_init(void)
{
	lg_mutator();
}

LG_API int GC_is_init_called(void)
{
	return __atomic_load_n(&lg_heap, __ATOMIC_ACQUIRE) != NULL;
}

LG_API void GC_deinit(void)
{
}

LG_API unsigned GC_get_version(void)
{
	return GC_VERSION;
}

LG_API void GC_set_max_heap_size(GC_word n)
{
	if (!lg_heap) {
		max_heap_size = n;
		return;
	}
	/* More than was reserved at the start cannot be had, less can. */
	if (n)
		weir_heap_set_limits(lg_heap, 0, n);
}

LG_API void GC_set_markers_count(unsigned n)
{
	markers = n;
}
