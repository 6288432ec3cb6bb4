/* SPDX-License-Identifier: MIT */
/*
 * Error texts, the fatal exit and the version.
 *
 * Each thread has one text, that of its last failed call; no other thread
 * reads or writes it.  wr_fatal() may be called anywhere, also in a signal
 * handler or with the world stopped: it formats on the stack and takes no
 * lock (vsnprintf allocates only for widths and precisions that no caller
 * here uses).
 */
#include "runtime/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <weir/embed.h>

#define STRING2(x) #x
#define STRING(x) STRING2(x)

static _Thread_local char error_text[512];

const char *weir_version(void)
{
	return STRING(WEIR_VERSION_MAJOR) "." STRING(
		WEIR_VERSION_MINOR) "." STRING(WEIR_VERSION_PATCH);
}

const char *weir_error_text(void)
{
	return error_text;
}

static int set_text(int err, const char *format, va_list args)
{
	/* An argument may be the text of an earlier error, so the new one is
	 * made beside it. */
	char text[sizeof error_text];
	int saved = errno;

	vsnprintf(text, sizeof text, format, args);
	memcpy(error_text, text, sizeof text);
	errno = saved;
	return -err;
}

int wr_error(int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	err = set_text(err, format, args);
	va_end(args);
	return err;
}

int weir_error_set(int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	err = set_text(err, format, args);
	va_end(args);
	return err;
}

int wr_invalid(const char *function, const char *format, ...)
{
	char cause[sizeof error_text];
	va_list args;

	va_start(args, format);
	vsnprintf(cause, sizeof cause, format, args);
	va_end(args);
#if WEIR_CHECKING
	wr_fatal("%s: %s", function, cause);
#endif
	errno = EINVAL;
	return wr_error(EINVAL, "%s: %s", function, cause);
}

void wr_fatal(const char *format, ...)
{
	static const char prefix[] = "weir: ";
	char text[1024];
	size_t at = sizeof prefix - 1;
	va_list args;
	int n;

	memcpy(text, prefix, at);
	va_start(args, format);
	n = vsnprintf(text + at, sizeof text - at - 1, format, args);
	va_end(args);
	if (n > 0)
		at += (size_t)n < sizeof text - at - 1 ? (size_t)n
						       : sizeof text - at - 2;
	text[at++] = '\n';
	/* One write, so that the lines of two dying threads do not mix.  There
	 * is nobody left to tell if it fails. */
	if (write(STDERR_FILENO, text, at) < 0)
		abort();
	abort();
}
