/* SPDX-License-Identifier: MIT */
/*
 * The cycle: arm, concurrent roots and mark, preclean, pause (remark), sweep.
 *
 * Why nothing reachable is missed.  Let an object be black when its granule
 * byte has the cycle's colour, and say that a page is clean when the barrier
 * holds it armed.  At every step between arm and pause:
 *
 *   (1) a black object's field, on a clean page, was read after the page was
 *       last armed, and what it referred to was pushed; or the object is on
 *       some marker's stack, list or overflow block;
 *   (2) every other reference is on a page that a fetch will report, in a
 *       root, in a register or on a stack, or in an object that is not black.
 *
 * The pause reads all of (2) but the last, with nobody writing, and drains the
 * stacks; by then an object that is reachable is black.  (1) rests on the
 * order arm-before-read (runtime/barrier.h), which preclean keeps: it re-arms
 * a page before it reads it.
 *
 * A minor cycle keeps the colour: (1) holds from the last cycle on, since its
 * armed pages stayed so, and the dirty pages are the remembered set.
 *
 *   all of it runs on the collector thread; requests come from any thread
 */
#include "gc/cycle.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "gc/ahead.h"
#include "gc/always.h"
#include "gc/dirty.h"
#include "gc/event_hook.h"
#include "gc/invariants.h"
#include "gc/locked.h"
#include "gc/mutant.h"
#include "gc/report.h"
#include "gc/snap.h"
#include "gc/team.h"
#include "gc/verify.h"
#include "gc/weak.h"

/* If arming and marking took no longer than this, what was written meanwhile
 * is little enough for the pause. */
#define SHORT_MARK_NS 700000

/* Stops ahead of preclean, which has some of its own (gc/ahead.c). */
#define AHEAD_STOPS 3

struct span {
	enum wr_phase phase; /* what is being timed */
	enum wr_phase outer; /* what it is a part of */
	uint64_t begin;      /* when it began */
};

/* Relaxed: partner of the load in whoever wants to know (tests), who orders
 * nothing by it. */
static void stage_set(struct weir_heap *h, enum wr_phase phase)
{
	__atomic_store_n(&h->stage, phase, __ATOMIC_RELAXED);
}

static struct span span_begin(struct weir_heap *h, enum wr_phase phase)
{
	struct span s = {phase, h->stage, h->sys->now_ns()};

	stage_set(h, phase);
	wr_event_begin(h->events, phase, s.begin);
	wg_delay(h);
	return s;
}

static uint64_t span_end(struct weir_heap *h, struct span s, uint64_t value,
			 const char *unit)
{
	uint64_t now = h->sys->now_ns();

	wr_event_end(h->events, s.phase, s.begin, now, value, unit);
	stage_set(h, s.outer);
	return now - s.begin;
}

uint64_t wg_objects_marked(const struct weir_heap *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < h->team->size; i++)
		n += h->marker[i]->objects;
	return n;
}

static uint64_t bytes_marked(const struct weir_heap *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < h->team->size; i++)
		n += h->marker[i]->bytes;
	return n;
}

void wg_set_in_pause(struct weir_heap *h, bool in_pause)
{
	for (unsigned i = 0; i < h->team->size; i++)
		h->marker[i]->in_pause = in_pause;
}

enum wr_phase wg_pause_begin(struct weir_heap *h, struct wr_stop_times *times)
{
	struct span s = {WR_PHASE_pause, h->stage, h->sys->now_ns()};

	wr_event_begin(h->events, WR_PHASE_pause, s.begin);
	wg_delay(h);
	wr_event_begin(h->events, WR_PHASE_stop, s.begin);
	wr_threads_stop_world(h->threads, times);
	/* Now, since fork waits for a stop but not for the thought of one. */
	stage_set(h, WR_PHASE_pause);
	wg_delay_rarely(h);
	wr_event_end(h->events, WR_PHASE_stop, times->requested_ns,
		     times->stopped_ns, 0, NULL);
	return s.outer;
}

uint64_t wg_pause_end(struct weir_heap *h, struct wg_report *r,
		      enum wr_phase outer, const struct wr_stop_times *times,
		      uint64_t pages)
{
	uint64_t over, ns;

	/* Who forks once it may finds no pause. */
	stage_set(h, outer);
	wg_delay_rarely(h);
	over = wr_threads_resume_world(h->threads);
	wg_delay_rarely(h);
	ns = over - times->requested_ns;
	wr_event_end(h->events, WR_PHASE_pause, times->requested_ns, over,
		     pages, "pages");
	wr_histogram_add(&h->stats.pause, ns);
	wr_histogram_add(&h->stats.stop,
			 times->stopped_ns - times->requested_ns);
	wg_stops_add(&r->pauses, ns);
	return ns;
}

