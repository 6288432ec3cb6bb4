/* SPDX-License-Identifier: MIT */
/*
 * How much more memory this process and a child of it take during a save: the
 * sum of Pss_Anon of /proc/PID/smaps_rollup, in which a page that two share
 * counts once, sampled by a thread.  A sample walks all page tables under the
 * lock that fork() takes for writing, so that the thread leaves itself nine
 * tenths of the time and more for sleep, and whoever needs that lock for a
 * moment keeps samples off for as long.
 *
 *   all functions   one thread, beside the sampler's
 */
#ifndef WEIR_EXAMPLES_SQLITE_MEMORY_H
#define WEIR_EXAMPLES_SQLITE_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct memory {
	pthread_t thread;     /* the sampler */
	pthread_mutex_t lock; /* held for a sample; of what follows */
	pthread_cond_t wake;  /* `end` was set */
	bool off;             /* no samples: they cost time themselves */
	bool end;             /* the sampler is to return */
	pid_t child;          /* counts too; 0: none */
	uint64_t base;        /* bytes when memory_base() was called */
	uint64_t peak;        /* most since */
	uint64_t cost_ns;     /* of the last sample */
};

int memory_start(struct memory *m, bool off);
void memory_stop(struct memory *m);
/* From here on the growth counts. */
void memory_base(struct memory *m);
/* A sample now, of where the peak is known to be. */
void memory_sample(struct memory *m);
void memory_child(struct memory *m, pid_t child);
/* No sample in between. */
void memory_lock(struct memory *m);
void memory_unlock(struct memory *m);

#endif
