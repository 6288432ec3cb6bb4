/* SPDX-License-Identifier: MIT */
/*
 * Phase events: the log, the Chrome trace and the USDT probes.
 *
 *   wr_event_span      any thread, also with the world stopped: takes no lock
 *                      that a mutator can hold, never allocates
 *   wr_event_log       collector threads; formats and writes one line
 *   open, close        one thread, before and after all others
 */
#ifndef WEIR_RUNTIME_EVENTS_H
#define WEIR_RUNTIME_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

enum wr_phase {
#define X(name, text) WR_PHASE_##name,
#include "runtime/events.def"
#undef X
	WR_PHASES
};

struct wr_events;

/* log: words separated by '+' or '|' out of gc, barrier, all; "" none. */
int wr_events_open(const char *log, const char *log_file, const char *trace,
		   struct wr_events **out);
void wr_events_close(struct wr_events *e); /* flushes; the trace is whole */

/* Probes fire at begin and end; the span goes to the trace at end.  `value`
 * and `unit` ("pages", "bytes", NULL for none) tell what the phase did. */
void wr_event_begin(struct wr_events *e, enum wr_phase phase, uint64_t now_ns);
void wr_event_end(struct wr_events *e, enum wr_phase phase, uint64_t begin_ns,
		  uint64_t now_ns, uint64_t value, const char *unit);
/* A counter track in the trace ("heap used", ...). */
void wr_event_counter(struct wr_events *e, const char *name, uint64_t now_ns,
		      uint64_t value);

bool wr_log_gc(const struct wr_events *e);
bool wr_log_barrier(const struct wr_events *e);
void wr_event_log(struct wr_events *e, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

void wr_events_fork_prepare(struct wr_events *e);
void wr_events_fork_done(struct wr_events *e, bool child);

#endif
