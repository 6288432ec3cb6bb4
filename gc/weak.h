/* SPDX-License-Identifier: MIT */
/* What the cycle asks of weak references, links, finalizers, objects that are
 * asked before they go, and ephemerons. */
#ifndef WEIR_GC_WEAK_H
#define WEIR_GC_WEAK_H

#include "gc/heap.h"

struct wg_marker;

int wg_weak_create(struct weir_heap *h);
void wg_weak_destroy(struct weir_heap *h);
/* End the finalizer thread, so that it does not count as attached, and start
 * none until it is allowed again.  Not on that thread itself. */
void wg_weak_thread_stop(struct weir_heap *h);
void wg_weak_thread_allow(struct weir_heap *h);
/* Mark what the finalizer queue holds: with the other roots, concurrently and
 * in the pause. */
void wg_weak_scan_roots(struct weir_heap *h, struct wg_marker *m);
/* Before the pause, beside the program: what can be decided early. */
void wg_weak_preclean(struct weir_heap *h);
/* In the pause, marking drained: ephemerons, clear weak references and links,
 * queue finalizers (and mark what they keep).  Leaves the mark stacks empty. */
void wg_weak_pause(struct weir_heap *h);
/* After the pause: wake whoever runs finalizers, free dead entries. */
void wg_weak_after(struct weir_heap *h);
/* Marking came to the ephemeron proxy at `object`. */
void wg_ephemeron_reached(struct wg_marker *m, uintptr_t object);
/* The object at `base` was marked, h->ephemerons_wait being set. */
void wg_ephemeron_key(struct wg_marker *m, uintptr_t base);
/* A CRITICAL mutator publishes the object at p, of the disclaiming kind k,
 * between the two.  begin makes the entry and returns with the tables' lock;
 * false: no memory, no lock. */
bool wg_disclaim_begin(struct weir_heap *h, const void *p,
		       const struct wg_kind *k);
void wg_disclaim_end(struct weir_heap *h);
/* Roots held here, for the verifier: objects in the queues. */
void wg_weak_roots(struct weir_heap *h, void (*visit)(void *arg, uintptr_t p),
		   void *arg);
/* Ephemeron value of the proxy at `p`, for the verifier: *key and *value. */
void wg_weak_ephemeron(struct weir_heap *h, uintptr_t p, uintptr_t *key,
		       uintptr_t *value);
void wg_weak_fork(struct weir_heap *h,
		  int stage); /* 0 prepare, 1 parent, 2 child */

#endif
