/* SPDX-License-Identifier: MIT */
/*
 * Roots that are not stacks: registered ranges, callbacks, data segments.
 *
 *   add/remove,    any thread at any time, beside a scan too
 *   exclude*,
 *   data_segments,
 *   segment_filter
 *                  under WR_STOP_SAFEPOINTS in a blocking region, because a
 *                  pause holds the lock; never from within a scan (-EDEADLK)
 *   scan           collector threads; a range removed beside a scan may still
 *                  be read once if removal did not return yet: remove waits
 *                  for scans in progress, so memory may be unmapped after it
 *   pause_*        one collector thread; begin before the world is stopped,
 *                  end before or after it is resumed, on the same thread
 *
 * A scan beside the program is a head start only: nothing tells when a root
 * outside the heap is written, so the pause scans all of them again.
 */
#ifndef WEIR_RUNTIME_ROOTS_H
#define WEIR_RUNTIME_ROOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wr_roots;

/* Scan aligned words of [start, end). */
typedef void wr_root_range_fn(void *arg, uintptr_t start, uintptr_t end);
/* Run a registered callback (the owner knows its type). */
typedef void wr_root_call_fn(void *arg, void (*fn)(void), void *fn_arg);

int wr_roots_create(bool data_segments, struct wr_roots **out);
void wr_roots_destroy(struct wr_roots *r);
int wr_roots_add(struct wr_roots *r, uintptr_t start, uintptr_t end);
int wr_roots_remove(struct wr_roots *r, uintptr_t start, uintptr_t end);
int wr_roots_add_call(struct wr_roots *r, void (*fn)(void), void *arg,
		      bool concurrent);
int wr_roots_remove_call(struct wr_roots *r, void (*fn)(void), void *arg);

/* Whether data segments are scanned from now on; 0 or an error, then nothing
 * has changed.  Waits for a pause, so not to be called within a callback of
 * dl_iterate_phdr(), whose lock a pause waits for. */
int wr_roots_data_segments(struct wr_roots *r, bool on);
/* Scan a data segment only if fn(name of its object, start, size, arg) is not
 * 0; NULL: all.  Called when the list of them is made, the loader's lock held;
 * not any more when this returns.  Waits as the function above. */
typedef int wr_segment_fn(const char *name, const void *start, size_t size,
			  void *arg);
int wr_roots_segment_filter(struct wr_roots *r, wr_segment_fn *fn, void *arg);
/* Leave [start, end) out of data segments, and every word that it cuts.  Not
 * read any more when this returns. */
int wr_roots_exclude(struct wr_roots *r, uintptr_t start, uintptr_t end);
/* Forget all of them. */
int wr_roots_exclude_none(struct wr_roots *r);

/* Call range for every range (and writable data segment of the program and
 * its shared objects, when asked for; relro and the library's own data are
 * left out), call for every callback.  In a pause (stopped true) it takes no
 * lock that a stopped thread could hold: use wr_roots_pause_begin() before
 * stopping, which takes the locks and refreshes the segment list. */
void wr_roots_scan(struct wr_roots *r, bool stopped, wr_root_range_fn *range,
		   wr_root_call_fn *call, void *arg);
/* In a pause: only the callbacks that must not run beside the program. */
void wr_roots_calls(struct wr_roots *r, wr_root_call_fn *call, void *arg);
/* Whether there are any. */
bool wr_roots_have_calls(struct wr_roots *r);
/* The calling thread is in a callback of a scan in a stop. */
bool wr_roots_in_pause(void);
void wr_roots_pause_begin(struct wr_roots *r);
void wr_roots_pause_end(struct wr_roots *r);

void wr_roots_fork_prepare(struct wr_roots *r);
void wr_roots_fork_done(struct wr_roots *r); /* parent and child */

#endif
