/* SPDX-License-Identifier: MIT */
/* Objects with a type descriptor in their first word: declared as in libgc
 * 8.2. */
#ifndef GC_GCJ_H
#define GC_GCJ_H

#include "gc.h"

#ifdef __cplusplus
extern "C" {
#endif

GC_API void GC_init_gcj_malloc(int index, void *proc);
GC_API void *GC_gcj_malloc(size_t, void *type);
GC_API void *GC_debug_gcj_malloc(size_t, void *type, GC_EXTRA_PARAMS);
GC_API void *GC_gcj_malloc_ignore_off_page(size_t, void *type);
GC_API int GC_gcj_kind;
GC_API int GC_gcj_debug_kind;

#ifdef __cplusplus
}
#endif
#endif
