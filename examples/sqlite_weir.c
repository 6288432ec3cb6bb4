/* SPDX-License-Identifier: MIT */
/*
 * A snapshot of the region that the database lies in, as a database file: what
 * a program of one's own has to do.  The writers are held off between two
 * transactions for weir_snapshot_begin() alone, by `stop`, which notes how long
 * the database is then; the sink writes each run of pages where it belongs in
 * the file, leaves zero pages out and what lies past the database's end.
 */
#include <errno.h>
#include <unistd.h>

#include "examples/sqlite_save.h"

struct target {
	struct save *save; /* whose moment it is */
	int fd;            /* the file */
	uint64_t cpu;      /* processor time of the saver when they were held */
};

static int stop(void *arg)
{
	struct target *t = arg;

	gate_hold(&t->save->store->gate);
	if (store_moment(t->save->store, &t->save->moment)) {
		gate_release(&t->save->store->gate);
		return -EINVAL;
	}
	t->cpu = store_cpu();
	return 0;
}

static void resume(void *arg)
{
	struct target *t = arg;

	t->save->held_cpu_ns = store_cpu() - t->cpu;
	gate_release(&t->save->store->gate);
}

static int sink(void *arg, const struct weir_snapshot_run *runs, size_t count)
{
	struct target *t = arg;
	size_t end = t->save->moment.bytes;
	int err = 0;

	for (size_t i = 0; i < count && !err; i++) {
		const struct weir_snapshot_run *run = &runs[i];
		size_t bytes = run->bytes;

		if (!run->data || run->offset >= end)
			continue;
		if (bytes > end - run->offset)
			bytes = end - run->offset;
		err = save_write(t->fd, run->data, bytes, run->offset);
	}
	return err;
}

static int run(struct save *v, weir_snapshot *snapshot, struct target *t)
{
	uint64_t start = store_now();
	int err = weir_snapshot_prepare(snapshot, 0);

	v->prepare_ns = store_now() - start;
	if (err)
		return err;
	memory_lock(v->memory);
	err = weir_snapshot_begin(snapshot);
	memory_unlock(v->memory);
	if (err)
		return err;
	if (ftruncate(t->fd, (off_t)v->moment.bytes))
		return -errno;
	err = weir_snapshot_read(snapshot, sink, t);
	v->figures.size = sizeof(v->figures);
	weir_snapshot_progress(snapshot, &v->figures);
	v->held_ns = v->figures.begin_ns;
	return err;
}

int save_weir(struct save *v, int fd)
{
	struct target t = {.save = v, .fd = fd};
	struct weir_snapshot_options how = {
		.size = sizeof(how),
		.kind = WEIR_SNAPSHOT_BEGIN,
		.full = v->full,
		.pool = v->pool,
		.rate = v->rate,
		.stop = stop,
		.resume = resume,
		.stop_arg = &t,
	};
	weir_snapshot *snapshot;
	int err;

	if (weir_snapshot_create(&v->store->region, 1, &how, &snapshot))
		return store_complain(NULL, weir_error_text());
	err = run(v, snapshot, &t);
	if (err)
		store_complain(NULL, weir_error_text());
	memory_sample(v->memory);
	if (weir_snapshot_end(snapshot) && !err)
		err = store_complain(NULL, weir_error_text());
	return err ? -1 : 0;
}