static void concurrent_part(struct weir_heap *h, struct wg_report *r)
{
	struct wg_marker *m = h->marker[0];
	bool all = h->all_dirty;
	uint64_t armed;
	struct span s;

	/* Release, here and below: partner of the acquire loads in tests, which
	 * look at what the phase before has done. */
	__atomic_store_n(&h->phase, WG_MARKING, __ATOMIC_RELEASE);
	s = span_begin(h, WR_PHASE_arm);
	armed = s.begin;
	if (r->full && !r->resumed)
		wg_dirty_arm(h);
	else
		r->dirty = wg_dirty_pass(h, h->beside, WR_FETCH_REARM, all);
	h->all_dirty = false;
	h->tracking = true;
	r->arm_ns = span_end(h, s, r->dirty, "pages");

	/* Objects of threads that attach from here on may be black; pairs with
	 * the load in weir_thread_attach.  Not before the arm, which takes what
	 * is written for unmarked and forgets that it was. */
	__atomic_store_n(&h->newborn, h->opt.born_black ? h->colour : WG_YOUNG,
			 __ATOMIC_SEQ_CST);

	s = span_begin(h, WR_PHASE_roots);
	wg_roots_concurrent(h, m);
	span_end(h, s, 0, NULL);

	s = span_begin(h, WR_PHASE_mark);
	wg_team_mark(h, h->beside);
	wg_trace_ahead(h, r, AHEAD_STOPS);
	r->mark_ns = span_end(h, s, 0, NULL);

	if (h->snap)
		wg_snap_first(h);
	s = span_begin(h, WR_PHASE_preclean);
	if (s.begin - armed - r->ahead.total_ns > SHORT_MARK_NS)
		wg_preclean(h, r);
	if (h->snap)
		wg_snap_again(h, r);
	wg_weak_preclean(h);
	wg_report_ahead(h, r);
	r->preclean_ns = span_end(h, s, r->dirty, "pages");
}

static void remark(struct weir_heap *h, struct wg_report *r)
{
	struct wg_marker *m = h->marker[0];
	bool whole = r->full && r->stopped && !r->resumed;
	unsigned workers = h->pause_markers;

	wg_set_in_pause(h, true);
	if (!wg_mutant(WG_MUTANT_TRUST_AHEAD) || !r->ahead.count)
		wg_always_trace(h, m);
	wg_roots_paused(h, m);
	if (whole)
		wg_team_mark(h, workers);
	else
		r->remark_pages =
			wg_dirty_pass(h, workers, WR_FETCH_HOLES, h->all_dirty);
	wg_trace_deferred(h);
	wg_count(&h->stats.remark_dirty, r->remark_pages);
}

/* The program went on while the cycle was held. */
static void catch_up(struct weir_heap *h, struct wg_report *r)
{
	wg_roots_concurrent(h, h->marker[0]);
	r->dirty += wg_dirty_pass(h, h->beside, WR_FETCH_REARM, h->all_dirty);
	wg_trace_ahead(h, r, 1);
}

static void pause(struct weir_heap *h, struct wg_report *r)
{
	struct wr_stop_times times;
	uint64_t marked = bytes_marked(h), objects = wg_objects_marked(h);
	enum wr_phase outer;
	struct span s;

	while (wr_unlikely(wg_gate_pass(h)))
		if (!r->stopped) {
			catch_up(h, r);
			if (h->snap)
				wg_snap_again(h, r);
		}
	wg_hook_hold(h);
	wg_hook_tell(h, WEIR_EVENT_STOPPING);
	wr_roots_pause_begin(h->roots);
	outer = wg_pause_begin(h, &times);
	wg_hook_tell(h, WEIR_EVENT_STOPPED);
	s = span_begin(h, WR_PHASE_remark);
	remark(h, r);
	r->remark_ns = span_end(h, s, r->remark_pages, "pages");
	s = span_begin(h, WR_PHASE_weak);
	wg_weak_pause(h);
	r->weak_ns = span_end(h, s, 0, NULL);
	wg_always_filter(h, r->full);
	r->remark_marked = bytes_marked(h) - marked;
	wg_ahead_learn(h, r, wg_objects_marked(h) - objects);
	if (h->snap)
		wg_snap_pause(h);
	if (h->opt.verify || WEIR_CHECKING >= 2)
		wg_invariants_check(h);
	if (h->opt.verify) {
		s = span_begin(h, WR_PHASE_verify);
		wg_verify(h, r->full);
		r->verify_ns = span_end(h, s, 0, NULL);
	}
	wg_set_in_pause(h, false);
	h->open_full = false;
	h->sweep_minor = !r->full;
	wg_sweep_begin(h);
	__atomic_store_n(&h->newborn, WG_YOUNG, __ATOMIC_SEQ_CST);
	__atomic_store_n(&h->phase, WG_SWEEPING_PHASE, __ATOMIC_RELEASE);
	wg_hook_tell(h, WEIR_EVENT_RESUMING);
	r->stop_ns = times.stopped_ns - times.requested_ns;
	r->pause_ns = wg_pause_end(h, r, outer, &times, r->remark_pages);
	wr_roots_pause_end(h->roots);
	wg_hook_drop(h);
	wg_locked_drop(h);
	if (h->snap)
		wg_snap_resumed(h, r);
	wg_report_pause(h, r);
}

