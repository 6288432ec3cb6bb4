/* SPDX-License-Identifier: MIT */
/*
 * Snapshots: their life, and the moment that they are of.  Protecting before it
 * is in snap_arm.c, what writes do after it in snap_keep.c, reading in
 * snap_read.c (BEGIN) and snap_end.c (END).
 *
 *   NEW -> BEGUN -> READ, and `failed` beside, which ends it in any state
 *
 * begin: regions go to TURNING, and when the handlers that were at work are
 * through (a grace period) their units are this thread's alone.  When they go
 * to ACTIVE no unit is OPEN: each is protected, or what it holds is in the
 * pool.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/own_memory.h"
#include "runtime/region.h"
#include "runtime/regions.h"
#include "runtime/sized.h"

#define MOST_REGIONS 64

uint64_t wr_snap_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t wall_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- Making one --------------------------------------------------------- */

static int check_pins(const struct weir_snapshot *s)
{
	for (size_t i = 0; i < s->options.pinned_count; i++) {
		const struct weir_snapshot_range *pin = &s->options.pinned[i];
		uintptr_t start = (uintptr_t)pin->start;
		bool found = false;

		for (size_t k = 0; k < s->count && !found; k++) {
			const struct weir_region *r = s->regions[k];

			found = start >= r->start && pin->bytes &&
				start - r->start < r->bytes &&
				pin->bytes <= r->bytes - (start - r->start);
		}
		if (!found)
			return wr_error(EINVAL,
					"pinned: %p, %zu bytes are not in one "
					"of the regions",
					pin->start, pin->bytes);
	}
	return 0;
}

static int check_options(struct weir_snapshot *s,
			 const struct weir_snapshot_options *given)
{
	struct weir_snapshot_options *o = &s->options;

	if (given) {
		if (given->size < sizeof(given->size) || given->size > 4096)
			return wr_error(EINVAL,
					"options: size is %zu; set it to "
					"sizeof(struct weir_snapshot_options)",
					given->size);
		memcpy(o, given,
		       given->size < sizeof(*o) ? given->size : sizeof(*o));
	}
	if (!o->pool)
		o->pool = (size_t)64 << 20;
	if (!o->progress_ns)
		o->progress_ns = 100000000;
	if (o->flags & ~WEIR_SNAPSHOT_DELTA)
		return wr_error(EINVAL, "options: flags %#x are not known",
				o->flags & ~WEIR_SNAPSHOT_DELTA);
	if (o->kind > WEIR_SNAPSHOT_END || o->full > WEIR_FULL_FAIL)
		return wr_error(EINVAL,
				"options: kind %u or full %u is not "
				"known",
				o->kind, o->full);
	if (o->kind == WEIR_SNAPSHOT_END && (!o->stop || !o->resume))
		return wr_error(EINVAL, "options: an end-consistent snapshot "
					"needs stop and resume");
	if (!o->stop != !o->resume)
		return wr_error(EINVAL, "options: stop and resume go together");
	if (o->pinned_count && !o->pinned)
		return wr_error(EINVAL, "options: pinned is NULL");
	return 0;
}

/* Whether region `number` can follow what it and the others were last in. */
static bool same_last(const struct weir_snapshot *s,
		      const struct weir_region *r, size_t number)
{
	static const uint8_t none[sizeof(r->last)];

	if (memcmp(r->last, s->regions[0]->last, sizeof(r->last)))
		return false;
	return !memcmp(r->last, none, sizeof(none)) ||
	       (r->last_count == s->count && r->last_index == number);
}

/* Regions' lock held. */
static int check_region(const struct weir_snapshot *s, struct weir_region *r,
			size_t number)
{
	bool end = s->options.kind == WEIR_SNAPSHOT_END;
	int err;

	if (r->snapshot)
		return wr_error(EBUSY,
				"region \"%s\" at %#lx is in another "
				"snapshot; end that first",
				r->name, (unsigned long)r->start);
	if (end != (r->barrier == WEIR_REGION_ASYNC))
		return wr_error(ENOTSUP,
				"region \"%s\" at %#lx: %s; make the region "
				"with barrier %s",
				r->name, (unsigned long)r->start,
				end ? "end-consistent snapshots take async"
				    : "under async what a page held is gone "
				      "when it was written: it has "
				      "end-consistent snapshots only",
				end ? "WEIR_REGION_ASYNC" : "WEIR_REGION_AUTO");
	if (s->options.flags & WEIR_SNAPSHOT_DELTA &&
	    !(r->flags & WEIR_REGION_TRACK))
		return wr_error(EINVAL,
				"region \"%s\" at %#lx: deltas take "
				"WEIR_REGION_TRACK",
				r->name, (unsigned long)r->start);
	if (s->options.flags & WEIR_SNAPSHOT_DELTA && !same_last(s, r, number))
		return wr_error(EINVAL,
				"the regions were not last saved in one "
				"snapshot, in this order; take a whole "
				"one of them first");
	err = wr_region_ready(r);
	return err;
}

