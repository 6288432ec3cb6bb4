/* SPDX-License-Identifier: MIT */
/*
 * End-consistent snapshots where the page tables do not tell all: regions that
 * touch, entries of shared memory that were dropped with the page still in its
 * file, and pages that were used and given back, which are not to come back.
 */
#define _GNU_SOURCE
#include <fcntl.h>

#include "tests/snapshot_scene.h"

static int nobody(void *arg)
{
	(void)arg;
	return 0;
}

static struct weir_snapshot_options options_with(int (*stop)(void *arg),
						 void *arg, unsigned flags)
{
	return (struct weir_snapshot_options){
		.size = sizeof(struct weir_snapshot_options),
		.kind = WEIR_SNAPSHOT_END,
		.flags = flags,
		.pool = 1 << 20,
		.stop = stop,
		.resume = nothing,
		.stop_arg = arg,
	};
}

static weir_region *adopt(void *p, size_t bytes, unsigned flags)
{
	struct weir_region_options o = {
		.size = sizeof(o),
		.barrier = WEIR_REGION_ASYNC,
		.flags = flags,
	};
	weir_region *r;
	int err = weir_region_adopt(p, bytes, &o, &r);

	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
	return r;
}

/* ---- Regions that touch ------------------------------------------------- */

#define EACH ((size_t)256 << 10)

struct both {
	char data[2][EACH];
	char *memory;
};

static int sink_both(void *arg, const struct weir_snapshot_run *runs,
		     size_t count)
{
	struct both *b = arg;

	for (size_t i = 0; i < count; i++) {
		must(runs[i].region < 2);
		must(runs[i].offset + runs[i].bytes <= EACH);
		if (runs[i].data)
			memcpy(b->data[runs[i].region] + runs[i].offset,
			       runs[i].data, runs[i].bytes);
		else
			memset(b->data[runs[i].region] + runs[i].offset, 0,
			       runs[i].bytes);
	}
	return 0;
}

/* The end of one and the beginning of the other. */
static int write_at_the_seam(void *arg)
{
	struct both *b = arg;

	memset(b->memory + EACH - 2 * PAGE, 7, 4 * PAGE);
	return 0;
}

