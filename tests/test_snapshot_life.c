/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that do not go the straight way: failing and aborted ones, full
 * pools, pages that go, fork, several at a time, deltas, and calls that are
 * refused.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/test_snapshot.h"

#define BYTES (8 * MIB)

struct scene {
	weir_region *region;
	char *memory; /* of it */
	char *shadow; /* what it held */
	struct weir_snapshot_options options;
	weir_snapshot *snapshot;
	struct image image;
};

/* A region with something in each page, and a snapshot of it not yet begun. */
static void scene_open(struct scene *c, unsigned barrier, unsigned flags)
{
	uint64_t state = 99;

	*c = (struct scene){.options = {.size = sizeof(c->options)}};
	c->region = region_of(BYTES, flags, barrier);
	c->memory = memory_of(c->region);
	c->shadow = malloc(BYTES);
	cr_assert(c->shadow);
	for (size_t i = 0; i < BYTES; i += 8)
		*(uint64_t *)(c->memory + i) = random_of(&state);
	memcpy(c->shadow, c->memory, BYTES);
	image_open(&c->image, BYTES);
}

static void scene_snapshot(struct scene *c)
{
	cr_assert_eq(
		weir_snapshot_create(&c->region, 1, &c->options, &c->snapshot),
		0, "%s", weir_error_text());
}

static void scene_begin(struct scene *c)
{
	scene_snapshot(c);
	cr_assert_eq(weir_snapshot_begin(c->snapshot), 0, "%s",
		     weir_error_text());
}

static void scene_read(struct scene *c)
{
	cr_assert_eq(weir_snapshot_read(c->snapshot, image_sink, &c->image), 0,
		     "%s", weir_error_text());
	cr_assert_eq(image_differs(&c->image, c->shadow), -1);
}

static void scene_close(struct scene *c)
{
	image_close(&c->image);
	free(c->shadow);
	cr_assert_eq(weir_region_release(c->region), 0, "%s",
		     weir_error_text());
}

/* Nothing of the region is protected: a write to every page is quick, and no
 * thread of the library has to hear of it. */
static void all_writable(struct scene *c)
{
	for (size_t at = 0; at < BYTES; at += PAGE)
		c->memory[at]++;
}

struct manner {
	unsigned barrier;
	unsigned flags;
};

static struct manner manners[] = {
	{WEIR_REGION_SYNC, 0},
	{WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES},
};

#define MANNERS() cr_make_param_array(struct manner, manners, 2)

/* ---- Full pools --------------------------------------------------------- */

ParameterizedTestParameters(snapshot_life, a_full_pool_fails_it)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_life, a_full_pool_fails_it)
{
	struct scene c;

	scene_open(&c, m->barrier, m->flags);
	c.options.full = WEIR_FULL_FAIL;
	c.options.pool = 8 * PAGE;
	scene_begin(&c);
	all_writable(&c); /* nobody reads: only failing lets it go on */
	cr_assert_eq(weir_snapshot_read(c.snapshot, image_sink, &c.image),
		     -ENOBUFS);
	cr_assert(strstr(weir_error_text(), "pool"), "%s", weir_error_text());
	cr_assert_eq(c.image.calls, 0);
	all_writable(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ENOBUFS);
	scene_close(&c);
}

struct stalled {
	struct scene *c;
	int started; /* atomic */
	int done;    /* atomic */
};

