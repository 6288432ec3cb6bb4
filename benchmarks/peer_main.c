/* SPDX-License-Identifier: MIT */
/*
 * The program of each peer: bench-PEER [switches] WORKLOAD [--name value...]
 *
 * Prints one line of JSON with the results on standard output.  Exit status:
 * 0 done; 2 it could not be run as asked; 3 the collector never ran in the
 * measured phase, so that nothing was measured; 4 the collector ran though
 * it was to be idle.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "benchmarks/bench.h"

static const struct bench_workload *const workloads[] = {
	&bench_gcbench,       &bench_binary_trees, &bench_mt_trees,
	&bench_graph_latency, &bench_churn,        &bench_write_storm,
};
#define WORKLOADS (sizeof(workloads) / sizeof(workloads[0]))

static uint64_t process_cpu_at_begin;
static uint64_t mutators_cpu_at_begin;
static uint64_t process_cpu_of_phase;
static uint64_t mutators_cpu_of_phase;
static struct bench_account phase, whole;

/* CPU time of the mutators that ended. */
static uint64_t ended_cpu_ns;

void bench_die(const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "bench-%s: ", bench_peer_name);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	fflush(stderr);
	_exit(2);
}

void bench_out_of_memory(void)
{
	bench_die("out of memory");
}

static uint64_t cpu_clock(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t bench_thread_cpu_ns(void)
{
	return cpu_clock(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t bench_process_cpu_ns(void)
{
	return cpu_clock(CLOCK_PROCESS_CPUTIME_ID);
}

/* Relaxed: pthread_join() orders an ended mutator's addition before this. */
uint64_t bench_mutators_cpu_ns(void)
{
	return bench_thread_cpu_ns() +
	       __atomic_load_n(&ended_cpu_ns, __ATOMIC_RELAXED);
}

void bench_mutator_ends(void)
{
	__atomic_fetch_add(&ended_cpu_ns, bench_thread_cpu_ns(),
			   __ATOMIC_RELAXED);
}

const char *bench_text(const struct bench_run *run, const char *name)
{
	const struct bench_option *o;

	for (o = run->option; o->name; o++) {
		if (!strcmp(o->name, name))
			return o->value;
	}
	bench_die("no parameter --%s", name);
}

uint64_t bench_number(const struct bench_run *run, const char *name)
{
	const char *text = bench_text(run, name);
	unsigned long long n;
	char *end;

	n = strtoull(text, &end, 10);
	switch (*end) {
	case 'g':
		n <<= 10; /* fall through */
	case 'm':
		n <<= 10; /* fall through */
	case 'k':
		n <<= 10;
		end++;
		break;
	default:
		break;
	}
	if (!isdigit((unsigned char)text[0]) || *end)
		bench_die("--%s: \"%s\" is not a number", name, text);
	return n;
}

static uint64_t process_start_ns;

void bench_begin(struct bench_run *run)
{
	bench_peer_mark();
	mutators_cpu_at_begin = bench_mutators_cpu_ns();
	process_cpu_at_begin = bench_process_cpu_ns();
	run->begin_ns = bench_now();
	run->setup_ns = run->begin_ns - process_start_ns;
	run->meter.last = run->begin_ns;
}

void bench_end(struct bench_run *run)
{
	run->wall_ns = bench_now() - run->begin_ns;
	process_cpu_of_phase = bench_process_cpu_ns() - process_cpu_at_begin;
	mutators_cpu_of_phase = bench_mutators_cpu_ns() - mutators_cpu_at_begin;
	bench_peer_account(&phase, &whole);
}

/* The highest resident set of this process so far, in bytes. */
static uint64_t peak_rss(void)
{
	char line[256];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	if (!f)
		bench_die("cannot read /proc/self/status");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "VmHWM: %llu", &kib) == 1)
			break;
	}
	fclose(f);
	if (!kib)
		bench_die("no VmHWM in /proc/self/status");
	return kib << 10;
}

static void print_u64(const char *key, uint64_t value)
{
	printf(",\"%s\":%llu", key, (unsigned long long)value);
}

static void print_s(const char *key, uint64_t ns)
{
	printf(",\"%s\":%.6f", key, (double)ns / 1e9);
}

static void print_quantiles(const struct bench_run *run)
{
	const struct bench_histogram *h = run->meter.latency;

	if (!run->has_latency) {
		printf(",\"p50_ns\":null,\"p99_ns\":null,\"p999_ns\":null,"
		       "\"max_ns\":null");
	} else {
		print_u64("p50_ns", bench_histogram_quantile(h, 0.50));
		print_u64("p99_ns", bench_histogram_quantile(h, 0.99));
		print_u64("p999_ns", bench_histogram_quantile(h, 0.999));
		print_u64("max_ns", h->max);
	}
	print_u64("gap_p50_ns", bench_histogram_quantile(run->meter.gap, 0.5));
	print_u64("gap_p999_ns",
		  bench_histogram_quantile(run->meter.gap, 0.999));
	print_u64("stall_max_ns", bench_meter_stall(&run->meter));
	if (run->wall_ns < BENCH_MMU_WINDOW_NS ||
	    bench_meter_mmu(&run->meter) < 0)
		printf(",\"mmu10\":null");
	else
		printf(",\"mmu10\":%.4f", bench_meter_mmu(&run->meter));
}