static int check_all(const struct weir_snapshot *s)
{
	int err = 0;

	for (size_t i = 0; i < s->count && !err; i++)
		for (size_t k = 0; k < i && !err; k++)
			if (s->regions[k] == s->regions[i])
				err = wr_error(EINVAL, "a region is named "
						       "twice");
	for (size_t i = 0; i < s->count && !err; i++) {
		err = check_region(s, s->regions[i], i);
		if (!err && s->regions[i]->shift != s->regions[0]->shift)
			err = wr_error(EINVAL,
				       "regions of different units (huge "
				       "pages and pages) do not go in one "
				       "snapshot");
	}
	return err;
}

/* Regions' lock held. */
static int join(struct weir_snapshot *s)
{
	int err = check_all(s);

	for (size_t i = 0; i < s->count && !err; i++) {
		struct weir_region *r = s->regions[i];

		r->index = (unsigned)i;
		r->snap_units = 0;
		/* Release: pairs with the acquire in handlers. */
		__atomic_store_n(&r->snapshot, s, __ATOMIC_RELEASE);
	}
	return err;
}

static void free_snapshot(struct weir_snapshot *s)
{
	wr_pool_close(&s->pool);
	wr_mutex_destroy(&s->arming);
	wr_own_free(s->regions, s->count * sizeof(*s->regions));
	wr_own_free((void *)s->options.pinned,
		    s->options.pinned_count * sizeof(*s->options.pinned));
	wr_snapshot_free(s);
}

static int fill_in(struct weir_snapshot *s, weir_region *const *regions,
		   size_t count)
{
	struct weir_snapshot_range *pins = NULL;
	size_t n = s->options.pinned_count;

	s->count = count;
	s->regions = wr_own_alloc(count * sizeof(*s->regions));
	if (n) {
		pins = wr_own_alloc(n * sizeof(*pins));
		if (pins)
			memcpy(pins, s->options.pinned, n * sizeof(*pins));
	}
	s->options.pinned = pins;
	if (!s->regions || (n && !pins))
		return wr_error(ENOMEM, "no memory for a snapshot; free some");
	memcpy(s->regions, regions, count * sizeof(*s->regions));
	if (getrandom(s->id, sizeof(s->id), 0) != sizeof(s->id))
		return wr_error(EIO, "getrandom: %s", strerror(errno));
	return check_pins(s);
}

int weir_snapshot_create(weir_region *const *regions, size_t count,
			 const struct weir_snapshot_options *options,
			 weir_snapshot **snapshot)
{
	struct weir_snapshot *s;
	int err = 0;

	if (!regions || !snapshot)
		return wr_invalid(__func__, "regions or snapshot is NULL");
	if (!count || count > MOST_REGIONS)
		return wr_error(EINVAL, "%zu regions: 1 to %d are possible",
				count, MOST_REGIONS);
	for (size_t i = 0; i < count && !err; i++)
		err = wr_region_valid(regions[i], __func__);
	if (err)
		return err;
	s = wr_snapshot_new();
	if (!s)
		return wr_error(ENOMEM, "no memory for a snapshot; free some");
	wr_mutex_init(&s->arming, WR_RANK_arming);
	err = check_options(s, options);
	if (err)
		s->options.pinned_count = 0, s->options.pinned = NULL;
	else
		err = fill_in(s, regions, count);
	if (!err) {
		wr_regions_lock();
		err = join(s);
		if (!err && s->options.flags & WEIR_SNAPSHOT_DELTA)
			memcpy(s->base, s->regions[0]->last, sizeof(s->base));
		wr_regions_unlock();
	}
	if (err) {
		free_snapshot(s);
		return err;
	}
	*snapshot = s;
	return 0;
}

int wr_snap_open_pool(struct weir_snapshot *s)
{
	int err;

	if (s->pool.memory)
		return 0;
	err = wr_pool_open(&s->pool, s->options.pool, s->regions[0]->shift);
	/* Relaxed: a figure. */
	__atomic_store_n(&s->figures.pool_bytes, s->pool.bytes,
			 __ATOMIC_RELAXED);
	return err;
}