static void *write_all(void *arg)
{
	struct stalled *me = arg;

	__atomic_store_n(&me->started, 1, __ATOMIC_SEQ_CST);
	all_writable(me->c);
	__atomic_store_n(&me->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

ParameterizedTestParameters(snapshot_life, aborting_frees_who_waits)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_life, aborting_frees_who_waits)
{
	struct stalled stalled = {.done = 0};
	pthread_t thread;
	struct scene c;

	scene_open(&c, m->barrier, m->flags);
	stalled.c = &c;
	c.options.pool = 8 * PAGE;
	scene_begin(&c);
	must(!pthread_create(&thread, NULL, write_all, &stalled));
	while (!figures_of(c.snapshot).waits)
		usleep(1000);
	must(!__atomic_load_n(&stalled.done, __ATOMIC_SEQ_CST));
	must(!weir_snapshot_abort(c.snapshot));
	must(!pthread_join(thread, NULL));
	must(stalled.done);
	must(weir_snapshot_read(c.snapshot, image_sink, &c.image) ==
	     -ECANCELED);
	must(weir_snapshot_end(c.snapshot) == -ECANCELED);
	scene_close(&c);
}

/* ---- Aborting ----------------------------------------------------------- */

static void abort_in_call(void *arg, unsigned call)
{
	if (call == 3)
		must(!weir_snapshot_abort(arg));
}

Test(snapshot_life, aborted_in_every_phase)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	scene_snapshot(&c);
	cr_assert_eq(weir_snapshot_abort(c.snapshot), 0);
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), -ECANCELED);
	cr_assert_eq(weir_snapshot_begin(c.snapshot), -ECANCELED);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);
	all_writable(&c);

	scene_snapshot(&c);
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, WEIR_PREPARE_NOWAIT), 0);
	cr_assert_eq(weir_snapshot_abort(c.snapshot), 0);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);
	all_writable(&c);

	scene_begin(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);
	all_writable(&c);

	scene_begin(&c);
	c.image.hook = abort_in_call;
	c.image.hook_arg = c.snapshot;
	cr_assert_eq(weir_snapshot_read(c.snapshot, image_sink, &c.image),
		     -ECANCELED);
	cr_assert_eq(c.image.calls, 3);
	all_writable(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);

	/* And one that nothing happens to. */
	image_close(&c.image);
	image_open(&c.image, BYTES);
	memcpy(c.shadow, c.memory, BYTES);
	scene_begin(&c);
	all_writable(&c);
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	scene_close(&c);
}

static int third_report(const struct weir_snapshot_progress *p, void *arg)
{
	unsigned *n = arg;

	must(p->bytes_total == BYTES && p->bytes_saved <= BYTES);
	return ++*n == 3;
}

Test(snapshot_life, the_progress_callback_may_abort)
{
	unsigned reports = 0;
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	c.options.progress = third_report;
	c.options.progress_arg = &reports;
	c.options.progress_ns = 1;
	scene_begin(&c);
	cr_assert_eq(weir_snapshot_read(c.snapshot, image_sink, &c.image),
		     -ECANCELED);
	cr_assert_eq(reports, 3);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);
	scene_close(&c);
}

Test(snapshot_life, a_sink_that_fails)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	scene_begin(&c);
	c.image.fail_at = 2;
	cr_assert_eq(weir_snapshot_read(c.snapshot, image_sink, &c.image),
		     -EIO);
	all_writable(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -EIO);
	scene_close(&c);
}

static int cannot_stop(void *arg)
{
	(void)arg;
	return -EBUSY;
}

static void never(void *arg)
{
	(void)arg;
	must(!"not to be called");
}

Test(snapshot_life, a_stop_that_fails)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	c.options.stop = cannot_stop;
	c.options.resume = never;
	scene_snapshot(&c);
	cr_assert_eq(weir_snapshot_begin(c.snapshot), -EBUSY);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -EBUSY);
	scene_close(&c);
}

/* ---- Pages that go ------------------------------------------------------ */

ParameterizedTestParameters(snapshot_life, discarding)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_life, discarding)
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

ParameterizedTestParameters(snapshot_life, what_goes_unannounced_fails_it)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_life,
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

Test(snapshot_life, what_goes_before_the_moment_is_zero_in_it)
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

static void nothing(void *arg)
{
	(void)arg;
}

Test(snapshot_life, async_what_goes_while_it_is_read_is_zero_in_it)
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

