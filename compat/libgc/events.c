/* SPDX-License-Identifier: MIT */
/*
 * What the cycle tells: the collection count, the plausible addresses, the
 * program's start and event callbacks.
 *
 * libgc calls them on the thread that collects, in the pause.  Here that is the
 * collector's own, but for the start callback: Guile's wants to be on a thread
 * of the program, so the next one that comes by calls it, once for a cycle.
 * START comes before the cycle's work begins, PRE_STOP_WORLD before the pause
 * does, both beside the program.
 */
#include "internal.h"

static GC_start_callback_proc start_callback;      /* atomic */
static GC_on_collection_event_proc event_callback; /* atomic */
static GC_on_thread_event_proc thread_callback;    /* atomic */
static uint64_t begun;                             /* atomic: cycles begun */
static uint64_t cycles;                            /* atomic: ended */
static uint64_t at_last;                           /* atomic: allocated then */

static void tell(GC_EventType type)
{
	GC_on_collection_event_proc fn =
		__atomic_load_n(&event_callback, __ATOMIC_ACQUIRE);

	if (fn)
		fn(type);
}

static void tell_thread(pthread_t thread, void *type)
{
	GC_on_thread_event_proc fn =
		__atomic_load_n(&thread_callback, __ATOMIC_ACQUIRE);

	if (fn)
		fn(*(const GC_EventType *)type, (void *)thread);
}

/* Of those that the pause holds; as in libgc not of those that block. */
static void tell_threads(weir_heap *h, GC_EventType type)
{
	if (__atomic_load_n(&thread_callback, __ATOMIC_RELAXED))
		weir_thread_each_held(h, tell_thread, &type);
}

static void event(weir_heap *h, enum weir_event e, void *arg)
{
	struct weir_stats s = {.size = sizeof(s)};

	(void)arg;
	switch (e) {
	case WEIR_EVENT_CYCLE_BEGIN:
		/* Relaxed: counts, which order nothing. */
		__atomic_add_fetch(&begun, 1, __ATOMIC_RELAXED);
		tell(GC_EVENT_START);
		break;
	case WEIR_EVENT_STOPPING:
		tell(GC_EVENT_PRE_STOP_WORLD);
		lg_toggles_decide();
		break;
	case WEIR_EVENT_STOPPED:
		tell_threads(h, GC_EVENT_THREAD_SUSPENDED);
		tell(GC_EVENT_POST_STOP_WORLD);
		tell(GC_EVENT_MARK_START);
		break;
	case WEIR_EVENT_RESUMING:
		tell(GC_EVENT_MARK_END);
		tell(GC_EVENT_PRE_START_WORLD);
		tell_threads(h, GC_EVENT_THREAD_UNSUSPENDED);
		/* Relaxed, all three: counters that order nothing. */
		__atomic_add_fetch(&cycles, 1, __ATOMIC_RELAXED);
		__atomic_store_n(&GC_gc_no, GC_gc_no + 1, __ATOMIC_RELAXED);
		break;
	case WEIR_EVENT_CYCLE_END:
		weir_heap_stats(h, &s);
		__atomic_store_n(&at_last, s.allocated, __ATOMIC_RELAXED);
		tell(GC_EVENT_POST_START_WORLD);
		tell(GC_EVENT_RECLAIM_START);
		tell(GC_EVENT_RECLAIM_END);
		tell(GC_EVENT_END);
		break;
	}
}

void lg_events_init(weir_heap *h)
{
	/* The heap's range never moves: what an object can have for address. */
	GC_least_plausible_heap_addr = (void *)4096;
	GC_greatest_plausible_heap_addr = (void *)(UINTPTR_MAX - 4096);
	if (weir_heap_on_event(h, event, NULL))
		lg_fatal("libgc on weir: %s", weir_error_text());
}

void lg_start_due(void)
{
	static uint64_t told; /* atomic: cycles begun by the last call */
	GC_start_callback_proc fn =
		__atomic_load_n(&start_callback, __ATOMIC_ACQUIRE);

	/* Relaxed: a count, which orders nothing. */
	if (fn && lg_first(&told, __atomic_load_n(&begun, __ATOMIC_RELAXED)))
		fn();
}

uint64_t lg_cycles(void)
{
	return __atomic_load_n(&cycles, __ATOMIC_RELAXED);
}

LG_API GC_word GC_get_gc_no(void)
{
	return __atomic_load_n(&GC_gc_no, __ATOMIC_RELAXED);
}

LG_API void GC_set_start_callback(GC_start_callback_proc fn)
{
	__atomic_store_n(&start_callback, fn, __ATOMIC_RELEASE);
}

LG_API GC_start_callback_proc GC_get_start_callback(void)
{
	return __atomic_load_n(&start_callback, __ATOMIC_ACQUIRE);
}

LG_API void GC_set_on_collection_event(GC_on_collection_event_proc fn)
{
	__atomic_store_n(&event_callback, fn, __ATOMIC_RELEASE);
}

LG_API GC_on_collection_event_proc GC_get_on_collection_event(void)
{
	return __atomic_load_n(&event_callback, __ATOMIC_ACQUIRE);
}

/* Of pauses.  That a thread is held for its stack to be read is not told. */
LG_API void GC_set_on_thread_event(GC_on_thread_event_proc fn)
{
	__atomic_store_n(&thread_callback, fn, __ATOMIC_RELEASE);
}

LG_API GC_on_thread_event_proc GC_get_on_thread_event(void)
{
	return __atomic_load_n(&thread_callback, __ATOMIC_ACQUIRE);
}

LG_API size_t GC_get_bytes_since_gc(void)
{
	struct weir_stats s = {.size = sizeof(s)};
	uint64_t last = __atomic_load_n(&at_last, __ATOMIC_RELAXED);

	if (!lg_heap || weir_heap_stats(lg_heap, &s) || s.allocated < last)
		return 0;
	return s.allocated - last;
}
