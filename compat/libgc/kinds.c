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
	weir_kind weir;     /* atomic: what its objects are allocated with */
	weir_kind base;     /* what it is here, and that is if nobody is asked
			     * of its objects */
	GC_word descriptor; /* as given to GC_new_kind() */
	bool add_size;      /* the object's size is added to it */
	bool beside;        /* per object, and none has a procedure; */
	bool always;        /* or all have */
	bool ordered;       /* what its objects refer to is asked later */
	GC_disclaim_proc disclaim; /* atomic: asks, or NULL */
	weir_kind disclaiming[2];  /* kinds that ask, [1] ordered; 0: none */
	weir_kind leaking;         /* that of leak.c, or 0 */
};

#define KIND(w, size)                                  \
	{                                              \
		.weir = w, .base = w, .add_size = size \
	}

static struct kind kinds[KINDS] = {
	KIND(WEIR_KIND_LEAF, false),
	KIND(WEIR_KIND_CONSERVATIVE, true),
	KIND(WEIR_KIND_CONSERVATIVE, true),
	KIND(WEIR_KIND_LEAF, false),
};
_Static_assert(WEIR_KIND_CONSERVATIVE == 0, "no kind that asks is 0");
static unsigned kind_count = FIRST_OWN; /* atomic: written under lg_outer */
static GC_mark_proc procs[PROCS];
static unsigned proc_count = GC_RESERVED_MARK_PROCS; /* likewise */

weir_kind lg_kind(int kind)
{
	/* Acquire: partner of the release in GC_new_kind(). */
	if (lg_unlikely((unsigned)kind >=
			__atomic_load_n(&kind_count, __ATOMIC_ACQUIRE)))
		lg_fatal("libgc on weir: there is no kind %d", kind);
	/* Acquire: partner of the release in choose(). */
	return __atomic_load_n(&kinds[kind].weir, __ATOMIC_ACQUIRE);
}

int lg_kind_of(weir_kind kind)
{
	unsigned n = __atomic_load_n(&kind_count, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < n; i++) {
		const struct kind *k = &kinds[i];

		if (k->base == kind ||
		    (kind && (kind == k->disclaiming[0] ||
			      kind == k->disclaiming[1] || kind == k->leaking)))
			return k->always ? GC_gcj_kind : (int)i;
	}
	return 1; /* typed: conservative to whoever asks */
}

/* ---- Following descriptors ---------------------------------------------- */

/* The one that an object of GC_DS_PER_OBJECT, or its type, has; 0 if it is not
 * there yet. */
static GC_word own_descriptor(void *object, size_t size, GC_word d)
{
	GC_signed_word at = (GC_signed_word)d - GC_DS_PER_OBJECT;
	const char *from = object;

	if (at < 0) {
		/* Relaxed: partner of the store in GC_gcj_malloc(); a type is
		 * there before its objects are. */
		from = __atomic_load_n((char **)object, __ATOMIC_RELAXED);
		at = -(at + GC_INDIR_PER_OBJ_BIAS);
		if (!from)
			return 0;
	} else if ((size_t)at + sizeof(d) > size) {
		return 0;
	}
	memcpy(&d, from + at, sizeof(d));
	return (d & GC_DS_TAGS) == GC_DS_PER_OBJECT ? 0 : d;
}

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
	default:
		follow(object, size, v, own_descriptor(object, size, d));
		break;
	}
}

/* The same beside the program, for objects that have no procedure; one whose
 * type was given one since is scanned whole. */
