/* SPDX-License-Identifier: MIT */
/*
 * Preclean: the pause's work done ahead of it.
 *
 * Passes beside the program come first.  A pass finds what was written during
 * the one before, so where pages are cleaned faster than they are written the
 * passes find less and less, down to what is written while a pass over nearly
 * clean pages lasts.  That is longer than it need be: to re-arm pages of a
 * program that runs costs an interrupt of its processor for each 2 MiB that has
 * one, 5 ms for 1 GiB.
 *
 * Hence rounds of stops that only re-arm what is dirty: 1 ms for 1 GiB and no
 * interrupt.  The pages are scanned when the program runs again.
 *
 * A program that writes all over its heap dirties pages faster than they can be
 * scanned beside it.  They have to be scanned while it stands still, and it has
 * to stand still for most of the time until that is done, or else the first
 * pages are dirty again when the last get clean.  That is done in slices, so
 * that no stop is long, and the slices are put off until they take no more than
 * a part of the time since the last ones (UTILISATION), unless memory runs
 * short.  While they are put off pages are not armed again: the program goes at
 * full speed.
 *
 *   all of it: the collector thread
 */
#include "gc/cycle.h"

#include <stdlib.h>
#include <time.h>

#include "gc/ahead.h"
#include "gc/dirty.h"
#include "gc/mutant.h"

/* Work in units of about one object: a pass that finds less is the last. */
#define PAGE_WORK 32
#define LITTLE_WORK (64 * PAGE_WORK)
/* More than this many pages left, or this part of the heap's, and no way to get
 * below: slices.  A part, since a larger heap takes longer if only for its page
 * tables, and so more is written meanwhile. */
#define SLICE_PAGES 512
#define SLICE_PART 512
#define SLICE_NS 700000 /* about the length of a stop that cleans */
#define TURN_NS 20000   /* what the program gets between two */
#define MAX_ROUNDS 12
/* Slices wait until the program has run for this many times
 * what they cost it, but no longer than MAX_PUT_OFF_NS.  Besides the stops that
 * is two faults a page, after the arm and after the slices. */
#define UTILISATION 10
#define FAULTS_NS 2000
#define MAX_PUT_OFF_NS 8000000000
#define NAP_NS 2000000
/* A pass over fewer pages is so short that it may have found more than the one
 * before because a thread was not run for a moment. */
#define SURE_PAGES 16384
#define MAX_STUCK 2
#define PARTS 16
#define MAX_PRECLEAN 64

static uint64_t few_pages(const struct weir_heap *h)
{
	uint64_t part = ((uint64_t)wg_high(&h->space[0]) << WG_BLOCK_SHIFT) /
			h->sys->page_size / SLICE_PART;

	return part > SLICE_PAGES ? part : SLICE_PAGES;
}

