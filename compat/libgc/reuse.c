/* SPDX-License-Identifier: MIT */
/*
 * Large objects that the program freed, for its next ones of that size.
 *
 * Programs that free what they allocate (asymptote's vectors) go through
 * gigabytes of the same few megabytes; new runs of blocks would be cleared in
 * cold memory, and cycles come for them.  A freed object is kept here as any
 * kept object (roots.c), cleared if it can refer to anything; at most
 * REUSE_COUNT, of REUSE_BYTES together: the oldest makes room, and is the
 * collector's then.  GC_gcollect() empties the table.
 *
 * Freeing is the program's word that nothing uses the object any more: if
 * something does, it finds another object there, as in libgc.
 *
 *   all of it: any thread, under lg_lock
 */
#include "internal.h"

#include <string.h>

#define REUSE_COUNT 16u
#define REUSE_BYTES ((size_t)8 << 20)

struct entry {
	size_t slot;    /* keeps the object; 0: empty */
	size_t size;    /* of it, bytes */
	weir_kind kind; /* leaf or conservative */
	uint64_t age;   /* number of the free that brought it */
};

static struct entry table[REUSE_COUNT];
static size_t total;   /* bytes of all */
static size_t entries; /* in use; atomic, to peek */
static uint64_t frees; /* so far */

static void empty(struct entry *e)
{
	lg_unkeep(e->slot);
	e->slot = 0;
	total -= e->size;
	__atomic_store_n(&entries, entries - 1, __ATOMIC_RELAXED);
}

/* A free entry, and room for `size` bytes. */
static struct entry *room_for(size_t size)
{
	for (;;) {
		struct entry *oldest = NULL, *unused = NULL;

		for (struct entry *e = table; e < table + REUSE_COUNT; e++)
			if (!e->slot)
				unused = e;
			else if (!oldest || e->age < oldest->age)
				oldest = e;
		if (unused && total + size <= REUSE_BYTES)
			return unused;
		empty(oldest);
	}
}

void lg_reuse_put(void *object, size_t size, weir_kind kind)
{
	struct entry *e;
	size_t slot;

	if (size < LG_REUSE_MIN || size > REUSE_BYTES / 2 ||
	    (kind != WEIR_KIND_LEAF && kind != WEIR_KIND_CONSERVATIVE))
		return;
	/* Leaves are cleared when they are taken. */
	if (kind == WEIR_KIND_CONSERVATIVE)
		memset(object, 0, size);
	pthread_mutex_lock(&lg_lock);
	e = room_for(size);
	slot = lg_keep(object);
	if (slot) {
		*e = (struct entry){slot, size, kind, ++frees};
		total += size;
		__atomic_store_n(&entries, entries + 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lg_lock);
}

void *lg_reuse_take(size_t n, weir_kind kind)
{
	struct entry *best = NULL;
	void *volatile object = NULL; /* alive by this from here on */

	/* Relaxed: who misses one allocates. */
	if (!__atomic_load_n(&entries, __ATOMIC_RELAXED))
		return NULL;
	pthread_mutex_lock(&lg_lock);
	for (struct entry *e = table; e < table + REUSE_COUNT; e++)
		if (e->slot && e->kind == kind && e->size >= n &&
		    e->size - n <= n / 8 && (!best || e->size < best->size))
			best = e;
	if (best) {
		object = (void *)(uintptr_t)lg_kept(best->slot);
		empty(best);
	}
	pthread_mutex_unlock(&lg_lock);
	if (object && kind == WEIR_KIND_LEAF)
		memset(object, 0, n);
	return object;
}

void lg_reuse_empty(void)
{
	if (!__atomic_load_n(&entries, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&lg_lock);
	for (struct entry *e = table; e < table + REUSE_COUNT; e++)
		if (e->slot)
			empty(e);
	pthread_mutex_unlock(&lg_lock);
}
