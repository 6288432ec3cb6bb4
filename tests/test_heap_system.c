/* SPDX-License-Identifier: MIT */
/*
 * A heap and its surroundings: the signal that stops threads, objects held by
 * variables of a library that comes and goes, root callbacks, an idle program,
 * and a child of fork that destroys its heap and makes another.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gc/mark.h"
#include "tests/heap_util.h"

#define OBJECTS 40

/* ---- suspend-signal ----------------------------------------------------- */

#ifndef __SANITIZE_THREAD__ /* heap_open() stops at safepoints there */
static int stop;
static volatile sig_atomic_t power_signals;

static void on_power(int signo)
{
	(void)signo;
	power_signals++;
}

/* Only a signal stops this thread. */
static void *spin(void *arg)
{
	uint64_t *volatile mine;
	weir_mutator *m;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	mine = weir_alloc(m, 64);
	*mine = 42;
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELAXED);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		;
	cr_assert_eq(*mine, 42);
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

static bool handled(int signo)
{
	struct sigaction now;

	cr_assert_eq(sigaction(signo, NULL, &now), 0);
	return now.sa_handler != SIG_DFL && now.sa_handler != on_power;
}

Test(heap_system, suspend_signal)
{
	int signo = SIGRTMIN + 5, ready = 0;
	char options[100];
	pthread_t t;

	/* The default one is the program's own then. */
	signal(SIGPWR, on_power);
	cr_assert_not(handled(signo));
	snprintf(options, sizeof(options),
		 "verify=on,poison=on,suspend-signal=%d", signo);
	heap_open(options);
	cr_assert(handled(signo));
	cr_assert_not(handled(SIGPWR));
	cr_assert_eq(pthread_create(&t, NULL, spin, &ready), 0);
	while (!__atomic_load_n(&ready, __ATOMIC_RELAXED))
		usleep(100);
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned k = 0; k < 1000; k++)
			weir_alloc(self, 64);
		cr_assert_eq(weir_collect(heap, i % 2), 0);
	}
	raise(SIGPWR);
	cr_assert_eq(power_signals, 1);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &t);
	heap_close();
	cr_assert_not(handled(signo));
}

Test(heap_system, a_signal_that_cannot_be_handled_is_refused)
{
	struct weir_heap_options o = {.size = sizeof(o),
				      .options = "suspend-signal=9"};

	cr_assert_eq(weir_heap_create(&o, &heap), -EINVAL);
	cr_assert(strstr(weir_error_text(), "suspend-signal"), "%s",
		  weir_error_text());
	heap_open(NULL);
	heap_close();
}
#endif

/* ---- Objects of which no copy of the address is left in sight -------------
 */

/* Pairs of a weak reference and the address, inverted. */
static weir_weak *weak[OBJECTS];
static uintptr_t inverse[OBJECTS];

static __attribute__((noinline)) void make(unsigned i)
{
	uint64_t *p = weir_alloc(self, 48);

	cr_assert_not_null(p);
	p[0] = p[5] = i + 1000;
	inverse[i] = ~(uintptr_t)p;
	cr_assert_eq(weir_weak_create(heap, p, &weak[i]), 0);
}

static __attribute__((noinline)) bool lives(unsigned i)
{
	uint64_t *p = weir_weak_get(weak[i]);

	if (!p)
		return false;
	cr_assert_eq(~(uintptr_t)p, inverse[i]);
	cr_assert_eq(p[0], i + 1000);
	cr_assert_eq(p[5], i + 1000);
	return true;
}

/* Freed memory is taken, and poisoned, by what is allocated here. */
static __attribute__((noinline)) void collect(unsigned how)
{
	scrub();
	cr_assert_eq(weir_collect(heap, how), 0);
	for (unsigned k = 0; k < 2000; k++)
		memset(weir_alloc(self, 48), 0xdb, 48);
}

static unsigned living(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < OBJECTS; i++)
		n += lives(i);
	return n;
}

static void forget_all(void)
{
	for (unsigned i = 0; i < OBJECTS; i++)
		weir_weak_destroy(weak[i]);
}

/* ---- data-segments ------------------------------------------------------ */

typedef void set_fn(uintptr_t);

