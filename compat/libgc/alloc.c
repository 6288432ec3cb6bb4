/* SPDX-License-Identifier: MIT */
/*
 * Allocation.  The common case is weir's inline path with the thread's handle
 * from thread-local storage; what is not inline looks afterwards whether
 * finalizers wait.
 *
 * GC_free() makes what was uncollectable collectable and forgets finalizers.
 * It gives no memory back itself: the next cycle does, once no reference is
 * left.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>
#include <wchar.h>

void *lg_no_memory(size_t n)
{
	lg_warn("Out of Memory! Heap size: %lu MiB. Returning NULL!\n",
		GC_get_heap_size() >> 20);
	return GC_oom_fn(n);
}

void lg_after_slow(void)
{
	lg_start_due();
	if (lg_unlikely(weir_finalizers_queued(lg_heap)))
		lg_finalize_due();
	if (lg_unlikely(weir_disclaim_queued(lg_heap)))
		lg_disclaim_due();
}

static void *slow(weir_mutator *m, size_t n, weir_kind kind)
{
	void *p = n >= LG_REUSE_MIN ? lg_reuse_take(n, kind) : NULL;

	if (!p)
		p = weir_alloc_kind(m, n, kind);
	if (lg_likely(p))
		lg_after_slow();
	return p;
}

/* What is not reclaimed as long as nobody frees it. */
static inline void *alloc_as_it_is(size_t n, weir_kind kind)
{
	return weir_alloc_inline_or(lg_mutator(), n, kind, slow);
}

static __attribute__((cold, noinline)) void *noted(size_t n, weir_kind kind)
{
	if (kind == WEIR_KIND_CONSERVATIVE)
		kind = lg_kind(1);
	else if (kind == WEIR_KIND_LEAF)
		kind = lg_kind(0);
	return alloc_as_it_is(n, kind);
}

static inline void *alloc(size_t n, weir_kind kind)
{
	if (lg_unlikely(__atomic_load_n(&lg_plain_noted, __ATOMIC_RELAXED)))
		return noted(n, kind);
	return alloc_as_it_is(n, kind);
}

void *lg_alloc(size_t n, weir_kind kind)
{
	return alloc(n, kind);
}

/* Saturates: such a size fails cleanly. */
static inline size_t padded(size_t n)
{
	return lg_likely(n < SIZE_MAX / 2) ? lg_padded(n) : SIZE_MAX / 2;
}

LG_API void *GC_malloc(size_t n)
{
	void *p = alloc(padded(n), WEIR_KIND_CONSERVATIVE);

	return lg_likely(p) ? p : lg_no_memory(n);
}

LG_API void *GC_malloc_atomic(size_t n)
{
	void *p = alloc(padded(n), WEIR_KIND_LEAF);

	return lg_likely(p) ? p : lg_no_memory(n);
}

/* Only pointers to the first page of it count in libgc; here all do. */
LG_API void *GC_malloc_ignore_off_page(size_t n)
{
	void *p = alloc(padded(n), WEIR_KIND_CONSERVATIVE);

	return lg_likely(p) ? p : lg_no_memory(n);
}

LG_API void *GC_malloc_atomic_ignore_off_page(size_t n)
{
	void *p = alloc(padded(n), WEIR_KIND_LEAF);

	return lg_likely(p) ? p : lg_no_memory(n);
}

static void *uncollectable(size_t n, weir_kind kind)
{
	void *p = alloc_as_it_is(n, kind);

	return p && lg_make_uncollectable(p) ? p : lg_no_memory(n);
}

LG_API void *GC_malloc_uncollectable(size_t n)
{
	return uncollectable(n, WEIR_KIND_CONSERVATIVE);
}

LG_API void *GC_malloc_atomic_uncollectable(size_t n)
{
	return uncollectable(n, WEIR_KIND_LEAF);
}

LG_API void *GC_malloc_kind(size_t n, int kind)
{
	void *p = alloc(padded(n), lg_kind(kind));

	return lg_likely(p) ? p : lg_no_memory(n);
}

