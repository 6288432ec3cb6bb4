/* SPDX-License-Identifier: MIT */
/*
 * The shim over malloc and free, of glibc or (BENCH_JEMALLOC) of jemalloc.
 * There is no collector: workloads free what dies.
 */
#include <gnu/libc-version.h>
#include <stdio.h>
#include <string.h>

#include "benchmarks/bench.h"

#if defined(BENCH_JEMALLOC)

#include <jemalloc/jemalloc.h>

const char *const bench_peer_name = "jemalloc";

/* The reference to mallctl() also makes sure that the program is linked with
 * jemalloc and that malloc() is its own. */
const char *bench_peer_version(void)
{
	const char *version = NULL;
	size_t size = sizeof(version);

	if (mallctl("version", &version, &size, NULL, 0) || !version)
		bench_die("jemalloc does not tell its version");
	return version;
}

static void check_allocator(void)
{
	uint64_t before = 0, after = 0;
	size_t size = sizeof(before);
	void *volatile p;

	if (mallctl("thread.allocated", &before, &size, NULL, 0))
		bench_die("jemalloc was built without statistics");
	p = malloc(100000);
	size = sizeof(after);
	mallctl("thread.allocated", &after, &size, NULL, 0);
	free(p);
	if (after - before < 100000)
		bench_die("malloc() is not jemalloc's");
}

#else

const char *const bench_peer_name = "malloc";

const char *bench_peer_version(void)
{
	return gnu_get_libc_version();
}

static void check_allocator(void)
{
}

#endif

bench_mutator *bench_peer_start(const struct bench_setup *setup)
{
	(void)setup;
	check_allocator();
	return NULL;
}

void bench_peer_mark(void)
{
}

void bench_peer_account(struct bench_account *phase,
			struct bench_account *whole)
{
	memset(phase, 0, sizeof(*phase));
	memset(whole, 0, sizeof(*whole));
}

void bench_root(void *start, size_t size)
{
	(void)start;
	(void)size;
}

void bench_collect(void)
{
	bench_die("%s has no collector", bench_peer_name);
}

static void *thread_main(void *arg)
{
	struct bench_thread *t = arg;

	t->fn(NULL, t->arg);
	if (t->mutator)
		bench_mutator_ends();
	return NULL;
}

void bench_thread_start(struct bench_thread *t)
{
	int rc = pthread_create(&t->id, NULL, thread_main, t);

	if (rc)
		bench_die("pthread_create: %s", strerror(rc));
}

void bench_thread_join(bench_mutator *self, struct bench_thread *t)
{
	(void)self;
	pthread_join(t->id, NULL);
}
