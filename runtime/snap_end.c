/* SPDX-License-Identifier: MIT */
/*
 * End-consistent snapshots: everything is handed to the sink while the program
 * runs, then again what was written meanwhile, until little is; for the rest
 * the writers are made quiet.
 *
 * The order that makes it right: a page is armed before it is read, so that
 * what is written after the reading is reported by a later fetch.  The last
 * fetch is with the writers quiet, and what it reports is copied before they
 * go on.
 *
 * The copies that are handed over may be torn (the writers run); then the page
 * is dirty, and the whole of it comes again.
 *
 * Pages that were given back meanwhile are not reported as written, they are
 * gone.  So it is known of each page whether it was zero when it was read last,
 * in this snapshot or the one that it follows (`held`), and the last fetch
 * reports holes too: those that held something come again, as zero.  The others
 * are not looked at, or the stop would grow with the region.  Shared memory
 * that was given back keeps its protection, and so does what was only
 * reclaimed: there such places are read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/own_memory.h"
#include "runtime/region.h"
#include "runtime/uffd.h"

#define BUFFER ((size_t)256 << 10)
#define ROUNDS 30             /* at most */
#define FEW ((size_t)1 << 20) /* bytes that are little enough to stop for */

/* Runs of pages of the regions, each in one of them, though they may touch. */
struct list {
	struct wr_run *runs; /* own memory */
	size_t count;        /* entries in use */
	size_t sealed;       /* of these, of other regions than the next */
	size_t capacity;     /* entries allocated */
	size_t bytes;        /* their sum */
	bool lost;           /* no memory for one */
};

struct copier {
	struct weir_snapshot *s;     /* whose */
	weir_snapshot_sink_fn *sink; /* takes the runs */
	void *arg;                   /* its argument */
	char *buffer;                /* BUFFER bytes */
	struct list list;            /* written, to be handed over */
	struct list found;           /* what a look reports as written, */
	struct list gone;            /* and where it finds no page */
	uint64_t *held[64];          /* a region's pages that were not zero, a
				      * bit each */
	struct wr_pace pace;         /* rate and progress */
	size_t page;                 /* page size */
	bool stopped;                /* the writers are quiet: no pace */
};

static void empty(struct list *l)
{
	l->count = l->sealed = l->bytes = 0;
}

/* What comes next is of another region. */
static void seal(struct list *l)
{
	l->sealed = l->count;
}

static void append(struct list *l, uintptr_t start, uintptr_t end)
{
	l->bytes += end - start;
	if (l->count == l->capacity) {
		size_t n = l->capacity ? 2 * l->capacity : 1024;
		struct wr_run *p = wr_own_grow(
			l->runs, l->capacity * sizeof(*p), n * sizeof(*p));

		if (!p) {
			l->lost = true;
			return;
		}
		l->runs = p;
		l->capacity = n;
	}
	l->runs[l->count++] = (struct wr_run){start, end};
}

static void add(struct list *l, uintptr_t start, uintptr_t end)
{
	struct wr_run *last =
		l->count > l->sealed ? &l->runs[l->count - 1] : NULL;

	if (last && last->end == start) {
		last->end = end;
		l->bytes += end - start;
	} else {
		append(l, start, end);
	}
}

static void drop(struct list *l)
{
	wr_own_free(l->runs, l->capacity * sizeof(*l->runs));
	*l = (struct list){.runs = NULL};
}

static void report(void *arg, const struct wr_run *runs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		add(arg, runs[i].start, runs[i].end);
}

static int no_memory(struct weir_snapshot *s)
{
	wr_snap_fail(s, ENOMEM,
		     "no memory for the lists of a snapshot; free "
		     "some");
	return -1;
}

static int failed(struct weir_snapshot *s, int err)
{
	wr_snap_fail(s, -err, weir_error_text());
	return -1;
}

