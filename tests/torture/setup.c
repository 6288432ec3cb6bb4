/* SPDX-License-Identifier: MIT */
/*
 * The heap of a run: its options, which follow from the seed, its creation,
 * what it does without memory, and the account at the end.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/torture/torture.h"

static uint64_t oom_calls; /* atomic */

static int on_oom(weir_heap *h, size_t bytes, void *arg)
{
	(void)h;
	(void)bytes;
	(void)arg;
	if (self)
		self->shrink = true;
	/* Every other time: try once more. */
	return __atomic_add_fetch(&oom_calls, 1, __ATOMIC_RELAXED) % 2;
}

static void append(const char *format, ...)
	__attribute__((format(printf, 1, 2)));
static void append(const char *format, ...)
{
	size_t n = strlen(cfg.heap_options);
	va_list ap;

	va_start(ap, format);
	vsnprintf(cfg.heap_options + n, sizeof(cfg.heap_options) - n, format,
		  ap);
	va_end(ap);
}

/* A file that whoever opened it keeps, and nobody else. */
static char temporary[2][256];

static const char *temporary_file(unsigned i, const char *what)
{
	const char *dir = getenv("TMPDIR");

	snprintf(temporary[i], sizeof(temporary[i]), "%s/torture.%ld.%s",
		 dir && *dir && strlen(dir) < 200 ? dir : "/tmp",
		 (long)getpid(), what);
	return temporary[i];
}

/* Options that change little, or much for the worse: seldom. */
static void choose_more(struct worker *w)
{
	static const int signals[] = {SIGUSR2, SIGXCPU, 40, 64};

	if (one_in(w, 10))
		append(",heap-soft=%zu", cfg.live + ((size_t)16 << 20));
	if (one_in(w, 8))
		append(",data-segments=on");
	if (one_in(w, 6))
		append(",suspend-signal=%d", signals[below(w, 4)]);
	if (one_in(w, 10))
		append(",trace=%s", temporary_file(0, "trace"));
	if (one_in(w, 10))
		append(",log=%s,log-file=%s", one_in(w, 2) ? "gc" : "all",
		       temporary_file(1, "log"));
}

void choose_options(void)
{
	struct worker w;

	worker_init(&w, 0, cfg.seed * 77);
	append("barrier=%s,poison=%s", cfg.barrier ? cfg.barrier : "auto",
	       one_in(&w, 8) ? "off" : "on");
	append(",heap-min=%um", 1u << below(&w, 4));
	append(",growth=%s", one_in(&w, 2) ? "0.1" : "0.5");
	append(",markers=%u", 1 + (unsigned)below(&w, one_in(&w, 6) ? 12 : 3));
	append(",pause-markers=%u",
	       1 + (unsigned)below(&w, one_in(&w, 6) ? 12 : 3));
	append(",seed=%u", 1 + (unsigned)below(&w, 1000000));
	if (one_in(&w, 3))
		append(",verify=on");
	if (one_in(&w, 2))
		append(",delay=%u", 1u << below(&w, 13));
	if (one_in(&w, 4))
		append(",generational=off");
	if (one_in(&w, 3))
		append(",thp=off");
	if (one_in(&w, 3))
		append(",born-black=on");
	if (one_in(&w, 6))
		append(",stop=safepoints");
	if (one_in(&w, 6))
		append(",mark-stack-max=1m");
	if (cfg.on[F_final] && one_in(&w, 4))
		append(",finalizer-thread=on");
	if (cfg.on[F_pressure] && one_in(&w, 3))
		append(",heap-max=%zu", cfg.live * 2 + ((size_t)24 << 20));
	else
		append(",heap-max=1g");
	choose_more(&w);
	if (cfg.options)
		append("%s%s", *cfg.options ? "," : "", cfg.options);
}

