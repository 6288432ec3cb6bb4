/* SPDX-License-Identifier: MIT */
/*
 * malloc() in a region: an arena of jemalloc 5 whose memory lies in a region of
 * weir's, so that snapshots can be taken of ordinary data structures.
 *
 * In libweir-jemalloc (pkg-config weir-jemalloc), beside libweir and the
 * system's libjemalloc, which is the program's malloc() then.  The conventions
 * are those of weir.h.  What is allocated here is freed and resized here, and
 * nowhere else: weir_arena_free() is not free().
 *
 *   create, destroy   nobody beside; the rest any thread, beside all
 *
 * While a snapshot of the region is under way no memory of it is given back to
 * the system: jemalloc keeps it and tries again later.
 */
#ifndef WEIR_JEMALLOC_H
#define WEIR_JEMALLOC_H

#include <weir/snapshot.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_arena weir_arena;

/*
 * An arena that may grow to `limit` bytes of address space.  options are those
 * of the region, NULL for the defaults; its address is kept.  -ENOTSUP: the
 * malloc() of this program is not jemalloc 5; those of weir_region_reserve().
 */
WEIR_API int weir_arena_create(size_t limit,
			       const struct weir_region_options *options,
			       weir_arena **arena);

/* All that was allocated is gone.  -EBUSY while the region is in a snapshot.
 * NULL is allowed. */
WEIR_API int weir_arena_destroy(weir_arena *arena);

/* The region, to take snapshots of; it ends with the arena. */
WEIR_API weir_region *weir_arena_region(const weir_arena *arena);

/* As malloc(), calloc(), realloc(), free() and malloc_usable_size(); NULL with
 * errno ENOMEM at the limit. */
WEIR_API void *weir_arena_malloc(weir_arena *arena, size_t size);
WEIR_API void *weir_arena_calloc(weir_arena *arena, size_t count, size_t size);
WEIR_API void *weir_arena_realloc(weir_arena *arena, void *p, size_t size);
WEIR_API void weir_arena_free(weir_arena *arena, void *p);
WEIR_API size_t weir_arena_usable_size(weir_arena *arena, const void *p);

/* The flags that mallocx(), rallocx() and dallocx() take for it, for those who
 * call jemalloc themselves. */
WEIR_API int weir_arena_flags(const weir_arena *arena);

#ifdef __cplusplus
}
#endif
#endif
