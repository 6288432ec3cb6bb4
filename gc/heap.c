/* SPDX-License-Identifier: MIT */
/*
 * Creating and destroying the heap, limits, statistics, object queries.
 *
 *   create, destroy   one thread, nothing else on the heap beside it but
 *                     attach (wg_attach_begin)
 *   the rest          any thread
 *
 * create_lock comes before every other lock, and its holder may wait for the
 * end of a stop: an attached thread waits for it in a blocking region.
 */
#include "gc/mark.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <weir/embed.h>

#include "gc/always.h"
#include "gc/event_hook.h"
#include "gc/locked.h"
#include "gc/mutant.h"
#include "gc/report.h"
#include "gc/verify.h"
#include "gc/weak.h"
#include "runtime/sized.h"

struct weir_heap *wg_heap;
static struct wr_mutex create_lock = WR_MUTEX_INITIALIZER(WR_RANK_create);

/* Threads on their way into the registry.  A leaf: held for a few instructions
 * and never by a thread that is stopped, so attach may come from anywhere,
 * with the dynamic loader's lock held too. */
static struct wr_mutex attach_lock = WR_MUTEX_INITIALIZER(WR_RANK_attach);
static unsigned attaching;
static bool closed; /* the heap is being destroyed */

static void lock_create(void)
{
	struct weir_mutator *m = wg_mutator_self();
	bool entered = wg_region_enter(m);

	wr_mutex_lock(&create_lock);
	wg_region_leave(m, entered);
}

bool wg_attach_begin(const struct weir_heap *h)
{
	bool ok;

	wr_mutex_lock(&attach_lock);
	/* Acquire: partner of the release in create(); the address may be that
	 * of an earlier heap, which the caller has seen made. */
	ok = !closed && h == __atomic_load_n(&wg_heap, __ATOMIC_ACQUIRE);
	attaching += ok;
	wr_mutex_unlock(&attach_lock);
	return ok;
}

void wg_attach_end(void)
{
	wr_mutex_lock(&attach_lock);
	attaching--;
	wr_mutex_unlock(&attach_lock);
}

void wg_attach_fork(int stage)
{
	if (stage == 0) {
		wr_mutex_lock(&attach_lock);
		return;
	}
	if (stage == 2)
		attaching = 0;
	wr_mutex_unlock(&attach_lock);
}

/* Let no thread attach any more; if some but the caller's, with mutator m, are
 * attached or about to be: how many. */
static size_t close_heap(struct weir_heap *h, struct weir_mutator *m)
{
	size_t others;

	wg_critical_enter(m);
	wr_mutex_lock(&attach_lock);
	/* Who attaches is counted there before it is not any more here. */
	others = attaching + wr_threads_count(h->threads) - (m != NULL);
	closed = !others;
	wr_mutex_unlock(&attach_lock);
	if (m) {
		WEIR_COMPILER_BARRIER();
		m->b.critical--;
		WEIR_COMPILER_BARRIER();
		weir_safepoint(m);
	}
	return others;
}

int wg_in_callback(const char *function)
{
	errno = EDEADLK;
	return wr_error(EDEADLK,
			"%s: called from a trace or root callback, which may "
			"not: the collector would wait for itself",
			function);
}

int wg_heap_enter_check(const struct weir_heap *h, const char *function)
{
	if (wr_unlikely(wg_on_collector_thread()))
		return wg_in_callback(function);
	return wg_heap_check(h, function) ? 0 : -EINVAL;
}

void wg_lock(struct weir_heap *h, struct weir_mutator *m)
{
	if (m) {
		m->b.critical++;
		WEIR_COMPILER_BARRIER();
	}
	wr_mutex_lock(&h->lock);
}

void wg_unlock(struct weir_heap *h, struct weir_mutator *m)
{
	wr_mutex_unlock(&h->lock);
	wg_critical_leave(m);
}