LG_API void *GC_malloc_kind_global(size_t n, int kind)
{
	return GC_malloc_kind(n, kind);
}

LG_API void *GC_generic_malloc(size_t n, int kind)
{
	return GC_malloc_kind(n, kind);
}

LG_API void *GC_generic_malloc_ignore_off_page(size_t n, int kind)
{
	return GC_malloc_kind(n, kind);
}

LG_API void *GC_generic_malloc_uncollectable(size_t n, int kind)
{
	return uncollectable(padded(n), lg_kind(kind));
}

LG_API void *GC_generic_or_special_malloc(size_t n, int kind)
{
	if (kind == 2)
		return GC_malloc_uncollectable(n);
	if (kind == 3)
		return GC_malloc_atomic_uncollectable(n);
	return GC_malloc_kind(n, kind);
}

/* ---- In batches --------------------------------------------------------- */

#define BATCH_BYTES 4096

/* Of kinds that are not allocated inline.  Until *result has the list it is
 * held by an array on the stack. */
#define BATCH_MAX 64

static void many_slowly(size_t n, weir_kind kind, size_t count, void **result)
{
	void *volatile object[BATCH_MAX];
	void *list = NULL;
	size_t got;

	if (count > BATCH_MAX)
		count = BATCH_MAX;
	for (got = 0; got < count; got++) {
		object[got] = alloc(n, kind);
		if (!object[got])
			break;
	}
	for (size_t i = got; i-- > 0;) {
		*(void **)object[i] = list;
		list = object[i];
	}
	/* Release: the list is whole for a mark procedure that sees it. */
	__atomic_store_n(result, list, __ATOMIC_RELEASE);
	__asm__ volatile("" ::"r"(object) : "memory");
}

/*
 * A list linked through the first words.  No stop comes between its making and
 * its being in *result, where a mark procedure of the program's finds it: the
 * links of leaves are followed by nobody else.
 */
static void many(size_t n, weir_kind kind, void **result)
{
	weir_mutator *m = lg_mutator();
	size_t count;
	void *volatile first;

	if (n < sizeof(void *))
		n = sizeof(void *);
	count = n < BATCH_BYTES / 2 ? BATCH_BYTES / n : 1;
	if (weir_alloc_list_inline(m, n, kind, count, NULL, result))
		return;
	if (kind > 30) {
		many_slowly(n, kind, count, result);
		return;
	}
	/* The buffer was used up: the rest comes from the next. */
	first = slow(m, n, kind);
	if (first)
		*(void **)first = NULL;
	if (!first ||
	    !weir_alloc_list_inline(m, n, kind, count - 1, first, result))
		__atomic_store_n(result, first, __ATOMIC_RELEASE);
}

LG_API void GC_generic_malloc_many(size_t n, int kind, void **result)
{
	many(n, lg_kind(kind), result);
	if (!*result)
		*result = lg_no_memory(n);
}

LG_API void *GC_malloc_many(size_t n)
{
	void *list;

	many(padded(n), WEIR_KIND_CONSERVATIVE, &list);
	return list ? list : lg_no_memory(n);
}

/* ---- Strings, alignment ------------------------------------------------- */

LG_API char *GC_strdup(const char *s)
{
	size_t n;
	char *p;

	if (!s)
		return NULL;
	n = strlen(s) + 1;
	p = GC_malloc_atomic(n);
	if (!p) {
		errno = ENOMEM;
		return NULL;
	}
	return memcpy(p, s, n);
}

LG_API char *GC_strndup(const char *s, size_t max)
{
	size_t n = strnlen(s, max);
	char *p = GC_malloc_atomic(n + 1);

	if (!p) {
		errno = ENOMEM;
		return NULL;
	}
	memcpy(p, s, n);
	p[n] = 0;
	return p;
}

LG_API wchar_t *GC_wcsdup(const wchar_t *s);
LG_API wchar_t *GC_wcsdup(const wchar_t *s)
{
	size_t n = (wcslen(s) + 1) * sizeof(*s);
	wchar_t *p = GC_malloc_atomic(n);

	if (!p) {
		errno = ENOMEM;
		return NULL;
	}
	return memcpy(p, s, n);
}

