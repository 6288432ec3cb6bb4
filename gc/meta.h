/* SPDX-License-Identifier: MIT */
/*
 * The granule table: one byte for each 16 bytes of heap.
 *
 *   bits 0-1  colour of the object that starts here; 0: none does
 *   bit  2    the last granule of an object
 *   bits 3-7  the object's kind (at its start)
 *
 * Colours: YOUNG is that of objects which no cycle has marked yet; BLACK_A and
 * BLACK_B take turns as the colour of marked objects.  A full cycle turns from
 * one to the other, so that nothing need be cleared: what carries the other
 * black is unmarked.  Before a turn every block has been swept, hence no dead
 * object still carries the colour that is turned to.
 *
 *   byte                     written by                      while
 *   END, then START          the allocating mutator          always
 *   colour of a START        any marker; same value by all   marking
 *   zero                     the one sweeper of the block    sweeping
 *
 * Words are read and bytes written with relaxed atomics.  START is stored with
 * release order and loaded with acquire order (wg_meta_load): a marker that
 * sees an object sees its END, and its memory as zeroed or later.
 */
#ifndef WEIR_GC_META_H
#define WEIR_GC_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/alloc.h>

#define WG_YOUNG 1u
#define WG_BLACK_A 2u
#define WG_BLACK_B 3u

#define WG_ONES 0x0101010101010101ull
#define WG_ENDS (WG_ONES * WEIR_META_END)
#define WG_COLOURS (WG_ONES * WEIR_META_COLOUR)

_Static_assert(WG_BLACK_B == WEIR_META_COLOUR, "two bits of colour");
_Static_assert((WEIR_META_END & WEIR_META_COLOUR) == 0, "bits apart");

static inline uint8_t wg_meta_load(const uint8_t *m)
{
	return __atomic_load_n(m, __ATOMIC_ACQUIRE);
}

/* Eight granule bytes; m is 8-aligned. */
static inline uint64_t wg_meta_word(const uint8_t *m)
{
	return __atomic_load_n((const uint64_t *)(const void *)m,
			       __ATOMIC_RELAXED);
}

/* A word with 1 in each byte of w whose colour is not 0. */
static inline uint64_t wg_starts(uint64_t w)
{
	return (w | w >> 1) & WG_ONES;
}

/* A word with 1 in each byte of w whose colour is `colour`. */
static inline uint64_t wg_coloured(uint64_t w, unsigned colour)
{
	uint64_t x = (w ^ WG_ONES * colour) & WG_COLOURS;

	return ((x | x >> 1) & WG_ONES) ^ WG_ONES;
}

static inline uint64_t wg_from_byte(uint64_t w, size_t i)
{
	return w & (~0ull << (8 * (i & 7)));
}

/* Index of the first END at or after granule g; the caller knows that an
 * object starts at g. */
static inline size_t wg_meta_end(const uint8_t *meta, size_t g)
{
	size_t at = g & ~(size_t)7;
	uint64_t w = wg_from_byte(wg_meta_word(meta + at), g) & WG_ENDS;

	while (!w) {
		at += 8;
		w = wg_meta_word(meta + at) & WG_ENDS;
	}
	return at + (size_t)__builtin_ctzll(w) / 8;
}

/* The same for a g that need not be an object's: looks no further than `end`,
 * which is 8-aligned, and is `end` if there is no END. */
static inline size_t wg_meta_end_within(const uint8_t *meta, size_t g,
					size_t end)
{
	size_t at = g & ~(size_t)7;
	uint64_t w = wg_from_byte(wg_meta_word(meta + at), g) & WG_ENDS;

	while (!w) {
		at += 8;
		if (at >= end)
			return end;
		w = wg_meta_word(meta + at) & WG_ENDS;
	}
	return at + (size_t)__builtin_ctzll(w) / 8;
}

/* Whether an END is in [start, g): the object that starts at `start` ends
 * before g.  Looks no further than g, so it is right, and ends, also where the
 * start was seen and its end is not (yet, or any more). */
static inline bool wg_meta_ends_before(const uint8_t *meta, size_t start,
				       size_t g)
{
	return wg_meta_end_within(meta, start, (g + 7) & ~(size_t)7) < g;
}

/* First START of `colour` in [g, end), or end.  end is 8-aligned. */
static inline size_t wg_meta_next(const uint8_t *meta, size_t g, size_t end,
				  unsigned colour)
{
	size_t at = g & ~(size_t)7;
	uint64_t w;

	if (g >= end)
		return end;
	w = wg_from_byte(wg_coloured(wg_meta_word(meta + at), colour), g);
	while (!w) {
		at += 8;
		if (at >= end)
			return end;
		w = wg_coloured(wg_meta_word(meta + at), colour);
	}
	return at + (size_t)__builtin_ctzll(w) / 8;
}

/* First byte that is not 0 in [g, end), or end.  end is 8-aligned. */
static inline size_t wg_meta_nonzero(const uint8_t *meta, size_t g, size_t end)
{
	size_t at = g & ~(size_t)7;
	uint64_t w;

	if (g >= end)
		return end;
	w = wg_from_byte(wg_meta_word(meta + at), g);
	while (!w) {
		at += 8;
		if (at >= end)
			return end;
		w = wg_meta_word(meta + at);
	}
	return at + (size_t)__builtin_ctzll(w) / 8;
}

/* Last START in [begin, g], or SIZE_MAX.  begin is 8-aligned. */
static inline size_t wg_meta_prev(const uint8_t *meta, size_t g, size_t begin)
{
	size_t at = g & ~(size_t)7;
	uint64_t w = wg_starts(wg_meta_word(meta + at));

	w &= ~0ull >> (8 * (7 - (g & 7)));
	while (!w) {
		if (at <= begin)
			return SIZE_MAX;
		at -= 8;
		w = wg_starts(wg_meta_word(meta + at));
	}
	return at + (63 - (size_t)__builtin_clzll(w)) / 8;
}

#endif
