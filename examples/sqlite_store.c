/* SPDX-License-Identifier: MIT */
/*
 * The database in memory.  sqlite3_deserialize() is given all of the memory as
 * its buffer and no flag: then the memdb VFS grows the database in place, with
 * memcpy(), up to the buffer's end (SQLITE_FULL), and never moves or frees it;
 * SQLITE_DESERIALIZE_RESIZEABLE would let it call realloc().  Only so much of a
 * region is in use as the database needs: it grows between transactions, and
 * max_page_count sees to it that no transaction writes past that.
 */
#define _GNU_SOURCE
#include "examples/sqlite_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE ((size_t)2 << 20)
#define SLACK ((size_t)16 << 20) /* room that a transaction finds */
#define STEP ((size_t)32 << 20)  /* by which a region grows */
#define FILL 4096u               /* rows of a transaction that fills it */

int store_complain(sqlite3 *db, const char *what)
{
	fprintf(stderr, "sqlite-snapshot: %s%s%s\n", what, db ? ": " : "",
		db ? sqlite3_errmsg(db) : "");
	return -1;
}

/* ---- The gate ----------------------------------------------------------- */

void gate_open(struct gate *g)
{
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->writers, NULL);
	pthread_cond_init(&g->saver, NULL);
	g->inside = g->held = false;
	g->held_at = g->released_at = 0;
}

uint64_t gate_enter(struct gate *g, uint64_t start)
{
	uint64_t from = 0;

	pthread_mutex_lock(&g->lock);
	while (g->held || g->inside)
		pthread_cond_wait(&g->writers, &g->lock);
	g->inside = true;
	/* Also if it did not come here while the gate was held, for it might
	 * have, had it been given a processor. */
	if (g->released_at > start)
		from = g->held_at > start ? g->held_at : start;
	g->held_at = 0;
	pthread_mutex_unlock(&g->lock);
	return from ? store_now() - from : 0;
}

void gate_leave(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->inside = false;
	if (g->held)
		pthread_cond_signal(&g->saver);
	else
		pthread_cond_signal(&g->writers);
	pthread_mutex_unlock(&g->lock);
}

