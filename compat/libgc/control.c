/* SPDX-License-Identifier: MIT */
/*
 * Collections on request, sizes, settings.  Settings that libgc's algorithm
 * has and weir's has not are kept and returned, without effect: docs/LIBGC.md
 * lists them.
 */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Collecting --------------------------------------------------------- */

static GC_stop_func stop_func;
static int incremental;
static int automatic; /* GC_set_disable_automatic_collection() */

/* Whether one was made: not while disabled, as in libgc. */
static bool collect(void)
{
	int err;

	lg_mutator();
	lg_reuse_empty();
	err = weir_collect(lg_heap, WEIR_COLLECT_FULL);
	if (err == -EBUSY && automatic && !GC_is_disabled()) {
		/* Only those that come by themselves are disabled. */
		weir_collect_release(lg_heap);
		err = weir_collect(lg_heap, WEIR_COLLECT_FULL);
		weir_collect_hold(lg_heap);
	}
	if (err)
		return false;
	lg_after_slow();
	return true;
}

LG_API void GC_gcollect(void)
{
	collect();
}

LG_API void GC_gcollect_and_unmap(void)
{
	collect();
}

LG_API int GC_try_to_collect(GC_stop_func stop)
{
	if (GC_is_disabled() || (stop && stop()))
		return 0;
	return collect();
}

LG_API void GC_set_stop_func(GC_stop_func fn)
{
	stop_func = fn;
}

LG_API GC_stop_func GC_get_stop_func(void)
{
	return stop_func;
}

/* The collector's threads do it. */
LG_API int GC_collect_a_little(void)
{
	lg_mutator();
	lg_after_slow();
	return 0;
}

LG_API void GC_start_incremental_collection(void)
{
	lg_mutator();
	if (incremental)
		weir_collect(lg_heap, WEIR_COLLECT_MINOR | WEIR_COLLECT_NOWAIT);
}

LG_API void GC_enable_incremental(void)
{
	lg_mutator();
	incremental = 1;
}

LG_API int GC_is_incremental_mode(void)
{
	return incremental;
}

/* No call of the system fails because of it, whatever is protected. */
LG_API int GC_incremental_protection_needs(void)
{
	return GC_PROTECTS_NONE;
}

LG_API void GC_set_manual_vdb_allowed(int on)
{
	(void)on;
}

LG_API int GC_get_manual_vdb_allowed(void)
{
	return 0;
}

LG_API void GC_disable(void)
{
	lg_mutator();
	if (weir_collect_hold(lg_heap))
		lg_fatal("GC_disable: %s", weir_error_text());
	__atomic_add_fetch(&GC_dont_gc, 1, __ATOMIC_RELAXED);
}

LG_API void GC_enable(void)
{
	lg_mutator();
	if (__atomic_load_n(&GC_dont_gc, __ATOMIC_RELAXED) <= 0)
		lg_fatal("GC_enable: it was not disabled");
	__atomic_sub_fetch(&GC_dont_gc, 1, __ATOMIC_RELAXED);
	weir_collect_release(lg_heap);
}

LG_API int GC_is_disabled(void)
{
	return __atomic_load_n(&GC_dont_gc, __ATOMIC_RELAXED) != 0;
}

LG_API void GC_set_disable_automatic_collection(int on)
{
	lg_mutator();
	if (on && !automatic)
		weir_collect_hold(lg_heap);
	else if (!on && automatic)
		weir_collect_release(lg_heap);
	automatic = on != 0;
}

LG_API int GC_get_disable_automatic_collection(void)
{
	return automatic;
}

/* ---- Sizes -------------------------------------------------------------- */

static struct weir_stats stats(void)
{
	struct weir_stats s = {.size = sizeof(s)};

	if (lg_heap)
		weir_heap_stats(lg_heap, &s);
	return s;
}

LG_API size_t GC_get_heap_size(void)
{
	struct weir_stats s = stats();

	return s.heap_committed > s.heap_used ? s.heap_committed : s.heap_used;
}

LG_API size_t GC_get_free_bytes(void)
{
	struct weir_stats s = stats();

	return s.heap_committed > s.heap_live ? s.heap_committed - s.heap_live
					      : 0;
}

LG_API size_t GC_get_unmapped_bytes(void)
{
	return 0;
}

LG_API size_t GC_get_expl_freed_bytes_since_gc(void)
{
	return 0;
}

LG_API size_t GC_get_total_bytes(void)
{
	return stats().allocated;
}

LG_API size_t GC_get_obtained_from_os_bytes(void)
{
	return GC_get_heap_size();
}

LG_API size_t GC_get_memory_use(void)
{
	return stats().heap_used;
}

LG_API size_t GC_get_size_map_at(int i)
{
	return i < 0 || i > 2048 ? (size_t)-1 : ((size_t)i + 15) & ~(size_t)15;
}

LG_API void GC_get_heap_usage_safe(GC_word *heap, GC_word *free_bytes,
				   GC_word *unmapped, GC_word *since_gc,
				   GC_word *total)
{
	if (heap)
		*heap = GC_get_heap_size();
	if (free_bytes)
		*free_bytes = GC_get_free_bytes();
	if (unmapped)
		*unmapped = 0;
	if (since_gc)
		*since_gc = GC_get_bytes_since_gc();
	if (total)
		*total = GC_get_total_bytes();
}

