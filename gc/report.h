/* SPDX-License-Identifier: MIT */
/* What a cycle tells of itself: the lines of log=gc and log=barrier. */
#ifndef WEIR_GC_REPORT_H
#define WEIR_GC_REPORT_H

#include "gc/heap.h"

/* Several stops, or one. */
struct wg_stops {
	unsigned count;    /* how many */
	uint64_t total_ns; /* their sum */
	uint64_t max_ns;   /* the longest */
};

static inline void wg_stops_add(struct wg_stops *s, uint64_t ns)
{
	s->count++;
	s->total_ns += ns;
	if (ns > s->max_ns)
		s->max_ns = ns;
}

struct wg_report {
	uint64_t number;        /* of the cycle */
	bool full, stopped;     /* what kind of cycle */
	bool resumed;           /* full, begun before a fork */
	unsigned passes;        /* preclean passes */
	uint64_t dirty;         /* pages fetched before the pause */
	uint64_t remark_pages;  /* in the pause */
	uint64_t remark_marked; /* bytes marked in it */
	uint64_t put_off_ns;    /* time that they were put off for */
	struct wg_stops slices; /* of preclean */
	struct wg_stops ahead;  /* that traced ahead of the pause */
	uint64_t ahead_marked;  /* objects that the last of these led to, */
	uint64_t ahead_most;    /* and the one that led to most */
	uint64_t ahead_ns;      /* when the last of them was over */
	struct wg_stops pauses; /* all stops of the world */
	uint64_t arm_ns, mark_ns, preclean_ns, sweep_ns;
	/* Of the pause: until all were stopped, remark, weak references, the
	 * verifier, all of it. */
	uint64_t stop_ns, remark_ns, weak_ns, verify_ns, pause_ns;
	struct wr_barrier_stats barrier; /* as of the cycle's begin */
	uint64_t dirty_all;              /* the same: stats.dirty_pages */
};

/* On the collector thread, and not while the world is stopped: a line may
 * have to wait for its file or terminal. */
void wg_report_begin(struct weir_heap *h, struct wg_report *r);
void wg_report_slices(struct weir_heap *h, const struct wg_report *r,
		      const struct wg_stops *batch, uint64_t pages);
/* Stops that traced ahead of the pause. */
void wg_report_ahead(struct weir_heap *h, const struct wg_report *r);
void wg_report_pause(struct weir_heap *h, const struct wg_report *r);
/* A snapshot of the heap was taken in it. */
struct weir_heap_snapshot_info;
void wg_report_snapshot(struct weir_heap *h, const struct wg_report *r,
			const struct weir_heap_snapshot_info *info,
			unsigned rounds);
void wg_report_cycle(struct weir_heap *h, const struct wg_report *r,
		     uint64_t marked);
/* Which barrier it became, and why; at creation. */
void wg_report_barrier(struct weir_heap *h);

#endif
