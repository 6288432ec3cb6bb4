/* SPDX-License-Identifier: MIT */
/* The log's lines and the trace's JSON, with several threads, after a fork,
 * when the ring is full, when the disk is full and when the program dies. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/events.h"
#include "runtime/lock.h"
#include "tests/json.h"
#include "tests/short.h"

static char name[64]; /* a file of this test's own */

static void setup(void)
{
	int fd;

	snprintf(name, sizeof name, "/tmp/weir-events-XXXXXX");
	fd = mkstemp(name);
	cr_assert_geq(fd, 0);
	close(fd);
}

static void teardown(void)
{
	unlink(name);
}

TestSuite(events, .init = setup, .fini = teardown, .timeout = 120);

static struct wr_events *open_events(const char *log, const char *log_file,
				     const char *trace)
{
	struct wr_events *e;
	int err = wr_events_open(log, log_file, trace, &e);

	cr_assert_eq(err, 0, "%s", weir_error_text());
	return e;
}

/* The trace as text, after checking that it is JSON. */
static char *read_trace(void)
{
	char *text = json_read_file(name);
	const char *fault;
	size_t at = 0;

	cr_assert_not_null(text);
	fault = json_check(text, &at);
	cr_assert_null(fault, "%s at %zu: %.60s", fault, at, text + at);
	return text;
}

/* ---- Log ---------------------------------------------------------------- */

Test(events, log_words)
{
	static const struct {
		const char *text; /* the option */
		bool gc, barrier; /* what it turns on */
	} cases[] = {
		{"", false, false},         {"gc", true, false},
		{"barrier", false, true},   {"all", true, true},
		{"gc+barrier", true, true}, {"barrier|gc", true, true},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct wr_events *e = open_events(cases[i].text, "", "");

		cr_expect_eq(wr_log_gc(e), cases[i].gc, "%s", cases[i].text);
		cr_expect_eq(wr_log_barrier(e), cases[i].barrier, "%s",
			     cases[i].text);
		wr_events_close(e);
	}
}

Test(events, bad_log_words)
{
	static const char *const bad[] = {"gcx", "g",       "gc+",   "+gc",
					  "GC",  "gc++all", "gc all"};
	struct wr_events *e;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		cr_expect_eq(wr_events_open(bad[i], "", "", &e), -EINVAL, "%s",
			     bad[i]);
		cr_expect(strstr(weir_error_text(), "log: "), "%s",
			  weir_error_text());
	}
	cr_expect_eq(wr_events_open("barier", "", "", &e), -EINVAL);
	cr_expect(strstr(weir_error_text(), "\"barier\""), "%s",
		  weir_error_text());
}

Test(events, log_goes_to_the_file)
{
	struct wr_events *e = open_events("gc", name, "");
	char big[3000], *text, *second;

	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	wr_event_log(e, "cycle %d", 7);
	wr_event_log(e, "%s", big);
	wr_events_close(e);
	e = open_events("gc", name, ""); /* appends */
	wr_event_log(e, "last");
	wr_events_close(e);
	text = json_read_file(name);
	cr_assert_eq(json_count(text, "\n"), 3);
	cr_assert_eq(json_count(text, "weir: 0.0"), 3, "%s", text);
	cr_assert(strstr(text, " cycle 7\n"));
	second = strchr(text, '\n') + 1;
	cr_assert_eq(strchr(second, '\n') - second, 1022);
	cr_assert(strstr(text, " last\n"));
	free(text);
}

Test(events, log_is_silent_when_off)
{
	struct wr_events *e = open_events("", name, "");
	char *text;

	wr_event_log(e, "nobody asked");
	wr_events_close(e);
	text = json_read_file(name);
	cr_assert_str_eq(text, "");
	free(text);
}

Test(events, bad_files)
{
	struct wr_events *e;

	cr_assert_eq(wr_events_open("gc", "/nonexistent/log", "", &e), -ENOENT);
	cr_assert(strstr(weir_error_text(), "log-file=/nonexistent/log"));
	cr_assert_eq(wr_events_open("gc", "", "/nonexistent/t", &e), -ENOENT);
	cr_assert(strstr(weir_error_text(), "trace=/nonexistent/t"));
	cr_assert_eq(wr_events_open("", "", "/tmp", &e), -EISDIR);
}

