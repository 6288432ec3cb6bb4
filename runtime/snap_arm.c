/* SPDX-License-Identifier: MIT */
/*
 * Protecting a snapshot's pages before it begins, while the program runs; and
 * what is left of that for begin itself.
 *
 * One pass over everything, then over the groups in which something was opened
 * meanwhile, until that is little or does not get less; but not over the few
 * pages that are written all the time (struct leave), which begin copies.  At
 * 8 GiB, 100,000 writes a second: 12,000 pages opened in the first pass, then
 * 6,200, 3,900, 2,500, 1,800, ... 500; while those were protected each time it
 * never was less than 4,000.  A step is a few neighbouring groups of units,
 * under `arming`; begin waits for the armer's end before it looks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "runtime/check.h"
#include "runtime/region.h"

#define PASSES 40  /* at most */
#define STUCK 2    /* passes in a row that got no further */
#define FEW 128    /* pages that are not worth a pass: see few() */
#define WARM 1024  /* pages at most: see wr_snap_warm() */
#define FEW_HUGE 8 /* huge ones: each is a call in begin */
#define RUN 16     /* pages: from here on protecting is cheaper than copying */
#define BATCH 128  /* pages, more or less: see struct batch */
#define PACE_NS 2000 /* of a pause, for a page that is protected again */

typedef uint64_t __attribute__((may_alias)) eight;

static size_t units_now(const struct weir_region *r)
{
	/* Acquire: pairs with the release in weir_region_grow(). */
	return __atomic_load_n(&r->bytes, __ATOMIC_ACQUIRE) >> r->shift;
}

/* Of group g, in a region of n units. */
static size_t group_end(size_t g, size_t n)
{
	return (g + 1) * WR_GROUP < n ? (g + 1) * WR_GROUP : n;
}

static int protect_failed(int err)
{
	return wr_error(-err, "pages cannot be protected: %s; see weir-info",
			strerror(-err));
}

static bool is_huge(const struct weir_region *r)
{
	return wr_region_unit(r) > (size_t)64 << 10;
}

/* Units that begin can see to in a tenth of a millisecond.  To protect
 * a page once more costs its writer a fault, which takes ten times as long as
 * to copy it in begin. */
static uint64_t few(const struct weir_snapshot *s)
{
	if (is_huge(s->regions[0]))
		return FEW_HUGE;
	return s->pool.slots / 4 < FEW ? s->pool.slots / 4 : FEW;
}

static bool open_at(const struct weir_region *r, size_t u)
{
	return (wr_unit_get(r, u) & WR_UNIT_STATE) == WR_UNIT_OPEN;
}

/* Bit 0 of each byte of `seen`, eight units' states, that is OPEN. */
static uint64_t open_of(uint64_t seen)
{
	return ~(seen | seen >> 1) & ~0ull / 255;
}

/* Which byte in memory has the lowest of these bits. */
static unsigned first_of(uint64_t bits)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	bits = __builtin_bswap64(bits);
#endif
	return (unsigned)__builtin_ctzll(bits) / 8;
}

/* Unit u, a multiple of 8, and the seven after it.  Acquire: as
 * wr_unit_get(). */
static uint64_t eight_units(const struct weir_region *r, size_t u)
{
	return __atomic_load_n((const eight *)&r->state[u], __ATOMIC_ACQUIRE);
}

/* The first OPEN unit of [u, end), or end. */
static size_t next_open(const struct weir_region *r, size_t u, size_t end)
{
	for (; u < end && u % 8; u++)
		if (open_at(r, u))
			return u;
	/* What is in the last eight behind the end is there, if not used. */
	for (; u < end; u += 8) {
		uint64_t bits = open_of(eight_units(r, u));

		if (!bits)
			continue;
		u += first_of(bits);
		break;
	}
	return u < end ? u : end;
}