LG_API size_t GC_get_prof_stats(struct GC_prof_stats_s *out, size_t size)
{
	struct weir_stats s = stats();
	struct GC_prof_stats_s p = {
		.heapsize_full = GC_get_heap_size(),
		.free_bytes_full = GC_get_free_bytes(),
		.bytes_allocd_since_gc = GC_get_bytes_since_gc(),
		.non_gc_bytes = GC_non_gc_bytes,
		.gc_no = GC_get_gc_no(),
		.markers_m1 = (GC_word)GC_get_parallel(),
		.obtained_from_os_bytes = GC_get_obtained_from_os_bytes(),
	};

	p.allocd_bytes_before_gc = s.allocated - p.bytes_allocd_since_gc;
	if (size > sizeof(p)) {
		memset((char *)out + sizeof(p), 0xff, size - sizeof(p));
		size = sizeof(p);
	}
	memcpy(out, &p, size);
	return size;
}

LG_API size_t GC_get_prof_stats_unsafe(struct GC_prof_stats_s *out, size_t size)
{
	return GC_get_prof_stats(out, size);
}

LG_API void GC_start_performance_measurement(void)
{
}

/* The time that the program stood still, in milliseconds. */
LG_API unsigned long GC_get_full_gc_total_time(void)
{
	return stats().pause.total_ns / 1000000;
}

LG_API int GC_get_parallel(void)
{
	return GC_parallel;
}

LG_API int GC_expand_hp(size_t n)
{
	static size_t asked; /* under lg_outer */
	bool done;

	lg_mutator();
	pthread_mutex_lock(&lg_outer);
	done = !weir_heap_reserve(lg_heap, asked + n);
	if (done)
		asked += n;
	pthread_mutex_unlock(&lg_outer);
	return done;
}

LG_API void GC_dump_named(const char *name)
{
	struct weir_stats s = stats();

	printf("***Dump %s\nweir %s, barrier %s\ncycles: %lu full, %lu minor\n"
	       "heap: %lu KiB in use, %lu KiB live, %lu KiB peak\n"
	       "longest pause: %lu us of %lu\n",
	       name ? name : "", weir_version(), s.barrier, s.cycles_full,
	       s.cycles_minor, s.heap_used >> 10, s.heap_live >> 10,
	       s.heap_peak >> 10, s.pause.max_ns / 1000, s.pause.count);
}

LG_API void GC_dump(void)
{
	GC_dump_named(NULL);
}

LG_API void GC_dump_regions(void)
{
	GC_dump_named("regions");
}

LG_API void GC_dump_finalization(void)
{
	GC_dump_named("finalization");
}

LG_API void GC_print_free_list(int kind, size_t granules)
{
	(void)kind;
	(void)granules;
}

/* ---- Settings that are kept --------------------------------------------- */

#define SETTING(type, name, variable)     \
	LG_API void GC_set_##name(type v) \
	{                                 \
		variable = v;             \
	}                                 \
	LG_API type GC_get_##name(void)   \
	{                                 \
		return variable;          \
	}
#define KEPT(type, name, initial)          \
	static type kept_##name = initial; \
	SETTING(type, name, kept_##name)

SETTING(int, all_interior_pointers, GC_all_interior_pointers)
SETTING(int, dont_expand, GC_dont_expand)
SETTING(int, dont_precollect, GC_dont_precollect)
SETTING(int, full_freq, GC_full_freq)
SETTING(GC_word, non_gc_bytes, GC_non_gc_bytes)
SETTING(GC_word, free_space_divisor, GC_free_space_divisor)
SETTING(GC_word, max_retries, GC_max_retries)
SETTING(unsigned long, time_limit, GC_time_limit)
SETTING(GC_oom_func, oom_fn, GC_oom_fn)
SETTING(GC_on_heap_resize_proc, on_heap_resize, GC_on_heap_resize)
SETTING(GC_abort_func, abort_func, GC_on_abort)
KEPT(GC_word, allocd_bytes_per_finalizer, 10000)
KEPT(int, pages_executable, 0)
KEPT(size_t, min_bytes_allocd, 1)
KEPT(int, rate, 10)
KEPT(int, max_prior_attempts, 3)
KEPT(int, force_unmap_on_gcollect, 0)

static struct GC_timeval_s limit_tv;

LG_API void GC_set_time_limit_tv(struct GC_timeval_s tv)
{
	limit_tv = tv;
}

LG_API struct GC_timeval_s GC_get_time_limit_tv(void)
{
	return limit_tv;
}

/* ---- Warnings ----------------------------------------------------------- */

static void print_warning(char *format, GC_word arg)
{
	if (!getenv("GC_NO_WARN"))
		fprintf(stderr, format, arg);
}

static GC_warn_proc warn_proc = print_warning;

void lg_warn(const char *format, GC_word arg)
{
	char text[256];

	snprintf(text, sizeof(text), "GC Warning: %s", format);
	warn_proc(text, arg);
}

LG_API void GC_ignore_warn_proc(char *format, GC_word arg)
{
	(void)format;
	(void)arg;
}

LG_API void GC_set_warn_proc(GC_warn_proc fn)
{
	lg_mutator();
	warn_proc = fn;
}

LG_API GC_warn_proc GC_get_warn_proc(void)
{
	return warn_proc;
}

LG_API void GC_set_log_fd(int fd)
{
	(void)fd; /* WEIR_OPTIONS=log-file=... */
}

static void *die(size_t n)
{
	(void)n;
	lg_fatal("Insufficient memory for the allocation");
}

LG_API void GC_abort_on_oom(void)
{
	GC_oom_fn = die;
}
