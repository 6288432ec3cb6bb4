/* SPDX-License-Identifier: MIT */
/* The program's event handler (weir_heap_on_event). */
#ifndef WEIR_GC_EVENT_HOOK_H
#define WEIR_GC_EVENT_HOOK_H

#include "gc/heap.h"

/* The lock; anew in a child of fork. */
void wg_hook_init(struct weir_heap *h);
/* Around a pause, outside of the stop: nobody replaces the handler. */
void wg_hook_hold(struct weir_heap *h);
void wg_hook_drop(struct weir_heap *h);
/* Tell it, in between. */
void wg_hook_tell(struct weir_heap *h, enum weir_event event);
/* All three. */
void wg_hook_call(struct weir_heap *h, enum weir_event event);

#endif
