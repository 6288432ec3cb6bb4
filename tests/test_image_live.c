/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of regions that threads write to, through files and back: whole
 * ones, chains of deltas, compressed ones, mapped at their old address; a full
 * disk, and a kill in the middle.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <weir/image.h>

#include "tests/test_snapshot.h"

#define BYTES (8 * MIB)

static char dir[] = "/tmp/weir-image-live.XXXXXX";

static void make_dir(void)
{
	cr_assert(mkdtemp(dir));
}

static void remove_dir(void)
{
	char command[sizeof(dir) + 16];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	cr_assert_eq(system(command), 0);
}

static const char *path_of(const char *name)
{
	static char path[4][sizeof(dir) + 32];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

/* A snapshot with the writers running, into a file.  Returns what it said. */
static int save(weir_region *r, struct writers *w, unsigned flags,
		unsigned codec, const char *path)
{
	struct weir_snapshot_options o = {
		.size = sizeof(o),
		.flags = flags,
		.pool = 4 * MIB,
		.stop = writers_stop,
		.resume = writers_resume,
		.stop_arg = w,
	};
	struct weir_image_options io = {.size = sizeof(io), .codec = codec};
	weir_snapshot *s;
	int err;

	must(!weir_snapshot_create(&r, 1, &o, &s));
	must(!weir_snapshot_prepare(s, 0));
	must(!weir_snapshot_begin(s));
	err = weir_image_write_file(s, path, &io);
	must(weir_snapshot_end(s) == err);
	return err;
}

/* The image of the files is what the shadow has. */
static void check(const char *const *paths, size_t count, const char *shadow)
{
	weir_image *image;
	char *data = malloc(BYTES);

	must(data);
	must(!weir_image_open(paths, count, &image));
	must(!weir_image_read(image, 0, 0, data, BYTES));
	must(!memcmp(data, shadow, BYTES));
	free(data);
	weir_image_close(image);
}

static weir_region *scene(struct writers *w, unsigned flags)
{
	weir_region *r = region_of(BYTES, flags, WEIR_REGION_AUTO);

	*w = (struct writers){.bytes = BYTES,
			      .hot_pages = 100,
			      .memory = memory_of(r),
			      .shadow = malloc(BYTES)};
	must(w->shadow);
	memset(w->memory, 1, BYTES / 2);
	return r;
}

Test(image_live, whole_by_every_codec, .init = make_dir, .fini = remove_dir)
{
	static struct writers w;
	weir_region *r = scene(&w, 0);

	writers_start(&w, 2);
	for (unsigned codec = 0; codec <= WEIR_CODEC_ZSTD; codec++) {
		const char *path = path_of("snapshot");
		int err = save(r, &w, 0, codec, path);

		must(!err || err == -ENOTSUP);
		if (!err)
			check(&path, 1, w.shadow);
	}
	writers_end(&w);
	cr_assert_eq(weir_region_release(r), 0);
}

Test(image_live, a_chain_of_deltas, .init = make_dir, .fini = remove_dir)
{
	const char *paths[] = {path_of("0"), path_of("1"), path_of("2")};
	static struct writers w;
	weir_region *r = scene(&w, WEIR_REGION_TRACK);
	struct stat whole, delta;
	weir_image *image;

	writers_start(&w, 2);
	for (size_t i = 0; i < 3; i++) {
		must(!save(r, &w, WEIR_SNAPSHOT_DELTA, WEIR_CODEC_NONE,
			   paths[i]));
		check(paths, i + 1, w.shadow);
	}
	writers_end(&w);
	cr_assert(!stat(paths[0], &whole) && !stat(paths[2], &delta));
	cr_assert_eq(weir_image_open(paths + 1, 2, &image), -EINVAL);
	cr_assert_eq(weir_region_release(r), 0);
}

Test(image_live, mapped_where_it_was, .init = make_dir, .fini = remove_dir)
{
	const char *path = path_of("snapshot");
	static struct writers w;
	weir_region *r = scene(&w, 0);
	char *at = w.memory;
	weir_image *image;
	void *mapped;

	writers_start(&w, 2);
	must(!save(r, &w, 0, WEIR_CODEC_NONE, path));
	writers_end(&w);
	cr_assert_eq(weir_image_open(&path, 1, &image), 0);
	cr_assert_eq(weir_image_map(image, 0, NULL, &mapped), -EEXIST);
	cr_assert_eq(weir_region_release(r), 0);
	cr_assert_eq(weir_image_map(image, 0, NULL, &mapped), 0, "%s",
		     weir_error_text());
	cr_assert_eq(mapped, at);
	cr_assert(!memcmp(at, w.shadow, BYTES));
	at[0]++;
	weir_image_close(image);
	munmap(at, BYTES);
	check(&path, 1, w.shadow);
}

Test(image_live, a_full_disk_loses_nothing, .init = make_dir,
     .fini = remove_dir)
{
	static struct writers w;
	weir_region *r;
	const char *path;
	char *old = malloc(BYTES);

	if (mount("none", dir, "tmpfs", 0, "size=12m"))
		cr_skip("a small tmpfs cannot be mounted: %s", strerror(errno));
	path = path_of("snapshot");
	r = scene(&w, 0);
	/* No zero page, which takes no room. */
	memset(w.memory, 1, BYTES);
	writers_start(&w, 2);
	must(old && !save(r, &w, 0, WEIR_CODEC_NONE, path));
	memcpy(old, w.shadow, BYTES);
	/* There is no room for another one beside it. */
	must(save(r, &w, 0, WEIR_CODEC_NONE, path) == -ENOSPC);
	must(strstr(weir_error_text(), "snapshot"));
	check(&path, 1, old);
	must(!unlink(path));
	must(!save(r, &w, 0, WEIR_CODEC_NONE, path));
	check(&path, 1, w.shadow);
	writers_end(&w);
	cr_assert_eq(weir_region_release(r), 0);
	cr_assert(!umount(dir));
	free(old);
}

static int tell(const struct weir_snapshot_progress *p, void *arg)
{
	if (p->bytes_saved > BYTES / 4) {
		must(write(*(int *)arg, "x", 1) == 1);
		for (;;)
			pause();
	}
	return 0;
}

Test(image_live, killed_in_the_middle, .init = make_dir, .fini = remove_dir)
{
	const char *path = path_of("snapshot");
	static struct writers w;
	weir_region *r = scene(&w, 0);
	int ends[2], status;
	pid_t pid;
	char c;

	writers_start(&w, 1);
	must(!save(r, &w, 0, WEIR_CODEC_NONE, path));
	writers_end(&w);
	cr_assert(!pipe(ends));
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		struct weir_snapshot_options o = {
			.size = sizeof(o),
			.progress = tell,
			.progress_arg = &ends[1],
			.progress_ns = 1,
		};
		weir_snapshot *s;

		alarm(60);
		memset(w.memory, 7, BYTES);
		CHILD(!weir_snapshot_create(&r, 1, &o, &s));
		CHILD(!weir_snapshot_begin(s));
		weir_image_write_file(s, path, NULL);
		_exit(1);
	}
	close(ends[1]);
	cr_assert_eq(read(ends[0], &c, 1), 1);
	cr_assert(!kill(pid, SIGKILL));
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status));
	check(&path, 1, w.shadow);
	cr_assert_eq(weir_region_release(r), 0);
}
