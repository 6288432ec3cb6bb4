/* SPDX-License-Identifier: MIT */
/*
 * Uncollectable objects: collectable ones with a slot that keeps them (see
 * roots.c), and a hash table, from object to slot, for GC_free().  Open
 * addressing, deletion by shifting back; addresses are stored inverted, so
 * that the table's memory, wherever it is, holds no reference.
 */
#include "internal.h"

#include <stdlib.h>

struct entry {
	uintptr_t hidden; /* ~object; 0: empty */
	size_t slot;      /* that keeps it */
};

static struct entry *table; /* under lg_lock, all */
static size_t size;         /* a power of two, or 0 */
static size_t used;         /* entries; atomic, to peek */

static size_t home(uintptr_t hidden)
{
	return (size_t)((hidden >> 4) * 0x9e3779b97f4a7c15ull >> 20) &
	       (size - 1);
}

static struct entry *find(uintptr_t hidden)
{
	size_t i = home(hidden);

	while (table[i].hidden && table[i].hidden != hidden)
		i = (i + 1) & (size - 1);
	return &table[i];
}

static bool grow(void)
{
	struct entry *old = table;
	size_t n = size;

	table = calloc(n ? 2 * n : 256, sizeof(*table));
	if (!table) {
		table = old;
		return false;
	}
	size = n ? 2 * n : 256;
	for (size_t i = 0; i < n; i++)
		if (old[i].hidden)
			*find(old[i].hidden) = old[i];
	free(old);
	return true;
}

bool lg_make_uncollectable(void *object)
{
	size_t slot = 0;

	pthread_mutex_lock(&lg_lock);
	if (2 * used < size || grow()) {
		slot = lg_keep(object);
		if (slot) {
			*find(~(uintptr_t)object) =
				(struct entry){~(uintptr_t)object, slot};
			__atomic_store_n(&used, used + 1, __ATOMIC_RELAXED);
		}
	}
	pthread_mutex_unlock(&lg_lock);
	return slot != 0;
}

static void take_out(struct entry *e)
{
	size_t hole = (size_t)(e - table);

	for (size_t i = hole;;) {
		size_t at;

		i = (i + 1) & (size - 1);
		if (!table[i].hidden)
			break;
		at = home(table[i].hidden);
		/* Not if its home lies between the hole and itself. */
		if (((i - at) & (size - 1)) >= ((i - hole) & (size - 1))) {
			table[hole] = table[i];
			hole = i;
		}
	}
	table[hole].hidden = 0;
}

bool lg_make_collectable(void *object)
{
	struct entry *e;
	bool was = false;

	/* Relaxed: whoever may free an object was handed it by the thread that
	 * made it uncollectable, with what orders the store before this. */
	if (!__atomic_load_n(&used, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&lg_lock);
	if (size) {
		e = find(~(uintptr_t)object);
		if (e->hidden) {
			lg_unkeep(e->slot);
			take_out(e);
			__atomic_store_n(&used, used - 1, __ATOMIC_RELAXED);
			was = true;
		}
	}
	pthread_mutex_unlock(&lg_lock);
	return was;
}