/* Groups [g, g + 64), g a multiple of 8, that none has OPEN units. */
static bool are_cold(const struct weir_region *r, size_t g)
{
	uint64_t any = 0;

	for (size_t k = 0; k < 64; k += 8)
		/* Acquire: pairs with wr_unit_is_open(). */
		any |= __atomic_load_n((const eight *)&r->hot[g + k],
				       __ATOMIC_ACQUIRE);
	return !any;
}

/* The first group of [g, groups) that may have OPEN units, or groups. */
static size_t next_hot(const struct weir_region *r, size_t g, size_t groups)
{
	/* Of these, hot[] says so. */
	size_t known = r->armed_once ? r->armed_units / WR_GROUP : 0;

	while (g < groups) {
		if (g % 8 == 0 && g + 64 <= known && are_cold(r, g))
			g += 64;
		else if (wr_group_is_hot(r, g))
			return g;
		else
			g++;
	}
	return groups;
}

static bool is_open(uint8_t seen)
{
	return (seen & (WR_UNIT_STATE | WR_UNIT_LOOSE)) == WR_UNIT_OPEN;
}

static unsigned times_armed(uint8_t seen)
{
	return seen / WR_UNIT_AGAIN;
}

/*
 * Units that a pass leaves OPEN, for begin: where writers keep coming, so that
 * arming once more would hold for a moment only, and cost a fault.  They are
 * known by how often they were armed again and are open nevertheless: all that
 * were more than `times`, and `some` of those that were as often.
 */
struct leave {
	unsigned times;
	uint64_t some;
};

/* Hot groups from g on, which is one, that are seen to together: what is OPEN
 * in them may be one run, and is protected with one call. */
static size_t hot_end(const struct weir_region *r, size_t g, size_t groups)
{
	size_t last = g + 1, most = g + WR_STEP / WR_GROUP;

	while (last < most && last < groups && wr_group_is_hot(r, last))
		last++;
	return last;
}

/* OPEN units by how often they were armed again. */
static void count_open(const struct weir_region *r, uint64_t *found)
{
	size_t n = units_now(r), groups = wr_groups_of(n);

	for (size_t g = next_hot(r, 0, groups); g < groups;
	     g = next_hot(r, g + 1, groups)) {
		size_t u = g * WR_GROUP, end = group_end(g, n);

		while ((u = next_open(r, u, end)) < end)
			found[times_armed(wr_unit_get(r, u++))]++;
	}
}

static struct leave what_to_leave(const struct weir_snapshot *s, uint64_t room)
{
	uint64_t found[256 / WR_UNIT_AGAIN] = {0};
	unsigned t = 256 / WR_UNIT_AGAIN;

	for (size_t k = 0; k < s->count; k++)
		if (s->regions[k]->armed_once)
			count_open(s->regions[k], found);
	while (--t > 1 && found[t] <= room)
		room -= found[t];
	return (struct leave){.times = t, .some = room};
}

static bool is_for_arming(uint8_t seen, struct leave *leave)
{
	if (!is_open(seen) || times_armed(seen) > leave->times)
		return false;
	if (times_armed(seen) < leave->times || !leave->some)
		return true;
	leave->some--;
	return false;
}

/* OPEN units of [u, end) become ARMED: the first run of them, [*from, *to). */
static bool arm_run(struct weir_region *r, size_t u, size_t end,
		    struct leave *leave, size_t *from, size_t *to)
{
	uint8_t seen = 0, next;

	while ((u = next_open(r, u, end)) < end &&
	       !is_for_arming(seen = wr_unit_get(r, u), leave))
		u++;
	*from = u;
	while (u < end) {
		/* DIRTY: open is what may have changed. */
		next = seen | WR_UNIT_ARMED | WR_UNIT_DIRTY;
		if (r->armed_once && next + WR_UNIT_AGAIN < 256)
			next += WR_UNIT_AGAIN;
		if (!wr_unit_swap(r, u, &seen, next)) {
			if (is_open(seen))
				continue;
			break;
		}
		if (++u == end)
			break;
		seen = wr_unit_get(r, u);
		if (!is_open(seen) || times_armed(seen) >= leave->times)
			break;
	}
	*to = u;
	return *from < *to;
}

