/* SPDX-License-Identifier: MIT */
/*
 * Bad input, by the table in input_cases.def: each case in a process of its
 * own, which writes what the library said to standard error and exits with
 * the error number.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>
#include <weir/heap_snapshot.h>

#include "gc/heap.h"
#include "tests/input_acts.h"

/* ---- The table ----------------------------------------------------------- */

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)

#define INVALID(function, what, err, expression) \
	static int PASTE(case_, __LINE__)(void)  \
	{                                        \
		return expression;               \
	}
#define REFUSED INVALID
#define ALLOWED(function, what, expression) \
	INVALID(function, what, 0, expression)
#include "tests/input_cases.def"
#undef INVALID
#undef REFUSED
#undef ALLOWED

static const struct row {
	const char *function; /* public function */
	const char *what;     /* what is bad */
	int err;              /* errno; 0: nothing is */
	bool aborts;          /* in checking builds */
	case_fn *fn;          /* returns the errno */
} rows[] = {
#define INVALID(function, what, err, expression) \
	{#function, what, err, WEIR_CHECKING > 0, PASTE(case_, __LINE__)},
#define REFUSED(function, what, err, expression) \
	{#function, what, err, false, PASTE(case_, __LINE__)},
#define ALLOWED(function, what, expression) \
	{#function, what, 0, false, PASTE(case_, __LINE__)},
#include "tests/input_cases.def"
};

#define ROWS (sizeof(rows) / sizeof(*rows))

static void run_child(const struct row *row, int out)
{
	struct rlimit none = {0, 0};

	signal(SIGABRT, SIG_DFL);
	setrlimit(RLIMIT_CORE, &none);
	dup2(out, STDERR_FILENO);
	alarm(60); /* a case that hangs */
	errno = 0;
	int err = row->fn();

	fprintf(stderr, "%s\n", weir_error_text());
	fflush(stderr);
	/* Not _exit(): there the thread sanitizer waits a second for others. */
	syscall(SYS_exit_group, err);
}

/* Whether some line of text begins with (prefix, ) "function: cause". */
static bool names(const char *text, const char *prefix, const char *function)
{
	char start[128];
	size_t n = (size_t)snprintf(start, sizeof(start), "%s%s: ", prefix,
				    function);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, start, n) && line[n] && line[n] != '\n')
			return true;
	}
	return false;
}

static bool run_row(const struct row *row)
{
	char text[4096];
	size_t n = 0;
	int fds[2], status;
	ssize_t got;
	bool ok;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid)
		run_child(row, fds[1]);
	close(fds[1]);
	while ((got = read(fds[0], text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	close(fds[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (row->aborts)
		ok = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
		     names(text, "weir: ", row->function);
	else
		ok = WIFEXITED(status) && WEXITSTATUS(status) == row->err &&
		     (!row->err || names(text, "", row->function));
	if (!ok)
		fprintf(stderr,
			"%s, %s: wait status %#x, expected %s%s; it said:\n%s",
			row->function, row->what, status,
			row->aborts ? "SIGABRT for " : "",
			row->err ? strerror(row->err) : "success", text);
	return ok;
}

Test(input, every_case)
{
	unsigned bad = 0;

	for (size_t i = 0; i < ROWS; i++)
		bad += !run_row(&rows[i]);
	cr_assert_eq(bad, 0, "%u of %zu cases", bad, ROWS);
}

/* ---- Is the table complete? ---------------------------------------------- */

static bool has_row(const char *function)
{
	for (size_t i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].function, function))
			return true;
	return false;
}

/* The functions of a header, as tests/symbols.sh reads them: how many have no
 * case, or cannot be read. */
static unsigned lacking(const char *path, unsigned *functions)
{
	FILE *f = fopen(path, "re");
	unsigned missing = 0;
	char line[512];
	regmatch_t m[2];
	regex_t re;

	cr_assert(f, "%s: %s", path, strerror(errno));
	cr_assert_eq(regcomp(&re, "^WEIR_API .*[ *](weir_[a-z_0-9]*)\\(",
			     REG_EXTENDED),
		     0);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "WEIR_API ", 9))
			continue;
		++*functions;
		if (!regexec(&re, line, 2, m, 0)) {
			line[m[1].rm_eo] = 0;
			if (has_row(line + m[1].rm_so))
				continue;
			fprintf(stderr, "no case for %s\n", line + m[1].rm_so);
		} else {
			fprintf(stderr, "not understood: %s", line);
		}
		missing++;
	}
	regfree(&re);
	fclose(f);
	return missing;
}

