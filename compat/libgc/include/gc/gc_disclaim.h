/* SPDX-License-Identifier: MIT */
/* Finalizers that come with the object: as in libgc 8.2. */
#ifndef GC_DISCLAIM_H
#define GC_DISCLAIM_H

#include "gc.h"

#ifdef __cplusplus
extern "C" {
#endif

GC_API void GC_init_finalized_malloc(void);
typedef int (*GC_disclaim_proc)(void *);
GC_API void GC_register_disclaim_proc(int kind, GC_disclaim_proc,
				      int mark_from_all);
struct GC_finalizer_closure {
	GC_finalization_proc proc;
	void *cd;
};
GC_API GC_ATTR_MALLOC void *
GC_finalized_malloc(size_t, const struct GC_finalizer_closure *);

#ifdef __cplusplus
}
#endif
#endif
