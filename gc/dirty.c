/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages: which blocks are armed, fetched and scanned.
 *
 * A block that has no black object and is not armed can be left alone: all
 * that is in it is scanned when it is marked, and by then the block counts as
 * having black objects, so a later pass arms it and scans it once more.  With
 * `lazy_arm` that is what happens to blocks of new objects: most of them die
 * young, and arming their pages, and disarming them for the next objects, would
 * be for nothing.  Without it every block in use is armed ahead of marking.
 *
 * While a pass that re-arms looks at pages nobody scans the objects that it
 * marks, in any thread: or else a marker could have read a field, before the
 * re-arm, of an object whose mark is not visible yet to another one that does
 * the page, which then would not scan it.  So the pass only stacks them, and a
 * second job scans.  In a pause there is no mutator and one job does.
 *
 *   all of it: the collector thread and, inside, its team
 */
#include "gc/dirty.h"

#include "gc/mutant.h"
#include "gc/snap.h"

#define CHUNK_BLOCKS 1024 /* 64 MiB: what a worker fetches at a time */
#define SCAN_BLOCKS 16    /* 1 MiB: the same in a stop that scans */
#define GAP_BLOCKS 16     /* free blocks that make it worth two calls */

struct pass {
	uint32_t next;  /* atomic: block to go on from */
	uint32_t end;   /* block to stop at */
	uint32_t chunk; /* atomic: blocks a worker takes at a time */
	unsigned flags; /* of wr_barrier_fetch */
	bool all;       /* take every page for dirty */
	uint64_t pages; /* atomic: found */
	struct wg_runs
		*later;    /* where runs go that are scanned later, or NULL */
	uint64_t begin;    /* slice_job: when it began */
	uint64_t deadline; /* slice_job: when to take no more */
};

struct scan {
	struct weir_heap *h;   /* the heap */
	struct wg_marker *m;   /* who scans */
	struct wg_runs *later; /* of the pass */
	bool at_once;          /* nobody writes, and what is seen is armed */
	uint64_t pages;        /* seen */
};

static bool is_leaf(const struct weir_heap *h, uintptr_t p)
{
	return p >= h->leaf_base;
}

static void dirty_runs(void *arg, const struct wr_run *runs, size_t count)
{
	struct scan *s = arg;

	/* All of these were armed by now, those of an earlier call were
	 * before something was traced that others of its pages belong to. */
	s->m->traced = 0;
	for (size_t i = 0; i < count; i++) {
		s->pages +=
			(runs[i].end - runs[i].start) / s->h->sys->page_size;
		if (wr_unlikely(s->h->snap != NULL) &&
		    !wg_mutant(WG_MUTANT_SNAP_REARM))
			wg_snap_dirty(s->h, runs[i].start, runs[i].end,
				      s->at_once);
		if (is_leaf(s->h, runs[i].start))
			continue;
		if (wg_mutant(WG_MUTANT_SKIP_DIRTY) && s->m->in_pause && i % 2)
			continue;
		if (s->later && s->later->count < WG_LATER_RUNS)
			s->later->run[s->later->count++] = runs[i];
		else
			wg_scan_marked(s->m, runs[i].start, runs[i].end);
	}
}

static void note_armed(struct weir_heap *h, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		__atomic_store_n(&h->blocks[i].armed, 1, __ATOMIC_RELAXED);
}

/* Fetch [from, to), blocks. */
static void fetch(struct weir_heap *h, struct wg_marker *m, struct pass *p,
		  uint32_t from, uint32_t to)
{
	struct scan s = {.h = h,
			 .m = m,
			 .later = p->later,
			 .at_once = p->deadline && !p->later};
	struct wr_run all = {wg_block_start(h, from), wg_block_start(h, to)};
	void *start = (void *)all.start;
	size_t size = all.end - all.start;
	bool rearm = p->flags & WR_FETCH_REARM;

	if (rearm) {
		note_armed(h, from, to);
		wg_delay_rarely(h);
	}
	if (p->all) {
		if (rearm)
			wr_barrier_arm(h->barrier, start, size);
		dirty_runs(&s, &all, 1);
	} else if (wg_mutant(WG_MUTANT_NO_REARM) && rearm) {
		/* Takes pages for clean that were not protected when they
		 * were scanned. */
		wr_barrier_fetch(h->barrier, start, size, 0, dirty_runs, &s);
		wg_delay(h);
		wr_barrier_arm(h->barrier, start, size);
	} else {
		wr_barrier_fetch(h->barrier, start, size, p->flags, dirty_runs,
				 &s);
	}
	__atomic_add_fetch(&p->pages, s.pages, __ATOMIC_RELAXED);
}

