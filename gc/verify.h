/* SPDX-License-Identifier: MIT */
/* The verifier; see gc/verify.c. */
#ifndef WEIR_GC_VERIFY_H
#define WEIR_GC_VERIFY_H

#include "gc/heap.h"

/* With verify=on: room for strays (see gc/verify.c).  0 or -ENOMEM. */
int wg_verify_create(struct weir_heap *h);
void wg_verify_destroy(struct weir_heap *h);

/* A marker found that p, in the heap, points into no object.  Any marker. */
void wg_verify_stray(struct weir_heap *h, uintptr_t p);
bool wg_verify_is_stray(const struct weir_heap *h, uintptr_t p);
/* Before a full cycle reads all words anew. */
void wg_verify_forget_strays(struct weir_heap *h);

/* In the pause, after remark: mark again from scratch into a bitmap of its
 * own and abort, with a description, at a reachable object without colour. */
void wg_verify(struct weir_heap *h, bool full);

#endif
