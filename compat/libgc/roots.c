/* SPDX-License-Identifier: MIT */
/*
 * Roots: ranges, kept objects, the program's own push_other_roots.
 *
 * Kept objects are in slots of a range of addresses that never moves: a slot
 * is an address, or 0.  The collector's callback reads them without a lock up
 * to `high`; a slot that is filled beside it is seen or not: if not, whoever
 * filled it had the object on its stack, which is scanned in the pause, or
 * filled it before the pause began.
 *
 * The program's functions run with the program stopped, on a thread of the
 * collector.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- Kept objects ------------------------------------------------------- */

#define SLOTS ((size_t)1 << 27)
#define OPEN_STEP ((size_t)1 << 20) /* bytes */

static uintptr_t *slots;  /* reserved; [0] is not used */
static size_t opened;     /* slots [0, opened) have memory */
static size_t high = 1;   /* atomic: slots [1, high) were in use */
static size_t free_count; /* of them free */
static size_t *free_list; /* which */
static size_t free_room;  /* of free_list */

/* Memory that is never used counts for no limit. */
static bool open_more(void)
{
	size_t step = OPEN_STEP / sizeof(*slots);

	if (opened + step > SLOTS ||
	    mprotect(slots + opened, OPEN_STEP, PROT_READ | PROT_WRITE))
		return false;
	opened += step;
	return true;
}

size_t lg_keep(const void *object)
{
	size_t i;

	if (free_count) {
		i = free_list[--free_count];
	} else {
		i = high;
		if (i >= opened && !open_more())
			return 0;
	}
	__atomic_store_n(&slots[i], (uintptr_t)object, __ATOMIC_RELAXED);
	/* Release: partner of the acquire in push(), which finds the slot
	 * filled or 0. */
	if (i == high)
		__atomic_store_n(&high, i + 1, __ATOMIC_RELEASE);
	return i;
}

void lg_keep_other(size_t i, const void *object)
{
	__atomic_store_n(&slots[i], (uintptr_t)object, __ATOMIC_RELAXED);
}

const void *lg_kept(size_t i)
{
	return (const void *)__atomic_load_n(&slots[i], __ATOMIC_RELAXED);
}

void lg_unkeep(size_t i)
{
	__atomic_store_n(&slots[i], 0, __ATOMIC_RELAXED);
	if (free_count == free_room) {
		size_t room = free_room ? 2 * free_room : 64;
		size_t *list = realloc(free_list, room * sizeof(*list));

		if (!list)
			return; /* the slot is not used again */
		free_list = list;
		free_room = room;
	}
	free_list[free_count++] = i;
}

static void push_kept(weir_visitor *v, void *arg)
{
	size_t end = __atomic_load_n(&high, __ATOMIC_ACQUIRE);

	(void)arg;
	for (size_t i = 1; i < end; i++)
		weir_visit(v, (const void *)__atomic_load_n(&slots[i],
							    __ATOMIC_RELAXED));
}

static void push_others(weir_visitor *v, void *arg)
{
	weir_visitor *outer = lg_visitor;

	(void)arg;
	lg_visitor = v;
	if (GC_push_other_roots)
		GC_push_other_roots();
	lg_visitor = outer;
}

void lg_roots_init(weir_heap *h)
{
	if (!slots)
		slots = mmap(NULL, SLOTS * sizeof(*slots), PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			     0);
	if (slots == MAP_FAILED ||
	    weir_root_add_callback(h, push_kept, NULL, WEIR_TRACE_CONCURRENT) ||
	    weir_root_add_callback(h, push_others, NULL, 0))
		lg_fatal("libgc on weir: no memory for the roots");
}

/* ---- Ranges ------------------------------------------------------------- */

struct range {
	uintptr_t start, end; /* [start, end) */
};

static struct range *ranges; /* under lg_outer */
static size_t range_count, range_room;

static struct range *range_new(void)
{
	if (range_count == range_room) {
		size_t room = range_room ? 2 * range_room : 16;
		struct range *r = realloc(ranges, room * sizeof(*r));

		if (!r)
			return NULL;
		ranges = r;
		range_room = room;
	}
	return &ranges[range_count++];
}

static void add(uintptr_t start, uintptr_t end)
{
	bool there = false;
	int err = 0;

	start = (start + 7) & ~(uintptr_t)7;
	end &= ~(uintptr_t)7;
	if (start >= end)
		return;
	pthread_mutex_lock(&lg_outer);
	for (size_t i = 0; i < range_count && !there; i++)
		there = ranges[i].start <= start && end <= ranges[i].end;
	if (!there) {
		struct range *r = range_new();

		err = -1;
		if (r) {
			*r = (struct range){start, end};
			err = weir_root_add(lg_heap, (void *)start,
					    end - start);
		}
	}
	pthread_mutex_unlock(&lg_outer);
	if (err)
		lg_fatal("GC_add_roots: no memory for one more range");
}