/* ---- The moment --------------------------------------------------------- */

int wr_snap_stop(struct weir_snapshot *s)
{
	uint64_t start = wr_snap_now(), now;
	int err = 0;

	if (s->options.stop)
		err = s->options.stop(s->options.stop_arg);
	now = wr_snap_now();
	__atomic_store_n(&s->figures.stop_ns, now - start, __ATOMIC_RELAXED);
	s->begun_ns = now;
	if (err)
		return wr_error(err < 0 ? -err : err,
				"the callback that makes the writers quiet "
				"failed: %s",
				strerror(err < 0 ? -err : err));
	return 0;
}

void wr_snap_resume(struct weir_snapshot *s)
{
	__atomic_store_n(&s->figures.begin_ns, wr_snap_now() - s->begun_ns,
			 __ATOMIC_RELAXED);
	s->moment_ns = wall_clock();
	if (s->options.resume)
		s->options.resume(s->options.stop_arg);
}

/* That no unit is OPEN. */
static bool all_turned(const struct weir_region *r)
{
	for (size_t u = 0; u < r->snap_units; u++)
		if ((wr_unit_get(r, u) & WR_UNIT_STATE) == WR_UNIT_OPEN)
			return false;
	return true;
}

static int turn(struct weir_snapshot *s)
{
	uint64_t total = 0;
	sigset_t all, saved;
	int err = 0;

	/* Once, for the pool's lock. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	/* What was given back before is known to be open. */
	for (size_t i = 0; i < s->count; i++)
		wr_watch_settle(s->regions[i]->watch);
	for (size_t i = 0; i < s->count; i++)
		/* SEQ_CST: see barrier_grace.h: a handler that read the phase
		 * before this is one of those that are waited for. */
		__atomic_store_n(&s->regions[i]->phase, WR_PHASE_TURNING,
				 __ATOMIC_SEQ_CST);
	for (size_t i = 0; i < s->count; i++)
		if (!wr_snap_mutant(WR_SNAP_NO_GRACE))
			wr_watch_grace(s->regions[i]->watch);
	wr_pool_lock(&s->pool);
	for (size_t i = 0; i < s->count && !err; i++) {
		err = wr_snap_turn(s, s->regions[i]);
		wr_expensive(err || all_turned(s->regions[i]));
		total += (uint64_t)s->regions[i]->snap_units
			 << s->regions[i]->shift;
	}
	for (size_t i = 0; i < s->options.pinned_count && !err; i++)
		err = wr_snap_pin(s, &s->options.pinned[i]);
	wr_pool_unlock(&s->pool);
	__atomic_store_n(&s->figures.bytes_total, total, __ATOMIC_RELAXED);
	for (size_t i = 0; i < s->count; i++)
		/* Release: pairs with who asks for the phase. */
		__atomic_store_n(&s->regions[i]->phase, WR_PHASE_ACTIVE,
				 __ATOMIC_RELEASE);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return err;
}

static int begin(struct weir_snapshot *s)
{
	int err = wr_snap_open_pool(s);

	wr_snap_end_arming(s);
	if (!err && s->options.stop) {
		err = wr_snap_rearm(s);
		if (!err)
			wr_snap_warm(s);
	}
	if (!err)
		err = wr_snap_stop(s);
	if (err)
		return err;
	err = turn(s);
	wr_snap_resume(s);
	return err;
}

int weir_snapshot_begin(weir_snapshot *s)
{
	int err = wr_snapshot_valid(s, __func__);

	if (err)
		return err;
	if (s->orphan)
		return wr_snap_error(s);
	if (s->state != WR_SNAP_NEW)
		return wr_invalid(__func__, "the snapshot has begun before");
	err = wr_snap_failed(s);
	for (size_t i = 0; i < s->count && s->options.kind == WEIR_SNAPSHOT_END;
	     i++)
		s->regions[i]->snap_units =
			__atomic_load_n(&s->regions[i]->bytes,
					__ATOMIC_ACQUIRE) >>
			s->regions[i]->shift;
	if (!err && s->options.kind == WEIR_SNAPSHOT_BEGIN)
		err = begin(s);
	if (err && !wr_snap_failed(s))
		wr_snap_fail(s, -err, weir_error_text());
	if (wr_snap_failed(s))
		return wr_snap_error(s);
	s->state = WR_SNAP_BEGUN;
	return 0;
}

