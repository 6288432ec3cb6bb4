/* SPDX-License-Identifier: MIT */
/* What no program in Debian uses and weir has no place for: it ends the
 * process with its name.  docs/LIBGC.md lists these. */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

LG_API void GC_init_gcj_malloc(int index, void *proc)
{
	(void)index;
	(void)proc;
	lg_unsupported();
}

LG_API void *GC_gcj_malloc(size_t n, void *type)
{
	(void)n;
	(void)type;
	lg_unsupported();
}

LG_API void *GC_gcj_malloc_ignore_off_page(size_t n, void *type)
{
	(void)n;
	(void)type;
	lg_unsupported();
}

LG_API void *GC_debug_gcj_malloc(size_t n, void *type, GC_EXTRA_PARAMS)
{
	(void)n;
	(void)type;
	(void)file;
	(void)line;
	lg_unsupported();
}

LG_API void GC_register_describe_type_fn(int kind, GC_describe_type_fn fn)
{
	(void)kind;
	(void)fn; /* for libgc's leak reports only */
}

LG_API void GC_enumerate_reachable_objects_inner(GC_reachable_object_proc fn,
						 void *arg)
{
	(void)fn;
	(void)arg;
	lg_unsupported();
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
