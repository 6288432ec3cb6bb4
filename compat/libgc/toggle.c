/* SPDX-License-Identifier: MIT */
/*
 * Toggle references: the program is asked in each collection whether one is
 * strong or weak, or no more.
 *
 * A reference is an entry with a slot that keeps the object while it is strong
 * (roots.c), and a long link of weir's to the object's hidden address: so the
 * pause that finds the object dead clears it, once no finalizer keeps it, as
 * libgc does.
 *
 * The callback is asked right before the pause, as libgc does it: on the
 * collector's thread, beside the program, with the lock that
 * GC_call_with_alloc_lock() has.  What it answers holds in that pause, which
 * looks at the slots again.  What was strong before was marked beside the
 * program, though: an object that turns weak then dies a cycle later.
 *
 * Entries are in a list that only grows.  An entry is
 *
 *   NEW     registered, and not asked about yet; strong until then, since one
 *           that came in between the asking and the pause would else be cleared
 *           unasked.  From here on only the collector changes it and its slot
 *   LIVE    as the program answered
 *   IDLE    the object died, or the program dropped it: in the list of idle
 *           ones, which threads take whole to use its entries anew
 *
 *   GC_toggleref_add      any thread of the program; idle ones under lg_lock
 *   lg_toggles_decide     the collector, between cycles' marking and pause
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

enum state { IDLE, NEW, LIVE };

struct toggle {
	void *hidden;         /* atomic: ~object; 0: it died */
	size_t slot;          /* that keeps it while it is strong */
	uint32_t state;       /* atomic: enum state */
	bool strong;          /* as it was registered */
	struct toggle *next;  /* in the list of all */
	struct toggle *other; /* in a list of idle ones */
};

static GC_toggleref_func toggle_fn; /* atomic */
static struct toggle *all;          /* atomic: the list */
static struct toggle *idle;         /* atomic: the collector pushes */
static struct toggle *spare;        /* under lg_lock: taken from there */

static void *hide(const void *p)
{
	return (void *)~(uintptr_t)p;
}

static void make_idle(struct toggle *t)
{
	lg_keep_other(t->slot, NULL);
	__atomic_store_n(&t->state, IDLE, __ATOMIC_RELAXED);
	t->other = __atomic_load_n(&idle, __ATOMIC_RELAXED);
	/* Release: partner of the exchange in take(), who sees the entry as it
	 * was left.  Nobody but this thread pushes. */
	while (!__atomic_compare_exchange_n(&idle, &t->other, t, true,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

static GC_ToggleRefStatus registered(const struct toggle *t)
{
	return t->strong ? GC_TOGGLE_REF_STRONG : GC_TOGGLE_REF_WEAK;
}

static void decide(struct toggle *t, GC_toggleref_func fn)
{
	/* Relaxed: pauses clear it, on this thread. */
	void *hidden = __atomic_load_n(&t->hidden, __ATOMIC_RELAXED);

	if (!hidden) {
		make_idle(t);
		return;
	}
	__atomic_store_n(&t->state, LIVE, __ATOMIC_RELAXED);
	switch (!fn ? registered(t) : fn(hide(hidden))) {
	case GC_TOGGLE_REF_DROP:
		make_idle(t);
		break;
	case GC_TOGGLE_REF_STRONG:
		lg_keep_other(t->slot, hide(hidden));
		break;
	case GC_TOGGLE_REF_WEAK:
		lg_keep_other(t->slot, NULL);
		break;
	default:
		lg_fatal("GC_toggleref_func: bad status");
	}
}

void lg_toggles_decide(void)
{
	GC_toggleref_func fn = __atomic_load_n(&toggle_fn, __ATOMIC_ACQUIRE);

	/* Acquire, both: partners of the releases in GC_toggleref_add(). */
	for (struct toggle *t = __atomic_load_n(&all, __ATOMIC_ACQUIRE); t;
	     t = t->next) {
		uint32_t state = __atomic_load_n(&t->state, __ATOMIC_ACQUIRE);

		/* Without a callback they stay as they are. */
		if (state == NEW || (state == LIVE && fn))
			decide(t, fn);
	}
}

/* An entry that is IDLE, and in no list of such, with its link gone. */
static struct toggle *take(void)
{
	struct toggle *t;

	pthread_mutex_lock(&lg_lock);
	if (!spare)
		spare = __atomic_exchange_n(&idle, NULL, __ATOMIC_ACQUIRE);
	t = spare;
	if (t)
		spare = t->other;
	pthread_mutex_unlock(&lg_lock);
	/* Dropped: the object may be alive yet. */
	if (t)
		weir_link_remove(lg_heap, &t->hidden, WEIR_LINK_LONG);
	return t;
}

static void give_back(struct toggle *t)
{
	pthread_mutex_lock(&lg_lock);
	t->other = spare;
	spare = t;
	pthread_mutex_unlock(&lg_lock);
}

static struct toggle *make(void)
{
	struct toggle *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	pthread_mutex_lock(&lg_lock);
	t->slot = lg_keep(NULL);
	if (t->slot) {
		t->next = all;
		/* Release: the entry is whole when it is found. */
		__atomic_store_n(&all, t, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lg_lock);
	if (!t->slot) {
		free(t);
		return NULL;
	}
	return t;
}

LG_API int GC_toggleref_add(void *object, int is_strong)
{
	struct toggle *t;
	int err;

	lg_mutator();
	/* What is not in the heap does not die. */
	if (!GC_get_toggleref_func() || !weir_object_base(lg_heap, object))
		return GC_SUCCESS;
	t = take();
	if (!t)
		t = make();
	if (!t)
		return GC_NO_MEMORY;
	__atomic_store_n(&t->hidden, hide(object), __ATOMIC_RELAXED);
	err = weir_link_add(lg_heap, &t->hidden, object, WEIR_LINK_LONG);
	if (err) {
		give_back(t);
		return GC_NO_MEMORY;
	}
	t->strong = is_strong != 0;
	lg_keep_other(t->slot, object);
	/* Release: from here on it is the collector's. */
	__atomic_store_n(&t->state, NEW, __ATOMIC_RELEASE);
	GC_reachable_here(object);
	return GC_SUCCESS;
}

LG_API void GC_set_toggleref_func(GC_toggleref_func fn)
{
	__atomic_store_n(&toggle_fn, fn, __ATOMIC_RELEASE);
}

LG_API GC_toggleref_func GC_get_toggleref_func(void)
{
	return __atomic_load_n(&toggle_fn, __ATOMIC_ACQUIRE);
}
