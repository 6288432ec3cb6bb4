/* SPDX-License-Identifier: MIT */
/*
 * torture: threads that mutate self-checking object graphs at random, in
 * every way in which the collector could lose an object, and find out.
 *
 *   torture [--seconds N] [--seed S] [--threads T] [--live SIZE]
 *           [--barrier X] [--options "k=v,..."]
 *           [--only f,...] [--without f,...] [--list]
 *
 * A seed replays the decisions of each thread and the heap's options; how the
 * threads interleave is the system's.  On failure the reason and the command
 * go to standard error and the exit status is 1; a fault in the library ends
 * the process by a signal, after the command was printed.  Status 77: the back
 * end is not to be had here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/torture/torture.h"

struct config cfg = {.seed = 1, .threads = 4, .seconds = 5, .live = 32 << 20};
weir_heap *heap;
bool in_child;
unsigned forked_worker;
uint64_t deadline;

struct worker *workers;
__thread struct worker *self;
static const char *const feature_name[F_COUNT] = {
#define X(name, help) [F_##name] = #name,
	FEATURES(X)
#undef X
};

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool over(void)
{
	return now_ns() >= __atomic_load_n(&deadline, __ATOMIC_RELAXED);
}

/* ---- Reports ------------------------------------------------------------ */

static void say(const char *text, size_t n)
{
	/* No stdio: a thread could be stopped with its lock. */
	while (n) {
		ssize_t put = write(STDERR_FILENO, text, n);

		if (put <= 0)
			return;
		text += put;
		n -= (size_t)put;
	}
}

static void say_where(struct worker *w)
{
	char text[2048];
	int n = snprintf(
		text, sizeof(text),
		"torture: in %s, thread %d, step %llu, %s\ntorture: heap "
		"options: %s\ntorture: replay: %s\n",
		in_child ? "the child of a fork" : "the program",
		w ? (int)w->index : -1, (unsigned long long)(w ? w->beat : 0),
		w ? w->action : "start", cfg.heap_options, cfg.command);

	say(text, n < (int)sizeof(text) ? (size_t)n : sizeof(text));
}

void fail(struct worker *w, const char *format, ...)
{
	static int first;
	char text[1024] = "torture: FAILED: ";
	size_t n = strlen(text);
	va_list ap;

	/* One report is enough. */
	if (__atomic_exchange_n(&first, 1, __ATOMIC_RELAXED))
		for (;;)
			pause();
	va_start(ap, format);
	vsnprintf(text + n, sizeof(text) - n - 1, format, ap);
	va_end(ap);
	n = strlen(text);
	text[n++] = '\n';
	say(text, n);
	say_where(w);
	if (getenv("TORTURE_ABORT"))
		abort();
	_exit(1);
}