static int read_options(struct weir_heap *h,
			const struct weir_heap_options *opts)
{
	const char *env = getenv("WEIR_OPTIONS");
	int err = wr_options_init(&h->opt);

	if (!err && opts && opts->options)
		err = wr_options_parse(&h->opt, opts->options,
				       "weir_heap_options.options");
	if (!err && env)
		err = wr_options_parse(&h->opt, env, "WEIR_OPTIONS");
	return err;
}

static void set_counts(struct weir_heap *h)
{
	unsigned cpus = h->sys->cpus();

	h->markers = (unsigned)h->opt.markers;
	if (!h->markers)
		h->markers = cpus > 1 ? cpus / 2 : 1;
	h->pause_markers = (unsigned)h->opt.pause_markers;
	if (!h->pause_markers)
		h->pause_markers = cpus;
	if (h->markers > WG_MAX_MARKERS)
		h->markers = WG_MAX_MARKERS;
	h->beside = h->markers;
	if (h->pause_markers > WG_MAX_MARKERS)
		h->pause_markers = WG_MAX_MARKERS;
}

static int create_parts(struct weir_heap *h)
{
	struct wr_threads_config config = {
		.mode = h->opt.stop,
		.suspend_signal = (int)h->opt.suspend_signal,
		.on_exit = wg_mutator_on_exit,
		.waited = wg_handshake_waited,
		.arg = h,
	};
	/* The rest is for side tables, mark stacks and everybody else. */
	size_t max = h->opt.heap_max ? h->opt.heap_max
				     : h->sys->memory_limit() / 4 * 3;
	int err;

	h->hard = max;
	h->soft = h->opt.heap_soft;
	if (h->soft > h->hard)
		return wr_error(EINVAL,
				"heap-soft=%zu is above heap-max=%zu; lower it",
				h->soft, h->hard);
	err = wr_events_open(h->opt.log, h->opt.log_file, h->opt.trace,
			     &h->events);
	if (!err)
		err = wg_blocks_init(h, max, h->opt.heap_max != 0);
	if (!err && h->hard > h->span)
		h->hard = h->span;
	if (!err)
		err = wr_barrier_create(h->opt.barrier, &h->barrier);
	if (!err && !wr_barrier_huge_pages(h->barrier))
		h->opt.thp = false;
	if (!err)
		err = wr_barrier_add_range(h->barrier, (void *)h->base,
					   h->span);
	if (!err)
		err = wr_threads_create(&config, &h->threads);
	if (!err)
		err = wr_roots_create(h->opt.data_segments, &h->roots);
	if (!err)
		err = wg_kinds_create(h);
	if (!err)
		err = wg_weak_create(h);
	if (!err)
		err = wg_always_create(h);
	if (!err)
		err = wg_verify_create(h);
	if (err)
		return err;
	h->pool = wg_pool_create(h->sys, h->opt.mark_stack_max
						 ? h->opt.mark_stack_max
						 : max / 4 + (16u << 20));
	if (!h->pool)
		return wr_error(ENOMEM, "no memory for the mark stacks");
	return wg_collector_start(h);
}

static void destroy_parts(struct weir_heap *h)
{
	wg_collector_stop(h);
	wg_weak_destroy(h);
	wg_always_destroy(h);
	wg_verify_destroy(h);
	for (unsigned i = 0; i < WG_MAX_MARKERS; i++)
		wg_marker_destroy(h->marker[i]);
	wg_pool_destroy(h->pool);
	free(h->later);
	wg_kinds_fini(h);
	if (h->roots)
		wr_roots_destroy(h->roots);
	if (h->threads)
		wr_threads_destroy(h->threads);
	if (h->barrier)
		wr_barrier_destroy(h->barrier);
	if (h->base)
		wg_blocks_fini(h);
	if (h->events)
		wr_events_close(h->events);
	wr_options_fini(&h->opt);
	wr_mutex_destroy(&h->lock);
	wr_mutex_destroy(&h->calls_lock);
	wr_mutex_destroy(&h->hook_lock);
	wr_mutex_destroy(&h->ctl_lock);
	pthread_cond_destroy(&h->ctl_wake);
	pthread_cond_destroy(&h->ctl_done);
	free(h);
}

