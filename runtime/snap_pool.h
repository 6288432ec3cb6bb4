/* SPDX-License-Identifier: MIT */
/*
 * The pool: what pages held, from the moment when they are written until the
 * saver has handed them to the sink.  Bounded, allocated and touched before it
 * is needed.
 *
 * A slot is free, in use (its unit is being copied into it), or filled.  Free
 * slots are a stack, filled ones a ring in the order in which they were filled.
 *
 *   get, put, fill   anybody, also signal handlers; with all signals blocked,
 *                    which handlers of writes have anyway: one that came in
 *                    between and wrote would wait for the lock for ever
 *   take, drop       the saver; they block signals themselves
 */
#ifndef WEIR_RUNTIME_SNAP_POOL_H
#define WEIR_RUNTIME_SNAP_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A unit of a region of a snapshot. */
struct wr_unit {
	uint32_t region; /* number in the snapshot */
	uint32_t slot;   /* filled: where it is */
	uint64_t unit;   /* number in the region */
	bool zero;       /* filled: all zero, the slot holds nothing */
};

#define WR_SLOT_NONE UINT32_MAX

struct wr_pool {
	char *memory;           /* slots * unit bytes, private */
	size_t bytes;           /* of it */
	unsigned shift;         /* log2 of a slot's size */
	uint32_t slots;         /* how many */
	uint32_t lock;          /* futex lock of what follows */
	uint32_t free_count;    /* entries of free */
	uint32_t *free;         /* numbers of free slots */
	struct wr_unit *filled; /* ring of `slots` entries */
	uint32_t head;          /* of the ring: next to take */
	uint32_t filled_count;  /* entries; read without the lock, too */
	uint32_t used;          /* slots that are not free */
	uint32_t peak;          /* most ever */
};

/* `bytes` in slots of 1 << shift, at least 4.  -ENOMEM with text. */
int wr_pool_open(struct wr_pool *p, size_t bytes, unsigned shift);
void wr_pool_close(struct wr_pool *p); /* a zeroed or closed one too */

/* A free slot, or WR_SLOT_NONE. */
uint32_t wr_pool_get(struct wr_pool *p);
void wr_pool_put(struct wr_pool *p, uint32_t slot);
/* It holds what unit->slot says. */
void wr_pool_fill(struct wr_pool *p, const struct wr_unit *unit);

/* For who gets and fills many: the lock once, signals blocked, and not for each
 * slot, where it would wait for the stores of the copy before. */
void wr_pool_lock(struct wr_pool *p);
void wr_pool_unlock(struct wr_pool *p);
uint32_t wr_pool_get_locked(struct wr_pool *p);
void wr_pool_fill_locked(struct wr_pool *p, const struct wr_unit *unit);

/* Up to n slots that are free, those first that are used next; the number. */
uint32_t wr_pool_peek(struct wr_pool *p, uint32_t *slots, uint32_t n);

/* Up to n filled ones, the oldest first; they stay in use. */
uint32_t wr_pool_take(struct wr_pool *p, struct wr_unit *units, uint32_t n);
/* What was taken is free again. */
void wr_pool_drop(struct wr_pool *p, const struct wr_unit *units, uint32_t n);

static inline char *wr_pool_data(const struct wr_pool *p, uint32_t slot)
{
	return p->memory + ((size_t)slot << p->shift);
}

/* Relaxed: a figure, which is old when it is looked at. */
static inline uint32_t wr_pool_used(const struct wr_pool *p)
{
	return __atomic_load_n(&p->used, __ATOMIC_RELAXED);
}

/* Likewise. */
static inline uint32_t wr_pool_filled(const struct wr_pool *p)
{
	return __atomic_load_n(&p->filled_count, __ATOMIC_RELAXED);
}

#endif