/* A crash, in the library or here: tell how to get it again. */
static void on_crash(int sig, siginfo_t *info, void *context)
{
	char text[128];
	int n = snprintf(text, sizeof(text),
			 "torture: FAILED: signal %d, address %p\n", sig,
			 info->si_addr);

	(void)context;
	say(text, (size_t)n);
	say_where(self);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void catch_crashes(void)
{
	static const int all[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
	struct sigaction sa = {.sa_sigaction = on_crash,
			       .sa_flags = SA_SIGINFO};

	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		sigaction(all[i], &sa, NULL);
}

/* ---- Threads ------------------------------------------------------------ */

void worker_init(struct worker *w, unsigned index, uint64_t stream)
{
	memset(w, 0, sizeof(*w));
	w->index = index;
	w->rng[0] = mix(stream ^ mix(index));
	w->rng[1] = mix(w->rng[0] ^ cfg.seed) | 1;
	w->action = "start";
}

void worker_step(struct worker *w)
{
	uint64_t r = below(w, 1024);

	weir_safepoint(w->m);
	w->beat++;
	w->n.steps++;
	if (w->shrink) {
		w->shrink = false;
		w->action = "shrink";
		bank_shrink(w);
	}
	if (r < 96 && cfg.on[F_share]) {
		w->action = "share";
		share_step(w);
	} else if (r < 160 && cfg.on[F_root]) {
		w->action = "root";
		root_step(w);
	} else if (r < 288 && w->watch) {
		w->action = "watch";
		watch_step(w);
	} else if (r < 320 && w->beside) {
		w->action = "beside";
		beside_step(w);
	} else if (r < 352 && cfg.on[F_read]) {
		w->action = "read";
		read_step(w);
	} else if (r < 356 && cfg.on[F_block]) {
		w->action = "block";
		block_step(w);
	} else if (r < 357 && one_in(w, 4)) {
		w->action = "collect";
		collect_step(w);
	} else if (r < 358 && cfg.on[F_fork]) {
		w->action = "fork";
		fork_step(w);
	} else if (r < 359 && one_in(w, 32)) {
		w->action = "audit";
		bank_audit(w);
	} else {
		w->action = "bank";
		bank_step(w);
	}
}

void worker_final_check(struct worker *w)
{
	w->action = "final check";
	bank_audit(w);
	if (cfg.on[F_root])
		roots_check(w);
	if (w->watch)
		watch_audit(w);
	if (w->beside)
		beside_audit(w);
}

static __attribute__((noinline)) void work(struct worker *w)
{
	void *volatile anchor[4] = {0};
	int err;

	w->anchor = anchor;
	err = weir_thread_attach(heap, &w->m);
	if (err)
		fail(w, "weir_thread_attach: error %d, %s", -err,
		     weir_error_text());
	outside_enter(w);
	if (cfg.on[F_root])
		roots_init(w);
	while (!bank_create(w, cfg.live / cfg.threads))
		if (over())
			fail(w, "no memory for a bank");
	if (cfg.on[F_weak] || cfg.on[F_final] || cfg.on[F_ephemeron])
		while (!watch_create(w))
			if (over())
				fail(w, "no memory for the holder");
	while (cfg.on[F_beside] && !beside_create(w))
		if (over())
			fail(w, "no memory for an object that leads outside");
	while (!over())
		worker_step(w);
	worker_final_check(w);
	beside_destroy(w);
	watch_destroy(w);
	bank_destroy(w);
	if (cfg.on[F_root])
		roots_fini(w);
	outside_leave(w);
	w->action = "end";
	err = weir_thread_detach(w->m);
	if (err)
		fail(w, "weir_thread_detach: error %d, %s", -err,
		     weir_error_text());
}

static void *worker_main(void *arg)
{
	self = arg;
	work(arg);
	return NULL;
}

/* A slow machine gets up to four times as long to come to all features. */
static void prolong(const struct worker *pest, uint64_t began)
{
	uint64_t ns = (uint64_t)(cfg.seconds * 1e9), now = now_ns();

	if (cfg.seconds >= 2 && now + ns / 2 > deadline &&
	    now - began < 3 * ns && features_are_missing(pest))
		__atomic_store_n(&deadline, now + ns, __ATOMIC_RELAXED);
}

/* Meanwhile the main thread, not attached, makes trouble from outside. */
static void pest(void)
{
	uint64_t began = now_ns();
	struct worker w;

	worker_init(&w, MAX_WORKERS + 1, cfg.seed);
	self = &w;
	while (!over()) {
		struct timespec t = {0, 1000l * (long)(1 + below(&w, 8000))};
		struct weir_stats st = {.size = sizeof(st)};

		w.beat++;
		prolong(&w, began);
		nanosleep(&t, NULL);
		w.action = "pest: signal";
		if (cfg.on[F_signal])
			for (uint64_t i = below(&w, 8); i; i--)
				pest_signal(&w,
					    &workers[below(&w, cfg.threads)]);
		w.action = "pest: collect";
		if (one_in(&w, 8))
			collect_step(&w);
		w.action = "pest: churn";
		if (cfg.on[F_churn] && one_in(&w, 8))
			churn_step(&w);
		w.action = "pest: snapshot";
		if (cfg.on[F_snapshot] && one_in(&w, 16))
			dump_step(&w);
		w.action = "pest: stats";
		if (one_in(&w, 8) && weir_heap_stats(heap, &st))
			fail(&w, "weir_heap_stats: %s", weir_error_text());
	}
	workers[0].n.collects += w.n.collects;
	workers[0].n.threads += w.n.threads;
	workers[0].n.signals += w.n.signals;
	workers[0].n.snapshots += w.n.snapshots;
	workers[0].n.checks += w.n.checks;
	self = NULL;
}

/* ---- Main --------------------------------------------------------------- */

static void set_features(const char *list, bool on)
{
	char *copy = strdup(list), *rest = NULL;

	for (char *t = strtok_r(copy, ",", &rest); t;
	     t = strtok_r(NULL, ",", &rest)) {
		unsigned i;

		for (i = 0; i < F_COUNT && strcmp(feature_name[i], t); i++)
			;
		if (i == F_COUNT) {
			fprintf(stderr, "torture: no feature %s (--list)\n", t);
			exit(2);
		}
		cfg.on[i] = on;
	}
	free(copy);
}

static size_t parse_size(const char *s)
{
	char *end;
	double v = strtod(s, &end);

	switch (*end) {
	case 'g':
		return (size_t)(v * 1073741824);
	case 'm':
		return (size_t)(v * 1048576);
	case 'k':
		return (size_t)(v * 1024);
	default:
		return (size_t)v;
	}
}

static void usage(int status)
{
	printf("usage: torture [--seconds N] [--seed S] [--threads T] [--live "
	       "SIZE]\n"
	       "               [--barrier X] [--options \"k=v,...\"] [--only "
	       "f,...] [--without f,...]\n"
	       "features:\n");
#define X(name, help) printf("  %-10s %s\n", #name, help);
	FEATURES(X)
#undef X
	exit(status);
}

/* Whether a userfaultfd for faults in the kernel is to be had. */
static bool kernel_faults(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 's'},
		{"seed", required_argument, NULL, 'S'},
		{"threads", required_argument, NULL, 't'},
		{"live", required_argument, NULL, 'l'},
		{"barrier", required_argument, NULL, 'b'},
		{"options", required_argument, NULL, 'o'},
		{"only", required_argument, NULL, 'y'},
		{"without", required_argument, NULL, 'n'},
		{"list", no_argument, NULL, 'L'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	size_t n = 0;
	int c;

	for (int i = 0; i < argc && n < sizeof(cfg.command); i++)
		n += (size_t)snprintf(
			cfg.command + n, sizeof(cfg.command) - n,
			strchr(argv[i], ' ') || !*argv[i] ? "'%s' " : "%s ",
			argv[i]);
	for (unsigned i = 0; i < F_COUNT; i++)
		cfg.on[i] = true;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 's':
			cfg.seconds = strtod(optarg, NULL);
			break;
		case 'S':
			cfg.seed = strtoull(optarg, NULL, 0);
			break;
		case 't':
			cfg.threads = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'l':
			cfg.live = parse_size(optarg);
			break;
		case 'b':
			cfg.barrier = optarg;
			break;
		case 'o':
			cfg.options = optarg;
			break;
		case 'y':
			memset(cfg.on, 0, sizeof(cfg.on));
			set_features(optarg, true);
			break;
		case 'n':
			set_features(optarg, false);
			break;
		case 'L':
		case 'h':
			usage(0);
			break;
		default:
			usage(2);
		}
	}
	if (optind < argc || !cfg.threads || cfg.threads > MAX_WORKERS ||
	    cfg.live < 65536 || cfg.seconds <= 0)
		usage(2);
	/* System calls into protected pages fail there, by design: in sync
	 * too, if the descriptor serves user mode only. */
	if (cfg.barrier && (!strcmp(cfg.barrier, "sigbus") ||
			    !strcmp(cfg.barrier, "mprotect") ||
			    (!strcmp(cfg.barrier, "sync") && !kernel_faults())))
		cfg.on[F_read] = false;
}

