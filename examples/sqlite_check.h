/* SPDX-License-Identifier: MIT */
/*
 * Is a file the database of sqlite_store.h as it was at a moment?  SQLite's own
 * integrity_check, then every row: `log` has the transactions 1 to the last
 * and their checksums, and every row of `item` has the content that the last
 * transaction to write it gave it.  A transaction that is missing, is there in
 * part or is one too many cannot pass, nor can a byte of a row that changed.
 */
#ifndef WEIR_EXAMPLES_SQLITE_CHECK_H
#define WEIR_EXAMPLES_SQLITE_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "examples/sqlite_store.h"

/* True, or false and why not in `why`. */
bool check_file(const char *path, const struct moment *moment, uint64_t rows,
		char *why, size_t why_bytes);

#endif
