/* SPDX-License-Identifier: MIT */
/*
 * Memory of handles that were ended or freed: it is never given back, so that
 * an old handle is recognised by its magic number.  It is used again in its
 * order, when eight others have ended since; until then an old handle is
 * refused.
 *
 *   take, add    any thread, under `lock`
 *   fork_child   the child's only thread
 */
#ifndef WEIR_RUNTIME_OLD_HANDLES_H
#define WEIR_RUNTIME_OLD_HANDLES_H

#include <stdint.h>

struct wr_old_handle {
	struct wr_old_handle *next; /* that ended after this one */
};

struct wr_old_handles {
	uint32_t lock;  /* futex lock of what follows */
	unsigned count; /* of those that have ended */
	struct wr_old_handle *oldest, *newest;
};

/* The oldest, if it has been there for long enough, or NULL. */
struct wr_old_handle *wr_old_handle_take(struct wr_old_handles *o);
void wr_old_handle_add(struct wr_old_handles *o, struct wr_old_handle *h);
void wr_old_handles_fork_child(struct wr_old_handles *o);

#endif
