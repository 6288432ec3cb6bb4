/* SPDX-License-Identifier: MIT */
/* Files that are there whole or not at all; see file.h. */
#define _GNU_SOURCE
#include "runtime/image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/embed.h>

#include "runtime/image/output.h"

/* ---- The name ------------------------------------------------------------ */

/* f->path and f->base.  A symbolic link stays, the file it leads to is
 * replaced. */
static int find_path(struct wi_file *f, const char *path)
{
	struct stat st;
	char *slash;

	if (lstat(path, &st)) {
		if (errno != ENOENT)
			return wi_output_failed(path, "create", errno);
		f->path = strdup(path);
	} else if (S_ISLNK(st.st_mode)) {
		f->path = realpath(path, NULL);
		if (!f->path && errno != ENOMEM)
			return wi_output_failed(path, "follow the link", errno);
	} else {
		f->path = strdup(path);
	}
	if (!f->path)
		return weir_error_set(ENOMEM, "%.200s: no memory", path);
	if (!stat(f->path, &st) && !S_ISREG(st.st_mode))
		return weir_error_set(
			EINVAL,
			"%.200s: not a regular file, which could be replaced "
			"by a whole one; weir_image_write_fd() writes to "
			"pipes and devices",
			path);
	slash = strrchr(f->path, '/');
	f->base = slash ? slash + 1 : f->path;
	if (!*f->base)
		return weir_error_set(EINVAL, "\"%.200s\" is no file's name",
				      path);
	return 0;
}

static int open_directory(struct wi_file *f)
{
	if (f->base == f->path) {
		f->dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else {
		/* With its slash: "/x" is in "/". */
		char first = *f->base;

		*f->base = '\0';
		f->dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		*f->base = first;
	}
	return f->dir < 0
		       ? wi_output_failed(f->path, "open its directory", errno)
		       : 0;
}

static int random_name(struct wi_file *f)
{
	uint64_t random;

	if (getrandom(&random, sizeof random, 0) != sizeof random)
		return errno;
	snprintf(f->temp, sizeof f->temp, ".weir-%016llx.tmp",
		 (unsigned long long)random);
	return 0;
}

/* ---- Steps --------------------------------------------------------------- */

static int open_named(struct wi_file *f, mode_t mode)
{
	for (int tries = 0; tries < 100; tries++) {
		int err = random_name(f);

		if (err)
			return err;
		f->fd = openat(f->dir, f->temp,
			       O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
		if (f->fd >= 0) {
			f->named = true;
			return 0;
		}
		if (errno != EEXIST)
			return errno;
	}
	return EEXIST;
}

static int open_temporary(struct wi_file *f, mode_t mode)
{
	/* Without /proc it could not be given a name later. */
	if (!access("/proc/self/fd", X_OK)) {
		f->fd = openat(f->dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC,
			       mode);
		if (f->fd >= 0)
			return 0;
		if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL &&
		    errno != ENOENT)
			return errno;
	}
	return open_named(f, mode);
}

/* Give an unnamed file its temporary name. */
static int name_it(struct wi_file *f)
{
	char proc[64];

	snprintf(proc, sizeof proc, "/proc/self/fd/%d", f->fd);
	for (int tries = 0; tries < 100; tries++) {
		int err = random_name(f);

		if (err)
			return err;
		if (!linkat(AT_FDCWD, proc, f->dir, f->temp,
			    AT_SYMLINK_FOLLOW)) {
			f->named = true;
			return 0;
		}
		if (errno != EEXIST)
			return errno;
	}
	return EEXIST;
}

/* ---- What is called ------------------------------------------------------ */

int wi_file_create(struct wi_file *f, const char *path, mode_t mode)
{
	int err;

	*f = (struct wi_file){.fd = -1, .dir = -1};
	err = find_path(f, path);
	if (!err)
		err = open_directory(f);
	if (!err) {
		int sys = open_temporary(f, mode);

		if (sys)
			err = wi_output_failed(path, "create", sys);
	}
	if (err)
		wi_file_discard(f);
	return err;
}

int wi_file_commit(struct wi_file *f)
{
	int err = 0, sys;

	if (wi_sys.fsync(f->fd))
		err = wi_output_failed(f->path, "write to the disk", errno);
	if (!err && !f->named) {
		sys = name_it(f);
		if (sys)
			err = wi_output_failed(f->path, "name it", sys);
	}
	if (!err) {
		if (wi_sys.renameat(f->dir, f->temp, f->dir, f->base))
			err = wi_output_failed(f->path, "rename to it", errno);
		else
			f->named = false;
	}
	if (!err && wi_sys.fsync(f->dir)) {
		sys = errno;
		err = weir_error_set(sys,
				     "%.200s: was replaced, but a crash may "
				     "bring the old file back: cannot sync its "
				     "directory: %s",
				     f->path, strerror(sys));
	}
	wi_file_discard(f);
	return err;
}

void wi_file_discard(struct wi_file *f)
{
	int saved = errno;

	if (f->named)
		unlinkat(f->dir, f->temp, 0);
	if (f->fd >= 0)
		close(f->fd);
	if (f->dir >= 0)
		close(f->dir);
	free(f->path);
	*f = (struct wi_file){.fd = -1, .dir = -1};
	errno = saved;
}
