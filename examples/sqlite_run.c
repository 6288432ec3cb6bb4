/* SPDX-License-Identifier: MIT */
/*
 * A measured run; see sqlite_run.h.  Between the stretches lies a pause in
 * which nothing counts, so that what one leaves behind (transactions that are
 * overdue) is not the next one's.
 *
 *   phase      written by the run's thread, read by writers
 *   figures    each writer its own, read when the gate is held
 */
#define _GNU_SOURCE
#include "examples/sqlite_run.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "examples/sqlite_check.h"
#include "examples/wi_hdr.h"

#define PAUSE_NS 300000000u
#define QUICK_NS 50000000u

enum phase { PHASE_NONE, PHASE_BEFORE, PHASE_SAVE, PHASE_NOISE, PHASE_COUNT };

struct figures {
	struct hdr time;  /* of transactions */
	uint64_t own;     /* longest of them, ns, without what it waited for a
			   * processor */
	uint64_t stalled; /* longest wait for the saver, ns */
};

struct writer {
	pthread_t thread;                   /* of it */
	struct runner *runner;              /* whose */
	uint64_t due;                       /* with a rate: the next start */
	int schedstat;                      /* of the thread, or -1 */
	uint64_t period;                    /* between starts; 0: no rate */
	struct figures figure[PHASE_COUNT]; /* by phase; in the gate */
};

struct runner {
	const struct run_options *options; /* of the run */
	struct store store;                /* what is written */
	struct memory memory;              /* how much there is of it */
	int phase;                         /* enum phase; atomic */
	int end;                           /* writers are to return; atomic */
	int failed;                        /* one could not go on; atomic */
	unsigned started;                  /* writers */
	struct writer writer[RUN_WRITERS]; /* of them */
	uint64_t length[PHASE_COUNT];      /* of the stretches, ns */
	uint64_t windows_from;             /* beginning of the first; atomic */
	uint32_t window_us[RUN_WINDOWS];   /* see struct result; atomic */
};

static void sleep_until(uint64_t ns)
{
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u),
			     .tv_nsec = (long)(ns % 1000000000u)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		;
}

/* ---- Writers ------------------------------------------------------------ */

/* How long the thread has waited for a processor so far: what a busy machine
 * adds to a transaction, whoever saves.  0: not known. */
