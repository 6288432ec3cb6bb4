/* SPDX-License-Identifier: MIT */
/* Allocation that has to wait, or is refused: attached mutators, not CRITICAL,
 * call these. */
#ifndef WEIR_GC_ROOM_H
#define WEIR_GC_ROOM_H

#include "gc/heap.h"

/* Run ahead of the collector no further: wait as the pacer says. */
void wg_room_assist(struct weir_mutator *m, size_t size);
/* Touch the block `untouched`, so that it has pages. */
void wg_room_touch(struct weir_mutator *m);
/* Free memory is in the way of `size` bytes of `space`: give some back.  False:
 * there was none. */
bool wg_room_give_back(struct weir_mutator *m, unsigned space, size_t size);
/* A limit is in the way for the attempt'th time, from 0 on: wait for what may
 * help.  False: give up. */
bool wg_room_make(struct weir_mutator *m, size_t size, int attempt);
/* Whether the program says that it let something go. */
bool wg_room_ask(struct weir_mutator *m, size_t size);
/* The error, NULL: what is in the way of `size` bytes, n with all that belongs
 * to them; */
void *wg_room_none(const struct weir_heap *h, size_t size, size_t n,
		   enum wg_no why, const char *function);
/* or that an object cannot be noted. */
void *wg_room_no_note(struct weir_heap *h, const char *function);

#endif