/* Groups [g, last).  Returns how many units were armed, or a negative errno. */
static long arm_groups(struct weir_region *r, size_t g, size_t last,
		       struct leave *leave)
{
	size_t u = g * WR_GROUP, end = last * WR_GROUP, n = units_now(r), to;
	/* Care beside writers is for what may not be there yet, or in huge
	 * pages.  What is OPEN in a group that was armed before was written
	 * since, so that it is there. */
	bool care = !r->armed_once || end > r->armed_units || r->adopted ||
		    r->flags & WEIR_REGION_HUGE;
	long armed = 0;

	if (end > n)
		end = n;
	/* Before the look: what is opened after it marks it again.  Acquire:
	 * pairs with wr_unit_is_open(). */
	for (size_t k = g; k < last; k++)
		__atomic_exchange_n(&r->hot[k], 0, __ATOMIC_ACQ_REL);
	wr_snap_point();
	while (arm_run(r, u, end, leave, &u, &to)) {
		int err;

		wr_snap_point();
		err = wr_watch_protect(r->watch, wr_unit_address(r, u),
				       wr_unit_address(r, to), care);

		if (err) {
			for (; u < to; u++)
				wr_unit_move(r, u, WR_UNIT_ARMED, WR_UNIT_OPEN,
					     WR_UNIT_DIRTY);
			for (; g < last; g++)
				wr_unit_is_open(r, g * WR_GROUP);
			return protect_failed(err);
		}
		armed += (long)(to - u);
		u = to;
	}
	/* What is left, and what is LOOSE, which no ARMED unit is. */
	for (; g < last; g++) {
		end = group_end(g, n);
		u = next_open(r, g * WR_GROUP, end);
		if (u < end)
			wr_unit_is_open(r, u);
	}
	return armed;
}

static bool told_to_stop(struct weir_snapshot *s)
{
	/* Relaxed: looked at again under the lock's order soon enough. */
	return __atomic_load_n(&s->stop_arming, __ATOMIC_RELAXED) ||
	       wr_snap_failed(s);
}

/* Each page that is protected again costs a writer that comes back to it a
 * fault: not all at once, or they queue up.  In naps that are worth it; returns
 * what is owed still. */
static long let_writers_run(long ns)
{
	struct timespec t = {.tv_nsec = ns};

	if (ns < 300000)
		return ns;
	t.tv_nsec = ns < 100000000 ? ns : 100000000;
	nanosleep(&t, NULL);
	return 0;
}

/* All groups, or the hot ones.  Returns the units armed, or an error. */
static long pass(struct weir_snapshot *s, struct weir_region *r,
		 struct leave *leave)
{
	size_t all = units_now(r), groups = wr_groups_of(all);
	long armed = 0, n = 0, owed = 0;
	size_t last;

	for (size_t g = next_hot(r, 0, groups); g < groups && n >= 0;
	     g = next_hot(r, last, groups)) {
		last = hot_end(r, g, groups);
		wr_mutex_lock(&s->arming);
		if (told_to_stop(s)) {
			wr_mutex_unlock(&s->arming);
			return armed;
		}
		n = arm_groups(r, g, last, leave);
		wr_mutex_unlock(&s->arming);
		if (n >= 0)
			armed += n;
		if (n > 0 && r->armed_once && !s->hurry)
			owed = let_writers_run(owed + n * PACE_NS);
	}
	if (n < 0)
		return n;
	r->armed_once = true;
	r->armed_units = all;
	return armed;
}

/* No more units were opened since prepare.  Relaxed: a figure. */
static uint64_t faults_now(const struct weir_snapshot *s)
{
	return __atomic_load_n(&s->figures.faults, __ATOMIC_RELAXED);
}

