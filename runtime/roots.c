/* SPDX-License-Identifier: MIT */
/*
 * Registered root ranges and callbacks.
 *
 *   add*, remove*,    any thread; r->lock
 *   exclude*
 *   scan, beside      collector threads; r->lock to copy what there is, then
 *                     none, so that a scan of much memory does not make the
 *                     program wait; data segments a little at a time under it
 *   scan, stopped     between pause_begin and pause_end, which hold r->lock
 *
 * Removal waits for the scans beside the program that may have copied what is
 * removed, that is, those that began before it: each scan has a ticket, and
 * the list of scans under way is short.
 *
 * The loader's lock (roots_dl.c) is taken before r->lock: a program may
 * register roots, and exclude ranges, from within a dl_iterate_phdr() callback
 * of its own.
 *
 * What is excluded is cut out while segments are visited, under r->lock, so
 * the list of segments need not know of it, nothing is allocated, and nothing
 * excluded is read when exclude has returned.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/lock.h"
#include "runtime/roots_private.h"

struct call {
	void (*fn)(void); /* the owner knows its type */
	void *arg;        /* its argument */
	bool concurrent;  /* may run beside the program */
};

/* A scan beside the program, on its thread's stack. */
struct scan {
	uint64_t ticket;   /* when it began */
	struct scan *next; /* in r->scans */
};

/* Bytes of a data segment that are scanned beside the program before r->lock
 * is let go. */
#define CHUNK ((uintptr_t)64 << 10)

struct wr_roots {
	struct wr_mutex lock;         /* guards all below but segments */
	pthread_cond_t scanned;       /* a scan has ended */
	struct wr_root_range *ranges; /* sorted by start, then end */
	size_t range_count;           /* entries in use */
	size_t range_room;            /* entries allocated */
	struct call *calls;           /* in order of registration */
	size_t call_count;            /* entries in use */
	size_t call_room;             /* entries allocated */
	struct scan *scans;           /* under way beside the program */
	uint64_t ticket;              /* of the next scan */
	pid_t pid;                    /* to know a forked child */
	struct wr_root_range *cuts;   /* excluded: sorted, apart, not empty */
	size_t cut_count;             /* entries in use */
	size_t cut_room;              /* entries allocated */
	struct wr_segments *segments; /* has a lock of its own */
};

/* The calling thread is in wr_roots_scan(), and that in a pause.  initial-exec:
 * they are read in a stop, no malloc. */
static __thread bool scanning __attribute__((tls_model("initial-exec")));
static __thread bool scanning_stopped
	__attribute__((tls_model("initial-exec")));

static int deny(const char *what)
{
	return wr_error(EDEADLK,
			"%s called from a root callback; register roots "
			"before or after the collection",
			what);
}

/* Room for one more of `size` bytes.  Lock held. */
static int make_room(void **array, size_t *room, size_t count, size_t size)
{
	size_t more = *room ? 2 * *room : 16;
	void *p;

	if (count < *room)
		return 0;
	p = realloc(*array, more * size);
	if (!p)
		return wr_error(ENOMEM, "no memory to register a root");
	*array = p;
	*room = more;
	return 0;
}

