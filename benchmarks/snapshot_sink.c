/* SPDX-License-Identifier: MIT */
/*
 * Where bench-snapshot's pages go, and whether they are right.
 *
 * Without a file the sink reads every page for its checksum, which is all that
 * it does with it.  With one it writes it at its offset, and what is compared
 * is read back from there.  A rate is kept over the whole: after each run the
 * sink sleeps until so much was due.
 *
 * Used by one thread: the saver or fork's child, then, when that has taken the
 * last page, the main thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "benchmarks/snapshot_bench.h"

static const char zeroes[SNAP_PAGE];

struct snap_sink *snap_sink_open(void)
{
	uint64_t pages = snap_want.size / SNAP_PAGE;
	struct snap_sink *s;

	s = mmap(NULL, sizeof(*s) + pages * sizeof(s->sum[0]),
		 PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (s == MAP_FAILED)
		bench_die("no memory for checksums");
	s->pages = pages;
	s->fd = -1;
	if (snap_want.file) {
		s->fd = open(snap_want.file,
			     O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (s->fd < 0)
			bench_die("%s: %s", snap_want.file, strerror(errno));
	}
	return s;
}

static bool planted(const char *what)
{
	return snap_want.plant && !strcmp(snap_want.plant, what);
}

/* The page that an error is planted in. */
static uint64_t victim(void)
{
	return snap_want.size / SNAP_PAGE / 3;
}

static void sum_page(struct snap_sink *s, uint64_t page, const char *data)
{
	char wrong[SNAP_PAGE];

	if (page == victim() && planted("byte")) {
		memcpy(wrong, data, sizeof(wrong));
		wrong[1234] ^= 1;
		data = wrong;
	}
	s->sum[page] = snap_checksum(data);
}

static int write_run(struct snap_sink *s, uint64_t offset, const char *data,
		     size_t bytes)
{
	size_t done = 0;
	ssize_t n;

	while (done < bytes) {
		n = pwrite(s->fd, data ? data + done : zeroes,
			   data ? bytes - done : SNAP_PAGE,
			   (off_t)(offset + done));
		if (n < 0) {
			s->error = errno;
			return -errno;
		}
		done += (size_t)n;
	}
	return 0;
}

/* Until what was taken was due. */
static void keep_rate(const struct snap_sink *s)
{
	uint64_t due = s->start_ns +
		       (uint64_t)((double)s->taken * SNAP_PAGE * 1e9 /
				  (double)snap_want.sink_rate),
		 now;
	struct timespec t;

	while ((now = bench_now()) < due) {
		t.tv_sec = (time_t)((due - now) / 1000000000u);
		t.tv_nsec = (long)((due - now) % 1000000000u);
		nanosleep(&t, NULL);
	}
}

int snap_sink_take(struct snap_sink *s, uint64_t offset, const void *data,
		   size_t bytes)
{
	const char *from = data;
	uint64_t page = offset / SNAP_PAGE, n = bytes / SNAP_PAGE, i;
	int err = 0;

	if (!s->start_ns)
		s->start_ns = bench_now();
	if (s->fd >= 0)
		err = write_run(s, offset, from, bytes);
	for (i = 0; i < n && !err; i++, page++) {
		s->taken++;
		if (page == victim() && planted("lost"))
			continue;
		if (s->sum[page] && !snap_method_is_end())
			s->twice++;
		if (s->fd >= 0)
			s->sum[page] = 1; /* it is in the file */
		else
			sum_page(s, page, from ? from + i * SNAP_PAGE : zeroes);
	}
	if (err)
		return err;
	if (snap_want.sink_rate)
		keep_rate(s);
	if (s->taken == s->pages && !snap_method_is_end())
		snap_sink_end(s);
	return 0;
}

void snap_sink_end(struct snap_sink *s)
{
	s->cpu_ns = snap_cpu(true);
	s->end_ns = bench_now();
}

/* ---- Whether it is right ------------------------------------------------- */

/* The sums of what the file has. */
static void sum_file(struct snap_sink *s)
{
	char data[SNAP_PAGE];
	uint64_t i;

	for (i = 0; i < s->pages; i++) {
		if (!s->sum[i])
			continue;
		if (pread(s->fd, data, sizeof(data), (off_t)(i * SNAP_PAGE)) !=
		    (ssize_t)sizeof(data))
			bench_die("%s cannot be read back", snap_want.file);
		sum_page(s, i, data);
	}
	close(s->fd);
}

/* What it held at the moment, anew. */
static void repeat(char *memory)
{
	struct snap_stream stream;
	struct snap_op op;
	uint64_t ops, k;
	unsigned i;

	snap_fill(memory);
	for (i = 0; i < snap_want.writers; i++) {
		snap_stream_open(&stream, i);
		ops = snap_writer[i].at_moment;
		if (i == 0 && planted("late"))
			ops++;
		for (k = 0; k < ops; k++) {
			op = snap_stream_next(&stream);
			snap_store(memory, &op);
		}
	}
}

void snap_verify(struct snap_sink *s, char *memory)
{
	uint64_t missing = 0, wrong = 0, first = UINT64_MAX, i;

	if (s->fd >= 0)
		sum_file(s);
	repeat(memory);
	for (i = 0; i < s->pages; i++) {
		if (s->sum[i] == snap_checksum(memory + i * SNAP_PAGE))
			continue;
		if (first == UINT64_MAX)
			first = i;
		if (s->sum[i])
			wrong++;
		else
			missing++;
	}
	if (!missing && !wrong && !s->twice)
		return;
	fprintf(stderr,
		"bench-snapshot: %s: THE IMAGE IS WRONG: of %" PRIu64
		" pages %" PRIu64 " differ, %" PRIu64 " are missing, %" PRIu64
		" came twice; the first is page %" PRIu64 "\n",
		snap_want.method, s->pages, wrong, missing, s->twice, first);
	exit(1);
}