static void *open_module(void)
{
	const char *dir = getenv("WEIR_BUILDDIR");
	char path[4096];

	snprintf(path, sizeof(path), "%s/tests/rootmodule.so", dir ? dir : ".");
	return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* Load the module and give its variable the only reference to object i. */
static __attribute__((noinline)) void *hold(unsigned i)
{
	void *module = open_module();
	set_fn *set;

	cr_assert(module, "%s", dlerror());
	set = (set_fn *)(uintptr_t)dlsym(module, "rootmodule_set");
	cr_assert(set, "%s", dlerror());
	set(~inverse[i]);
	return module;
}

Test(heap_system, a_variable_of_a_loaded_library_is_a_root)
{
	unsigned dead = 0;

#ifdef __SANITIZE_THREAD__
	cr_skip("ThreadSanitizer's own data segments take minutes to scan");
#endif
	heap_open("data-segments=on,verify=on,poison=on,heap-min=64m");
	for (unsigned i = 0; i < OBJECTS; i++) {
		void *module;

		make(i);
		module = hold(i);
		collect(WEIR_COLLECT_MINOR);
		cr_assert(lives(i), "object %u, after a minor cycle", i);
		collect(WEIR_COLLECT_FULL);
		cr_assert(lives(i), "object %u, after a full cycle", i);
		cr_assert_eq(dlclose(module), 0);
		collect(WEIR_COLLECT_FULL);
		dead += !lives(i);
	}
	cr_assert_geq(dead, OBJECTS / 2, "%u are dead without the library",
		      dead);
	forget_all();
	heap_close();
}

Test(heap_system, but_not_unless_asked_for)
{
	unsigned dead = 0;

	heap_open("verify=on,poison=on,heap-min=64m");
	for (unsigned i = 0; i < OBJECTS; i++) {
		void *module;

		make(i);
		module = hold(i);
		collect(WEIR_COLLECT_FULL);
		dead += !lives(i);
		cr_assert_eq(dlclose(module), 0);
	}
	cr_assert_geq(dead, OBJECTS / 2, "%u are dead", dead);
	forget_all();
	heap_close();
}

/* ---- Root callbacks ----------------------------------------------------- */

struct told {
	unsigned from, to; /* objects to report */
	unsigned calls;    /* atomic */
	unsigned stopped;  /* atomic: of them with all mutators stopped */
};

static void tell(weir_visitor *visitor, void *arg)
{
	struct told *t = arg;

	__atomic_add_fetch(&t->calls, 1, __ATOMIC_RELAXED);
	if (heap->marker[0]->in_pause)
		__atomic_add_fetch(&t->stopped, 1, __ATOMIC_RELAXED);
	for (unsigned i = t->from; i < t->to; i++)
		weir_visit(visitor, (void *)~inverse[i]);
}

Test(heap_system, root_callbacks)
{
	struct told paused = {0, OBJECTS / 4, 0, 0};
	struct told beside = {OBJECTS / 4, OBJECTS / 2, 0, 0};

	heap_open("verify=on,poison=on,heap-min=64m");
	for (unsigned i = 0; i < OBJECTS; i++)
		make(i);
	cr_assert_eq(weir_root_add_callback(heap, tell, &paused, 0), 0);
	cr_assert_eq(weir_root_add_callback(heap, tell, &beside,
					    WEIR_TRACE_CONCURRENT),
		     0);
	for (unsigned k = 0; k < 3; k++) {
		collect(k == 1 ? WEIR_COLLECT_MINOR : WEIR_COLLECT_FULL);
		for (unsigned i = 0; i < OBJECTS / 2; i++)
			cr_assert(lives(i), "object %u, cycle %u", i, k);
	}
	cr_assert_lt(living(), OBJECTS, "everything lives");
	cr_assert_geq(paused.calls, 3);
	cr_assert_eq(paused.calls, paused.stopped);
	cr_assert_geq(beside.stopped, 3);
	if (strcmp(heap_stats().barrier, "none"))
		cr_assert_geq(beside.calls, beside.stopped + 3);
	/* The argument is part of what is removed. */
	cr_assert_eq(weir_root_remove_callback(heap, tell, NULL), -ENOENT);
	cr_assert_eq(weir_root_remove_callback(heap, tell, &paused), 0);
	cr_assert_eq(weir_root_remove_callback(heap, tell, &paused), -ENOENT);
	paused.calls = 0;
	collect(WEIR_COLLECT_FULL);
	cr_assert_eq(paused.calls, 0);
	for (unsigned i = OBJECTS / 4; i < OBJECTS / 2; i++)
		cr_assert(lives(i), "object %u", i);
	cr_assert_eq(weir_root_remove_callback(heap, tell, &beside), 0);
	collect(WEIR_COLLECT_FULL);
	cr_assert_lt(living(), OBJECTS / 2, "%u live without a root", living());
	forget_all();
	heap_close();
}

/* ---- Fresh memory ------------------------------------------------------- */

static bool is_resident(const void *p)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	unsigned char there;

	cr_assert_eq(
		mincore((void *)((uintptr_t)p & ~(page - 1)), page, &there), 0);
	return there & 1;
}