/* Whether block i is to be armed, or was and is to be fetched. */
static bool wanted(const struct weir_heap *h, uint32_t i)
{
	const struct wg_block *b = &h->blocks[i];
	unsigned state = wg_block_state(b);

	if (state == WG_FREE)
		return false;
	if (state == WG_LARGE_TAIL)
		i = __atomic_load_n(&b->head, __ATOMIC_RELAXED);
	/* A snapshot copies beside the program what is armed. */
	return !h->lazy_arm || h->snap ||
	       __atomic_load_n(&h->black[i], __ATOMIC_RELAXED) ||
	       __atomic_load_n(&b->armed, __ATOMIC_RELAXED);
}

/* The next run of wanted blocks in [*at, to), small gaps included unless they
 * are to stay unarmed. */
static bool next_run(const struct weir_heap *h, uint32_t *at, uint32_t to,
		     uint32_t *from, uint32_t *end)
{
	uint32_t gap = h->lazy_arm ? 0 : GAP_BLOCKS;
	uint32_t i = *at;

	while (i < to && !wanted(h, i))
		i++;
	if (i >= to)
		return false;
	*from = i;
	*end = i + 1;
	for (i++; i < to && i - *end <= gap; i++)
		if (wanted(h, i))
			*end = i + 1;
	*at = *end;
	return true;
}

static void fetch_chunk(struct weir_heap *h, struct wg_marker *m,
			struct pass *p, uint32_t at, uint32_t to)
{
	uint32_t from, end;

	if (!(p->flags & WR_FETCH_REARM) && !p->all)
		fetch(h, m, p, at, to);
	else
		while (next_run(h, &at, to, &from, &end))
			fetch(h, m, p, from, end);
}

/* Take the next chunk; its end, or 0 when there is none. */
static uint32_t next_chunk(struct pass *p, uint32_t *at)
{
	uint32_t chunk = __atomic_load_n(&p->chunk, __ATOMIC_RELAXED);

	*at = __atomic_fetch_add(&p->next, chunk, __ATOMIC_RELAXED);
	if (*at >= p->end)
		return 0;
	return p->end - *at < chunk ? p->end : *at + chunk;
}

static void pass_job(struct weir_heap *h, struct wg_marker *m, void *arg)
{
	struct pass *p = arg;
	uint32_t at, to;

	while ((to = next_chunk(p, &at)))
		fetch_chunk(h, m, p, at, to);
	if (m->in_pause)
		wg_mark_loop(m);
}

/* Chunks such that a worker looks at the clock often enough, but not after each
 * few pages of a clean heap.  Where pages are scanned they stay small, since a
 * long clean part says nothing of the next: 256 pages are 1 ms.  With half of
 * `later` free a whole chunk's runs, which are not neighbours, fit in. */
static void slice_job(struct weir_heap *h, struct wg_marker *m, void *arg)
{
	struct pass *p = arg;
	uint64_t length = p->deadline - p->begin;
	uint64_t now = h->sys->now_ns(), spent;
	uint32_t most = p->later ? CHUNK_BLOCKS : SCAN_BLOCKS;
	uint32_t at, to;

	/* One in any case: a slice that starts late must get on, too. */
	while ((to = next_chunk(p, &at))) {
		fetch_chunk(h, m, p, at, to);
		/* Most of the work is what scanning pushed. */
		wg_mark_own(m);
		spent = h->sys->now_ns() - now;
		now += spent;
		/* Relaxed: any of the workers' choices will do. */
		if (spent > length / 8 && to - at > 1)
			__atomic_store_n(&p->chunk, (to - at + 1) / 2,
					 __ATOMIC_RELAXED);
		else if (spent < length / 32 && (to - at) * 2 <= most)
			__atomic_store_n(&p->chunk, (to - at) * 2,
					 __ATOMIC_RELAXED);
		if (now >= p->deadline ||
		    (p->later && p->later->count > WG_LATER_RUNS / 2))
			break;
	}
	wg_mark_loop(m);
}

uint64_t wg_dirty_pass(struct weir_heap *h, unsigned workers, unsigned flags,
		       bool all)
{
	struct wg_space *s = &h->space[0];
	struct pass p = {.next = s->first + 1,
			 .end = wg_high(s),
			 .chunk = CHUNK_BLOCKS,
			 .flags = flags,
			 .all = all};
	bool in_pause = h->marker[0]->in_pause;
	unsigned w = workers;

	/* Waking helpers costs more than a small heap's scan. */
	if (wg_high(s) - s->first < CHUNK_BLOCKS * 2)
		w = 1;
	wg_team_run(h, w, pass_job, &p);
	if (!in_pause || __atomic_load_n(&h->overflow, __ATOMIC_RELAXED))
		wg_team_mark(h, workers);
	wg_count(&h->stats.dirty_pages, p.pages);
	return p.pages;
}

