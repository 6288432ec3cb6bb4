/* SPDX-License-Identifier: MIT */
/*
 * JSON to a descriptor.  The first error stays in `err`, and nothing more is
 * written.  One thread at a time.
 */
#ifndef WEIR_GC_SNAP_OUT_H
#define WEIR_GC_SNAP_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WG_OUT_BUFFER ((size_t)64 << 10)

struct wg_snap_out {
	int fd;       /* where to */
	int err;      /* an errno */
	char *buffer; /* WG_OUT_BUFFER bytes, the caller's */
	size_t used;  /* of them */
	bool begun;   /* in the array under way: not the first entry */
};

void wg_out_text(struct wg_snap_out *o, const char *text); /* as it is */
void wg_out_number(struct wg_snap_out *o, uint64_t n);
/* The text that an array begins with. */
void wg_out_array(struct wg_snap_out *o, const char *text);
/* Entries of it: numbers, up to 16, in a line; a string.  What is not UTF-8 in
 * that becomes U+FFFD. */
void wg_out_line(struct wg_snap_out *o, const uint64_t *n, unsigned count);
void wg_out_string(struct wg_snap_out *o, const char *text);
/* What is in the buffer.  Waits for a descriptor that does not block; SIGPIPE
 * and SIGXFSZ are not raised. */
void wg_out_flush(struct wg_snap_out *o);

#endif
