/* SPDX-License-Identifier: MIT */
/* A strict JSON checker for tests of what the library and tools write. */
#ifndef WEIR_TESTS_JSON_H
#define WEIR_TESTS_JSON_H

#include <stddef.h>

/* NULL if `text` is one JSON value (RFC 8259) and nothing else, else what is
 * wrong; *at, if not NULL, is then the offset of the fault. */
const char *json_check(const char *text, size_t *at);

/* The whole file, NUL-terminated, for the caller to free; NULL with errno. */
char *json_read_file(const char *name);

/* How often `what` occurs in `text`. */
size_t json_count(const char *text, const char *what);

#endif
