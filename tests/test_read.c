/* SPDX-License-Identifier: MIT */
/*
 * System calls that write into protected heap pages: read(2) from a pipe, a
 * socket and a file straight into old objects, under the barrier that AUTO
 * chooses, with what changes that choice taken away.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/take_away.h"

#define LARGE ((size_t)1 << 20)
#define PAGE ((size_t)getpagesize())
#define SMALL 128 /* bytes */
#define SMALLS 3200
#define TARGETS 40 /* young objects whose references are read */
#define STRIDE 64  /* of small ones, for each on a page of its own */

/* Registered as roots. */
static struct {
	char *large;
	char *small[SMALLS];
} old;

static bool protects;

/* ---- The heap ----------------------------------------------------------- */

static void count(void *arg, const struct wr_run *runs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*(size_t *)arg += (runs[i].end - runs[i].start) / PAGE;
}

/* Dirty pages of those that [p, p + size) touches. */
static size_t dirty(const char *p, size_t size)
{
	uintptr_t from = (uintptr_t)p & ~(PAGE - 1);
	uintptr_t to = ((uintptr_t)p + size + PAGE - 1) & ~(PAGE - 1);
	size_t n = 0;

	cr_assert_eq(wr_barrier_fetch(heap->barrier, (void *)from, to - from, 0,
				      count, &n),
		     0);
	return n;
}

/* A whole cycle, its sweep included. */
static void collect(unsigned how)
{
	cr_assert_eq(weir_collect(heap, how), 0);
	while (__atomic_load_n(&heap->phase, __ATOMIC_ACQUIRE) != WG_IDLE)
		usleep(100);
}

static char fill_of(size_t at)
{
	return (char)(at * 31 + 1);
}

/* Old objects, on pages that are armed if there is a barrier. */
static void open_heap(enum wr_barrier_kind kind)
{
	heap_open("verify=on,poison=on,heap-min=64m");
	cr_assert_str_eq(heap_stats().barrier, wr_barrier_name(kind));
	protects = kind != WR_BARRIER_NONE;
	cr_assert_eq(weir_root_add(heap, &old, sizeof(old)), 0);
	old.large = weir_alloc(self, LARGE);
	memset(old.large, 0, LARGE); /* populated */
	for (size_t i = 0; i < SMALLS; i++)
		old.small[i] = weir_alloc(self, SMALL);
	collect(WEIR_COLLECT_FULL);
	collect(WEIR_COLLECT_MINOR);
	collect(WEIR_COLLECT_MINOR);
}

/* The test is none unless the pages are protected when the call comes. */
static void must_be_clean(const char *p, size_t size)
{
	if (protects)
		cr_assert_eq(dirty(p, size), 0,
			     "%zu pages of %zu bytes at %zu of the large one "
			     "are not armed",
			     dirty(p, size), size, (size_t)(p - old.large));
}

/* ---- Where from --------------------------------------------------------- */

enum source { PIPE, SOCKET, FILE_, SOURCES };
static const char *const source_name[] = {"a pipe", "a socket", "a file"};

/* A descriptor from which these bytes can be read; the writing end. */
static int offer(enum source source, const void *bytes, size_t size, int *other)
{
	char name[] = "/tmp/weir-read-XXXXXX";
	int ends[2];

	*other = -1;
	switch (source) {
	case PIPE:
		cr_assert(!pipe(ends));
		break;
	case SOCKET:
		cr_assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
		break;
	default:
		ends[0] = ends[1] = mkstemp(name);
		cr_assert_geq(ends[0], 0);
		unlink(name);
	}
	cr_assert_eq(write(ends[1], bytes, size), (ssize_t)size);
	if (source == FILE_)
		cr_assert_eq(lseek(ends[0], 0, SEEK_SET), 0);
	else
		*other = ends[1];
	return ends[0];
}

static void take_back(int fd, int other)
{
	close(fd);
	if (other >= 0)
		close(other);
}

static void read_all(enum source source, int fd, void *to, size_t size)
{
	ssize_t n = read(fd, to, size);

	cr_assert_eq(n, (ssize_t)size, "read from %s into the heap: %zd, %s",
		     source_name[source], n, strerror(errno));
}

/* ---- Bytes -------------------------------------------------------------- */

static void read_bytes(enum source source, char *to, size_t size)
{
	char bytes[2 * PAGE];
	int other, fd;

	memset(bytes, 0, sizeof(bytes));
	for (size_t i = 0; i < size; i++)
		bytes[i] = fill_of(i + source);
	fd = offer(source, bytes, size, &other);
	must_be_clean(to, size);
	read_all(source, fd, to, size);
	cr_assert(!memcmp(to, bytes, size));
	if (protects)
		cr_assert_gt(dirty(to, size), 0);
	take_back(fd, other);
}

static void bytes_into_old_objects(void)
{
	for (enum source s = 0; s < SOURCES; s++) {
		/* Across pages, and at the very end. */
		read_bytes(s, old.large + PAGE * 4 * s + 100, 2 * PAGE);
		read_bytes(s, old.large + LARGE - PAGE * (s + 1), PAGE);
		read_bytes(s, old.small[s * (SMALLS / SOURCES)], SMALL);
	}
	collect(WEIR_COLLECT_FULL);
	for (enum source s = 0; s < SOURCES; s++)
		for (size_t i = 0; i < SMALL; i++)
			cr_assert_eq(old.small[s * (SMALLS / SOURCES)][i],
				     fill_of(i + s));
	/* What is not a reference is not one. */
	memset(old.large, 0, LARGE);
	for (size_t i = 0; i < SMALLS; i++)
		memset(old.small[i], 0, SMALL);
	collect(WEIR_COLLECT_FULL);
	collect(WEIR_COLLECT_MINOR);
	collect(WEIR_COLLECT_MINOR);
}

