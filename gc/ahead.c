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
 * that is alive, as the pause has to; of deferred objects, which may be many,
 * as many as take DEFERRED_NS.  It marks what it finds and scans nothing.
 *
 * Why that is sound: the stop comes after the arm, so an object that it traces
 * was armed before it was read; a later write makes its page dirty, which
 * defers it again.  Of roots and of the second kind nothing is promised ahead
 * of the pause.
 *
 *   wg_trace_ahead       the collector, beside the program
 *   wg_trace_deferred    the collector, in the pause
 */
#include "gc/ahead.h"

#include "gc/always.h"
#include "gc/locked.h"
#include "gc/team.h"

#define DEFERRED_NS 500000 /* of one stop for deferred objects */
#define LOOK 16            /* of them traced between looks at the clock */
/* A stop that leads to fewer new objects is the last. */
#define LITTLE 2048

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

/* Trace deferred objects, with marker 0, until there are none or it is
 * `deadline`. */
static void trace_until(struct weir_heap *h, uint64_t deadline)
{
	unsigned look = 0;

	for (unsigned i = 0; i < h->team->size; i++) {
		struct wg_marker *m = h->marker[i];
		struct wg_segment *s;

		while ((s = m->deferred)) {
			while (s->n) {
				size_t g = wg_granule_of(h, s->e[--s->n]);

				wg_scan_object(h->marker[0], g,
					       wg_meta_load(&h->meta[g]));
				if (++look % LOOK == 0 &&
				    h->sys->now_ns() >= deadline)
					return;
			}
			m->deferred = s->next;
			wg_segment_put(h->pool, s);
		}
	}
}

void wg_trace_deferred(struct weir_heap *h)
{
	undefer_overflow(h);
	do {
		trace_until(h, UINT64_MAX);
		wg_team_mark(h, 1);
	} while (any_deferred(h));
}

/* One stop; `all`: not deferred objects alone.  False: cycles are held, so
 * there was none. */
static bool stop(struct weir_heap *h, struct wg_report *r, bool all)
{
	struct wg_marker *m = h->marker[0];
	struct wr_stop_times times;
	enum wr_phase outer;

	/* The program's functions are called as in the pause. */
	wg_locked_hold_quiet(h);
	if (wr_unlikely(wg_gate_closed(h))) {
		wg_locked_drop(h);
		return false;
	}
	wr_roots_pause_begin(h->roots);
	outer = wg_pause_begin(h, &times);
	m->in_pause = true;
	if (all) {
		wg_always_trace(h, m);
		wg_roots_calls(h, m);
	}
	trace_until(h, h->sys->now_ns() + DEFERRED_NS);
	m->in_pause = false;
	wg_stops_add(&r->ahead, wg_pause_end(h, r, outer, &times, 0));
	wr_roots_pause_end(h->roots);
	wg_locked_drop(h);
	return true;
}

void wg_trace_ahead(struct weir_heap *h, struct wg_report *r, unsigned most)
{
	bool all = wg_always_count(h) || wr_roots_have_calls(h->roots);
	uint64_t marked;

	if (!all && !any_deferred(h))
		return;
	do {
		marked = wg_objects_marked(h);
		if (!stop(h, r, all))
			return;
		wg_delay(h);
		wg_team_mark(h, h->beside);
		marked = wg_objects_marked(h) - marked;
		/* All of the deferred, however many stops that takes: each has
		 * its time, and the program has its between. */
	} while (any_deferred(h) || (all && marked > LITTLE && --most));
}