uint64_t wg_dirty_slice(struct weir_heap *h, uint32_t *at, uint32_t high,
			uint32_t *step, uint64_t ns, struct wg_runs *later)
{
	uint64_t now = h->sys->now_ns();
	struct pass p = {.next = *at,
			 .end = high,
			 .chunk = *step,
			 .flags = WR_FETCH_REARM,
			 .later = later,
			 .begin = now,
			 .deadline = now + ns};

	/* One processor is left for whatever else has to run, which would
	 * hold up a marker and with it the stop. */
	wg_team_run(h, later || h->pause_markers < 3 ? 1 : h->pause_markers - 1,
		    slice_job, &p);
	*at = p.next < high ? p.next : high;
	*step = p.chunk;
	wg_count(&h->stats.dirty_pages, p.pages);
	return p.pages;
}

void wg_dirty_scan(struct weir_heap *h, struct wg_runs *runs)
{
	struct wg_marker *m = h->marker[0];

	m->traced = 0;
	for (uint32_t i = 0; i < runs->count; i++)
		if (!wg_mutant(WG_MUTANT_LOSE_LATER) || i % 2)
			wg_scan_marked(m, runs->run[i].start, runs->run[i].end);
	runs->count = 0;
	wg_team_mark(h, h->beside);
}

uint64_t wg_dirty_some(struct weir_heap *h, uint32_t from, uint32_t to)
{
	struct pass p = {.next = from,
			 .end = to,
			 .chunk = to - from,
			 .flags = WR_FETCH_REARM};

	wg_team_run(h, 1, pass_job, &p);
	wg_team_mark(h, 1);
	wg_count(&h->stats.dirty_pages, p.pages);
	return p.pages;
}

static void count_runs(void *arg, const struct wr_run *runs, size_t count)
{
	uint64_t *bytes = arg;

	for (size_t i = 0; i < count; i++)
		*bytes += runs[i].end - runs[i].start;
}

uint64_t wg_dirty_count(struct weir_heap *h, uint32_t from, uint32_t to)
{
	uint64_t bytes = 0;
	uint32_t at = from, end;

	while (next_run(h, &at, to, &from, &end))
		wr_barrier_fetch(h->barrier, (void *)wg_block_start(h, from),
				 (size_t)(end - from) << WG_BLOCK_SHIFT, 0,
				 count_runs, &bytes);
	return bytes / h->sys->page_size;
}

void wg_dirty_leaf_pass(struct weir_heap *h, unsigned workers)
{
	struct wg_space *s = &h->space[1];
	struct pass p = {.next = s->first,
			 .end = wg_high(s),
			 .chunk = CHUNK_BLOCKS,
			 .flags = WR_FETCH_REARM};

	if (p.end - p.next < CHUNK_BLOCKS * 2)
		workers = 1;
	wg_team_run(h, workers, pass_job, &p);
}

void wg_dirty_arm(struct weir_heap *h)
{
	wg_dirty_arm_space(h, &h->space[0]);
}

void wg_dirty_arm_space(struct weir_heap *h, struct wg_space *s)
{
	/* Block 0 is none. */
	uint32_t at = s->first ? s->first : 1, from, end;

	while (next_run(h, &at, wg_high(s), &from, &end)) {
		note_armed(h, from, end);
		wg_delay_rarely(h);
		wr_barrier_arm(h->barrier, (void *)wg_block_start(h, from),
			       (size_t)(end - from) << WG_BLOCK_SHIFT);
	}
}

/*
 * After the sweep: protection of blocks that became free is taken off here (or
 * of all blocks of a space, which is not armed any more), in runs, rather than
 * by the mutators that take them, block by block: each call interrupts the
 * other processors.  A mutator that takes a block meanwhile does the same once
 * more at worst.
 */
void wg_dirty_forget(struct weir_heap *h, struct wg_space *s, bool all)
{
	for (uint32_t i = s->first ? s->first : 1; i < wg_high(s);) {
		uint32_t end = i, k;

		while (end < wg_high(s) &&
		       (all || wg_block_state(&h->blocks[end]) == WG_FREE) &&
		       __atomic_load_n(&h->blocks[end].armed, __ATOMIC_RELAXED))
			end++;
		if (end == i) {
			i++;
			continue;
		}
		wr_barrier_forget(h->barrier, (void *)wg_block_start(h, i),
				  (size_t)(end - i) << WG_BLOCK_SHIFT);
		wg_delay_rarely(h);
		for (k = i; k < end; k++)
			__atomic_store_n(&h->blocks[k].armed, 0,
					 __ATOMIC_RELAXED);
		i = end;
	}
}
