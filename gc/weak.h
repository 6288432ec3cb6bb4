/* SPDX-License-Identifier: MIT */
/* What the cycle asks of weak references, finalizers and ephemerons. */
#ifndef WEIR_GC_WEAK_H
#define WEIR_GC_WEAK_H

#include "gc/heap.h"

int wg_weak_create(struct weir_heap *h);
void wg_weak_destroy(struct weir_heap *h);
/* Before the pause, beside the program: what can be decided early. */
void wg_weak_preclean(struct weir_heap *h);
/* In the pause, marking drained: ephemerons, clear weak references, queue
 * finalizers (and mark what they keep).  Leaves the mark stacks empty. */
void wg_weak_pause(struct weir_heap *h);
/* After the pause: wake whoever runs finalizers. */
void wg_weak_after(struct weir_heap *h);
/* Roots held here, for the verifier: queued finalizers' objects. */
void wg_weak_roots(struct weir_heap *h, void (*visit)(void *arg, uintptr_t p),
		   void *arg);
/* Ephemeron value of the proxy at `p`, for the verifier: *key and *value. */
void wg_weak_ephemeron(struct weir_heap *h, uintptr_t p, uintptr_t *key,
		       uintptr_t *value);
void wg_weak_fork(struct weir_heap *h, int stage); /* 0 prepare, 1 parent, 2 child */

#endif