static int create(const struct weir_heap_options *opts, weir_heap **out)
{
	struct weir_heap *h;
	int err;

	h = aligned_alloc(64, (sizeof(*h) + 63) & ~(size_t)63);
	if (!h)
		return wr_error(ENOMEM, "weir_heap_create: no memory");
	memset(h, 0, sizeof(*h));
	wg_mutant_init();
	h->sys = wr_sys_linux();
	h->colour = WG_BLACK_A;
	h->lazy_arm = true;
	h->slice_page_ns = 2000; /* until it is measured */
	h->newborn = WG_YOUNG;
	h->stage = WR_PHASES;
	wr_mutex_init(&h->lock, WR_RANK_heap);
	wg_locked_init(h);
	wg_hook_init(h);
	wg_control_init(h);
	if (opts) {
		h->oom = opts->oom;
		h->oom_arg = opts->oom_arg;
	}
	err = read_options(h, opts);
	if (!err) {
		set_counts(h);
		err = create_parts(h);
	}
	if (err) {
		destroy_parts(h);
		return err;
	}
	wg_report_barrier(h);
	wg_pace_cycle_end(h);
	__atomic_store_n(&wg_heap, h, __ATOMIC_RELEASE);
	*out = h;
	return 0;
}

int weir_heap_create(const struct weir_heap_options *opts, weir_heap **out)
{
	int err;

	if (!out)
		return wr_invalid(__func__, "no place for the result");
	if (wg_on_collector_thread())
		return wg_in_callback(__func__);
	if (wg_locked_check(__func__))
		return -EDEADLK;
	if (opts && opts->size != sizeof(*opts))
		return wr_error(EINVAL,
				"weir_heap_create: options of %zu bytes, this "
				"library knows %zu; set size to sizeof(struct "
				"weir_heap_options)",
				opts->size, sizeof(*opts));
	lock_create();
	wg_fork_init(&create_lock);
	if (wg_heap)
		err = wr_error(EBUSY, "weir_heap_create: this process has a "
				      "heap already; destroy it first");
	else
		err = create(opts, out);
	wr_mutex_unlock(&create_lock);
	return err;
}

int weir_heap_destroy(weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	size_t others;
	int err;

	if (!h)
		return 0;
	err = wg_heap_enter(h);
	if (!err)
		err = wg_locked_check(__func__);
	if (!err && m)
		err = wg_mutator_idle(m, __func__);
	if (err)
		return err;
	/* Not under the lock: a finalizer may fork. */
	wg_weak_thread_stop(h);
	lock_create();
	others = close_heap(h, m);
	if (others) {
		wr_mutex_unlock(&create_lock);
		wg_weak_thread_allow(h);
		return wr_error(EBUSY,
				"weir_heap_destroy: %zu other threads are "
				"attached; detach them first",
				others);
	}
	while (m && m->attached > 1)
		weir_thread_detach(m);
	if (m)
		weir_thread_detach(m);
	/* Callbacks may ask about the heap until no thread runs them. */
	wg_collector_stop(h);
	wr_mutex_lock(&attach_lock);
	__atomic_store_n(&wg_heap, NULL, __ATOMIC_RELEASE);
	closed = false;
	wr_mutex_unlock(&attach_lock);
	destroy_parts(h);
	wr_mutex_unlock(&create_lock);
	return 0;
}

int weir_heap_set_limits(weir_heap *h, size_t soft, size_t hard)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);

	if (err)
		return err;
	wg_lock(h, m);
	if (!hard)
		hard = h->hard;
	if (!soft)
		soft = h->soft;
	if (hard > h->span || soft > hard) {
		err = EINVAL;
	} else {
		/* Relaxed: partner of wg_hard() and wg_soft(). */
		__atomic_store_n(&h->hard, hard, __ATOMIC_RELAXED);
		__atomic_store_n(&h->soft, soft, __ATOMIC_RELAXED);
	}
	wg_unlock(h, m);
	if (err)
		return wr_error(EINVAL,
				"weir_heap_set_limits: soft %zu must be at "
				"most hard %zu, and that at most the %zu bytes "
				"reserved at creation (heap-max)",
				soft, hard, h->span);
	return 0;
}

