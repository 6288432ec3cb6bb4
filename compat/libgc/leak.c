/* SPDX-License-Identifier: MIT */
/*
 * Leak mode: what is found dead and was not freed is reported.
 *
 * Every kind has one beside it whose objects are asked before they go
 * (weir_kind_disclaim), and in leak mode objects are of these.  GC_free() makes
 * an object one of the plain kind, so what is asked was not freed: it is noted,
 * and told on standard error by the next thread that comes by, GC_gcollect()
 * among them.  As in libgc at most 40 are told of at a time; others stay for
 * the collection after.
 *
 * The debugging forms put the place of their call into the last words of the
 * object: a kind of its own says that it is there.
 *
 *   found            under the lock of weir_locked_call()
 *   leaks_due        any thread; takes what was found under lg_lock
 */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 40

struct place {
	const char *file; /* of the caller, or NULL */
	int line;         /* in it */
	size_t size;      /* that was asked for */
};

struct leak {
	void *object;       /* where it was; no reference */
	size_t bytes;       /* usable ones */
	bool atomic;        /* pointer-free */
	struct place place; /* of its allocation, if known */
};

bool lg_leaks;
static struct leak leak[MOST];  /* under lg_lock */
static unsigned leak_count;     /* atomic, to peek: written under lg_lock */
static weir_kind debug_kind[2]; /* conservative, leaf; 0: not made; under
				 * lg_outer, atomic */

/* Where an object of `bytes` with a place has it. */
static struct place *place_of(void *object, size_t bytes)
{
	return (struct place *)(void *)((char *)object + bytes) - 1;
}

static int note(void *object, bool atomic, bool debug)
{
	size_t bytes = weir_object_size(lg_heap, object);
	struct leak l = {object, bytes, atomic, {NULL, 0, 0}};
	bool room;

	if (debug)
		l.place = *place_of(object, bytes);
	pthread_mutex_lock(&lg_lock);
	room = leak_count < MOST;
	if (room) {
		leak[leak_count] = l;
		__atomic_store_n(&leak_count, leak_count + 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lg_lock);
	return !room;
}

static int found(void *object, void *arg)
{
	(void)arg;
	return note(object, false, false);
}

static int found_leaf(void *object, void *arg)
{
	(void)arg;
	return note(object, true, false);
}

static int found_debug(void *object, void *arg)
{
	return note(object, arg != NULL, true);
}

int lg_leak_kind(weir_kind like, bool debug, weir_kind *kind)
{
	bool leaf = like == WEIR_KIND_LEAF;

	if (debug)
		return weir_kind_disclaim(lg_heap, like, found_debug,
					  leaf ? debug_kind : NULL, 0, kind);
	return weir_kind_disclaim(lg_heap, like, leaf ? found_leaf : found,
				  NULL, 0, kind);
}

static weir_kind kind_with_place(bool leaf)
{
	weir_kind kind = __atomic_load_n(&debug_kind[leaf], __ATOMIC_ACQUIRE);

	if (kind)
		return kind;
	pthread_mutex_lock(&lg_outer);
	kind = debug_kind[leaf];
	if (!kind) {
		if (lg_leak_kind(leaf ? WEIR_KIND_LEAF : WEIR_KIND_CONSERVATIVE,
				 true, &kind))
			lg_fatal("GC_find_leak: %s", weir_error_text());
		/* Release: partner of the acquire above. */
		__atomic_store_n(&debug_kind[leaf], kind, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lg_outer);
	return kind;
}

void *lg_leak_alloc(size_t n, weir_kind kind, const char *file, int line)
{
	struct place place = {file, line, n};
	size_t whole;
	void *p = NULL;

	kind = kind_with_place(kind == WEIR_KIND_LEAF);
	if (!__builtin_add_overflow(n, sizeof(place) + 1, &whole))
		p = lg_alloc(whole, kind);
	if (p)
		*place_of(p, weir_object_size(lg_heap, p)) = place;
	return p;
}

weir_kind lg_leak_plain(weir_kind kind)
{
	for (int leaf = 0; leaf < 2; leaf++)
		if (kind && kind == __atomic_load_n(&debug_kind[leaf],
						    __ATOMIC_RELAXED))
			return leaf ? WEIR_KIND_LEAF : WEIR_KIND_CONSERVATIVE;
	return kind;
}

/* ---- Telling ------------------------------------------------------------ */

static void tell(const struct leak *l)
{
	if (l->place.file)
		fprintf(stderr, "%p (%s:%d, sz= %zu, %s)\n", l->object,
			l->place.file, l->place.line, l->place.size,
			l->atomic ? "PTRFREE" : "NORMAL");
	else
		fprintf(stderr, "object at %p of appr. %zu bytes (%s)\n",
			l->object, l->bytes,
			l->atomic ? "atomic" : "composite");
}

void lg_leaks_due(void)
{
	struct leak taken[MOST];
	unsigned n;

	if (!__atomic_load_n(&leak_count, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&lg_lock);
	n = leak_count;
	memcpy(taken, leak, n * sizeof(*leak));
	memset(leak, 0, n * sizeof(*leak));
	__atomic_store_n(&leak_count, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lg_lock);
	if (!n)
		return;
	fprintf(stderr, "Found %u leaked objects:\n", n);
	for (unsigned i = 0; i < n; i++)
		tell(&taken[i]);
	memset(taken, 0, sizeof(taken));
	__asm__ volatile("" ::"r"(taken) : "memory");
	if (getenv("GC_ABORT_ON_LEAK"))
		lg_fatal("Leaked or smashed objects encountered");
}

/* ---- The mode ----------------------------------------------------------- */

/* One chance at least, as in libgc. */
static void at_exit(void)
{
	if (lg_leak_mode())
		GC_gcollect();
}

static void set(bool on)
{
	__atomic_store_n(&lg_leaks, on, __ATOMIC_RELAXED);
	GC_find_leak = on;
	lg_kinds_leak_mode();
}

/* The first in this process, with the heap made. */
void lg_leak_init(void)
{
	if (getenv("GC_FIND_LEAK"))
		GC_find_leak = 1;
	if (!GC_find_leak)
		return;
	set(true);
	atexit(at_exit);
}

LG_API void GC_set_find_leak(int on)
{
	if (!lg_heap) {
		GC_find_leak = on != 0;
		return;
	}
	if ((on != 0) != lg_leak_mode())
		set(on != 0);
}

LG_API int GC_get_find_leak(void)
{
	return GC_find_leak;
}