static void print_account(const struct bench_run *run)
{
	print_u64("cycles", phase.cycles);
	print_u64("cycles_minor", phase.cycles_minor);
	print_u64("cycles_stopped", phase.cycles_stopped);
	print_u64("cycles_all", whole.cycles);
	if (phase.has_pauses) {
		print_u64("pauses", phase.pauses);
		print_u64("pause_total_ns", phase.pause_total_ns);
		print_u64("pause_max_ns", phase.pause_max_ns);
		print_u64("pause_max_all_ns", whole.pause_max_ns);
		print_u64("assist_max_ns", phase.assist_max_ns);
		print_u64("handshake_max_ns", phase.handshake_max_ns);
		/* What the collector does not know of, or hides. */
		printf(",\"stall_over_pause_ns\":%lld",
		       (long long)bench_meter_stall(&run->meter) -
			       (long long)phase.pause_max_ns);
		print_u64("heap_bytes", phase.heap_bytes);
		printf(",\"detail\":\"%s\"", phase.detail);
	} else {
		printf(",\"pauses\":null,\"pause_total_ns\":null,"
		       "\"pause_max_ns\":null,\"pause_max_all_ns\":null,"
		       "\"assist_max_ns\":null,\"handshake_max_ns\":null,"
		       "\"stall_over_pause_ns\":null,"
		       "\"heap_bytes\":null,\"detail\":\"\"");
	}
}

static void print_result(const struct bench_workload *w,
			 const struct bench_run *run)
{
	const struct bench_option *o;
	double wall = (double)run->wall_ns / 1e9;

	printf("{\"workload\":\"%s\",\"peer\":\"%s\",\"version\":\"%s\","
	       "\"params\":\"",
	       w->name, bench_peer_name, bench_peer_version());
	for (o = run->option; o->name; o++)
		printf("%s%s=%s", o == run->option ? "" : " ", o->name,
		       o->value);
	printf("\",\"idle\":%s", run->idle ? "true" : "false");
	print_s("setup_s", run->setup_ns);
	print_s("wall_s", run->wall_ns);
	print_u64("ops", run->ops);
	printf(",\"throughput\":%.3f", wall > 0 ? (double)run->ops / wall : 0);
	print_quantiles(run);
	print_u64("peak_rss", peak_rss());
	print_u64("live_bytes", run->live_bytes);
	print_s("cpu_s", process_cpu_of_phase);
	print_s("mutator_cpu_s", mutators_cpu_of_phase);
	print_s("collector_cpu_s", phase.collector_cpu_ns);
	print_account(run);
	printf(",\"checksum\":\"%016llx\"}\n",
	       (unsigned long long)run->checksum);
	if (fflush(stdout))
		bench_die("cannot write the result");
}

static void usage(FILE *f)
{
	const struct bench_option *o;
	size_t i;

	fprintf(f,
		"usage: bench-%s [switch...] WORKLOAD [--name value...]\n\n"
		"Runs one workload and prints one line of JSON.\n\n"
		"  --idle          no collection may run\n"
		"  --single        libgc: threads are not enabled\n"
		"  --no-interior   libgc: references in the heap are to the "
		"start of objects\n"
		"  --options TEXT  weir: options of the heap\n",
		bench_peer_name);
	for (i = 0; i < WORKLOADS; i++) {
		fprintf(f, "\n%-14s %s\n", workloads[i]->name,
			workloads[i]->about);
		for (o = workloads[i]->option; o->name; o++)
			fprintf(f, "  --%-12s %s (%s)\n", o->name, o->help,
				o->value);
	}
}

static void parse_params(const struct bench_workload *w, int argc, char **argv)
{
	struct bench_option *o;
	int i;

	for (i = 0; i < argc; i += 2) {
		for (o = w->option; o->name; o++) {
			if (!strncmp(argv[i], "--", 2) &&
			    !strcmp(argv[i] + 2, o->name))
				break;
		}
		if (!o->name)
			bench_die("%s has no parameter \"%s\"", w->name,
				  argv[i]);
		if (i + 1 == argc)
			bench_die("%s wants a value", argv[i]);
		o->value = argv[i + 1];
	}
}

/* Consume the switches.  Returns the index of the workload's name. */
static int parse_switches(int argc, char **argv, struct bench_setup *setup)
{
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--idle")) {
			setup->idle = true;
		} else if (!strcmp(argv[i], "--single")) {
			setup->single = true;
		} else if (!strcmp(argv[i], "--no-interior")) {
			setup->no_interior = true;
		} else if (!strcmp(argv[i], "--options") && i + 1 < argc) {
			setup->options = argv[++i];
		} else if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			exit(0);
		} else {
			usage(stderr);
			bench_die("unknown switch \"%s\"", argv[i]);
		}
	}
	if (i == argc) {
		usage(stderr);
		bench_die("no workload was named");
	}
	return i;
}

int main(int argc, char **argv)
{
	const struct bench_workload *w = NULL;
	struct bench_setup setup = {0};
	struct bench_run run = {0};
	size_t i;
	int arg;

	process_start_ns = bench_now();
	arg = parse_switches(argc, argv, &setup);
	for (i = 0; i < WORKLOADS; i++) {
		if (!strcmp(argv[arg], workloads[i]->name))
			w = workloads[i];
	}
	if (!w)
		bench_die("unknown workload \"%s\"", argv[arg]);
	parse_params(w, argc - arg - 1, argv + arg + 1);
	run.option = w->option;
	run.idle = setup.idle;
	run.mutator = bench_peer_start(&setup);
	w->run(&run);
	print_result(w, &run);
	if (BENCH_COLLECTS && !run.idle && !run.may_not_collect &&
	    phase.cycles == 0) {
		fprintf(stderr,
			"bench-%s: %s: the collector never ran: nothing was "
			"measured; give larger parameters\n",
			bench_peer_name, w->name);
		return 3;
	}
	if (run.idle && (phase.cycles || whole.cycles > 1)) {
		fprintf(stderr,
			"bench-%s: %s: %llu cycles ran though the collector "
			"was to be idle\n",
			bench_peer_name, w->name,
			(unsigned long long)whole.cycles);
		return 4;
	}
	return 0;
}
