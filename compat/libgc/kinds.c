/* SPDX-License-Identifier: MIT */
/*
 * Kinds of objects: libgc's numbers, free lists, descriptors and mark
 * procedures, on weir's kinds.
 *
 *   0  pointer-free     1  conservative     2, 3  uncollectable
 *   from 4 on           GC_new_kind()
 *
 * A mark procedure may look at anything of the program's, write to it, and
 * depend on more than the object's own words: so it runs with the program
 * stopped only, and in every pause (WEIR_TRACE_ALWAYS).  Descriptors of lengths
 * and bitmaps describe the object alone; they are followed beside the program.
 *
 * GC_make_descriptor() returns weir's kind in a descriptor's clothes, which
 * GC_new_kind() knows too.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KINDS 64
#define FIRST_OWN 4
#define PROCS GC_MAX_MARK_PROCS

/* What GC_make_descriptor() returns: the top bits, and the tag of a procedure
 * so that nobody takes it for a length. */
#define TYPED ((GC_word)0x5745 << 48)
#define TYPED_MASK ((GC_word)0xffff << 48)

struct kind {
	weir_kind weir;     /* what it is here */
	GC_word descriptor; /* as given to GC_new_kind() */
	bool add_size;      /* the object's size is added to it */
};

static struct kind kinds[KINDS] = {
	{WEIR_KIND_LEAF, 0, false},
	{WEIR_KIND_CONSERVATIVE, 0, true},
	{WEIR_KIND_CONSERVATIVE, 0, true},
	{WEIR_KIND_LEAF, 0, false},
};
static unsigned kind_count = FIRST_OWN; /* atomic: written under lg_outer */
static GC_mark_proc procs[PROCS];
static unsigned proc_count = GC_RESERVED_MARK_PROCS; /* likewise */

weir_kind lg_kind(int kind)
{
	/* Acquire: partner of the release in GC_new_kind(). */
	if (lg_unlikely((unsigned)kind >=
			__atomic_load_n(&kind_count, __ATOMIC_ACQUIRE)))
		lg_fatal("libgc on weir: there is no kind %d", kind);
	return kinds[kind].weir;
}

int lg_kind_of(weir_kind kind)
{
	unsigned n = __atomic_load_n(&kind_count, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < n; i++)
		if (kinds[i].weir == kind)
			return (int)i;
	return 1; /* typed: conservative to whoever asks */
}

/* ---- Following descriptors ---------------------------------------------- */

static void follow(void *object, size_t size, weir_visitor *v, GC_word d)
{
	GC_word *word = object;

	switch (d & GC_DS_TAGS) {
	case GC_DS_LENGTH:
		weir_visit_range(v, object,
				 (char *)object + (d < size ? d : size));
		break;
	case GC_DS_BITMAP:
		/* The highest bit is that of the first word. */
		for (d &= ~(GC_word)GC_DS_TAGS; d && size >= sizeof(*word);
		     d <<= 1, word++, size -= sizeof(*word))
			if (d >> 63)
				weir_visit(v, (void *)__atomic_load_n(
						      word, __ATOMIC_RELAXED));
		break;
	case GC_DS_PROC: {
		weir_visitor *outer = lg_visitor;
		GC_word index = d >> GC_DS_TAG_BITS & (PROCS - 1);

		lg_visitor = v;
		/* The "mark stack" is the visitor, passed through. */
		if (index < __atomic_load_n(&proc_count, __ATOMIC_ACQUIRE) &&
		    procs[index])
			procs[index](
				object, (struct GC_ms_entry *)v,
				(struct GC_ms_entry *)UINTPTR_MAX,
				d >> (GC_DS_TAG_BITS + GC_LOG_MAX_MARK_PROCS));
		lg_visitor = outer;
		break;
	}
	default: { /* the object, or its type, has the descriptor */
		GC_signed_word at = (GC_signed_word)d - GC_DS_PER_OBJECT;
		const char *from = object;

		if (at < 0) {
			from = *(char **)object;
			at = -(at + GC_INDIR_PER_OBJ_BIAS);
			if (!from)
				return;
		} else if ((size_t)at + sizeof(d) > size) {
			return;
		}
		memcpy(&d, from + at, sizeof(d));
		if ((d & GC_DS_TAGS) != GC_DS_PER_OBJECT)
			follow(object, size, v, d);
	}
	}
}

static void trace(void *object, size_t size, weir_visitor *v, void *arg)
{
	const struct kind *k = arg;

	follow(object, size, v, k->descriptor + (k->add_size ? size : 0));
}

LG_API struct GC_ms_entry *GC_mark_and_push(void *p, struct GC_ms_entry *top,
					    struct GC_ms_entry *limit,
					    void **from)
{
	(void)limit;
	(void)from;
	weir_visit((weir_visitor *)top, p);
	return top;
}

/* ---- Making them -------------------------------------------------------- */

