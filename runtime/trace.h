/* SPDX-License-Identifier: MIT */
/*
 * The Chrome trace: spans and counters in a JSON file, for Perfetto.
 *
 *   who may call      beside whom
 *   span, counter     everybody, also with the world stopped: no lock, no
 *                     allocation, no blocking system call
 *   open, close       nobody
 *   fork_*            everybody that traces; fork_child: nobody
 */
#ifndef WEIR_RUNTIME_TRACE_H
#define WEIR_RUNTIME_TRACE_H

#include <stdint.h>

#include "runtime/events.h"

struct wr_trace;

/* Create the file and the thread that writes it. */
int wr_trace_open(const char *name, struct wr_trace **out);
void wr_trace_close(struct wr_trace *t); /* the file is whole afterwards */

/* `unit` and `name` are copied, up to 25 characters; unit may be NULL. */
void wr_trace_span(struct wr_trace *t, enum wr_phase phase, uint64_t begin_ns,
		   uint64_t end_ns, uint64_t value, const char *unit);
void wr_trace_counter(struct wr_trace *t, const char *name, uint64_t now_ns,
		      uint64_t value);

/* The trace goes on in the parent.  In the child it ends without a word, for
 * two writers would spoil the file: fork_child frees t. */
void wr_trace_fork_prepare(struct wr_trace *t);
void wr_trace_fork_parent(struct wr_trace *t);
void wr_trace_fork_child(struct wr_trace *t);

#endif
