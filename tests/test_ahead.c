/* SPDX-License-Identifier: MIT */
/*
 * Tracing ahead of the pause: what only a stop may trace is traced before it,
 * and what that leads to is marked beside the program.
 *
 * `seen` objects have a trace function that may run beside the program and
 * notes whether it did; they hang on what only a stop may call.
 */
#include <stdlib.h>
#include <time.h>

#include <weir/embed.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/must.h"

#define MANY 3000

struct seen {
	struct seen *next; /* in the chain */
	uint64_t number;   /* its own */
};

static struct seen *chain; /* not a root: callbacks report it */
static weir_kind seen_kind, slow_kind;
static uint8_t traced[MANY];    /* since collect() */
static unsigned beside, paused; /* first calls of trace_seen() for one */
static unsigned slow_calls, slow_in_pause;
static const struct weir_heap *inner;

static bool in_pause(void)
{
	/* Relaxed: the collector's own store, or of before it woke this. */
	enum wr_phase stage = __atomic_load_n(&inner->stage, __ATOMIC_RELAXED);

	return stage == WR_PHASE_remark;
}

static void trace_seen(void *object, size_t size, weir_visitor *v, void *arg)
{
	struct seen *s = object;

	(void)size;
	(void)arg;
	/* Once more in the pause where its page is dirty. */
	if (!__atomic_exchange_n(&traced[s->number], 1, __ATOMIC_RELAXED))
		__atomic_add_fetch(in_pause() ? &paused : &beside, 1,
				   __ATOMIC_RELAXED);
	weir_visit(v, s->next);
}

static void push_chain(weir_visitor *v, void *arg)
{
	(void)arg;
	weir_visit(v, chain);
}

static void trace_owner(void *object, size_t size, weir_visitor *v, void *arg)
{
	(void)object;
	(void)size;
	push_chain(v, arg);
}

/* On a thread of its own, so that no stack refers to the chain. */
static void *make_chain(void *arg)
{
	weir_mutator *m;

	(void)arg;
	must(!weir_thread_attach(heap, &m));
	chain = NULL;
	for (int i = 0; i < MANY; i++) {
		struct seen *s = weir_alloc_kind(m, sizeof(*s), seen_kind);

		must(s);
		s->next = chain;
		s->number = (uint64_t)i;
		chain = s;
	}
	must(!weir_thread_detach(m));
	return NULL;
}

static void open(const char *options)
{
	heap_open(options);
	need_barrier(heap);
	inner = heap;
	cr_assert_eq(weir_kind_trace(heap, trace_seen, NULL,
				     WEIR_TRACE_CONCURRENT, &seen_kind),
		     0);
	run_thread(make_chain, NULL);
}

static void collect(unsigned flags)
{
	memset(traced, 0, sizeof(traced));
	beside = paused = slow_calls = slow_in_pause = 0;
	cr_assert_eq(weir_collect(heap, flags), 0);
}

/* All of the chain, beside the program. */
static void chain_is_marked_beside(void)
{
	unsigned length = 0;

	collect(WEIR_COLLECT_FULL);
	cr_assert_eq(beside, MANY);
	cr_assert_eq(paused, 0);
	for (struct seen *s = chain; s; s = s->next)
		length++;
	cr_assert_eq(length, MANY);
}

Test(ahead, what_a_root_callback_leads_to_is_marked_beside)
{
	open("verify=on,poison=on");
	cr_assert_eq(weir_root_add_callback(heap, push_chain, NULL, 0), 0);
	chain_is_marked_beside();
	heap_close();
}

Test(ahead, what_always_traced_objects_lead_to_is_marked_beside)
{
	static void *owner;
	weir_kind kind;

	open("verify=on,poison=on");
	cr_assert_eq(weir_kind_trace(heap, trace_owner, NULL, WEIR_TRACE_ALWAYS,
				     &kind),
		     0);
	cr_assert_eq(weir_root_add(heap, &owner, sizeof(owner)), 0);
	owner = weir_alloc_kind(self, 16, kind);
	chain_is_marked_beside();
	heap_close();
}

/* That these can fail: a stopped cycle marks it in the pause. */
Test(ahead, a_stopped_cycle_marks_it_in_the_pause)
{
	open(NULL);
	cr_assert_eq(weir_root_add_callback(heap, push_chain, NULL, 0), 0);
	collect(WEIR_COLLECT_STOPPED);
	cr_assert_eq(beside, 0);
	cr_assert_eq(paused, MANY);
	heap_close();
}

/* ---- Deferred objects -----------------------------------------------------
 */

#define SLOW 64
#define SLOW_NS 200000

static void **slow;           /* SLOW objects of slow_kind */
static unsigned long running; /* turns of the thread that must stand still */
static bool moved;            /* it did not */