int main(int argc, char **argv)
{
	uint64_t began = now_ns();
	pthread_t watchdog;
	bool done = false;
	int err;

	parse(argc, argv);
	catch_crashes();
	choose_options();
	outside_init();
	create_heap();
	workers = calloc(cfg.threads, sizeof(*workers));
	if (!workers)
		fail(NULL, "no memory");
	__atomic_store_n(&deadline, now_ns() + (uint64_t)(cfg.seconds * 1e9),
			 __ATOMIC_RELAXED);
	for (unsigned i = 0; i < cfg.threads; i++) {
		worker_init(&workers[i], i, cfg.seed);
		if (pthread_create(&workers[i].thread, NULL, worker_main,
				   &workers[i]))
			fail(NULL, "pthread_create: %s", strerror(errno));
	}
	if (pthread_create(&watchdog, NULL, watchdog_main, &done))
		fail(NULL, "pthread_create: %s", strerror(errno));
	pest();
	for (unsigned i = 0; i < cfg.threads; i++)
		pthread_join(workers[i].thread, NULL);
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	pthread_join(watchdog, NULL);
	outside_fini();
	if (weir_collect(heap, WEIR_COLLECT_FULL))
		fail(NULL, "weir_collect: %s", weir_error_text());
	run_report(began);
	err = weir_heap_destroy(heap);
	if (err)
		fail(NULL, "weir_heap_destroy: error %d, %s", -err,
		     weir_error_text());
	printf("torture: passed\n");
	return 0;
}