/* Filled by nobody: weir has its own. */
LG_API void **GC_new_free_list(void)
{
	void **list = calloc(1, sizeof(*list));

	if (!list)
		lg_fatal("GC_new_free_list: no memory");
	return list;
}

LG_API void **GC_new_free_list_inner(void)
{
	return GC_new_free_list();
}

LG_API unsigned GC_new_proc(GC_mark_proc proc)
{
	unsigned i;

	pthread_mutex_lock(&lg_outer);
	i = proc_count;
	if (i < PROCS) {
		procs[i] = proc;
		__atomic_store_n(&proc_count, i + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lg_outer);
	if (i >= PROCS)
		lg_fatal("GC_new_proc: there are %d already", PROCS);
	return i;
}

LG_API unsigned GC_new_proc_inner(GC_mark_proc proc)
{
	return GC_new_proc(proc);
}

static bool is_typed(GC_word d)
{
	return (d & TYPED_MASK) == TYPED && (d & GC_DS_TAGS) == GC_DS_PROC;
}

static weir_kind typed_kind(GC_word d)
{
	return (weir_kind)((d & ~TYPED_MASK) >> GC_DS_TAG_BITS);
}

static int make_kind(struct kind *k)
{
	GC_word d = k->descriptor;
	unsigned flags;

	if (d == 0 && k->add_size) {
		k->weir = WEIR_KIND_CONSERVATIVE;
		return 0;
	}
	if (d == 0) {
		k->weir = WEIR_KIND_LEAF;
		return 0;
	}
	if (is_typed(d)) {
		k->weir = typed_kind(d);
		return 0;
	}
	switch (d & GC_DS_TAGS) {
	case GC_DS_PROC:
		flags = WEIR_TRACE_ALWAYS;
		break;
	case GC_DS_PER_OBJECT:
		flags = 0;
		break;
	default:
		flags = WEIR_TRACE_CONCURRENT;
		break;
	}
	return weir_kind_trace(lg_heap, trace, k, flags, &k->weir);
}

LG_API unsigned GC_new_kind(void **list, GC_word descriptor, int add_size,
			    int clear)
{
	unsigned i;
	int err = 0;

	(void)list;
	(void)clear; /* weir's memory is always zeroed */
	lg_mutator();
	pthread_mutex_lock(&lg_outer);
	i = kind_count;
	if (i < KINDS) {
		kinds[i].descriptor = descriptor;
		kinds[i].add_size = add_size != 0;
		err = make_kind(&kinds[i]);
		if (!err)
			__atomic_store_n(&kind_count, i + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lg_outer);
	if (i >= KINDS)
		lg_fatal("GC_new_kind: there are %d already", KINDS);
	if (err)
		lg_fatal("GC_new_kind: %s", weir_error_text());
	return i;
}

LG_API unsigned GC_new_kind_inner(void **list, GC_word descriptor, int add_size,
				  int clear)
{
	return GC_new_kind(list, descriptor, add_size, clear);
}

/* ---- Typed allocation --------------------------------------------------- */

LG_API GC_descr GC_make_descriptor(const GC_word *bitmap, size_t words)
{
	weir_kind kind;

	lg_mutator();
	while (words && !GC_get_bit(bitmap, words - 1))
		words--;
	if (!words)
		return TYPED | WEIR_KIND_LEAF << GC_DS_TAG_BITS | GC_DS_PROC;
	/* A longer record than weir describes is scanned as a whole. */
	if (weir_kind_bitmap(lg_heap, bitmap, words, &kind))
		kind = WEIR_KIND_CONSERVATIVE;
	return TYPED | (GC_word)kind << GC_DS_TAG_BITS | GC_DS_PROC;
}

LG_API void *GC_malloc_explicitly_typed(size_t n, GC_descr d)
{
	void *p;

	if (lg_unlikely(!is_typed(d)))
		lg_fatal("GC_malloc_explicitly_typed: %#lx is not of "
			 "GC_make_descriptor()",
			 d);
	p = lg_alloc(lg_padded(n), typed_kind(d));
	return lg_likely(p) ? p : lg_no_memory(n);
}

LG_API void *GC_malloc_explicitly_typed_ignore_off_page(size_t n, GC_descr d)
{
	return GC_malloc_explicitly_typed(n, d);
}

/* weir repeats a bitmap over the whole object, with the bitmap's own period:
 * right for records of that length; others are scanned whole. */
LG_API void *GC_calloc_explicitly_typed(size_t count, size_t size, GC_descr d)
{
	size_t n;
	void *p;

	if (__builtin_mul_overflow(count, size, &n) || n > SIZE_MAX / 2)
		return lg_no_memory(SIZE_MAX);
	if (typed_kind(d) == WEIR_KIND_LEAF)
		p = lg_alloc(lg_padded(n), WEIR_KIND_LEAF);
	else
		p = lg_alloc(lg_padded(n), WEIR_KIND_CONSERVATIVE);
	return lg_likely(p) ? p : lg_no_memory(n);
}
