/* SPDX-License-Identifier: MIT */
/* Handles that have ended; old_handles.h says what holds. */
#include "runtime/old_handles.h"

#include <stddef.h>

#include "runtime/futex_lock.h"

#define KEPT 8

struct wr_old_handle *wr_old_handle_take(struct wr_old_handles *o)
{
	struct wr_old_handle *h = NULL;
	sigset_t saved;

	wr_futex_enter(&o->lock, &saved);
	if (o->count > KEPT) {
		h = o->oldest;
		o->oldest = h->next;
		o->count--;
	}
	wr_futex_leave(&o->lock, &saved);
	return h;
}

void wr_old_handle_add(struct wr_old_handles *o, struct wr_old_handle *h)
{
	sigset_t saved;

	wr_futex_enter(&o->lock, &saved);
	h->next = NULL;
	if (o->count++)
		o->newest->next = h;
	else
		o->oldest = h;
	o->newest = h;
	wr_futex_leave(&o->lock, &saved);
}

void wr_old_handles_fork_child(struct wr_old_handles *o)
{
	/* Who held it is not here.  The list may lack its end. */
	o->lock = 0;
	o->count = 0;
}
