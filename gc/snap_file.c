/* SPDX-License-Identifier: MIT */
/*
 * Heap dumps to descriptors and files.
 *
 * A file is written under a temporary name in its directory, synced, and
 * renamed, so that whoever opens it finds the old one or the new.
 *
 * Nothing of the heap is looked at, and it takes long, be it that a pipe is
 * full or a disk slow: an attached thread counts as blocked meanwhile.  Nor is
 * any of it a cancellation point, which would leave half of a file.
 *
 *   any thread
 */
#define _GNU_SOURCE
#include "gc/snap_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int weir_heap_snapshot_dump_fd(const weir_heap_snapshot *s, int fd)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_snap_valid(s, __func__), cancel;
	bool blocked;
	char name[32];

	if (err)
		return err;
	snprintf(name, sizeof(name), "descriptor %d", fd);
	blocked = wg_region_enter(m);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	err = wg_snap_dump_to(s, fd, __func__, name);
	pthread_setcancelstate(cancel, NULL);
	wg_region_leave(m, blocked);
	return err;
}

static int cannot(const char *path, const char *what, int err)
{
	return wr_error(err,
			"weir_heap_snapshot_dump_file: %s: cannot %s: "
			"%s",
			path, what, strerror(err));
}

/* The directory that path is in. */
static int open_directory(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
	int fd;

	if (!copy)
		return cannot(path, "open its directory", ENOMEM);
	if (slash)
		slash[slash == copy] = 0;
	fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = cannot(path, "open its directory", errno);
	free(copy);
	return fd;
}

/* The file `temp`, open as fd, takes the place of `path`. */
static int replace(const char *path, const char *temp, int fd, int dir)
{
	int err = 0;

	if (fsync(fd))
		err = cannot(path, "write to the disk", errno);
	if (close(fd) && !err)
		err = cannot(path, "write to the disk", errno);
	if (!err && rename(temp, path))
		err = cannot(path, "rename to it", errno);
	if (err)
		unlink(temp);
	else if (fsync(dir))
		err = cannot(path, "sync its directory", errno);
	return err;
}

static int dump_beside(const struct weir_heap_snapshot *s, const char *path)
{
	size_t room_for = strlen(path) + sizeof(".XXXXXX");
	char *temp = malloc(room_for);
	int err, fd, dir;

	if (!temp)
		return cannot(path, "write the heap dump", ENOMEM);
	/* First: what cannot be synced is not replaced. */
	dir = open_directory(path);
	if (dir < 0) {
		free(temp);
		return dir;
	}
	snprintf(temp, room_for, "%s.XXXXXX", path);
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0) {
		err = cannot(path, "create a file beside it", errno);
	} else {
		err = wg_snap_dump_to(s, fd, "weir_heap_snapshot_dump_file",
				      path);
		if (!err) {
			err = replace(path, temp, fd, dir);
		} else {
			close(fd);
			unlink(temp);
		}
	}
	close(dir);
	free(temp);
	return err;
}

/* To path, or what it is a link to: a link stays, also one to nothing. */
static int dump_at(const struct weir_heap_snapshot *s, const char *path)
{
	struct stat st;
	char *real;
	int err;

	if (lstat(path, &st))
		/* None there yet; or why not shows when it is created. */
		return dump_beside(s, path);
	real = realpath(path, NULL);
	if (!real)
		return cannot(path, "follow it", errno);
	if (!stat(real, &st) && !S_ISREG(st.st_mode))
		err = wr_error(EINVAL,
			       "weir_heap_snapshot_dump_file: %s: not a "
			       "regular file; open it and call "
			       "weir_heap_snapshot_dump_fd()",
			       path);
	else
		err = dump_beside(s, real);
	free(real);
	return err;
}

int weir_heap_snapshot_dump_file(const weir_heap_snapshot *s, const char *path)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_snap_valid(s, __func__), cancel;
	bool blocked;

	if (err)
		return err;
	if (!path || !*path)
		return wr_invalid(__func__, "the path is NULL or empty");
	blocked = wg_region_enter(m);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	err = dump_at(s, path);
	pthread_setcancelstate(cancel, NULL);
	wg_region_leave(m, blocked);
	return err;
}

int weir_heap_dump(weir_heap *h, const char *path)
{
	weir_heap_snapshot *s;
	int err = wg_heap_enter(h);

	if (!err && (!path || !*path))
		err = wr_invalid(__func__, "the path is NULL or empty");
	if (!err)
		err = weir_heap_snapshot_take(h, &s);
	if (err)
		return err;
	err = weir_heap_snapshot_dump_file(s, path);
	weir_heap_snapshot_free(s);
	return err;
}
