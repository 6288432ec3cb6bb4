/* SPDX-License-Identifier: MIT */
/*
 * Copying the heap in the cycle that a snapshot is of.
 *
 * `kept` has a bit for each page.  It is set before the page is copied, and
 * cleared when the barrier reports the page as written:
 *
 *	(1) a page that is kept is armed, and its copy was made since, or a
 *	    fetch to come will report it;
 *	(2) in the pause all are fetched and reported, and what is not kept then
 *	    and has something alive on it is copied, with nobody writing.
 *
 * (1) takes that a page is armed before it is copied for the first time: the
 * cycle arms the heap when it begins (gc/cycle.c), with blocks of new objects
 * that it would else leave alone (gc/dirty.c), and the leaf space too.  And it
 * takes that nobody fetches and re-arms but through dirty_runs() there, which
 * reports each page here.  A page that was never armed is written by
 * definition, and reported in the pause.
 *
 * Only pages that something black is on are copied.  What becomes black later
 * may be on a page that is not kept: then that is copied later, in the pause at
 * the latest.  So what dies young is not copied, and pages given back to the
 * system, of free blocks, are no matter.
 *
 * Granule bytes change only in sweeping after the pause: who sweeps a block
 * copies them first (wg_snap_keep_meta()), which costs the pause nothing.
 * Nobody allocates into a block that is not swept.
 *
 *   keep_meta       who has claimed a block to sweep it; the one large
 *                   objects' sweeper
 *   the others      the collector, and inside its team
 */
#include "gc/snap.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "gc/dirty.h"
#include "gc/mutant.h"

#define CHUNK 64   /* blocks a worker copies at a time */
#define LOOK 256   /* blocks that it fetches in the pause */
#define FEW 512    /* pages that are little enough for the pause */
#define STUCK 2048 /* more than these: in short stops */
#define MAX_PASSES 24
#define MAX_ROUNDS 16
#define MAX_STUCK 3
#define GROW WG_GROW_BLOCKS /* blocks that are made room for at a time */

#if defined(__SANITIZE_THREAD__)
#define RACY __attribute__((no_sanitize("thread")))
#else
#define RACY
#endif

void wg_snap_fail(struct weir_heap_snapshot *s, int err)
{
	if (s->err)
		return;
	s->err = err;
	strncpy(s->text, weir_error_text(), sizeof(s->text) - 1);
}

/* ---- Room --------------------------------------------------------------- */

static int commit(struct weir_heap_snapshot *s, void *p, size_t bytes)
{
	return s->sys->commit(p, wr_sys_pages(s->sys, bytes), false);
}

/* Memory for what the heap has in use now. */
static void make_room(struct weir_heap *h, struct weir_heap_snapshot *s)
{
	for (int sp = 0; sp < 2 && !s->err; sp++) {
		uint32_t high = wg_high(&h->space[sp]), from = s->room[sp];
		uint32_t to = from + (high - from + GROW - 1) / GROW * GROW;
		size_t blocks;
		int err;

		if (high <= from)
			continue;
		if (to > h->space[sp].end)
			to = h->space[sp].end;
		blocks = to - from;
		err = commit(s, s->copy + ((size_t)from << WG_BLOCK_SHIFT),
			     blocks << WG_BLOCK_SHIFT);
		if (!err)
			err = commit(s,
				     s->meta + (size_t)from * WG_BLOCK_GRANULES,
				     blocks * WG_BLOCK_GRANULES);
		if (err)
			wg_snap_fail(s, err);
		else
			s->room[sp] = to;
	}
}

/* ---- One page ------------------------------------------------------------ */

/* Mutators may be writing it: then it comes again.  False: it is all zero, and
 * so is what there is of it. */
static RACY bool copy_page(char *to, uintptr_t from, size_t bytes, bool have)
{
	const volatile uint64_t *src = (const volatile uint64_t *)from;
	uint64_t *dst = (uint64_t *)(void *)to;
	size_t n = bytes / sizeof(*src), i = 0;

	while (i < n && !src[i])
		i++;
	if (i == n && !have)
		return false;
	if (have)
		memset(to, 0, i * sizeof(*src));
#if defined(__SANITIZE_THREAD__)
	for (; i < n; i++)
		dst[i] = src[i];
#else
	memcpy(dst + i, (const void *)(from + i * sizeof(*src)),
	       (n - i) * sizeof(*src));
#endif
	return true;
}

