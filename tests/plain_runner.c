/* SPDX-License-Identifier: MIT */
/*
 * Runs Criterion tests without Criterion's process sandbox.
 *
 * The sandbox maps its arena at addresses that ThreadSanitizer keeps for its
 * shadow, so no Criterion binary starts under that sanitizer.  This file is
 * linked in libcriterion's place there: it finds the tests where Criterion's
 * macros put them (pointers in the sections cr_tst and cr_sts) and runs each
 * in a child that is forked plainly, one after the other.  What it lacks
 * (theories, the newer assertions, redirection) does not link.
 *
 * usage: TEST [--timeout SECONDS] [--tap=FILE]
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What a test tells the runner, in memory that both share. */
struct outcome {
	bool failed;      /* an assertion did not hold */
	bool skipped;     /* cr_skip() was called */
	char reason[256]; /* of the skip */
};

/* The linker's names for the ends of the sections. */
extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *__stop_cr_sts[] __attribute__((weak));

struct criterion_options criterion_options;

static struct outcome *outcome;
static struct criterion_test *current;
static struct criterion_suite *current_suite;
static void *parameter; /* of the current test, NULL if it takes none */
static pthread_t main_thread;
static jmp_buf end_of_step;

/* ---- What the macros of criterion.h call -------------------------------- */

int cr_asprintf(char **to, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vasprintf(to, format, args);
	va_end(args);
	return n;
}

void cr_asprintf_free(char *s)
{
	free(s);
}

char *cr_translate_assert_msg(int index, ...)
{
	const char *expression;
	char *text;
	va_list args;

	(void)index;
	va_start(args, index);
	expression = va_arg(args, const char *);
	va_end(args);
	if (asprintf(&text, "does not hold: %s", expression) < 0)
		abort();
	return text;
}

void cr_log(enum criterion_severity severity, const char *format, ...)
{
	va_list args;

	(void)severity;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void cri_asserts_passed_incr(void)
{
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (stats->passed)
		return;
	/* Relaxed: the parent reads it after the child has ended. */
	__atomic_store_n(&outcome->failed, true, __ATOMIC_RELAXED);
	fprintf(stderr, "%s:%u: %s\n", stats->file, stats->line,
		stats->message);
}

/* Leave the step under way.  Other threads cannot unwind the test's stack:
 * they end the process. */
static void __attribute__((noreturn)) leave(void)
{
	if (!pthread_equal(pthread_self(), main_thread)) {
		fflush(NULL);
		_exit(1);
	}
	longjmp(end_of_step, 1);
}

void criterion_abort_test(void)
{
	leave();
}

void criterion_continue_test(void)
{
}

void criterion_skip_test(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(outcome->reason, sizeof outcome->reason, format, args);
	va_end(args);
	outcome->skipped = true;
	leave();
}

void criterion_test_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

/* True if the step ran to its end. */
static bool step(void (*fn)(void))
{
	if (!fn)
		return true;
	if (setjmp(end_of_step))
		return false;
	fn();
	return true;
}

static void (*with_parameter)(void *); /* what call_with_parameter() calls */

static void call_with_parameter(void)
{
	with_parameter(parameter);
}

static void (*suite_step(bool init))(void)
{
	if (!current_suite || !current_suite->data)
		return NULL;
	return init ? current_suite->data->init : current_suite->data->fini;
}

static bool ready; /* both set-ups ran to their ends */

void criterion_internal_test_setup(void)
{
	ready = step(suite_step(true)) && step(current->data->init);
}

void criterion_internal_test_main(void (*fn)(void))
{
	if (!ready)
		return;
	if (parameter) {
		/* Criterion's macros cast away the parameter's type. */
		with_parameter = (void (*)(void *))(uintptr_t)fn;
		fn = call_with_parameter;
	}
	step(fn);
}

void criterion_internal_test_teardown(void)
{
	step(current->data->fini);
	step(suite_step(false));
}

/* ---- Running ------------------------------------------------------------ */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct criterion_suite *find_suite(const char *name)
{
	if (__start_cr_sts)
		for (struct criterion_suite **s = __start_cr_sts;
		     s < __stop_cr_sts; s++)
			if (*s && !strcmp((*s)->name, name))
				return *s;
	return NULL;
}

/* Wait for the child, at most until the deadline: then the whole process
 * group is killed.  Returns its wait status. */
static int wait_for(pid_t pid, double deadline)
{
	int status;
	pid_t got;

	while ((got = waitpid(pid, &status, WNOHANG)) == 0) {
		if (now() >= deadline) {
			kill(-pid, SIGKILL);
			got = waitpid(pid, &status, 0);
			break;
		}
		usleep(1000);
	}
	if (got != pid) {
		perror("waitpid");
		exit(2);
	}
	/* What the test forked and left behind. */
	kill(-pid, SIGKILL);
	return status;
}

static int run_child(const struct criterion_test *t, double timeout, bool *late)
{
	/* A test's own limit is for a build that runs at full speed. */
	double limit = t->data->timeout > timeout ? t->data->timeout : timeout;
	double deadline = now() + limit;
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0) {
		setpgid(0, 0);
		main_thread = pthread_self();
		t->test();
		exit(0);
	}
	setpgid(pid, pid);
	status = wait_for(pid, deadline);
	*late = now() >= deadline;
	return status;
}