/* What was written since the last look, into c->list; armed again. */
static int fetch(struct copier *c, unsigned flags)
{
	empty(&c->list);
	for (size_t i = 0; i < c->s->count; i++) {
		struct weir_region *r = c->s->regions[i];
		int err = 0;

		seal(&c->list);
		if (r->snap_units)
			err = wr_barrier_fetch(r->async, (void *)r->start,
					       r->snap_units << r->shift, flags,
					       report, &c->list);
		if (err)
			return failed(c->s, err);
	}
	return c->list.lost ? no_memory(c->s) : 0;
}

static struct weir_region *region_of(const struct weir_snapshot *s, uintptr_t p)
{
	for (size_t i = 0; i < s->count; i++)
		if (p - s->regions[i]->start < s->regions[i]->limit)
			return s->regions[i];
	return NULL;
}

/* ---- Handing over ------------------------------------------------------- */

static void note(struct copier *c, const struct weir_region *r, size_t page,
		 bool zero)
{
	uint64_t bit = 1ull << page % 64;

	if (zero)
		c->held[r->index][page / 64] &= ~bit;
	else
		c->held[r->index][page / 64] |= bit;
}

static bool was_held(const struct copier *c, const struct weir_region *r,
		     size_t page)
{
	return c->held[r->index][page / 64] >> (page % 64) & 1;
}

/* Copies of [start, end), at most a buffer full, as runs. */
static unsigned copy(struct copier *c, const struct weir_region *r,
		     uintptr_t start, uintptr_t end, char *to,
		     struct weir_snapshot_run *runs)
{
	unsigned n = 0;
	bool before = false;

	for (uintptr_t p = start; p < end; p += c->page, to += c->page) {
		bool zero = wr_unit_copy(to, (void *)p, c->page);

		note(c, r, (p - r->start) / c->page, zero);
		if (n && zero == before) {
			runs[n - 1].bytes += c->page;
			continue;
		}
		before = zero;
		runs[n++] = (struct weir_snapshot_run){
			.region = r->index,
			.offset = p - r->start,
			.bytes = c->page,
			.data = zero ? NULL : to,
		};
	}
	return n;
}

static int hand_over(struct copier *c, const struct weir_snapshot_run *runs,
		     unsigned n, bool again)
{
	return wr_snap_hand_over(c->s, c->sink, c->arg, runs, n, again) < 0 ? -1
									    : 0;
}

static int pass(struct copier *c, uintptr_t start, uintptr_t end, bool again)
{
	const struct weir_region *r = region_of(c->s, start);
	struct weir_snapshot_run runs[BUFFER >> 12];

	while (start < end) {
		uintptr_t stop = end - start > BUFFER ? start + BUFFER : end;
		unsigned n = copy(c, r, start, stop, c->buffer, runs);

		if (hand_over(c, runs, n, again))
			return -1;
		if (c->stopped ? wr_snap_failed(c->s)
			       : wr_snap_pace(c->s, &c->pace, stop - start))
			return -1;
		start = stop;
	}
	return 0;
}

static int pass_list(struct copier *c, bool again)
{
	for (size_t i = 0; i < c->list.count; i++)
		if (pass(c, c->list.runs[i].start, c->list.runs[i].end, again))
			return -1;
	return 0;
}

/* ---- The steps ---------------------------------------------------------- */

/* Into the list what r has from `from` on, in bytes. */
static int list_from(struct copier *c, const struct weir_region *r, size_t from)
{
	uintptr_t start = r->start + from;
	uintptr_t end = r->start + (r->snap_units << r->shift);
	int err;

	if (start >= end)
		return 0;
	/* What is not there is read anyway: before it is armed, or it would
	 * count as written. */
	wr_uffd_populate(start, end);
	err = wr_barrier_arm(r->async, (void *)start, end - start);
	if (err)
		return failed(c->s, err);
	seal(&c->list);
	add(&c->list, start, end);
	return 0;
}

/* Everything, or with DELTA what was written since the last snapshot, and what
 * the region has grown by. */
