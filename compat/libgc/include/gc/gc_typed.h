/* SPDX-License-Identifier: MIT */
/* Objects described by bitmaps: as in libgc 8.2. */
#ifndef GC_TYPED_H
#define GC_TYPED_H

#include "gc.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef GC_word *GC_bitmap;
typedef GC_word GC_descr;
#define GC_WORDSZ (8 * sizeof(GC_word))
#define GC_get_bit(bm, i) (((bm)[(i) / GC_WORDSZ] >> ((i) % GC_WORDSZ)) & 1)
#define GC_set_bit(bm, i) \
	((bm)[(i) / GC_WORDSZ] |= (GC_word)1 << ((i) % GC_WORDSZ))
#define GC_WORD_OFFSET(t, f) (offsetof(t, f) / sizeof(GC_word))
#define GC_WORD_LEN(t) (sizeof(t) / sizeof(GC_word))
#define GC_BITMAP_SIZE(t) ((GC_WORD_LEN(t) + GC_WORDSZ - 1) / GC_WORDSZ)

GC_API GC_descr GC_make_descriptor(const GC_word *bitmap, size_t words);
GC_API GC_ATTR_MALLOC void *GC_malloc_explicitly_typed(size_t, GC_descr);
GC_API GC_ATTR_MALLOC void *
	GC_malloc_explicitly_typed_ignore_off_page(size_t, GC_descr);
GC_API GC_ATTR_MALLOC void *GC_calloc_explicitly_typed(size_t n, size_t size,
						       GC_descr);
#define GC_MALLOC_EXPLICITLY_TYPED(n, d) GC_malloc_explicitly_typed(n, d)
#define GC_CALLOC_EXPLICITLY_TYPED(n, size, d) \
	GC_calloc_explicitly_typed(n, size, d)

#ifdef __cplusplus
}
#endif
#endif
