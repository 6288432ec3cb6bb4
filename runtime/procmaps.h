/* SPDX-License-Identifier: MIT */
/*
 * The process's mappings, from /proc/self/maps in ascending order.
 *
 * Through a buffer in the caller's hands: no stdio, no malloc, for this may run
 * while threads are stopped that hold malloc's locks.  What other threads map
 * meanwhile may be missed.
 */
#ifndef WEIR_RUNTIME_PROCMAPS_H
#define WEIR_RUNTIME_PROCMAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WR_PROCMAPS "/proc/self/maps"

struct wr_procmaps {
	int fd;          /* of the file */
	size_t at;       /* next byte of text */
	size_t length;   /* bytes in text */
	char text[4096]; /* a piece of it */
};

struct wr_mapping {
	uintptr_t start; /* first byte */
	uintptr_t end;   /* after the last byte */
	bool readable;   /* 'r' */
	bool writable;   /* 'w' */
	bool shared;     /* 's' */
	bool file;       /* of a file; not of /dev/zero or huge pages without
			  * a name, which are anonymous memory */
};

/* 0 or a negative errno value; errno is that then. */
int wr_procmaps_open(struct wr_procmaps *m);
/* The next mapping; false: there is none. */
bool wr_procmaps_next(struct wr_procmaps *m, struct wr_mapping *out);
void wr_procmaps_close(struct wr_procmaps *m);

#endif
