/* SPDX-License-Identifier: MIT */
/*
 * The work-stealing deque of full mark segments; see gc/mark.h for sources.
 *
 *   push, pop   the owner
 *   steal       any other marker
 */
#include "gc/mark.h"

bool wg_deque_push(struct wg_deque *d, struct wg_segment *s)
{
	int64_t b = __atomic_load_n(&d->bottom, __ATOMIC_RELAXED);
	/* Partner: the compare-and-swap in steal, after whose read of the slot
	 * it may be written again. */
	int64_t t = __atomic_load_n(&d->top, __ATOMIC_ACQUIRE);

	if (b - t >= WG_DEQUE)
		return false;
	__atomic_store_n(&d->slot[b % WG_DEQUE], s, __ATOMIC_RELAXED);
	/* Pairs with the acquire load of bottom in steal: who sees the new
	 * bottom sees the slot and the segment's entries. */
	__atomic_store_n(&d->bottom, b + 1, __ATOMIC_RELEASE);
	return true;
}

struct wg_segment *wg_deque_pop(struct wg_deque *d)
{
	int64_t b = __atomic_load_n(&d->bottom, __ATOMIC_RELAXED) - 1;
	struct wg_segment *s = NULL;
	int64_t t;

	/* The store of bottom and the load of top must not change places, or
	 * owner and thief both take the last segment; likewise in steal. */
	__atomic_store_n(&d->bottom, b, __ATOMIC_SEQ_CST);
	t = __atomic_load_n(&d->top, __ATOMIC_SEQ_CST);
	if (t <= b) {
		s = __atomic_load_n(&d->slot[b % WG_DEQUE], __ATOMIC_RELAXED);
		if (t != b)
			return s;
		if (!__atomic_compare_exchange_n(&d->top, &t, t + 1, false,
						 __ATOMIC_SEQ_CST,
						 __ATOMIC_RELAXED))
			s = NULL;
	}
	__atomic_store_n(&d->bottom, b + 1, __ATOMIC_RELAXED);
	return s;
}

struct wg_segment *wg_deque_steal(struct wg_deque *d)
{
	int64_t t = __atomic_load_n(&d->top, __ATOMIC_SEQ_CST);
	int64_t b = __atomic_load_n(&d->bottom, __ATOMIC_SEQ_CST);
	struct wg_segment *s;

	if (t >= b)
		return NULL;
	s = __atomic_load_n(&d->slot[t % WG_DEQUE], __ATOMIC_RELAXED);
	if (!__atomic_compare_exchange_n(&d->top, &t, t + 1, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		return NULL;
	return s;
}

bool wg_deque_empty(const struct wg_deque *d)
{
	return __atomic_load_n(&d->top, __ATOMIC_SEQ_CST) >=
	       __atomic_load_n(&d->bottom, __ATOMIC_SEQ_CST);
}
