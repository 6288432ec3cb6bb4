/* SPDX-License-Identifier: MIT */
/*
 * The pool of a snapshot; snap_pool.h says what holds.  One lock, held for some
 * twenty instructions, for handlers of one process come from one listener, or
 * from threads that have just paid for a signal; but begin, when there are no
 * handlers, holds it for all that it copies.
 */
#define _GNU_SOURCE
#include "runtime/snap_pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/check.h"
#include "runtime/futex_lock.h"
#include "runtime/own_memory.h"

#define LEAST 4u

static int no_memory(size_t bytes)
{
	return wr_error(ENOMEM,
			"no memory for a pool of %zu bytes; free some, or make "
			"the snapshot's pool smaller",
			bytes);
}

static void touch_by_hand(void *memory, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 4096)
		((volatile char *)memory)[at] = 0;
}

/* Now and not in a handler, where there would be nobody to tell that there is
 * no memory.  Where the kernel cannot do it at once (before 5.14), by hand. */
static int touch(void *memory, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
	if (!madvise(memory, bytes, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -errno;
#endif
	touch_by_hand(memory, bytes);
	return 0;
}

int wr_pool_open(struct wr_pool *p, size_t bytes, unsigned shift)
{
	size_t slots = bytes >> shift;
	void *memory;

	if (slots < LEAST)
		slots = LEAST;
	if (slots > UINT32_MAX / 2)
		slots = UINT32_MAX / 2;
	memset(p, 0, sizeof(*p));
	p->shift = shift;
	p->slots = (uint32_t)slots;
	p->bytes = slots << shift;
	p->free = wr_own_alloc(slots * sizeof(*p->free));
	p->filled = wr_own_alloc(slots * sizeof(*p->filled));
	memory = NULL;
	if (p->free && p->filled)
		memory = wr_own_alloc(p->bytes);
	if (!memory) {
		bytes = p->bytes;
		wr_pool_close(p);
		return no_memory(bytes);
	}
	p->memory = memory;
	/* Not in the children of fork(): they have no use for it. */
	madvise(memory, p->bytes, MADV_DONTFORK);
	madvise(memory, p->bytes, MADV_HUGEPAGE);
	if (touch(memory, p->bytes) ||
	    touch(p->filled, slots * sizeof(*p->filled))) {
		bytes = p->bytes;
		wr_pool_close(p);
		return no_memory(bytes);
	}
	/* Begin uses it: also what a hypervisor makes of the first access. */
	touch_by_hand(p->filled, slots * sizeof(*p->filled));
	for (size_t i = 0; i < slots; i++)
		p->free[i] = (uint32_t)(slots - 1 - i);
	p->free_count = p->slots;
	return 0;
}

void wr_pool_close(struct wr_pool *p)
{
	wr_own_free(p->memory, p->bytes);
	wr_own_free(p->free, p->slots * sizeof(*p->free));
	wr_own_free(p->filled, p->slots * sizeof(*p->filled));
	memset(p, 0, sizeof(*p));
}

/* Lock held: `used` is what is not free; its readers take no lock. */
static void note_used(struct wr_pool *p)
{
	uint32_t used = p->slots - p->free_count;

	__atomic_store_n(&p->used, used, __ATOMIC_RELAXED);
	if (used > p->peak)
		__atomic_store_n(&p->peak, used, __ATOMIC_RELAXED);
}

/* Lock held, likewise. */
static void note_filled(struct wr_pool *p, uint32_t n)
{
	__atomic_store_n(&p->filled_count, n, __ATOMIC_RELAXED);
}

void wr_pool_lock(struct wr_pool *p)
{
	wr_futex_lock(&p->lock);
}

void wr_pool_unlock(struct wr_pool *p)
{
	wr_futex_unlock(&p->lock);
}

uint32_t wr_pool_get_locked(struct wr_pool *p)
{
	uint32_t slot;

	if (!p->free_count)
		return WR_SLOT_NONE;
	slot = p->free[--p->free_count];
	note_used(p);
	return slot;
}

void wr_pool_fill_locked(struct wr_pool *p, const struct wr_unit *unit)
{
	p->filled[(p->head + p->filled_count) % p->slots] = *unit;
	note_filled(p, p->filled_count + 1);
}

uint32_t wr_pool_get(struct wr_pool *p)
{
	uint32_t slot;

	wr_futex_lock(&p->lock);
	slot = wr_pool_get_locked(p);
	wr_futex_unlock(&p->lock);
	return slot;
}

void wr_pool_put(struct wr_pool *p, uint32_t slot)
{
	wr_futex_lock(&p->lock);
	p->free[p->free_count++] = slot;
	note_used(p);
	wr_futex_unlock(&p->lock);
}

void wr_pool_fill(struct wr_pool *p, const struct wr_unit *unit)
{
	wr_futex_lock(&p->lock);
	wr_pool_fill_locked(p, unit);
	wr_futex_unlock(&p->lock);
}

uint32_t wr_pool_peek(struct wr_pool *p, uint32_t *slots, uint32_t n)
{
	sigset_t saved;

	wr_futex_enter(&p->lock, &saved);
	if (n > p->free_count)
		n = p->free_count;
	for (uint32_t i = 0; i < n; i++)
		slots[i] = p->free[p->free_count - 1 - i];
	wr_futex_leave(&p->lock, &saved);
	return n;
}

uint32_t wr_pool_take(struct wr_pool *p, struct wr_unit *units, uint32_t n)
{
	sigset_t saved;

	wr_futex_enter(&p->lock, &saved);
	if (n > p->filled_count)
		n = p->filled_count;
	for (uint32_t i = 0; i < n; i++)
		units[i] = p->filled[(p->head + i) % p->slots];
	p->head = (p->head + n) % p->slots;
	note_filled(p, p->filled_count - n);
	wr_futex_leave(&p->lock, &saved);
	return n;
}

void wr_pool_drop(struct wr_pool *p, const struct wr_unit *units, uint32_t n)
{
	sigset_t saved;

	wr_futex_enter(&p->lock, &saved);
	for (uint32_t i = 0; i < n; i++)
		p->free[p->free_count++] = units[i].slot;
	note_used(p);
	wr_futex_leave(&p->lock, &saved);
}
