/* SPDX-License-Identifier: MIT */
/*
 * The collector thread: waits for requests, runs cycles, tells who waits.
 *
 * Cycles are numbered from 1 in the order they start; a cycle is done when its
 * sweep is: large objects are freed by the collector's threads alone, so who
 * waits for room has to wait for that.  Whoever needs a cycle that begins after
 * the call waits for number cycles_started + 1.  Between cycles the thread
 * sleeps on a condition variable: it uses no CPU when the program does not
 * allocate.  It wakes once by itself, a second after a cycle that left free
 * memory, to give that back.
 *
 * A cycle that is under way when cycles are held stops at a gate before its
 * pause, parked, until they are released.  Holding takes the lock that keeps
 * pauses out (gc/locked.c), and so does who passes the gate, before it looks:
 * either the pause comes first, and the holder waits for its end, or the
 * collector finds the gate closed.  A parked cycle is nothing to wait for: it
 * counts as none to whoever waits for one, or for the last one.
 *
 *   main, gate              the collector thread
 *   request, wait, stall    any thread; wait and stall not CRITICAL
 */
#include "gc/cycle.h"

#include <errno.h>
#include <time.h>

#include <weir/embed.h>

#include "gc/locked.h"
#include "gc/snap.h"
#include "gc/snap_signal.h"
#include "gc/team.h"
#include "gc/weak.h"

#define IDLE_SECONDS 1 /* before free memory is given back */

void wg_control_init(struct weir_heap *h)
{
	pthread_condattr_t attr;

	wr_mutex_init(&h->ctl_lock, WR_RANK_control);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&h->ctl_wake, &attr);
	pthread_cond_init(&h->ctl_done, &attr);
	pthread_condattr_destroy(&attr);
}

/* Under ctl_lock, which is dropped meanwhile: wait for a request. */
static void sleep_until_request(struct weir_heap *h)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	while (!h->requests) {
		if (!h->trim_due) {
			wr_mutex_wait(&h->ctl_lock, &h->ctl_wake);
			continue;
		}
		if (wr_mutex_timedwait(&h->ctl_lock, &h->ctl_wake, &until) !=
			    -ETIMEDOUT ||
		    h->requests)
			continue;
		wr_mutex_unlock(&h->ctl_lock);
		wg_trim_idle(h);
		wr_mutex_lock(&h->ctl_lock);
		__atomic_store_n(&h->trim_due, false, __ATOMIC_RELAXED);
	}
}

static void *collector_main(void *arg)
{
	struct weir_heap *h = arg;

	wg_delay_thread(h, WG_DELAY_COLLECTOR);
	if (h->resweep)
		wg_sweep_run(h);
	h->resweep = false;
	wr_mutex_lock(&h->ctl_lock);
	for (;;) {
		unsigned req;
		uint64_t number;
		bool full, stopped, snap;

		sleep_until_request(h);
		req = h->requests;
		__atomic_store_n(&h->requests, 0, __ATOMIC_RELAXED);
		if (req & WG_REQ_QUIT)
			break;
		number = ++h->cycles_started;
		h->running = true;
		snap = req & WG_REQ_SNAPSHOT && h->snap_wanted;
		wr_mutex_unlock(&h->ctl_lock);

		stopped = (req & WG_REQ_STOPPED) ||
			  wr_barrier_kind(h->barrier) == WR_BARRIER_NONE;
		full = (req & (WG_REQ_FULL | WG_REQ_STOPPED)) || h->resume ||
		       wg_pace_wants_full(h, req & WG_REQ_MINOR);
		/* What a child of fork goes on with is not yet the whole cycle
		 * that somebody may have asked for. */
		if (h->resume && (req & WG_REQ_FULL))
			wg_cycle_run(h, true, stopped, number);
		/* Who wants a stopped one gets it, and the snapshot one that
		 * runs beside the program. */
		if (snap && wr_barrier_kind(h->barrier) != WR_BARRIER_NONE) {
			if (stopped)
				wg_cycle_run(h, true, true, number);
			stopped = false;
		}
		if (snap)
			wg_snap_cycle_begin(h);
		wg_cycle_run(h, full, stopped, number);

		wr_mutex_lock(&h->ctl_lock);
		wg_snap_cycle_end(h);
		h->running = false;
		h->cycles_done = number;
		if (full)
			h->full_done = number;
		pthread_cond_broadcast(&h->ctl_done);
	}
	wr_mutex_unlock(&h->ctl_lock);
	return NULL;
}

