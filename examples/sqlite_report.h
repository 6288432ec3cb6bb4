/* SPDX-License-Identifier: MIT */
/* What is printed of runs, and a comparison of the ways to save. */
#ifndef WEIR_EXAMPLES_SQLITE_REPORT_H
#define WEIR_EXAMPLES_SQLITE_REPORT_H

#include <stdio.h>

#include "examples/sqlite_run.h"

/* "weir, huge pages" and so on. */
void report_name(const struct run_options *o, char *name, size_t bytes);
void report_text(const struct run_options *o, const struct result *r,
		 FILE *out);
/* One line, a JSON object. */
void report_json(const struct run_options *o, const struct result *r,
		 FILE *out);

/*
 * Every way to save, each in a process of its own and in turn, `rounds` times;
 * then a table of medians and spreads, and ratios.  0; 1: a check failed; -1:
 * it could not be done.
 */
int compare(const struct run_options *o, unsigned rounds, bool json);

#endif
