/* SPDX-License-Identifier: MIT */
/*
 * runtime/roots.h: what a scan reports, beside the program and in a pause,
 * while roots come and go and shared objects are loaded and unloaded.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/roots.h"
#include "runtime/thread.h"
#include "tests/short.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RAW __attribute__((no_sanitize_address, no_sanitize_thread))
#else
#define RAW
#endif

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)
#define ADD(x, v) __atomic_add_fetch(&(x), v, __ATOMIC_ACQ_REL)

static void pause_us(unsigned us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/* ---- What a scan reports ------------------------------------------------- */

struct report {
	unsigned ranges;         /* calls */
	size_t bytes;            /* their sum */
	uintptr_t last_start;    /* of the last one */
	uintptr_t last_end;      /* of the last one */
	unsigned calls;          /* callbacks */
	uintptr_t calls_arg_sum; /* their arguments, added up */
	uintptr_t inverse;       /* ~(the word to look for) */
	unsigned found;          /* how often it was there */
};

/* Reads every word, so that a range that is not mapped kills the test. */
RAW static void read_range(void *arg, uintptr_t start, uintptr_t end)
{
	struct report *r = arg;
	const volatile uintptr_t *p = (const volatile uintptr_t *)start;

	cr_assert_lt(start, end);
	r->ranges++;
	r->bytes += end - start;
	r->last_start = start;
	r->last_end = end;
	for (; p < (const volatile uintptr_t *)end; p++)
		if (*p == ~r->inverse)
			r->found++;
}

static void run_call(void *arg, void (*fn)(void), void *fn_arg)
{
	struct report *r = arg;

	r->calls++;
	r->calls_arg_sum += (uintptr_t)fn_arg;
	if (fn)
		fn();
}

static struct report scan(struct wr_roots *r, bool stopped, uintptr_t word)
{
	struct report report = {.inverse = ~word};

	if (stopped)
		wr_roots_pause_begin(r);
	wr_roots_scan(r, stopped, read_range, run_call, &report);
	if (stopped)
		wr_roots_pause_end(r);
	return report;
}

static struct wr_roots *make(bool data_segments)
{
	struct wr_roots *r;

	cr_assert_eq(wr_roots_create(data_segments, &r), 0);
	return r;
}

/* ---- Ranges and callbacks ------------------------------------------------ */

Test(roots, ranges_are_scanned_until_removed)
{
	static uintptr_t words[64];
	uintptr_t at = (uintptr_t)words;
	struct wr_roots *r = make(false);

	for (int stopped = 0; stopped < 2; stopped++) {
		words[7] = 0x1234;
		cr_assert_eq(scan(r, stopped, 0x1234).ranges, 0);
		cr_assert_eq(wr_roots_add(r, at, at + sizeof(words)), 0);
		cr_assert_eq(scan(r, stopped, 0x1234).found, 1);
		cr_assert_eq(scan(r, stopped, 0x1235).found, 0);
		cr_assert_eq(wr_roots_remove(r, at, at + sizeof(words)), 0);
		cr_assert_eq(scan(r, stopped, 0x1234).ranges, 0);
	}
	wr_roots_destroy(r);
}

Test(roots, bad_ranges_are_refused)
{
	struct wr_roots *r = make(false);

	cr_assert_eq(wr_roots_add(r, 16, 8), -EINVAL);
	cr_assert_eq(wr_roots_remove(r, 8, 16), -ENOENT);
	cr_assert_eq(wr_roots_add(r, 4096, 8192), 0);
	cr_assert_eq(wr_roots_remove(r, 4096, 8200), -ENOENT);
	cr_assert_eq(wr_roots_remove(r, 4104, 8192), -ENOENT);
	cr_assert_eq(wr_roots_remove(r, 4096, 8192), 0);
	cr_assert_eq(wr_roots_remove(r, 4096, 8192), -ENOENT);
	cr_assert_eq(wr_roots_remove_call(r, NULL, NULL), -ENOENT);
	wr_roots_destroy(r);
}

