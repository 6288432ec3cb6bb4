/* SPDX-License-Identifier: MIT */
/* Numbers and checksums in a snapshot file that a test changes. */
#ifndef WEIR_TESTS_IMAGE_PATCH_H
#define WEIR_TESTS_IMAGE_PATCH_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/image/crc.h"

static inline uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	       (uint32_t)p[3] << 24;
}

static inline void put(uint8_t *p, unsigned bytes, uint64_t v)
{
	for (unsigned i = 0; i < bytes; i++, v >>= 8)
		p[i] = (uint8_t)v;
}

/* Make the checksum at p + at of p[0, bytes), itself 0, right. */
static inline void seal(uint8_t *p, size_t bytes, size_t at)
{
	put(p + at, 4, 0);
	put(p + at, 4, wi_crc(0, p, bytes));
}

#endif
