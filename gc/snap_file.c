/* SPDX-License-Identifier: MIT */
/*
 * Heap dumps to descriptors and files.
 *
 * A file is written under a temporary name in its directory, synced, and
 * renamed, so that whoever opens it finds the old one or the new.
 *
 *   any thread; one that is attached does it in a blocking region
 */
#define _GNU_SOURCE
#include "gc/snap_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int weir_heap_snapshot_dump_fd(const weir_heap_snapshot *s, int fd)
{
	int err = wg_snap_valid(s, __func__);
	char name[32];

	if (err)
		return err;
	snprintf(name, sizeof(name), "descriptor %d", fd);
	return wg_snap_dump_to(s, fd, __func__, name);
}

static int cannot(const char *path, const char *what, int err)
{
	return wr_error(err,
			"weir_heap_snapshot_dump_file: %s: cannot %s: "
			"%s",
			path, what, strerror(err));
}

/* The directory knows of the new name. */
static int sync_directory(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
	int fd, err = 0;

	if (!copy)
		return cannot(path, "sync its directory", ENOMEM);
	if (slash)
		slash[slash == copy] = 0;
	fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		err = cannot(path, "sync its directory", errno);
	if (fd >= 0)
		close(fd);
	free(copy);
	return err;
}

static int dump_beside(const struct weir_heap_snapshot *s, const char *path)
{
	size_t room_for = strlen(path) + sizeof(".XXXXXX");
	char *temp = malloc(room_for);
	int err, fd;

	if (!temp)
		return cannot(path, "write the heap dump", ENOMEM);
	snprintf(temp, room_for, "%s.XXXXXX", path);
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0) {
		err = cannot(path, "create a file beside it", errno);
		free(temp);
		return err;
	}
	err = wg_snap_dump_to(s, fd, "weir_heap_snapshot_dump_file", path);
	if (!err && fsync(fd))
		err = cannot(path, "write to the disk", errno);
	if (close(fd) && !err)
		err = cannot(path, "write to the disk", errno);
	if (!err && rename(temp, path))
		err = cannot(path, "rename to it", errno);
	if (err)
		unlink(temp);
	else
		err = sync_directory(path);
	free(temp);
	return err;
}

int weir_heap_snapshot_dump_file(const weir_heap_snapshot *s, const char *path)
{
	int err = wg_snap_valid(s, __func__);
	struct stat st;
	char *real;

	if (err)
		return err;
	if (!path || !*path)
		return wr_invalid(__func__, "the path is NULL or empty");
	if (stat(path, &st))
		/* None there yet; or why not shows when it is created. */
		return dump_beside(s, path);
	if (!S_ISREG(st.st_mode))
		return wr_error(EINVAL,
				"weir_heap_snapshot_dump_file: %s: not a "
				"regular file; open it and call "
				"weir_heap_snapshot_dump_fd()",
				path);
	real = realpath(path, NULL);
	if (!real)
		return cannot(path, "follow it", errno);
	err = dump_beside(s, real);
	free(real);
	return err;
}

int weir_heap_dump(weir_heap *h, const char *path)
{
	struct weir_mutator *m = wg_mutator_self();
	weir_heap_snapshot *s;
	int err = wg_heap_enter(h);
	bool blocked;

	if (!err && (!path || !*path))
		err = wr_invalid(__func__, "the path is NULL or empty");
	if (!err)
		err = weir_heap_snapshot_take(h, &s);
	if (err)
		return err;
	/* It takes long, and no part of the heap. */
	blocked = wg_region_enter(m);
	err = weir_heap_snapshot_dump_file(s, path);
	weir_heap_snapshot_free(s);
	wg_region_leave(m, blocked);
	return err;
}
