/* SPDX-License-Identifier: MIT */
/*
 * Reading the text and cutting it into documents.
 *
 * Invariants: documents cover [0, text_bytes) in order without gaps or
 * overlaps, and none crosses the border between two files.
 */
#define _GNU_SOURCE
#include "examples/wi_corpus.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

/* A longer file is read up to here only. */
#define FILE_MAX (32u << 20)

static void *grow(void *p, size_t count, size_t size)
{
	/* Doubling: the array is full when count is a power of two. */
	if (count & (count - 1))
		return p;
	p = realloc(p, (count ? count * 2 : 1) * size);
	if (!p) {
		fprintf(stderr, "word-index: no memory for %zu entries\n",
			count * 2);
		exit(1);
	}
	return p;
}

/* Cut [base, base + length) of the anonymous file, which holds `text`. */
static void cut(struct corpus *c, uint64_t base, const char *text,
		size_t length)
{
	size_t done = 0;

	while (done < length) {
		size_t n = length - done;
		struct corpus_document *d;

		if (n > CORPUS_DOCUMENT) {
			n = CORPUS_DOCUMENT;
			while (n > CORPUS_DOCUMENT / 2 &&
			       (unsigned char)text[done + n - 1] > ' ')
				n--;
		}
		c->document = grow(c->document, c->documents, sizeof(*d));
		d = &c->document[c->documents++];
		d->offset = base + done;
		d->length = (uint32_t)n;
		d->file = c->files;
		done += n;
	}
}

static int store(struct corpus *c, const char *text, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = pwrite(c->fd, text + done, length - done,
				   (off_t)(c->text_bytes + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		done += (size_t)n;
	}
	return 0;
}

/* Read one file; gzread() hands over plain files as they are. */
static int read_file(struct corpus *c, const char *path, uint64_t size,
		     char *buffer, uint64_t limit)
{
	gzFile file = gzopen(path, "rb");
	size_t length = 0;
	int n, err;

	if (!file) {
		c->skipped++;
		return 0;
	}
	gzbuffer(file, 128 << 10);
	while (length < FILE_MAX) {
		n = gzread(file, buffer + length, FILE_MAX - length);
		if (n <= 0)
			break;
		/* A zero byte near the beginning: this is no text. */
		if (!length && memchr(buffer, 0, n < 4096 ? n : 4096)) {
			length = 0;
			break;
		}
		length += (size_t)n;
	}
	gzclose(file);
	if (length > limit - c->text_bytes)
		length = limit - c->text_bytes;
	if (!length) {
		c->skipped++;
		return 0;
	}
	err = store(c, buffer, length);
	if (err)
		return err;
	cut(c, c->text_bytes, buffer, length);
	c->crc = (uint32_t)crc32(c->crc, (const Bytef *)buffer, (uInt)length);
	c->text_bytes += length;
	c->disk_bytes += size;
	c->path = grow(c->path, c->files, sizeof(*c->path));
	c->path[c->files] = strdup(path);
	if (!c->path[c->files])
		return -ENOMEM;
	c->files++;
	return 0;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

int corpus_read(struct corpus *c, char *const *paths, size_t n, uint64_t limit)
{
	char **list, *buffer;
	FTSENT *entry;
	FTS *tree;
	int err = 0;

	memset(c, 0, sizeof(*c));
	c->fd = memfd_create("word-index", MFD_CLOEXEC);
	if (c->fd < 0)
		return -errno;
	list = calloc(n + 1, sizeof(*list));
	buffer = malloc(FILE_MAX);
	if (!list || !buffer) {
		err = -ENOMEM;
		goto out;
	}
	memcpy(list, paths, n * sizeof(*list));
	tree = fts_open(list, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	if (!tree) {
		err = -errno;
		goto out;
	}
	while (!err && (entry = fts_read(tree)) != NULL) {
		if (entry->fts_info != FTS_F)
			continue;
		if (c->text_bytes >= limit) {
			c->limited = true;
			break;
		}
		err = read_file(c, entry->fts_path,
				(uint64_t)entry->fts_statp->st_size, buffer,
				limit);
	}
	fts_close(tree);
	if (!err && !c->documents)
		err = -ENODATA;
out:
	free(buffer);
	free(list);
	if (err)
		corpus_free(c);
	return err;
}

void corpus_free(struct corpus *c)
{
	uint32_t i;

	for (i = 0; i < c->files; i++)
		free(c->path[i]);
	free(c->path);
	free(c->document);
	close(c->fd);
	memset(c, 0, sizeof(*c));
	c->fd = -1;
}

void corpus_text(const struct corpus *c, size_t i, char *text)
{
	const struct corpus_document *d = &c->document[i];
	size_t done = 0;

	while (done < d->length) {
		ssize_t n = pread(c->fd, text + done, d->length - done,
				  (off_t)(d->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		/* The file is ours and whole: anything else, EFAULT above
		 * all, means that read(2) into the heap went wrong. */
		if (n <= 0) {
			perror("word-index: reading a document");
			abort();
		}
		done += (size_t)n;
	}
}
