/* SPDX-License-Identifier: MIT */
/*
 * Tracing that takes a stop, and is done ahead of the pause.
 *
 * Some of the program's functions may run only while it stands still: trace
 * functions without WEIR_TRACE_CONCURRENT, those of kinds that every pause
 * traces, root callbacks.  Were they left to the pause, all that only they lead
 * to would be marked in it: in Guile, whose stacks are such objects, whatever
 * the program holds in its variables.  So they run in stops of their own, once
 * marking has come to its end, and what they find is marked beside the program.
 * The pause calls those of roots and of the second kind again, and finds little
 * that is new.
 *
 * A stop calls all root callbacks and traces every object of the second kind
 * that is alive, as the pause has to, and marks what they report.  Where that
 * finds little it is not done again soon, and left out of minor cycles, until a
 * pause finds much.  Of deferred objects, which may be many, a stop traces as
 * many as take DEFERRED_NS; those that they lead to are followed, since a chain
 * of them would take a stop for each link else.
 *
 * Why that is sound: the stop comes after the arm, so an object that it traces
 * was armed before it was read; a later write makes its page dirty, which
 * defers it again.  Of roots and of the second kind nothing is promised ahead
 * of the pause.
 *
 *   wg_trace_ahead       the collector, beside the program
 *   wg_trace_deferred    the collector, in the pause
 *   wg_ahead_learn       the collector, after it
 */
#include "gc/ahead.h"

#include <time.h>

#include "gc/always.h"
#include "gc/locked.h"
#include "gc/team.h"

#define DEFERRED_NS 500000 /* of one stop for deferred objects */
#define TURN_NS 200000     /* what the program gets between two for them */
#define LOOK 16            /* objects traced between looks at the clock */
#define MANY_STOPS 4096    /* for deferred objects in a row, at the most */
/* A stop that leads to fewer new objects found little. */
#define LITTLE 2048
/* After which another is worth a try; and minor cycles whose stops found little
 * before they are left out. */
#define AGAIN_NS 5000000
#define USELESS 4

/* What was deferred when no segment was left is ordinary overflow now. */
static void undefer_overflow(struct weir_heap *h)
{
	if (!__atomic_exchange_n(&h->overflow_deferred, false,
				 __ATOMIC_RELAXED))
		return;
	for (int sp = 0; sp < 2; sp++) {
		struct wg_space *s = &h->space[sp];

		for (uint32_t i = s->first; i < wg_high(s); i++) {
			struct wg_block *b = &h->blocks[i];

			if (__atomic_load_n(&b->overflow, __ATOMIC_RELAXED) &
			    WG_OVERFLOW_DEFERRED)
				__atomic_store_n(&b->overflow, WG_OVERFLOW,
						 __ATOMIC_RELAXED);
		}
	}
	__atomic_store_n(&h->overflow, true, __ATOMIC_RELAXED);
}

static bool any_deferred(const struct weir_heap *h)
{
	for (unsigned i = 0; i < h->team->size; i++)
		if (h->marker[i]->deferred)
			return true;
	return false;
}

/* Run the object's callback, which its mark has counted already. */
static void trace(struct weir_heap *h, uintptr_t object)
{
	struct wg_marker *m = h->marker[0];
	size_t g = wg_granule_of(h, object);

	wg_scan_object(m, g, wg_meta_load(&h->meta[g]));
	m->objects--;
	m->bytes -= wg_object_bytes(h, g);
}

/* The next deferred object of any marker, 0: none. */
static uintptr_t next_deferred(struct weir_heap *h)
{
	for (unsigned i = 0; i < h->team->size; i++) {
		struct wg_marker *m = h->marker[i];

		while (m->deferred) {
			struct wg_segment *s = m->deferred;

			if (s->n)
				return s->e[--s->n];
			m->deferred = s->next;
			wg_segment_put(h->pool, s);
		}
	}
	return 0;
}

/* With marker 0, while it is in_pause: trace deferred objects, and follow what
 * that leads to, for it may lead to more of them, until there is nothing left,
 * or it is `deadline`: then true. */
