/* SPDX-License-Identifier: MIT */
/*
 * The threads of a run.
 *
 *   thread    writes                        read by
 *   main      result, but for what follows  the report, after all joined
 *   builder   next (atomic)                 the other builders
 *   indexer   built_bytes, built (atomic)   main
 *   querier   totals, latency, service,     main, after it joined
 *             window, example, end_ns
 *   sampler   sample, event, noise          main, after it joined
 *
 * `stop` is set by main and polled by indexer and sampler: relaxed, as
 * nothing is handed over by it; pthread_join() orders the rest.
 */
#include "examples/wi_run.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct shared {
	const struct run_options *options;
	struct query_plan plan;
	struct run_result *result;
	uint32_t next;        /* segment that the next builder takes */
	bool stop;            /* indexer and sampler shall end */
	uint64_t built_bytes; /* text indexed anew so far */
	uint64_t built;       /* segments indexed anew so far */
};

uint64_t run_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u),
			     .tv_nsec = (long)(ns % 1000000000u)};

	/* The collectors stop threads by signal, which ends a sleep early. */
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) ==
	       EINTR)
		;
}

static void *reserve(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (!p) {
		fprintf(stderr, "word-index: no memory for the results\n");
		exit(1);
	}
	return p;
}

static void *builder(void *arg)
{
	struct shared *s = arg;
	uint32_t i;

	heap_attach();
	while ((i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) <
	       index_root.count)
		(void)index_build(i);
	heap_detach();
	return NULL;
}

static void *indexer(void *arg)
{
	struct shared *s = arg;
	uint32_t i = 0;
	uint64_t bytes;

	heap_attach();
	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		bytes = index_build(i);
		__atomic_fetch_add(&s->built_bytes, bytes, __ATOMIC_RELAXED);
		__atomic_fetch_add(&s->built, 1, __ATOMIC_RELAXED);
		i = (i + 1) % index_root.count;
	}
	heap_detach();
	return NULL;
}

static void query_loop(struct shared *s)
{
	struct run_result *r = s->result;
	uint64_t queries = (uint64_t)s->options->rate * s->options->seconds;
	struct answer answer;
	uint64_t i;

	for (i = 0; i < queries; i++) {
		const struct query *q = &s->plan.query[i % s->plan.count];
		uint64_t due = i * 1000000000u / s->options->rate;
		uint64_t *window = &r->window[due / RUN_WINDOW_NS], begin, end;

		due += r->start_ns;
		begin = run_now();
		if (begin < due) {
			sleep_until(due);
			begin = run_now();
		}
		query_run(q, &answer, &r->totals);
		end = run_now();
		hdr_add(&r->latency, end - due);
		hdr_add(&r->service, end - begin);
		if (end - due > *window)
			*window = end - due;
		if (answer.snippet[0]) {
			memcpy(r->example.snippet, answer.snippet,
			       sizeof(answer.snippet));
			r->example.matches = answer.matches;
			r->example_query = *q;
		}
	}
	r->end_ns = run_now();
}

static void *querier(void *arg)
{
	/* Wake up on time: the default slack of 50 us would be measured. */
	prctl(PR_SET_TIMERSLACK, 1);
	heap_attach();
	query_loop(arg);
	heap_detach();
	return NULL;
}

static uint64_t resident(int fd)
{
	unsigned long size, pages = 0;
	char text[128];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n > 0) {
		text[n] = 0;
		if (sscanf(text, "%lu %lu", &size, &pages) != 2)
			pages = 0;
	}
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void take_sample(struct run_result *r, size_t room, int statm)
{
	struct heap_figures f;
	struct run_sample *x;

	if (r->samples == room)
		return;
	heap_read(&f);
	x = &r->sample[r->samples++];
	x->time_ns = run_now();
	x->used = f.used;
	x->reserved = f.reserved;
	x->rss = resident(statm);
}

#define SAMPLE_ROOM 20000u /* 1000 s */
#define EVENT_ROOM 100000u

static void *sampler(void *arg)
{
	struct shared *s = arg;
	struct run_result *r = s->result;
	int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	uint64_t due = run_now(), sample = due, now;

	prctl(PR_SET_TIMERSLACK, 1);
	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		due += RUN_POLL_NS;
		sleep_until(due);
		now = run_now();
		hdr_add(&r->noise, now - due);
		if (r->events < EVENT_ROOM)
			r->events += heap_events(&r->event[r->events],
						 EVENT_ROOM - r->events);
		if (now >= sample) {
			take_sample(r, SAMPLE_ROOM, statm);
			sample += RUN_SAMPLE_NS;
		}
		/* libgc lets nobody read its figures while it collects. */
		now = run_now();
		if (now > due + RUN_POLL_NS)
			due = now;
		if (now > sample + RUN_SAMPLE_NS)
			sample = now;
	}
	r->events += heap_events(&r->event[r->events], EVENT_ROOM - r->events);
	close(statm);
	return NULL;
}

static uint64_t time_of(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_usec * 1000u;
}

static uint64_t high_water(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmHWM: %lu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return (uint64_t)kib << 10;
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, fn, arg);

	if (err) {
		fprintf(stderr, "word-index: starting a thread: %s\n",
			strerror(err));
		exit(1);
	}
	return thread;
}

static void build_all(struct shared *s)
{
	pthread_t thread[64];
	uint32_t i, n = s->options->builders;

	for (i = 0; i < n; i++)
		thread[i] = start(builder, s);
	for (i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
	for (i = 0; i < index_root.count; i++) {
		struct segment *segment = index_segment(i);

		s->result->first_terms += segment->terms;
		s->result->first_postings += segment->postings;
	}
}

static void measure(struct shared *s)
{
	struct run_result *r = s->result;
	struct heap_figures before, after;
	struct rusage then, now;
	pthread_t query, index;

	heap_read(&before);
	getrusage(RUSAGE_SELF, &then);
	r->start_ns = run_now();
	index = start(indexer, s);
	query = start(querier, s);
	pthread_join(query, NULL);
	r->indexed_bytes = __atomic_load_n(&s->built_bytes, __ATOMIC_RELAXED);
	r->segments_built = __atomic_load_n(&s->built, __ATOMIC_RELAXED);
	getrusage(RUSAGE_SELF, &now);
	heap_read(&after);
	r->user_ns = time_of(now.ru_utime) - time_of(then.ru_utime);
	r->system_ns = time_of(now.ru_stime) - time_of(then.ru_stime);
	r->collections = after.collections - before.collections;
	r->collector_cpu_ns = after.collector_cpu_ns - before.collector_cpu_ns;
	__atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
	pthread_join(index, NULL);
}

int run(const struct run_options *options, struct run_result *r)
{
	struct shared s = {.options = options, .result = r};
	pthread_t thread;
	int err;

	memset(r, 0, sizeof(*r));
	r->windows = (size_t)options->seconds * (1000000000u / RUN_WINDOW_NS);
	r->window = reserve(r->windows, sizeof(*r->window));
	r->sample = reserve(SAMPLE_ROOM, sizeof(*r->sample));
	r->event = reserve(EVENT_ROOM, sizeof(*r->event));
	r->opened_ns = run_now();
	thread = start(sampler, &s);
	build_all(&s);
	r->built_ns = run_now();
	err = query_plan(&s.plan, options->plan, options->seed);
	if (!err) {
		query_cache_open(options->cache);
		measure(&s);
		query_cache_close();
	}
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	r->peak_rss = high_water();
	query_plan_free(&s.plan);
	return err;
}

void run_free(struct run_result *r)
{
	free(r->window);
	free(r->sample);
	free(r->event);
	memset(r, 0, sizeof(*r));
}