int wg_collector_start(struct weir_heap *h)
{
	int err = h->team ? 0 : wg_team_create(h);

	if (err)
		return err;
	err = wg_thread_start(&h->collector, collector_main, h);
	if (err)
		return wr_error(-err, "cannot start the collector thread; "
				      "raise RLIMIT_NPROC");
	h->threads_up = true;
	return wg_dumper_start(h);
}

void wg_collector_stop(struct weir_heap *h)
{
	wg_dumper_stop(h);
	if (h->threads_up) {
		wr_mutex_lock(&h->ctl_lock);
		__atomic_store_n(&h->requests, h->requests | WG_REQ_QUIT,
				 __ATOMIC_RELAXED);
		pthread_cond_signal(&h->ctl_wake);
		wr_mutex_unlock(&h->ctl_lock);
		pthread_join(h->collector, NULL);
		h->threads_up = false;
	}
	wg_team_destroy(h);
}

/* Under ctl_lock.  The threads are missing in a child of fork. */
static void request(struct weir_heap *h, unsigned req)
{
	if (wr_unlikely(!h->threads_up))
		wr_require(!wg_collector_start(h),
			   "fork: the child's collector did not start: %s",
			   weir_error_text());
	/* Atomic for wg_trim_idle(), which peeks without the lock. */
	__atomic_store_n(&h->requests, h->requests | (req ? req : WG_REQ_ANY),
			 __ATOMIC_RELAXED);
	pthread_cond_signal(&h->ctl_wake);
}

void wg_cycle_ask_locked(struct weir_heap *h, unsigned req)
{
	request(h, req);
}

/* The trigger goes out of reach, so that one mutator asks, once. */
bool wg_cycle_request(struct weir_heap *h, unsigned req)
{
	uint64_t trigger =
		__atomic_exchange_n(&h->trigger, UINT64_MAX, __ATOMIC_RELAXED);
	bool asked;

	if (trigger == UINT64_MAX && !req)
		return true;
	wr_mutex_lock(&h->ctl_lock);
	asked = !h->disabled;
	if (asked)
		request(h, req);
	wr_mutex_unlock(&h->ctl_lock);
	return asked;
}

static bool reached(const struct weir_heap *h, unsigned req, uint64_t number)
{
	return (req & WG_REQ_FULL ? h->full_done : h->cycles_done) >= number;
}

/* Until the collector has nothing to do, or may not; under ctl_lock. */
static void wait_idle(struct weir_heap *h)
{
	while ((h->running || h->requests) && !h->parked)
		wr_mutex_wait(&h->ctl_lock, &h->ctl_done);
}

/* Ask for a cycle and wait for it; under ctl_lock. */
static bool wait_for_new(struct weir_heap *h, unsigned req)
{
	uint64_t number = h->cycles_started + 1;

	request(h, req);
	while (!reached(h, req, number) && !h->parked)
		wr_mutex_wait(&h->ctl_lock, &h->ctl_done);
	return reached(h, req, number);
}

static void count_waiting(struct weir_heap *h, int n)
{
	/* Relaxed: partner of the load in wg_pace_markers(), which any number
	 * of late does for. */
	__atomic_store_n(&h->waiting, h->waiting + (unsigned)n,
			 __ATOMIC_RELAXED);
}

