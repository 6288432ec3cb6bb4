/* SPDX-License-Identifier: MIT */
/* What a file is written of: a snapshot of regions, or of a heap. */
#ifndef WEIR_RUNTIME_IMAGE_ORIGIN_H
#define WEIR_RUNTIME_IMAGE_ORIGIN_H

#include <weir/image.h>

struct wi_origin {
	void *handle; /* for the three */
	/* As weir_snapshot_identity(), _region() and _read(). */
	int (*identity)(const void *handle,
			struct weir_snapshot_identity *identity);
	int (*region)(const void *handle, size_t i,
		      struct weir_region_info *info);
	int (*read)(void *handle, weir_snapshot_sink_fn *sink, void *arg);
};

/* All of it to a descriptor, or to a file that is there when it is whole;
 * `function` is for error texts.  Options NULL: the defaults. */
int wi_origin_to_fd(const struct wi_origin *origin, const char *function,
		    int fd, const struct weir_image_options *options);
int wi_origin_to_file(const struct wi_origin *origin, const char *function,
		      const char *path,
		      const struct weir_image_options *options);

#endif
