/* SPDX-License-Identifier: MIT */
/*
 * The saver: hands every unit of a begin-consistent snapshot to the sink, from
 * the region or from the pool.
 *
 * What it takes in turn: units that a writer waits for; the pool, when it fills
 * up; else the next units of the regions, a buffer full.  They are copied first
 * and unprotected at once, a run with one call, so that no write waits for the
 * sink.
 *
 * It is through when it has passed every unit and no slot of the pool is in
 * use: a unit that a handler has taken has one, and none is ARMED behind us.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/futex_lock.h"
#include "runtime/own_memory.h"
#include "runtime/patience.h"
#include "runtime/region.h"

#define BUFFER ((size_t)256 << 10)
#define RUNS 512 /* of one call of the sink, at most */

struct saver {
	struct weir_snapshot *s;             /* whose */
	weir_snapshot_sink_fn *sink;         /* takes the runs */
	void *arg;                           /* its argument */
	char *buffer;                        /* copies, page-aligned */
	size_t room;                         /* bytes of it */
	size_t used;                         /* bytes of it */
	unsigned run_count;                  /* of the next */
	struct weir_snapshot_run runs[RUNS]; /* to be handed over */
	size_t region;       /* the next unit's: where it stands */
	size_t unit;         /* likewise */
	struct wr_pace pace; /* rate and progress */
};

/* ---- Pace --------------------------------------------------------------- */

static int report(struct weir_snapshot *s, struct wr_pace *p, uint64_t now)
{
	struct weir_snapshot_progress figures;

	if (!s->options.progress || now - p->said_ns < s->options.progress_ns)
		return 0;
	p->said_ns = now;
	wr_snap_figures(s, &figures);
	if (s->options.progress(&figures, s->options.progress_arg))
		wr_snap_fail(s, ECANCELED,
			     "the progress callback aborted the "
			     "snapshot");
	return wr_snap_failed(s);
}

int wr_snap_pace(struct weir_snapshot *s, struct wr_pace *p, uint64_t bytes)
{
	uint64_t now = wr_snap_now(), due;

	if (!p->start_ns)
		p->start_ns = p->said_ns = now;
	p->bytes += bytes;
	if (report(s, p, now))
		return wr_snap_failed(s);
	if (!s->options.rate)
		return wr_snap_failed(s);
	due = p->start_ns +
	      (uint64_t)((double)p->bytes * 1e9 / (double)s->options.rate);
	/* In pieces: it may be aborted, or a writer have come to wait. */
	while (now < due && !wr_snap_failed(s) &&
	       !__atomic_load_n(&s->urgent_count, __ATOMIC_ACQUIRE)) {
		uint64_t nap = due - now < 2000000 ? due - now : 2000000;
		struct timespec t = {.tv_nsec = (long)nap};

		nanosleep(&t, NULL);
		now = wr_snap_now();
		if (report(s, p, now))
			break;
	}
	return wr_snap_failed(s);
}

/* ---- To the sink -------------------------------------------------------- */

static void add_run(struct saver *v, size_t region, size_t unit, size_t bytes,
		    const void *data)
{
	uint64_t offset = (uint64_t)unit << v->s->regions[region]->shift;
	struct weir_snapshot_run *last =
		v->run_count ? &v->runs[v->run_count - 1] : NULL;

	if (last && last->region == region &&
	    last->offset + last->bytes == offset &&
	    (data ? last->data && (const char *)last->data + last->bytes == data
		  : !last->data)) {
		last->bytes += bytes;
		return;
	}
	v->runs[v->run_count++] = (struct weir_snapshot_run){.region = region,
							     .offset = offset,
							     .bytes = bytes,
							     .data = data};
}

long wr_snap_hand_over(struct weir_snapshot *s, weir_snapshot_sink_fn *sink,
		       void *arg, const struct weir_snapshot_run *runs,
		       size_t count, bool again)
{
	uint64_t bytes = 0, zero = 0;
	int err;

	for (size_t i = 0; i < count; i++) {
		bytes += runs[i].bytes;
		zero += runs[i].data ? 0 : runs[i].bytes;
	}
	wr_error(0, "%s", "");
	err = sink(arg, runs, count);
	if (err) {
		/* Its own text, if it has set one for this error. */
		wr_snap_fail(s, err < 0 ? -err : err,
			     weir_error_text()[0] ? weir_error_text()
						  : "the sink failed");
		return -1;
	}
	wr_snap_count(again ? &s->figures.bytes_again : &s->figures.bytes_saved,
		      bytes);
	wr_snap_count(&s->figures.bytes_zero, again ? 0 : zero);
	return (long)bytes;
}

static int flush(struct saver *v)
{
	long bytes;

	if (!v->run_count)
		return 0;
	bytes = wr_snap_hand_over(v->s, v->sink, v->arg, v->runs, v->run_count,
				  false);
	v->run_count = 0;
	v->used = 0;
	return bytes < 0 ? -1 : wr_snap_pace(v->s, &v->pace, (uint64_t)bytes);
}

