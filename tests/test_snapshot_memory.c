/* SPDX-License-Identifier: MIT */
/*
 * Snapshots and what becomes of their regions' memory: given back, grown,
 * adopted, pinned, released, beside them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "runtime/kernel_abi.h"
#include "runtime/uffd.h"
#include "tests/seccomp.h"
#include "tests/snapshot_scene.h"

/* ---- Pages that go ------------------------------------------------------ */

ParameterizedTestParameters(snapshot_memory, discarding)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_memory, discarding)
{
	struct scene c;

	scene_open(&c, m->barrier, m->flags);
	scene_snapshot(&c);
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), 0);
	/* Prepared, and gone before the moment: zero in it. */
	cr_assert_eq(weir_region_discard(c.region, c.memory, 4 * PAGE), 0);
	memset(c.shadow, 0, 4 * PAGE);
	c.memory[PAGE] = c.shadow[PAGE] = 1;
	cr_assert_eq(weir_snapshot_begin(c.snapshot), 0);
	/* In it, and gone after the moment. */
	cr_assert_eq(weir_region_discard(c.region, c.memory + MIB, MIB), 0);
	cr_assert_eq(c.memory[MIB], 0);
	memset(c.memory + MIB, 7, PAGE);
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	cr_assert_eq(weir_region_discard(c.region, c.memory + 1, PAGE),
		     -EINVAL);
	cr_assert_eq(weir_region_discard(c.region, c.memory + BYTES - PAGE,
					 2 * PAGE),
		     -EINVAL);
	scene_close(&c);
}

ParameterizedTestParameters(snapshot_memory, what_goes_unannounced_fails_it)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_memory,
		  what_goes_unannounced_fails_it)
{
	struct scene c;

	scene_open(&c, m->barrier, m->flags);
	scene_begin(&c);
	cr_assert(!madvise(c.memory + MIB, MIB, MADV_DONTNEED));
	cr_assert_eq(weir_snapshot_read(c.snapshot, image_sink, &c.image),
		     -ESTALE);
	cr_assert(strstr(weir_error_text(), "weir_region_discard"), "%s",
		  weir_error_text());
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ESTALE);
	scene_close(&c);
}

Test(snapshot_memory, what_goes_before_the_moment_is_zero_in_it)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	scene_snapshot(&c);
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), 0);
	cr_assert(!madvise(c.memory + MIB, MIB, MADV_DONTNEED));
	memset(c.shadow + MIB, 0, MIB);
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), 0);
	cr_assert_eq(weir_snapshot_begin(c.snapshot), 0);
	memset(c.memory + MIB, 3, MIB);
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	scene_close(&c);
}

static int give_back(void *arg)
{
	struct scene *c = arg;

	must(!madvise(c->memory + MIB, MIB, MADV_DONTNEED));
	memset(c->shadow + MIB, 0, MIB);
	return 0;
}

Test(snapshot_memory, async_what_goes_while_it_is_read_is_zero_in_it)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_ASYNC, 0);
	c.options.kind = WEIR_SNAPSHOT_END;
	c.options.stop = give_back;
	c.options.resume = nothing;
	c.options.stop_arg = &c;
	c.image.again = true;
	scene_begin(&c);
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	scene_close(&c);
}

/* ---- Where it is -------------------------------------------------------- */

