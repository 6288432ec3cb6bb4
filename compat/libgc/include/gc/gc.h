/* SPDX-License-Identifier: MIT */
/*
 * The interface of libgc 8.2 (the Boehm collector), for programs that are to
 * run on weir: names, types and values are libgc's, the text is not.  What
 * each does here, and what is not supported, is in docs/LIBGC.md.
 */
#ifndef GC_H
#define GC_H

#include <stddef.h>
#include <stdint.h>

#include "gc_version.h"

#if defined(_REENTRANT) && !defined(GC_THREADS)
#define GC_THREADS
#endif
#if defined(GC_THREADS) && !defined(GC_PTHREADS)
#define GC_PTHREADS
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define GC_API extern
#define GC_CALL
#define GC_CALLBACK
#define GC_ATTR_MALLOC __attribute__((__malloc__))
#define GC_ATTR_ALLOC_SIZE(n) __attribute__((__alloc_size__(n)))
#define GC_GNUC_PREREQ(major, minor) \
	((__GNUC__ << 8) + __GNUC_MINOR__ >= ((major) << 8) + (minor))

typedef unsigned long GC_word;
typedef long GC_signed_word;

typedef void *(*GC_oom_func)(size_t bytes);
typedef void (*GC_on_heap_resize_proc)(GC_word new_size);
typedef void (*GC_finalizer_notifier_proc)(void);
typedef int (*GC_stop_func)(void);
typedef void (*GC_finalization_proc)(void *object, void *data);
typedef void (*GC_await_finalize_proc)(void *object);
typedef void (*GC_warn_proc)(char *format, GC_word arg);
typedef void (*GC_abort_func)(const char *message);
typedef void *(*GC_fn_type)(void *data);
typedef int (*GC_has_static_roots_func)(const char *name, void *start,
					size_t size);

/* ---- Allocation --------------------------------------------------------- */

GC_API GC_ATTR_MALLOC GC_ATTR_ALLOC_SIZE(1) void *GC_malloc(size_t);
GC_API GC_ATTR_MALLOC GC_ATTR_ALLOC_SIZE(1) void *GC_malloc_atomic(size_t);
GC_API GC_ATTR_MALLOC
	GC_ATTR_ALLOC_SIZE(1) void *GC_malloc_uncollectable(size_t);
GC_API GC_ATTR_MALLOC
	GC_ATTR_ALLOC_SIZE(1) void *GC_malloc_atomic_uncollectable(size_t);
GC_API GC_ATTR_MALLOC
	GC_ATTR_ALLOC_SIZE(1) void *GC_malloc_ignore_off_page(size_t);
GC_API GC_ATTR_MALLOC
	GC_ATTR_ALLOC_SIZE(1) void *GC_malloc_atomic_ignore_off_page(size_t);
GC_API GC_ATTR_MALLOC GC_ATTR_ALLOC_SIZE(1) void *GC_malloc_stubborn(size_t);
GC_API GC_ATTR_MALLOC char *GC_strdup(const char *);
GC_API GC_ATTR_MALLOC char *GC_strndup(const char *, size_t);
GC_API GC_ATTR_MALLOC GC_ATTR_ALLOC_SIZE(2) void *GC_memalign(size_t, size_t);
GC_API int GC_posix_memalign(void **, size_t align, size_t);
GC_API GC_ATTR_ALLOC_SIZE(2) void *GC_realloc(void *, size_t);
GC_API void GC_free(void *);
GC_API GC_ATTR_MALLOC void *GC_malloc_many(size_t);
#define GC_NEXT(p) (*(void **)(p))
GC_API void GC_change_stubborn(const void *);
GC_API void GC_end_stubborn_change(const void *);
#ifdef GC_REQUIRE_WCSDUP
GC_API GC_ATTR_MALLOC wchar_t *GC_wcsdup(const wchar_t *);
#endif

GC_API void *GC_base(void *);
GC_API int GC_is_heap_ptr(const void *);
GC_API size_t GC_size(const void *);

/* ---- With the caller's place; headers as in libgc are not kept ----------- */

#define GC_EXTRAS __FILE__, __LINE__
#define GC_EXTRA_PARAMS const char *file, int line

