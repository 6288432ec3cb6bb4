/* SPDX-License-Identifier: MIT */
/*
 * Run-time options: one table (options.def), parsed from strings of the form
 * "key=value,key=value".  An unknown key or a bad value is -EINVAL with an
 * error text that names it and what is allowed; nothing is ignored.
 */
#ifndef WEIR_RUNTIME_OPTIONS_H
#define WEIR_RUNTIME_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "runtime/barrier.h"
#include "runtime/thread.h"

#define WR_TYPE_SIZE uint64_t
#define WR_TYPE_UINT uint64_t
#define WR_TYPE_FRAC double
#define WR_TYPE_BOOL bool
#define WR_TYPE_ENUM_BARRIER enum wr_barrier_kind
#define WR_TYPE_ENUM_STOP enum wr_stop_mode
#define WR_TYPE_STR char *

/* One field an option.  Strings are owned by the struct. */
struct wr_options {
#define X(field, key, type, dflt, lo, hi, help) WR_TYPE_##type field;
#include "runtime/options.def"
#undef X
};

/* Defaults.  0 or -ENOMEM. */
int wr_options_init(struct wr_options *o);
void wr_options_fini(struct wr_options *o);
/* Apply a string; `source` ("WEIR_OPTIONS", ...) goes into error texts. */
int wr_options_parse(struct wr_options *o, const char *text,
		     const char *source);
/* One line an option: key, type, default, help. */
void wr_options_print(FILE *f);

#endif