Test(input, every_public_function_has_a_case)
{
	unsigned functions = 0, rowed = 0;

	cr_assert_eq(
		lacking(WEIR_HEADERS "/weir.h", &functions) +
			lacking(WEIR_HEADERS "/alloc.h", &functions) +
			lacking(WEIR_HEADERS "/heap_snapshot.h", &functions) +
			lacking(WEIR_HEADERS "/embed.h", &functions),
		0);
	/* And no case is for a function that there is not. */
	for (size_t i = 0; i < ROWS; i++)
		rowed += !i || strcmp(rows[i].function, rows[i - 1].function);
	cr_assert_eq(rowed, functions);
}

/* ---- The signal that stops threads --------------------------------------- */

Test(input, a_signal_that_faults_raise_cannot_stop_threads)
{
	static const int bad[] = {SIGSEGV, SIGBUS, SIGILL,  SIGFPE, SIGTRAP,
				  SIGABRT, SIGSYS, SIGKILL, SIGSTOP};
	struct weir_heap_options o = {.size = sizeof(o)};
	char text[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		o.options = text;
		for (int mode = 0; mode < 2; mode++) {
			snprintf(text, sizeof(text), "suspend-signal=%d%s",
				 bad[i], mode ? ",stop=safepoints" : "");
			cr_assert_eq(weir_heap_create(&o, &heap), -EINVAL, "%s",
				     text);
			cr_assert(strstr(weir_error_text(), "suspend-signal="),
				  "%s", weir_error_text());
		}
	}
	snprintf(text, sizeof(text), "suspend-signal=%d", SIGUSR2);
	cr_assert_eq(weir_heap_create(&o, &heap), 0, "%s", weir_error_text());
	cr_assert_eq(weir_heap_destroy(heap), 0);
}

/* ---- Attaching beside create and destroy --------------------------------- */

static int over, hush;
static unsigned attaches;

static void *attaches_and_leaves(void *arg)
{
	for (unsigned i = 0; !__atomic_load_n(&over, __ATOMIC_RELAXED); i++) {
		weir_heap *h = __atomic_load_n(&heap, __ATOMIC_RELAXED);
		weir_mutator *m;
		int err;

		if (__atomic_load_n(&hush, __ATOMIC_RELAXED)) {
			usleep(100);
			continue;
		}
		err = weir_thread_attach(h, &m);
		if (err) {
			must(err == -EINVAL, "attach");
			continue;
		}
		/* Not each time: it takes a block. */
		must(i % 8 || weir_alloc(m, 48) || errno == ENOMEM, "alloc");
		must(!weir_thread_detach(m), "detach");
		__atomic_add_fetch(&attaches, 1, __ATOMIC_RELAXED);
		if (i % 4 == 0)
			usleep(50);
	}
	return arg;
}

/* The threads know the heap's address only, which may be that of one that was
 * destroyed. */
Test(input, threads_attach_beside_destroy_and_create)
{
	struct weir_heap_options o = {
		.size = sizeof(o),
		.options = OPTIONS,
	};
	unsigned destroyed = 0, busy = 0;
	pthread_t t[3];
	weir_heap *h;

	cr_assert_eq(weir_heap_create(&o, &h), 0, "%s", weir_error_text());
	__atomic_store_n(&heap, h, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(
			pthread_create(&t[i], NULL, attaches_and_leaves, NULL),
			0);
	while (destroyed < 50 ||
	       __atomic_load_n(&attaches, __ATOMIC_RELAXED) < 200) {
		int err = weir_heap_destroy(h);

		if (err) {
			cr_assert_eq(err, -EBUSY, "%s", weir_error_text());
			/* So that the test ends whatever the threads do. */
			if (++busy % 64 == 0)
				__atomic_store_n(&hush, 1, __ATOMIC_RELAXED);
			if (busy % 16 == 0)
				weir_collect(h, WEIR_COLLECT_MINOR);
			continue;
		}
		__atomic_store_n(&hush, 0, __ATOMIC_RELAXED);
		destroyed++;
		cr_assert_eq(weir_heap_create(&o, &h), 0, "%s",
			     weir_error_text());
		__atomic_store_n(&heap, h, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(weir_heap_destroy(h), 0, "%s", weir_error_text());
}