void create_heap(void)
{
	struct weir_heap_options o = {
		.size = sizeof(o), .options = cfg.heap_options, .oom = on_oom};
	weir_mutator *m;
	int err = weir_heap_create(&o, &heap);

	for (unsigned i = 0; i < 2; i++)
		if (*temporary[i])
			unlink(temporary[i]);
	if (err == -ENOTSUP) {
		printf("torture: SKIP: %s\n", weir_error_text());
		exit(77);
	}
	if (err)
		fail(NULL, "weir_heap_create: error %d, %s", -err,
		     weir_error_text());
	err = weir_thread_attach(heap, &m);
	if (err)
		fail(NULL, "weir_thread_attach: error %d, %s", -err,
		     weir_error_text());
	nodes_init();
	beside_init();
	if (cfg.on[F_share])
		share_init();
	weir_thread_detach(m);
}

/* What all threads did.  Relaxed: while they run it may be old, and each figure
 * of another moment. */
static struct counters all_counters(void)
{
	struct counters n = {0};

	for (unsigned i = 0; i < cfg.threads; i++) {
#define X(name) n.name += __atomic_load_n(&workers[i].n.name, __ATOMIC_RELAXED);
		COUNTERS(X)
#undef X
	}
	return n;
}

/* One that is to be used and was not yet. */
static bool is_unused(const struct counters *n)
{
	return (cfg.on[F_share] && !n->shared) ||
	       (cfg.on[F_read] && !n->reads) ||
	       (cfg.on[F_block] && !n->blocks) ||
	       (cfg.on[F_churn] && !n->threads) ||
	       (cfg.on[F_fork] && !n->forks) ||
	       (cfg.on[F_weak] && !n->weak_kept) ||
	       (cfg.on[F_ephemeron] && !n->eph_kept) ||
	       (cfg.on[F_beside] && !n->beside) ||
	       (cfg.on[F_snapshot] && !n->snapshots);
}

bool features_are_missing(const struct worker *pest)
{
	struct counters n = all_counters();

#define X(name) n.name += pest->n.name;
	COUNTERS(X)
#undef X
	return is_unused(&n);
}

/* What the run did; what it should have done and did not is a failure. */
void run_report(uint64_t began)
{
	struct weir_stats st = {.size = sizeof(st)};
	struct counters n = all_counters();

	if (weir_heap_stats(heap, &st))
		fail(NULL, "weir_heap_stats: %s", weir_error_text());
	printf("torture: %.1f s, seed %llu, %s\n",
	       (double)(now_ns() - began) / 1e9, (unsigned long long)cfg.seed,
	       cfg.heap_options);
#define X(name) printf("  %s %llu", #name, (unsigned long long)n.name);
	COUNTERS(X)
#undef X
	printf("\n  cycles: %llu full, %llu minor, %llu stopped; longest pause "
	       "%.1f ms; oom %llu; overflows %llu; dirty pages %llu, %llu in "
	       "pauses; peak %.1f MiB; barrier %s\n",
	       (unsigned long long)st.cycles_full,
	       (unsigned long long)st.cycles_minor,
	       (unsigned long long)st.cycles_stopped,
	       (double)st.pause.max_ns / 1e6, (unsigned long long)oom_calls,
	       (unsigned long long)st.overflows,
	       (unsigned long long)st.dirty_pages,
	       (unsigned long long)st.remark_dirty,
	       (double)st.heap_peak / 1048576, st.barrier);
	if (!n.moves || !n.checks)
		fail(NULL, "nothing was done");
	if (cfg.seconds < 2)
		return;
	if (!st.cycles_full)
		fail(NULL, "no full cycle in %.1f seconds", cfg.seconds);
	if (is_unused(&n))
		fail(NULL, "a feature was never used");
	/* Not for a run that the machine or `delay` made slow. */
	if (n.weak_kept + n.eph_kept < 3000 || st.cycles_full < 10)
		return;
	if ((cfg.on[F_weak] && (!n.weak_cleared || !n.storms)) ||
	    (cfg.on[F_final] && !n.finalized &&
	     !strstr(cfg.heap_options, "finalizer-thread=on")) ||
	    (cfg.on[F_ephemeron] && !n.eph_cleared))
		fail(NULL, "no weak reference or ephemeron was ever cleared, "
			   "or no finalizer ran");
}