static uint32_t min(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* One short stop: clean blocks from *at to `high` until the time is up. */
static uint64_t slice(struct weir_heap *h, struct wg_report *r, uint32_t *at,
		      uint32_t high, uint32_t *step, struct wg_runs *later)
{
	struct wr_stop_times times;
	enum wr_phase outer = wg_pause_begin(h, &times);
	uint64_t pages;

	/* What a callback has to trace is deferred: a stop like this comes into
	 * the middle of weir_locked_call(). */
	pages = wg_dirty_slice(h, at, high, step, SLICE_NS, later);
	wg_stops_add(&r->slices, wg_pause_end(h, r, outer, &times, pages));
	return pages;
}

/* Slices over the whole heap; scan what a slice notes, or give the program a
 * turn.  Returns pages. */
static uint64_t round_of_slices(struct weir_heap *h, struct wg_report *r,
				unsigned space, uint32_t *step,
				struct wg_runs *later)
{
	const struct timespec turn = {0, TURN_NS};
	uint32_t at = h->space[space].first + !space;
	/* What the program adds meanwhile is for the next round: it could add
	 * as fast as it is cleaned. */
	uint32_t high = wg_high(&h->space[space]);
	uint64_t pages = 0;

	while (at < high) {
		pages += slice(h, r, &at, high, step, later);
		wg_delay_rarely(h);
		if (later)
			wg_dirty_scan(h, later);
		else
			nanosleep(&turn, NULL);
	}
	r->dirty += pages;
	return pages;
}

uint64_t wg_preclean_slices(struct weir_heap *h, struct wg_report *r,
			    unsigned space, uint32_t *step)
{
	return round_of_slices(h, r, space, step, NULL);
}

/* What only roots lead to by now is marked beside the program: a slice would
 * have to follow it to its end. */
static void mark_roots(struct weir_heap *h, struct wg_report *r)
{
	wg_roots_concurrent(h, h->marker[0]);
	wg_team_mark(h, h->beside);
	wg_trace_ahead(h, r, 1);
}

/* Rounds of stops that only re-arm, as long as they find less and less.
 * Returns what the last one found; `pages` if there were none. */
static uint64_t rearm_stopped(struct weir_heap *h, struct wg_report *r,
			      uint64_t pages)
{
	uint64_t before;
	uint32_t step = 256;

	if (!h->later)
		h->later = calloc(1, sizeof(*h->later));
	if (!h->later)
		return pages;
	do {
		before = pages;
		mark_roots(h, r);
		pages = round_of_slices(h, r, 0, &step, h->later);
	} while (pages * PAGE_WORK > LITTLE_WORK && pages < before / 2);
	return pages;
}

/* Let the program run before it is held for the time that `pages` take. */
static void put_off(struct weir_heap *h, struct wg_report *r, uint64_t pages)
{
	const struct timespec nap = {0, NAP_NS};
	uint64_t begin = h->sys->now_ns(), now = begin;
	uint64_t wait = pages * (h->slice_page_ns + FAULTS_NS) * UTILISATION;

	if (wait > MAX_PUT_OFF_NS)
		wait = MAX_PUT_OFF_NS;
	while (now < h->slices_end_ns + wait && wg_pace_can_wait(h)) {
		nanosleep(&nap, NULL);
		now = h->sys->now_ns();
	}
	r->put_off_ns = now - begin;
}

/*
 * Take turns: a short stop that scans a part of the dirty pages, `pages` at
 * first, then a shorter time for the program, until a round over the heap finds
 * little.  While stopped more pages get clean than are written between.
 */
static void clean_stopped(struct weir_heap *h, struct wg_report *r,
			  uint64_t pages)
{
	uint64_t left = pages, before;
	uint64_t held = r->slices.total_ns;
	uint32_t step = 8;
	int round = 0;

	do {
		before = left;
		mark_roots(h, r);
		left = round_of_slices(h, r, 0, &step, NULL);
	} while (left > few_pages(h) && ++round < MAX_ROUNDS &&
		 (round == 1 || left < before - before / 8));
	h->slices_end_ns = h->sys->now_ns();
	if (pages >= SURE_PAGES)
		h->slice_page_ns = (r->slices.total_ns - held) / pages;
}

/*
 * Whether the program writes to pages much faster than they could be cleaned
 * beside it: clean a part of the heap and see how much of it is dirty again.  A
 * pass would take PARTS times as long.  *dirty: pages that there are in all.
 */
static bool is_storm(struct weir_heap *h, struct wg_report *r, uint64_t *dirty)
{
	uint32_t at = h->space[0].first + 1, high = wg_high(&h->space[0]);
	uint32_t part = (high - at) / PARTS + 1, most_at = at;
	uint64_t most = 0, pages;

	*dirty = 0;
	if ((high - at) * (WG_BLOCK / h->sys->page_size) < SURE_PAGES)
		return false; /* there are not as many pages */
	for (; at < high; at += part) {
		pages = wg_dirty_count(h, at, min(at + part, high));
		*dirty += pages;
		if (pages > most) {
			most = pages;
			most_at = at;
		}
	}
	if (*dirty < SURE_PAGES)
		return false;
	at = most_at;
	pages = wg_dirty_some(h, at, min(at + part, high));
	r->dirty += pages;
	return wg_dirty_count(h, at, min(at + part, high)) > pages / 4;
}

/*
 * Until little is left or what is left does not shrink: pages written and
 * objects that were reachable from stacks and roots only.
 */
void wg_preclean(struct weir_heap *h, struct wg_report *r)
{
	uint64_t before = UINT64_MAX, pages, dirty;
	unsigned stuck = 0;
	bool storm = is_storm(h, r, &pages) || wg_delay_choice(h, 8);

	while (!storm) {
		uint64_t marked = wg_objects_marked(h), work;

		if (r->passes)
			wg_trace_ahead(h, r, 1);
		wg_roots_concurrent(h, h->marker[0]);
		pages = wg_dirty_pass(h, h->beside, WR_FETCH_REARM, false);
		marked = wg_objects_marked(h) - marked;
		work = pages * PAGE_WORK + marked;
		r->dirty += pages;
		r->passes++;
		wg_delay(h);
		if (wg_delay_choice(h, 4))
			break;
		if (work < LITTLE_WORK || r->passes == MAX_PRECLEAN)
			return;
		if (work < before - before / 16) {
			before = work;
			continue;
		}
		storm = pages >= SURE_PAGES;
		if (!storm && ++stuck == MAX_STUCK)
			break;
	}
	dirty = r->dirty;
	if (!storm)
		pages = rearm_stopped(h, r, pages);
	if (pages > few_pages(h) || wg_delay_choice(h, 4)) {
		if (storm) {
			put_off(h, r, pages);
			/* And what only dirty pages do; they stay so. */
			wg_dirty_pass(h, h->beside, 0, false);
		}
		clean_stopped(h, r, pages);
	}
	wg_report_slices(h, r, &r->slices, r->dirty - dirty);
}
