/* SPDX-License-Identifier: MIT */
/* Checks of the heap's structures; see gc/invariants.c. */
#ifndef WEIR_GC_INVARIANTS_H
#define WEIR_GC_INVARIANTS_H

#include "gc/mark.h"

/* In the pause, when marking is done and buffers were retired. */
void wg_invariants_check(struct weir_heap *h);

#endif