/* ---- Trace -------------------------------------------------------------- */

Test(events, empty_trace)
{
	char *text;

	wr_events_close(open_events("", "", name));
	text = read_trace();
	cr_assert_eq(json_count(text, "process_name"), 1);
	cr_assert_eq(json_count(text, "\"ph\":\"X\""), 0);
	free(text);
}

Test(events, spans_and_counters)
{
	struct wr_events *e = open_events("", "", name);
	char expected[128], *text;

	for (int p = 0; p < WR_PHASES; p++) {
		uint64_t t = 1234567890123 + 1000000u * (unsigned)p;

		wr_event_begin(e, (enum wr_phase)p, t);
		wr_event_end(e, (enum wr_phase)p, t, t + 4005, 17 + p,
			     p ? "pages" : NULL);
	}
	wr_event_counter(e, "heap used", 2000000000007, 1ull << 40);
	wr_event_counter(e, "a name of more than 25 characters", 1, 1);
	wr_event_counter(e, "\"quoted\\\x01\xff", 1, UINT64_MAX);
	wr_events_close(e);
	text = read_trace();
	cr_assert_eq(json_count(text, "\"ph\":\"X\""), WR_PHASES);
	cr_assert_eq(json_count(text, "\"dur\":4.005,"), WR_PHASES);
	cr_assert_eq(json_count(text, "\"pages\":"), WR_PHASES - 1);
	cr_assert(strstr(text, "\"ts\":1234567890.123,"), "%s", text);
	cr_assert(strstr(text, "\"name\":\"concurrent mark\""));
	cr_assert(strstr(text, "\"name\":\"pause\",\"args\":{\"pages\":22}"));
	snprintf(expected, sizeof expected,
		 "\"ts\":2000000000.007,\"cat\":\"weir\",\"name\":\"heap "
		 "used\",\"args\":{\"value\":%llu}",
		 1ull << 40);
	cr_assert(strstr(text, expected), "%s", text);
	cr_assert(strstr(text, "\"name\":\"a name of more than 25 ch\""));
	cr_assert(strstr(text, "\"name\":\"\\\"quoted\\\\??\""));
	cr_assert(strstr(text, "18446744073709551615"));
	free(text);
}

Test(events, backward_span_has_no_length)
{
	struct wr_events *e = open_events("", "", name);
	char *text;

	wr_event_end(e, WR_PHASE_mark, 2000, 1000, 0, NULL);
	wr_events_close(e);
	text = read_trace();
	cr_assert(strstr(text, "\"dur\":0.000,"));
	free(text);
}

#define THREADS 4

struct crowd {
	struct wr_events *e; /* where to */
	unsigned records;    /* how many each thread puts */
};

static void *producer(void *arg)
{
	struct crowd *c = arg;

	pthread_setname_np(pthread_self(), "producer");
	for (unsigned i = 0; i < c->records; i++)
		wr_event_end(c->e, WR_PHASE_assist, i, i + 1, i, "bytes");
	return NULL;
}

static void run_crowd(struct crowd *c)
{
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, producer, c), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

Test(events, threads_lose_nothing)
{
	unsigned n = (unsigned)rounds(4000);
	struct crowd c = {open_events("", "", name), n};
	char *text;

	run_crowd(&c);
	wr_events_close(c.e);
	text = read_trace();
	cr_assert_eq(json_count(text, "\"ph\":\"X\""), 4 * n);
	cr_assert_eq(json_count(text, "dropped"), 0);
	for (unsigned i = 0; i < n; i += 333) {
		char expected[64];

		snprintf(expected, sizeof expected, "{\"bytes\":%u}", i);
		cr_assert_eq(json_count(text, expected), 4);
	}
	free(text);
}