static void take_page(struct weir_heap_snapshot *s, uintptr_t p, size_t page)
{
	uint64_t bit = 1ull << (page % 64);
	bool have = wg_snap_bit(s->have, page);

	/* Acquire: what is read is no older than the clearing of the bit, and
	 * that no older than the arming before it.  Jobs follow each other
	 * anyway. */
	__atomic_fetch_or(&s->kept[page / 64], bit, __ATOMIC_ACQ_REL);
	if (copy_page(s->copy + (p - s->base), p, s->page, have) && !have)
		__atomic_fetch_or(&s->have[page / 64], bit, __ATOMIC_RELAXED);
}

/* Whether a part of something black is on the page of a block of mixed objects
 * that begins at p. */
static bool small_alive(const struct weir_heap *h, uint32_t i, uintptr_t p,
			size_t bytes)
{
	size_t begin = (size_t)i * WG_BLOCK_GRANULES;
	size_t g = wg_granule_of(h, p), end = wg_granule_of(h, p + bytes), k;

	if (wg_meta_next(h->meta, g, end, h->colour) < end)
		return true;
	if (g == begin)
		return false;
	k = wg_meta_prev(h->meta, g - 1, begin);
	return k != SIZE_MAX && wg_is_black(h, k) &&
	       !wg_meta_ends_before(h->meta, k, g);
}

/* Whether all pages of block i are kept: most are, in the pause. */
static bool all_kept(const struct weir_heap_snapshot *s, uint32_t i)
{
	size_t pages = WG_BLOCK / s->page, at = i * pages;
	uint64_t mask = (1ull << pages) - 1;

	return (__atomic_load_n(&s->kept[at / 64], __ATOMIC_RELAXED) >>
			(at % 64) &
		mask) == mask;
}

/* Pages of block i that are not kept and have something alive on them. */
static uint64_t copy_block(struct weir_heap *h, struct weir_heap_snapshot *s,
			   uint32_t i)
{
	const struct wg_block *b = &h->blocks[i];
	uintptr_t p = wg_block_start(h, i), end = p + WG_BLOCK, over = 0;
	unsigned state = wg_block_state(b);
	uint32_t head = i;
	uint64_t n = 0;

	if (all_kept(s, i))
		return 0;
	if (state == WG_LARGE_TAIL) {
		head = __atomic_load_n(&b->head, __ATOMIC_RELAXED);
		b = &h->blocks[head];
		state = wg_block_state(b);
	}
	if (state == WG_FREE || state == WG_LARGE_NEW ||
	    state == WG_LARGE_TAIL ||
	    !__atomic_load_n(&h->black[head], __ATOMIC_RELAXED))
		return 0;
	if (state == WG_LARGE_HEAD) {
		if (!wg_is_black(h, (size_t)head * WG_BLOCK_GRANULES))
			return 0;
		over = wg_block_start(h, head) +
		       __atomic_load_n(&b->size, __ATOMIC_RELAXED);
	}
	for (; p < end; p += s->page) {
		size_t page = wg_snap_page_of(s, p);

		if (wg_snap_bit(s->kept, page))
			continue;
		if (over ? p >= over : !small_alive(h, i, p, s->page))
			continue;
		take_page(s, p, page);
		n++;
	}
	return n;
}

/* ---- Passes -------------------------------------------------------------- */

struct copy {
	struct weir_heap_snapshot *s; /* where to */
	uint32_t next;                /* atomic: block to go on from */
	uint32_t end;                 /* to stop at */
	bool fetch;                   /* look for what was written first */
};

static void copy_runs(void *arg, const struct wr_run *runs, size_t count)
{
	struct weir_heap *h = arg;
	static unsigned turn;

	for (size_t i = 0; i < count; i++)
		if (!wg_mutant(WG_MUTANT_SNAP_LOSE) ||
		    __atomic_add_fetch(&turn, 1, __ATOMIC_RELAXED) % 2)
			wg_snap_dirty(h, runs[i].start, runs[i].end, false);
}

static void fetch_chunk(struct weir_heap *h, uint32_t from, uint32_t to)
{
	wr_barrier_fetch(h->barrier, (void *)wg_block_start(h, from),
			 (size_t)(to - from) << WG_BLOCK_SHIFT, WR_FETCH_HOLES,
			 copy_runs, h);
}

