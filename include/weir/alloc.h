/* SPDX-License-Identifier: MIT */
/*
 * The inlinable allocation path, for language runtimes and JIT compilers.
 *
 * A mutator begins with a `struct weir_buffers`.  To allocate is to bump a
 * cursor and to write the object's first and last granule bytes in the side
 * table.  The collector may stop a thread by signal between any two
 * instructions, so the thread says that it is in the middle of it:
 *
 *	critical = 1
 *	take [cursor, cursor + n) if it fits
 *	side table: END at the last granule, then START at the first
 *	critical = 0
 *	if (pending) weir_safepoint_slow()
 *
 * `critical` and `pending` are shared only with a signal handler on the same
 * thread: compiler barriers order them.  START is stored with release order
 * after END and after the zeroing of the memory; a marker that loads START
 * with acquire order therefore sees a whole object.
 */
#ifndef WEIR_ALLOC_H
#define WEIR_ALLOC_H

#include <weir/weir.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The side table has one byte for each granule of the heap. */
#define WEIR_GRANULE_SHIFT 4
#define WEIR_GRANULE (1u << WEIR_GRANULE_SHIFT)

/* Granule byte: bits 0-1 colour (0: no object starts here), bit 2 end of an
 * object, bits 3-7 kind (at a start). */
#define WEIR_META_COLOUR 3u
#define WEIR_META_END 4u
#define WEIR_META_KIND_SHIFT 3

/* Requests above this many bytes always take weir_alloc_kind(). */
#define WEIR_SMALL_MAX 1024u

/* What compiled code may touch of a mutator.  Part of the ABI. */
struct weir_buffers {
	uint32_t critical; /* the thread must not be stopped just now */
	uint32_t pending;  /* a stop was put off because of `critical` */
	struct {
		char *cursor; /* next free byte */
		char *limit;  /* end of the zeroed, free memory */
	} buffer[2];          /* [0] objects with references, [1] leaves */
	uintptr_t meta_bias;  /* granule byte of p is at meta_bias + (p >> 4) */
	uint32_t newborn;     /* the colour that new objects get */
	uint32_t reserved;    /* zero */
};

#define WEIR_COMPILER_BARRIER() __asm__ volatile("" ::: "memory")

/*
 * Behind the store of an object's start: it and what comes before it, the
 * object's end and its zeroes, are seen no later than anything that this thread
 * stores from now on.  The collector reads references from a page that it has
 * just protected, and must then find the object; the protecting system call
 * waits for stores to that page, not for those to the granule table.  x86
 * keeps stores in order by itself.
 */
#if defined(__aarch64__)
#define WEIR_PUBLISH_BARRIER() __asm__ volatile("dmb ishst" ::: "memory")
#elif defined(__riscv)
#define WEIR_PUBLISH_BARRIER() __asm__ volatile("fence w,w" ::: "memory")
#else
#define WEIR_PUBLISH_BARRIER() WEIR_COMPILER_BARRIER()
#endif

/* The inline form of a safepoint. */
static inline void weir_safepoint(weir_mutator *mutator)
{
	struct weir_buffers *b = (struct weir_buffers *)(void *)mutator;

	if (__builtin_expect(__atomic_load_n(&b->pending, __ATOMIC_RELAXED), 0))
		weir_safepoint_slow(mutator);
}

/*
 * The common case of weir_alloc_kind() inline, for kinds 0 (conservative) and
 * 1 (leaf), and any kind that weir_kind_*() returned that is below 31; slow()
 * for the rest.  Neither the mutator nor the kind is checked.
 */