static void remove_within(uintptr_t start, uintptr_t end)
{
	pthread_mutex_lock(&lg_outer);
	for (size_t i = 0; i < range_count;)
		if (start <= ranges[i].start && ranges[i].end <= end) {
			weir_root_remove(lg_heap, (void *)ranges[i].start,
					 ranges[i].end - ranges[i].start);
			ranges[i] = ranges[--range_count];
		} else {
			i++;
		}
	pthread_mutex_unlock(&lg_outer);
}

LG_API void GC_add_roots(void *low, void *end)
{
	lg_mutator();
	add((uintptr_t)low, (uintptr_t)end);
}

LG_API void GC_remove_roots(void *low, void *end)
{
	if (lg_heap)
		remove_within((uintptr_t)low & ~(uintptr_t)7,
			      ((uintptr_t)end + 7) & ~(uintptr_t)7);
}

/* Data segments are not forgotten by this in libgc either: they are found
 * again by the next collection unless GC_no_dls says otherwise. */
LG_API void GC_clear_roots(void)
{
	lg_mutator();
	remove_within(0, UINTPTR_MAX);
}

LG_API void GC_exclude_static_roots(void *low, void *end)
{
	lg_mutator();
	if (weir_root_exclude(lg_heap, low,
			      (size_t)((char *)end - (char *)low)))
		lg_fatal("GC_exclude_static_roots: %s", weir_error_text());
}

LG_API void GC_clear_exclusion_table(void)
{
	lg_mutator();
	weir_root_exclude_none(lg_heap);
}

static GC_has_static_roots_func has_roots; /* atomic */

static int filter(const char *name, const void *start, size_t size, void *arg)
{
	GC_has_static_roots_func fn =
		__atomic_load_n(&has_roots, __ATOMIC_ACQUIRE);

	(void)arg;
	return !fn || fn(name, (void *)start, size);
}

LG_API void GC_register_has_static_roots_callback(GC_has_static_roots_func fn)
{
	lg_mutator();
	__atomic_store_n(&has_roots, fn, __ATOMIC_RELEASE);
	weir_root_segment_filter(lg_heap, fn ? filter : NULL, NULL);
}

LG_API void GC_set_no_dls(int on)
{
	GC_no_dls = on != 0;
	if (lg_heap)
		weir_root_data_segments(lg_heap, !on);
}

LG_API int GC_get_no_dls(void)
{
	return GC_no_dls;
}

/* Pointers into objects count at every displacement. */
LG_API void GC_register_displacement(size_t n)
{
	(void)n;
}

/* ---- From within mark procedures and push_other_roots -------------------- */

LG_API void GC_push_all(void *low, void *end)
{
	if (lg_visitor)
		weir_visit_range(lg_visitor, low, end);
}

LG_API void GC_push_all_eager(void *low, void *end)
{
	GC_push_all(low, end);
}

LG_API void GC_push_conditional(void *low, void *end, int all)
{
	(void)all;
	GC_push_all(low, end);
}

LG_API void GC_push_finalizer_structures(void)
{
}

LG_API void GC_set_mark_bit(const void *p)
{
	if (lg_visitor)
		weir_visit(lg_visitor, p);
}

static void *is_marked(void *p)
{
	return weir_object_marked(lg_heap, p) == 1 ? p : NULL;
}

/* In a mark procedure and the like: so far.  Elsewhere, where libgc wants the
 * lock to be held: by the last collection. */
LG_API int GC_is_marked(const void *p)
{
	void *marked = NULL;

	errno = 0;
	if (!lg_visitor)
		marked = weir_locked_call(lg_init(), is_marked, (void *)p);
	/* Or on the collector's thread. */
	if (lg_visitor || errno == EDEADLK)
		marked = is_marked((void *)p);
	return marked != NULL;
}

LG_API void GC_clear_mark_bit(const void *p)
{
	(void)p;
	lg_unsupported();
}

LG_API int GC_is_tmp_root(void *p)
{
	(void)p;
	return 0;
}

LG_API void GC_set_push_other_roots(GC_push_other_roots_proc fn)
{
	__atomic_store_n(&GC_push_other_roots, fn, __ATOMIC_RELEASE);
}

LG_API GC_push_other_roots_proc GC_get_push_other_roots(void)
{
	return GC_push_other_roots;
}
