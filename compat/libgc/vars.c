/* SPDX-License-Identifier: MIT */
/*
 * The variables of libgc's interface.  Programs read and write them through
 * the global offset table; those that are written after GC_init() have effect
 * only where docs/LIBGC.md says so.
 */
#include "internal.h"

#include <stdio.h>

static void print_and_go_on(const char *message)
{
	if (message)
		fprintf(stderr, "%s\n", message);
}

static void *return_null(size_t n)
{
	(void)n;
	return NULL;
}

static void nothing(void)
{
}

#define VAR LG_API __attribute__((used))

VAR GC_word GC_gc_no;
VAR int GC_parallel;
VAR GC_oom_func GC_oom_fn = return_null;
VAR GC_on_heap_resize_proc GC_on_heap_resize;
VAR int GC_find_leak;
VAR int GC_all_interior_pointers = 1;
VAR int GC_finalize_on_demand;
VAR int GC_java_finalization;
VAR GC_finalizer_notifier_proc GC_finalizer_notifier;
VAR int GC_dont_gc;
VAR int GC_dont_expand;
VAR int GC_use_entire_heap;
VAR int GC_full_freq = 19;
VAR GC_word GC_non_gc_bytes;
VAR int GC_no_dls;
VAR GC_word GC_free_space_divisor = 3;
VAR GC_word GC_max_retries;
VAR char *GC_stackbottom;
VAR int GC_dont_precollect;
VAR unsigned long GC_time_limit = GC_TIME_UNLIMITED;
VAR void *GC_least_plausible_heap_addr = (void *)~(uintptr_t)0;
VAR void *GC_greatest_plausible_heap_addr;
VAR GC_push_other_roots_proc GC_push_other_roots = nothing;
VAR GC_abort_func GC_on_abort = print_and_go_on;
VAR const size_t GC_debug_header_size = 0;
VAR int GC_gcj_kind;
VAR int GC_gcj_debug_kind;
VAR void (*GC_same_obj_print_proc)(void *, void *);
VAR void (*GC_is_valid_displacement_print_proc)(void *);
VAR void (*GC_is_visible_print_proc)(void *);