/*
 * Passes until little is opened meanwhile.  Where they get no further there are
 * no more pauses for the writers, as each lets them open more, and a pass opens
 * a third of the one before; then more is left to begin, up to four times as
 * much; then, or where that were no help, it is as good as it gets.  One pass
 * may be out of luck: writers that were held up write all at once afterwards.
 */
static int arm(struct weir_snapshot *s)
{
	uint64_t room = few(s), most = 4 * room, low = UINT64_MAX, opened;
	unsigned stuck = 0;

	if (most > s->pool.slots / 4)
		most = s->pool.slots / 4;

	for (int i = 0; i < PASSES && !told_to_stop(s); i++) {
		struct leave leave = what_to_leave(s, room);

		s->pass_faults = faults_now(s);
		s->passed = true;
		for (size_t k = 0; k < s->count && !told_to_stop(s); k++) {
			long n = pass(s, s->regions[k], &leave);

			if (n < 0)
				return (int)n;
		}
		opened = faults_now(s) - s->pass_faults;
		if (opened <= few(s) / 4)
			break;
		if (i == 0)
			continue; /* it went over everything */
		if (opened < low / 8 * 7) {
			low = opened;
			stuck = 0;
			continue;
		}
		if (++stuck < STUCK)
			continue;
		if (!s->hurry)
			s->hurry = true;
		else if (opened <= 2 * few(s) || room >= most ||
			 opened > 8 * most)
			break;
		else
			room *= 2;
		low = opened;
		stuck = 0;
	}
	return 0;
}

/* What the snapshot before this one left. */
static uint64_t all_open(const struct weir_snapshot *s)
{
	uint64_t found[256 / WR_UNIT_AGAIN] = {0}, n = 0;

	for (size_t k = 0; k < s->count; k++)
		count_open(s->regions[k], found);
	for (unsigned t = 0; t < 256 / WR_UNIT_AGAIN; t++)
		n += found[t];
	return n;
}

int wr_snap_rearm(struct weir_snapshot *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (!s->regions[i]->armed_once)
			return 0; /* begin does it with one call */
	if (s->passed ? faults_now(s) - s->pass_faults <= few(s)
		      : all_open(s) <= few(s))
		return 0;
	return arm(s);
}

static void *arm_main(void *arg)
{
	prctl(PR_SET_NAME, "weir-arm");
	/* What fails here fails again in begin, which tells. */
	arm(arg);
	return NULL;
}

void wr_snap_end_arming(struct weir_snapshot *s)
{
	__atomic_store_n(&s->stop_arming, 1, __ATOMIC_RELAXED);
	if (s->has_armer)
		pthread_join(s->armer, NULL);
	s->has_armer = false;
	__atomic_store_n(&s->stop_arming, 0, __ATOMIC_RELAXED);
}

