/* SPDX-License-Identifier: MIT */
/*
 * Snapshots to files: the only part that calls the snapshot engine.
 *
 * Whatever fails here fails the snapshot too, so that no delta can follow one
 * that is in no file.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <weir/embed.h>
#include <weir/image.h>

#include "runtime/image/file.h"
#include "runtime/image/image.h"
#include "runtime/image/output.h"
#include "runtime/image/writer.h"

_Static_assert(sizeof((struct weir_region_info *)0)->name == WI_NAME,
	       "names are as long in files as in regions");

/* What the file's header says. */
static int identify(const weir_snapshot *snapshot, struct wi_identity *identity)
{
	struct weir_snapshot_identity own = {.size = sizeof own};
	int err = weir_snapshot_identity(snapshot, &own);

	if (err)
		return err;
	if (!own.count || own.count > WI_REGIONS_MAX)
		return weir_error_set(EINVAL, "a snapshot of %zu regions",
				      own.count);
	memset(identity, 0, sizeof *identity);
	memcpy(identity->id, own.id, sizeof own.id);
	memcpy(identity->base, own.base, sizeof own.base);
	identity->kind = own.kind;
	identity->page = (uint32_t)sysconf(_SC_PAGESIZE);
	identity->count = (uint32_t)own.count;
	for (size_t i = 0; i < own.count; i++) {
		struct weir_region_info info = {.size = sizeof info};
		struct wi_region *r = &identity->regions[i];

		err = weir_snapshot_region(snapshot, i, &info);
		if (err)
			return err;
		r->address = (uintptr_t)info.address;
		r->bytes = info.bytes;
		r->unit = info.unit;
		r->flags = info.flags;
		snprintf(r->name, sizeof r->name, "%s", info.name);
	}
	return 0;
}

static int sink(void *arg, const struct weir_snapshot_run *runs, size_t count)
{
	return wi_writer_add(arg, runs, count);
}

/* Read the snapshot to `output`. */
static int write_to(weir_snapshot *snapshot,
		    const struct weir_image_options *options,
		    struct wi_output *output)
{
	struct weir_snapshot_identity end = {.size = sizeof end};
	struct wi_identity identity;
	struct wi_writer *w;
	int err = identify(snapshot, &identity);

	if (err)
		return err;
	err = wi_writer_create(&identity, options, wi_output, output, &w);
	if (err)
		return err;
	err = weir_snapshot_read(snapshot, sink, w);
	/* The engine's text would say no more than that the sink failed. */
	if (err && *wi_writer_error(w))
		weir_error_set(-err, "%s", wi_writer_error(w));
	/* With END the moment was only now. */
	if (!err)
		err = weir_snapshot_identity(snapshot, &end);
	if (!err)
		err = wi_writer_finish(w, end.time_ns);
	wi_writer_destroy(w);
	return err;
}

/* Fail the snapshot with what failed here, whose text stays. */
static int give_up(weir_snapshot *snapshot, int err)
{
	char text[512];

	snprintf(text, sizeof text, "%s", weir_error_text());
	weir_snapshot_abort(snapshot);
	return weir_error_set(-err, "%s", text);
}

/* The caller's options, as much as there is of them. */
static int take_options(const char *function,
			const struct weir_image_options *options,
			struct weir_image_options *own)
{
	*own = (struct weir_image_options){.size = sizeof *own};
	if (!options)
		return 0;
	if (options->size < sizeof options->size || options->size > sizeof *own)
		return weir_error_set(EINVAL,
				      "%s: options of size %zu, and this "
				      "library knows %zu bytes of them",
				      function, options->size, sizeof *own);
	memcpy(own, options, options->size);
	if (own->mode & ~0777u)
		return weir_error_set(EINVAL, "%s: mode %#o", function,
				      own->mode);
	return 0;
}

int weir_image_write_fd(weir_snapshot *snapshot, int fd,
			const struct weir_image_options *options)
{
	struct weir_image_options own;
	struct wi_output output = {.fd = fd};
	char name[32];
	int err;

	if (!snapshot)
		return wi_invalid("weir_image_write_fd", "no snapshot");
	snprintf(name, sizeof name, "descriptor %d", fd);
	output.name = name;
	err = take_options("weir_image_write_fd", options, &own);
	if (!err)
		err = write_to(snapshot, &own, &output);
	return err ? give_up(snapshot, err) : 0;
}

int weir_image_write_file(weir_snapshot *snapshot, const char *path,
			  const struct weir_image_options *options)
{
	struct weir_image_options own;
	struct wi_output output = {.file = true, .name = path};
	struct wi_file file;
	int err;

	if (!snapshot || !path)
		return wi_invalid("weir_image_write_file", "a NULL argument");
	err = take_options("weir_image_write_file", options, &own);
	if (!err)
		err = wi_file_create(&file, path, own.mode ? own.mode : 0600);
	if (err)
		return give_up(snapshot, err);
	output.fd = file.fd;
	err = write_to(snapshot, &own, &output);
	if (err)
		wi_file_discard(&file);
	else
		err = wi_file_commit(&file);
	return err ? give_up(snapshot, err) : 0;
}