/* ---- System calls ------------------------------------------------------- */

Test(snapshot_life, the_kernel_may_write)
{
	int ends[2];
	struct scene c;

	scene_open(&c, WEIR_REGION_SYNC, 0);
	scene_begin(&c);
	cr_assert(!pipe2(ends, O_CLOEXEC));
	cr_assert_eq(write(ends[1], "hello", 5), 5);
	cr_assert_eq(read(ends[0], c.memory + 3 * PAGE - 2, 5), 5);
	cr_assert(!memcmp(c.memory + 3 * PAGE - 2, "hello", 5));
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	close(ends[0]);
	close(ends[1]);
	scene_close(&c);
}

Test(snapshot_life, what_cannot_be_safe_is_refused)
{
	struct weir_region_options o = {.size = sizeof(o)};
	weir_region *r = NULL;
	int err;

	/* sigbus without the promise. */
	o.barrier = WEIR_REGION_SIGBUS;
	cr_assert_eq(weir_region_reserve(MIB, 0, &o, &r), -EINVAL);
	cr_assert(strstr(weir_error_text(), "USER_WRITES"), "%s",
		  weir_error_text());
	/* Nobody, and no promise. */
	drop_privileges();
	o.barrier = WEIR_REGION_AUTO;
	err = weir_region_reserve(MIB, 0, &o, &r);
	if (!err)
		cr_skip("userfaultfd is for everybody here "
			"(vm.unprivileged_userfaultfd)");
	cr_assert_eq(err, -ENOTSUP);
	cr_assert(strstr(weir_error_text(), "unprivileged_userfaultfd"), "%s",
		  weir_error_text());
	o.flags = WEIR_REGION_USER_WRITES;
	cr_assert_eq(weir_region_reserve(MIB, 0, &o, &r), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_region_release(r), 0);
}

/* ---- fork --------------------------------------------------------------- */

ParameterizedTestParameters(snapshot_life, fork_in_the_middle)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_life, fork_in_the_middle)
{
	struct scene c;
	int status;
	pid_t pid;

#ifdef __SANITIZE_THREAD__
	cr_skip("fork with threads: not under the thread sanitizer");
#endif
	scene_open(&c, m->barrier, m->flags);
	scene_begin(&c);
	memset(c.memory, 1, MIB);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		struct scene own = {.region = c.region, .memory = c.memory};

		alarm(60);
		/* The memory as it is, and writable. */
		CHILD(c.memory[0] == 1);
		CHILD(!memcmp(c.memory + MIB, c.shadow + MIB, BYTES - MIB));
		all_writable(&c);
		CHILD(weir_snapshot_read(c.snapshot, image_sink, &c.image) ==
		      -ESTALE);
		CHILD(weir_snapshot_end(c.snapshot) == -ESTALE);
		/* And one of its own. */
		own.options.size = sizeof(own.options);
		image_open(&own.image, BYTES);
		CHILD(!weir_snapshot_create(&own.region, 1, &own.options,
					    &own.snapshot));
		memcpy(c.shadow, c.memory, BYTES);
		CHILD(!weir_snapshot_begin(own.snapshot));
		all_writable(&c);
		CHILD(!weir_snapshot_read(own.snapshot, image_sink,
					  &own.image));
		CHILD(image_differs(&own.image, c.shadow) == -1);
		CHILD(!weir_snapshot_end(own.snapshot));
		CHILD(!weir_region_release(c.region));
		_exit(0);
	}
	/* Beside the child, whose pages are shared copy-on-write. */
	all_writable(&c);
	scene_read(&c);
	cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status));
	scene_close(&c);
}

/* ---- Several ------------------------------------------------------------ */

struct two {
	char *data[2]; /* images */
};