Test(roots, overlapping_ranges_are_scanned_once)
{
	static uintptr_t words[1000];
	struct wr_roots *r = make(false);
	struct report report;
	unsigned seed = 1;

	/* Every range lies in words[100..900); their union is all of it. */
	cr_assert_eq(
		wr_roots_add(r, (uintptr_t)&words[100], (uintptr_t)&words[500]),
		0);
	cr_assert_eq(
		wr_roots_add(r, (uintptr_t)&words[400], (uintptr_t)&words[900]),
		0);
	for (int i = 0; i < 200; i++) {
		unsigned a = 100 + rand_r(&seed) % 800;
		unsigned b = 100 + rand_r(&seed) % 800;

		if (a > b) {
			unsigned c = a;

			a = b;
			b = c;
		}
		cr_assert_eq(wr_roots_add(r, (uintptr_t)&words[a],
					  (uintptr_t)&words[b]),
			     0);
	}
	for (int i = 0; i < 1000; i++)
		words[i] = 77;
	for (int stopped = 0; stopped < 2; stopped++) {
		report = scan(r, stopped, 77);
		cr_assert_eq(report.found, 800);
		cr_assert_eq(report.bytes, 800 * sizeof(uintptr_t));
		cr_assert_eq(report.last_end, (uintptr_t)&words[900]);
	}
	/* The same range twice: it is scanned until it is removed twice. */
	cr_assert_eq(
		wr_roots_add(r, (uintptr_t)&words[0], (uintptr_t)&words[10]),
		0);
	cr_assert_eq(
		wr_roots_add(r, (uintptr_t)&words[0], (uintptr_t)&words[10]),
		0);
	cr_assert_eq(scan(r, true, 77).found, 810);
	cr_assert_eq(
		wr_roots_remove(r, (uintptr_t)&words[0], (uintptr_t)&words[10]),
		0);
	cr_assert_eq(scan(r, true, 77).found, 810);
	cr_assert_eq(
		wr_roots_remove(r, (uintptr_t)&words[0], (uintptr_t)&words[10]),
		0);
	cr_assert_eq(scan(r, true, 77).found, 800);
	wr_roots_destroy(r);
}

static struct wr_roots *roots;
static int denied;

static void registers_roots(void)
{
	denied += wr_roots_add(roots, 8, 16) == -EDEADLK;
	denied += wr_roots_remove(roots, 8, 16) == -EDEADLK;
	denied += wr_roots_add_call(roots, NULL, NULL, true) == -EDEADLK;
	denied += wr_roots_remove_call(roots, NULL, NULL) == -EDEADLK;
}

Test(roots, callbacks_run_where_they_may)
{
	struct report report;

	roots = make(false);
	cr_assert_eq(wr_roots_add_call(roots, registers_roots, (void *)1, true),
		     0);
	cr_assert_eq(wr_roots_add_call(roots, NULL, (void *)10, false), 0);
	report = scan(roots, false, 0);
	cr_assert_eq(report.calls, 1);
	cr_assert_eq(report.calls_arg_sum, 1);
	cr_assert_eq(denied, 4);
	report = scan(roots, true, 0);
	cr_assert_eq(report.calls, 2);
	cr_assert_eq(report.calls_arg_sum, 11);
	cr_assert_eq(denied, 8);
	cr_assert_eq(wr_roots_remove_call(roots, registers_roots, (void *)2),
		     -ENOENT);
	cr_assert_eq(wr_roots_remove_call(roots, registers_roots, (void *)1),
		     0);
	cr_assert_eq(scan(roots, true, 0).calls_arg_sum, 10);
	cr_assert_eq(wr_roots_remove_call(roots, NULL, (void *)10), 0);
	cr_assert_eq(scan(roots, true, 0).calls, 0);
	wr_roots_destroy(roots);
}

/* ---- Removal beside scans ------------------------------------------------ */

static int in_range, let_go, removed;
static uintptr_t slow_words[8];

static void slow_range(void *arg, uintptr_t start, uintptr_t end)
{
	(void)arg;
	(void)start;
	(void)end;
	STORE(in_range, 1);
	while (!LOAD(let_go))
		pause_us(100);
}

static void *slow_scan(void *arg)
{
	wr_roots_scan(arg, false, slow_range, run_call, NULL);
	return NULL;
}

static void *remover(void *arg)
{
	cr_assert_eq(wr_roots_remove(arg, (uintptr_t)slow_words,
				     (uintptr_t)(slow_words + 8)),
		     0);
	STORE(removed, 1);
	return NULL;
}

