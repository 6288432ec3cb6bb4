/* SPDX-License-Identifier: MIT */
/*
 * Memory that fork() neither copies nor protects, whatever its size.
 *
 * It is a file without a name, mapped twice, at an address and at its alias,
 * and each chunk of it is in one of two states:
 *
 *   shared   at the address is the file itself.  fork() leaves it out.
 *   split    at the address is a private mapping of the file: what the process
 *            writes are copies of its own, which the kernel makes, and the file
 *            stays as it was at the moment of the split.
 *
 * split, before fork(): the page tables move to the alias (mremap() moves them
 * by the GiB, so that it takes microseconds), a private mapping takes their
 * place.  The child gets the same mapping by fork() itself, so that it sees
 * what any child of fork() would: nothing is left to be done in it.
 *
 * fold, when no child is left, a chunk at a time beside the program: the chunk
 * is write-protected by userfaultfd, what the process has written is copied
 * into the file through the alias, and the alias's page tables move back.  A
 * writer that meets the chunk meanwhile waits in the kernel.
 *
 *   start           split up to `split`, of which [0, folded) is shared again;
 *                   shared beyond it
 *   alias           the file, always; its page tables where it is split
 *
 *   who may call    one thread at a time (the caller's lock); the program uses
 *                   the memory as it likes beside it
 *
 * It needs no lock of malloc's and writes none of the memory itself, which the
 * one who folds would wait for for ever.
 */
#ifndef WEIR_COMPAT_REDIS_MEMORY_H
#define WEIR_COMPAT_REDIS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/uffd.h"

#define WR_MEMORY_CHUNK ((size_t)2 << 20)

struct wr_memory {
	char *start;          /* first byte, aligned to 1 GiB */
	char *alias;          /* of the other mapping, likewise */
	size_t limit;         /* bytes of both, whole GiB */
	size_t split;         /* bytes that were split; whole chunks */
	size_t folded;        /* of them, shared again; whole chunks */
	bool huge;            /* in pages of 2 MiB where the kernel has them */
	const uint64_t *used; /* a bit a page: what it holds matters, set before
			       * it is written; atomic words.  NULL: all do */
	int file;             /* the memory; close-on-exec */
	int pagemap;          /* /proc/self/pagemap */
	struct wr_uffd uffd;  /* protects what is folded */
	uint64_t held_ns;     /* the longest that writers could have to wait */
	uint64_t copied;      /* pages that were copied into the file, ever */
};

/* `limit` bytes, rounded up; `huge`: in huge pages.  -ENOTSUP with a text that
 * names the cause and the cure: something that it takes is not to be had; this
 * is tried out here. -ENOMEM, -EMFILE with text. */
int wr_memory_open(struct wr_memory *m, size_t limit, bool huge);
/* The file, shared, at `base` + [from, to), whatever is there. */
int wr_memory_map(const struct wr_memory *m, char *base, size_t from,
		  size_t to);
/* The mappings go, too. */
void wr_memory_close(struct wr_memory *m);

/* The first `bytes` bytes, rounded up, are split when it returns.  A negative
 * errno: all is as it was, or as good. */
int wr_memory_split(struct wr_memory *m, size_t bytes);

/* The next chunk.  1: there are more; 0: all is shared; a negative errno: try
 * again later. */
int wr_memory_fold(struct wr_memory *m);

/* Give whole pages back that nobody uses; they read as zero where shared. */
int wr_memory_discard(const struct wr_memory *m, void *at, size_t bytes);

/* In a child of fork() that is to live on without its parent: the first
 * `bytes` bytes in a file of its own, all shared.  There is one thread.  A
 * negative errno with text: it is as it was. */
int wr_memory_renew(struct wr_memory *m, size_t bytes);

#endif