static int two_sink(void *arg, const struct weir_snapshot_run *runs,
		    size_t count)
{
	struct two *t = arg;

	for (size_t i = 0; i < count; i++) {
		char *to = t->data[runs[i].region] + runs[i].offset;

		if (runs[i].data)
			memcpy(to, runs[i].data, runs[i].bytes);
		else
			memset(to, 0, runs[i].bytes);
	}
	return 0;
}

Test(snapshot_life, regions_of_one_moment)
{
	struct two t = {.data = {malloc(MIB), malloc(2 * MIB)}};
	weir_region *r[2] = {region_of(MIB, 0, WEIR_REGION_AUTO),
			     region_of(2 * MIB, 0, WEIR_REGION_AUTO)};
	char *a = memory_of(r[0]), *b = memory_of(r[1]);
	weir_snapshot *s, *other;

	cr_assert(t.data[0] && t.data[1]);
	memset(t.data[0], 9, MIB);
	memset(t.data[1], 9, 2 * MIB);
	memset(a, 1, MIB);
	memset(b, 2, 2 * MIB);
	cr_assert_eq(weir_snapshot_create(r, 2, NULL, &s), 0, "%s",
		     weir_error_text());
	cr_assert_eq(weir_snapshot_create(r + 1, 1, NULL, &other), -EBUSY);
	cr_assert_eq(weir_region_release(r[0]), -EBUSY);
	cr_assert_eq(weir_snapshot_begin(s), 0);
	memset(a, 3, MIB);
	memset(b + MIB, 4, MIB);
	cr_assert_eq(weir_snapshot_read(s, two_sink, &t), 0, "%s",
		     weir_error_text());
	for (size_t i = 0; i < MIB; i++)
		cr_assert(t.data[0][i] == 1 && t.data[1][i] == 2 &&
			  t.data[1][MIB + i] == 2);
	cr_assert_eq(weir_snapshot_end(s), 0);
	cr_assert_eq(weir_region_release(r[0]), 0);
	cr_assert_eq(weir_region_release(r[1]), 0);
	free(t.data[0]);
	free(t.data[1]);
}

Test(snapshot_life, two_that_overlap_in_time)
{
	struct scene c[2];

	for (int i = 0; i < 2; i++) {
		scene_open(&c[i], WEIR_REGION_AUTO, 0);
		scene_snapshot(&c[i]);
	}
	cr_assert_eq(weir_snapshot_begin(c[0].snapshot), 0);
	memset(c[0].memory, 1, MIB);
	cr_assert_eq(weir_snapshot_begin(c[1].snapshot), 0);
	memset(c[1].memory + MIB, 2, MIB);
	memset(c[0].memory + MIB, 2, MIB);
	scene_read(&c[1]);
	scene_read(&c[0]);
	cr_assert_eq(weir_snapshot_end(c[0].snapshot), 0);
	cr_assert_eq(weir_snapshot_end(c[1].snapshot), 0);
	scene_close(&c[0]);
	scene_close(&c[1]);
}