static int first_pass(struct copier *c, bool delta)
{
	struct weir_snapshot *s = c->s;

	empty(&c->list);
	if (delta && fetch(c, WR_FETCH_REARM))
		return -1;
	for (size_t i = 0; i < s->count; i++)
		if (list_from(c, s->regions[i],
			      delta ? s->regions[i]->held_pages * c->page : 0))
			return -1;
	if (c->list.lost)
		return no_memory(s);
	__atomic_store_n(&s->figures.bytes_total, c->list.bytes,
			 __ATOMIC_RELAXED);
	return pass_list(c, false);
}

/* Again what was written, while that gets less. */
static int more_passes(struct copier *c)
{
	size_t before = SIZE_MAX;

	for (int i = 0; i < ROUNDS; i++) {
		if (fetch(c, WR_FETCH_REARM))
			return -1;
		if (pass_list(c, true))
			return -1;
		if (c->list.bytes <= FEW || c->list.bytes > before / 8 * 7)
			break;
		before = c->list.bytes;
	}
	return 0;
}

/* A run of what is held in the pool for after the stop. */
struct kept {
	unsigned count;                /* of runs */
	unsigned capacity;             /* allocated */
	struct weir_snapshot_run *run; /* own memory */
};

/* Of run, the pages that held something: written or given back, they come. */
static void add_held(struct copier *c, const struct wr_run *run)
{
	const struct weir_region *r = region_of(c->s, run->start);
	size_t page = (run->start - r->start) / c->page;
	size_t end = (run->end - r->start) / c->page;

	while (page < end) {
		uint64_t bits = c->held[r->index][page / 64] >> page % 64;

		if (!bits) {
			page = (page / 64 + 1) * 64;
			continue;
		}
		page += (size_t)__builtin_ctzll(bits);
		if (page < end)
			add(&c->list, r->start + page * c->page,
			    r->start + (page + 1) * c->page);
		page++;
	}
}

/* Of run, which was written, the pages that were zero and are no more. */
static void add_new(struct copier *c, const struct wr_run *run)
{
	const struct weir_region *r = region_of(c->s, run->start);

	for (uintptr_t p = run->start; p < run->end; p += c->page)
		if (!was_held(c, r, (p - r->start) / c->page) &&
		    !wr_unit_copy(c->buffer, (void *)p, c->page))
			add(&c->list, p, p + c->page);
}

static void add_written(struct copier *c, const struct wr_run *run)
{
	add_held(c, run);
	add_new(c, run);
}

/* Of run, where the page tables have nothing, what held something; it is zero
 * now.  But shared memory is in its file all the same: the entry may have been
 * dropped after a write, and what was zero before has become something.  Its
 * holes are not read, or they would be filled; of adopted memory there is no
 * file to ask. */
static void add_absent(struct copier *c, const struct wr_run *run)
{
	const struct weir_region *r = region_of(c->s, run->start);
	off_t at = (off_t)(run->start - r->start);
	off_t end = (off_t)(run->end - r->start);

	add_held(c, run);
	while (r->shared && at < end) {
		off_t data = at, hole = end;

		if (r->memfd >= 0) {
			data = lseek(r->memfd, at, SEEK_DATA);
			if (data < 0 && errno == ENXIO)
				break; /* there is no more */
			if (data < 0)
				data = at;
			else
				hole = lseek(r->memfd, data, SEEK_HOLE);
		}
		if (hole < 0 || hole > end)
			hole = end;
		if (data < hole)
			add_new(c, &(struct wr_run){r->start + (size_t)data,
						    r->start + (size_t)hole});
		at = hole;
	}
}

/* Of run, where no page is, what held something and is zero now.  Shared memory
 * that was given back. */
static void add_gone(struct copier *c, const struct wr_run *run)
{
	const struct weir_region *r = region_of(c->s, run->start);

	for (uintptr_t p = run->start; p < run->end; p += c->page)
		if (was_held(c, r, (p - r->start) / c->page) &&
		    wr_unit_copy(c->buffer, (void *)p, c->page))
			add(&c->list, p, p + c->page);
}

