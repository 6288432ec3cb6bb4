/* SPDX-License-Identifier: MIT */
/* The state of the team of marker threads; see gc/team.c. */
#ifndef WEIR_GC_TEAM_H
#define WEIR_GC_TEAM_H

#include "gc/mark.h"

#define WG_JOB_WORKERS 255u /* bits of wg_team.job: the workers of the job */

struct wg_helper {
	pthread_t thread;       /* of helper `index` */
	struct weir_heap *heap; /* its heap */
	unsigned index;         /* of its marker */
};

struct wg_team {
	unsigned size;    /* markers that exist, the caller's included */
	unsigned workers; /* of the running job */
	wg_job_fn *fn;    /* the job */
	void *arg;        /* its argument */
	bool quit;        /* helpers return */
	uint32_t job;     /* futex: number of the job, workers */
	uint32_t busy;    /* futex: helpers that are not done with it */
	uint32_t idle;    /* workers without work */
	uint32_t offers;  /* futex: times that work was made available */
	uint32_t done;    /* every worker was idle at once */
	struct wg_helper helper[WG_MAX_MARKERS];
};

int wg_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg);

#endif