Test(snapshot_memory, growing_and_fixed_addresses)
{
	struct weir_region_options o = {.size = sizeof(o)};
	struct weir_region_info info = {.size = sizeof(info)};
	char *at = mmap(NULL, 64 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
	struct image image;
	weir_snapshot *s;
	weir_region *r, *other;

	/* An address that is free, and stays so: what else is mapped now goes
	 * to the upper end of the gap. */
	cr_assert(at != MAP_FAILED && !munmap(at, 64 * MIB));
	o.address = at;
	cr_assert_eq(weir_region_reserve(MIB, 4 * MIB, &o, &r), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_region_reserve(MIB, 0, &o, &other), -EEXIST);
	o.address = at + 1;
	cr_assert_eq(weir_region_reserve(MIB, 0, &o, &other), -EINVAL);
	cr_assert_eq(weir_region_info(r, &info), 0);
	cr_assert_eq(info.address, at);
	cr_assert_eq(info.bytes, MIB);
	cr_assert_eq(info.limit, 4 * MIB);
	cr_assert_eq(weir_region_grow(r, 2 * MIB), 0);
	cr_assert_eq(weir_region_grow(r, MIB), -EINVAL);
	cr_assert_eq(weir_region_grow(r, 5 * MIB), -ENOMEM);
	memset(at, 1, 2 * MIB);
	cr_assert_eq(weir_snapshot_create(&r, 1, NULL, &s), 0);
	cr_assert_eq(weir_snapshot_prepare(s, 0), 0);
	cr_assert_eq(weir_region_grow(r, 3 * MIB), 0);
	at[2 * MIB] = 1;
	cr_assert_eq(weir_snapshot_begin(s), 0);
	cr_assert_eq(weir_region_grow(r, 4 * MIB), 0);
	memset(at, 2, 4 * MIB);
	info.size = sizeof(info);
	cr_assert_eq(weir_snapshot_region(s, 0, &info), 0);
	cr_assert_eq(info.bytes, 3 * MIB);
	image_open(&image, 3 * MIB);
	cr_assert_eq(weir_snapshot_read(s, image_sink, &image), 0);
	for (size_t i = 0; i < 3 * MIB; i++)
		cr_assert_eq(image.data[i], i <= 2 * MIB, "byte %zu", i);
	image_close(&image);
	cr_assert_eq(weir_snapshot_end(s), 0);
	cr_assert_eq(weir_region_release(r), 0);
}

/* Whether the kernel may give the mapping that has p huge pages: its VmFlags.
 */
static bool may_be_huge(const char *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512], *flags = NULL;
	bool here = false;

	cr_assert(f);
	while (!flags && fgets(line, sizeof(line), f)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uintptr_t)p >= start && (uintptr_t)p < end;
		else if (here && !strncmp(line, "VmFlags:", 8))
			flags = line;
	}
	fclose(f);
	cr_assert(flags);
	return strstr(flags, " hg") != NULL;
}

Test(snapshot_memory, huge_pages_by_pages)
{
	struct weir_region_options o = {.size = sizeof(o),
					.flags = WEIR_REGION_PAGES};
	struct weir_region_info info = {.size = sizeof(info)};
	weir_region *r;

	cr_assert_eq(weir_region_reserve(MIB, 0, &o, &r), -EINVAL);
	cr_assert(strstr(weir_error_text(), "WEIR_REGION_HUGE"), "%s",
		  weir_error_text());
	o.flags |= WEIR_REGION_HUGE;
	cr_assert_eq(weir_region_reserve(3 * MIB, 9 * MIB, &o, &r), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_region_info(r, &info), 0);
	cr_assert_eq(info.unit, PAGE);
	cr_assert_eq(info.bytes, 4 * MIB);
	cr_assert_eq(info.limit, 10 * MIB);
	cr_assert_eq((uintptr_t)info.address % (2 * MIB), 0);
	cr_assert_eq(weir_region_grow(r, 5 * MIB), 0);
	cr_assert_eq(weir_region_info(r, &info), 0);
	cr_assert_eq(info.bytes, 6 * MIB);
	/* Before Linux 6.4 none may, nor on a kernel without. */
	if (wr_uffd_offered() & UFFD_FEATURE_WP_UNPOPULATED &&
	    !access("/sys/kernel/mm/transparent_hugepage", F_OK))
		cr_assert(may_be_huge(info.address));
	cr_assert_eq(weir_region_discard(r, (char *)info.address + PAGE, PAGE),
		     0);
	cr_assert_eq(weir_region_release(r), 0);
}

Test(snapshot_memory, adopted_memory)
{
	char *p = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct image image;
	weir_snapshot *s;
	weir_region *r, *other;

	cr_assert_neq(p, MAP_FAILED);
	memset(p, 5, MIB);
	cr_assert_eq(weir_region_adopt(p + 1, MIB, NULL, &r), -EINVAL);
	cr_assert(!mprotect(p + MIB, PAGE, PROT_NONE));
	cr_assert_eq(weir_region_adopt(p, 2 * MIB, NULL, &r), -EINVAL);
	cr_assert(!mprotect(p + MIB, PAGE, PROT_READ | PROT_WRITE));
	cr_assert_eq(weir_region_adopt(p, 2 * MIB, NULL, &r), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_region_adopt(p + MIB, MIB, NULL, &other), -EEXIST);
	cr_assert_eq(weir_region_grow(r, 3 * MIB), -EINVAL);
	cr_assert_eq(weir_snapshot_create(&r, 1, NULL, &s), 0);
	cr_assert_eq(weir_snapshot_begin(s), 0, "%s", weir_error_text());
	memset(p, 6, 2 * MIB);
	image_open(&image, 2 * MIB);
	cr_assert_eq(weir_snapshot_read(s, image_sink, &image), 0);
	for (size_t i = 0; i < 2 * MIB; i++)
		cr_assert_eq(image.data[i], i < MIB ? 5 : 0);
	cr_assert_eq(image.zeroes, MIB);
	image_close(&image);
	cr_assert_eq(weir_snapshot_end(s), 0);
	cr_assert_eq(weir_region_release(r), 0);
	p[0] = 1;
	munmap(p, 2 * MIB);
}

