/* SPDX-License-Identifier: MIT */
/* Reading and copying pages that writers are held back from by the kernel,
 * which the sanitizers do not know. */
#ifndef WEIR_COMPAT_REDIS_MEMORY_COPY_H
#define WEIR_COMPAT_REDIS_MEMORY_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

__attribute__((no_sanitize("thread", "address"), noinline, unused)) static bool
wr_memory_is_zero(const char *p, size_t bytes)
{
	const volatile uint64_t *in = (const volatile uint64_t *)p;
	const volatile uint64_t *end = in + bytes / 8;

	while (in < end && !*in)
		in++;
	return in == end;
}

/* ThreadSanitizer is not told that the kernel holds the writers back; so not
 * memcpy(), which it takes over. */
__attribute__((no_sanitize("thread", "address"), noinline, unused)) static void
wr_memory_copy_page(void *to, const void *from, size_t bytes)
{
#if defined(__x86_64__)
	__asm__ volatile("rep movsb"
			 : "+D"(to), "+S"(from), "+c"(bytes)
			 :
			 : "memory");
#else
	volatile uint64_t *out = to;
	const volatile uint64_t *in = from;

	for (; bytes; bytes -= 8)
		*out++ = *in++;
#endif
}

#endif