void *weir_object_base(weir_heap *h, const void *p)
{
	size_t g;

	if (!wg_heap_ok(h))
		return NULL;
	g = wg_resolve(h, (uintptr_t)p);
	return g == SIZE_MAX ? NULL : (void *)wg_granule_start(h, g);
}

size_t weir_object_size(weir_heap *h, const void *p)
{
	size_t g, bytes;

	if (!wg_heap_ok(h))
		return 0;
	g = wg_resolve(h, (uintptr_t)p);
	if (g == SIZE_MAX || wg_granule_start(h, g) != (uintptr_t)p)
		return 0;
	bytes = wg_object_bytes_now(h, g);
	if (bytes && wg_meta_load(&h->meta[g]) >> WEIR_META_KIND_SHIFT ==
			     WG_INLINE_KINDS)
		bytes -= 8;
	return bytes;
}

int weir_object_kind(weir_heap *h, const void *p, weir_kind *kind)
{
	size_t g, bytes = 0;
	uint64_t k;

	if (!wg_heap_ok(h))
		return -EINVAL;
	if (!kind)
		return wr_invalid(__func__, "no place for the result");
	g = wg_resolve(h, (uintptr_t)p);
	if (g != SIZE_MAX && wg_granule_start(h, g) == (uintptr_t)p)
		bytes = wg_object_bytes_now(h, g);
	if (!bytes)
		return wr_error(ENOENT, "weir_object_kind: no object starts "
					"there");
	k = wg_meta_load(&h->meta[g]) >> WEIR_META_KIND_SHIFT;
	if (k == WG_INLINE_KINDS)
		memcpy(&k, (const char *)p + bytes - 8, sizeof(k));
	*kind = (weir_kind)k;
	return 0;
}

