/* SPDX-License-Identifier: MIT */
/*
 * word-index: a small search engine whose whole index lives on a
 * garbage-collected heap, to show what a collector does to the latency of its
 * program.  The same text is built twice: word-index-weir runs on libweir,
 * word-index-gc on libgc.  See usage() for how to run it, wi_index.h for what
 * is on the heap, wi_run.h for what is measured.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/heap_shim.h"
#include "examples/wi_report.h"

#define COPIES_MAX 4096u

struct settings {
	char **path;     /* what to read */
	size_t paths;    /* entries in path[] */
	uint64_t text;   /* bytes of text to index; 0: as the machine allows */
	uint32_t copies; /* 0: as many as `text` takes */
	int json;        /* print the JSON object on standard output */
	int quiet;       /* no text on standard error */
	struct run_options run;
};

static void usage(FILE *out)
{
	fprintf(out,
		"usage: word-index-%s [option...] [path...]\n"
		"\n"
		"Index every text file below the paths (/usr/share/doc and\n"
		"/var/lib/dpkg/status by default; .gz files are unpacked), "
		"then\n"
		"answer queries at a fixed rate while re-indexing all the "
		"time.\n"
		"\n"
		"  --text SIZE     bytes of text to index, with k, m or g "
		"(192m, "
		"or\n"
		"                  a tenth of the free memory if that is "
		"less)\n"
		"  --copies N      index the text N times (as often as --text "
		"takes)\n"
		"  --seconds N     length of the measured part (8)\n"
		"  --rate N        queries a second (1000)\n"
		"  --builders N    threads that build the first index (one a "
		"processor)\n"
		"  --cache N       documents in the query cache (2048)\n"
		"  --seed N        which queries are drawn (1)\n"
		"  --json          one JSON object on standard output\n"
		"  --quiet         no text on standard error\n",
		!strcmp(heap_peer, "weir") ? "weir" : "gc");
}

static uint64_t number(const char *name, const char *text, uint64_t min,
		       uint64_t max)
{
	static const char units[] = "kmg";
	const char *unit;
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (*end && end != text && (unit = strchr(units, *end)) && !end[1]) {
		int shift = 10 * (int)(unit - units + 1);

		if (v > UINT64_MAX >> shift)
			errno = ERANGE;
		v <<= shift;
		end++;
	}
	if (errno || end == text || *end || *text == '-' || v < min ||
	    v > max) {
		fprintf(stderr,
			"word-index: --%s %s: not a number from %llu to %llu\n",
			name, text, (unsigned long long)min,
			(unsigned long long)max);
		exit(2);
	}
	return v;
}

