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
__thread struct weir_mutator *wg_running;

struct weir_mutator *wg_mutator_self(void)
{
	return self;
}

/* Hand on a block with room in it.  Otherwise a thread that allocates a little
 * and ends would use up a block each time, which no limit but the hard one
 * notices.  If all slots are taken the next sweep finds it. */
static void leave_block(struct weir_heap *h, unsigned space, uint32_t i)
{
	/* Release: partner of the claim in alloc.c. */
	wg_block_set(&h->blocks[i], WG_RECYCLABLE);
	for (unsigned k = 0; k < WG_LEFT; k++) {
		uint32_t none = 0;

		/* Relaxed: an index is a hint, the block's state decides. */
		if (__atomic_compare_exchange_n(&h->space[space].left[k], &none,
						i, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return;
	}
}

static void retire_one(struct weir_mutator *m, unsigned space,
		       struct wg_bump *bump, char **cursor, char **limit,
		       bool in_pause)
{
	size_t end = ((size_t)bump->block + 1) * WG_BLOCK_GRANULES;

	m->handed -= (uint64_t)(*limit - *cursor);
	*cursor = *limit = NULL;
	if (!bump->block)
		return;
	if (in_pause || end - bump->next < WG_RECYCLE_MIN)
		wg_block_set(&m->heap->blocks[bump->block], WG_USED);
	else
		leave_block(m->heap, space, bump->block);
	bump->block = 0;
}

void wg_mutator_bad(const struct weir_mutator *m, const char *function)
{
	if (!m)
		wr_invalid(function, "the mutator is NULL; attach the thread "
				     "with weir_thread_attach");
	else if (m != self)
		wr_invalid(function, "the mutator is another thread's, or was "
				     "detached");
	else
		wr_invalid(function, "called inside a blocking region; use "
				     "weir_unblocked_call there");
}

int wg_mutator_idle(const struct weir_mutator *m, const char *function)
{
	if (!m->callbacks)
		return 0;
	return wr_error(EBUSY,
			"%s: called from a blocking region, a finalizer or an "
			"out-of-memory callback, which goes on to use the "
			"mutator; return from it first",
			function);
}

/* Give up every buffer.  What is left of a hole is free granules that the
 * next sweep finds again. */
void wg_buffers_retire(struct weir_mutator *m, bool in_pause)
{
	for (unsigned i = 0; i < 2; i++) {
		retire_one(m, i, &m->bump[i], &m->b.buffer[i].cursor,
			   &m->b.buffer[i].limit, in_pause);
		retire_one(m, i, &m->wide[i], &m->wide_buffer[i].cursor,
			   &m->wide_buffer[i].limit, in_pause);
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
	wg_delay(m->heap);
	WEIR_COMPILER_BARRIER();
	__atomic_store_n(&m->b.critical, 0, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	if (__atomic_load_n(&m->b.pending, __ATOMIC_RELAXED))
		wr_thread_poll(&m->thread);
	self = NULL;
	wg_running = NULL;
	wg_delay(m->heap);
}

/* The thread ends while attached. */
void wg_mutator_on_exit(struct wr_thread *t, void *arg)
{
	struct weir_mutator *m = wg_mutator_of(t);

	(void)arg;
	leave(m);
	wr_thread_detach(t);
	free(m);
}

/* Into the registry.  The thread is CRITICAL from there on, so that it is not
 * held before settle(). */
static int enlist(struct weir_heap *h, struct weir_mutator **out)
{
	struct weir_mutator *m =
		aligned_alloc(64, (sizeof(*m) + 63) & ~(size_t)63);
	int err;

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
		return wr_error(-err, "weir_thread_attach: %s",
				weir_error_text());
	}
	wg_delay_mutator(h);
	wg_delay(h);
	/* After registration: a cycle stores h->newborn before it goes through
	 * the registry, so a thread that it misses reads the new colour. */
	m->b.newborn = __atomic_load_n(&h->newborn, __ATOMIC_SEQ_CST);
	self = wg_running = m;
	wg_delay(h);
	*out = m;
	return 0;
}

static void settle(struct weir_mutator *m)
{
	WEIR_COMPILER_BARRIER();
	__atomic_store_n(&m->b.critical, 0, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	if (__atomic_load_n(&m->b.pending, __ATOMIC_RELAXED))
		wr_thread_poll(&m->thread);
	wr_thread_await_unparked(&m->thread);
}

int wg_mutator_attach(struct weir_heap *h, struct weir_mutator **out)
{
	int err = enlist(h, out);

	if (!err)
		settle(*out);
	return err;
}

int weir_thread_attach(weir_heap *h, weir_mutator **out)
{
	struct weir_mutator *m = self;
	int err;

	if (wg_on_collector_thread())
		return wg_in_callback(__func__);
	if (!h)
		return wr_invalid(__func__, "the heap is NULL");
	if (!out)
		return wr_invalid(__func__, "no place for the result");
	if (m && m->heap == h) {
		m->attached++;
		*out = m;
		return 0;
	}
	if (!wg_attach_begin(h))
		return wr_error(EINVAL, "weir_thread_attach: the heap was "
					"destroyed, or is none");
	err = enlist(h, &m);
	wg_attach_end();
	if (err)
		return err;
	settle(m);
	*out = m;
	return 0;
}

int weir_thread_detach(weir_mutator *m)
{
	int err;

	if (!m || m != self)
		return wr_invalid(__func__,
				  "not the mutator of the calling thread");
	err = m->attached == 1 ? wg_mutator_idle(m, __func__) : 0;
	if (err)
		return err;
	if (--m->attached)
		return 0;
	leave(m);
	wr_thread_detach(&m->thread);
	free(m);
	return 0;
}

weir_mutator *weir_thread_self(weir_heap *h)
{
	return h && h == __atomic_load_n(&wg_heap, __ATOMIC_RELAXED) ? self
								     : NULL;
}

void weir_safepoint_slow(weir_mutator *m)
{
	if (!m || m != self) {
		wr_invalid(__func__, "not the mutator of the calling thread");
		return;
	}
	if (!m->b.critical)
		wr_thread_poll(&m->thread);
}

int weir_thread_set_stack(weir_mutator *m, void *base)
{
	if (!m || m != self)
		return wr_invalid(__func__,
				  "not the mutator of the calling thread");
	wr_thread_set_stack(&m->thread, (uintptr_t)base);
	return 0;
}

int weir_thread_watch_stack(weir_mutator *m, void *const volatile *base)
{
	if (!m || m != self)
		return wr_invalid(__func__,
				  "not the mutator of the calling thread");
	if ((uintptr_t)base % sizeof(*base))
		return wr_invalid(__func__, "the word is not aligned");
	wr_thread_watch_stack(&m->thread, (const uintptr_t *)base);
	return 0;
}

/* Whether m may call fn around a blocking region's border. */
static bool call_ok(const struct weir_mutator *m, void *(*fn)(void *),
		    const char *function)
{
	if (m && m == self && fn)
		return true;
	wr_invalid(function, m && m == self
				     ? "the function is NULL"
				     : "not the mutator of the calling thread");
	return false;
}

void *weir_blocking_call(weir_mutator *m, void *(*fn)(void *), void *arg)
{
	bool entered;
	void *result;

	if (!call_ok(m, fn, __func__))
		return NULL;
	entered = wr_thread_block_enter(&m->thread);
	wg_running = NULL;
	m->callbacks++;
	result = fn(arg);
	m->callbacks--;
	if (entered) {
		wr_thread_block_leave(&m->thread);
		wg_running = m;
	}
	return result;
}

void *weir_unblocked_call(weir_mutator *m, void *(*fn)(void *), void *arg)
{
	struct wr_blocked saved;
	void *result;

	if (!call_ok(m, fn, __func__))
		return NULL;
	if (wg_running) {
		wr_invalid(__func__, "called outside of a blocking region");
		return NULL;
	}
	wr_thread_block_suspend(&m->thread, &saved);
	wg_running = m;
	result = fn(arg);
	wg_running = NULL;
	wr_thread_block_resume(&m->thread, &saved);
	return result;
}
