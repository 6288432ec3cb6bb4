/* SPDX-License-Identifier: MIT */
/*
 * Runs of pages to the bytes of a snapshot file, in order and without going
 * back, so that the file may be a pipe.
 *
 * One thread at a time.  The first error stays: later calls return it and hand
 * out nothing more.  What was handed out is a whole file exactly if
 * wi_writer_finish() returned 0.
 */
#ifndef WEIR_RUNTIME_IMAGE_WRITER_H
#define WEIR_RUNTIME_IMAGE_WRITER_H

#include <sys/uio.h>

#include <weir/image.h>

#include "runtime/image/format.h"

/* Take all of these bytes, in order; `iov` may be changed.  0, or a negative
 * errno with a text. */
typedef int wi_output_fn(void *arg, struct iovec *iov, int count);

struct wi_writer;

/* Writes the header.  Of `options` only codec and level matter; NULL: the
 * defaults.  -EINVAL, -ENOTSUP, -ENOMEM, or the output's error: then there is
 * no writer. */
int wi_writer_create(const struct wi_identity *identity,
		     const struct weir_image_options *options,
		     wi_output_fn *output, void *arg,
		     struct wi_writer **writer);

/* As weir_snapshot_sink_fn: the data is not used after the return. */
int wi_writer_add(struct wi_writer *w, const struct weir_snapshot_run *runs,
		  size_t count);

/* The end of the file, and the moment it shows. */
int wi_writer_finish(struct wi_writer *w, uint64_t time_ns);

/* What failed first, for weir_error_text(); "" if nothing did. */
const char *wi_writer_error(const struct wi_writer *w);

/* NULL is allowed. */
void wi_writer_destroy(struct wi_writer *w);

#endif
