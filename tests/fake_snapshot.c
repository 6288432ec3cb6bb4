/* SPDX-License-Identifier: MIT */
/* A snapshot engine for tests; see fake_snapshot.h. */
#include "tests/fake_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <weir/embed.h>

#include "tests/image_make.h"

int weir_snapshot_identity(const weir_snapshot *snapshot,
			   struct weir_snapshot_identity *identity)
{
	const struct fake_snapshot *fake = (const void *)snapshot;
	const struct wi_identity *own = &fake->model->identity;

	memcpy(identity->id, own->id, 16);
	memcpy(identity->base, own->base, 16);
	identity->kind = own->kind;
	identity->count = own->count;
	/* With END the moment is known once all was read. */
	identity->time_ns =
		own->kind == WEIR_SNAPSHOT_END && !fake->calls ? 0 : 1234567890;
	return 0;
}

int weir_snapshot_region(const weir_snapshot *snapshot, size_t i,
			 struct weir_region_info *info)
{
	const struct fake_snapshot *fake = (const void *)snapshot;
	const struct wi_region *own = &fake->model->identity.regions[i];

	info->address = (void *)(uintptr_t)own->address;
	info->bytes = own->bytes;
	info->unit = own->unit;
	info->flags = own->flags;
	memcpy(info->name, own->name, sizeof info->name);
	return 0;
}

int weir_snapshot_read(weir_snapshot *snapshot, weir_snapshot_sink_fn *sink,
		       void *arg)
{
	struct fake_snapshot *fake = (void *)snapshot;
	struct model *m = fake->model;

	for (size_t i = 0; i < m->identity.count; i++) {
		size_t pages = model_pages(m, i), n;

		for (size_t p = 0; p < pages; p += n) {
			struct weir_snapshot_run run = {.region = i};
			int err;

			n = pages - p < fake->run ? pages - p : fake->run;
			run.offset = p * PAGE;
			run.bytes = n * PAGE;
			run.data = m->data[i] + p * PAGE;
			if (++fake->calls == fake->failing && fake->err)
				return weir_error_set(fake->err, "planted: %s",
						      strerror(fake->err));
			if (fake->before)
				fake->before(fake);
			err = sink(arg, &run, 1);
			/* As the engine would. */
			if (err)
				return weir_error_set(-err, "the sink failed");
		}
	}
	return 0;
}

int weir_snapshot_abort(weir_snapshot *snapshot)
{
	struct fake_snapshot *fake = (void *)snapshot;

	fake->aborted = true;
	return weir_error_set(ECANCELED, "aborted");
}
