/* SPDX-License-Identifier: MIT */
/*
 * Phase events: the log and the USDT probes here, the trace in trace.c.
 *
 *   who may call           beside whom
 *   begin, end, counter    everybody, also with the world stopped
 *   log                    everybody; it may wait for the log's file or
 *                          terminal, so not while the world is stopped
 *   open, close            nobody
 *   fork_prepare, _done    everybody; _done in a child: nobody
 */
#define _GNU_SOURCE
#include "runtime/events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef WEIR_USDT
#include <sys/sdt.h>
#else
#define STAP_PROBE1(provider, name, a) ((void)(a))
#define STAP_PROBE3(provider, name, a, b, c) ((void)(a), (void)(b), (void)(c))
#endif

#include "runtime/check.h"
#include "runtime/trace.h"

enum log_word {
	LOG_GC = 1,
	LOG_BARRIER = 2,
};

struct wr_events {
	unsigned log;           /* bits of enum log_word */
	int log_fd;             /* where log lines go */
	uint64_t opened_ns;     /* clock at open; log lines count from it */
	struct wr_trace *trace; /* NULL if nothing is traced */
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Log ---------------------------------------------------------------- */

static int parse_log(const char *text, unsigned *bits)
{
	static const struct {
		const char *word; /* as the user writes it */
		unsigned bits;    /* what it turns on */
	} words[] = {
		{"gc", LOG_GC},
		{"barrier", LOG_BARRIER},
		{"all", LOG_GC | LOG_BARRIER},
	};

	*bits = 0;
	while (*text) {
		size_t n = strcspn(text, "+|"), i;

		for (i = 0; i < sizeof words / sizeof *words; i++)
			if (strlen(words[i].word) == n &&
			    !strncmp(words[i].word, text, n))
				break;
		if (i == sizeof words / sizeof *words)
			return wr_error(EINVAL,
					"log: unknown word \"%.*s\"; allowed "
					"are gc, barrier and all, joined by +",
					(int)n, text);
		*bits |= words[i].bits;
		text += n;
		if (*text && !*++text)
			return wr_error(EINVAL, "log: a word is missing at the "
						"end");
	}
	return 0;
}

bool wr_log_gc(const struct wr_events *e)
{
	return e->log & LOG_GC;
}

bool wr_log_barrier(const struct wr_events *e)
{
	return e->log & LOG_BARRIER;
}

void wr_event_log(struct wr_events *e, const char *format, ...)
{
	char line[1024];
	uint64_t ms = (now() - e->opened_ns) / 1000000;
	int at, n;
	va_list args;

	if (!e->log)
		return;
	at = snprintf(line, sizeof line, "weir: %llu.%03u ",
		      (unsigned long long)(ms / 1000), (unsigned)(ms % 1000));
	va_start(args, format);
	n = vsnprintf(line + at, sizeof line - (size_t)at - 1, format, args);
	va_end(args);
	if (n < 0)
		return;
	at += n;
	if (at > (int)sizeof line - 2)
		at = (int)sizeof line - 2;
	line[at++] = '\n';
	/* One write a line, so that lines of several threads do not mix.  A
	 * log that cannot be written must not stop the program. */
	while (write(e->log_fd, line, (size_t)at) < 0 && errno == EINTR)
		;
}

/* ---- Probes and trace --------------------------------------------------- */

void wr_event_begin(struct wr_events *e, enum wr_phase phase, uint64_t now_ns)
{
	(void)e;
	switch (phase) {
#define X(name, text)                                    \
	case WR_PHASE_##name:                            \
		STAP_PROBE1(weir, name##_begin, now_ns); \
		break;
#include "runtime/events.def"
#undef X
	case WR_PHASES:
		break;
	}
}

void wr_event_end(struct wr_events *e, enum wr_phase phase, uint64_t begin_ns,
		  uint64_t now_ns, uint64_t value, const char *unit)
{
	switch (phase) {
#define X(name, text)                                                   \
	case WR_PHASE_##name:                                           \
		STAP_PROBE3(weir, name##_end, begin_ns, now_ns, value); \
		break;
#include "runtime/events.def"
#undef X
	case WR_PHASES:
		return;
	}
	if (wr_unlikely(e->trace))
		wr_trace_span(e->trace, phase, begin_ns, now_ns, value, unit);
}

void wr_event_counter(struct wr_events *e, const char *name, uint64_t now_ns,
		      uint64_t value)
{
	if (wr_unlikely(e->trace))
		wr_trace_counter(e->trace, name, now_ns, value);
}

/* ---- Open, close, fork -------------------------------------------------- */

int wr_events_open(const char *log, const char *log_file, const char *trace,
		   struct wr_events **out)
{
	struct wr_events *e = calloc(1, sizeof *e);
	int err;

	if (!e)
		return wr_error(ENOMEM, "events: out of memory");
	e->log_fd = STDERR_FILENO;
	e->opened_ns = now();
	err = parse_log(log, &e->log);
	if (err)
		goto fail;
	if (*log_file) {
		e->log_fd =
			open(log_file,
			     O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
		if (e->log_fd < 0) {
			err = errno;
			err = wr_error(err,
				       "log-file=%s: %s; name a file in a "
				       "directory that exists and may be "
				       "written",
				       log_file, strerror(err));
			goto fail;
		}
	}
	if (*trace) {
		err = wr_trace_open(trace, &e->trace);
		if (err)
			goto fail;
	}
	*out = e;
	return 0;
fail:
	wr_events_close(e);
	return err;
}

void wr_events_close(struct wr_events *e)
{
	if (e->trace)
		wr_trace_close(e->trace);
	if (e->log_fd >= 0 && e->log_fd != STDERR_FILENO)
		close(e->log_fd);
	free(e);
}

void wr_events_fork_prepare(struct wr_events *e)
{
	if (e->trace)
		wr_trace_fork_prepare(e->trace);
}

void wr_events_fork_done(struct wr_events *e, bool child)
{
	if (!e->trace)
		return;
	if (child) {
		wr_trace_fork_child(e->trace);
		e->trace = NULL;
	} else {
		wr_trace_fork_parent(e->trace);
	}
}