Test(roots, removal_waits_for_scans_that_began_before_it)
{
	struct wr_roots *r = make(false);
	pthread_t scanner, other;

	cr_assert_eq(wr_roots_add(r, (uintptr_t)slow_words,
				  (uintptr_t)(slow_words + 8)),
		     0);
	pthread_create(&scanner, NULL, slow_scan, r);
	while (!LOAD(in_range))
		pause_us(100);
	pthread_create(&other, NULL, remover, r);
	/* It is out of new scans at once, but removal has not returned. */
	while (scan(r, false, 0).ranges)
		pause_us(100);
	pause_us(20000);
	cr_assert_not(LOAD(removed));
	/* Adding does not wait. */
	cr_assert_eq(wr_roots_add(r, (uintptr_t)slow_words,
				  (uintptr_t)(slow_words + 4)),
		     0);
	STORE(let_go, 1);
	pthread_join(other, NULL);
	cr_assert(LOAD(removed));
	pthread_join(scanner, NULL);
	wr_roots_destroy(r);
}

static int stop_all;

/* At least once, however late it starts. */
static void *scan_often(void *arg)
{
	unsigned n = 0;

	do {
		scan(arg, false, 1);
		n++;
	} while (!LOAD(stop_all));
	return (void *)(uintptr_t)n;
}

static void *map_and_unmap(void *arg)
{
	for (int i = 0; i < 1500; i++) {
		size_t size = 3 * 4096;
		char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		cr_assert_neq(p, MAP_FAILED);
		cr_assert_eq(
			wr_roots_add(arg, (uintptr_t)p, (uintptr_t)p + size),
			0);
		cr_assert_eq(
			wr_roots_remove(arg, (uintptr_t)p, (uintptr_t)p + size),
			0);
		munmap(p, size);
	}
	return NULL;
}

Test(roots, memory_may_be_unmapped_after_removal)
{
	struct wr_roots *r = make(false);
	pthread_t scanners[2], mappers[3];
	void *n;

	for (int i = 0; i < 2; i++)
		pthread_create(&scanners[i], NULL, scan_often, r);
	for (int i = 0; i < 3; i++)
		pthread_create(&mappers[i], NULL, map_and_unmap, r);
	for (int i = 0; i < 3; i++)
		pthread_join(mappers[i], NULL);
	STORE(stop_all, 1);
	for (int i = 0; i < 2; i++) {
		pthread_join(scanners[i], &n);
		cr_assert_gt((uintptr_t)n, 0);
	}
	cr_assert_eq(scan(r, true, 0).ranges, 0);
	wr_roots_destroy(r);
}

/* ---- Data segments ------------------------------------------------------- */

static volatile uintptr_t in_data = 1; /* .data */
static volatile uintptr_t in_bss;
static volatile uintptr_t big_bss[1 << 20]; /* several pieces */
/* Has a relocation, so it is in the part that becomes read-only. */
static const volatile void *const in_relro[1] = {&in_data};