static inline void *
weir_alloc_inline_or(weir_mutator *mutator, size_t size, weir_kind kind,
		     void *(*slow)(weir_mutator *, size_t, weir_kind))
{
	struct weir_buffers *b = (struct weir_buffers *)(void *)mutator;
	size_t n, last;
	char *p;
	uint8_t *meta;
	int which = kind == WEIR_KIND_LEAF;

	if (__builtin_expect(size - 1 >= WEIR_SMALL_MAX || kind > 30, 0))
		return slow(mutator, size, kind);
	n = (size + WEIR_GRANULE - 1) & ~(size_t)(WEIR_GRANULE - 1);
	__atomic_store_n(&b->critical, 1, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	p = b->buffer[which].cursor;
	if (__builtin_expect((size_t)(b->buffer[which].limit - p) < n, 0)) {
		__atomic_store_n(&b->critical, 0, __ATOMIC_RELAXED);
		return slow(mutator, size, kind);
	}
	b->buffer[which].cursor = p + n;
	meta = (uint8_t *)(b->meta_bias + ((uintptr_t)p >> WEIR_GRANULE_SHIFT));
	last = (n >> WEIR_GRANULE_SHIFT) - 1;
	__atomic_store_n(&meta[last], (uint8_t)WEIR_META_END, __ATOMIC_RELAXED);
	__atomic_store_n(&meta[0],
			 (uint8_t)(b->newborn | kind << WEIR_META_KIND_SHIFT |
				   (last ? 0 : WEIR_META_END)),
			 __ATOMIC_RELEASE);
	WEIR_PUBLISH_BARRIER();
	__atomic_store_n(&b->critical, 0, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	if (__builtin_expect(__atomic_load_n(&b->pending, __ATOMIC_RELAXED), 0))
		weir_safepoint_slow(mutator);
	return p;
}

/* The same with weir_alloc_kind() for the rest. */
static inline void *weir_alloc_inline(weir_mutator *mutator, size_t size,
				      weir_kind kind)
{
	return weir_alloc_inline_or(mutator, size, kind, weir_alloc_kind);
}

/*
 * A list for runtimes that keep free lists of their own: up to `count` objects
 * of `size` bytes, at least 8, linked through their first words, the last one
 * to `rest`.  *list is its first before a stop can come.  Returns how many; 0,
 * and *list is not written, when weir_alloc_kind() has to allocate one first.
 * They are objects like others, not free memory to the library: what makes
 * *list reachable has to keep them, and where their kind does not make their
 * first word a reference (leaves, for one) only a callback follows the links.
 */
static inline size_t weir_alloc_list_inline(weir_mutator *mutator, size_t size,
					    weir_kind kind, size_t count,
					    void *rest, void **list)
{
	struct weir_buffers *b = (struct weir_buffers *)(void *)mutator;
	int which = kind == WEIR_KIND_LEAF;
	size_t n, last, i, room;
	uint8_t *meta, start;
	char *p;

	if (size - 1 >= WEIR_SMALL_MAX || kind > 30)
		return 0;
	n = (size + WEIR_GRANULE - 1) & ~(size_t)(WEIR_GRANULE - 1);
	last = (n >> WEIR_GRANULE_SHIFT) - 1;
	__atomic_store_n(&b->critical, 1, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	p = b->buffer[which].cursor;
	room = (size_t)(b->buffer[which].limit - p) / n;
	if (room > count)
		room = count;
	meta = (uint8_t *)(b->meta_bias + ((uintptr_t)p >> WEIR_GRANULE_SHIFT));
	start = (uint8_t)(b->newborn | kind << WEIR_META_KIND_SHIFT |
			  (last ? 0 : WEIR_META_END));
	for (i = 0; i < room; i++, meta += last + 1) {
		__atomic_store_n(&meta[last], (uint8_t)WEIR_META_END,
				 __ATOMIC_RELAXED);
		__atomic_store_n(&meta[0], start, __ATOMIC_RELEASE);
	}
	/* No reference before the objects that it is in and that it is to. */
	WEIR_PUBLISH_BARRIER();
	for (i = 0; i < room; i++, p += n)
		__atomic_store_n((void **)(void *)p,
				 i + 1 < room ? (void *)(p + n) : rest,
				 __ATOMIC_RELAXED);
	if (room) {
		/* Release: who takes the list from there sees its links. */
		__atomic_store_n(list, b->buffer[which].cursor,
				 __ATOMIC_RELEASE);
		b->buffer[which].cursor = p;
	}
	WEIR_COMPILER_BARRIER();
	__atomic_store_n(&b->critical, 0, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	if (__builtin_expect(__atomic_load_n(&b->pending, __ATOMIC_RELAXED), 0))
		weir_safepoint_slow(mutator);
	return room;
}

#ifdef __cplusplus
}
#endif
#endif