void gate_hold(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->held = true;
	if (!g->held_at)
		g->held_at = store_now();
	while (g->inside)
		pthread_cond_wait(&g->saver, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

void gate_release(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->held = false;
	g->released_at = store_now();
	pthread_cond_broadcast(&g->writers);
	pthread_mutex_unlock(&g->lock);
}

/* ---- Its memory --------------------------------------------------------- */

static int plain_memory(struct store *s, bool huge)
{
	s->mapped = s->limit + HUGE;
	s->mapping = mmap(NULL, s->mapped, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->mapping == MAP_FAILED) {
		s->mapping = NULL;
		return store_complain(NULL, "no memory for the database");
	}
	s->memory = (char *)(((uintptr_t)s->mapping + HUGE - 1) & ~(HUGE - 1));
	madvise(s->memory, s->limit, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	s->room = s->limit;
	return 0;
}

static int region_memory(struct store *s, const struct store_options *o)
{
	struct weir_region_options how = {
		.size = sizeof(how),
		.flags = WEIR_REGION_USER_WRITES |
			 (o->huge && !o->small_units ? WEIR_REGION_HUGE : 0),
		.barrier = o->barrier,
		.name = "sqlite",
	};
	struct weir_region_info info = {.size = sizeof(info)};
	int err;

	/* Huge pages that are protected and saved by 4 KiB: memory of our
	 * own, for what weir reserves has huge pages just with huge units. */
	if (o->small_units) {
		if (plain_memory(s, o->huge))
			return -1;
		err = weir_region_adopt(s->memory, s->limit, &how, &s->region);
	} else {
		err = weir_region_reserve(STEP, s->limit, &how, &s->region);
	}
	if (err)
		return store_complain(NULL, weir_error_text());
	weir_region_info(s->region, &info);
	s->memory = info.address;
	s->room = info.bytes;
	return 0;
}

static int set_page_limit(struct store *s)
{
	char sql[64];

	snprintf(sql, sizeof(sql), "PRAGMA max_page_count=%zu",
		 s->room / STORE_PAGE);
	if (sqlite3_exec(s->db, sql, NULL, NULL, NULL))
		return store_complain(s->db, sql);
	return 0;
}

/* Let the memory in use reach SLACK past `bytes`. */
static int make_room(struct store *s, size_t bytes)
{
	size_t want = bytes + SLACK;

	if (want <= s->room || s->room == s->limit)
		return 0;
	want = (want + STEP - 1) / STEP * STEP;
	if (want > s->limit)
		want = s->limit;
	if (weir_region_grow(s->region, want))
		return store_complain(NULL, weir_error_text());
	s->room = want;
	return s->db ? set_page_limit(s) : 0;
}

static int load(struct store *s, const char *path, size_t *bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	/* read(2) may write to a region as long as no snapshot is on. */
	while (fd >= 0 && *bytes < s->limit) {
		if (make_room(s, *bytes))
			break;
		n = read(fd, s->memory + *bytes, s->room - *bytes);
		if (n <= 0)
			break;
		*bytes += (size_t)n;
	}
	if (fd >= 0)
		close(fd);
	if (fd >= 0 && !n && *bytes)
		return 0;
	fprintf(stderr, "sqlite-snapshot: %s: %s\n", path,
		fd < 0 || n < 0 ? strerror(errno)
				: "not a database that fits here");
	return -1;
}

/* ---- Its content -------------------------------------------------------- */

int store_moment(const struct store *s, struct moment *moment)
{
	sqlite3_int64 bytes = 0;

	if ((char *)sqlite3_serialize(s->db, "main", &bytes,
				      SQLITE_SERIALIZE_NOCOPY) != s->memory)
		return store_complain(NULL, "SQLite moved the database");
	moment->bytes = (size_t)bytes;
	moment->last = s->last;
	return 0;
}

static int step(sqlite3_stmt *statement)
{
	int rc = sqlite3_step(statement);

	sqlite3_reset(statement);
	return rc == SQLITE_DONE ? 0 : -1;
}

static int write_item(struct store *s, uint64_t row, uint64_t t, uint64_t *sum)
{
	uint64_t content[STORE_WORDS];

	*sum ^= store_content(row, t, content);
	sqlite3_bind_int64(s->item, 1, (sqlite3_int64)row);
	sqlite3_bind_int64(s->item, 2, (sqlite3_int64)t);
	sqlite3_bind_blob(s->item, 3, content, sizeof(content), SQLITE_STATIC);
	return step(s->item);
}

static int write_all(struct store *s, uint64_t t)
{
	uint64_t sum = 0;

	if (step(s->begin))
		return -1;
	for (unsigned i = 0; i < STORE_ITEMS; i++)
		if (write_item(s, store_row(t, i, s->rows), t, &sum))
			return -1;
	sqlite3_bind_int64(s->log, 1, (sqlite3_int64)t);
	sqlite3_bind_int64(s->log, 2, (sqlite3_int64)sum);
	return step(s->log) || step(s->commit) ? -1 : 0;
}

int store_transact(struct store *s)
{
	struct moment now;

	if (write_all(s, s->last + 1)) {
		store_complain(s->db, "a transaction");
		step(s->rollback);
		return -1;
	}
	s->last++;
	return store_moment(s, &now) || make_room(s, now.bytes) ? -1 : 0;
}

static int fill(struct store *s, size_t bytes)
{
	uint64_t rows = bytes / STORE_PAGE * 4, row = 1, sum = 0;
	struct moment now = {0};

	while (row <= rows) {
		if (step(s->begin))
			return store_complain(s->db, "filling");
		for (unsigned i = 0; i < FILL && row <= rows; i++, row++)
			if (write_item(s, row, 0, &sum))
				return store_complain(s->db, "filling");
		if (step(s->commit))
			return store_complain(s->db, "filling");
		if (store_moment(s, &now) || make_room(s, now.bytes))
			return -1;
	}
	return 0;
}

static int get_number(struct store *s, const char *sql, uint64_t *out)
{
	sqlite3_stmt *q = NULL;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &q, NULL);

	if (!rc && sqlite3_step(q) == SQLITE_ROW)
		*out = (uint64_t)sqlite3_column_int64(q, 0);
	else
		rc = store_complain(s->db, sql);
	sqlite3_finalize(q);
	return rc ? -1 : 0;
}

static int prepare(struct store *s)
{
	const struct {
		sqlite3_stmt **statement; /* out */
		const char *sql;          /* its text */
	} all[] = {
		{&s->begin, "BEGIN IMMEDIATE"},
		{&s->commit, "COMMIT"},
		{&s->rollback, "ROLLBACK"},
		{&s->log, "INSERT INTO log VALUES(?1,?2)"},
		{&s->item, "REPLACE INTO item VALUES(?1,?2,?3)"},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (sqlite3_prepare_v3(s->db, all[i].sql, -1,
				       SQLITE_PREPARE_PERSISTENT,
				       all[i].statement, NULL))
			return store_complain(s->db, all[i].sql);
	return 0;
}

/* `content` comes last in a row, so that it is whole at the end of a page. */
static const char schema[] =
	"CREATE TABLE item(id INTEGER PRIMARY KEY, txn INTEGER NOT NULL,"
	" content BLOB NOT NULL);"
	"CREATE TABLE log(txn INTEGER PRIMARY KEY, sum INTEGER NOT NULL);";

static int open_database(struct store *s, const struct store_options *o)
{
	size_t bytes = 0;

	if (o->from && load(s, o->from, &bytes))
		return -1;
	/* NOMUTEX: one thread at a time, the gate sees to it. */
	if (sqlite3_open_v2(":memory:", &s->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
			    NULL) ||
	    sqlite3_deserialize(s->db, "main", (unsigned char *)s->memory,
				(sqlite3_int64)bytes, (sqlite3_int64)s->limit,
				0))
		return store_complain(s->db, "opening the database");
	if (set_page_limit(s))
		return -1;
	if (!o->from && sqlite3_exec(s->db, schema, NULL, NULL, NULL))
		return store_complain(s->db, "making the tables");
	if (prepare(s) || (!o->from && fill(s, o->bytes)))
		return -1;
	return get_number(s, "SELECT count(*) FROM item", &s->rows) ||
			       get_number(s,
					  "SELECT ifnull(max(txn),0) "
					  "FROM log",
					  &s->last)
		       ? -1
		       : 0;
}

int store_open(struct store *s, const struct store_options *o)
{
	size_t bytes = o->bytes;
	struct stat st;

	memset(s, 0, sizeof(*s));
	gate_open(&s->gate);
	if (o->from && !stat(o->from, &st))
		bytes = (size_t)st.st_size;
	/* A quarter more and something for the log, in whole huge pages. */
	s->limit = (bytes + bytes / 4 + ((size_t)128 << 20)) & ~(HUGE - 1);
	if (o->region ? region_memory(s, o) : plain_memory(s, o->huge))
		return -1;
	return open_database(s, o);
}

void store_close(struct store *s)
{
	sqlite3_finalize(s->begin);
	sqlite3_finalize(s->commit);
	sqlite3_finalize(s->rollback);
	sqlite3_finalize(s->log);
	sqlite3_finalize(s->item);
	sqlite3_close(s->db);
	weir_region_release(s->region);
	if (s->mapping)
		munmap(s->mapping, s->mapped);
}