static void trace_beside(void *object, size_t size, weir_visitor *v, void *arg)
{
	const struct kind *k = arg;
	GC_word d = k->descriptor;

	if ((d & GC_DS_TAGS) == GC_DS_PER_OBJECT)
		d = own_descriptor(object, size, d);
	if ((d & GC_DS_TAGS) == GC_DS_PROC)
		d = size | GC_DS_LENGTH;
	follow(object, size, v, d);
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

/* ---- Looking at all ------------------------------------------------------ */

struct each {
	GC_reachable_object_proc fn; /* the program's */
	void *arg;                   /* to it */
};

static void tell(void *object, size_t size, void *arg)
{
	const struct each *e = arg;

	e->fn(object, size, e->arg);
}

static void *tell_all(void *e)
{
	weir_object_each(lg_heap, tell, e);
	return NULL;
}

LG_API void GC_enumerate_reachable_objects_inner(GC_reachable_object_proc fn,
						 void *arg)
{
	struct each e = {fn, arg};

	weir_locked_call(lg_init(), tell_all, &e);
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
		k->base = WEIR_KIND_CONSERVATIVE;
		return 0;
	}
	if (d == 0) {
		k->base = WEIR_KIND_LEAF;
		return 0;
	}
	if (is_typed(d)) {
		k->base = typed_kind(d);
		return 0;
	}
	switch (d & GC_DS_TAGS) {
	case GC_DS_PROC:
		flags = WEIR_TRACE_ALWAYS;
		break;
	case GC_DS_PER_OBJECT:
		if (k->beside)
			return weir_kind_trace(lg_heap, trace_beside, k,
					       WEIR_TRACE_CONCURRENT, &k->base);
		flags = k->always ? WEIR_TRACE_ALWAYS : 0;
		break;
	default:
		flags = WEIR_TRACE_CONCURRENT;
		break;
	}
	return weir_kind_trace(lg_heap, trace, k, flags, &k->base);
}

/* ---- Objects that are asked before they go ------------------------------- */

bool lg_noting, lg_plain_noted;

static int ask(void *object, void *arg)
{
	const struct kind *k = arg;
	GC_disclaim_proc fn = __atomic_load_n(&k->disclaim, __ATOMIC_ACQUIRE);

	return fn ? fn(object) : 0;
}

/* Let new objects of the kind be what they should be now; under lg_outer. */
static int choose(struct kind *k)
{
	weir_kind kind = k->base, *asks = &k->disclaiming[k->ordered];
	int err = 0;

	if (lg_leak_mode()) {
		if (!k->leaking)
			err = lg_leak_kind(k->base, false, &k->leaking);
		kind = k->leaking;
	} else if (k->disclaim) {
		if (!*asks)
			err = weir_kind_disclaim(
				lg_heap, k->base, ask, k,
				k->ordered ? WEIR_DISCLAIM_ORDERED : 0, asks);
		kind = *asks;
	}
	if (err)
		return err;
	/* Relaxed: who frees an object has it from where it was allocated,
	 * after this. */
	if (kind != k->base)
		__atomic_store_n(&lg_noting, true, __ATOMIC_RELAXED);
	/* Release: the kind is whole for who allocates with it. */
	__atomic_store_n(&k->weir, kind, __ATOMIC_RELEASE);
	__atomic_store_n(&lg_plain_noted,
			 kinds[0].weir != WEIR_KIND_LEAF ||
				 kinds[1].weir != WEIR_KIND_CONSERVATIVE,
			 __ATOMIC_RELAXED);
	return 0;
}

void lg_kinds_leak_mode(void)
{
	int err = 0;

	pthread_mutex_lock(&lg_outer);
	for (unsigned i = 0; i < kind_count && !err; i++)
		/* Uncollectable ones are never found dead. */
		if (i != 2 && i != 3)
			err = choose(&kinds[i]);
	pthread_mutex_unlock(&lg_outer);
	if (err)
		lg_fatal("GC_find_leak: %s", weir_error_text());
}

/* Objects that were allocated before are not asked. */
LG_API void GC_register_disclaim_proc(int kind, GC_disclaim_proc fn, int all)
{
	int err;

	lg_mutator();
	lg_kind(kind);
	pthread_mutex_lock(&lg_outer);
	__atomic_store_n(&kinds[kind].disclaim, fn, __ATOMIC_RELEASE);
	kinds[kind].ordered = all != 0;
	err = choose(&kinds[kind]);
	pthread_mutex_unlock(&lg_outer);
	if (err)
		lg_fatal("GC_register_disclaim_proc: %s", weir_error_text());
}

static bool asked; /* only its address */

static void *ask_some(void *arg)
{
	return weir_disclaim_run(arg, 16) < 0 ? NULL : &asked;
}

/* With the lock, as libgc; a pause waits for it, so not for long. */
void lg_disclaim_due(void)
{
	weir_mutator *m = lg_mutator();

	while (weir_disclaim_queued(lg_heap) &&
	       weir_locked_call(lg_heap, ask_some, m))
		;
	lg_leaks_due();
}

