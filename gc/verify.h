/* SPDX-License-Identifier: MIT */
/* The verifier; see gc/verify.c. */
#ifndef WEIR_GC_VERIFY_H
#define WEIR_GC_VERIFY_H

#include "gc/heap.h"

/* In the pause, after remark: mark again from scratch into a bitmap of its
 * own and abort, with a description, at a reachable object without colour. */
void wg_verify(struct weir_heap *h, bool full);

#endif