static void sort_out(void *arg, const struct wr_run *runs, size_t count)
{
	struct copier *c = arg;

	for (size_t i = 0; i < count; i++)
		add(runs[i].start & WR_RUN_ABSENT ? &c->gone : &c->found,
		    runs[i].start & ~WR_RUN_ABSENT, runs[i].end);
}

/* What is reported of region r, into c->found and c->gone. */
static int look(struct copier *c, struct weir_region *r, unsigned flags)
{
	empty(&c->found);
	empty(&c->gone);
	return wr_barrier_fetch(r->async, (void *)r->start,
				r->snap_units << r->shift, flags, sort_out, c);
}

static void each(struct copier *c, const struct list *l,
		 void (*f)(struct copier *c, const struct wr_run *run))
{
	for (size_t i = 0; i < l->count; i++)
		f(c, &l->runs[i]);
}

/* The writers are quiet.  Pages that were written, and those that were given
 * back: of the latter only what is not known to be zero. */
static int last_look(struct copier *c)
{
	int err = 0;

	empty(&c->list);
	for (size_t i = 0; i < c->s->count && !err; i++) {
		struct weir_region *r = c->s->regions[i];

		seal(&c->list);
		if (!r->snap_units)
			continue;
		err = look(c, r, WR_FETCH_ABSENT);
		if (!err) {
			each(c, &c->found, add_written);
			each(c, &c->gone, add_absent);
		}
		if (!err && r->shared) {
			err = look(c, r, WR_FETCH_VACANT);
			if (!err)
				each(c, &c->found, add_gone);
		}
		/* So that the next delta knows; holes stay holes. */
		if (!err && r->flags & WEIR_REGION_TRACK)
			err = wr_barrier_arm(r->async, (void *)r->start,
					     r->snap_units << r->shift);
	}
	/* Pinned memory: written by what nobody notices. */
	for (size_t i = 0; i < c->s->options.pinned_count && !err; i++) {
		const struct weir_snapshot_range *pin =
			&c->s->options.pinned[i];
		uintptr_t p = (uintptr_t)pin->start & ~(c->page - 1);

		seal(&c->list);
		for (; p < (uintptr_t)pin->start + pin->bytes; p += c->page)
			add(&c->list, p, p + c->page);
	}
	if (err)
		return failed(c->s, err);
	return c->found.lost || c->gone.lost || c->list.lost ? no_memory(c->s)
							     : 0;
}

/* Into the pool what fits it; returns how many runs of the list did. */
static size_t keep(struct copier *c, struct kept *k)
{
	struct wr_pool *pool = &c->s->pool;
	size_t used = 0, i;

	for (i = 0; i < c->list.count; i++) {
		uintptr_t start = c->list.runs[i].start,
			  end = c->list.runs[i].end;
		size_t pages = (end - start) / c->page;

		if (end - start > pool->bytes - used)
			break;
		if (k->count + pages > k->capacity) {
			unsigned n = (unsigned)(2 * (k->count + pages));
			struct weir_snapshot_run *p =
				wr_own_grow(k->run, k->capacity * sizeof(*p),
					    n * sizeof(*p));

			if (!p)
				break;
			k->run = p;
			k->capacity = n;
		}
		k->count += copy(c, region_of(c->s, start), start, end,
				 pool->memory + used, k->run + k->count);
		used += end - start;
	}
	__atomic_store_n(&pool->used, (uint32_t)(used >> pool->shift),
			 __ATOMIC_RELAXED);
	if (pool->used > pool->peak)
		__atomic_store_n(&pool->peak, pool->used, __ATOMIC_RELAXED);
	return i;
}

static int hand_over_kept(struct copier *c, const struct kept *k)
{
	unsigned from = 0, to;

	/* As much as a call may have. */
	for (; from < k->count; from = to) {
		size_t bytes = 0;

		for (to = from;
		     to < k->count && to - from < 512 &&
		     (to == from || bytes + k->run[to].bytes <= BUFFER);
		     to++)
			bytes += k->run[to].bytes;
		if (hand_over(c, k->run + from, to - from, true))
			return -1;
	}
	return 0;
}