static void copy_job(struct weir_heap *h, struct wg_marker *m, void *arg)
{
	struct copy *c = arg;
	uint32_t chunk = c->fetch ? LOOK : CHUNK, at;
	uint64_t n = 0;

	(void)m;
	while ((at = __atomic_fetch_add(&c->next, chunk, __ATOMIC_RELAXED)) <
	       c->end) {
		uint32_t to = c->end - at < chunk ? c->end : at + chunk;

		if (c->fetch)
			fetch_chunk(h, at, to);
		for (; at < to; at++)
			n += copy_block(h, c->s, at);
		wg_delay_rarely(h);
	}
	__atomic_add_fetch(&c->s->copied, n, __ATOMIC_RELAXED);
}

/* Copy what is not kept; how many pages were.  fetch: of a space that is armed
 * look first for what was written. */
static uint64_t copy_all(struct weir_heap *h, struct weir_heap_snapshot *s,
			 unsigned workers, bool fetch)
{
	s->copied = 0;
	make_room(h, s);
	for (int sp = 0; sp < 2 && !s->err; sp++) {
		uint32_t from = h->space[sp].first + !sp;
		uint32_t to = wg_high(&h->space[sp]);
		struct copy c = {
			.s = s,
			.next = from,
			.end = to < s->room[sp] ? to : s->room[sp],
			.fetch = fetch && (!sp || s->leaf_tracked),
		};

		/* Beside the program only what will be reported. */
		if (sp && !fetch && !s->leaf_tracked)
			continue;
		wg_team_run(h, c.end - from < 2 * LOOK ? 1 : workers, copy_job,
			    &c);
	}
	return s->copied;
}

void wg_snap_dirty(struct weir_heap *h, uintptr_t start, uintptr_t end,
		   bool at_once)
{
	struct weir_heap_snapshot *s = h->snap;

	for (uintptr_t p = start; p < end; p += s->page) {
		size_t page = wg_snap_page_of(s, p);
		uint64_t bit = 1ull << (page % 64);

		/* Release: partner of the acquire in take_page().  Not a write
		 * each time: most that are reported first were never copied. */
		if (wg_snap_bit(s->kept, page))
			__atomic_fetch_and(&s->kept[page / 64], ~bit,
					   __ATOMIC_RELEASE);
	}
	if (!at_once || s->err)
		return;
	for (uint32_t i = wg_block_of(h, start); i <= wg_block_of(h, end - 1);
	     i++)
		if (i < s->room[i >= h->space[1].first])
			__atomic_add_fetch(&s->info.pages, copy_block(h, s, i),
					   __ATOMIC_RELAXED);
}

/* ---- Steps of the cycle -------------------------------------------------- */

/* The leaf space is armed for this cycle.  Not where a system call that writes
 * to a protected page fails: programs may have theirs read into leaf objects.
 */
static void track_leaf(struct weir_heap *h, struct weir_heap_snapshot *s)
{
	struct wg_space *leaf = &h->space[1];
	int err = 0;

	if (!wr_barrier_serves_kernel(h->barrier))
		return;
	if (!h->leaf_range)
		err = wr_barrier_add_range(h->barrier, (void *)h->leaf_base,
					   h->span);
	/* It has: a child of fork, whose parent was just about to note it. */
	if (err == -EEXIST)
		err = 0;
	if (err) {
		wg_snap_fail(s, err);
		return;
	}
	/* SEQ_CST, before it is armed: partner of the load in trim.c, behind a
	 * discard.  Where the two overlap that sees it. */
	__atomic_store_n(&h->leaf_range, true, __ATOMIC_SEQ_CST);
	h->leaf_armed = true;
	s->leaf_tracked = true;
	wg_dirty_arm_space(h, leaf);
}

void wg_snap_first(struct weir_heap *h)
{
	struct weir_heap_snapshot *s = h->snap;

	track_leaf(h, s);
	s->info.pages += copy_all(h, s, h->beside, false);
}

/* Written pages of both spaces, found and armed again; their objects are
 * scanned, and marked from. */
static void fetch_again(struct weir_heap *h, struct weir_heap_snapshot *s,
			struct wg_report *r)
{
	wg_roots_concurrent(h, h->marker[0]);
	r->dirty += wg_dirty_pass(h, h->beside, WR_FETCH_REARM, false);
	if (s->leaf_tracked)
		wg_dirty_leaf_pass(h, h->beside);
}

