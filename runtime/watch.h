/* SPDX-License-Identifier: MIT */
/*
 * Who hears of writes to the regions' protected pages: one userfaultfd a
 * manner (sync, sigbus), shared by all regions of the process, with a thread
 * that reads its events.  Opened with the first region, closed with the last.
 *
 *   sync     events are faults, and losses of mappings
 *   sigbus   faults come as signals; events are the losses only
 *
 * The listener waits for nothing but events: while a loss is unread the kernel
 * says EAGAIN to every change of protection.  What cannot be done at once it
 * keeps and tries again.
 */
#ifndef WEIR_RUNTIME_WATCH_H
#define WEIR_RUNTIME_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weir_region;
struct wr_watch;

/* The watch of a manner, opened if need be, and one more user of it.
 * -ENOTSUP, -EAGAIN, -ENOMEM with text.  The table's lock (region.c) is held,
 * here and below. */
int wr_watch_get(bool sigbus, struct wr_watch **out);
void wr_watch_put(struct wr_watch *w);

/* Whether system calls that write to protected pages work under it. */
bool wr_watch_serves_kernel(const struct wr_watch *w);

int wr_watch_add(struct wr_watch *w, struct weir_region *r);
void wr_watch_remove(struct wr_watch *w, struct weir_region *r);

/* Protect or unprotect whole pages of a region; unprotecting wakes. 0 or a
 * negative errno.  protect: `beside` writers, where more care is needed. */
int wr_watch_protect(struct wr_watch *w, uintptr_t start, uintptr_t end,
		     bool beside);
int wr_watch_unprotect(struct wr_watch *w, uintptr_t start, uintptr_t end);

/* Who waits for a fault in [start, end) faults anew.  Signal-safe. */
void wr_watch_wake(struct wr_watch *w, uintptr_t start, uintptr_t end);

/* Losses of pages (MADV_DONTNEED) that the kernel let go on before the call
 * began are applied to their units.  Not in the listener. */
void wr_watch_settle(struct wr_watch *w);

/* A grace period of its own, for who does a handler's work: between the two
 * regions, snapshots and phases stay what they were seen to be. */
unsigned wr_watch_enter(struct wr_watch *w);
void wr_watch_leave(struct wr_watch *w, unsigned ticket);

/* Every handler that was at work when the call began is through. */
void wr_watch_grace(struct wr_watch *w);

/* In a child of fork(): the watches are the parent's. */
void wr_watch_fork_child(void);

#endif
