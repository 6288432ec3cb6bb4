/* SPDX-License-Identifier: MIT */
/* The shim over weir. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "benchmarks/bench.h"

const char *const bench_peer_name = "weir";

static weir_heap *heap;
static struct weir_stats marked; /* as of bench_peer_mark() */

const char *bench_peer_version(void)
{
	return weir_version();
}

/* Make the first cycle come after more allocation than any workload does and
 * still less than the machine has.  In the environment, which has the last
 * word on options. */
static void be_idle(void)
{
	const char *given = getenv("WEIR_OPTIONS");
	char text[1024];
	int n;

	n = snprintf(text, sizeof(text), "%s%sheap-min=%lluk",
		     given ? given : "", given && *given ? "," : "",
		     (unsigned long long)sysconf(_SC_PHYS_PAGES) *
			     (unsigned long long)sysconf(_SC_PAGE_SIZE) / 1024 /
			     8 * 7);
	if (n >= (int)sizeof(text) || setenv("WEIR_OPTIONS", text, 1))
		bench_die("WEIR_OPTIONS is too long");
}

bench_mutator *bench_peer_start(const struct bench_setup *setup)
{
	struct weir_heap_options options = {.size = sizeof(options)};
	weir_mutator *mutator;
	int rc;

	if (setup->idle)
		be_idle();
	options.options = setup->options;
	rc = weir_heap_create(&options, &heap);
	if (rc)
		bench_die("weir_heap_create: %s: %s", strerror(-rc),
			  weir_error_text());
	rc = weir_thread_attach(heap, &mutator);
	if (rc)
		bench_die("weir_thread_attach: %s: %s", strerror(-rc),
			  weir_error_text());
	return mutator;
}

static void read_stats(struct weir_stats *s)
{
	int rc;

	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
	rc = weir_heap_stats(heap, s);
	if (rc)
		bench_die("weir_heap_stats: %s", strerror(-rc));
}

void bench_peer_mark(void)
{
	read_stats(&marked);
}

/* The longest duration added to a histogram between two readings: exact if
 * it is the longest of all, else the top of the highest bucket that grew. */
static uint64_t longest_since(const struct weir_histogram *before,
			      const struct weir_histogram *after)
{
	int i;

	if (after->count == before->count)
		return 0;
	if (after->max_ns > before->max_ns)
		return after->max_ns;
	if (after->count - before->count == 1)
		return after->total_ns - before->total_ns;
	for (i = WEIR_HISTOGRAM_BUCKETS - 1; i > 0; i--) {
		if (after->bucket[i] > before->bucket[i])
			break;
	}
	if (i >= 63 || (2ull << i) - 1 > after->max_ns)
		return after->max_ns;
	return (2ull << i) - 1;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void difference(const struct weir_stats *a, const struct weir_stats *b,
		       struct bench_account *account)
{
	memset(account, 0, sizeof(*account));
	account->has_pauses = true;
	account->cycles_minor = b->cycles_minor - a->cycles_minor;
	account->cycles =
		b->cycles_full - a->cycles_full + account->cycles_minor;
	account->cycles_stopped = b->cycles_stopped - a->cycles_stopped;
	/* Whatever holds a mutator is one: all stopped, one held for its
	 * stack, one that helps or waits. */
	account->pauses = b->pause.count - a->pause.count + b->assist.count -
			  a->assist.count + b->handshake.count -
			  a->handshake.count;
	account->pause_total_ns = b->pause.total_ns - a->pause.total_ns +
				  b->assist.total_ns - a->assist.total_ns +
				  b->handshake.total_ns - a->handshake.total_ns;
	account->assist_max_ns = longest_since(&a->assist, &b->assist);
	account->handshake_max_ns = longest_since(&a->handshake, &b->handshake);
	account->pause_max_ns = max_u64(
		longest_since(&a->pause, &b->pause),
		max_u64(account->assist_max_ns, account->handshake_max_ns));
	account->collector_cpu_ns = b->collector_cpu_ns - a->collector_cpu_ns;
	account->heap_bytes = b->heap_committed;
	snprintf(account->detail, sizeof(account->detail), "barrier=%.16s",
		 b->barrier);
}

void bench_peer_account(struct bench_account *phase,
			struct bench_account *whole)
{
	static const struct weir_stats none;
	struct weir_stats now;

	read_stats(&now);
	difference(&marked, &now, phase);
	difference(&none, &now, whole);
}

void bench_root(void *start, size_t size)
{
	int rc = weir_root_add(heap, start, size);

	if (rc)
		bench_die("weir_root_add: %s: %s", strerror(-rc),
			  weir_error_text());
}

void bench_collect(void)
{
	int rc = weir_collect(heap, WEIR_COLLECT_FULL);

	if (rc)
		bench_die("weir_collect: %s: %s", strerror(-rc),
			  weir_error_text());
}

static void *thread_main(void *arg)
{
	struct bench_thread *t = arg;
	weir_mutator *mutator;
	int rc;

	if (!t->mutator) {
		t->fn(NULL, t->arg);
		return NULL;
	}
	rc = weir_thread_attach(heap, &mutator);
	if (rc)
		bench_die("weir_thread_attach: %s: %s", strerror(-rc),
			  weir_error_text());
	t->fn(mutator, t->arg);
	bench_mutator_ends();
	rc = weir_thread_detach(mutator);
	if (rc)
		bench_die("weir_thread_detach: %s", strerror(-rc));
	return NULL;
}

void bench_thread_start(struct bench_thread *t)
{
	int rc = pthread_create(&t->id, NULL, thread_main, t);

	if (rc)
		bench_die("pthread_create: %s", strerror(rc));
}

static void *join(void *arg)
{
	struct bench_thread *t = arg;

	pthread_join(t->id, NULL);
	return NULL;
}

void bench_thread_join(bench_mutator *self, struct bench_thread *t)
{
	weir_blocking_call(self, join, t);
}
