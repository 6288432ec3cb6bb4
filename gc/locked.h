/* SPDX-License-Identifier: MIT */
/* Calls that no pause comes into (weir_locked_call). */
#ifndef WEIR_GC_LOCKED_H
#define WEIR_GC_LOCKED_H

#include "gc/heap.h"

/* Calls of weir_locked_call() that the calling thread is in. */
extern __thread unsigned wg_locked_depth
	__attribute__((tls_model("initial-exec")));

/* 0, or -EDEADLK and errno where the caller is in one: it would wait for a
 * pause, which waits for it. */
int wg_in_locked_call(const char *function) __attribute__((cold));
static inline int wg_locked_check(const char *function)
{
	return wr_likely(!wg_locked_depth) ? 0 : wg_in_locked_call(function);
}

/* The lock; anew in a child of fork. */
void wg_locked_init(struct weir_heap *h);
/* Around a pause, outside of the stop, and around fork(). */
void wg_locked_hold(struct weir_heap *h);
void wg_locked_hold_quiet(struct weir_heap *h); /* not at once behind a call */
/* As weir_locked_begin() and weir_locked_end(), of threads that may be
 * attached. */
void wg_locked_begin(struct weir_heap *h);
void wg_locked_end(struct weir_heap *h);
void wg_locked_drop(struct weir_heap *h);

#endif
