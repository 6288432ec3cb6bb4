/* SPDX-License-Identifier: MIT */
/* What the files of weir-snap share: options, errors, output. */
#ifndef WEIR_TOOLS_SNAP_H
#define WEIR_TOOLS_SNAP_H

#include <stdbool.h>
#include <stdint.h>

#include <weir/image.h>

#include "tools/quote.h"

enum {
	EXIT_FINE = 0,    /* done; diff: no difference */
	EXIT_BAD = 1,     /* a file is no snapshot, or no chain; diff: differ */
	EXIT_TROUBLE = 2, /* bad arguments; could not read or write */
};

struct snap_options {
	bool json;       /* --json */
	bool each;       /* --each */
	bool pages;      /* --pages */
	const char *out; /* -o; NULL: not given */
};

/* weir-snap: weir_error_text(), to standard error.  Returns the exit status for
 * the error `err`, negative. */
int snap_failed(int err);

void snap_hex(const uint8_t id[16]);

int snap_diff(const char *a, const char *b, const struct snap_options *options);
int snap_restore(const char *const *paths, size_t count,
		 const struct snap_options *options);

#endif
