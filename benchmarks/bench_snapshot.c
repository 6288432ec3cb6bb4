/* SPDX-License-Identifier: MIT */
/*
 * bench-snapshot: the command line, the course of a run and its record.  See
 * snapshot_bench.h.  Prints one line of JSON; exits with 0 only if the image
 * was right, 1 if it was wrong, 2 if the run could not be made.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "benchmarks/snapshot_bench.h"

struct snap_want snap_want = {.method = "weir",
			      .size = 1ull << 30,
			      .writers = 1,
			      .rate = 100000,
			      .store = 8,
			      .before_ms = 1000,
			      .pool = 64u << 20};

void bench_die(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "bench-snapshot: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(2);
}

/* ---- The command line ---------------------------------------------------- */

static void usage(FILE *f)
{
	fprintf(f,
		"usage: bench-snapshot [snapshot] [--parameter value...]\n"
		"\n"
		"One snapshot of memory that threads write to.\n"
		"\n"
		"  --method M       weir (the best barrier that may be had), "
		"sync, sigbus, fork;\n"
		"                   end: consistent at the end of the save, "
		"async\n"
		"  --size BYTES     of the memory (1g)\n"
		"  --pages small|huge\n"
		"  --writers N      threads (1)\n"
		"  --rate N         operations a second of all of them; 0: as "
		"fast as possible\n"
		"                   (100000)\n"
		"  --where zipf|uniform  which pages\n"
		"  --store 8|64     bytes of an operation\n"
		"  --before MS      how long writers are watched before "
		"(1000)\n"
		"  --gap MS         between prepare and begin (0)\n"
		"  --pool BYTES     weir's (64m)\n"
		"  --sink-rate N    bytes a second that the sink takes; 0: all "
		"(0)\n"
		"  --file PATH      the sink writes there, and removes it\n"
		"  --saver-nice N   niceness of who saves (0)\n"
		"  --plant byte|late|lost  an error, which fails the run\n");
}

static uint64_t number(const char *text)
{
	static const char units[] = "kmg", *unit;
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (end == text)
		bench_die("\"%s\" is not a number", text);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		n <<= 10 * (unit - units + 1);
		end++;
	}
	if (*end)
		bench_die("\"%s\" is not a number", text);
	return n;
}

/* True for `yes`, false for `no`. */
static bool either(const char *text, const char *no, const char *yes)
{
	if (strcmp(text, yes) && strcmp(text, no))
		bench_die("\"%s\" is neither %s nor %s", text, no, yes);
	return !strcmp(text, yes);
}

static bool take_word(const char *key, const char *text)
{
	struct snap_want *w = &snap_want;

	if (!strcmp(key, "--method"))
		w->method = text;
	else if (!strcmp(key, "--pages"))
		w->huge = either(text, "small", "huge");
	else if (!strcmp(key, "--where"))
		w->uniform = either(text, "zipf", "uniform");
	else if (!strcmp(key, "--file"))
		w->file = text;
	else if (!strcmp(key, "--plant"))
		w->plant = text;
	else
		return false;
	return true;
}

static bool take_number(const char *key, const char *text)
{
	struct snap_want *w = &snap_want;
	const struct {
		const char *key; /* of the command line */
		uint64_t *value; /* where it goes */
	} numbers[] = {
		{"--size", &w->size},
		{"--writers", &w->writers},
		{"--rate", &w->rate},
		{"--store", &w->store},
		{"--before", &w->before_ms},
		{"--gap", &w->gap_ms},
		{"--pool", &w->pool},
		{"--sink-rate", &w->sink_rate},
		{"--saver-nice", &w->saver_nice},
	};
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (!strcmp(key, numbers[i].key)) {
			*numbers[i].value = number(text);
			return true;
		}
	}
	return false;
}

static bool is_one_of(const char *word, const char *const *words)
{
	while (*words && strcmp(*words, word))
		words++;
	return *words;
}

static void check(void)
{
	static const char *const methods[] = {"weir", "sync", "sigbus",
					      "fork", "end",  NULL};
	static const char *const plants[] = {"byte", "late", "lost", NULL};
	const struct snap_want *w = &snap_want;

	if (!is_one_of(w->method, methods))
		bench_die("no such method: %s", w->method);
	if (w->plant && !is_one_of(w->plant, plants))
		bench_die("no such error to plant: %s", w->plant);
	if (!w->size || w->size % (2u << 20) || w->size >> 43)
		bench_die("--size is a multiple of 2 MiB, below 8 TiB");
	if (!w->writers || w->writers > SNAP_WRITERS)
		bench_die("--writers: 1 to %d", SNAP_WRITERS);
	if (w->store != 8 && w->store != 64)
		bench_die("--store is 8 or 64");
	if (w->saver_nice > 19)
		bench_die("--saver-nice is at most 19");
}

static void parse(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			exit(0);
		}
		if (!strcmp(argv[i], "snapshot"))
			continue;
		if (i + 1 == argc)
			bench_die("unknown, or it wants a value: %s", argv[i]);
		if (!take_word(argv[i], argv[i + 1]) &&
		    !take_number(argv[i], argv[i + 1]))
			bench_die("no parameter %s", argv[i]);
		i++;
	}
	check();
}