bool wg_cycle_wait(struct weir_heap *h, struct weir_mutator *m, unsigned req)
{
	bool blocked = wg_control_lock(h, m);
	bool asked = true;

	count_waiting(h, blocked);
	if (!req && h->running && !h->parked) {
		/* Whatever is under way, sweep included. */
		uint64_t number = h->cycles_started;

		while (h->running && h->cycles_started == number && !h->parked)
			wr_mutex_wait(&h->ctl_lock, &h->ctl_done);
	} else if (h->disabled) {
		/* The last one may be under way yet. */
		wait_idle(h);
		asked = false;
	} else {
		asked = wait_for_new(h, req);
	}
	count_waiting(h, -(int)blocked);
	wg_control_unlock(h, m, blocked);
	return asked;
}

void wg_cycle_stall(struct weir_heap *h, struct weir_mutator *m, uint64_t ns)
{
	bool blocked = wg_region_enter(m);
	uint64_t due = h->sys->now_ns() + ns;
	struct timespec until = {.tv_sec = (time_t)(due / 1000000000),
				 .tv_nsec = (long)(due % 1000000000)};

	/* Relaxed: partner is give_way() (gc/mark.c), which only hints. */
	__atomic_store_n(&h->stall_due, due, __ATOMIC_RELAXED);
	wr_mutex_lock(&h->ctl_lock);
	if ((h->running || h->requests) && !h->parked)
		wr_mutex_timedwait(&h->ctl_lock, &h->ctl_done, &until);
	/* Another one's wait may be noted there by now. */
	__atomic_compare_exchange_n(&h->stall_due, &due, 0, false,
				    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	wg_control_unlock(h, m, blocked);
}

/* In a region, as wg_control_lock(). */
bool wg_cycle_ask(struct weir_heap *h, struct weir_mutator *m, unsigned req)
{
	bool blocked = wg_region_enter(m);
	bool asked = wg_cycle_request(h, req);

	wg_region_leave(m, blocked);
	return asked;
}

/* Who waits for a cycle that was asked for before gets it: so does who
 * disables.  Nobody can ask any more meanwhile, or threads that do it in turns
 * would keep this one waiting for ever. */
int weir_collect_disable(weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;

	if (!err)
		err = wg_locked_check(__func__);
	if (err)
		return err;
	blocked = wg_control_lock(h, m);
	__atomic_store_n(&h->disabled, h->disabled + 1, __ATOMIC_RELAXED);
	h->disabling++;
	wait_idle(h);
	h->disabling--;
	wg_control_unlock(h, m, blocked);
	return 0;
}

/* One less disables; under ctl_lock. */
static void enable_one(struct weir_heap *h)
{
	__atomic_store_n(&h->disabled, h->disabled - 1, __ATOMIC_RELAXED);
	if (h->disabled)
		return;
	if (!h->running)
		wg_pace_enabled(h);
	if (h->parked) {
		/* Who looks before it wakes is to wait for its cycle. */
		h->parked = false;
		pthread_cond_signal(&h->ctl_wake);
	}
}

int weir_collect_enable(weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;
	unsigned n;

	if (err)
		return err;
	blocked = wg_control_lock(h, m);
	n = h->disabled - h->holds;
	if (n)
		enable_one(h);
	wg_control_unlock(h, m, blocked);
	return n ? 0 : wr_invalid(__func__, "cycles were not disabled");
}

/* ---- Held cycles --------------------------------------------------------- */

/* Relaxed, both: written with the lock of gc/locked.c held, which the caller
 * has; and once the gate is closed it opens when nothing is disabled at all. */
bool wg_gate_closed(const struct weir_heap *h)
{
	return __atomic_load_n(&h->holds, __ATOMIC_RELAXED) != 0;
}

/* A heap that is destroyed waits for its cycle to end, held or not. */
static bool quits(const struct weir_heap *h)
{
	return __atomic_load_n(&h->requests, __ATOMIC_RELAXED) & WG_REQ_QUIT;
}

static void park(struct weir_heap *h)
{
	wr_mutex_lock(&h->ctl_lock);
	while (h->disabled && !quits(h)) {
		/* Again, if it was released and held anew before this woke. */
		if (!h->parked)
			pthread_cond_broadcast(&h->ctl_done);
		h->parked = true;
		wr_mutex_wait(&h->ctl_lock, &h->ctl_wake);
	}
	h->parked = false;
	wr_mutex_unlock(&h->ctl_lock);
}

bool wg_gate_pass(struct weir_heap *h)
{
	wg_locked_hold_quiet(h);
	if (wr_likely(!wg_gate_closed(h)) || quits(h))
		return false;
	wg_locked_drop(h);
	park(h);
	return true;
}

int weir_collect_hold(weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;

	if (err)
		return err;
	wg_locked_begin(h);
	blocked = wg_control_lock(h, m);
	__atomic_store_n(&h->disabled, h->disabled + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&h->holds, h->holds + 1, __ATOMIC_RELAXED);
	wg_control_unlock(h, m, blocked);
	wg_locked_end(h);
	return 0;
}

int weir_collect_release(weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;
	unsigned n;

	if (err)
		return err;
	blocked = wg_control_lock(h, m);
	n = h->holds;
	if (n) {
		__atomic_store_n(&h->holds, n - 1, __ATOMIC_RELAXED);
		enable_one(h);
	}
	wg_control_unlock(h, m, blocked);
	return n ? 0 : wr_invalid(__func__, "cycles were not held");
}

/* ---- weir_heap_reserve() ------------------------------------------------- */

int weir_heap_reserve(weir_heap *h, size_t bytes)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	bool blocked;

	if (err)
		return err;
	blocked = wg_control_lock(h, m);
	if (bytes > wg_hard(h))
		err = EINVAL;
	else if (bytes > h->opt.heap_min)
		wg_pace_set_min(h, bytes);
	wg_control_unlock(h, m, blocked);
	return err ? wr_error(EINVAL,
			      "weir_heap_reserve: %zu bytes are more than the "
			      "heap may ever have; raise heap-max",
			      bytes)
		   : 0;
}