/* A memfd may be adopted where it is shared.  Private, what others write to it
 * would change pages that were not yet copied. */
Test(snapshot_memory, adopted_memfd)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct image image;
	weir_snapshot *s;
	weir_region *r;
	char *p;

	cr_assert(fd >= 0 && !ftruncate(fd, MIB));
	p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	cr_assert_neq(p, MAP_FAILED);
	cr_assert_eq(weir_region_adopt(p, MIB, NULL, &r), -EINVAL);
	cr_assert(strstr(weir_error_text(), "private mapping of a file"), "%s",
		  weir_error_text());
	munmap(p, MIB);
	p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(p, MAP_FAILED);
	memset(p, 5, MIB);
	cr_assert_eq(weir_region_adopt(p, MIB, NULL, &r), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_snapshot_create(&r, 1, NULL, &s), 0);
	cr_assert_eq(weir_snapshot_begin(s), 0, "%s", weir_error_text());
	memset(p, 6, MIB);
	image_open(&image, MIB);
	cr_assert_eq(weir_snapshot_read(s, image_sink, &image), 0);
	for (size_t i = 0; i < MIB; i++)
		cr_assert_eq(image.data[i], 5);
	image_close(&image);
	cr_assert_eq(weir_snapshot_end(s), 0);
	cr_assert_eq(weir_region_release(r), 0);
	munmap(p, MIB);
	/* Anonymous, though /proc has a name for it. */
	close(fd);
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	cr_assert_neq(p, MAP_FAILED);
	cr_assert_eq(weir_region_adopt(p, MIB, NULL, &r), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_region_release(r), 0);
	munmap(p, MIB);
	close(fd);
}

Test(snapshot_memory, pinned_memory_is_copied_at_the_moment)
{
	struct weir_snapshot_range pin;
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	pin = (struct weir_snapshot_range){c.memory + MIB + 5, 2 * PAGE};
	c.options.pinned = &pin;
	c.options.pinned_count = 1;
	scene_snapshot(&c);
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), 0);
	cr_assert_eq(weir_snapshot_begin(c.snapshot), 0);
	cr_assert_geq(figures_of(c.snapshot).hot, 3);
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	pin.start = c.shadow;
	cr_assert_eq(
		weir_snapshot_create(&c.region, 1, &c.options, &c.snapshot),
		-EINVAL);
	scene_close(&c);
}

/* ---- Beside a snapshot --------------------------------------------------- */

static void *discard_all(void *arg)
{
	struct scene *c = arg;

	for (size_t at = 0; at < BYTES; at += 4 * PAGE)
		must(!weir_region_discard(c->region, c->memory + at, PAGE));
	return NULL;
}

ParameterizedTestParameters(snapshot_memory, discarding_beside_the_end)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_memory, discarding_beside_the_end)
{
	struct scene c;

	scene_open(&c, m->barrier, m->flags);
	c.options.pool = 8 * PAGE;
	for (int i = 0; i < rounds(20); i++) {
		pthread_t thread;

		scene_begin(&c);
		must(!pthread_create(&thread, NULL, discard_all, &c));
		while (!figures_of(c.snapshot).waits)
			sched_yield();
		must(weir_snapshot_end(c.snapshot) == -ECANCELED);
		must(!pthread_join(thread, NULL));
	}
	scene_close(&c);
}

struct grower {
	weir_region *region;
	char *memory; /* of it */
	int end;      /* atomic */
};

static void *grow_main(void *arg)
{
	struct grower *g = arg;

	for (size_t n = 9; n < 4 * MIB / PAGE; n += 3) {
		must(!weir_region_grow(g->region, n * PAGE));
		memset(g->memory + (n - 3) * PAGE, 5, 3 * PAGE);
	}
	return NULL;
}

