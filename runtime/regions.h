/* SPDX-License-Identifier: MIT */
/*
 * Between region.c, region_fork.c and snapshot.c.
 */
#ifndef WEIR_RUNTIME_REGIONS_H
#define WEIR_RUNTIME_REGIONS_H

#include "runtime/region.h"

/* The table's lock: who is in which snapshot, and the watches' life. */
void wr_regions_lock(void);
void wr_regions_unlock(void);

/* Lock held.  Register with a watch, or a barrier of kind async; sets barrier
 * and why. */
int wr_region_watch(struct weir_region *r, unsigned wanted);

/* Is there memory to adopt, of a sort that can be?  Sets `shared`. */
int wr_region_look(struct weir_region *r);

/* Lock held.  From now on children of fork() are seen to.  -ENOMEM. */
int wr_regions_fork_ready(void);
/* Before fork(): the table and the watches are whole in the child. */
void wr_regions_lock_fork(void);
/* Lock held: watched again after fork(), if it is not. */
int wr_region_ready(struct weir_region *r);

#endif