/* Runs of at most BUFFER bytes, so that each may be handed over. */
static int split(struct list *l)
{
	struct list out = {.runs = NULL};

	for (size_t i = 0; i < l->count; i++) {
		uintptr_t p = l->runs[i].start, end = l->runs[i].end;

		while (p < end) {
			uintptr_t stop = end - p > BUFFER ? p + BUFFER : end;

			append(&out, p, stop);
			p = stop;
		}
	}
	if (out.lost) {
		drop(&out);
		return -1;
	}
	drop(l);
	*l = out;
	return 0;
}

/* The stop, and what is done in it. */
static int finish(struct copier *c)
{
	struct weir_snapshot *s = c->s;
	struct kept k = {.count = 0};
	size_t done = 0;
	int err = wr_snap_stop(s);

	if (err)
		return failed(s, err);
	c->stopped = true;
	err = last_look(c);
	if (!err && split(&c->list))
		err = no_memory(s);
	if (!err)
		done = keep(c, &k);
	if (!err && done < c->list.count && s->options.full == WEIR_FULL_FAIL) {
		wr_snap_fail(s, ENOBUFS,
			     "more was written than the pool holds; make it "
			     "larger, or let the writers wait "
			     "(WEIR_FULL_STALL)");
		err = -1;
	}
	/* What has no room goes to the sink while they wait. */
	for (; !err && done < c->list.count; done++)
		err = pass(c, c->list.runs[done].start, c->list.runs[done].end,
			   true);
	wr_snap_resume(s);
	if (!err)
		err = hand_over_kept(c, &k);
	wr_own_free(k.run, k.capacity * sizeof(*k.run));
	return err;
}

static size_t pages_of(const struct copier *c, const struct weir_region *r)
{
	return (r->snap_units << r->shift) / c->page;
}

static int prepare(struct copier *c, bool delta)
{
	c->page = (size_t)sysconf(_SC_PAGESIZE);
	c->buffer = wr_own_alloc(BUFFER);
	if (!c->buffer)
		return no_memory(c->s);
	for (size_t i = 0; i < c->s->count; i++) {
		const struct weir_region *r = c->s->regions[i];

		c->held[i] = wr_own_alloc(wr_held_bytes(pages_of(c, r)));
		if (!c->held[i])
			return no_memory(c->s);
		/* A region does not shrink. */
		if (delta)
			memcpy(c->held[i], r->held,
			       wr_held_bytes(r->held_pages));
	}
	return wr_snap_open_pool(c->s);
}

/* Read to the end: what is known of the pages is for the next delta. */
static void pass_on(struct copier *c)
{
	for (size_t i = 0; i < c->s->count; i++) {
		struct weir_region *r = c->s->regions[i];

		if (!(r->flags & WEIR_REGION_TRACK))
			continue;
		wr_own_free(r->held, wr_held_bytes(r->held_pages));
		r->held = c->held[i];
		r->held_pages = pages_of(c, r);
		c->held[i] = NULL;
	}
}

int wr_snap_read_end(struct weir_snapshot *s, weir_snapshot_sink_fn *sink,
		     void *arg)
{
	struct copier c = {.s = s, .sink = sink, .arg = arg};
	static const uint8_t none[16];
	bool delta = s->options.flags & WEIR_SNAPSHOT_DELTA &&
		     memcmp(s->base, none, sizeof(none)) != 0;
	int err = prepare(&c, delta);

	s->begun_ns = wr_snap_now();
	if (err && !wr_snap_failed(s))
		failed(s, err);
	if (!err && !first_pass(&c, delta) && !more_passes(&c) && !finish(&c))
		pass_on(&c);
	wr_own_free(c.buffer, BUFFER);
	for (size_t i = 0; i < s->count; i++)
		wr_own_free(c.held[i],
			    wr_held_bytes(pages_of(&c, s->regions[i])));
	drop(&c.list);
	drop(&c.found);
	drop(&c.gone);
	return wr_snap_failed(s);
}
