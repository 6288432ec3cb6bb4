/* SPDX-License-Identifier: MIT */
/*
 * bench-snapshot's methods: weir, and fork() as it is done everywhere.
 *
 * Both stop the writers at the same gate, hand pages to the same sink in the
 * same chunks, and count as begun from the moment when the writers are quiet
 * to that when they are let go.
 *
 * fork: the child hands over the last page, says so, and waits until the parent
 * has looked at how much memory the two have; then it ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <weir/snapshot.h>

#include "benchmarks/snapshot_bench.h"

#define HUGE ((size_t)2 << 20)

static weir_region *region;

bool snap_method_is_fork(void)
{
	return !strcmp(snap_want.method, "fork");
}

bool snap_method_is_end(void)
{
	return !strcmp(snap_want.method, "end");
}

static char *plain_memory(void)
{
	char *p = mmap(NULL, snap_want.size + HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		bench_die("no memory: %s", strerror(errno));
	p += -(uintptr_t)p & (HUGE - 1);
	if (madvise(p, snap_want.size,
		    snap_want.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		bench_die("madvise: %s", strerror(errno));
	return p;
}

static char *weir_memory(void)
{
	struct weir_region_options o = {.size = sizeof(o), .name = "bench"};
	struct weir_region_info info = {.size = sizeof(info)};

	o.flags = snap_want.huge ? WEIR_REGION_HUGE : 0;
	if (!strcmp(snap_want.method, "sync")) {
		o.barrier = WEIR_REGION_SYNC;
	} else if (!strcmp(snap_want.method, "sigbus")) {
		o.barrier = WEIR_REGION_SIGBUS;
		o.flags |= WEIR_REGION_USER_WRITES;
	} else if (snap_method_is_end()) {
		o.barrier = WEIR_REGION_ASYNC;
	} else {
		/* The writers are no system calls. */
		o.flags |= WEIR_REGION_USER_WRITES;
	}
	if (weir_region_reserve(snap_want.size, 0, &o, &region) ||
	    weir_region_info(region, &info))
		bench_die("region: %s", weir_error_text());
	return info.address;
}

static char *memory;

char *snap_method_memory(void)
{
	memory = snap_method_is_fork() ? plain_memory() : weir_memory();
	return memory;
}