/* Short stops, for a program that writes pages faster than they are copied
 * beside it; see gc/preclean.c. */
static void in_slices(struct weir_heap *h, struct weir_heap_snapshot *s,
		      struct wg_report *r)
{
	uint64_t before = UINT64_MAX, left;
	uint32_t step[2] = {8, 8};
	unsigned stuck = 0;

	/* A round may find as much as the one before because pages were slow to
	 * come by: huge ones that the first write splits. */
	while (s->rounds < MAX_ROUNDS && stuck < MAX_STUCK && !s->err) {
		make_room(h, s);
		left = wg_preclean_slices(h, r, 0, &step[0]);
		if (s->leaf_tracked)
			left += wg_preclean_slices(h, r, 1, &step[1]);
		s->rounds++;
		if (left <= FEW)
			break;
		stuck = left > before - before / 8 ? stuck + 1 : 0;
		before = left;
	}
}

void wg_snap_again(struct weir_heap *h, struct wg_report *r)
{
	struct weir_heap_snapshot *s = h->snap;
	uint64_t before = UINT64_MAX, n = 0;

	for (s->passes = 0; s->passes < MAX_PASSES && !s->err;) {
		fetch_again(h, s, r);
		n = copy_all(h, s, h->beside, false);
		s->info.pages += n;
		s->passes++;
		wg_delay(h);
		if (n <= FEW || n > before - before / 8)
			break;
		before = n;
	}
	if (n > STUCK || wg_delay_choice(h, 4))
		in_slices(h, s, r);
	s->info.passes = s->passes;
}

void wg_snap_pause(struct weir_heap *h)
{
	struct weir_heap_snapshot *s = h->snap;
	uint64_t begin = h->sys->now_ns();
	struct timespec now;

	s->colour = h->colour;
	s->info.pages_stopped = copy_all(h, s, h->pause_markers, true);
	for (int sp = 0; sp < 2; sp++)
		s->high[sp] = wg_high(&h->space[sp]);
	if (!s->err)
		wg_snap_roots(h, s);
	clock_gettime(CLOCK_REALTIME, &now);
	s->info.time_ns =
		(uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	/* Release: partner of the acquire in who sweeps. */
	if (!s->err)
		__atomic_store_n(&h->snap_meta, s, __ATOMIC_RELEASE);
	s->info.stopped_ns = h->sys->now_ns() - begin;
}

/* ---- After the pause ----------------------------------------------------- */

void wg_snap_resumed(struct weir_heap *h, const struct wg_report *r)
{
	struct weir_heap_snapshot *s = h->snap;

	if (!s->err)
		wg_snap_links(h, s);
	wg_report_snapshot(h, r, &s->info, s->rounds);
}

void wg_snap_keep_meta(struct weir_heap_snapshot *s, struct weir_heap *h,
		       uint32_t i)
{
	const struct wg_block *b = &h->blocks[i];
	size_t g = (size_t)i * WG_BLOCK_GRANULES;

	if (wg_block_state(b) != WG_LARGE_HEAD) {
		/* Nobody else writes these; relaxed loads all the same, of
		 * words, as everywhere: who resolves an address reads them. */
		for (size_t k = 0; k < WG_BLOCK_GRANULES; k += 8)
			*(uint64_t *)(void *)(s->meta + g + k) =
				wg_meta_word(h->meta + g + k);
		s->block[i].state = WG_SNAP_SMALL;
		return;
	}
	s->meta[g] = wg_meta_load(&h->meta[g]);
	s->block[i] =
		(struct wg_snap_block){.size = b->size, .state = WG_SNAP_LARGE};
	for (uint32_t k = 1; k < b->blocks; k++)
		s->block[i + k] = (struct wg_snap_block){.head = i,
							 .state = WG_SNAP_TAIL};
}

void wg_snap_swept(struct weir_heap *h)
{
	struct weir_heap_snapshot *s = h->snap;

	/* Nobody sweeps any more: wg_sweep_finish() has waited for them. */
	__atomic_store_n(&h->snap_meta, NULL, __ATOMIC_RELAXED);
	if (s)
		s->info.elapsed_ns = h->sys->now_ns() - s->begun_ns;
}

void wg_snap_forget_leaf(struct weir_heap *h)
{
	if (!h->leaf_armed)
		return;
	wg_dirty_forget(h, &h->space[1], true);
	h->leaf_armed = false;
}
