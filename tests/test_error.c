/* SPDX-License-Identifier: MIT */
/* Error texts are per thread, the fatal exit says its text and aborts. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/check.h"

Test(error, none_yet)
{
	cr_assert_str_eq(weir_error_text(), "");
}

Test(error, text_and_value)
{
	errno = EAGAIN;
	cr_assert_eq(wr_error(EINVAL, "no such key: %s", "x"), -EINVAL);
	cr_assert_str_eq(weir_error_text(), "no such key: x");
	cr_assert_eq(errno, EAGAIN);
}

Test(error, may_quote_itself)
{
	wr_error(EINVAL, "inner");
	wr_error(EINVAL, "outer: %s", weir_error_text());
	cr_assert_str_eq(weir_error_text(), "outer: inner");
}

Test(error, long_text_is_cut)
{
	char big[2000];

	memset(big, 'a', sizeof big - 1);
	big[sizeof big - 1] = 0;
	wr_error(EINVAL, "%s", big);
	cr_assert_eq(strlen(weir_error_text()), 511);
}

static void *other_thread(void *arg)
{
	(void)arg;
	if (strcmp(weir_error_text(), ""))
		return "saw another thread's text";
	wr_error(EINVAL, "mine");
	return NULL;
}

Test(error, per_thread)
{
	pthread_t t;
	void *complaint;

	wr_error(EINVAL, "main's");
	cr_assert_eq(pthread_create(&t, NULL, other_thread, NULL), 0);
	pthread_join(t, &complaint);
	cr_assert_null(complaint);
	cr_assert_str_eq(weir_error_text(), "main's");
}

/* What `die` writes to standard error; *status is how it ended. */
static void run(void (*die)(void), char *text, size_t size, int *status)
{
	int fds[2];
	size_t n = 0;
	ssize_t got;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		close(fds[1]);
		die();
		_exit(0);
	}
	close(fds[1]);
	while ((got = read(fds[0], text + n, size - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	close(fds[0]);
	cr_assert_eq(waitpid(pid, status, 0), pid);
}

static void die_plain(void)
{
	wr_fatal("page %d is lost", 7);
}

static void die_long(void)
{
	char big[4000];

	memset(big, 'b', sizeof big - 1);
	big[sizeof big - 1] = 0;
	wr_fatal("%s", big);
}

static void die_require(void)
{
	wr_require(1 + 1 == 3, "sums fail");
}

Test(error, fatal)
{
	char text[2048];
	int status;

	run(die_plain, text, sizeof text, &status);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	cr_assert_str_eq(text, "weir: page 7 is lost\n");
}

Test(error, fatal_long_text_ends_with_newline)
{
	char text[2048];
	int status;

	run(die_long, text, sizeof text, &status);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	cr_assert_gt(strlen(text), 1000);
	cr_assert_eq(text[strlen(text) - 1], '\n');
}

Test(error, require)
{
	char text[2048];
	int status;

	wr_require(1, "never");
	run(die_require, text, sizeof text, &status);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	cr_assert_str_eq(text, "weir: sums fail\n");
}

Test(error, version)
{
	char expected[32];

	snprintf(expected, sizeof expected, "%d.%d.%d", WEIR_VERSION_MAJOR,
		 WEIR_VERSION_MINOR, WEIR_VERSION_PATCH);
	cr_assert_str_eq(weir_version(), expected);
	cr_assert_str_eq(weir_version(), PACKAGE_VERSION);
}
