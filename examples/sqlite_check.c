/* SPDX-License-Identifier: MIT */
/*
 * The check of a file; see sqlite_check.h.  It replays nothing but who wrote
 * each row last, four bytes a row.
 */
#include "examples/sqlite_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct check {
	sqlite3 *db;                 /* the file, read-only */
	const struct moment *moment; /* it is to be as then */
	uint64_t rows;               /* of `item` */
	char *why;                   /* the first thing that is wrong */
	size_t why_bytes;            /* room there */
};

__attribute__((format(printf, 2, 3))) static bool wrong(struct check *c,
							const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(c->why, c->why_bytes, format, arguments);
	va_end(arguments);
	return false;
}

static bool check_size(struct check *c, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return wrong(c, "%s cannot be found", path);
	if ((size_t)st.st_size != c->moment->bytes)
		return wrong(c, "the file has %lld bytes, the database had %zu",
			     (long long)st.st_size, c->moment->bytes);
	return true;
}

static bool check_integrity(struct check *c)
{
	sqlite3_stmt *q = NULL;
	bool ok = false;

	if (!sqlite3_prepare_v2(c->db, "PRAGMA integrity_check(1)", -1, &q,
				NULL) &&
	    sqlite3_step(q) == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(q, 0);

		ok = text && !strcmp(text, "ok");
		if (!ok)
			wrong(c, "integrity_check: %s",
			      text ? text : "nothing");
	} else {
		wrong(c, "integrity_check: %s", sqlite3_errmsg(c->db));
	}
	sqlite3_finalize(q);
	return ok;
}

static uint64_t log_sum(const struct check *c, uint64_t t)
{
	uint64_t content[STORE_WORDS], sum = 0;

	for (unsigned i = 0; i < STORE_ITEMS; i++)
		sum ^= store_content(store_row(t, i, c->rows), t, content);
	return sum;
}

static bool check_log(struct check *c)
{
	sqlite3_stmt *q = NULL;
	uint64_t t = 0;
	bool ok = true;
	int rc = sqlite3_prepare_v2(
		c->db, "SELECT txn,sum FROM log ORDER BY txn", -1, &q, NULL);

	if (!rc)
		rc = sqlite3_step(q);
	for (; ok && rc == SQLITE_ROW; rc = sqlite3_step(q)) {
		uint64_t got = (uint64_t)sqlite3_column_int64(q, 0);

		if (got != ++t)
			ok = wrong(c, "transaction %" PRIu64 " is not there",
				   t);
		else if ((uint64_t)sqlite3_column_int64(q, 1) != log_sum(c, t))
			ok = wrong(c, "transaction %" PRIu64 ": wrong sum", t);
	}
	if (ok && rc != SQLITE_DONE)
		ok = wrong(c, "log: %s", sqlite3_errmsg(c->db));
	if (ok && t != c->moment->last)
		ok = wrong(c,
			   "the last transaction is %" PRIu64
			   ", it was %" PRIu64,
			   t, c->moment->last);
	sqlite3_finalize(q);
	return ok;
}

static bool check_item(struct check *c, sqlite3_stmt *q, uint64_t row,
		       uint32_t last)
{
	uint64_t content[STORE_WORDS];

	if ((uint64_t)sqlite3_column_int64(q, 0) != row)
		return wrong(c, "row %" PRIu64 " is not there", row);
	if ((uint64_t)sqlite3_column_int64(q, 1) != last)
		return wrong(c,
			     "row %" PRIu64 " was written by transaction %lld, "
			     "not %u",
			     row, (long long)sqlite3_column_int64(q, 1), last);
	store_content(row, last, content);
	if (sqlite3_column_bytes(q, 2) != sizeof(content) ||
	    memcmp(sqlite3_column_blob(q, 2), content, sizeof(content)))
		return wrong(c, "row %" PRIu64 " has wrong content", row);
	return true;
}

static bool check_items(struct check *c)
{
	uint32_t *last = calloc(c->rows + 1, sizeof(*last));
	sqlite3_stmt *q = NULL;
	uint64_t row = 0;
	bool ok = last;
	int rc;

	if (!last)
		return wrong(c, "no memory to check");
	for (uint64_t t = 1; t <= c->moment->last; t++)
		for (unsigned i = 0; i < STORE_ITEMS; i++)
			last[store_row(t, i, c->rows)] = (uint32_t)t;
	rc = sqlite3_prepare_v2(c->db,
				"SELECT id,txn,content FROM item ORDER BY id",
				-1, &q, NULL);
	if (!rc)
		rc = sqlite3_step(q);
	for (; ok && rc == SQLITE_ROW && row < c->rows; rc = sqlite3_step(q)) {
		row++;
		ok = check_item(c, q, row, last[row]);
	}
	if (ok && rc != SQLITE_DONE)
		ok = wrong(c, "item: %s", sqlite3_errmsg(c->db));
	if (ok && row != c->rows)
		ok = wrong(c, "rows: %" PRIu64 " instead of %" PRIu64, row,
			   c->rows);
	sqlite3_finalize(q);
	free(last);
	return ok;
}

bool check_file(const char *path, const struct moment *moment, uint64_t rows,
		char *why, size_t why_bytes)
{
	struct check c = {.moment = moment,
			  .rows = rows,
			  .why = why,
			  .why_bytes = why_bytes};
	bool ok = check_size(&c, path);

	*why = ok ? 0 : *why;
	if (ok && sqlite3_open_v2(path, &c.db, SQLITE_OPEN_READONLY, NULL))
		ok = wrong(&c, "%s: %s", path, sqlite3_errmsg(c.db));
	ok = ok && check_integrity(&c) && check_log(&c) && check_items(&c);
	sqlite3_close(c.db);
	return ok;
}
