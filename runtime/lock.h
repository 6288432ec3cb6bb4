/* SPDX-License-Identifier: MIT */
/*
 * Mutexes with ranks.
 *
 * A thread takes locks in rising rank only: while it holds a lock of rank r it
 * may wait for locks of a rank above r and for no other, so no cycle of
 * waiting threads can form.  Checking builds keep a witness for each thread,
 * the list of what it holds, and abort with the names of both locks when the
 * order is broken.  wr_mutex_trylock() never waits and may break the order.
 *
 *   init, destroy    one thread, before and after all others
 *   lock, trylock    any thread but in a signal handler
 *   unlock, wait     the thread that holds the lock
 *
 * After fork() the child's only thread holds what it held; it unlocks.
 *
 * A stopper may hold a lock over a stop.  Under WR_STOP_SAFEPOINTS a mutator
 * that waits for such a lock must be in a blocking region, or the stop never
 * completes.
 */
#ifndef WEIR_RUNTIME_LOCK_H
#define WEIR_RUNTIME_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

/* Every rank, X(name, what it guards), the one taken first on top.  fork()
 * takes all of them but hook and arming in this order (gc/fork.c); but regions
 * comes last where the first region was made before the heap: it is tried then
 * (runtime/region_fork.c).
 *
 * calls, hook, loader and roots come before stop because a pause takes them
 * before it stops the world; registry comes after stop because a stopper walks
 * it; and what comes after these may be taken in a pause: always and finalizers
 * are, and under these locks marking takes segments. */
#define WR_LOCK_RANKS(X)                                                      \
	X(regions, "the regions, and who watches them")                       \
	X(arming, "a step of protecting pages before a snapshot")             \
	X(create, "the heap's existence; its part of fork() begins with it")  \
	X(calls, "weir_locked_call(): no pause meanwhile")                    \
	X(hook, "the program's event handler")                                \
	X(loader, "the list of data segments, and the dynamic loader's lock") \
	X(roots, "registered ranges and callbacks")                           \
	X(stop, "who may hold threads")                                       \
	X(registry, "the list of threads")                                    \
	X(control, "requests to the collector, and what cycles it has done")  \
	X(heap, "free blocks, limits, the table of kinds")                    \
	X(barrier, "page protection")                                         \
	X(always, "objects that every pause traces")                          \
	X(finalizers, "finalizers, weak references and ephemerons")           \
	X(segments, "the mark stacks' free segments")                         \
	X(events, "the trace")                                                \
	X(attach, "threads on their way into the registry")

enum wr_rank {
#define WR_RANK(name, what) WR_RANK_##name,
	WR_LOCK_RANKS(WR_RANK)
#undef WR_RANK
		WR_RANKS
};

struct wr_mutex {
	pthread_mutex_t mutex; /* the lock itself */
	enum wr_rank rank;     /* its place in the order, and its name */
};

#define WR_MUTEX_INITIALIZER(r)                               \
	{                                                     \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .rank = r \
	}

void wr_mutex_init(struct wr_mutex *m, enum wr_rank rank);
void wr_mutex_destroy(struct wr_mutex *m);
void wr_mutex_lock(struct wr_mutex *m);
bool wr_mutex_trylock(struct wr_mutex *m); /* whether it was free */
void wr_mutex_unlock(struct wr_mutex *m);

/* pthread_cond_wait() and pthread_cond_timedwait() with `m`, the last lock
 * that the thread took.  timedwait: 0 or -ETIMEDOUT. */
void wr_mutex_wait(struct wr_mutex *m, pthread_cond_t *cond);
int wr_mutex_timedwait(struct wr_mutex *m, pthread_cond_t *cond,
		       const struct timespec *deadline);

/* Checking builds: abort unless the calling thread holds `m`. */
void wr_mutex_assert_held(const struct wr_mutex *m);

const char *wr_rank_name(enum wr_rank rank);

#endif