GC_API GC_ATTR_MALLOC void *GC_debug_malloc(size_t, GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC void *GC_debug_malloc_atomic(size_t, GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC void *GC_debug_malloc_uncollectable(size_t,
							  GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC void *
	GC_debug_malloc_atomic_uncollectable(size_t, GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC void *GC_debug_malloc_stubborn(size_t, GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC void *GC_debug_malloc_ignore_off_page(size_t,
							    GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC void *
	GC_debug_malloc_atomic_ignore_off_page(size_t, GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC char *GC_debug_strdup(const char *, GC_EXTRA_PARAMS);
GC_API GC_ATTR_MALLOC char *GC_debug_strndup(const char *, size_t,
					     GC_EXTRA_PARAMS);
GC_API void *GC_debug_realloc(void *, size_t, GC_EXTRA_PARAMS);
GC_API void GC_debug_free(void *);
GC_API void GC_debug_change_stubborn(const void *);
GC_API void GC_debug_end_stubborn_change(const void *);
GC_API GC_ATTR_MALLOC void *GC_debug_malloc_replacement(size_t);
GC_API void *GC_debug_realloc_replacement(void *, size_t);
GC_API void GC_debug_register_displacement(size_t);
GC_API void GC_debug_register_finalizer(void *, GC_finalization_proc, void *,
					GC_finalization_proc *, void **);
GC_API void
GC_debug_register_finalizer_ignore_self(void *, GC_finalization_proc, void *,
					GC_finalization_proc *, void **);
GC_API void GC_debug_register_finalizer_no_order(void *, GC_finalization_proc,
						 void *, GC_finalization_proc *,
						 void **);
GC_API void
GC_debug_register_finalizer_unreachable(void *, GC_finalization_proc, void *,
					GC_finalization_proc *, void **);
GC_API void GC_debug_ptr_store_and_dirty(void *, const void *);
GC_API void GC_ptr_store_and_dirty(void *, const void *);

#ifdef GC_DEBUG
#define GC_MALLOC(n) GC_debug_malloc(n, GC_EXTRAS)
#define GC_MALLOC_ATOMIC(n) GC_debug_malloc_atomic(n, GC_EXTRAS)
#define GC_MALLOC_UNCOLLECTABLE(n) GC_debug_malloc_uncollectable(n, GC_EXTRAS)
#define GC_MALLOC_ATOMIC_UNCOLLECTABLE(n) \
	GC_debug_malloc_atomic_uncollectable(n, GC_EXTRAS)
#define GC_MALLOC_IGNORE_OFF_PAGE(n) \
	GC_debug_malloc_ignore_off_page(n, GC_EXTRAS)
#define GC_MALLOC_ATOMIC_IGNORE_OFF_PAGE(n) \
	GC_debug_malloc_atomic_ignore_off_page(n, GC_EXTRAS)
#define GC_STRDUP(s) GC_debug_strdup(s, GC_EXTRAS)
#define GC_STRNDUP(s, n) GC_debug_strndup(s, n, GC_EXTRAS)
#define GC_REALLOC(p, n) GC_debug_realloc(p, n, GC_EXTRAS)
#define GC_FREE(p) GC_debug_free(p)
#define GC_REGISTER_FINALIZER(p, f, d, of, od) \
	GC_debug_register_finalizer(p, f, d, of, od)
#define GC_REGISTER_FINALIZER_IGNORE_SELF(p, f, d, of, od) \
	GC_debug_register_finalizer_ignore_self(p, f, d, of, od)
#define GC_REGISTER_FINALIZER_NO_ORDER(p, f, d, of, od) \
	GC_debug_register_finalizer_no_order(p, f, d, of, od)
#define GC_REGISTER_FINALIZER_UNREACHABLE(p, f, d, of, od) \
	GC_debug_register_finalizer_unreachable(p, f, d, of, od)
#define GC_END_STUBBORN_CHANGE(p) GC_debug_end_stubborn_change(p)
#define GC_PTR_STORE_AND_DIRTY(p, q) GC_debug_ptr_store_and_dirty(p, q)
#define GC_REGISTER_DISPLACEMENT(n) GC_debug_register_displacement(n)
#else
#define GC_MALLOC(n) GC_malloc(n)
#define GC_MALLOC_ATOMIC(n) GC_malloc_atomic(n)
#define GC_MALLOC_UNCOLLECTABLE(n) GC_malloc_uncollectable(n)
#define GC_MALLOC_ATOMIC_UNCOLLECTABLE(n) GC_malloc_atomic_uncollectable(n)
#define GC_MALLOC_IGNORE_OFF_PAGE(n) GC_malloc_ignore_off_page(n)
#define GC_MALLOC_ATOMIC_IGNORE_OFF_PAGE(n) GC_malloc_atomic_ignore_off_page(n)
#define GC_STRDUP(s) GC_strdup(s)
#define GC_STRNDUP(s, n) GC_strndup(s, n)
#define GC_REALLOC(p, n) GC_realloc(p, n)
#define GC_FREE(p) GC_free(p)
#define GC_REGISTER_FINALIZER(p, f, d, of, od) \
	GC_register_finalizer(p, f, d, of, od)
#define GC_REGISTER_FINALIZER_IGNORE_SELF(p, f, d, of, od) \
	GC_register_finalizer_ignore_self(p, f, d, of, od)
#define GC_REGISTER_FINALIZER_NO_ORDER(p, f, d, of, od) \
	GC_register_finalizer_no_order(p, f, d, of, od)
#define GC_REGISTER_FINALIZER_UNREACHABLE(p, f, d, of, od) \
	GC_register_finalizer_unreachable(p, f, d, of, od)
#define GC_END_STUBBORN_CHANGE(p) GC_end_stubborn_change(p)
#define GC_PTR_STORE_AND_DIRTY(p, q) GC_ptr_store_and_dirty(p, q)
#define GC_REGISTER_DISPLACEMENT(n) GC_register_displacement(n)
#endif
#define GC_GENERAL_REGISTER_DISAPPEARING_LINK(link, obj) \
	GC_general_register_disappearing_link(link, obj)
#define GC_REGISTER_LONG_LINK(link, obj) GC_register_long_link(link, obj)
#define GC_NEW(t) ((t *)GC_MALLOC(sizeof(t)))
#define GC_NEW_ATOMIC(t) ((t *)GC_MALLOC_ATOMIC(sizeof(t)))
#define GC_NEW_UNCOLLECTABLE(t) ((t *)GC_MALLOC_UNCOLLECTABLE(sizeof(t)))
#define GC_MALLOC_STUBBORN(n) GC_MALLOC(n)
#define GC_NEW_STUBBORN(t) GC_NEW(t)
#define GC_CHANGE_STUBBORN(p) GC_change_stubborn(p)
#define GC_PTR_STORE(p, q) (*(void **)(p) = (void *)(q))
#define GC_reachable_here(p) __asm__ __volatile__("" ::"X"(p) : "memory")

/* ---- Starting, collecting ----------------------------------------------- */

GC_API void GC_init(void);
GC_API void GC_deinit(void);
GC_API int GC_is_init_called(void);
GC_API unsigned GC_get_version(void);
#define GC_INIT() GC_init()

GC_API void GC_gcollect(void);
GC_API void GC_gcollect_and_unmap(void);
GC_API int GC_try_to_collect(GC_stop_func);
GC_API void GC_set_stop_func(GC_stop_func);
GC_API GC_stop_func GC_get_stop_func(void);
GC_API int GC_collect_a_little(void);
GC_API void GC_start_incremental_collection(void);
GC_API void GC_enable_incremental(void);
GC_API int GC_is_incremental_mode(void);
#define GC_PROTECTS_POINTER_HEAP 1
#define GC_PROTECTS_PTRFREE_HEAP 2
#define GC_PROTECTS_STATIC_DATA 4
#define GC_PROTECTS_STACK 8
#define GC_PROTECTS_NONE 0
GC_API int GC_incremental_protection_needs(void);
GC_API void GC_set_manual_vdb_allowed(int);
GC_API int GC_get_manual_vdb_allowed(void);
GC_API void GC_disable(void);
GC_API void GC_enable(void);
GC_API int GC_is_disabled(void);

/* ---- Sizes and counts --------------------------------------------------- */

GC_API GC_word GC_get_gc_no(void);
GC_API int GC_get_parallel(void);
GC_API size_t GC_get_heap_size(void);
GC_API size_t GC_get_free_bytes(void);
GC_API size_t GC_get_unmapped_bytes(void);
GC_API size_t GC_get_bytes_since_gc(void);
GC_API size_t GC_get_expl_freed_bytes_since_gc(void);
GC_API size_t GC_get_total_bytes(void);
GC_API size_t GC_get_obtained_from_os_bytes(void);
GC_API size_t GC_get_memory_use(void);
GC_API size_t GC_get_size_map_at(int);
GC_API void GC_get_heap_usage_safe(GC_word *heap, GC_word *free_bytes,
				   GC_word *unmapped, GC_word *since_gc,
				   GC_word *total);
struct GC_prof_stats_s {
	GC_word heapsize_full;
	GC_word free_bytes_full;
	GC_word unmapped_bytes;
	GC_word bytes_allocd_since_gc;
	GC_word allocd_bytes_before_gc;
	GC_word non_gc_bytes;
	GC_word gc_no;
	GC_word markers_m1;
	GC_word bytes_reclaimed_since_gc;
	GC_word reclaimed_bytes_before_gc;
	GC_word expl_freed_bytes_since_gc;
	GC_word obtained_from_os_bytes;
};
GC_API size_t GC_get_prof_stats(struct GC_prof_stats_s *, size_t);
GC_API size_t GC_get_prof_stats_unsafe(struct GC_prof_stats_s *, size_t);
GC_API void GC_start_performance_measurement(void);
GC_API unsigned long GC_get_full_gc_total_time(void);

/* ---- Settings ----------------------------------------------------------- */

GC_API int GC_expand_hp(size_t);
GC_API void GC_set_max_heap_size(GC_word);
GC_API void GC_set_all_interior_pointers(int);
GC_API int GC_get_all_interior_pointers(void);
GC_API void GC_set_find_leak(int);
GC_API int GC_get_find_leak(void);
GC_API void GC_set_dont_expand(int);
GC_API int GC_get_dont_expand(void);
GC_API void GC_set_dont_precollect(int);
GC_API int GC_get_dont_precollect(void);
GC_API void GC_set_full_freq(int);
GC_API int GC_get_full_freq(void);
GC_API void GC_set_non_gc_bytes(GC_word);
GC_API GC_word GC_get_non_gc_bytes(void);
GC_API void GC_set_free_space_divisor(GC_word);
GC_API GC_word GC_get_free_space_divisor(void);
GC_API void GC_set_max_retries(GC_word);
GC_API GC_word GC_get_max_retries(void);
GC_API void GC_set_time_limit(unsigned long);
GC_API unsigned long GC_get_time_limit(void);
#define GC_TIME_UNLIMITED 999999
struct GC_timeval_s {
	unsigned long tv_ms;
	unsigned long tv_nsec;
};
GC_API void GC_set_time_limit_tv(struct GC_timeval_s);
GC_API struct GC_timeval_s GC_get_time_limit_tv(void);
GC_API void GC_set_allocd_bytes_per_finalizer(GC_word);
GC_API GC_word GC_get_allocd_bytes_per_finalizer(void);
GC_API void GC_set_pages_executable(int);
GC_API int GC_get_pages_executable(void);
GC_API void GC_set_min_bytes_allocd(size_t);
GC_API size_t GC_get_min_bytes_allocd(void);
GC_API void GC_set_rate(int);
GC_API int GC_get_rate(void);
GC_API void GC_set_max_prior_attempts(int);
GC_API int GC_get_max_prior_attempts(void);
GC_API void GC_set_disable_automatic_collection(int);
GC_API int GC_get_disable_automatic_collection(void);
GC_API void GC_set_force_unmap_on_gcollect(int);
GC_API int GC_get_force_unmap_on_gcollect(void);
GC_API void GC_set_handle_fork(int);
GC_API void GC_atfork_prepare(void);
GC_API void GC_atfork_parent(void);
GC_API void GC_atfork_child(void);
GC_API void GC_set_markers_count(unsigned);

/* ---- Roots -------------------------------------------------------------- */

GC_API void GC_add_roots(void *low, void *end);
GC_API void GC_remove_roots(void *low, void *end);
GC_API void GC_clear_roots(void);
GC_API void GC_exclude_static_roots(void *low, void *end);
GC_API void GC_clear_exclusion_table(void);
GC_API void GC_set_no_dls(int);
GC_API int GC_get_no_dls(void);
GC_API void GC_register_has_static_roots_callback(GC_has_static_roots_func);
GC_API void GC_register_displacement(size_t);

/* ---- Finalizers and links ----------------------------------------------- */

GC_API void GC_register_finalizer(void *, GC_finalization_proc, void *,
				  GC_finalization_proc *, void **);
GC_API void GC_register_finalizer_ignore_self(void *, GC_finalization_proc,
					      void *, GC_finalization_proc *,
					      void **);
GC_API void GC_register_finalizer_no_order(void *, GC_finalization_proc, void *,
					   GC_finalization_proc *, void **);
GC_API void GC_register_finalizer_unreachable(void *, GC_finalization_proc,
					      void *, GC_finalization_proc *,
					      void **);
GC_API int GC_invoke_finalizers(void);
GC_API int GC_should_invoke_finalizers(void);
GC_API void GC_set_finalize_on_demand(int);
GC_API int GC_get_finalize_on_demand(void);
GC_API void GC_set_java_finalization(int);
GC_API int GC_get_java_finalization(void);
GC_API void GC_set_finalizer_notifier(GC_finalizer_notifier_proc);
GC_API GC_finalizer_notifier_proc GC_get_finalizer_notifier(void);
GC_API void GC_set_await_finalize_proc(GC_await_finalize_proc);
GC_API GC_await_finalize_proc GC_get_await_finalize_proc(void);

GC_API int GC_register_disappearing_link(void **);
GC_API int GC_general_register_disappearing_link(void **, const void *);
GC_API int GC_move_disappearing_link(void **from, void **to);
GC_API int GC_unregister_disappearing_link(void **);
GC_API int GC_register_long_link(void **, const void *);
GC_API int GC_move_long_link(void **from, void **to);
GC_API int GC_unregister_long_link(void **);

typedef enum {
	GC_TOGGLE_REF_DROP,
	GC_TOGGLE_REF_STRONG,
	GC_TOGGLE_REF_WEAK
} GC_ToggleRefStatus;
typedef GC_ToggleRefStatus (*GC_toggleref_func)(void *);
GC_API void GC_set_toggleref_func(GC_toggleref_func);
GC_API GC_toggleref_func GC_get_toggleref_func(void);
GC_API int GC_toggleref_add(void *, int is_strong);

typedef GC_word GC_hidden_pointer;
#define GC_HIDE_POINTER(p) (~(GC_hidden_pointer)(p))
#define GC_REVEAL_POINTER(p) ((void *)GC_HIDE_POINTER(p))
#if defined(I_HIDE_POINTERS) || defined(GC_I_HIDE_POINTERS)
#define HIDE_POINTER(p) GC_HIDE_POINTER(p)
#define REVEAL_POINTER(p) GC_REVEAL_POINTER(p)
#endif

#define GC_SUCCESS 0
#define GC_DUPLICATE 1
#define GC_NO_MEMORY 2
#define GC_NO_THREADS 2
#define GC_UNIMPLEMENTED 3
#define GC_NOT_FOUND 4

/* ---- Threads and stacks ------------------------------------------------- */

struct GC_stack_base {
	void *mem_base;
};
typedef void *(*GC_stack_base_func)(struct GC_stack_base *, void *);
GC_API void *GC_call_with_stack_base(GC_stack_base_func, void *);
GC_API int GC_get_stack_base(struct GC_stack_base *);
GC_API void *GC_get_my_stackbottom(struct GC_stack_base *);
GC_API void GC_set_stackbottom(void *thread, const struct GC_stack_base *);
GC_API void *GC_do_blocking(GC_fn_type, void *);
GC_API void *GC_call_with_gc_active(GC_fn_type, void *);
GC_API void *GC_call_with_alloc_lock(GC_fn_type, void *);
GC_API void GC_alloc_lock(void);
GC_API void GC_alloc_unlock(void);
GC_API void GC_start_mark_threads(void);
GC_API void GC_allow_register_threads(void);
GC_API int GC_register_my_thread(const struct GC_stack_base *);
GC_API int GC_unregister_my_thread(void);
GC_API int GC_thread_is_registered(void);
GC_API void GC_register_altstack(void *stack, GC_word size, void *altstack,
				 GC_word altsize);
GC_API void GC_set_suspend_signal(int);
GC_API int GC_get_suspend_signal(void);
GC_API void GC_set_thr_restart_signal(int);
GC_API int GC_get_thr_restart_signal(void);
GC_API void GC_stop_world_external(void);
GC_API void GC_start_world_external(void);

/* ---- Being told --------------------------------------------------------- */

GC_API void GC_set_oom_fn(GC_oom_func);
GC_API GC_oom_func GC_get_oom_fn(void);
GC_API void GC_set_on_heap_resize(GC_on_heap_resize_proc);
GC_API GC_on_heap_resize_proc GC_get_on_heap_resize(void);
typedef enum {
	GC_EVENT_START,
	GC_EVENT_MARK_START,
	GC_EVENT_MARK_END,
	GC_EVENT_RECLAIM_START,
	GC_EVENT_RECLAIM_END,
	GC_EVENT_END,
	GC_EVENT_PRE_STOP_WORLD,
	GC_EVENT_POST_STOP_WORLD,
	GC_EVENT_PRE_START_WORLD,
	GC_EVENT_POST_START_WORLD,
	GC_EVENT_THREAD_SUSPENDED,
	GC_EVENT_THREAD_UNSUSPENDED
} GC_EventType;
typedef void (*GC_on_collection_event_proc)(GC_EventType);
GC_API void GC_set_on_collection_event(GC_on_collection_event_proc);
GC_API GC_on_collection_event_proc GC_get_on_collection_event(void);
typedef void (*GC_on_thread_event_proc)(GC_EventType, void *thread);
GC_API void GC_set_on_thread_event(GC_on_thread_event_proc);
GC_API GC_on_thread_event_proc GC_get_on_thread_event(void);
GC_API void GC_set_warn_proc(GC_warn_proc);
GC_API GC_warn_proc GC_get_warn_proc(void);
GC_API void GC_ignore_warn_proc(char *, GC_word);
GC_API void GC_set_log_fd(int);
GC_API void GC_set_abort_func(GC_abort_func);
GC_API GC_abort_func GC_get_abort_func(void);
GC_API void GC_abort_on_oom(void);
GC_API void GC_dump(void);
GC_API void GC_dump_named(const char *);
GC_API void GC_dump_regions(void);
GC_API void GC_dump_finalization(void);

/* ---- Pointer checks ------------------------------------------------------ */

GC_API void *GC_same_obj(void *, void *);
GC_API void *GC_pre_incr(void **, ptrdiff_t);
GC_API void *GC_post_incr(void **, ptrdiff_t);
GC_API void *GC_is_visible(void *);
GC_API void *GC_is_valid_displacement(void *);
GC_API void GC_noop1(GC_word);
GC_API void (*GC_same_obj_print_proc)(void *, void *);
GC_API void (*GC_is_valid_displacement_print_proc)(void *);
GC_API void (*GC_is_visible_print_proc)(void *);
#define GC_PTR_ADD(x, n) ((x) + (n))
#define GC_PRE_INCR(x, n) ((x) += (n))
#define GC_POST_INCR(x) ((x)++)
#define GC_POST_DECR(x) ((x)--)

/* ---- Variables of the interface ------------------------------------------ */

GC_API GC_word GC_gc_no;
GC_API int GC_parallel;
GC_API GC_oom_func GC_oom_fn;
GC_API GC_on_heap_resize_proc GC_on_heap_resize;
GC_API int GC_find_leak;
GC_API int GC_all_interior_pointers;
GC_API int GC_finalize_on_demand;
GC_API int GC_java_finalization;
GC_API GC_finalizer_notifier_proc GC_finalizer_notifier;
GC_API int GC_dont_gc;
GC_API int GC_dont_expand;
GC_API int GC_use_entire_heap;
GC_API int GC_full_freq;
GC_API GC_word GC_non_gc_bytes;
GC_API int GC_no_dls;
GC_API GC_word GC_free_space_divisor;
GC_API GC_word GC_max_retries;
GC_API char *GC_stackbottom;
GC_API int GC_dont_precollect;
GC_API unsigned long GC_time_limit;
GC_API GC_abort_func GC_on_abort;

#ifdef __cplusplus
}
#endif

#ifdef GC_PTHREADS
#include "gc_pthread_redirects.h"
#endif
#endif