/* ---- The record ---------------------------------------------------------- */

/* All writers' responses in a phase. */
static struct bench_histogram *responses(enum snap_phase phase)
{
	struct bench_histogram *h = bench_histogram_create();
	unsigned i;

	for (i = 0; i < snap_want.writers; i++)
		bench_histogram_merge(h, snap_writer[i].hist[phase]);
	return h;
}

static void print_number(const char *key, uint64_t value)
{
	printf(",\"%s\":%" PRIu64, key, value);
}

/* Responses and throughput of a phase, as keys with a prefix. */
static void print_phase(const char *prefix, enum snap_phase phase, uint64_t end)
{
	struct bench_histogram *h = responses(phase);
	uint64_t start = snap_phase_ns[phase];
	double length = start ? (double)(end - start) / 1e9 : 0;

	printf(",\"%sp50_ns\":%" PRIu64, prefix,
	       bench_histogram_quantile(h, 0.5));
	printf(",\"%sp99_ns\":%" PRIu64, prefix,
	       bench_histogram_quantile(h, 0.99));
	printf(",\"%sp999_ns\":%" PRIu64, prefix,
	       bench_histogram_quantile(h, 0.999));
	printf(",\"%smax_ns\":%" PRIu64, prefix, h->max);
	printf(",\"%sthroughput\":%.1f", prefix,
	       length > 0 ? (double)h->count / length : 0);
}

static uint64_t more(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

static void print_result(const struct snap_result *r,
			 const struct snap_sink *sink)
{
	const struct snap_want *w = &snap_want;
	uint64_t end = snap_phase_ns[SNAP_AFTER];
	uint64_t prepare = responses(SNAP_PREPARE)->max;
	uint64_t save = responses(SNAP_SAVE)->max;
	/* A stop in the save is a part of it, one before it is not. */
	uint64_t stop = snap_method_is_end() ? 0 : r->stop_ns;

	printf("{\"workload\":\"snapshot\",\"peer\":\"%s\"", w->method);
	printf(",\"params\":\"size=%" PRIu64 "m pages=%s writers=%" PRIu64
	       " rate=%" PRIu64 " where=%s store=%" PRIu64 " pool=%" PRIu64
	       "m sink-rate=%" PRIu64 "m file=%d gap=%" PRIu64 "\"",
	       w->size >> 20, w->huge ? "huge" : "small", w->writers, w->rate,
	       w->uniform ? "uniform" : "zipf", w->store, w->pool >> 20,
	       w->sink_rate >> 20, w->file != NULL, w->gap_ms);
	printf(",\"barrier\":\"%s\",\"checksum\":\"verified\"", r->barrier);
	print_number("begin_ns", r->begin_ns);
	print_number("begin_cpu_ns", r->begin_cpu_ns);
	print_number("prepare_cpu_ns", r->prepare_cpu_ns);
	print_number("save_cpu_ns", r->save_cpu_ns);
	print_number("stop_ns", r->stop_ns);
	print_number("stall_ns", r->stop_ns + r->begin_ns);
	print_number("prepare_ns", r->prepare_ns);
	print_number("save_ns", sink->end_ns - snap_phase_ns[SNAP_SAVE] - stop);
	print_phase("", SNAP_SAVE, end);
	print_phase("prepare_", SNAP_PREPARE, snap_phase_ns[SNAP_SAVE]);
	print_phase("before_", SNAP_BEFORE,
		    snap_phase_ns[SNAP_PREPARE] ? snap_phase_ns[SNAP_PREPARE]
						: snap_phase_ns[SNAP_SAVE]);
	/* From prepare on: what a program feels of a snapshot. */
	print_number("longest_ns", prepare > save ? prepare : save);
	print_number("faults", r->faults);
	print_number("kept", r->kept);
	print_number("hot", r->hot);
	print_number("hot_protected", r->hot_protected);
	print_number("waits", r->waits);
	print_number("again_bytes", r->again);
	print_number("pool_peak", r->pool_peak);
	print_number("extra_bytes", more(r->full.anonymous, r->base.anonymous));
	print_number("extra_tables", more(r->full.tables, r->base.tables));
	printf(",\"verified\":true}\n");
}

/* ---- A run --------------------------------------------------------------- */

int main(int argc, char **argv)
{
	struct snap_result result = {.barrier = ""};
	struct snap_sink *sink;
	struct timespec before;
	char *memory;

	parse(argc, argv);
	snap_memory_check(snap_method_is_fork());
	sink = snap_sink_open();
	if (snap_want.file)
		unlink(snap_want.file);
	snap_stream_setup();
	memory = snap_method_memory();
	snap_fill(memory);
	before.tv_sec = (time_t)(snap_want.before_ms / 1000);
	before.tv_nsec = (long)(snap_want.before_ms % 1000 * 1000000);

	snap_writers_setup(memory);
	snap_memory_add(&result.base, getpid());
	snap_writers_start();
	nanosleep(&before, NULL);
	snap_method_run(sink, &result);
	snap_writers_end();
	snap_verify(sink, memory);
	print_result(&result, sink);
	return fflush(stdout) ? 2 : 0;
}
