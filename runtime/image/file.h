/* SPDX-License-Identifier: MIT */
/*
 * Files that are there whole or not at all.
 *
 *	wi_file_create(&f, path, mode);
 *	... write to f.fd ...
 *	wi_file_commit(&f);     or wi_file_discard(&f)
 *
 * Until commit `path` is what it was; from then on, also after a crash, it is
 * the new file.  Where the file system has files without a name (O_TMPFILE) a
 * process that is killed leaves nothing behind; elsewhere, and between the last
 * two steps of commit, a file ".weir-" RANDOM ".tmp" in the same directory.
 */
#ifndef WEIR_RUNTIME_IMAGE_FILE_H
#define WEIR_RUNTIME_IMAGE_FILE_H

#include <stdbool.h>
#include <sys/types.h>

struct wi_file {
	int fd;        /* to be written to; close-on-exec */
	int dir;       /* the directory */
	bool named;    /* `temp` is in the directory */
	char temp[32]; /* name for the file before it has its own */
	char *path;    /* as it is to be called, links resolved */
	char *base;    /* name in the directory, the end of path */
};

/* -EINVAL: what is there is no regular file.  mode as in open(2). */
int wi_file_create(struct wi_file *f, const char *path, mode_t mode);
/* Sync, give it its name, sync the directory.  Ends f, also if it fails: then
 * path is what it was, but where only the directory's sync failed. */
int wi_file_commit(struct wi_file *f);
/* Ends f; errno and the error text stay. */
void wi_file_discard(struct wi_file *f);

#endif
