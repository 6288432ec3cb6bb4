/* SPDX-License-Identifier: MIT */
/* What a snapshot says of itself, and its pages, to a file's writer. */
#include "runtime/image/origin.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <weir/embed.h>

#include "runtime/image/file.h"
#include "runtime/image/image.h"
#include "runtime/image/output.h"
#include "runtime/image/writer.h"

_Static_assert(sizeof((struct weir_region_info *)0)->name == WI_NAME,
	       "names are as long in files as in regions");

/* What the file's header says. */
static int identify(const struct wi_origin *origin,
		    struct wi_identity *identity)
{
	struct weir_snapshot_identity own = {.size = sizeof own};
	int err = origin->identity(origin->handle, &own);

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

		err = origin->region(origin->handle, i, &info);
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
static int write_to(const struct wi_origin *origin,
		    const struct weir_image_options *options,
		    struct wi_output *output)
{
	struct weir_snapshot_identity end = {.size = sizeof end};
	struct wi_identity identity;
	struct wi_writer *w;
	int err = identify(origin, &identity);

	if (err)
		return err;
	err = wi_writer_create(&identity, options, wi_output, output, &w);
	if (err)
		return err;
	err = origin->read(origin->handle, sink, w);
	/* The engine's text would say no more than that the sink failed. */
	if (err && *wi_writer_error(w))
		weir_error_set(-err, "%s", wi_writer_error(w));
	/* With END the moment was only now. */
	if (!err)
		err = origin->identity(origin->handle, &end);
	if (!err)
		err = wi_writer_finish(w, end.time_ns);
	wi_writer_destroy(w);
	return err;
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

int wi_origin_to_fd(const struct wi_origin *origin, const char *function,
		    int fd, const struct weir_image_options *options)
{
	struct weir_image_options own;
	struct wi_output output = {.fd = fd};
	char name[32];
	int err;

	snprintf(name, sizeof name, "descriptor %d", fd);
	output.name = name;
	err = take_options(function, options, &own);
	return err ? err : write_to(origin, &own, &output);
}

int wi_origin_to_file(const struct wi_origin *origin, const char *function,
		      const char *path,
		      const struct weir_image_options *options)
{
	struct weir_image_options own;
	struct wi_output output = {.file = true, .name = path};
	struct wi_file file;
	int err;

	err = take_options(function, options, &own);
	if (!err)
		err = wi_file_create(&file, path, own.mode ? own.mode : 0600);
	if (err)
		return err;
	output.fd = file.fd;
	err = write_to(origin, &own, &output);
	if (err)
		wi_file_discard(&file);
	else
		err = wi_file_commit(&file);
	return err;
}