static void *open_module(void)
{
	const char *dir = getenv("WEIR_BUILDDIR");
	char path[4096];

	snprintf(path, sizeof(path), "%s/tests/rootmodule.so", dir ? dir : ".");
	return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

Test(roots, data_segments_are_scanned)
{
	struct wr_roots *r = make(true);
	struct wr_roots *none = make(false);
	uintptr_t secret = (uintptr_t)getpid() * 0x10001 + 0xabcdef0000000;
	struct report report;

	for (int stopped = 0; stopped < 2; stopped++) {
		in_data = in_bss = 0;
		cr_assert_eq(scan(r, stopped, secret).found, 0);
		in_data = secret;
		cr_assert_eq(scan(r, stopped, secret).found, 1);
		in_bss = secret;
		cr_assert_eq(scan(r, stopped, secret).found, 2);
		big_bss[(1 << 20) - 1] = secret;
		cr_assert_eq(scan(r, stopped, secret).found, 3);
		big_bss[(1 << 20) - 1] = 0;
		report = scan(r, stopped, secret);
		cr_assert_eq(report.found, 2);
		cr_assert_gt(report.bytes, sizeof(big_bss));
		cr_assert_eq(scan(none, stopped, secret).found, 0);
	}
	wr_roots_destroy(none);
	wr_roots_destroy(r);
}

struct holds {
	uintptr_t address; /* to look for */
	unsigned hits;     /* ranges that it lies in */
};

static void range_holds(void *arg, uintptr_t start, uintptr_t end)
{
	struct holds *h = arg;

	h->hits += h->address >= start && h->address < end;
}

static unsigned hits(struct wr_roots *r, const volatile void *address)
{
	struct holds h = {.address = (uintptr_t)address};

	wr_roots_pause_begin(r);
	wr_roots_scan(r, true, range_holds, run_call, &h);
	wr_roots_pause_end(r);
	return h.hits;
}

Test(roots, relocated_constants_are_left_out)
{
	struct wr_roots *r = make(true);
	uintptr_t local = 0;

	cr_assert_eq(hits(r, &in_data), 1);
	cr_assert_eq(hits(r, &in_bss), 1);
	cr_assert_eq(hits(r, &in_relro[0]), 0);
	cr_assert_eq(hits(r, "constant"), 0);
	cr_assert_eq(hits(r, &local), 0);
	wr_roots_destroy(r);
}

static volatile uintptr_t words[1000];

Test(roots, data_segments_are_switched)
{
	struct wr_roots *r = make(false);

	for (int k = 0; k < 3; k++) {
		cr_assert_eq(hits(r, &words[1]), 0);
		cr_assert_eq(wr_roots_data_segments(r, true), 0);
		cr_assert_eq(wr_roots_data_segments(r, true), 0);
		cr_assert_eq(hits(r, &words[1]), 1);
		cr_assert_eq(wr_roots_data_segments(r, false), 0);
	}
	cr_assert_eq(hits(r, &words[1]), 0);
	wr_roots_destroy(r);
}

/* Random ranges, many of them beside and over each other. */
Test(roots, excluded_ranges_are_cut_out)
{
	uintptr_t secret = (uintptr_t)getpid() * 0x10001 + 0x1230000000000;
	struct wr_roots *r = make(true);
	bool out[1000] = {false};
	unsigned seed = 3, left = 1000;

	for (int i = 0; i < 1000; i++)
		words[i] = secret;
	cr_assert_eq(wr_roots_exclude(r, 16, 8), -EINVAL);
	for (int k = 0; k < 60; k++) {
		unsigned at = (unsigned)rand_r(&seed) % 1000;
		unsigned n = (unsigned)rand_r(&seed) % 20;

		if (at + n > 1000)
			n = 1000 - at;
		cr_assert_eq(wr_roots_exclude(r, (uintptr_t)&words[at],
					      (uintptr_t)(words + at + n)),
			     0);
		for (unsigned i = at; i < at + n; i++) {
			left -= !out[i];
			out[i] = true;
		}
		for (int stopped = 0; stopped < 2; stopped++)
			cr_assert_eq(scan(r, stopped, secret).found, left);
		cr_assert_eq(hits(r, &words[at]), !out[at]);
	}
	cr_assert(left > 100 && left < 900, "%u", left);
	/* What is registered is no part of a segment. */
	cr_assert_eq(
		wr_roots_add(r, (uintptr_t)words, (uintptr_t)(words + 1000)),
		0);
	cr_assert_eq(scan(r, true, secret).found, 1000 + left);
	cr_assert_eq(
		wr_roots_remove(r, (uintptr_t)words, (uintptr_t)(words + 1000)),
		0);
	cr_assert_eq(wr_roots_exclude(r, 0, UINTPTR_MAX), 0);
	cr_assert_eq(scan(r, true, secret).ranges, 0);
	cr_assert_eq(scan(r, false, secret).ranges, 0);
	wr_roots_destroy(r);
}

static void *exclude_and_switch(void *arg)
{
	for (int i = 0; i < 300; i++) {
		uintptr_t at = (uintptr_t)&words[i * 3];

		cr_assert_eq(wr_roots_data_segments(arg, i & 1), 0);
		cr_assert_eq(wr_roots_exclude(arg, at, at + 8), 0);
	}
	return NULL;
}

Test(roots, excluded_and_switched_beside_scans)
{
	struct wr_roots *r = make(false);
	pthread_t scanner, other;
	void *n;

	pthread_create(&scanner, NULL, scan_often, r);
	pthread_create(&other, NULL, exclude_and_switch, r);
	while (!scan(r, true, 1).ranges)
		;
	pthread_join(other, NULL);
	STORE(stop_all, 1);
	pthread_join(scanner, &n);
	cr_assert_gt((uintptr_t)n, 0);
	for (int i = 0; i < 900; i++)
		cr_assert_eq(hits(r, &words[i]), i % 3 != 0);
	wr_roots_destroy(r);
}

/* ---- Loading and unloading ----------------------------------------------- */

typedef void set_fn(uintptr_t);

static void *load(uintptr_t marker)
{
	void *module = open_module();
	set_fn *set;

	cr_assert(module, "%s", dlerror());
	set = (set_fn *)(uintptr_t)dlsym(module, "rootmodule_set");
	cr_assert(set, "%s", dlerror());
	set(marker);
	return module;
}

Test(roots, objects_are_scanned_while_they_are_loaded)
{
	struct wr_roots *r = make(true);
	uintptr_t secret = (uintptr_t)getpid() * 0x10001 + 0xfedcba0000000;

	for (int stopped = 0; stopped < 2; stopped++) {
		for (int i = 0; i < 20; i++) {
			void *module = load(secret);

			cr_assert_eq(scan(r, stopped, secret).found, 1);
			cr_assert_eq(dlclose(module), 0);
			cr_assert_eq(scan(r, stopped, secret).found, 0);
		}
	}
	wr_roots_destroy(r);
}

/* Threads that load and unload are stopped anywhere in it, holding whatever
 * lock of the loader they hold, while every data segment is read. */

#if defined(__SANITIZE_THREAD__)
/* No signals there, see test_thread.h, and the loader's lock, which it does
 * not know, is doubled by one that it does. */
#define MODE WR_STOP_SAFEPOINTS
static pthread_mutex_t loader_lock = PTHREAD_MUTEX_INITIALIZER;
#define LOADER_LOCK() pthread_mutex_lock(&loader_lock)
#define LOADER_UNLOCK() pthread_mutex_unlock(&loader_lock)
#else
#define MODE WR_STOP_SIGNALS
#define LOADER_LOCK() ((void)0)
#define LOADER_UNLOCK() ((void)0)
#endif

struct loader {
	struct wr_thread thread; /* registered */
	uint32_t critical;       /* gate */
	uint32_t pending;        /* gate */
	int loaded;              /* atomic: dlopen returned, no dlclose yet */
	unsigned rounds;         /* atomic */
};

static struct wr_threads *threads;
static uintptr_t shared_secret;

static void *load_and_unload(void *arg)
{
	struct loader *l = arg;

	l->thread.gate.critical = &l->critical;
	l->thread.gate.pending = &l->pending;
	cr_assert_eq(wr_thread_attach(threads, &l->thread), 0);
	while (!LOAD(stop_all)) {
		bool entered = false;
		void *module;

		if (MODE == WR_STOP_SAFEPOINTS)
			entered = wr_thread_block_enter(&l->thread);
		LOADER_LOCK();
		module = load(shared_secret);
		LOADER_UNLOCK();
		STORE(l->loaded, 1);
		if (entered)
			wr_thread_block_leave(&l->thread);
		pause_us(100);
		if (LOAD(l->pending))
			wr_thread_poll(&l->thread);
		STORE(l->loaded, 0);
		entered = false;
		if (MODE == WR_STOP_SAFEPOINTS)
			entered = wr_thread_block_enter(&l->thread);
		LOADER_LOCK();
		dlclose(module);
		LOADER_UNLOCK();
		if (entered)
			wr_thread_block_leave(&l->thread);
		ADD(l->rounds, 1);
	}
	wr_thread_detach(&l->thread);
	return NULL;
}

Test(roots, objects_come_and_go_in_pauses)
{
	enum { N = 3 };
	static struct loader loaders[N];
	struct wr_threads_config config = {.mode = MODE};
	pthread_t id[N], scanner;
	unsigned with = 0;
	struct timespec begin, now;
	bool enough;
	void *n;

	shared_secret = (uintptr_t)getpid() * 0x10001 + 0x7654320000000;
	cr_assert_eq(wr_threads_create(&config, &threads), 0);
	roots = make(true);
	for (int i = 0; i < N; i++)
		pthread_create(&id[i], NULL, load_and_unload, &loaders[i]);
	pthread_create(&scanner, NULL, scan_often, roots);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		struct report report = {.inverse = ~shared_secret};
		bool loaded = false;

		wr_roots_pause_begin(roots);
		wr_threads_stop_world(threads, NULL);
		for (int i = 0; i < N; i++)
			loaded |= LOAD(loaders[i].loaded);
		wr_roots_scan(roots, true, read_range, run_call, &report);
		wr_threads_resume_world(threads);
		wr_roots_pause_end(roots);
		/* shared_secret itself is in a data segment. */
		cr_assert_geq(report.found, 1u + loaded);
		with += loaded;
		pause_us(200);
		clock_gettime(CLOCK_MONOTONIC, &now);
		/* Some seconds, and longer on a machine so slow that too little
		 * was done; but it must come to an end. */
		enough = with > 0;
		for (int i = 0; i < N; i++)
			enough &= LOAD(loaders[i].rounds) > 10;
	} while (now.tv_sec - begin.tv_sec < (enough ? rounds(4) : 120));
	STORE(stop_all, 1);
	for (int i = 0; i < N; i++) {
		pthread_join(id[i], NULL);
		cr_assert_gt(loaders[i].rounds, 10);
	}
	pthread_join(scanner, &n);
	cr_assert_gt((uintptr_t)n, 0);
	cr_assert_gt(with, 0);
	wr_roots_destroy(roots);
	wr_threads_destroy(threads);
}