uint64_t snap_cpu(bool process)
{
	struct timespec t;

	clock_gettime(process ? CLOCK_PROCESS_CPUTIME_ID
			      : CLOCK_THREAD_CPUTIME_ID,
		      &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void be_nice(void)
{
	if (setpriority(PRIO_PROCESS, 0, (int)snap_want.saver_nice))
		bench_die("setpriority: %s", strerror(errno));
}

/* ---- weir ---------------------------------------------------------------- */

/* What the callbacks have. */
struct weir_run {
	struct snap_sink *sink;     /* where pages go */
	struct snap_result *result; /* figures */
	uint64_t cpu_ns;            /* of this thread, at the last border */
	uint64_t save_cpu_ns;       /* of the process, at the moment */
};

static int on_stop(void *arg)
{
	struct weir_run *run = arg;

	if (!snap_method_is_end()) {
		run->result->prepare_cpu_ns = snap_cpu(false) - run->cpu_ns;
		snap_phase_set(SNAP_SAVE);
	}
	snap_writers_stop();
	if (!snap_method_is_end())
		run->save_cpu_ns = snap_cpu(true);
	run->cpu_ns = snap_cpu(false);
	return 0;
}

static void on_resume(void *arg)
{
	struct weir_run *run = arg;

	run->result->begin_cpu_ns = snap_cpu(false) - run->cpu_ns;
	snap_writers_resume();
}

/* The sink has all. */
static void is_saved(struct weir_run *run)
{
	snap_phase_set(SNAP_AFTER);
	run->result->save_cpu_ns = snap_cpu(true) - run->save_cpu_ns;
	snap_memory_add(&run->result->full, getpid());
}

static int on_pages(void *arg, const struct weir_snapshot_run *runs,
		    size_t count)
{
	struct weir_run *run = arg;
	size_t i;
	int err = 0;

	for (i = 0; i < count && !err; i++)
		err = snap_sink_take(run->sink, runs[i].offset, runs[i].data,
				     runs[i].bytes);
	if (run->sink->end_ns && !run->result->full.anonymous)
		is_saved(run);
	return err;
}

static const char *barrier_name(void)
{
	static const char *const names[] = {"auto", "sync", "sigbus", "async"};
	struct weir_region_info info = {.size = sizeof(info)};

	if (weir_region_info(region, &info))
		bench_die("region: %s", weir_error_text());
	return names[info.barrier];
}

static void take_figures(const weir_snapshot *s, struct snap_result *r)
{
	struct weir_snapshot_progress p = {.size = sizeof(p)};

	if (weir_snapshot_progress(s, &p))
		bench_die("progress: %s", weir_error_text());
	r->stop_ns = p.stop_ns;
	r->begin_ns = p.begin_ns;
	r->faults = p.faults;
	r->kept = p.kept;
	r->hot = p.hot;
	r->hot_protected = p.hot_protected;
	r->waits = p.waits;
	r->again = p.bytes_again;
	r->pool_peak = p.pool_peak;
}

static void run_weir(struct snap_sink *sink, struct snap_result *result)
{
	struct weir_run run = {.sink = sink, .result = result};
	struct weir_snapshot_options o = {.size = sizeof(o),
					  .pool = snap_want.pool,
					  .stop = on_stop,
					  .resume = on_resume,
					  .stop_arg = &run};
	struct timespec gap = {
		.tv_sec = (time_t)(snap_want.gap_ms / 1000),
		.tv_nsec = (long)(snap_want.gap_ms % 1000 * 1000000)};
	weir_snapshot *s;

	if (snap_method_is_end())
		o.kind = WEIR_SNAPSHOT_END;
	if (weir_snapshot_create(&region, 1, &o, &s))
		bench_die("snapshot: %s", weir_error_text());
	snap_phase_set(SNAP_PREPARE);
	run.cpu_ns = snap_cpu(false);
	if (weir_snapshot_prepare(s, 0))
		bench_die("prepare: %s", weir_error_text());
	nanosleep(&gap, NULL);
	if (weir_snapshot_begin(s))
		bench_die("begin: %s", weir_error_text());
	if (snap_method_is_end()) {
		snap_phase_set(SNAP_SAVE);
		run.save_cpu_ns = snap_cpu(true);
	}
	if (weir_snapshot_read(s, on_pages, &run))
		bench_die("read: %s", weir_error_text());
	if (snap_method_is_end()) {
		snap_sink_end(sink);
		is_saved(&run);
	}
	result->barrier = barrier_name();
	result->prepare_ns =
		snap_phase_ns[SNAP_SAVE] - snap_phase_ns[SNAP_PREPARE];
	take_figures(s, result);
	if (weir_snapshot_end(s))
		bench_die("end: %s", weir_error_text());
}

/* ---- fork ---------------------------------------------------------------- */

static uint64_t faults_so_far(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return (uint64_t)use.ru_minflt;
}

static void __attribute__((noreturn))
be_child(struct snap_sink *sink, int done, int go)
{
	uint64_t at;
	char byte = 0;

	be_nice();
	for (at = 0; at < snap_want.size; at += SNAP_CHUNK) {
		if (snap_sink_take(sink, at, memory + at, SNAP_CHUNK))
			_exit(1);
	}
	if (write(done, &byte, 1) != 1 || read(go, &byte, 1) != 1)
		_exit(1);
	_exit(0);
}

static void run_fork(struct snap_sink *sink, struct snap_result *result)
{
	uint64_t called, quiet, forked, faults, cpu, all;
	int done[2], go[2], status;
	char byte = 0;
	pid_t pid;

	if (pipe(done) || pipe(go))
		bench_die("pipe: %s", strerror(errno));
	snap_phase_set(SNAP_SAVE);
	called = snap_phase_ns[SNAP_SAVE];
	snap_writers_stop();
	cpu = snap_cpu(false);
	all = snap_cpu(true);
	quiet = bench_now();
	pid = fork();
	if (pid == 0)
		be_child(sink, done[1], go[0]);
	forked = bench_now();
	result->begin_cpu_ns = snap_cpu(false) - cpu;
	faults = faults_so_far();
	snap_writers_resume();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	close(done[1]);
	close(go[0]);
	if (read(done[0], &byte, 1) != 1)
		bench_die("fork's child could not write the image: %s",
			  strerror(sink->error));
	snap_phase_set(SNAP_AFTER);
	result->faults = faults_so_far() - faults;
	result->save_cpu_ns = snap_cpu(true) - all + sink->cpu_ns;
	snap_memory_add(&result->full, getpid());
	snap_memory_add(&result->full, pid);
	if (write(go[1], &byte, 1) != 1 || waitpid(pid, &status, 0) != pid ||
	    status)
		bench_die("fork's child did not end as it should");
	result->barrier = "fork";
	result->stop_ns = quiet - called;
	result->begin_ns = forked - quiet;
	result->kept = result->faults;
}

void snap_method_run(struct snap_sink *sink, struct snap_result *result)
{
	if (snap_method_is_fork()) {
		run_fork(sink, result);
	} else {
		be_nice();
		run_weir(sink, result);
	}
}