static void sweep_job(struct weir_heap *h, struct wg_marker *m, void *arg)
{
	(void)m;
	(void)arg;
	wg_sweep_all(h);
}

void wg_sweep_run(struct weir_heap *h)
{
	wg_team_run(h, h->beside, sweep_job, NULL);
	wg_sweep_finish(h);
	if (h->snap)
		wg_snap_swept(h);
	wg_dirty_forget(h, &h->space[0], false);
	wg_snap_forget_leaf(h);
}

void wg_cycle_run(struct weir_heap *h, bool full, bool stopped, uint64_t number)
{
	struct wg_report r = {
		.number = number, .full = full, .stopped = stopped};
	uint64_t marked = 0, cpu = h->sys->thread_cpu_ns();
	struct span cs = span_begin(h, WR_PHASE_cycle), s;

	wg_report_begin(h, &r);
	wg_hook_call(h, WEIR_EVENT_CYCLE_BEGIN);
	wg_pace_cycle_begin(h);
	h->beside = wg_pace_markers(h, cs.begin);
	for (unsigned i = 0; i < h->team->size; i++)
		h->marker[i]->bytes = h->marker[i]->objects = 0;
	r.resumed = h->resume;
	if (full) {
		/* fork must see both or neither. */
		wr_mutex_lock(&h->ctl_lock);
		if (!h->resume) {
			wg_verify_forget_strays(h);
			h->colour ^= WG_BLACK_A ^ WG_BLACK_B;
			for (int i = 0; i < 2; i++)
				memset(h->black + h->space[i].first, 0,
				       wg_high(&h->space[i]) -
					       h->space[i].first);
		}
		h->resume = false;
		h->open_full = true;
		wr_mutex_unlock(&h->ctl_lock);
	}
	if (!stopped)
		concurrent_part(h, &r);
	else if (full)
		h->tracking = false;
	pause(h, &r);
	wg_count(&h->stats.cycles_full, full);
	wg_count(&h->stats.cycles_minor, !full);
	wg_count(&h->stats.cycles_stopped, stopped);
	for (unsigned i = 0; i < h->team->size; i++) {
		marked += h->marker[i]->bytes;
		wg_count(&h->stats.overflows, h->marker[i]->overflows);
		h->marker[i]->overflows = 0;
	}
	wg_pace_sweep_begin(h);
	wg_weak_after(h);

	s = span_begin(h, WR_PHASE_sweep);
	wg_sweep_run(h);
	r.sweep_ns = span_end(h, s, 0, NULL);
	if (full) {
		uint64_t before = h->live_full;

		h->live_full = h->live;
		wg_pace_yield(h, before);
		wg_trim_after_cycle(h);
	}
	__atomic_store_n(&h->trim_due, wg_trim_excess(h) != 0,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&h->phase, WG_IDLE, __ATOMIC_RELEASE);
	wg_pace_survival(h, marked, full);
	if (!stopped)
		wg_pace_during(h, full);
	wg_pace_cycle_end(h);
	__atomic_add_fetch(&h->cpu_ns, h->sys->thread_cpu_ns() - cpu,
			   __ATOMIC_RELAXED);
	wr_event_counter(h->events, "live", h->sys->now_ns(), h->live);
	wr_event_counter(h->events, "used", h->sys->now_ns(),
			 __atomic_load_n(&h->used, __ATOMIC_RELAXED));
	span_end(h, cs, marked, "bytes");
	wg_report_cycle(h, &r, marked);
	wg_hook_call(h, WEIR_EVENT_CYCLE_END);
}
