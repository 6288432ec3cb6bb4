/* SPDX-License-Identifier: MIT */
/* What weir has no place for, and nothing hangs on; and what ends the process
 * with its name, which docs/LIBGC.md lists. */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

LG_API void GC_register_describe_type_fn(int kind, GC_describe_type_fn fn)
{
	(void)kind;
	(void)fn; /* for libgc's leak reports only */
}

/* libgc's own printing, exported by accident; some programs use it. */
LG_API void GC_printf(const char *format, ...);
LG_API void GC_err_printf(const char *format, ...);
LG_API void GC_log_printf(const char *format, ...);

#define PRINTER(name, stream)                     \
	LG_API void name(const char *format, ...) \
	{                                         \
		va_list args;                     \
                                                  \
		va_start(args, format);           \
		vfprintf(stream, format, args);   \
		va_end(args);                     \
	}

PRINTER(GC_printf, stdout)
PRINTER(GC_err_printf, stderr)
PRINTER(GC_log_printf, stderr)

LG_API void GC_incr_bytes_allocd(size_t n);
LG_API void GC_incr_bytes_allocd(size_t n)
{
	(void)n;
}

LG_API void GC_incr_bytes_freed(size_t n);
LG_API void GC_incr_bytes_freed(size_t n)
{
	(void)n;
}
