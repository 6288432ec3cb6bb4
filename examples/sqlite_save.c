/* SPDX-License-Identifier: MIT */
/*
 * The other ways to save, and what is common to all: see sqlite_save.h.  Each
 * gets what is best for it: sqlite3_backup writes without a journal and without
 * syncing (the file has no name yet), fork() is called with nobody in the
 * kernel's way, and the child only writes.
 */
#define _GNU_SOURCE
#include "examples/sqlite_save.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK ((size_t)256 << 10) /* of a write, as weir's */

const char *save_name(enum save_method method)
{
	static const char *const names[] = {
#define X(name, text, what) text,
		SAVE_METHODS(X)
#undef X
	};

	return names[method];
}

int save_write(int fd, const char *data, size_t bytes, uint64_t offset)
{
	while (bytes) {
		ssize_t n = pwrite(fd, data, bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		data += n;
		bytes -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int write_all(int fd, const char *data, size_t bytes)
{
	int err = 0;

	for (size_t at = 0; at < bytes && !err; at += CHUNK)
		err = save_write(fd, data + at,
				 bytes - at < CHUNK ? bytes - at : CHUNK, at);
	return err;
}

static int write_failed(int err)
{
	return err ? store_complain(NULL, strerror(-err)) : 0;
}

/* ---- fork() ------------------------------------------------------------- */

/* In the child, of many threads the only one: system calls, nothing else. */
static void child_main(const struct save *v, int fd, int done, int leave)
{
	char err = (char)-write_all(fd, v->store->memory, v->moment.bytes);

	if (!err && v->sync && fsync(fd))
		err = (char)errno;
	/* It stays until its memory was looked at. */
	if (write(done, &err, 1) == 1 && !read(leave, &err, 1))
		_exit(0);
	_exit(1);
}

static int attend_child(struct save *v, pid_t child, int done, int *leave)
{
	char err = EIO;
	int status;
	ssize_t n;

	memory_child(v->memory, child);
	n = read(done, &err, 1);
	memory_sample(v->memory);
	memory_child(v->memory, 0);
	close(*leave);
	*leave = -1;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return write_failed(n == 1 ? -err : -EIO);
}

static int save_fork(struct save *v, int fd)
{
	int done[2], leave[2], err = -1;
	uint64_t start, cpu;
	pid_t child;

	if (pipe2(done, O_CLOEXEC))
		return write_failed(-errno);
	if (pipe2(leave, O_CLOEXEC)) {
		close(done[0]);
		close(done[1]);
		return write_failed(-errno);
	}
	memory_lock(v->memory);
	gate_hold(&v->store->gate);
	start = store_now();
	cpu = store_cpu();
	err = store_moment(v->store, &v->moment);
	child = err ? -1 : fork();
	if (!child) {
		close(leave[1]);
		child_main(v, fd, done[1], leave[0]);
	}
	v->held_ns = store_now() - start;
	v->held_cpu_ns = store_cpu() - cpu;
	gate_release(&v->store->gate);
	memory_unlock(v->memory);
	close(done[1]);
	close(leave[0]);
	err = child < 0 ? write_failed(-errno)
			: attend_child(v, child, done[0], &leave[1]);
	close(done[0]);
	if (leave[1] >= 0)
		close(leave[1]);
	return err;
}

/* ---- SQLite's own ------------------------------------------------------- */

static int save_serialize(struct save *v, int fd)
{
	sqlite3_int64 bytes;
	unsigned char *copy;
	uint64_t start, cpu;
	int err;

	gate_hold(&v->store->gate);
	start = store_now();
	cpu = store_cpu();
	err = store_moment(v->store, &v->moment);
	copy = sqlite3_serialize(v->store->db, "main", &bytes, 0);
	v->held_ns = store_now() - start;
	v->held_cpu_ns = store_cpu() - cpu;
	gate_release(&v->store->gate);
	if (!err)
		err = copy ? write_failed(
				     write_all(fd, (char *)copy, (size_t)bytes))
			   : store_complain(NULL, "serialize: no memory");
	memory_sample(v->memory);
	sqlite3_free(copy);
	return err;
}

/* Steps of `pages`, each with the writers held off. */
static int backup_steps(struct save *v, sqlite3_backup *b, int pages)
{
	int rc = SQLITE_OK, err = 0;

	while (!err && rc == SQLITE_OK) {
		uint64_t start, cpu, took;

		gate_hold(&v->store->gate);
		start = store_now();
		cpu = store_cpu();
		rc = sqlite3_backup_step(b, pages);
		/* The one that was the last says what it is a copy of. */
		err = store_moment(v->store, &v->moment);
		took = store_now() - start;
		cpu = store_cpu() - cpu;
		gate_release(&v->store->gate);
		if (took > v->held_ns)
			v->held_ns = took;
		if (cpu > v->held_cpu_ns)
			v->held_cpu_ns = cpu;
		if (rc == SQLITE_OK && v->step_pause_us)
			usleep(v->step_pause_us);
	}
	return err || rc != SQLITE_DONE ? -1 : 0;
}

static int save_backup(struct save *v, const char *path, int pages)
{
	sqlite3_backup *b = NULL;
	sqlite3 *to = NULL;
	int err = -1;

	if (!sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE, NULL) &&
	    !sqlite3_exec(to,
			  "PRAGMA synchronous=OFF;PRAGMA journal_mode=OFF;"
			  "PRAGMA locking_mode=EXCLUSIVE;",
			  NULL, NULL, NULL)) {
		/* It sets the database's error state, which is the writers'. */
		gate_hold(&v->store->gate);
		b = sqlite3_backup_init(to, "main", v->store->db, "main");
		gate_release(&v->store->gate);
	}
	if (b) {
		err = backup_steps(v, b, pages);
		gate_hold(&v->store->gate);
		if (sqlite3_backup_finish(b))
			err = -1;
		gate_release(&v->store->gate);
	}
	if (err)
		store_complain(to, "backup");
	memory_sample(v->memory);
	sqlite3_close(to);
	return err;
}

/* ---- No way ------------------------------------------------------------- */

static int save_torn(struct save *v, int fd)
{
	int err;

	gate_hold(&v->store->gate);
	err = store_moment(v->store, &v->moment);
	gate_release(&v->store->gate);
	return err ? err
		   : write_failed(
			     write_all(fd, v->store->memory, v->moment.bytes));
}

/* ---- All ---------------------------------------------------------------- */

static int run_method(struct save *v, int fd, const char *path)
{
	switch (v->method) {
	case SAVE_WEIR:
		return save_weir(v, fd);
	case SAVE_BACKUP:
		return save_backup(v, path, -1);
	case SAVE_STEPS:
		return save_backup(v, path, (int)v->step_pages);
	case SAVE_SERIALIZE:
		return save_serialize(v, fd);
	case SAVE_FORK:
		return save_fork(v, fd);
	default:
		return save_torn(v, fd);
	}
}

int save_run(struct save *v)
{
	uint64_t start = store_now();
	char path[4096];
	int fd, err;

	v->held_ns = v->held_cpu_ns = v->prepare_ns = 0;
	memset(&v->figures, 0, sizeof(v->figures));
	if (snprintf(path, sizeof(path), "%s.%d.new", v->path, (int)getpid()) >=
	    (int)sizeof(path))
		return store_complain(NULL, "the file's name is too long");
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0) {
		fprintf(stderr, "sqlite-snapshot: %s: %s\n", path,
			strerror(errno));
		return -1;
	}
	err = run_method(v, fd, path);
	v->copied_ns = store_now() - start;
	if (!err && ((v->sync && fsync(fd)) || rename(path, v->path)))
		err = write_failed(-errno);
	v->total_ns = store_now() - start;
	close(fd);
	if (err)
		unlink(path);
	return err;
}