/* ---- References --------------------------------------------------------- */

static weir_weak *weak[2 * TARGETS];

/* Young objects; the references to the first half are in the source only, to
 * the others nowhere. */
static __attribute__((noinline)) int make_targets(enum source source,
						  int *other)
{
	uint64_t *target[TARGETS] = {0};
	int fd;

	for (size_t i = 0; i < 2 * TARGETS; i++) {
		uint64_t *p = weir_alloc(self, 48);

		p[0] = p[5] = i * 0x0101010101010101u;
		cr_assert_eq(weir_weak_create(heap, p, &weak[i]), 0);
		if (i < TARGETS)
			target[i] = p;
	}
	fd = offer(source, target, sizeof(target), other);
	memset(target, 0, sizeof(target));
	__asm__ volatile("" ::"r"(target) : "memory");
	return fd;
}

/* A full read puts all references into one object, or a few into each. */
static void references_into(enum source source, bool large)
{
	size_t at = large ? (LARGE / PAGE / 2) * PAGE - 64 : 0,
	       each = large ? TARGETS : 8;
	size_t lost = 0;
	int other, fd = make_targets(source, &other);

	scrub();
	for (size_t i = 0; i < TARGETS; i += each) {
		char *to = large ? old.large + at : old.small[STRIDE * i];

		must_be_clean(to, each * 8);
		read_all(source, fd, to, each * 8);
	}
	take_back(fd, other);
	collect(WEIR_COLLECT_MINOR);
	/* Freed memory would be taken, and overwritten, by these. */
	for (size_t i = 0; i < 20000; i++)
		memset(weir_alloc(self, 48), 0xdb, 48);
	for (size_t i = 0; i < TARGETS; i++) {
		uint64_t **to =
			(uint64_t **)(void *)(large ? old.large + at
						    : old.small[i / each *
								each * STRIDE]);
		uint64_t *p = to[i % each];

		cr_assert_eq(weir_weak_get(weak[i]), p, "%zu was collected", i);
		cr_assert_eq(p[0], i * 0x0101010101010101u);
		cr_assert_eq(p[5], i * 0x0101010101010101u);
		lost += !weir_weak_get(weak[TARGETS + i]);
	}
	/* A cycle that keeps everything would prove nothing. */
	cr_assert_gt(lost, TARGETS / 2);
	for (size_t i = 0; i < 2 * TARGETS; i++)
		weir_weak_destroy(weak[i]);
	collect(WEIR_COLLECT_FULL);
	collect(WEIR_COLLECT_MINOR);
	collect(WEIR_COLLECT_MINOR);
}

/* ---- Beside the collector ----------------------------------------------- */

static int stop;

static void *collect_main(void *arg)
{
	unsigned *cycles = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		unsigned n = __atomic_add_fetch(cycles, 1, __ATOMIC_RELAXED);

		cr_assert_eq(weir_collect(heap, n % 4 ? WEIR_COLLECT_MINOR
						      : WEIR_COLLECT_FULL),
			     0);
	}
	return NULL;
}

/* Pages are armed anew all the time, the reader is stopped by signals. */
static void beside_cycles(void)
{
	unsigned cycles = 0;
	char bytes[PAGE];
	pthread_t t;

	stop = 0;
	memset(bytes, 5, sizeof(bytes));
	cr_assert_eq(pthread_create(&t, NULL, collect_main, &cycles), 0);
	for (size_t i = 0;
	     i < 2000 || __atomic_load_n(&cycles, __ATOMIC_RELAXED) < 20; i++) {
		size_t at = i * 40503 % (LARGE - sizeof(bytes));
		int other,
			fd = offer(i % SOURCES, bytes, sizeof(bytes), &other);

		read_all(i % SOURCES, fd, old.large + at, sizeof(bytes));
		cr_assert(!memcmp(old.large + at, bytes, sizeof(bytes)));
		take_back(fd, other);
		weir_safepoint(self);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
}

static void everything(enum wr_barrier_kind kind)
{
	open_heap(kind);
	bytes_into_old_objects();
	for (enum source s = 0; s < SOURCES; s++) {
		references_into(s, true);
		references_into(s, false);
	}
	beside_cycles();
	heap_close();
}

Test(read, auto_as_started)
{
	need_async();
	everything(WR_BARRIER_ASYNC);
}

Test(read, auto_unprivileged)
{
	need_async();
	drop_privileges();
	everything(WR_BARRIER_ASYNC);
}

/* Without the page map AUTO takes sync. */
Test(read, auto_that_is_sync)
{
	need_async();
	leave_proc();
	everything(WR_BARRIER_SYNC);
}

/* Unprivileged, sync would fail these calls: AUTO takes none. */
Test(read, auto_that_is_none)
{
	need_async();
	leave_proc();
	drop_privileges();
	everything(WR_BARRIER_NONE);
}

/* The same where root is not needed to take things away. */
Test(read, auto_that_is_none_unprivileged)
{
	need_async();
	drop_privileges();
	if (access("/dev/userfaultfd", R_OK | W_OK) == 0)
		cr_skip("/dev/userfaultfd opens for everybody");
	deny(SYS_userfaultfd, EPERM);
	everything(WR_BARRIER_NONE);
}