/* ---- fork -----------------------------------------------------------------
 */

/* Forked while a scan is under way and a removal waits for it, neither of which
 * the child has. */
Test(roots, a_forked_child_does_not_wait_for_scans)
{
	struct wr_roots *r = make(false);
	pthread_t scanner, other;
	int status;
	pid_t pid;

	cr_assert_eq(wr_roots_add(r, (uintptr_t)slow_words,
				  (uintptr_t)(slow_words + 8)),
		     0);
	cr_assert_eq(wr_roots_add(r, (uintptr_t)slow_words,
				  (uintptr_t)(slow_words + 4)),
		     0);
	pthread_create(&scanner, NULL, slow_scan, r);
	while (!LOAD(in_range))
		pause_us(100);
	pthread_create(&other, NULL, remover, r);
	while (scan(r, false, 0).bytes > 4 * sizeof(slow_words[0]))
		pause_us(100);
	wr_roots_fork_prepare(r);
	pid = fork();
	wr_roots_fork_done(r);
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		alarm(60);
		if (wr_roots_remove(r, (uintptr_t)slow_words,
				    (uintptr_t)(slow_words + 4)))
			_exit(1);
		wr_roots_destroy(r);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	STORE(let_go, 1);
	pthread_join(other, NULL);
	pthread_join(scanner, NULL);
	wr_roots_destroy(r);
}