static bool trace_until(struct weir_heap *h, uint64_t deadline)
{
	uintptr_t object;
	bool more = true;

	while (more) {
		more = false;
		for (unsigned k = 0; k < LOOK && (object = next_deferred(h));
		     k++) {
			trace(h, object);
			more = true;
		}
		if (deadline == UINT64_MAX)
			continue;
		more = wg_mark_some(h->marker[0], 16 * LOOK) || more;
		if (more && h->sys->now_ns() >= deadline)
			return true;
	}
	return false;
}

void wg_trace_deferred(struct weir_heap *h)
{
	undefer_overflow(h);
	do {
		trace_until(h, UINT64_MAX);
		wg_team_mark(h, 1);
	} while (any_deferred(h));
}

/* What became of a stop. */
enum stopped {
	HELD, /* cycles are held: there was none */
	DONE, /* nothing deferred is left */
	LATE, /* the time was up */
};

/* One stop; `all`: for more than deferred objects. */
static enum stopped stop(struct weir_heap *h, struct wg_report *r, bool all)
{
	bool deferred = any_deferred(h), late = false;
	struct wg_marker *m = h->marker[0];
	struct wr_stop_times times;
	enum wr_phase outer;

	/* The program's functions are called as in the pause. */
	wg_locked_hold_quiet(h);
	if (wr_unlikely(wg_gate_closed(h))) {
		wg_locked_drop(h);
		return HELD;
	}
	wr_roots_pause_begin(h->roots);
	outer = wg_pause_begin(h, &times);
	m->in_pause = true;
	if (all) {
		wg_always_trace(h, m);
		wg_roots_calls(h, m);
	}
	if (deferred)
		late = trace_until(h, h->sys->now_ns() + DEFERRED_NS);
	m->in_pause = false;
	wg_stops_add(&r->ahead, wg_pause_end(h, r, outer, &times, 0));
	wr_roots_pause_end(h->roots);
	wg_locked_drop(h);
	wg_delay(h);
	return late ? LATE : DONE;
}

/* Somebody waits for more than this cycle can give meanwhile. */
static bool hurried(const struct weir_heap *h)
{
	return __atomic_load_n(&h->starving, __ATOMIC_RELAXED) ||
	       (__atomic_load_n(&h->requests, __ATOMIC_RELAXED) &
		(WG_REQ_STOPPED | WG_REQ_QUIT));
}

/* A stop, marking, and more of both as long as the time for deferred objects
 * was up: however many they are, each stop has its length, and the program its
 * turns.  The number of new objects; false: cycles are held. */
static bool stops(struct weir_heap *h, struct wg_report *r, bool all,
		  uint64_t *marked)
{
	const struct timespec turn = {0, TURN_NS};
	uint64_t before = wg_objects_marked(h);
	enum stopped what = stop(h, r, all);

	wg_team_mark(h, h->beside);
	for (unsigned n = 0;
	     what == LATE && any_deferred(h) && n < MANY_STOPS && !hurried(h);
	     n++) {
		nanosleep(&turn, NULL);
		what = stop(h, r, false);
		wg_team_mark(h, h->beside);
	}
	*marked = wg_objects_marked(h) - before;
	return what != HELD;
}

/* Whether the last stop of the cycle, or those of the last few, found so little
 * that another one is not worth what it costs. */
static bool is_useless(const struct weir_heap *h, const struct wg_report *r)
{
	if (r->ahead.count)
		return r->ahead_marked <= LITTLE &&
		       h->sys->now_ns() - r->ahead_ns < AGAIN_NS;
	return !r->full && h->ahead_useless >= USELESS;
}

void wg_trace_ahead(struct weir_heap *h, struct wg_report *r, unsigned most)
{
	bool all = wg_always_count(h) || wr_roots_have_calls(h->roots);

	all = all && !is_useless(h, r);
	for (; most && (all || any_deferred(h)); most--) {
		uint64_t marked;

		if (!stops(h, r, all, &marked))
			return;
		if (!all)
			continue;
		r->ahead_marked = marked;
		r->ahead_ns = h->sys->now_ns();
		r->ahead_most = marked > r->ahead_most ? marked : r->ahead_most;
		all = marked > LITTLE;
	}
}

void wg_ahead_learn(struct weir_heap *h, const struct wg_report *r,
		    uint64_t in_pause)
{
	if (r->ahead_most > LITTLE || in_pause > LITTLE)
		h->ahead_useless = 0;
	else if (h->ahead_useless < USELESS)
		h->ahead_useless++;
}
