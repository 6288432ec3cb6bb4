/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of regions to files: what calls the snapshot engine.
 *
 * Whatever fails here fails the snapshot too, so that no delta can follow one
 * that is in no file.
 */
#include <stdio.h>

#include <weir/embed.h>
#include <weir/image.h>

#include "runtime/image/image.h"
#include "runtime/image/origin.h"

static int identity(const void *handle, struct weir_snapshot_identity *identity)
{
	return weir_snapshot_identity(handle, identity);
}

static int region(const void *handle, size_t i, struct weir_region_info *info)
{
	return weir_snapshot_region(handle, i, info);
}

static int read_all(void *handle, weir_snapshot_sink_fn *sink, void *arg)
{
	return weir_snapshot_read(handle, sink, arg);
}

static struct wi_origin origin_of(weir_snapshot *snapshot)
{
	return (struct wi_origin){.handle = snapshot,
				  .identity = identity,
				  .region = region,
				  .read = read_all};
}

/* Fail the snapshot with what failed here, whose text stays. */
static int give_up(weir_snapshot *snapshot, int err)
{
	char text[512];

	snprintf(text, sizeof text, "%s", weir_error_text());
	weir_snapshot_abort(snapshot);
	return weir_error_set(-err, "%s", text);
}

int weir_image_write_fd(weir_snapshot *snapshot, int fd,
			const struct weir_image_options *options)
{
	struct wi_origin origin = origin_of(snapshot);
	int err;

	if (!snapshot)
		return wi_invalid("weir_image_write_fd", "no snapshot");
	err = wi_origin_to_fd(&origin, "weir_image_write_fd", fd, options);
	return err ? give_up(snapshot, err) : 0;
}

int weir_image_write_file(weir_snapshot *snapshot, const char *path,
			  const struct weir_image_options *options)
{
	struct wi_origin origin = origin_of(snapshot);
	int err;

	if (!snapshot || !path)
		return wi_invalid("weir_image_write_file", "a NULL argument");
	err = wi_origin_to_file(&origin, "weir_image_write_file", path,
				options);
	return err ? give_up(snapshot, err) : 0;
}
