/* SPDX-License-Identifier: MIT */
/*
 * CRC32C (Castagnoli), by ISA-L.  wi_crc(0, ...) begins one, and
 * wi_crc(wi_crc(0, a), b) is that of a followed by b.
 */
#ifndef WEIR_RUNTIME_IMAGE_CRC_H
#define WEIR_RUNTIME_IMAGE_CRC_H

#include <isa-l/crc.h>
#include <stddef.h>
#include <stdint.h>

static inline uint32_t wi_crc(uint32_t crc, const void *data, size_t bytes)
{
	unsigned char *p = (unsigned char *)data;

	crc = ~crc;
	/* ISA-L counts in int. */
	while (bytes) {
		size_t n = bytes < (1u << 30) ? bytes : 1u << 30;

		crc = crc32_iscsi(p, (int)n, crc);
		p += n;
		bytes -= n;
	}
	return ~crc;
}

#endif
