/* SPDX-License-Identifier: MIT */
/* The free map of a space: bit set, block FREE.  Under the heap lock. */
#ifndef WEIR_GC_FREE_MAP_H
#define WEIR_GC_FREE_MAP_H

#include "gc/heap.h"

static inline uint64_t *wg_map_word(struct wg_space *s, uint32_t i)
{
	return &s->free_map[(i - s->first) / 64];
}

static inline uint64_t wg_map_bit(const struct wg_space *s, uint32_t i)
{
	return 1ull << ((i - s->first) % 64);
}

static inline void wg_map_set(struct wg_space *s, uint32_t i)
{
	*wg_map_word(s, i) |= wg_map_bit(s, i);
}

static inline void wg_map_clear(struct wg_space *s, uint32_t i)
{
	*wg_map_word(s, i) &= ~wg_map_bit(s, i);
}

static inline bool wg_map_test(struct wg_space *s, uint32_t i)
{
	return *wg_map_word(s, i) & wg_map_bit(s, i);
}

#endif