/* ---- From the regions --------------------------------------------------- */

static bool is_full(const struct saver *v, const struct weir_region *r)
{
	return v->used + wr_region_unit(r) > v->room || v->run_count == RUNS;
}

/* Claim unit u and copy it into the buffer.  False: it is not ARMED, or need
 * not be saved. */
static bool copy_unit(struct saver *v, struct weir_region *r, size_t u)
{
	char *to = v->buffer + v->used;
	size_t bytes = wr_region_unit(r);
	uint8_t seen = wr_unit_get(r, u);
	bool zero;

	if ((seen & WR_UNIT_STATE) == WR_UNIT_OPEN)
		wr_snap_fail(v->s, ESTALE,
			     "pages of a region were given back while the "
			     "snapshot began; let nobody do that");
	if ((seen & WR_UNIT_STATE) != WR_UNIT_ARMED)
		return false;
	if (!wr_snap_needs(v->s, seen)) {
		/* As it was in the one before: stays protected, to tell when
		 * it changes. */
		wr_unit_move(r, u, WR_UNIT_ARMED, WR_UNIT_SAVED, 0);
		return false;
	}
	if (!wr_unit_move(r, u, WR_UNIT_ARMED, WR_UNIT_TAKEN, 0))
		return false;
	wr_snap_point();
	if (wr_snap_mutant(WR_SNAP_LATE_COPY)) {
		wr_watch_unprotect(r->watch, wr_unit_address(r, u),
				   wr_unit_address(r, u + 1));
		wr_snap_point();
	}
	zero = wr_unit_copy(to, (void *)wr_unit_address(r, u), bytes);
	wr_snap_point();
	/* As in wr_snap_keep(). */
	wr_watch_settle(r->watch);
	wr_unit_move(r, u, WR_UNIT_TAKEN, WR_UNIT_SAVED, 0);
	add_run(v, r->index, u, bytes, zero ? NULL : to);
	if (!zero)
		v->used += bytes;
	return true;
}

/* Units [from, to), all SAVED by us: writes may go on. */
static void open_run(struct weir_region *r, size_t from, size_t to)
{
	uintptr_t start = wr_unit_address(r, from),
		  end = wr_unit_address(r, to);

	/* To be tracked, they stay as they are; who waits faults anew. */
	if (r->flags & WEIR_REGION_TRACK)
		wr_watch_wake(r->watch, start, end);
	else
		wr_watch_unprotect(r->watch, start, end);
}

/* Go on where it stood, until the buffer is full or a bit of the way is done.
 * False: nothing is left. */
static bool next_units(struct saver *v)
{
	struct weir_snapshot *s = v->s;
	struct weir_region *r;
	size_t from, stop;

	while (v->region < s->count &&
	       v->unit >= s->regions[v->region]->snap_units) {
		v->region++;
		v->unit = 0;
	}
	if (v->region == s->count)
		return false;
	r = s->regions[v->region];
	stop = v->unit + 8 * WR_STEP;
	if (stop > r->snap_units)
		stop = r->snap_units;
	from = v->unit;
	while (v->unit < stop && !is_full(v, r)) {
		if (copy_unit(v, r, v->unit)) {
			v->unit++;
			continue;
		}
		if (from < v->unit)
			open_run(r, from, v->unit);
		from = ++v->unit;
	}
	if (from < v->unit)
		open_run(r, from, v->unit);
	return true;
}

/* ---- From the pool ------------------------------------------------------ */

static int drain(struct saver *v)
{
	struct weir_snapshot *s = v->s;
	struct wr_unit units[BUFFER >> 12];
	size_t unit = (size_t)1 << s->pool.shift;
	uint32_t n = (uint32_t)(v->room >> s->pool.shift);
	int err;

	if (n > sizeof(units) / sizeof(units[0]))
		n = sizeof(units) / sizeof(units[0]);
	n = wr_pool_take(&s->pool, units, n);
	for (uint32_t i = 0; i < n; i++)
		add_run(v, units[i].region, units[i].unit, unit,
			units[i].zero ? NULL
				      : wr_pool_data(&s->pool, units[i].slot));
	err = flush(v);
	wr_pool_drop(&s->pool, units, n);
	return err;
}

/* ---- Units that are waited for ------------------------------------------ */

static unsigned take_urgent(struct weir_snapshot *s, struct wr_unit *units)
{
	unsigned n;
	sigset_t saved;

	wr_futex_enter(&s->urgent_lock, &saved);
	n = s->urgent_count;
	memcpy(units, s->urgent, n * sizeof(*units));
	__atomic_store_n(&s->urgent_count, 0, __ATOMIC_RELEASE);
	wr_futex_leave(&s->urgent_lock, &saved);
	return n;
}