static void parse(int argc, char **argv, struct settings *s)
{
	static char *const usual[] = {"/usr/share/doc", "/var/lib/dpkg/status"};
	static const struct option options[] = {
		{"text", required_argument, NULL, 't'},
		{"copies", required_argument, NULL, 'c'},
		{"seconds", required_argument, NULL, 's'},
		{"rate", required_argument, NULL, 'r'},
		{"builders", required_argument, NULL, 'b'},
		{"cache", required_argument, NULL, 'l'},
		{"seed", required_argument, NULL, 'e'},
		{"json", no_argument, NULL, 'j'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int i, o;

	s->run.seconds = 8;
	s->run.rate = 1000;
	s->run.builders = cpus < 1 ? 1 : cpus > 16 ? 16 : (uint32_t)cpus;
	s->run.cache = 2048;
	s->run.plan = 4096;
	s->run.seed = 1;
	while ((o = getopt_long(argc, argv, "h", options, &i)) != -1) {
		const char *n = o == '?' || o == 'h' ? "" : options[i].name;

		if (o == 't')
			s->text = number(n, optarg, 1, UINT64_C(1) << 40);
		else if (o == 'c')
			s->copies = (uint32_t)number(n, optarg, 1, COPIES_MAX);
		else if (o == 's')
			s->run.seconds = (uint32_t)number(n, optarg, 1, 900);
		else if (o == 'r')
			s->run.rate = (uint32_t)number(n, optarg, 1, 1000000);
		else if (o == 'b')
			s->run.builders = (uint32_t)number(n, optarg, 1, 64);
		else if (o == 'l')
			s->run.cache = (uint32_t)number(n, optarg, 1, 1 << 20);
		else if (o == 'e')
			s->run.seed = number(n, optarg, 1, UINT64_MAX >> 1);
		else if (o == 'j')
			s->json = 1;
		else if (o == 'q')
			s->quiet = 1;
		else {
			usage(o == 'h' ? stdout : stderr);
			exit(o == 'h' ? 0 : 2);
		}
	}
	s->path = optind < argc ? argv + optind : (char **)usual;
	s->paths = optind < argc ? (size_t)(argc - optind) : 2;
}

/* Free memory as the kernel and the control group see it, or 0. */
static uint64_t memory_available(void)
{
	static const char *const group[] = {
		"/sys/fs/cgroup/memory.max",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes",
	};
	unsigned long long v, least = 0;
	char line[128];
	size_t i;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu", &v) == 1)
			least = v << 10;
	if (f)
		fclose(f);
	for (i = 0; i < sizeof(group) / sizeof(*group); i++) {
		f = fopen(group[i], "r");
		if (f && fscanf(f, "%llu", &v) == 1 && (!least || v < least))
			least = v;
		if (f)
			fclose(f);
	}
	return least;
}

static void choose_sizes(struct settings *s)
{
	uint64_t free_memory;

	if (s->text)
		return;
	s->text = UINT64_C(192) << 20;
	free_memory = memory_available();
	if (free_memory && s->text > free_memory / 10) {
		s->text = free_memory / 10;
		if (!s->quiet)
			fprintf(stderr,
				"word-index: %llu MiB of memory are free: "
				"indexing %llu MiB of text at most\n",
				(unsigned long long)free_memory >> 20,
				(unsigned long long)s->text >> 20);
	}
}

/* Enough copies to come nearest to the size wanted, one at least. */
static void choose_copies(struct settings *s, const struct corpus *corpus)
{
	uint64_t copies;

	if (s->copies)
		return;
	copies = (s->text + corpus->text_bytes / 2) / corpus->text_bytes;
	s->copies = copies < 1            ? 1
		    : copies > COPIES_MAX ? COPIES_MAX
					  : (uint32_t)copies;
	if (s->copies > 1 && !s->quiet)
		fprintf(stderr,
			"word-index: only %.1f MiB of text in %u files here: "
			"indexing it %u times, each copy with words of its "
			"own\n",
			(double)corpus->text_bytes / (1 << 20), corpus->files,
			s->copies);
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "word-index: %s: %s\n", what, strerror(-err));
	return 1;
}

/* Run on the text that was read. */
static int work(const struct settings *s, const struct corpus *corpus,
		struct run_result *result)
{
	struct report report = {&s->run, corpus, result};
	int err;

	heap_open();
	heap_attach();
	index_open(corpus, s->copies);
	err = run(&s->run, result);
	if (!err && !s->quiet)
		report_text(&report, stderr);
	if (!err && s->json)
		report_json(&report, stdout);
	run_free(result);
	index_close();
	heap_detach();
	heap_close();
	if (err)
		return fail("drawing queries from so little text", err);
	if (fflush(stdout) || ferror(stdout))
		return fail("standard output", -errno);
	return 0;
}

int main(int argc, char **argv)
{
	struct settings s;
	struct corpus corpus;
	struct run_result *result;
	int err;

	memset(&s, 0, sizeof(s));
	parse(argc, argv, &s);
	choose_sizes(&s);
	err = corpus_read(&corpus, s.path, s.paths, s.text);
	if (err == -ENODATA) {
		fprintf(stderr,
			"word-index: there is no text below the paths\n");
		return 1;
	}
	if (err)
		return fail("reading the text", err);
	choose_copies(&s, &corpus);
	result = malloc(sizeof(*result));
	err = result ? work(&s, &corpus, result) : fail("results", -ENOMEM);
	free(result);
	corpus_free(&corpus);
	return err;
}