LG_API void *GC_memalign(size_t align, size_t n)
{
	void *p;

	if (align <= WEIR_GRANULE)
		return GC_malloc(n);
	p = weir_alloc_aligned(lg_mutator(), padded(n), align, lg_kind(1));
	if (!p)
		return lg_no_memory(n);
	lg_after_slow();
	return p;
}

LG_API int GC_posix_memalign(void **out, size_t align, size_t n)
{
	void *p;

	if (align < sizeof(void *) || (align & (align - 1)))
		return EINVAL;
	p = GC_memalign(align, n);
	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

/* ---- Objects ------------------------------------------------------------ */

LG_API void *GC_base(void *p)
{
	return lg_heap ? weir_object_base(lg_heap, p) : NULL;
}

LG_API int GC_is_heap_ptr(const void *p)
{
	return lg_heap && weir_object_base(lg_heap, p) != NULL;
}

LG_API size_t GC_size(const void *p)
{
	return lg_heap ? weir_object_size(lg_heap, p) : 0;
}

LG_API int GC_get_kind_and_size(const void *p, size_t *size)
{
	weir_kind kind = WEIR_KIND_CONSERVATIVE;

	if (size)
		*size = GC_size(p);
	weir_object_kind(lg_init(), p, &kind);
	return lg_kind_of(kind);
}

/* What else is known of an object that the program frees. */
static void forget(void *p)
{
	lg_finalize_forget(p);
	if (lg_unlikely(__atomic_load_n(&lg_noting, __ATOMIC_RELAXED)))
		weir_disclaim_forget(lg_heap, p);
}

LG_API void GC_free(void *p)
{
	weir_kind kind;
	size_t n;

	if (!p)
		return;
	lg_make_collectable(p);
	forget(p);
	/* What is noted when it is allocated is not used again so. */
	if (lg_unlikely(__atomic_load_n(&lg_noting, __ATOMIC_RELAXED)))
		return;
	n = weir_object_size(lg_init(), p);
	if (n >= LG_REUSE_MIN && !weir_object_kind(lg_heap, p, &kind))
		lg_reuse_put(p, n, kind);
}

LG_API void *GC_realloc(void *p, size_t n)
{
	weir_kind kind;
	size_t old;
	void *q;

	if (!p)
		return GC_malloc(n);
	if (!n) {
		GC_free(p);
		return NULL;
	}
	old = weir_object_size(lg_init(), p);
	if (!old || weir_object_kind(lg_heap, p, &kind))
		lg_fatal("GC_realloc: %p is not the start of an object", p);
	/* Where the last words say where it was allocated it moves. */
	if (padded(n) <= old && n >= old / 2 &&
	    (!lg_leak_mode() || lg_leak_plain(kind) == kind)) {
		/* What the program no longer has holds nothing alive. */
		if (kind != WEIR_KIND_LEAF && n < old)
			memset((char *)p + n, 0, old - n);
		return p;
	}
	if (lg_leak_mode())
		kind = lg_leak_plain(kind);
	q = alloc(padded(n), kind);
	if (!q)
		return lg_no_memory(n);
	if (lg_make_collectable(p) && !lg_make_uncollectable(q)) {
		lg_make_uncollectable(p);
		return lg_no_memory(n);
	}
	memcpy(q, p, n < old ? n : old);
	forget(p);
	if (old >= LG_REUSE_MIN &&
	    lg_likely(!__atomic_load_n(&lg_noting, __ATOMIC_RELAXED)))
		lg_reuse_put(p, old, kind);
	return q;
}

/* The page table knows what was written. */
LG_API void GC_change_stubborn(const void *p)
{
	(void)p;
}

LG_API void GC_end_stubborn_change(const void *p)
{
	GC_reachable_here(p);
}

LG_API void GC_ptr_store_and_dirty(void *p, const void *q)
{
	*(const void **)p = q;
}

LG_API void *GC_malloc_stubborn(size_t n)
{
	return GC_malloc(n);
}
