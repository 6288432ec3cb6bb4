/* SPDX-License-Identifier: MIT */
/* Kinds of objects, mark procedures, marking from roots: as in libgc 8.2. */
#ifndef GC_MARK_H
#define GC_MARK_H

#include "gc.h"

#ifdef __cplusplus
extern "C" {
#endif

struct GC_ms_entry {
	void *opaque;
};
typedef struct GC_ms_entry *(*GC_mark_proc)(GC_word *object,
					    struct GC_ms_entry *top,
					    struct GC_ms_entry *limit,
					    GC_word env);
#define GC_PROC_BYTES 100
#define GC_LOG_MAX_MARK_PROCS 6
#define GC_MAX_MARK_PROCS (1 << GC_LOG_MAX_MARK_PROCS)
#define GC_RESERVED_MARK_PROCS 8
#define GC_GCJ_RESERVED_MARK_PROC_INDEX 0

/* Descriptors: how the low bits say what the rest is. */
#define GC_DS_TAG_BITS 2
#define GC_DS_TAGS ((1 << GC_DS_TAG_BITS) - 1)
#define GC_DS_LENGTH 0
#define GC_DS_BITMAP 1
#define GC_DS_PROC 2
#define GC_DS_PER_OBJECT 3
#define GC_INDIR_PER_OBJ_BIAS 0x10
#define GC_MAKE_PROC(index, env)                                            \
	(((((env) << GC_LOG_MAX_MARK_PROCS) | (index)) << GC_DS_TAG_BITS) | \
	 GC_DS_PROC)

GC_API void *GC_least_plausible_heap_addr;
GC_API void *GC_greatest_plausible_heap_addr;
GC_API struct GC_ms_entry *GC_mark_and_push(void *, struct GC_ms_entry *top,
					    struct GC_ms_entry *limit,
					    void **from);
#define GC_MARK_AND_PUSH(obj, top, limit, from)                           \
	((GC_word)(obj) >= (GC_word)GC_least_plausible_heap_addr &&       \
			 (GC_word)(obj) <=                                \
				 (GC_word)GC_greatest_plausible_heap_addr \
		 ? GC_mark_and_push(obj, top, limit, from)                \
		 : (top))

GC_API size_t GC_get_debug_header_size(void);
GC_API const size_t GC_debug_header_size;
#define GC_USR_PTR_FROM_BASE(p) ((void *)((char *)(p) + GC_debug_header_size))

GC_API void **GC_new_free_list(void);
GC_API void **GC_new_free_list_inner(void);
GC_API unsigned GC_new_kind(void **list, GC_word descriptor, int add_size,
			    int clear);
GC_API unsigned GC_new_kind_inner(void **list, GC_word descriptor, int add_size,
				  int clear);
GC_API unsigned GC_new_proc(GC_mark_proc);
GC_API unsigned GC_new_proc_inner(GC_mark_proc);
GC_API GC_ATTR_MALLOC void *GC_generic_malloc(size_t, int kind);
GC_API GC_ATTR_MALLOC void *GC_generic_malloc_ignore_off_page(size_t, int kind);
GC_API GC_ATTR_MALLOC void *GC_generic_malloc_uncollectable(size_t, int kind);
GC_API GC_ATTR_MALLOC void *GC_generic_or_special_malloc(size_t, int kind);
GC_API GC_ATTR_MALLOC void *GC_debug_generic_or_special_malloc(size_t, int kind,
							       GC_EXTRA_PARAMS);
#define GC_GENERIC_OR_SPECIAL_MALLOC(n, kind) \
	GC_generic_or_special_malloc(n, kind)
GC_API int GC_get_kind_and_size(const void *, size_t *);

typedef void (*GC_describe_type_fn)(void *, char *);
#define GC_TYPE_DESCR_LEN 40
GC_API void GC_register_describe_type_fn(int kind, GC_describe_type_fn);
GC_API void *GC_clear_stack(void *);

typedef void (*GC_start_callback_proc)(void);
GC_API void GC_set_start_callback(GC_start_callback_proc);
GC_API GC_start_callback_proc GC_get_start_callback(void);

GC_API int GC_is_marked(const void *);
GC_API void GC_clear_mark_bit(const void *);
GC_API void GC_set_mark_bit(const void *);

GC_API void GC_push_all(void *low, void *end);
GC_API void GC_push_all_eager(void *low, void *end);
GC_API void GC_push_conditional(void *low, void *end, int all);
GC_API void GC_push_finalizer_structures(void);
typedef void (*GC_push_other_roots_proc)(void);
GC_API void GC_set_push_other_roots(GC_push_other_roots_proc);
GC_API GC_push_other_roots_proc GC_get_push_other_roots(void);
GC_API GC_push_other_roots_proc GC_push_other_roots;

typedef void (*GC_reachable_object_proc)(void *, size_t, void *);
GC_API void GC_enumerate_reachable_objects_inner(GC_reachable_object_proc,
						 void *);
GC_API int GC_is_tmp_root(void *);
GC_API void GC_print_trace(GC_word);
GC_API void GC_print_trace_inner(GC_word);

#ifdef __cplusplus
}
#endif
#endif