static unsigned new_kind(const struct kind *like)
{
	unsigned i;
	int err = 0;

	lg_mutator();
	pthread_mutex_lock(&lg_outer);
	i = kind_count;
	if (i < KINDS) {
		kinds[i] = *like;
		err = make_kind(&kinds[i]);
		if (!err)
			err = choose(&kinds[i]);
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

LG_API unsigned GC_new_kind(void **list, GC_word descriptor, int add_size,
			    int clear)
{
	struct kind k = {.descriptor = descriptor, .add_size = add_size != 0};

	(void)list;
	(void)clear; /* weir's memory is always zeroed */
	return new_kind(&k);
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
	if (lg_leak_mode() && lg_leak_kind(kind, false, &kind))
		lg_fatal("GC_make_descriptor: %s", weir_error_text());
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

/* ---- Objects with their descriptor in the type (GCJ) --------------------- */

/*
 * The type says how an object is marked, so where it has no procedure the
 * object is marked beside the program, and else in every pause: it is of one of
 * two kinds, which have one number to the program.
 */
#define GCJ_AT sizeof(GC_word) /* of the descriptor in the type */
#define GCJ_DESCRIPTOR                                                \
	((GC_word)(-(GC_signed_word)GCJ_AT - GC_INDIR_PER_OBJ_BIAS) | \
	 GC_DS_PER_OBJECT)

static unsigned gcj_proc_kind; /* atomic: 0 before they are made */
static pthread_once_t gcj_once = PTHREAD_ONCE_INIT;
static GC_word gcj_index; /* of the procedure */

static void make_gcj_kinds(void)
{
	struct kind beside = {.descriptor = GCJ_DESCRIPTOR, .beside = true};
	struct kind always = {.descriptor = GCJ_DESCRIPTOR, .always = true};
	struct kind debug = {.descriptor = GC_MAKE_PROC(gcj_index, 1)};

	GC_gcj_kind = (int)new_kind(&beside);
	GC_gcj_debug_kind = (int)new_kind(&debug);
	__atomic_store_n(&gcj_proc_kind, new_kind(&always), __ATOMIC_RELEASE);
}

LG_API void GC_init_gcj_malloc(int index, void *proc)
{
	if (index < 0 || index >= GC_RESERVED_MARK_PROCS)
		lg_fatal("GC_init_gcj_malloc: bad index %d", index);
	pthread_mutex_lock(&lg_outer);
	if (!procs[index])
		procs[index] = (GC_mark_proc)proc;
	gcj_index = (GC_word)index;
	pthread_mutex_unlock(&lg_outer);
	pthread_once(&gcj_once, make_gcj_kinds);
}

static void *gcj(size_t n, unsigned kind, void *type)
{
	void **p = lg_alloc(lg_padded(n), lg_kind((int)kind));

	if (lg_unlikely(!p))
		return lg_no_memory(n);
	__atomic_store_n(p, type, __ATOMIC_RELAXED);
	return p;
}

LG_API void *GC_gcj_malloc(size_t n, void *type)
{
	unsigned proc_kind = __atomic_load_n(&gcj_proc_kind, __ATOMIC_ACQUIRE);
	GC_word d;

	if (lg_unlikely(!proc_kind))
		lg_fatal("GC_gcj_malloc: GC_init_gcj_malloc() was not called");
	memcpy(&d, (const char *)type + GCJ_AT, sizeof(d));
	return gcj(n,
		   (d & GC_DS_TAGS) == GC_DS_PROC ? proc_kind
						  : (unsigned)GC_gcj_kind,
		   type);
}

LG_API void *GC_gcj_malloc_ignore_off_page(size_t n, void *type)
{
	return GC_gcj_malloc(n, type);
}

/* The procedure marks them, whatever the type says. */
LG_API void *GC_debug_gcj_malloc(size_t n, void *type, GC_EXTRA_PARAMS)
{
	(void)file;
	(void)line;
	if (lg_unlikely(!__atomic_load_n(&gcj_proc_kind, __ATOMIC_ACQUIRE)))
		lg_fatal("GC_debug_gcj_malloc: GC_init_gcj_malloc() was not "
			 "called");
	return gcj(n, (unsigned)GC_gcj_debug_kind, type);
}