static uint64_t time_waited(const struct writer *w)
{
	char text[96], *second;
	ssize_t n = -1;

	if (w->schedstat >= 0)
		n = pread(w->schedstat, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	second = strchr(text, ' ');
	return second ? strtoull(second, NULL, 10) : 0;
}

static void count(struct figures *f, uint64_t time, uint64_t waited,
		  uint64_t stalled)
{
	uint64_t own = time > waited ? time - waited : 0;

	hdr_add(&f->time, time);
	if (own > f->own)
		f->own = own;
	if (stalled > f->stalled)
		f->stalled = stalled;
}

static void count_window(struct runner *r, uint64_t start, uint64_t time)
{
	/* Relaxed, as all here: read when the gate is held. */
	uint64_t from = __atomic_load_n(&r->windows_from, __ATOMIC_RELAXED);
	uint64_t i = (start - from) / (uint64_t)(RUN_WINDOW_MS * 1e6);
	uint32_t us = time < UINT32_MAX * 1000u ? (uint32_t)(time / 1000)
						: UINT32_MAX;
	uint32_t old;

	if (!from || start < from || i >= RUN_WINDOWS)
		return;
	old = __atomic_load_n(&r->window_us[i], __ATOMIC_RELAXED);
	while (old < us &&
	       !__atomic_compare_exchange_n(&r->window_us[i], &old, us, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* When the next transaction is due.  Without a rate, when the one before it had
 * ended, whatever the processor did since. */
static uint64_t wait_for_start(struct writer *w, int phase)
{
	uint64_t now = store_now(), due;

	if (!w->period)
		return w->due;
	/* Nothing is measured: no debts are carried on. */
	if (phase == PHASE_NONE && w->due < now)
		w->due = now;
	due = w->due;
	w->due += w->period;
	if (due > now)
		sleep_until(due);
	return due;
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	struct runner *r = w->runner;
	uint64_t waited, before;

	w->schedstat =
		open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	before = time_waited(w);
	prctl(PR_SET_TIMERSLACK, 1);
	w->due = store_now();
	for (;;) {
		/* Relaxed: a transaction more or less in a stretch. */
		int from = __atomic_load_n(&r->phase, __ATOMIC_RELAXED), phase;
		uint64_t start = wait_for_start(w, from);
		uint64_t stalled = gate_enter(&r->store.gate, start);
		uint64_t time;

		if (__atomic_load_n(&r->end, __ATOMIC_RELAXED))
			break;
		if (store_transact(&r->store)) {
			__atomic_store_n(&r->failed, 1, __ATOMIC_RELAXED);
			break;
		}
		phase = __atomic_load_n(&r->phase, __ATOMIC_RELAXED);
		if (from == PHASE_SAVE ||
		    (from == PHASE_NONE && phase != PHASE_SAVE))
			phase = from;
		time = store_now() - start;
		waited = time_waited(w);
		count(&w->figure[phase], time, waited - before, stalled);
		count_window(r, start, time);
		before = waited;
		if (!w->period)
			w->due = start + time;
		gate_leave(&r->store.gate);
	}
	gate_leave(&r->store.gate);
	if (w->schedstat >= 0)
		close(w->schedstat);
	return NULL;
}

static int start_writers(struct runner *r)
{
	const struct run_options *o = r->options;

	for (unsigned i = 0; i < o->writers; i++) {
		struct writer *w = &r->writer[i];

		w->runner = r;
		w->period = o->rate ? 1000000000u * o->writers / o->rate : 0;
		if (pthread_create(&w->thread, NULL, writer_main, w))
			return store_complain(NULL, "no thread for a writer");
		r->started++;
	}
	return 0;
}

static void stop_writers(struct runner *r)
{
	__atomic_store_n(&r->end, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < r->started; i++)
		pthread_join(r->writer[i].thread, NULL);
}

/* ---- Stretches ---------------------------------------------------------- */

static uint64_t enter_phase(struct runner *r, int phase)
{
	__atomic_store_n(&r->phase, phase, __ATOMIC_RELAXED);
	return store_now();
}

static void pass_phase(struct runner *r, int phase, uint64_t ns)
{
	uint64_t start = enter_phase(r, phase);

	sleep_until(start + ns);
	r->length[phase] = store_now() - start;
	enter_phase(r, PHASE_NONE);
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

/* The gate is held. */
static void sum_up(struct runner *r, int phase, struct stretch *out)
{
	static struct hdr all;
	uint64_t stalled = 0, own = 0;

	memset(&all, 0, sizeof(all));
	for (unsigned i = 0; i < r->started; i++) {
		struct figures *f = &r->writer[i].figure[phase];

		for (size_t k = 0; k < HDR_BUCKETS; k++)
			all.bucket[k] += f->time.bucket[k];
		all.count += f->time.count;
		if (f->time.max > all.max)
			all.max = f->time.max;
		if (f->own > own)
			own = f->own;
		if (f->stalled > stalled)
			stalled = f->stalled;
		memset(f, 0, sizeof(*f));
	}
	*out = (struct stretch){
		.per_second = (double)all.count * 1e9 /
			      (double)(r->length[phase] ? r->length[phase] : 1),
		.longest_ms = ms(all.max),
		.own_ms = ms(own),
		.p50_ms = ms(hdr_quantile(&all, 0.5)),
		.p99_ms = ms(hdr_quantile(&all, 0.99)),
		.p999_ms = ms(hdr_quantile(&all, 0.999)),
		.stall_ms = ms(stalled),
	};
}

/* A byte of a row's content, in the middle of the file: a page's last. */
static int flip_byte(const char *path, size_t bytes)
{
	off_t at = (off_t)(bytes / STORE_PAGE / 2 * STORE_PAGE - 1);
	int fd = open(path, O_RDWR | O_CLOEXEC), err = -1;
	char byte;

	if (fd >= 0 && pread(fd, &byte, 1, at) == 1) {
		byte ^= 1;
		err = pwrite(fd, &byte, 1, at) == 1 ? 0 : -1;
	}
	if (fd >= 0)
		close(fd);
	return err ? store_complain(NULL, "a byte cannot be changed") : 0;
}

static int look_at_file(struct runner *r, const struct save *v,
			struct result *out)
{
	const struct run_options *o = r->options;

	if (o->flip && flip_byte(v->path, v->moment.bytes))
		return -1;
	out->ok = check_file(v->path, &v->moment, r->store.rows, out->why,
			     sizeof(out->why));
	return 0;
}

static void note(const struct runner *r, const struct save *v,
		 struct result *out)
{
	struct weir_region_info info = {.size = sizeof(info)};
	uint64_t base = r->memory.base, peak = r->memory.peak;

	out->held_ms = ms(v->held_ns);
	out->held_cpu_ms = ms(v->held_cpu_ns);
	out->prepare_ms = ms(v->prepare_ns);
	out->save_ms = ms(v->total_ns);
	out->write_ms = ms(v->copied_ns);
	out->memory_mib = mib(peak > base ? peak - base : 0);
	out->pool_mib = mib(v->figures.pool_bytes);
	out->pool_peak_mib = mib(v->figures.pool_peak);
	out->faults = v->figures.faults;
	out->kept = v->figures.kept;
	out->hot = v->figures.hot;
	out->waits = v->figures.waits;
	out->transactions = v->moment.last;
	out->bytes = v->moment.bytes;
	if (r->store.region && !weir_region_info(r->store.region, &info))
		strcpy(out->barrier,
		       info.barrier == WEIR_REGION_SIGBUS ? "sigbus" : "sync");
}

static void first_window(struct runner *r)
{
	gate_hold(&r->store.gate);
	memset(r->window_us, 0, sizeof(r->window_us));
	__atomic_store_n(&r->windows_from, store_now(), __ATOMIC_RELAXED);
	gate_release(&r->store.gate);
}

static int run_round(struct runner *r, struct result *out)
{
	const struct run_options *o = r->options;
	struct save v = o->save;
	int err;

	v.store = &r->store;
	v.memory = &r->memory;
	v.method = o->method;
	v.path = o->path;
	if (!o->quick)
		pass_phase(r, PHASE_NONE, PAUSE_NS);
	first_window(r);
	pass_phase(r, PHASE_BEFORE,
		   o->quick ? QUICK_NS : (uint64_t)(o->seconds * 1e9));
	memory_base(&r->memory);
	r->length[PHASE_SAVE] = enter_phase(r, PHASE_SAVE);
	out->save_at_ms = ms(r->length[PHASE_SAVE] - r->windows_from);
	err = save_run(&v);
	r->length[PHASE_SAVE] = store_now() - r->length[PHASE_SAVE];
	enter_phase(r, PHASE_NONE);
	note(r, &v, out);
	if (err)
		return err;
	if (!o->quick) {
		pass_phase(r, PHASE_NONE, PAUSE_NS);
		pass_phase(r, PHASE_NOISE, r->length[PHASE_SAVE]);
	}
	gate_hold(&r->store.gate);
	sum_up(r, PHASE_BEFORE, &out->before);
	sum_up(r, PHASE_SAVE, &out->save);
	sum_up(r, PHASE_NOISE, &out->noise);
	memcpy(out->window_us, r->window_us, sizeof(out->window_us));
	err = look_at_file(r, &v, out);
	gate_release(&r->store.gate);
	return err;
}

int run(const struct run_options *o, struct result *results)
{
	struct runner *r = calloc(1, sizeof(*r));
	int err = r ? 0 : store_complain(NULL, "no memory");

	memset(results, 0, o->rounds * sizeof(*results));
	if (err)
		return err;
	r->options = o;
	err = store_open(&r->store, &o->store);
	if (!err)
		err = memory_start(&r->memory, o->no_memory);
	if (!err) {
		err = start_writers(r);
		for (unsigned i = 0; i < o->rounds && !err; i++) {
			err = run_round(r, &results[i]);
			if (__atomic_load_n(&r->failed, __ATOMIC_RELAXED))
				err = -1;
		}
		stop_writers(r);
		memory_stop(&r->memory);
	}
	store_close(&r->store);
	free(r);
	if (!o->keep)
		unlink(o->path);
	return err ? -1 : 0;
}