Test(snapshot_life, growing_and_fixed_addresses)
{
	struct weir_region_options o = {.size = sizeof(o)};
	struct weir_region_info info = {.size = sizeof(info)};
	char *at = mmap(NULL, 4 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
	struct image image;
	weir_snapshot *s;
	weir_region *r, *other;

	/* An address that is free. */
	cr_assert(at != MAP_FAILED && !munmap(at, 4 * MIB));
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

Test(snapshot_life, adopted_memory)
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

Test(snapshot_life, pinned_memory_is_copied_at_the_moment)
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

/* ---- Deltas ------------------------------------------------------------- */

/* What came of a delta over what was there before. */
static void apply(const struct image *m, char *whole)
{
	for (size_t p = 0; p < m->bytes / PAGE; p++)
		if (m->times[p])
			memcpy(whole + p * PAGE, m->data + p * PAGE, PAGE);
}

static size_t pages_of(const struct image *m)
{
	size_t n = 0;

	for (size_t p = 0; p < m->bytes / PAGE; p++)
		n += m->times[p] != 0;
	return n;
}

static void renew(struct image *m)
{
	image_close(m);
	image_open(m, BYTES);
}

static void chain(unsigned barrier, unsigned flags)
{
	struct weir_snapshot_identity id = {.size = sizeof(id)}, last;
	static const uint8_t none[16];
	char *whole = malloc(BYTES);
	struct scene c;
	uint64_t state = 5;

	cr_assert(whole);
	scene_open(&c, barrier, flags | WEIR_REGION_TRACK);
	c.options.flags = WEIR_SNAPSHOT_DELTA;
	c.image.again = barrier == WEIR_REGION_ASYNC;
	if (barrier == WEIR_REGION_ASYNC) {
		c.options.kind = WEIR_SNAPSHOT_END;
		c.options.stop = (int (*)(void *))writers_stop;
		c.options.resume = nothing;
	}
	for (int i = 0; i < 6; i++) {
		struct writers none_to_stop = {.memory = c.memory,
					       .bytes = BYTES};
		bool whole_one;
		size_t pages;

		last = id;
		c.options.stop_arg = &none_to_stop;
		memcpy(c.shadow, c.memory, BYTES);
		scene_snapshot(&c);
		if (i % 2)
			cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), 0);
		cr_assert_eq(weir_snapshot_begin(c.snapshot), 0);
		/* After the moment: in the next one. */
		if (barrier != WEIR_REGION_ASYNC)
			c.memory[(size_t)i * PAGE + 1]++;
		cr_assert_eq(
			weir_snapshot_read(c.snapshot, image_sink, &c.image), 0,
			"%s", weir_error_text());
		cr_assert_eq(weir_snapshot_identity(c.snapshot, &id), 0);
		whole_one = !i || (i == 4 && barrier == WEIR_REGION_ASYNC);
		cr_assert(!memcmp(id.base, whole_one ? none : last.id, 16));
		/* One that does not count: the next has all of it again. */
		if (i == 3) {
			cr_assert_eq(weir_snapshot_abort(c.snapshot), 0);
			cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);
			id = last;
			renew(&c.image);
			c.image.again = barrier == WEIR_REGION_ASYNC;
			continue;
		}
		cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
		apply(&c.image, whole);
		cr_assert(!memcmp(whole, c.shadow, BYTES), "round %d", i);
		pages = pages_of(&c.image);
		if (whole_one)
			cr_assert_eq(pages, BYTES / PAGE);
		else
			cr_assert_leq(pages, 250, "round %d: %zu pages", i,
				      pages);
		renew(&c.image);
		c.image.again = barrier == WEIR_REGION_ASYNC;
		for (int k = 0; k < 100; k++)
			c.memory[random_of(&state) % BYTES]++;
	}
	free(whole);
	scene_close(&c);
}

Test(snapshot_life, deltas_under_sync)
{
	chain(WEIR_REGION_SYNC, 0);
}

Test(snapshot_life, deltas_under_sigbus)
{
	chain(WEIR_REGION_SIGBUS, WEIR_REGION_USER_WRITES);
}

Test(snapshot_life, deltas_under_async)
{
	chain(WEIR_REGION_ASYNC, 0);
}

/* ---- What a review found ------------------------------------------------- */

/* A page that was given back, and written again, has changed: also when the
 * listener is slow to apply what it has read. */
Test(snapshot_life, given_back_and_written_is_in_the_delta)
{
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO,
		   WEIR_REGION_TRACK | WEIR_REGION_USER_WRITES);
	c.options.flags = WEIR_SNAPSHOT_DELTA;
	c.options.pool = MIB;
	for (int i = 0; i < 300; i++) {
		size_t page = (size_t)i % 50;

		scene_snapshot(&c);
		must(!weir_snapshot_prepare(c.snapshot, 0));
		must(!weir_region_discard(c.region, c.memory + page * PAGE,
					  PAGE));
		c.memory[page * PAGE] = (char)(i | 1);
		must(!weir_snapshot_begin(c.snapshot));
		renew(&c.image);
		must(!weir_snapshot_read(c.snapshot, image_sink, &c.image));
		must(c.image.times[page] == 1);
		must(c.image.data[page * PAGE] == (char)(i | 1));
		must(!weir_snapshot_end(c.snapshot));
	}
	scene_close(&c);
}

