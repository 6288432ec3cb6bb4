/* SPDX-License-Identifier: MIT */
/*
 * The debugging forms: the plain ones.  Objects have no header here, and the
 * caller's place is kept in leak mode only; weir's own checks are
 * WEIR_OPTIONS=verify=on, poison=on.  Then the pointer checks.
 */
#include "internal.h"

#include <stdio.h>

#define FORWARD(type, name, params, call) \
	LG_API type name params           \
	{                                 \
		(void)file;               \
		(void)line;               \
		return call;              \
	}

/* Which have it in leak mode, for the report. */
#define WITH_PLACE(name, plain, kind)                      \
	LG_API void *name(size_t n, GC_EXTRA_PARAMS)       \
	{                                                  \
		void *p;                                   \
                                                           \
		lg_mutator();                              \
		if (!lg_leak_mode())                       \
			return plain(n);                   \
		p = lg_leak_alloc(n, kind, file, line);    \
		return lg_likely(p) ? p : lg_no_memory(n); \
	}

WITH_PLACE(GC_debug_malloc, GC_malloc, WEIR_KIND_CONSERVATIVE)
WITH_PLACE(GC_debug_malloc_atomic, GC_malloc_atomic, WEIR_KIND_LEAF)
FORWARD(void *, GC_debug_malloc_uncollectable, (size_t n, GC_EXTRA_PARAMS),
	GC_malloc_uncollectable(n))
FORWARD(void *, GC_debug_malloc_atomic_uncollectable,
	(size_t n, GC_EXTRA_PARAMS), GC_malloc_atomic_uncollectable(n))
FORWARD(void *, GC_debug_malloc_stubborn, (size_t n, GC_EXTRA_PARAMS),
	GC_malloc(n))
FORWARD(void *, GC_debug_malloc_ignore_off_page, (size_t n, GC_EXTRA_PARAMS),
	GC_malloc_ignore_off_page(n))
FORWARD(void *, GC_debug_malloc_atomic_ignore_off_page,
	(size_t n, GC_EXTRA_PARAMS), GC_malloc_atomic_ignore_off_page(n))
FORWARD(char *, GC_debug_strdup, (const char *s, GC_EXTRA_PARAMS), GC_strdup(s))
FORWARD(char *, GC_debug_strndup, (const char *s, size_t n, GC_EXTRA_PARAMS),
	GC_strndup(s, n))
FORWARD(void *, GC_debug_realloc, (void *p, size_t n, GC_EXTRA_PARAMS),
	GC_realloc(p, n))
FORWARD(void *, GC_debug_generic_or_special_malloc,
	(size_t n, int kind, GC_EXTRA_PARAMS),
	GC_generic_or_special_malloc(n, kind))

LG_API void GC_debug_free(void *p)
{
	GC_free(p);
}

LG_API void GC_debug_change_stubborn(const void *p)
{
	(void)p;
}

LG_API void GC_debug_end_stubborn_change(const void *p)
{
	GC_end_stubborn_change(p);
}

LG_API void *GC_debug_malloc_replacement(size_t n)
{
	return GC_malloc(n);
}

LG_API void *GC_debug_realloc_replacement(void *p, size_t n)
{
	return GC_realloc(p, n);
}

LG_API void GC_debug_register_displacement(size_t n)
{
	GC_register_displacement(n);
}

LG_API void GC_debug_ptr_store_and_dirty(void *p, const void *q)
{
	GC_ptr_store_and_dirty(p, q);
}

#define FORWARD_FINALIZER(name)                                               \
	LG_API void GC_debug_##name(void *p, GC_finalization_proc fn,         \
				    void *data, GC_finalization_proc *old_fn, \
				    void **old_data)                          \
	{                                                                     \
		GC_##name(p, fn, data, old_fn, old_data);                     \
	}

FORWARD_FINALIZER(register_finalizer)
FORWARD_FINALIZER(register_finalizer_ignore_self)
FORWARD_FINALIZER(register_finalizer_no_order)
FORWARD_FINALIZER(register_finalizer_unreachable)

LG_API size_t GC_get_debug_header_size(void)
{
	return GC_debug_header_size;
}

/* ---- Pointer checks ----------------------------------------------------- */

LG_API void *GC_same_obj(void *p, void *q)
{
	void *base = GC_base(q);

	if (base && GC_base(p) != base) {
		if (!GC_same_obj_print_proc)
			lg_fatal("GC_same_obj: %p and %p are not in one object",
				 p, q);
		GC_same_obj_print_proc(p, q);
	}
	return p;
}

LG_API void *GC_is_visible(void *p)
{
	return p;
}

LG_API void *GC_is_valid_displacement(void *p)
{
	return p;
}

LG_API void *GC_pre_incr(void **p, ptrdiff_t n)
{
	void *old = *p;

	*p = GC_same_obj((char *)old + n, old);
	return *p;
}

LG_API void *GC_post_incr(void **p, ptrdiff_t n)
{
	void *old = *p;

	*p = GC_same_obj((char *)old + n, old);
	return old;
}

LG_API void GC_noop1(GC_word x)
{
	__asm__ volatile("" ::"r"(x));
}

LG_API void *GC_clear_stack(void *p)
{
	return p;
}