int weir_snapshot_prepare(weir_snapshot *s, unsigned flags)
{
	int err = wr_snapshot_valid(s, __func__);
	sigset_t all, saved;

	if (err)
		return err;
	if (flags & ~WEIR_PREPARE_NOWAIT)
		return wr_invalid(__func__, "flags %#x are not known", flags);
	if (s->orphan)
		return wr_snap_error(s);
	if (s->state != WR_SNAP_NEW)
		return wr_invalid(__func__, "the snapshot has begun");
	if (s->options.kind == WEIR_SNAPSHOT_END)
		return 0;
	if (wr_snap_failed(s))
		return wr_snap_error(s);
	wr_snap_end_arming(s);
	s->hurry = false;
	err = wr_snap_open_pool(s);
	for (size_t i = 0; i < s->count; i++)
		__atomic_store_n(&s->regions[i]->phase, WR_PHASE_ARMING,
				 __ATOMIC_RELAXED);
	if (err || !(flags & WEIR_PREPARE_NOWAIT)) {
		if (!err)
			err = arm(s);
		return wr_snap_failed(s) ? wr_snap_error(s) : err;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = pthread_create(&s->armer, NULL, arm_main, s);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (err)
		return wr_error(err,
				"the thread that protects pages cannot be "
				"made: %s; raise RLIMIT_NPROC or RLIMIT_AS",
				strerror(err));
	s->has_armer = true;
	return 0;
}

/* ---- In begin: the writers are quiet, nobody else looks ------------------ */

/* Nobody else counts now.  Relaxed: pairs with who reads the figures. */
static void count_alone(uint64_t *figure)
{
	__atomic_store_n(figure, *figure + 1, __ATOMIC_RELAXED);
}

/* An OPEN unit into the pool, whose lock is held, as the saver would find it
 * there. */
static bool copy_hot(struct weir_snapshot *s, struct weir_region *r, size_t u)
{
	struct wr_unit unit = {.region = r->index, .unit = u};

	unit.slot = wr_pool_get_locked(&s->pool);
	if (unit.slot == WR_SLOT_NONE)
		return false;
	unit.zero =
		wr_unit_copy(wr_pool_data(&s->pool, unit.slot),
			     (void *)wr_unit_address(r, u), wr_region_unit(r));
	wr_pool_fill_locked(&s->pool, &unit);
	/* Writable, so it may have changed when the next one asks. */
	__atomic_store_n(&r->state[u], WR_UNIT_SAVED | WR_UNIT_NEXT,
			 __ATOMIC_RELEASE);
	count_alone(&s->figures.hot);
	count_alone(&s->figures.kept);
	return true;
}

static int protect_hot(struct weir_snapshot *s, struct weir_region *r,
		       size_t from, size_t to)
{
	int err = wr_watch_protect(r->watch, wr_unit_address(r, from),
				   wr_unit_address(r, to), false);

	if (err)
		return protect_failed(err);
	for (size_t u = from; u < to; u++)
		__atomic_store_n(&r->state[u], WR_UNIT_ARMED | WR_UNIT_DIRTY,
				 __ATOMIC_RELEASE);
	wr_snap_count(&s->figures.hot_protected, to - from);
	return 0;
}

/* Units that are copied together: first all are found, then the loads of one
 * page's copy overlap with what it takes to get to the next. */
struct batch {
	struct weir_region *r;
	unsigned n;
	size_t unit[BATCH + RUN];
};

static int copy_batch(struct weir_snapshot *s, struct batch *b)
{
	int err = 0;

	for (unsigned i = 0; i < b->n && !err; i++) {
		size_t u = b->unit[i];

		if (i + 1 < b->n)
			__builtin_prefetch((const void *)wr_unit_address(
				b->r, b->unit[i + 1]));
		if (!copy_hot(s, b->r, u))
			err = protect_hot(s, b->r, u, u + 1);
	}
	if (!err)
		b->n = 0;
	return err;
}

static bool is_room(const struct weir_snapshot *s, const struct batch *b)
{
	return wr_pool_used(&s->pool) + b->n < s->pool.slots / 2;
}

/* Where the run of OPEN units that begins with u ends. */
static size_t open_end(const struct weir_region *r, size_t u, size_t end)
{
	do
		u++;
	while (u < end && open_at(r, u));
	return u;
}

/* The OPEN units of [u, end): copied if they are few and there is room. */
static int turn_units(struct weir_snapshot *s, struct batch *b, size_t u,
		      size_t end, bool huge)
{
	struct weir_region *r = b->r;
	size_t to;

	for (; (u = next_open(r, u, end)) < end; u = to) {
		int err;

		to = u + 1;
		if (u % 7 == 3 && wr_snap_mutant(WR_SNAP_SKIP_HOT))
			continue;
		to = open_end(r, u, end);
		if (!huge && to - u < RUN)
			while (u < to && is_room(s, b))
				b->unit[b->n++] = u++;
		err = u < to ? protect_hot(s, r, u, to) : 0;
		if (!err && b->n > BATCH)
			err = copy_batch(s, b);
		if (err)
			return err;
	}
	return 0;
}

int wr_snap_turn(struct weir_snapshot *s, struct weir_region *r)
{
	struct batch batch = {.r = r};
	bool huge = is_huge(r);
	size_t n = units_now(r), groups = wr_groups_of(n), last;
	int err = 0;

	r->snap_units = n;
	if (!r->armed_once) {
		err = turn_units(s, &batch, 0, n, huge);
		groups = 0;
	}
	for (size_t g = next_hot(r, 0, groups); g < groups && !err;
	     g = next_hot(r, last, groups)) {
		last = hot_end(r, g, groups);
		err = turn_units(s, &batch, g * WR_GROUP,
				 group_end(last - 1, n), huge);
		for (; g < last && !err; g++)
			__atomic_store_n(&r->hot[g], 0, __ATOMIC_RELAXED);
	}
	if (!err)
		err = copy_batch(s, &batch);
	if (!err)
		r->armed_units = n;
	else if (!r->armed_once)
		r->armed_units = 0;
	/* After an error they are OPEN still, and the next one must know. */
	while (batch.n)
		wr_unit_is_open(r, batch.unit[--batch.n]);
	return err;
}

/* Units [u, to) into slots from the n-th on; the first that is free then. */
static uint32_t warm_units(struct weir_snapshot *s, const struct weir_region *r,
			   size_t u, size_t to, const uint32_t *slots,
			   uint32_t n, uint32_t most)
{
	for (; u < to && n < most; u++)
		wr_unit_copy(wr_pool_data(&s->pool, slots[n++]),
			     (void *)wr_unit_address(r, u), wr_region_unit(r));
	return n;
}

/*
 * Before the writers are stopped, once for nothing what wr_snap_turn() is going
 * to do: the pages that it copies, into the slots that they go to.  In a large
 * region all of that is far away: lines, translations and, where a hypervisor
 * keeps page tables of its own, those.  What writers do meanwhile does not
 * matter, for nobody looks at it.  No signals: a handler that forks would have
 * the child go on with it, which has no pool.
 */
void wr_snap_warm(struct weir_snapshot *s)
{
	uint32_t slots[WARM], most, n = 0;
	sigset_t all, saved;

	if (is_huge(s->regions[0]))
		return; /* protected, not copied */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	most = wr_pool_peek(&s->pool, slots, WARM);
	if (most > s->pool.slots / 2)
		most = s->pool.slots / 2;
	for (size_t i = 0; i < s->count; i++) {
		struct weir_region *r = s->regions[i];
		size_t units = units_now(r), groups = wr_groups_of(units);

		if (!r->armed_once)
			continue;
		for (size_t g = next_hot(r, 0, groups); g < groups && n < most;
		     g = next_hot(r, g + 1, groups)) {
			size_t end = group_end(g, units), u = g * WR_GROUP, to;

			for (; n < most && (u = next_open(r, u, end)) < end;
			     u = to) {
				to = open_end(r, u, end);
				if (to - u < RUN)
					n = warm_units(s, r, u, to, slots, n,
						       most);
			}
		}
	}
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

int wr_snap_pin(struct weir_snapshot *s, const struct weir_snapshot_range *pin)
{
	struct weir_region *r = wr_region_find((uintptr_t)pin->start);
	size_t u, last;

	u = ((uintptr_t)pin->start - r->start) >> r->shift;
	last = ((uintptr_t)pin->start + pin->bytes - 1 - r->start) >> r->shift;
	for (; u <= last; u++) {
		if ((wr_unit_get(r, u) & WR_UNIT_STATE) == WR_UNIT_SAVED)
			continue;
		if (!copy_hot(s, r, u))
			return wr_error(ENOBUFS, "the pinned memory does not "
						 "fit the pool; make that "
						 "larger");
	}
	return 0;
}
