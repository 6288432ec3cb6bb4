/* SPDX-License-Identifier: MIT */
/*
 * Assertions in three levels, and the fatal exit.
 *
 *  wr_require(c, ...)  always on; for what must never be survived.
 *  wr_assert(c)        on in checking builds (WEIR_CHECKING >= 1); cheap.
 *  wr_expensive(c)     on at WEIR_CHECKING >= 2; may walk whole tables.
 */
#ifndef WEIR_RUNTIME_CHECK_H
#define WEIR_RUNTIME_CHECK_H

#ifndef WEIR_CHECKING
#define WEIR_CHECKING 0
#endif

/* Print "weir: <message>" to standard error and abort. */
void wr_fatal(const char *format, ...)
	__attribute__((noreturn, format(printf, 1, 2), cold));

/* Set this thread's weir_error_text() and return -err (err > 0). */
int wr_error(int err, const char *format, ...)
	__attribute__((format(printf, 2, 3), cold));

/* The program called `function` in a way that is never right.  Checking builds
 * abort with "function: cause"; else that is the error text, errno is set for
 * functions that return pointers, and -EINVAL returned. */
int wr_invalid(const char *function, const char *format, ...)
	__attribute__((format(printf, 2, 3), cold));

#define wr_require(cond, ...)                     \
	do {                                      \
		if (__builtin_expect(!(cond), 0)) \
			wr_fatal(__VA_ARGS__);    \
	} while (0)

#if WEIR_CHECKING >= 1
#define wr_assert(cond)                                               \
	wr_require(cond, "%s:%d: %s: assertion failed: %s", __FILE__, \
		   __LINE__, __func__, #cond)
#else
#define wr_assert(cond) ((void)sizeof(!(cond)))
#endif

#if WEIR_CHECKING >= 2
#define wr_expensive(cond) wr_assert(cond)
#else
#define wr_expensive(cond) ((void)sizeof(!(cond)))
#endif

#define wr_likely(c) __builtin_expect(!!(c), 1)
#define wr_unlikely(c) __builtin_expect(!!(c), 0)

#endif