/* Index of the first range that is not below (start, end).  Lock held. */
static size_t find(const struct wr_roots *r, uintptr_t start, uintptr_t end)
{
	size_t low = 0, high = r->range_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct wr_root_range *at = &r->ranges[mid];

		if (at->start < start || (at->start == start && at->end < end))
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

int wr_roots_add(struct wr_roots *r, uintptr_t start, uintptr_t end)
{
	size_t i;
	int err;

	if (start > end)
		return wr_error(EINVAL, "a root range ends before it starts");
	if (scanning)
		return deny("adding a root");
	wr_mutex_lock(&r->lock);
	err = make_room((void **)&r->ranges, &r->range_room, r->range_count,
			sizeof(*r->ranges));
	if (!err) {
		i = find(r, start, end);
		memmove(&r->ranges[i + 1], &r->ranges[i],
			(r->range_count - i) * sizeof(*r->ranges));
		r->ranges[i] = (struct wr_root_range){start, end};
		r->range_count++;
	}
	wr_mutex_unlock(&r->lock);
	return err;
}

/* Wait for every scan that began before now.  Lock held, let go meanwhile. */
static void await_scans(struct wr_roots *r)
{
	uint64_t now = r->ticket;
	struct scan *s;

	for (;;) {
		for (s = r->scans; s && s->ticket >= now; s = s->next)
			;
		if (!s)
			return;
		wr_mutex_wait(&r->lock, &r->scanned);
	}
}

int wr_roots_remove(struct wr_roots *r, uintptr_t start, uintptr_t end)
{
	int err = 0;
	size_t i;

	if (scanning)
		return deny("removing a root");
	wr_mutex_lock(&r->lock);
	i = find(r, start, end);
	if (i < r->range_count && r->ranges[i].start == start &&
	    r->ranges[i].end == end) {
		r->range_count--;
		memmove(&r->ranges[i], &r->ranges[i + 1],
			(r->range_count - i) * sizeof(*r->ranges));
		await_scans(r);
	} else {
		err = wr_error(ENOENT, "no such root range; remove it with the "
				       "arguments that it was added with");
	}
	wr_mutex_unlock(&r->lock);
	return err;
}

int wr_roots_add_call(struct wr_roots *r, void (*fn)(void), void *arg,
		      bool concurrent)
{
	int err;

	if (scanning)
		return deny("adding a root callback");
	wr_mutex_lock(&r->lock);
	err = make_room((void **)&r->calls, &r->call_room, r->call_count,
			sizeof(*r->calls));
	if (!err)
		r->calls[r->call_count++] = (struct call){fn, arg, concurrent};
	wr_mutex_unlock(&r->lock);
	return err;
}

int wr_roots_remove_call(struct wr_roots *r, void (*fn)(void), void *arg)
{
	int err = 0;
	size_t i;

	if (scanning)
		return deny("removing a root callback");
	wr_mutex_lock(&r->lock);
	for (i = 0; i < r->call_count; i++)
		if (r->calls[i].fn == fn && r->calls[i].arg == arg)
			break;
	if (i < r->call_count) {
		r->call_count--;
		memmove(&r->calls[i], &r->calls[i + 1],
			(r->call_count - i) * sizeof(*r->calls));
		await_scans(r);
	} else {
		err = wr_error(ENOENT, "no such root callback");
	}
	wr_mutex_unlock(&r->lock);
	return err;
}

/* ---- Data segments --------------------------------------------------------
 */

int wr_roots_data_segments(struct wr_roots *r, bool on)
{
	if (scanning)
		return deny("switching data segments");
	return wr_segments_switch(r->segments, on);
}

int wr_roots_segment_filter(struct wr_roots *r, wr_segment_fn *fn, void *arg)
{
	if (scanning)
		return deny("filtering data segments");
	wr_segments_filter(r->segments, fn, arg);
	return 0;
}

int wr_roots_exclude_none(struct wr_roots *r)
{
	if (scanning)
		return deny("excluding no range");
	wr_mutex_lock(&r->lock);
	r->cut_count = 0;
	wr_mutex_unlock(&r->lock);
	return 0;
}

int wr_roots_exclude(struct wr_roots *r, uintptr_t start, uintptr_t end)
{
	const uintptr_t mask = sizeof(uintptr_t) - 1;
	size_t i, next;
	int err;

	if (start > end)
		return wr_error(EINVAL, "a range to exclude ends before it "
					"starts");
	if (scanning)
		return deny("excluding a range");
	if (start == end)
		return 0;
	start &= ~mask;
	/* The last word of all is no part of any segment. */
	end = end > ~mask ? ~mask : (end + mask) & ~mask;
	wr_mutex_lock(&r->lock);
	err = make_room((void **)&r->cuts, &r->cut_room, r->cut_count,
			sizeof(*r->cuts));
	if (!err) {
		for (i = 0; i < r->cut_count && r->cuts[i].end < start; i++)
			;
		/* [i, next) become one with it. */
		for (next = i;
		     next < r->cut_count && r->cuts[next].start <= end;
		     next++) {
			if (r->cuts[next].start < start)
				start = r->cuts[next].start;
			if (r->cuts[next].end > end)
				end = r->cuts[next].end;
		}
		memmove(&r->cuts[i + 1], &r->cuts[next],
			(r->cut_count - next) * sizeof(*r->cuts));
		r->cuts[i] = (struct wr_root_range){start, end};
		r->cut_count = r->cut_count - (next - i) + 1;
	}
	wr_mutex_unlock(&r->lock);
	return err;
}

/* Index of the first cut that ends above `at`.  Lock held. */
static size_t find_cut(const struct wr_roots *r, uintptr_t at)
{
	size_t low = 0, high = r->cut_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (r->cuts[mid].end <= at)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Whom to tell what is left of a segment. */
struct cutter {
	struct wr_roots *r;      /* whose cuts */
	wr_root_range_fn *range; /* whom */
	void *arg;               /* for range */
};

/* Lock held. */
static void visit_cut(void *arg, uintptr_t start, uintptr_t end)
{
	struct cutter *c = arg;
	struct wr_roots *r = c->r;

	for (size_t i = find_cut(r, start);
	     i < r->cut_count && r->cuts[i].start < end && start < end; i++) {
		if (r->cuts[i].start > start)
			c->range(c->arg, start, r->cuts[i].start);
		start = r->cuts[i].end;
	}
	if (start < end)
		c->range(c->arg, start, end);
}

/* Beside the program: in chunks. */
static void visit_chunks(void *arg, uintptr_t start, uintptr_t end)
{
	struct cutter *c = arg;

	while (start < end) {
		uintptr_t to = end - start > CHUNK ? start + CHUNK : end;

		wr_mutex_lock(&c->r->lock);
		visit_cut(c, start, to);
		wr_mutex_unlock(&c->r->lock);
		start = to;
	}
}

/* ---- Scans ----------------------------------------------------------------
 */

/* Ranges are sorted: what overlaps is scanned once. */
static void scan_ranges(const struct wr_root_range *ranges, size_t count,
			wr_root_range_fn *range, void *arg)
{
	uintptr_t done = 0;

	for (size_t i = 0; i < count; i++) {
		uintptr_t start = ranges[i].start;

		if (start < done)
			start = done;
		if (start >= ranges[i].end)
			continue;
		range(arg, start, ranges[i].end);
		done = ranges[i].end;
	}
}

static void scan_stopped(struct wr_roots *r, wr_root_range_fn *range,
			 wr_root_call_fn *call, void *arg)
{
	struct cutter cutter = {r, range, arg};

	wr_mutex_assert_held(&r->lock);
	scan_ranges(r->ranges, r->range_count, range, arg);
	wr_segments_visit(r->segments, visit_cut, &cutter);
	for (size_t i = 0; i < r->call_count; i++)
		call(arg, r->calls[i].fn, r->calls[i].arg);
}

/* Copies of what is registered, and an entry in r->scans.  False: no memory;
 * the scan is a head start only and can be left to the pause. */
static bool begin_scan(struct wr_roots *r, struct scan *self,
		       struct wr_root_range **ranges, size_t *range_count,
		       struct call **calls, size_t *call_count)
{
	wr_mutex_lock(&r->lock);
	*range_count = r->range_count;
	*call_count = r->call_count;
	*ranges = malloc((*range_count + 1) * sizeof(**ranges));
	*calls = malloc((*call_count + 1) * sizeof(**calls));
	if (!*ranges || !*calls) {
		wr_mutex_unlock(&r->lock);
		return false;
	}
	if (*range_count)
		memcpy(*ranges, r->ranges, *range_count * sizeof(**ranges));
	if (*call_count)
		memcpy(*calls, r->calls, *call_count * sizeof(**calls));
	self->ticket = r->ticket++;
	self->next = r->scans;
	r->scans = self;
	wr_mutex_unlock(&r->lock);
	return true;
}

static void end_scan(struct wr_roots *r, struct scan *self)
{
	struct scan **at = &r->scans;

	wr_mutex_lock(&r->lock);
	while (*at != self)
		at = &(*at)->next;
	*at = self->next;
	pthread_cond_broadcast(&r->scanned);
	wr_mutex_unlock(&r->lock);
}

static void scan_beside(struct wr_roots *r, wr_root_range_fn *range,
			wr_root_call_fn *call, void *arg)
{
	struct wr_root_range *ranges = NULL;
	struct cutter cutter = {r, range, arg};
	struct call *calls = NULL;
	size_t range_count, call_count;
	struct scan self;

	if (begin_scan(r, &self, &ranges, &range_count, &calls, &call_count)) {
		scan_ranges(ranges, range_count, range, arg);
		for (size_t i = 0; i < call_count; i++)
			if (calls[i].concurrent)
				call(arg, calls[i].fn, calls[i].arg);
		end_scan(r, &self);
	}
	free(ranges);
	free(calls);
	wr_segments_scan(r->segments, visit_chunks, &cutter);
}

void wr_roots_scan(struct wr_roots *r, bool stopped, wr_root_range_fn *range,
		   wr_root_call_fn *call, void *arg)
{
	scanning = true;
	scanning_stopped = stopped;
	if (stopped)
		scan_stopped(r, range, call, arg);
	else
		scan_beside(r, range, call, arg);
	scanning = scanning_stopped = false;
}

bool wr_roots_in_pause(void)
{
	return scanning_stopped;
}

void wr_roots_calls(struct wr_roots *r, wr_root_call_fn *call, void *arg)
{
	wr_mutex_assert_held(&r->lock);
	scanning = scanning_stopped = true;
	for (size_t i = 0; i < r->call_count; i++)
		if (!r->calls[i].concurrent)
			call(arg, r->calls[i].fn, r->calls[i].arg);
	scanning = scanning_stopped = false;
}

bool wr_roots_have_calls(struct wr_roots *r)
{
	bool any = false;

	wr_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->call_count && !any; i++)
		any = !r->calls[i].concurrent;
	wr_mutex_unlock(&r->lock);
	return any;
}

void wr_roots_pause_begin(struct wr_roots *r)
{
	wr_segments_hold(r->segments);
	wr_mutex_lock(&r->lock);
}

void wr_roots_pause_end(struct wr_roots *r)
{
	wr_mutex_unlock(&r->lock);
	wr_segments_drop(r->segments);
}

/* ---- Life -----------------------------------------------------------------
 */

int wr_roots_create(bool data_segments, struct wr_roots **out)
{
	struct wr_roots *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return wr_error(ENOMEM, "no memory for the roots");
	err = wr_segments_create(&r->segments);
	if (!err && data_segments)
		err = wr_segments_switch(r->segments, true);
	if (err) {
		if (r->segments)
			wr_segments_destroy(r->segments);
		free(r);
		return err;
	}
	wr_mutex_init(&r->lock, WR_RANK_roots);
	pthread_cond_init(&r->scanned, NULL);
	r->pid = getpid();
	*out = r;
	return 0;
}

void wr_roots_destroy(struct wr_roots *r)
{
	if (!r)
		return;
	wr_segments_destroy(r->segments);
	pthread_cond_destroy(&r->scanned);
	wr_mutex_destroy(&r->lock);
	free(r->ranges);
	free(r->calls);
	free(r->cuts);
	free(r);
}

void wr_roots_fork_prepare(struct wr_roots *r)
{
	wr_segments_fork_prepare(r->segments);
	wr_mutex_lock(&r->lock);
}

void wr_roots_fork_done(struct wr_roots *r)
{
	bool child = r->pid != getpid();

	if (child) {
		/* The threads that scanned or waited are not here. */
		r->pid = getpid();
		r->scans = NULL;
		pthread_cond_init(&r->scanned, NULL);
	}
	wr_mutex_unlock(&r->lock);
	/* A thread that waited for `scanned` would still count as a user of the
	 * lock, which could not be destroyed. */
	if (child)
		wr_mutex_init(&r->lock, WR_RANK_roots);
	wr_segments_fork_done(r->segments, child);
}
