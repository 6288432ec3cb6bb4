/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of a heap to files.  They are whole, and nothing follows them: an
 * error leaves them as they are.
 */
#include <weir/image.h>

#include "runtime/image/image.h"
#include "runtime/image/origin.h"

static int identity(const void *handle, struct weir_snapshot_identity *identity)
{
	return weir_heap_snapshot_identity(handle, identity);
}

static int region(const void *handle, size_t i, struct weir_region_info *info)
{
	return weir_heap_snapshot_region(handle, i, info);
}

static int read_all(void *handle, weir_snapshot_sink_fn *sink, void *arg)
{
	return weir_heap_snapshot_read(handle, sink, arg);
}

static struct wi_origin origin_of(const weir_heap_snapshot *snapshot)
{
	return (struct wi_origin){.handle = (void *)snapshot,
				  .identity = identity,
				  .region = region,
				  .read = read_all};
}

int weir_image_write_heap_fd(const weir_heap_snapshot *snapshot, int fd,
			     const struct weir_image_options *options)
{
	struct wi_origin origin = origin_of(snapshot);

	if (!snapshot)
		return wi_invalid("weir_image_write_heap_fd", "no snapshot");
	return wi_origin_to_fd(&origin, "weir_image_write_heap_fd", fd,
			       options);
}

int weir_image_write_heap(const weir_heap_snapshot *snapshot, const char *path,
			  const struct weir_image_options *options)
{
	struct wi_origin origin = origin_of(snapshot);

	if (!snapshot || !path)
		return wi_invalid("weir_image_write_heap", "a NULL argument");
	return wi_origin_to_file(&origin, "weir_image_write_heap", path,
				 options);
}
