/* SPDX-License-Identifier: MIT */
/*
 * The text that the word index indexes, outside the collected heap.
 *
 * Files are read once, unpacked if they are gzip files, and kept end to end
 * in an anonymous file (memfd), cut into documents of at most CORPUS_DOCUMENT
 * bytes.  From then on the text is only read with pread(2): it is the
 * program's disk.  It is not mapped, so it counts in no resident set.
 *
 *   corpus_read, corpus_free   one thread, before and after all others
 *   the rest                   any thread
 */
#ifndef WEIR_EXAMPLES_WI_CORPUS_H
#define WEIR_EXAMPLES_WI_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest document; longer files are cut into several at a blank. */
#define CORPUS_DOCUMENT 8192u

/* One document: a piece of one file. */
struct corpus_document {
	uint64_t offset; /* of its first byte in the anonymous file */
	uint32_t length; /* bytes, 1 to CORPUS_DOCUMENT */
	uint32_t file;   /* index into corpus.path */
};

struct corpus {
	int fd;              /* the anonymous file */
	uint64_t text_bytes; /* text held in it */
	uint64_t disk_bytes; /* bytes of the files it came from */
	uint32_t files;      /* text files read */
	uint32_t skipped;    /* files that are no text, or empty */
	uint32_t crc;        /* CRC-32 of the text */
	bool limited;        /* the limit was reached: files are left */
	char **path;         /* names of the files read */
	size_t documents;    /* entries in document[] */
	struct corpus_document *document; /* in the order they were read */
};

/*
 * Read every text file below the n paths, in the order of their names, until
 * `limit` bytes of text are there.  Symbolic links are not followed.  Returns
 * 0 or a negative errno; -ENODATA if there was no text at all.
 */
int corpus_read(struct corpus *corpus, char *const *paths, size_t n,
		uint64_t limit);
void corpus_free(struct corpus *corpus);

/* Read document `i` to `text`, which has room for its length. */
void corpus_text(const struct corpus *corpus, size_t i, char *text);

#endif