static void *discard_all(void *arg)
{
	struct scene *c = arg;

	for (size_t at = 0; at < BYTES; at += 4 * PAGE)
		must(!weir_region_discard(c->region, c->memory + at, PAGE));
	return NULL;
}

ParameterizedTestParameters(snapshot_life, discarding_beside_the_end)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_life, discarding_beside_the_end)
{
	struct scene c;

	scene_open(&c, m->barrier, m->flags);
	c.options.pool = 8 * PAGE;
	for (int i = 0; i < 20; i++) {
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

Test(snapshot_life, growing_beside_preparing)
{
	for (int i = 0; i < 10; i++) {
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

ParameterizedTestParameters(snapshot_life, released_beside_writers)
{
	return MANNERS();
}

ParameterizedTest(struct manner *m, snapshot_life, released_beside_writers)
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
	for (int i = 0; i < 30; i++) {
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

Test(snapshot_life, async_pinned_memory_is_read_in_the_stop)
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

/* ---- What is refused ---------------------------------------------------- */

Test(snapshot_life, refused)
{
	struct weir_snapshot_options o = {.size = sizeof(o)};
	struct weir_region_options ro = {.size = sizeof(ro)};
	weir_snapshot *s;
	struct scene c;
	weir_region *r;

	cr_assert_eq(weir_region_reserve(0, 0, NULL, &r), -EINVAL);
	cr_assert_eq(weir_region_reserve((size_t)1 << 47, 0, NULL, &r),
		     -EINVAL);
	ro.flags = 1u << 30;
	cr_assert_eq(weir_region_reserve(MIB, 0, &ro, &r), -EINVAL);
	ro.flags = 0;
	ro.name = "a name of more than thirty-one bytes";
	cr_assert_eq(weir_region_reserve(MIB, 0, &ro, &r), -EINVAL);
	cr_assert_eq(weir_region_release(NULL), 0);
	cr_assert_eq(weir_snapshot_end(NULL), 0);
	r = region_of(MIB, 0, WEIR_REGION_AUTO);
	cr_assert_eq(weir_snapshot_create((weir_region *[]){r, r}, 2, NULL, &s),
		     -EINVAL);
	cr_assert_eq(weir_region_release(r), 0);

	scene_open(&c, WEIR_REGION_AUTO, 0);
	o.kind = WEIR_SNAPSHOT_END;
	cr_assert_eq(weir_snapshot_create(&c.region, 1, &o, &s), -EINVAL);
	o.stop = cannot_stop;
	o.resume = never;
	cr_assert_eq(weir_snapshot_create(&c.region, 1, &o, &s), -ENOTSUP);
	cr_assert(strstr(weir_error_text(), "ASYNC"), "%s", weir_error_text());
	o = (struct weir_snapshot_options){.size = sizeof(o),
					   .flags = WEIR_SNAPSHOT_DELTA};
	cr_assert_eq(weir_snapshot_create(&c.region, 1, &o, &s), -EINVAL);
	o = (struct weir_snapshot_options){.size = sizeof(o), .full = 17};
	cr_assert_eq(weir_snapshot_create(&c.region, 1, &o, &s), -EINVAL);
	o = (struct weir_snapshot_options){.size = 1};
	cr_assert_eq(weir_snapshot_create(&c.region, 1, &o, &s), -EINVAL);
	cr_assert_eq(weir_snapshot_create(&c.region, 0, NULL, &s), -EINVAL);
	scene_close(&c);
}