static uint64_t read_counter(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

int weir_heap_stats(weir_heap *h, struct weir_stats *out)
{
	struct wr_barrier_stats barrier;
	struct weir_stats s;

	if (!wg_heap_ok(h))
		return -EINVAL;
	if (!out || out->size < sizeof(size_t))
		return wr_invalid(__func__, "stats is NULL, or stats->size is "
					    "not set");
	memset(&s, 0, sizeof(s));
	s.cycles_full = read_counter(&h->stats.cycles_full);
	s.cycles_minor = read_counter(&h->stats.cycles_minor);
	s.cycles_stopped = read_counter(&h->stats.cycles_stopped);
	s.dirty_pages = read_counter(&h->stats.dirty_pages);
	s.remark_dirty = read_counter(&h->stats.remark_dirty);
	s.overflows = read_counter(&h->stats.overflows);
	s.heap_used = __atomic_load_n(&h->used, __ATOMIC_RELAXED);
	s.heap_live = __atomic_load_n(&h->live, __ATOMIC_RELAXED);
	s.heap_committed = __atomic_load_n(&h->committed, __ATOMIC_RELAXED);
	s.heap_peak = __atomic_load_n(&h->peak, __ATOMIC_RELAXED);
	s.allocated = __atomic_load_n(&h->allocated, __ATOMIC_RELAXED);
	s.collector_cpu_ns = __atomic_load_n(&h->cpu_ns, __ATOMIC_RELAXED);
	wr_histogram_read(&h->stats.pause, &s.pause);
	wr_histogram_read(&h->stats.stop, &s.stop);
	wr_histogram_read(&h->stats.handshake, &s.handshake);
	wr_histogram_read(&h->stats.waited, &s.waited);
	wr_histogram_read(&h->stats.assist, &s.assist);
	strncpy(s.barrier, wr_barrier_name(wr_barrier_kind(h->barrier)),
		sizeof(s.barrier) - 1);
	wr_barrier_stats(h->barrier, &barrier);
	s.barrier_faults = barrier.faults;
	wr_sized_fill(out, &s, sizeof(s));
	return 0;
}

/*
 * Roots are runtime's; these check the heap and say whose they are.  Their
 * lock is held over a pause, so an attached caller waits for it as a blocked
 * thread: one that is stopped at safepoints only would never let the pause
 * begin.
 */
/* Inlined, both: the caller's frame is the region's (runtime/thread.h). */
static inline __attribute__((always_inline)) struct weir_mutator *
roots_enter(void)
{
	struct weir_mutator *m = wg_mutator_self();

	return m && wr_thread_block_enter(&m->thread) ? m : NULL;
}

static inline __attribute__((always_inline)) int
roots_leave(struct weir_mutator *m, int err, const char *function)
{
	if (m)
		wr_thread_block_leave(&m->thread);
	return err ? wr_error(-err, "%s: %s", function, weir_error_text()) : 0;
}

/* fn, of wr_roots_add() and the like, for [start, start + size). */
static int root_range(weir_heap *h, const void *start, size_t size,
		      int (*fn)(struct wr_roots *, uintptr_t, uintptr_t),
		      const char *function)
{
	int err = wg_heap_enter_check(h, function);
	uintptr_t at = (uintptr_t)start;
	struct weir_mutator *m;

	if (err)
		return err;
	if (!start)
		return wr_invalid(function, "the start is NULL");
	if (at + size < at)
		return wr_invalid(function,
				  "%zu bytes from %p pass the end of the "
				  "address space",
				  size, start);
	m = roots_enter();
	return roots_leave(m, fn(h->roots, at, at + size), function);
}

int weir_root_add(weir_heap *h, const void *start, size_t size)
{
	return root_range(h, start, size, wr_roots_add, __func__);
}

int weir_root_remove(weir_heap *h, const void *start, size_t size)
{
	return root_range(h, start, size, wr_roots_remove, __func__);
}

int weir_root_exclude(weir_heap *h, const void *start, size_t size)
{
	return root_range(h, start, size, wr_roots_exclude, __func__);
}

int weir_root_add_callback(weir_heap *h, weir_root_fn *fn, void *arg,
			   unsigned flags)
{
	int err = wg_heap_enter(h);
	struct weir_mutator *m;

	if (err)
		return err;
	if (!fn)
		return wr_invalid(__func__, "the function is NULL");
	if (flags & ~WEIR_TRACE_CONCURRENT)
		return wr_invalid(__func__, "unknown flags %#x", flags);
	m = roots_enter();
	return roots_leave(
		m,
		wr_roots_add_call(h->roots, (void (*)(void))fn, arg,
				  (flags & WEIR_TRACE_CONCURRENT) != 0),
		__func__);
}

int weir_root_remove_callback(weir_heap *h, weir_root_fn *fn, void *arg)
{
	int err = wg_heap_enter(h);
	struct weir_mutator *m;

	if (err)
		return err;
	if (!fn)
		return wr_invalid(__func__, "the function is NULL");
	m = roots_enter();
	return roots_leave(
		m, wr_roots_remove_call(h->roots, (void (*)(void))fn, arg),
		__func__);
}

int weir_root_data_segments(weir_heap *h, int on)
{
	int err = wg_heap_enter(h);
	struct weir_mutator *m;

	if (err)
		return err;
	m = roots_enter();
	return roots_leave(m, wr_roots_data_segments(h->roots, on != 0),
			   __func__);
}

int weir_root_segment_filter(weir_heap *h, weir_segment_fn *fn, void *arg)
{
	int err = wg_heap_enter(h);
	struct weir_mutator *m;

	if (err)
		return err;
	m = roots_enter();
	return roots_leave(m, wr_roots_segment_filter(h->roots, fn, arg),
			   __func__);
}

int weir_root_exclude_none(weir_heap *h)
{
	int err = wg_heap_enter(h);
	struct weir_mutator *m;

	if (err)
		return err;
	m = roots_enter();
	return roots_leave(m, wr_roots_exclude_none(h->roots), __func__);
}