/* ---- Looking ------------------------------------------------------------ */

#define GET(field) __atomic_load_n(&s->figures.field, __ATOMIC_RELAXED)

void wr_snap_figures(const struct weir_snapshot *s,
		     struct weir_snapshot_progress *p)
{
	*p = (struct weir_snapshot_progress){
		.size = sizeof(*p),
		.bytes_total = GET(bytes_total),
		.bytes_saved = GET(bytes_saved),
		.bytes_zero = GET(bytes_zero),
		.bytes_again = GET(bytes_again),
		.faults = GET(faults),
		.kept = GET(kept),
		.hot = GET(hot),
		.hot_protected = GET(hot_protected),
		.waits = GET(waits),
		.pool_bytes = GET(pool_bytes),
		.begin_ns = GET(begin_ns),
		.stop_ns = GET(stop_ns),
	};
	p->pool_used = (size_t)wr_pool_used(&s->pool) << s->pool.shift;
	p->pool_peak = (size_t)__atomic_load_n(&s->pool.peak, __ATOMIC_RELAXED)
		       << s->pool.shift;
	if (!s->begun_ns)
		return;
	p->elapsed_ns = wr_snap_now() - s->begun_ns;
	if (p->bytes_saved && p->bytes_total > p->bytes_saved)
		p->remaining_ns =
			(uint64_t)((double)p->elapsed_ns *
				   (double)(p->bytes_total - p->bytes_saved) /
				   (double)p->bytes_saved);
}

int weir_snapshot_progress(const weir_snapshot *s,
			   struct weir_snapshot_progress *progress)
{
	int err = wr_snapshot_valid(s, __func__);
	struct weir_snapshot_progress all;

	if (!err)
		err = wr_sized_check(progress, __func__, "progress");
	if (err)
		return err;
	wr_snap_figures(s, &all);
	wr_sized_fill(progress, &all, sizeof(all));
	return 0;
}

int weir_snapshot_identity(const weir_snapshot *s,
			   struct weir_snapshot_identity *identity)
{
	int err = wr_snapshot_valid(s, __func__);
	struct weir_snapshot_identity all;

	if (!err)
		err = wr_sized_check(identity, __func__, "identity");
	if (err)
		return err;
	all = (struct weir_snapshot_identity){
		.kind = s->options.kind,
		.count = s->count,
		.time_ns = s->moment_ns,
	};
	memcpy(all.id, s->id, sizeof(all.id));
	memcpy(all.base, s->base, sizeof(all.base));
	wr_sized_fill(identity, &all, sizeof(all));
	return 0;
}

int weir_snapshot_region(const weir_snapshot *s, size_t i,
			 struct weir_region_info *info)
{
	int err = wr_snapshot_valid(s, __func__);
	const struct weir_region *r;

	if (err)
		return err;
	if (s->orphan)
		return wr_snap_error(s);
	if (i >= s->count)
		return wr_invalid(__func__, "region %zu of %zu", i, s->count);
	r = s->regions[i];
	err = weir_region_info(r, info);
	if (!err && s->state != WR_SNAP_NEW &&
	    info->size > offsetof(struct weir_region_info, limit))
		info->bytes = r->snap_units << r->shift;
	return err;
}

/* ---- The end ------------------------------------------------------------ */

int weir_snapshot_abort(weir_snapshot *s)
{
	int err = wr_snapshot_valid(s, __func__);

	if (err)
		return err;
	if (!s->orphan)
		wr_snap_fail(s, ECANCELED, "the snapshot was aborted");
	return 0;
}

int weir_snapshot_end(weir_snapshot *s)
{
	int err;

	if (!s)
		return 0;
	err = wr_snapshot_valid(s, __func__);
	if (err)
		return err;
	if (!s->orphan) {
		wr_snap_end_arming(s);
		if (s->state != WR_SNAP_READ && !wr_snap_failed(s))
			wr_snap_fail(s, ECANCELED,
				     "the snapshot was ended "
				     "before it was read");
		wr_snap_let_go(s);
		wr_regions_lock();
		for (size_t i = 0; i < s->count; i++) {
			struct weir_region *r = s->regions[i];

			__atomic_store_n(&r->snapshot, NULL, __ATOMIC_SEQ_CST);
			if (r->watch)
				wr_watch_grace(r->watch);
		}
		wr_regions_unlock();
	}
	err = wr_snap_error(s);
	free_snapshot(s);
	return err;
}
