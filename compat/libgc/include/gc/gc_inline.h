/* SPDX-License-Identifier: MIT */
/* Allocation in batches and by kind: as in libgc 8.2.  A client that keeps
 * free lists of its own fills them with GC_generic_malloc_many(). */
#ifndef GC_INLINE_H
#define GC_INLINE_H

#include "gc.h"
#include "gc_tiny_fl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GC_I_PTRFREE 0
#define GC_I_NORMAL 1
#define GC_EXPECT(expr, outcome) __builtin_expect(expr, outcome)
#define GC_WORDS_TO_WHOLE_GRANULES(n) \
	GC_WORDS_TO_GRANULES((n) + GC_GRANULE_WORDS - 1)

GC_API void GC_generic_malloc_many(size_t, int kind, void **result);
GC_API GC_ATTR_MALLOC void *GC_malloc_kind(size_t, int kind);
GC_API GC_ATTR_MALLOC void *GC_malloc_kind_global(size_t, int kind);
GC_API void GC_print_free_list(int kind, size_t granules);

/* weir's own allocation is as fast as a list: the lists stay empty. */
#define GC_MALLOC_WORDS_KIND(result, n, lists, kind, init)                \
	do {                                                              \
		(void)(lists);                                            \
		(result) = GC_malloc_kind(GC_WORDS_TO_WHOLE_GRANULES(n) * \
						  GC_GRANULE_BYTES,       \
					  kind);                          \
		init;                                                     \
	} while (0)
#define GC_MALLOC_WORDS(result, n, lists) \
	GC_MALLOC_WORDS_KIND(result, n, lists, GC_I_NORMAL, (void)0)
#define GC_MALLOC_ATOMIC_WORDS(result, n, lists) \
	GC_MALLOC_WORDS_KIND(result, n, lists, GC_I_PTRFREE, (void)0)
#define GC_CONS(result, first, second, lists)                                 \
	do {                                                                  \
		void *gc_first = (void *)(first);                             \
		void *gc_second = (void *)(second);                           \
		GC_MALLOC_WORDS_KIND(result, 2, lists, GC_I_NORMAL, (void)0); \
		if (result) {                                                 \
			((void **)(result))[0] = gc_first;                    \
			((void **)(result))[1] = gc_second;                   \
		}                                                             \
		GC_reachable_here(gc_first);                                  \
		GC_reachable_here(gc_second);                                 \
	} while (0)

#ifdef __cplusplus
}
#endif
#endif
