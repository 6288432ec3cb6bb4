/* SPDX-License-Identifier: MIT */
/*
 * What the tests of snapshots share: a region, threads that write to it at
 * random and can be made quiet, a shadow copy of the moment, and a sink that
 * puts together what a snapshot hands over and sees to it that each page comes
 * once.
 */
#ifndef WEIR_TESTS_SNAPSHOT_UTIL_H
#define WEIR_TESTS_SNAPSHOT_UTIL_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <weir/snapshot.h>

#include "tests/must.h"

#define PAGE ((size_t)getpagesize())
#define MIB ((size_t)1 << 20)
#define MOST_WRITERS 4

/* Writers: each writes random words of random pages while `go`. */
struct writers {
	char *memory;   /* to be written */
	size_t bytes;   /* of it */
	unsigned count; /* threads */
	pthread_t thread[MOST_WRITERS];
	int quiet;          /* they are to be; atomic */
	int parked;         /* those that are; atomic */
	int end;            /* they are to return; atomic */
	uint64_t writes;    /* made; atomic */
	unsigned hot_pages; /* nine of ten writes go to so many pages; 0: all
			     * anywhere */
	unsigned pause_us;  /* between writes; 0: none */
	char *shadow;       /* bytes; what the memory held at the moment */
};

struct writer {
	struct writers *w; /* whose */
	uint64_t state;    /* of the random numbers */
};

static inline uint64_t random_of(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void *write_main(void *arg)
{
	struct writer *me = arg;
	struct writers *w = me->w;
	size_t words = w->bytes / 8;

	while (!__atomic_load_n(&w->end, __ATOMIC_ACQUIRE)) {
		uint64_t r = random_of(&me->state);
		size_t at = r % words;

		if (__atomic_load_n(&w->quiet, __ATOMIC_SEQ_CST)) {
			__atomic_fetch_add(&w->parked, 1, __ATOMIC_SEQ_CST);
			while (__atomic_load_n(&w->quiet, __ATOMIC_SEQ_CST))
				sched_yield();
			__atomic_fetch_sub(&w->parked, 1, __ATOMIC_SEQ_CST);
		}
		if (w->hot_pages && r >> 60 != 0)
			at = r % (w->hot_pages * PAGE / 8);
		/* Relaxed: only the library reads them beside us. */
		__atomic_store_n((uint64_t *)w->memory + at, r,
				 __ATOMIC_RELAXED);
		__atomic_fetch_add(&w->writes, 1, __ATOMIC_RELAXED);
		if (w->pause_us)
			usleep(w->pause_us);
	}
	free(me);
	return NULL;
}

static inline void writers_start(struct writers *w, unsigned count)
{
	w->count = count;
	for (unsigned i = 0; i < count; i++) {
		struct writer *me = malloc(sizeof(*me));

		must(me);
		*me = (struct writer){.w = w, .state = 88172645463325252u + i};
		must(!pthread_create(&w->thread[i], NULL, write_main, me));
	}
}

static inline void writers_end(struct writers *w)
{
	__atomic_store_n(&w->end, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&w->quiet, 0, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < w->count; i++)
		must(!pthread_join(w->thread[i], NULL));
	w->count = 0;
	w->end = 0;
}

/* Some writes have been made since the call. */
static inline void writers_wait(struct writers *w, uint64_t writes)
{
	uint64_t from = __atomic_load_n(&w->writes, __ATOMIC_RELAXED);

	while (__atomic_load_n(&w->writes, __ATOMIC_RELAXED) < from + writes)
		sched_yield();
}

/* stop and resume of struct weir_snapshot_options. */
static inline int writers_stop(void *arg)
{
	struct writers *w = arg;

	__atomic_store_n(&w->quiet, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&w->parked, __ATOMIC_SEQ_CST) < (int)w->count)
		sched_yield();
	if (w->shadow)
		memcpy(w->shadow, w->memory, w->bytes);
	return 0;
}

static inline void writers_resume(void *arg)
{
	struct writers *w = arg;

	__atomic_store_n(&w->quiet, 0, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&w->parked, __ATOMIC_SEQ_CST) > 0)
		sched_yield();
}

/* What was handed over. */
struct image {
	char *data;       /* of the one region */
	size_t bytes;     /* of it */
	uint8_t *times;   /* a byte a page: how often it came */
	bool again;       /* it may come more than once */
	unsigned slow_us; /* how long each call takes beside */
	unsigned fail_at; /* the call that returns -EIO; 0: none */
	unsigned calls;   /* so far */
	uint64_t zeroes;  /* bytes of runs without data */
	void (*hook)(void *arg, unsigned call); /* in each call, or NULL */
	void *hook_arg;                         /* its argument */
};

static inline void image_open(struct image *m, size_t bytes)
{
	*m = (struct image){.bytes = bytes};
	m->data = malloc(bytes);
	m->times = calloc(bytes / PAGE, 1);
	must(m->data && m->times);
	/* What is not handed over must not look as if it were. */
	memset(m->data, 0xa5, bytes);
}

static inline void image_close(struct image *m)
{
	free(m->data);
	free(m->times);
}

static inline int image_sink(void *arg, const struct weir_snapshot_run *runs,
			     size_t count)
{
	struct image *m = arg;
	size_t sum = 0;

	m->calls++;
	if (m->hook)
		m->hook(m->hook_arg, m->calls);
	if (m->fail_at == m->calls)
		return -EIO;
	must(count);
	for (size_t i = 0; i < count; i++) {
		must(runs[i].region == 0 && runs[i].bytes);
		must(!(runs[i].offset % PAGE) && !(runs[i].bytes % PAGE));
		must(runs[i].offset + runs[i].bytes <= m->bytes);
		if (runs[i].data) {
			memcpy(m->data + runs[i].offset, runs[i].data,
			       runs[i].bytes);
			sum += runs[i].bytes;
		} else {
			memset(m->data + runs[i].offset, 0, runs[i].bytes);
			m->zeroes += runs[i].bytes;
		}
		for (size_t p = 0; p < runs[i].bytes / PAGE; p++)
			must(!m->times[runs[i].offset / PAGE + p]++ ||
			     m->again);
	}
	must(sum <= 2 * MIB);
	if (m->slow_us)
		usleep(m->slow_us);
	return 0;
}

/* The first page that differs, or -1. */
static inline long image_differs(const struct image *m, const char *from)
{
	for (size_t p = 0; p < m->bytes / PAGE; p++)
		if (!m->times[p] ||
		    memcmp(m->data + p * PAGE, from + p * PAGE, PAGE))
			return (long)p;
	return -1;
}

static inline char *memory_of(const weir_region *r)
{
	struct weir_region_info i = {.size = sizeof(i)};

	must(!weir_region_info(r, &i));
	return i.address;
}

static inline struct weir_snapshot_progress figures_of(const weir_snapshot *s)
{
	struct weir_snapshot_progress p = {.size = sizeof(p)};

	must(!weir_snapshot_progress(s, &p));
	return p;
}

#endif
