/* SPDX-License-Identifier: GPL-2.0-only */
/* One check a function; TAP on standard output. */
#ifndef WEIR_KERNEL_CHECK_TAP_H
#define WEIR_KERNEL_CHECK_TAP_H

#include <stdbool.h>

/* Inside of a check: it fails, or cannot be made, and why.  Both return false,
 * only the first call counts. */
bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool over(void); /* failed or skipped */

#define expect(cond, ...)                  \
	do {                               \
		if (!(cond))               \
			fail(__VA_ARGS__); \
	} while (0)

struct check {
	const char *name;
	void (*fn)(void);
};

extern const struct check checks[];

#endif