Test(events, full_ring_is_counted)
{
	unsigned n = (unsigned)rounds(60000);
	struct crowd c = {open_events("", "", name), n};
	unsigned long long dropped = 0;
	size_t written;
	char *text, *s;

	run_crowd(&c);
	wr_events_close(c.e);
	text = read_trace();
	written = json_count(text, "\"ph\":\"X\"");
	s = strstr(text, "\"dropped\",\"args\":{\"events\":");
	if (s)
		cr_assert_eq(
			sscanf(strchr(s, '{'), "{\"events\":%llu", &dropped),
			1);
	cr_assert_eq(written + dropped, THREADS * n, "%zu + %llu", written,
		     dropped);
	cr_assert_geq(written, 16384);
	free(text);
}

Test(events, threads_are_named)
{
	struct crowd c = {open_events("", "", name), 1};
	char *text;

	pthread_setname_np(pthread_self(), "main\"\\\n\xe9");
	wr_event_counter(c.e, "x", 1, 1);
	usleep(200000); /* the writer names live threads only */
	wr_events_close(c.e);
	text = read_trace();
	cr_assert(strstr(text, "\"thread_name\",\"args\":{\"name\":\"main"),
		  "%s", text);
	free(text);
}

/* ---- What goes wrong ---------------------------------------------------- */

Test(events, fork_leaves_the_trace_to_the_parent)
{
	struct wr_events *e = open_events("gc", "", name);
	char *text;
	int status;
	pid_t pid;

	wr_event_end(e, WR_PHASE_mark, 1, 2, 1, "parent");
	wr_events_fork_prepare(e);
	pid = fork();
	cr_assert_geq(pid, 0);
	wr_events_fork_done(e, pid == 0);
	if (pid == 0) {
		struct wr_mutex low;

		/* With --enable-checking: the child holds no lock of e. */
		wr_mutex_init(&low, WR_RANK_heap);
		wr_mutex_lock(&low);
		wr_mutex_unlock(&low);
		wr_event_end(e, WR_PHASE_mark, 1, 2, 1, "child");
		wr_event_counter(e, "child", 1, 1);
		wr_events_fork_prepare(e);
		wr_events_fork_done(e, false);
		wr_events_close(e);
/* The search for leaks hangs where the trace's thread was just starting. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
		_exit(0);
#else
		exit(0);
#endif
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	wr_event_end(e, WR_PHASE_mark, 1, 2, 2, "parent");
	wr_events_close(e);
	text = read_trace();
	cr_assert_eq(json_count(text, "\"parent\":"), 2);
	cr_assert_eq(json_count(text, "child"), 0);
	free(text);
}

Test(events, killed_program_leaves_a_readable_trace)
{
	char *text, *whole;
	int status;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		struct wr_events *e;

		if (wr_events_open("", "", name, &e))
			_exit(1);
		for (unsigned i = 0; i < 100; i++)
			wr_event_end(e, WR_PHASE_mark, i, i + 1, i, "n");
		for (int i = 0; i < 6000; i++) {
			/* Until the writer has been round. */
			char *now = json_read_file(name);

			if (json_count(now, "\"n\":") == 100)
				raise(SIGKILL);
			free(now);
			usleep(10000);
		}
		_exit(2);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status), "%x", status);
	text = json_read_file(name);
	cr_assert_gt(asprintf(&whole, "%s]", text), 0);
	cr_assert_null(json_check(whole, NULL));
	free(whole);
	free(text);
}

Test(events, full_disk_is_told_once)
{
	struct wr_events *e;
	char text[4096];
	int fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	cr_assert_eq(pipe(fds), 0);
	e = open_events("", "", "/dev/full");
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	for (unsigned i = 0; i < 5; i++) {
		for (unsigned k = 0; k < 1000; k++)
			wr_event_end(e, WR_PHASE_mark, k, k, k, "n");
		usleep(100000);
	}
	wr_events_close(e);
	dup2(saved, STDERR_FILENO);
	n = read(fds[0], text, sizeof text - 1);
	cr_assert_gt(n, 0);
	text[n] = '\0';
	cr_assert(strstr(text, "trace=/dev/full"), "%s", text);
	cr_assert(strstr(text, strerror(ENOSPC)), "%s", text);
	cr_assert_eq(json_count(text, "\n"), 1, "%s", text);
}
