/* SPDX-License-Identifier: MIT */
/* What a run has to say: text for people, one JSON object for programs. */
#ifndef WEIR_EXAMPLES_WI_REPORT_H
#define WEIR_EXAMPLES_WI_REPORT_H

#include <stdio.h>

#include "examples/wi_run.h"

struct report {
	const struct run_options *options;
	const struct corpus *corpus;
	const struct run_result *result;
};

void report_text(const struct report *report, FILE *out);
/* Schema: docs of the fields are in wi_report.c, above each group. */
void report_json(const struct report *report, FILE *out);

#endif