/* A huge page is cleared before a thread is given it, in a blocking region: on
 * the program's first write no stop could interrupt that. */
Test(heap_system, huge_pages_are_there_before_they_are_written)
{
	for (int thp = 0; thp < 2; thp++) {
		heap_open(thp ? "thp=on" : "thp=off");
		cr_expect_eq(is_resident(weir_alloc(self, 48)), thp);
		cr_expect_eq(is_resident(weir_alloc_leaf(self, 48)), thp);
		cr_expect_eq(is_resident(weir_alloc(self, 20000)), thp);
		cr_expect_eq(is_resident(weir_alloc(self, 1 << 20)), thp);
		heap_close();
	}
}

/* ---- An idle program ---------------------------------------------------- */

struct kind {
	char name[16];
};

static struct kind kinds[] = {
	{"async"}, {"sync"}, {"sigbus"}, {"mprotect"}, {"none"}};

ParameterizedTestParameters(heap_system, an_idle_program_is_not_woken)
{
	return cr_make_param_array(struct kind, kinds, 5);
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

/* No thread polls: what counts is how often any of them ran, and how long,
 * which other programs do not change. */
ParameterizedTest(struct kind *k, heap_system, an_idle_program_is_not_woken)
{
	struct weir_heap_options o = {.size = sizeof(o)};
	struct rusage before, after;
	long times = 1000;
	double used = 1;
	char options[64];
	int err;

#ifdef __SANITIZE_THREAD__
	cr_skip("ThreadSanitizer has a thread that wakes up");
#endif
	snprintf(options, sizeof(options), "heap-min=2m,barrier=%s", k->name);
	o.options = options;
	err = weir_heap_create(&o, &heap);
	if (err == -ENOTSUP)
		cr_skip("%s: %s", k->name, weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	cr_assert_eq(weir_thread_attach(heap, &self), 0);
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned n = 0; n < 100000; n++)
			cr_assert_not_null(weir_alloc(self, 48));
		cr_assert_eq(weir_collect(heap, i % 2), 0);
	}
	while (__atomic_load_n(&heap->phase, __ATOMIC_ACQUIRE) != WG_IDLE)
		usleep(1000);
	usleep(200000);
	/* Half a second of rest is enough: a slow machine is at it yet when
	 * the first begins. */
	for (int i = 0; i < 30 && (times > 10 || used >= 0.02); i++) {
		getrusage(RUSAGE_SELF, &before);
		usleep(500000);
		getrusage(RUSAGE_SELF, &after);
		times = after.ru_nvcsw - before.ru_nvcsw;
		used = seconds(after.ru_utime) + seconds(after.ru_stime) -
		       seconds(before.ru_utime) - seconds(before.ru_stime);
	}
	/* This thread once, and the collector to give memory back, once. */
	cr_assert_leq(times, 10, "%ld times in half a second", times);
	cr_assert_lt(used, 0.02);
	heap_close();
}

/* ---- fork --------------------------------------------------------------- */

static int another_heap(const char *options)
{
	struct weir_heap_options o = {.size = sizeof(o), .options = options};
	void *volatile p;

	if (weir_heap_create(&o, &heap) || weir_thread_attach(heap, &self))
		return 2;
	p = memset(weir_alloc(self, 100000), 7, 100000);
	for (unsigned i = 0; i < 4; i++)
		if (weir_collect(heap, i % 2) || ((char *)p)[99999] != 7)
			return 3;
	return weir_heap_destroy(heap) ? 4 : 0;
}

Test(heap_system, a_child_destroys_its_heap_and_makes_others)
{
	static void *root;
	int status;
	pid_t pid;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("fork with threads: not under this sanitizer");
#endif
	heap_open("verify=on,heap-min=2m");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = weir_alloc(self, 1 << 20);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	pid = fork();
	if (!pid) {
		alarm(60);
		/* At once, with no collector thread of its own yet. */
		status = weir_heap_destroy(heap) ? 1 : another_heap(NULL);
		_exit(status ? status : another_heap("barrier=none,verify=on"));
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "child: %#x", (unsigned)status);
	memset(root, 1, 1 << 20);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	heap_close();
}