Test(snapshot_end, regions_side_by_side)
{
	static struct both both;
	struct weir_snapshot_options o =
		options_with(write_at_the_seam, &both, 0);
	weir_region *r[2];
	weir_snapshot *s;
	char *p = mmap(NULL, 2 * EACH, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	both.memory = p;
	r[0] = adopt(p, EACH, 0);
	r[1] = adopt(p + EACH, EACH, 0);
	for (size_t i = 0; i < 2 * EACH; i++)
		p[i] = (char)(i / PAGE + 1);
	cr_assert_eq(weir_snapshot_create(r, 2, &o, &s), 0);
	cr_assert_eq(weir_snapshot_begin(s), 0);
	cr_assert_eq(weir_snapshot_read(s, sink_both, &both), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_snapshot_end(s), 0);
	for (int i = 0; i < 2; i++) {
		cr_assert(!memcmp(both.data[i], p + (size_t)i * EACH, EACH));
		cr_assert_eq(weir_region_release(r[i]), 0);
	}
	munmap(p, 2 * EACH);
}

/* ---- Entries that were dropped ------------------------------------------ */

struct shared {
	char *memory;
	unsigned round;
};

/* Pages that were zero are written, and their entries dropped: on a shared
 * mapping that keeps the contents.  All of a page table, too. */
static int write_and_drop(void *arg)
{
	struct shared *s = arg;

	s->round++;
	memset(s->memory + 5 * PAGE, (int)s->round, PAGE);
	must(!madvise(s->memory + 5 * PAGE, PAGE, MADV_DONTNEED));
	memset(s->memory + 2 * MIB, (int)s->round, 2 * MIB);
	must(!madvise(s->memory + 2 * MIB, 2 * MIB, MADV_DONTNEED));
	return 0;
}

static void end_snapshot(weir_region *r, struct image *image,
			 const struct weir_snapshot_options *o)
{
	weir_snapshot *s;

	image->again = true;
	cr_assert_eq(weir_snapshot_create(&r, 1, o, &s), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_snapshot_begin(s), 0);
	cr_assert_eq(weir_snapshot_read(s, image_sink, image), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_snapshot_end(s), 0);
}

static void dropped(struct shared *s, weir_region *r)
{
	struct weir_snapshot_options in_stop =
		options_with(write_and_drop, s, 0);
	struct weir_snapshot_options delta =
		options_with(nobody, NULL, WEIR_SNAPSHOT_DELTA);
	struct image image;

	image_open(&image, BYTES);
	s->memory[0] = 1;
	end_snapshot(r, &image, &in_stop);
	cr_assert_eq(image_differs(&image, s->memory), -1);

	/* Zero again, held as such, and written between two snapshots. */
	cr_assert_eq(weir_region_discard(r, s->memory + MIB, 3 * MIB), 0);
	end_snapshot(r, &image, &delta);
	write_and_drop(s);
	end_snapshot(r, &image, &delta);
	cr_assert_eq(image_differs(&image, s->memory), -1);
	image_close(&image);
}

Test(snapshot_end, shared_memory_is_in_its_file)
{
	weir_region *r =
		region_of(BYTES, WEIR_REGION_SHARED | WEIR_REGION_TRACK,
			  WEIR_REGION_ASYNC);
	struct shared s = {.memory = memory_of(r)};

	dropped(&s, r);
	cr_assert_eq(weir_region_release(r), 0);
}

Test(snapshot_end, adopted_memory_is_in_its_file)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct shared s;
	weir_region *r;

	cr_assert(fd >= 0 && !ftruncate(fd, BYTES));
	s = (struct shared){.memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
					   MAP_SHARED, fd, 0)};
	cr_assert_neq(s.memory, MAP_FAILED);
	r = adopt(s.memory, BYTES, WEIR_REGION_TRACK);
	dropped(&s, r);
	cr_assert_eq(weir_region_release(r), 0);
	munmap(s.memory, BYTES);
	close(fd);
}

/* ---- Used and given back ------------------------------------------------ */

static size_t present(const char *p, size_t bytes)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t n = 0;

	must(fd >= 0);
	for (size_t i = 0; i < bytes / PAGE; i++) {
		uint64_t entry;

		must(pread(fd, &entry, sizeof(entry),
			   (off_t)((uintptr_t)p / PAGE + i) *
				   (off_t)sizeof(entry)) == sizeof(entry));
		n += entry >> 63;
	}
	close(fd);
	return n;
}

static unsigned kinds_of_memory[] = {0, WEIR_REGION_SHARED};

ParameterizedTestParameters(snapshot_end, what_was_given_back_stays_away)
{
	return cr_make_param_array(unsigned, kinds_of_memory, 2);
}

ParameterizedTest(unsigned *flags, snapshot_end, what_was_given_back_stays_away)
{
	struct weir_snapshot_options delta =
		options_with(nobody, NULL, WEIR_SNAPSHOT_DELTA);
	weir_region *r =
		region_of(BYTES, WEIR_REGION_TRACK | *flags, WEIR_REGION_ASYNC);
	char *p = memory_of(r);
	struct image image;

	image_open(&image, BYTES);
	end_snapshot(r, &image, &delta);
	for (int round = 0; round < 2; round++) {
		memset(p, 1 + round, BYTES);
		for (size_t at = 0; at < BYTES; at += 16 * PAGE)
			cr_assert_eq(weir_region_discard(r, p + at, 15 * PAGE),
				     0);
		end_snapshot(r, &image, &delta);
		cr_assert_leq(present(p, BYTES), BYTES / PAGE / 16, "%zu pages",
			      present(p, BYTES));
		cr_assert_eq(image_differs(&image, p), -1);
		/* Reading them has filled them. */
		cr_assert_eq(weir_region_discard(r, p, BYTES), 0);
		end_snapshot(r, &image, &delta);
	}
	image_close(&image);
	cr_assert_eq(weir_region_release(r), 0);
}