/* Their content to the sink first.  The buffer is empty. */
static int write_through(struct saver *v, const struct wr_unit *units,
			 unsigned n)
{
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++) {
		struct weir_region *r = v->s->regions[units[i].region];

		if (copy_unit(v, r, units[i].unit))
			open_run(r, units[i].unit, units[i].unit + 1);
		else /* somebody else has, or had it */
			wr_watch_wake(r->watch,
				      wr_unit_address(r, units[i].unit),
				      wr_unit_address(r, units[i].unit + 1));
		if (is_full(v, r))
			err = flush(v);
	}
	wr_snap_wake(v->s);
	return err ? err : flush(v);
}

/* Their content to the pool, in which there is room again.  What finds none
 * is wanted again. */
static void keep_urgent(struct saver *v, const struct wr_unit *units,
			unsigned n)
{
	sigset_t all, saved;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	for (unsigned i = 0; i < n; i++) {
		struct weir_region *r = v->s->regions[units[i].region];
		uintptr_t start = wr_unit_address(r, units[i].unit);
		uintptr_t end = start + wr_region_unit(r);

		switch (wr_snap_keep(r, units[i].unit, WR_WRITER_NONE)) {
		case WR_FAULT_DONE:
			wr_watch_unprotect(r->watch, start, end);
			break;
		case WR_FAULT_AGAIN: /* somebody else has it just now */
			wr_watch_wake(r->watch, start, end);
			break;
		case WR_FAULT_WAIT:
			break;
		}
	}
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	wr_snap_wake(v->s);
}

static int serve_urgent(struct saver *v)
{
	struct weir_snapshot *s = v->s;
	struct wr_unit units[WR_URGENT];
	unsigned n;
	int err = 0;

	if (!__atomic_load_n(&s->urgent_count, __ATOMIC_ACQUIRE))
		return 0;
	if (s->options.full == WEIR_FULL_WRITE_THROUGH) {
		n = take_urgent(s, units);
		return write_through(v, units, n);
	}
	if (wr_pool_filled(&s->pool))
		err = drain(v);
	if (!err) {
		n = take_urgent(s, units);
		keep_urgent(v, units, n);
	}
	return err;
}

/* ---- The whole ---------------------------------------------------------- */

static int save(struct saver *v)
{
	struct weir_snapshot *s = v->s;
	unsigned tries = 0;
	bool more = true;
	int err = 0;

	while (!err && !wr_snap_failed(s)) {
		err = serve_urgent(v);
		if (err)
			break;
		if (wr_pool_filled(&s->pool) &&
		    (!more || wr_pool_filled(&s->pool) > s->pool.slots / 2)) {
			err = drain(v);
		} else if (more) {
			more = next_units(v);
			if (v->run_count)
				err = flush(v);
		} else if (wr_pool_used(&s->pool)) {
			wr_wait_a_bit(&tries); /* a handler is copying */
		} else {
			break;
		}
		if (__atomic_load_n(&s->waiting, __ATOMIC_RELAXED))
			wr_snap_wake(s);
	}
	return wr_snap_failed(s);
}

static int read_begin(struct weir_snapshot *s, weir_snapshot_sink_fn *sink,
		      void *arg)
{
	struct saver *v = wr_own_alloc(sizeof(*v));
	size_t unit = wr_region_unit(s->regions[0]);
	size_t room = unit > BUFFER ? unit : BUFFER;
	void *buffer = v ? wr_own_alloc(room) : NULL;

	if (!buffer) {
		wr_own_free(v, sizeof(*v));
		wr_snap_fail(s, ENOMEM, "no memory for a buffer; free some");
		return wr_snap_failed(s);
	}
	v->s = s;
	v->sink = sink;
	v->arg = arg;
	v->buffer = buffer;
	v->room = room;
	save(v);
	wr_own_free(buffer, room);
	wr_own_free(v, sizeof(*v));
	return wr_snap_failed(s);
}

int weir_snapshot_read(weir_snapshot *s, weir_snapshot_sink_fn *sink, void *arg)
{
	int err = wr_snapshot_valid(s, __func__);

	if (err)
		return err;
	if (!sink)
		return wr_invalid(__func__, "sink is NULL");
	if (s->orphan)
		return wr_snap_error(s);
	if (s->state != WR_SNAP_BEGUN)
		return wr_invalid(__func__, s->state == WR_SNAP_NEW
						    ? "the snapshot has not "
						      "begun"
						    : "the snapshot was read");
	/* Relaxed: see is_saver(). */
	__atomic_store_n(&s->saver, (pid_t)syscall(SYS_gettid),
			 __ATOMIC_RELAXED);
	if (!wr_snap_failed(s))
		err = s->options.kind == WEIR_SNAPSHOT_END
			      ? wr_snap_read_end(s, sink, arg)
			      : read_begin(s, sink, arg);
	__atomic_store_n(&s->saver, 0, __ATOMIC_RELAXED);
	if (!err && !wr_snap_failed(s)) {
		s->state = WR_SNAP_READ;
		return 0;
	}
	wr_snap_let_go(s);
	return wr_snap_error(s);
}