/* ---- weir_collect() ------------------------------------------------------ */

static int no_cycles(void)
{
	return wr_error(EBUSY, "weir_collect: cycles are disabled; call "
			       "weir_collect_enable() first");
}

static bool waited(struct weir_heap *h, struct weir_mutator *m, unsigned req)
{
	uint64_t begin = h->sys->now_ns();
	bool had = wg_cycle_wait(h, m, req);

	if (m)
		wr_histogram_add(&h->stats.waited, h->sys->now_ns() - begin);
	return had;
}

int weir_collect(weir_heap *h, unsigned flags)
{
	struct weir_mutator *m = wg_mutator_self();
	unsigned req = flags & WEIR_COLLECT_MINOR ? WG_REQ_MINOR : WG_REQ_FULL;
	int err = wg_heap_enter(h);

	if (err)
		return err;
	if (flags &
	    ~(WEIR_COLLECT_MINOR | WEIR_COLLECT_NOWAIT | WEIR_COLLECT_STOPPED))
		return wr_invalid(__func__, "unknown flags %#x", flags);
	if (wg_disabled(h)) {
		/* Who tries again and again must not keep the last cycle,
		 * which may be under way, from stopping this thread. */
		if (m)
			weir_safepoint(m);
		return no_cycles();
	}
	if (flags & WEIR_COLLECT_STOPPED)
		req |= WG_REQ_STOPPED;
	if (!(flags & WEIR_COLLECT_NOWAIT)) {
		err = wg_locked_check(__func__);
		if (err)
			return err;
		return waited(h, m, req) ? 0 : no_cycles();
	}
	return wg_cycle_ask(h, m, req) ? 0 : no_cycles();
}
