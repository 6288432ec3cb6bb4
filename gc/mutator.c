/* SPDX-License-Identifier: MIT */
/*
 * Mutators: attach, detach, blocking regions, safepoints.
 *
 *   attach, detach         the thread itself, never inside a stop
 *   wg_buffers_retire      the thread itself, or the collector in a pause
 *
 * The registry is the only list of mutators.  Attach and detach run CRITICAL,
 * so that a pause finds a mutator whole or not at all.
 */
#include "gc/heap.h"

#include <errno.h>
#include <stdlib.h>

static __thread struct weir_mutator *self;

struct weir_mutator *wg_mutator_self(void)
{
	return self;
}

static void retire_one(struct weir_mutator *m, struct wg_bump *bump,
		       char **cursor, char **limit)
{
	m->handed -= (uint64_t)(*limit - *cursor);
	*cursor = *limit = NULL;
	if (bump->block) {
		wg_block_set(&m->heap->blocks[bump->block], WG_USED);
		bump->block = 0;
	}
}

/* Give up every buffer.  What is left of a hole is free granules that the
 * next sweep finds again. */
void wg_buffers_retire(struct weir_mutator *m, bool in_pause)
{
	(void)in_pause;
	for (int i = 0; i < 2; i++) {
		retire_one(m, &m->bump[i], &m->b.buffer[i].cursor,
			   &m->b.buffer[i].limit);
		retire_one(m, &m->wide[i], &m->wide_buffer[i].cursor,
			   &m->wide_buffer[i].limit);
	}
	__atomic_add_fetch(&m->heap->allocated, m->handed, __ATOMIC_RELAXED);
	m->handed = 0;
}

/* Leave the registry and the heap; the caller is the mutator's thread. */
static void leave(struct weir_mutator *m)
{
	__atomic_store_n(&m->b.critical, 1, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	wg_buffers_retire(m, false);
	WEIR_COMPILER_BARRIER();
	__atomic_store_n(&m->b.critical, 0, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	if (__atomic_load_n(&m->b.pending, __ATOMIC_RELAXED))
		wr_thread_poll(&m->thread);
	self = NULL;
}

/* The thread ends while attached. */
void wg_mutator_on_exit(struct wr_thread *t, void *arg)
{
	struct weir_mutator *m =
		(struct weir_mutator *)((char *)t -
					offsetof(struct weir_mutator, thread));

	(void)arg;
	leave(m);
	wr_thread_detach(t);
	free(m);
}

int weir_thread_attach(weir_heap *h, weir_mutator **out)
{
	struct weir_mutator *m = self;
	int err;

	if (!h || !out || h != wg_heap)
		return wr_error(EINVAL, "weir_thread_attach: not a live heap; "
					"create one with weir_heap_create");
	if (m) {
		m->attached++;
		*out = m;
		return 0;
	}
	m = aligned_alloc(64, (sizeof(*m) + 63) & ~(size_t)63);
	if (!m)
		return wr_error(ENOMEM,
				"weir_thread_attach: no memory for a mutator");
	*m = (struct weir_mutator){.heap = h, .attached = 1};
	m->self = pthread_self();
	m->b.meta_bias = (uintptr_t)h->meta - (h->base >> WEIR_GRANULE_SHIFT);
	m->thread.gate.critical = &m->b.critical;
	m->thread.gate.pending = &m->b.pending;
	/* Not held before it is whole. */
	__atomic_store_n(&m->b.critical, 1, __ATOMIC_RELAXED);
	err = wr_thread_attach(h->threads, &m->thread);
	if (err) {
		free(m);
		return err;
	}
	/* After registration: a cycle stores h->newborn before it goes through
	 * the registry, so a thread that it misses reads the new colour. */
	m->b.newborn = __atomic_load_n(&h->newborn, __ATOMIC_SEQ_CST);
	self = m;
	WEIR_COMPILER_BARRIER();
	__atomic_store_n(&m->b.critical, 0, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	if (__atomic_load_n(&m->b.pending, __ATOMIC_RELAXED))
		wr_thread_poll(&m->thread);
	*out = m;
	return 0;
}

int weir_thread_detach(weir_mutator *m)
{
	if (!m || m != self)
		return wr_error(
			EINVAL,
			"weir_thread_detach: not the calling thread's mutator");
	if (--m->attached)
		return 0;
	leave(m);
	wr_thread_detach(&m->thread);
	free(m);
	return 0;
}

weir_mutator *weir_thread_self(weir_heap *h)
{
	return h && h == wg_heap ? self : NULL;
}

void weir_safepoint_slow(weir_mutator *m)
{
	if (m && !m->b.critical)
		wr_thread_poll(&m->thread);
}

void *weir_blocking_call(weir_mutator *m, void *(*fn)(void *), void *arg)
{
	bool entered;
	void *result;

	if (!m || m != self || !fn) {
		wr_error(EINVAL, "weir_blocking_call: bad mutator or function");
		errno = EINVAL;
		return NULL;
	}
	entered = wr_thread_block_enter(&m->thread);
	result = fn(arg);
	if (entered)
		wr_thread_block_leave(&m->thread);
	return result;
}

void *weir_unblocked_call(weir_mutator *m, void *(*fn)(void *), void *arg)
{
	struct wr_blocked saved;
	void *result;

	if (!m || m != self || !fn) {
		wr_error(EINVAL,
			 "weir_unblocked_call: bad mutator or function");
		errno = EINVAL;
		return NULL;
	}
	wr_thread_block_suspend(&m->thread, &saved);
	result = fn(arg);
	wr_thread_block_resume(&m->thread, &saved);
	return result;
}
