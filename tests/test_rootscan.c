/* SPDX-License-Identifier: MIT */
/* Roots of threads: stacks and registers, whether they run, wait or are in a
 * blocking region; scanned beside the program and again in the pause. */
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include "gc/mark.h"
#include "tests/heap_util.h"

#define THREADS 6

static sem_t ready, go;
static uintptr_t hidden[THREADS]; /* turned around: no references */
static bool stop;

static bool alive(uintptr_t word)
{
	size_t g = wg_granule_of(heap, ~word);

	return heap->meta[g] & WEIR_META_COLOUR;
}

static void *wait_for_go(void *arg)
{
	(void)arg;
	sem_post(&ready);
	while (sem_wait(&go))
		;
	return NULL;
}

/* Hold one object on the stack only, in a region or computing. */
static void *hold(void *arg)
{
	size_t i = (size_t)arg;
	void *volatile mine;
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	mine = weir_alloc(m, 48);
	hidden[i] = ~(uintptr_t)mine;
	if (i % 2) {
		weir_blocking_call(m, wait_for_go, NULL);
	} else {
		sem_post(&ready);
		/* Relaxed: nothing else is published by it. */
		while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
			weir_safepoint(m);
	}
	cr_assert_not_null(mine);
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

static void *wait_ready(void *arg)
{
	(void)arg;
	for (int i = 0; i < THREADS; i++)
		while (sem_wait(&ready))
			;
	return NULL;
}

static void *join_all(void *threads)
{
	for (int i = 0; i < THREADS; i++)
		pthread_join(((pthread_t *)threads)[i], NULL);
	return NULL;
}

static const unsigned kinds[] = {WEIR_COLLECT_FULL, WEIR_COLLECT_STOPPED,
				 WEIR_COLLECT_FULL};

Test(rootscan, stacks_of_all_threads)
{
	struct weir_stats before, after;
	pthread_t t[THREADS];

	sem_init(&ready, 0, 0);
	sem_init(&go, 0, 0);
	heap_open("heap-max=256m,heap-min=64m,verify=on");
	for (size_t i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, hold, (void *)i), 0);
	weir_blocking_call(self, wait_ready, NULL);
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		before = heap_stats();
		cr_assert_eq(weir_collect(heap, kinds[k]), 0);
		after = heap_stats();
		for (size_t i = 0; i < THREADS; i++)
			cr_assert(alive(hidden[i]), "thread %zu", i);
		/* Each thread that runs was held for its own stack.  Later
		 * it may be on its way out of the last stop. */
		if (strcmp(after.barrier, "none") && k == 0)
			cr_assert_geq(after.handshake.count -
					      before.handshake.count,
				      THREADS / 2);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++)
		sem_post(&go);
	weir_blocking_call(self, join_all, t);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	for (size_t i = 0; i < THREADS; i++)
		cr_assert_not(alive(hidden[i]), "thread %zu is gone", i);
	heap_close();
}

static __attribute__((noinline)) void make_hidden(void)
{
	hidden[0] = ~(uintptr_t)weir_alloc(self, 48);
}

Test(rootscan, thread_local_variables_are_no_roots)
{
	static __thread void *local;

	heap_open("heap-max=256m,heap-min=64m,data-segments=off");
	make_hidden();
	local = (void *)~hidden[0];
	scrub();
	weir_collect(heap, WEIR_COLLECT_FULL);
	weir_collect(heap, WEIR_COLLECT_FULL);
	cr_assert_not(alive(hidden[0]));
	cr_assert_not_null(local);
	heap_close();
}