Test(snapshot_memory, growing_beside_preparing)
{
	for (int i = 0; i < rounds(10); i++) {
		struct weir_region_info info = {.size = sizeof(info)};
		struct grower g;
		struct image image;
		pthread_t thread;
		weir_snapshot *s;

		must(!weir_region_reserve(6 * PAGE, 4 * MIB, NULL, &g.region));
		g.memory = memory_of(g.region);
		memset(g.memory, 5, 6 * PAGE);
		must(!weir_snapshot_create(&g.region, 1, NULL, &s));
		must(!pthread_create(&thread, NULL, grow_main, &g));
		must(!weir_snapshot_prepare(s,
					    i % 2 ? WEIR_PREPARE_NOWAIT : 0));
		must(!pthread_join(thread, NULL));
		must(!weir_snapshot_begin(s));
		must(!weir_snapshot_region(s, 0, &info));
		image_open(&image, info.bytes);
		memset(g.memory, 6, info.bytes);
		must(!weir_snapshot_read(s, image_sink, &image));
		for (size_t at = 0; at < info.bytes; at += PAGE)
			must(image.times[at / PAGE] == 1 &&
			     image.data[at] == 5);
		must(!weir_snapshot_end(s));
		image_close(&image);
		must(!weir_region_release(g.region));
	}
}

struct storm {
	char *memory;
	int end; /* atomic */
};

static void *storm_main(void *arg)
{
	struct storm *s = arg;

	while (!__atomic_load_n(&s->end, __ATOMIC_RELAXED))
		for (size_t at = 0; at < MIB; at += PAGE)
			__atomic_fetch_add(&s->memory[at], 1, __ATOMIC_RELAXED);
	return NULL;
}

ParameterizedTestParameters(snapshot_memory, released_beside_writers)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_memory, released_beside_writers)
{
	struct weir_region_options o = {
		.size = sizeof(o),
		.barrier = m->barrier,
		.flags = m->flags | WEIR_REGION_TRACK,
	};
	struct storm storm = {.end = 0};
	pthread_t thread[2];

	storm.memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(storm.memory != MAP_FAILED);
	for (int i = 0; i < 2; i++)
		must(!pthread_create(&thread[i], NULL, storm_main, &storm));
	for (int i = 0; i < rounds(30); i++) {
		struct image image;
		weir_snapshot *s;
		weir_region *r;

		must(!weir_region_adopt(storm.memory, MIB, &o, &r));
		must(!weir_snapshot_create(&r, 1, NULL, &s));
		must(!weir_snapshot_prepare(s, 0));
		must(!weir_snapshot_begin(s)); /* of no certain moment */
		image_open(&image, MIB);
		must(!weir_snapshot_read(s, image_sink, &image));
		must(!weir_snapshot_end(s));
		image_close(&image);
		must(!weir_region_release(r));
	}
	__atomic_store_n(&storm.end, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		must(!pthread_join(thread[i], NULL));
	munmap(storm.memory, MIB);
}

static int write_pinned(void *arg)
{
	struct scene *c = arg;

	/* As a device would: through another mapping. */
	memset(c->shadow, 9, PAGE);
	must(pwrite(((struct weir_region_info *)c->image.hook_arg)->memfd,
		    c->shadow, PAGE, 0) == (ssize_t)PAGE);
	return 0;
}

Test(snapshot_memory, async_pinned_memory_is_read_in_the_stop)
{
	struct weir_region_info info = {.size = sizeof(info)};
	struct weir_snapshot_range pin;
	struct scene c;

	scene_open(&c, WEIR_REGION_ASYNC, WEIR_REGION_SHARED);
	cr_assert_eq(weir_region_info(c.region, &info), 0);
	pin = (struct weir_snapshot_range){c.memory + 1, 2};
	c.options.kind = WEIR_SNAPSHOT_END;
	c.options.stop = write_pinned;
	c.options.resume = nothing;
	c.options.stop_arg = &c;
	c.options.pinned = &pin;
	c.options.pinned_count = 1;
	c.image.again = true;
	c.image.hook_arg = &info;
	scene_begin(&c);
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	scene_close(&c);
}

/* Without memory for the pool a snapshot is refused, and no handler is left to
 * find out. */
Test(snapshot_memory, a_pool_that_is_not_to_be_had)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	scene_snapshot(&c);
	/* MADV_POPULATE_WRITE; other advice has not all of these bits, but
	 * some of them. */
	cr_assert(!seccomp_deny_if(SYS_madvise, 2, 16, ENOMEM));
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), -ENOMEM);
	cr_assert(strstr(weir_error_text(), "pool"), "%s", weir_error_text());
	cr_assert_eq(weir_snapshot_begin(c.snapshot), -ENOMEM);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ENOMEM);
	all_writable(&c);
	scene_close(&c);
}