static void trace_slow(void *object, size_t size, weir_visitor *v, void *arg)
{
	struct timespec t = {.tv_nsec = SLOW_NS};
	unsigned long before = __atomic_load_n(&running, __ATOMIC_RELAXED);

	(void)size;
	(void)arg;
	slow_calls++;
	slow_in_pause += in_pause();
	nanosleep(&t, NULL);
	if (__atomic_load_n(&running, __ATOMIC_RELAXED) != before)
		moved = true;
	weir_visit(v, *(void **)object);
}

static void *turn(void *stop)
{
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	/* Relaxed: nothing else is published by it. */
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED)) {
		__atomic_add_fetch(&running, 1, __ATOMIC_RELAXED);
		weir_safepoint(m);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

/* A stop for each few of them, none in the pause, and the program stands still
 * in each. */
Test(ahead, deferred_objects_take_several_stops)
{
	struct weir_stats s;
	uint64_t stops;
	bool stop = false;
	pthread_t t;

	open("markers=1,pause-markers=1");
	cr_assert_eq(weir_kind_trace(heap, trace_slow, NULL, 0, &slow_kind), 0);
	cr_assert_eq(weir_root_add(heap, &slow, sizeof(slow)), 0);
	slow = weir_alloc(self, SLOW * sizeof(*slow));
	for (int i = 0; i < SLOW; i++) {
		slow[i] = weir_alloc_kind(self, 16, slow_kind);
		*(void **)slow[i] = weir_alloc_leaf(self, 16);
	}
	must(!pthread_create(&t, NULL, turn, &stop));
	collect(WEIR_COLLECT_FULL);
	s = heap_stats();
	stops = s.pause.count;
	collect(WEIR_COLLECT_FULL);
	s = heap_stats();
	/* Some are on pages that were dirty once more. */
	cr_assert_geq(slow_calls, SLOW);
	cr_assert_leq(slow_in_pause, SLOW / 4);
	cr_assert_geq(s.pause.count - stops, SLOW / 16 / 2 + 1);
	cr_assert_not(moved);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	heap_close();
}

/* ---- Chains ---------------------------------------------------------------
 */

#define LINKS 20000

static void **deferred_chain; /* root */
static weir_kind link_kind;

static void trace_link(void *object, size_t size, weir_visitor *v, void *arg)
{
	(void)size;
	(void)arg;
	slow_calls++;
	weir_visit(v, *(void **)object);
}

static void *make_links(void *arg)
{
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	deferred_chain = NULL;
	for (int i = 0; i < LINKS; i++) {
		void **p = weir_alloc_kind(m, 16, link_kind);

		must(p);
		*p = deferred_chain;
		deferred_chain = p;
	}
	must(!weir_thread_detach(m));
	return arg;
}

/* Not a stop for each of them. */
Test(ahead, a_chain_of_deferred_objects_takes_few_stops)
{
	unsigned length = 0;
	uint64_t stops;

	open("verify=on,poison=on");
	cr_assert_eq(weir_kind_trace(heap, trace_link, NULL, 0, &link_kind), 0);
	cr_assert_eq(
		weir_root_add(heap, &deferred_chain, sizeof(deferred_chain)),
		0);
	run_thread(make_links, NULL);
	stops = heap_stats().pause.count;
	collect(WEIR_COLLECT_FULL);
	stops = heap_stats().pause.count - stops;
	cr_assert_geq(slow_calls, LINKS);
	cr_assert_leq(stops, 200, "%lu stops", (unsigned long)stops);
	for (void **p = deferred_chain; p; p = *p)
		length++;
	cr_assert_eq(length, LINKS);
	heap_close();
}

static void *append(void *stop)
{
	weir_mutator *m;
	void **tail;

	must(!weir_thread_attach(heap, &m));
	/* Relaxed: nothing else is published by it. */
	for (tail = deferred_chain;
	     !__atomic_load_n((bool *)stop, __ATOMIC_RELAXED);) {
		void **p = weir_alloc_kind(m, 16, link_kind);

		must(p);
		__atomic_store_n(tail, p, __ATOMIC_RELAXED);
		tail = p;
		if (*deferred_chain != tail)
			__atomic_store_n(&deferred_chain, *deferred_chain,
					 __ATOMIC_RELAXED);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

/* A queue that grows at one end and shrinks at the other while cycles run: they
 * end. */
Test(ahead, a_chain_that_grows_does_not_keep_a_cycle, .timeout = 240)
{
	bool stop = false;
	uint64_t stops;
	pthread_t t;

	open("heap-min=2m,heap-max=512m");
	cr_assert_eq(weir_kind_trace(heap, trace_link, NULL, 0, &link_kind), 0);
	cr_assert_eq(
		weir_root_add(heap, &deferred_chain, sizeof(deferred_chain)),
		0);
	deferred_chain = weir_alloc_kind(self, 16, link_kind);
	*deferred_chain = weir_alloc_kind(self, 16, link_kind);
	must(!pthread_create(&t, NULL, append, &stop));
	stops = heap_stats().pause.count;
	for (int i = 0; i < 10; i++)
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	stops = heap_stats().pause.count - stops;
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	cr_assert_leq(stops, 10000, "%lu stops", (unsigned long)stops);
	heap_close();
}
