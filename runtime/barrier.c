/* SPDX-License-Identifier: MIT */
/*
 * The write barrier's common part: the kinds, the choice among them, and the
 * table of ranges.  What a kind does is in barrier_<kind>.c.
 *
 * Invariants: live ranges do not overlap; every range is known to the back
 * end exactly while end != 0 (add publishes after the back end has it, remove
 * withdraws before the back end drops it).
 */
#include "runtime/barrier.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/barrier_ops.h"
#include "runtime/check.h"

static const struct {
	const char *name;
	const struct wr_barrier_ops *ops;
} kinds[WR_BARRIER_KINDS] = {
	[WR_BARRIER_AUTO] = {"auto", NULL},
	[WR_BARRIER_ASYNC] = {"async", &wr_barrier_async_ops},
	[WR_BARRIER_SYNC] = {"sync", NULL},
	[WR_BARRIER_SIGBUS] = {"sigbus", NULL},
	[WR_BARRIER_MPROTECT] = {"mprotect", NULL},
	[WR_BARRIER_NONE] = {"none", &wr_barrier_none_ops},
};

const char *wr_barrier_name(enum wr_barrier_kind kind)
{
	return (unsigned)kind < WR_BARRIER_KINDS ? kinds[kind].name : "?";
}

int wr_barrier_parse(const char *name, enum wr_barrier_kind *kind)
{
	for (unsigned i = 0; i < WR_BARRIER_KINDS; i++) {
		if (!strcmp(name, kinds[i].name)) {
			*kind = (enum wr_barrier_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int open_kind(struct wr_barrier *b, enum wr_barrier_kind kind)
{
	const struct wr_barrier_ops *ops = kinds[kind].ops;
	int err;

	if (!ops)
		return wr_error(ENOTSUP,
				"this library was built without the \"%s\" "
				"barrier; choose another",
				kinds[kind].name);
	err = ops->open(b);
	if (!err) {
		b->ops = ops;
		b->kind = kind;
		/* What the proof did is not the caller's. */
		b->faults = b->calls = 0;
	}
	return err;
}

int wr_barrier_create(enum wr_barrier_kind kind, struct wr_barrier **out)
{
	struct wr_barrier *b;
	int err;

	if ((unsigned)kind >= WR_BARRIER_KINDS)
		return wr_error(EINVAL,
				"%d is not a barrier kind; weir-info "
				"lists them",
				(int)kind);
	b = calloc(1, sizeof(*b));
	if (!b)
		return wr_error(ENOMEM, "no memory for a barrier; free some");
	pthread_mutex_init(&b->lock, NULL);
	if (kind != WR_BARRIER_AUTO) {
		err = open_kind(b, kind);
	} else {
		err = open_kind(b, WR_BARRIER_ASYNC);
		if (err)
			err = open_kind(b, WR_BARRIER_NONE);
	}
	if (err) {
		pthread_mutex_destroy(&b->lock);
		free(b);
		return err;
	}
	*out = b;
	return 0;
}

void wr_barrier_destroy(struct wr_barrier *b)
{
	struct wr_range *r;

	if (!b)
		return;
	for (r = b->ranges; r; r = r->next) {
		if (r->end)
			wr_barrier_remove_range(b, (void *)r->start,
						r->end - r->start);
	}
	b->ops->close(b);
	while ((r = b->ranges)) {
		b->ranges = r->next;
		free(r);
	}
	pthread_mutex_destroy(&b->lock);
	free(b);
}

enum wr_barrier_kind wr_barrier_kind(const struct wr_barrier *b)
{
	return b->kind;
}

void wr_barrier_stats(const struct wr_barrier *b, struct wr_barrier_stats *s)
{
	/* Relaxed: sums, no other memory depends on them. */
	s->faults = __atomic_load_n(&b->faults, __ATOMIC_RELAXED);
	s->calls = __atomic_load_n(&b->calls, __ATOMIC_RELAXED);
}

/* ---- Ranges ------------------------------------------------------------- */

struct wr_range *wr_barrier_find(struct wr_barrier *b, uintptr_t p)
{
	/* Acquire: pairs with the release in link(); else the node's fields
	 * could be read before they were written. */
	struct wr_range *r = __atomic_load_n(&b->ranges, __ATOMIC_ACQUIRE);

	for (; r; r = r->next) {
		/* Acquire: pairs with the release in publish(); else start and
		 * state could be those of the node's former life. */
		uintptr_t end = __atomic_load_n(&r->end, __ATOMIC_ACQUIRE);
		uintptr_t start;

		if (p >= end)
			continue;
		start = __atomic_load_n(&r->start, __ATOMIC_ACQUIRE);
		/* A node reused between the loads: its end was 0 in between, so
		 * a second look tells unless the range is the same again. */
		if (p >= start &&
		    end == __atomic_load_n(&r->end, __ATOMIC_RELAXED))
			return r;
	}
	return NULL;
}

/* b->lock held: a node out of use, new or old, or NULL. */
static struct wr_range *get_node(struct wr_barrier *b)
{
	struct wr_range *r;

	for (r = b->ranges; r; r = r->next)
		if (!r->end)
			return r;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->next = b->ranges;
	/* Release: pairs with the acquire of the head in wr_barrier_find(). */
	__atomic_store_n(&b->ranges, r, __ATOMIC_RELEASE);
	return r;
}

static bool whole_pages(uintptr_t start, size_t size)
{
	uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;

	return size && !((start | size) & mask) && start + size > start;
}

int wr_barrier_add_range(struct wr_barrier *b, void *p, size_t size)
{
	uintptr_t start = (uintptr_t)p, end = start + size;
	struct wr_range *r;
	int err;

	if (!whole_pages(start, size))
		return wr_error(EINVAL, "%p, %zu bytes: not whole pages", p,
				size);
	pthread_mutex_lock(&b->lock);
	err = 0;
	for (r = b->ranges; r && !err; r = r->next)
		if (r->end > start && r->start < end)
			err = wr_error(EEXIST,
				       "range %p, %zu bytes: a part of it was "
				       "added before; remove that first",
				       p, size);
	r = err ? NULL : get_node(b);
	if (r) {
		struct wr_range fresh = {.start = start, .end = end};

		err = b->ops->add(b, &fresh);
		if (!err) {
			r->state = fresh.state;
			__atomic_store_n(&r->start, start, __ATOMIC_RELAXED);
			/* Release: pairs with wr_barrier_find(). */
			__atomic_store_n(&r->end, end, __ATOMIC_RELEASE);
		}
	} else if (!err) {
		err = wr_error(ENOMEM, "no memory for a range; free some");
	}
	pthread_mutex_unlock(&b->lock);
	return err;
}

int wr_barrier_remove_range(struct wr_barrier *b, void *p, size_t size)
{
	uintptr_t start = (uintptr_t)p, end = start + size;
	struct wr_range *r, old;
	int err = 0;

	pthread_mutex_lock(&b->lock);
	for (r = b->ranges; r; r = r->next)
		if (size && r->start == start && r->end == end)
			break;
	if (r) {
		old = *r;
		__atomic_store_n(&r->end, 0, __ATOMIC_RELEASE);
		b->ops->remove(b, &old);
	} else {
		err = wr_error(ENOENT,
			       "range %p, %zu bytes was never added; pass what "
			       "was passed to add",
			       p, size);
	}
	pthread_mutex_unlock(&b->lock);
	return err;
}

static bool inside(struct wr_barrier *b, uintptr_t start, size_t size)
{
	struct wr_range *r = wr_barrier_find(b, start);

	return whole_pages(start, size) && r && start + size <= r->end;
}

int wr_barrier_arm(struct wr_barrier *b, void *start, size_t size)
{
	wr_assert(inside(b, (uintptr_t)start, size));
	return b->ops->arm(b, (uintptr_t)start, (uintptr_t)start + size);
}

int wr_barrier_fetch(struct wr_barrier *b, void *start, size_t size,
		     unsigned flags, wr_run_fn *fn, void *arg)
{
	wr_assert(inside(b, (uintptr_t)start, size));
	return b->ops->fetch(b, (uintptr_t)start, (uintptr_t)start + size,
			     flags, fn, arg);
}

int wr_barrier_forget(struct wr_barrier *b, void *start, size_t size)
{
	wr_assert(inside(b, (uintptr_t)start, size));
	return b->ops->forget(b, (uintptr_t)start, (uintptr_t)start + size);
}

/* ---- fork --------------------------------------------------------------- */

void wr_barrier_fork_prepare(struct wr_barrier *b)
{
	pthread_mutex_lock(&b->lock);
	if (b->ops->fork_prepare)
		b->ops->fork_prepare(b);
}

void wr_barrier_fork_parent(struct wr_barrier *b)
{
	if (b->ops->fork_parent)
		b->ops->fork_parent(b);
	pthread_mutex_unlock(&b->lock);
}

int wr_barrier_fork_child(struct wr_barrier *b)
{
	int err = b->ops->fork_child(b);

	if (err) {
		/* Text is set.  Every page DIRTY for ever is always right. */
		b->ops = &wr_barrier_none_ops;
		b->kind = WR_BARRIER_NONE;
		err = -ENOTSUP;
	}
	pthread_mutex_unlock(&b->lock);
	return err;
}
