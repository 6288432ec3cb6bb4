/* SPDX-License-Identifier: MIT */
/* The sampler of memory; see sqlite_memory.h. */
#define _GNU_SOURCE
#include "examples/sqlite_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/sqlite_store.h"

#define SLEEP_NS 3000000u /* between samples, at least */
#define SLEEP_COSTS 15u   /* so many times what one cost, at least */

static uint64_t pss_anon(pid_t pid)
{
	static const char field[] = "\nPss_Anon:";
	char path[64], text[4096], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	at = strstr(text, field);
	return at ? strtoull(at + sizeof(field) - 1, NULL, 10) << 10 : 0;
}

/* Lock held. */
static uint64_t sample(struct memory *m)
{
	uint64_t start = store_now(), bytes;

	if (m->off)
		return 0;
	bytes = pss_anon(getpid());

	if (m->child)
		bytes += pss_anon(m->child);
	if (bytes > m->peak)
		m->peak = bytes;
	m->cost_ns = store_now() - start;
	return bytes;
}

static void *sampler(void *arg)
{
	struct memory *m = arg;

	pthread_mutex_lock(&m->lock);
	while (!m->end) {
		struct timespec until;
		uint64_t sleep = SLEEP_COSTS * m->cost_ns;

		if (sleep < SLEEP_NS)
			sleep = SLEEP_NS;
		clock_gettime(CLOCK_REALTIME, &until);
		sleep += (uint64_t)until.tv_nsec;
		until.tv_sec += (time_t)(sleep / 1000000000u);
		until.tv_nsec = (long)(sleep % 1000000000u);
		pthread_cond_timedwait(&m->wake, &m->lock, &until);
		if (!m->end)
			sample(m);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

int memory_start(struct memory *m, bool off)
{
	memset(m, 0, sizeof(*m));
	m->off = off;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->wake, NULL);
	if (pthread_create(&m->thread, NULL, sampler, m))
		return store_complain(NULL, "no thread for samples of memory");
	return 0;
}

void memory_stop(struct memory *m)
{
	pthread_mutex_lock(&m->lock);
	m->end = true;
	pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->thread, NULL);
}

void memory_base(struct memory *m)
{
	pthread_mutex_lock(&m->lock);
	m->peak = 0;
	m->base = sample(m);
	pthread_mutex_unlock(&m->lock);
}

void memory_sample(struct memory *m)
{
	pthread_mutex_lock(&m->lock);
	sample(m);
	pthread_mutex_unlock(&m->lock);
}

void memory_child(struct memory *m, pid_t child)
{
	pthread_mutex_lock(&m->lock);
	m->child = child;
	pthread_mutex_unlock(&m->lock);
}

void memory_lock(struct memory *m)
{
	pthread_mutex_lock(&m->lock);
}

void memory_unlock(struct memory *m)
{
	pthread_mutex_unlock(&m->lock);
}