#if !defined(__SANITIZE_THREAD__) /* it allows no thread in the child */
Test(roots, a_forked_child_goes_on)
{
	uintptr_t secret = (uintptr_t)getpid() * 0x10001 + 0x3456780000000;
	uintptr_t *words;
	struct wr_roots *r;
	pthread_t scanner;
	int status;
	void *n;

#ifdef __SANITIZE_ADDRESS__
	/* Its allocator's locks are in the child as other threads had them. */
	cr_skip("fork with threads: not under the address sanitizer");
#endif
	words = calloc(8, sizeof(*words));
	r = make(true);
	words[3] = ~secret;
	in_data = secret;
	cr_assert_eq(wr_roots_add(r, (uintptr_t)words, (uintptr_t)(words + 8)),
		     0);
	pthread_create(&scanner, NULL, scan_often, r);
	for (int i = 0; i < 50; i++) {
		pid_t pid;

		if (i & 1)
			scan(r, true, secret); /* its keeper may still leave */
		wr_roots_fork_prepare(r);
		pid = fork();
		wr_roots_fork_done(r);
		cr_assert_geq(pid, 0);
		if (pid == 0) {
			void *module;
			unsigned found;

			alarm(60); /* a lock left behind must not hang it */
			module = open_module();
			found = scan(r, true, secret).found;
			if (!module || found != 1)
				_exit(1);
			dlclose(module);
			if (scan(r, false, secret).found != 1 ||
			    scan(r, true, ~secret).found != 1)
				_exit(2);
			if (wr_roots_remove(r, (uintptr_t)words,
					    (uintptr_t)(words + 8)))
				_exit(3);
			if (scan(r, true, ~secret).found != 0)
				_exit(4);
			wr_roots_destroy(r);
			_exit(0);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
			  "child %d: status %x", i, status);
	}
	STORE(stop_all, 1);
	pthread_join(scanner, &n);
	cr_assert_gt((uintptr_t)n, 0);
	wr_roots_destroy(r);
	free(words);
}
#endif