/* Did the process end as the test says it should? */
static bool ended_well(const struct criterion_test *t, int status)
{
	if (t->data->signal)
		return WIFSIGNALED(status) &&
		       WTERMSIG(status) == t->data->signal;
	return WIFEXITED(status) && WEXITSTATUS(status) == t->data->exit_code;
}

/* Run the current test, once, and write its TAP line.  Returns whether it
 * failed. */
static bool run_once(const char *name, double timeout, FILE *tap)
{
	const struct criterion_test *t = current;
	bool late = false, ok;
	double began = now();
	int status;

	memset(outcome, 0, sizeof *outcome);
	status = run_child(t, timeout, &late);
	fprintf(stderr, "%s: %.2f s\n", name, now() - began);
	ok = !outcome->failed && !late && ended_well(t, status);
	if (ok && outcome->skipped) {
		fprintf(tap, "ok - %s # SKIP %s\n", name, outcome->reason);
		return false;
	}
	fprintf(tap, "%sok - %s", ok ? "" : "not ", name);
	if (late)
		fprintf(tap, " took too long");
	else if (!ok && WIFSIGNALED(status))
		fprintf(tap, " ended by signal %d", WTERMSIG(status));
	else if (!ok && !outcome->failed)
		fprintf(tap, " exited with status %d", WEXITSTATUS(status));
	fputc('\n', tap);
	return !ok;
}

/* Run a test, with each of its parameters if it has some.  Adds to *count and
 * *failed. */
static void run(struct criterion_test *t, double timeout, FILE *tap, int *count,
		int *failed)
{
	struct criterion_suite *suite = find_suite(t->category);
	struct criterion_test_params p;
	char name[256];

	current = t;
	current_suite = suite;
	parameter = NULL;
	snprintf(name, sizeof name, "%s::%s", t->category, t->name);
	if (t->data->disabled ||
	    (suite && suite->data && suite->data->disabled)) {
		++*count;
		fprintf(tap, "ok - %s # SKIP disabled\n", name);
		return;
	}
	if (t->data->kind_ != CR_TEST_PARAMETERIZED) {
		++*count;
		*failed += run_once(name, timeout, tap);
		return;
	}
	p = t->data->param_();
	for (size_t i = 0; i < p.length; i++) {
		parameter = (char *)p.params + i * p.size;
		snprintf(name, sizeof name, "%s::%s [%zu]", t->category,
			 t->name, i);
		++*count;
		*failed += run_once(name, timeout, tap);
	}
	if (p.cleanup)
		p.cleanup(&p);
}

int main(int argc, char **argv)
{
	double timeout = 120;
	FILE *tap = stdout;
	int failed = 0, count = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--timeout") && i + 1 < argc)
			timeout = atof(argv[++i]);
		else if (!strncmp(argv[i], "--tap=", 6))
			tap = fopen(argv[i] + 6, "we");
		else
			tap = NULL;
		if (!tap) {
			fprintf(stderr, "%s: bad argument\n", argv[i]);
			return 2;
		}
	}
	outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (outcome == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst;
	     t++) {
		if (*t)
			run(*t, timeout, tap, &count, &failed);
	}
	fprintf(tap, "1..%d\n", count);
	if (fflush(tap) || ferror(tap)) {
		perror("TAP file");
		return 2;
	}
	return failed ? 1 : 0;
}
