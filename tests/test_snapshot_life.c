/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that do not go the straight way: full pools, failing and aborted
 * ones, fork, several at a time, and calls that are refused.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/seccomp.h"
#include "tests/snapshot_scene.h"

/* A snapshot of what is there now, with every page written beside it. */
static void begun_and_right(struct scene *c)
{
	memcpy(c->shadow, c->memory, BYTES);
	scene_begin(c);
	all_writable(c);
	scene_read(c);
	cr_assert_eq(weir_snapshot_end(c->snapshot), 0);
}

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

/* ---- A begin that fails in the middle ------------------------------------ */

/* In a thread that may not protect pages any more. */
static void *begin_denied(void *arg)
{
	struct scene *c = arg;
	int err;

	must(!seccomp_deny(SYS_ioctl, ENOMEM));
	err = weir_snapshot_begin(c->snapshot);
	must(err == -ENOMEM);
	must(strstr(weir_error_text(), "cannot be protected"));
	return NULL;
}

ParameterizedTestParameters(snapshot_life, begin_fails_in_the_middle)
{
	return MANNERS();
}

/* Some pages are to be copied, then many in a row protected, which fails.  The
 * next one has all of them. */
ParameterizedTest(struct manner *m, snapshot_life, begin_fails_in_the_middle)
{
	static const size_t pages[] = {3, 70, 71, 200, 900};
	pthread_t thread;
	struct scene c;

	scene_open(&c, m->barrier, m->flags | WEIR_REGION_TRACK);
	scene_snapshot(&c);
	cr_assert_eq(weir_snapshot_prepare(c.snapshot, 0), 0);
	for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++)
		c.memory[pages[i] * PAGE]++;
	memset(c.memory + 512 * PAGE, 1, 40 * PAGE);
	cr_assert_eq(pthread_create(&thread, NULL, begin_denied, &c), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(weir_snapshot_end(c.snapshot), -ENOMEM);
	c.memory[5 * PAGE]++;
	begun_and_right(&c);
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
	begun_and_right(&c);
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

/* ---- What is refused ---------------------------------------------------- */

#if !WEIR_CHECKING
Test(snapshot_life, a_handle_that_has_ended)
{
	struct weir_snapshot_identity id = {.size = sizeof(id)};
	struct weir_snapshot_progress p = {.size = sizeof(p)};
	struct weir_region_info info = {.size = sizeof(info)};
	weir_snapshot *old;
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	scene_begin(&c);
	old = c.snapshot;
	cr_assert_eq(weir_snapshot_end(old), -ECANCELED);
	/* Also when others have come. */
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(weir_snapshot_prepare(old, 0), -EINVAL);
		cr_assert(strstr(weir_error_text(), "has ended"), "%s",
			  weir_error_text());
		cr_assert_eq(weir_snapshot_begin(old), -EINVAL);
		cr_assert_eq(weir_snapshot_read(old, image_sink, &c.image),
			     -EINVAL);
		cr_assert_eq(weir_snapshot_progress(old, &p), -EINVAL);
		cr_assert_eq(weir_snapshot_abort(old), -EINVAL);
		cr_assert_eq(weir_snapshot_identity(old, &id), -EINVAL);
		cr_assert_eq(weir_snapshot_region(old, 0, &info), -EINVAL);
		cr_assert_eq(weir_snapshot_end(old), -EINVAL);
		scene_begin(&c);
		scene_read(&c);
		cr_assert_eq(weir_snapshot_end(c.snapshot), 0);
		renew(&c.image);
	}
	scene_close(&c);
}

/* Memory of handles is used again, and not without end. */
Test(snapshot_life, handles_of_many)
{
	weir_snapshot *seen[40];
	unsigned distinct = 0;
	struct scene c;

	scene_open(&c, WEIR_REGION_AUTO, 0);
	for (size_t i = 0; i < 40; i++) {
		size_t k = 0;

		scene_snapshot(&c);
		seen[i] = c.snapshot;
		while (seen[k] != seen[i])
			k++;
		distinct += k == i;
		cr_assert_eq(weir_snapshot_end(c.snapshot), -ECANCELED);
	}
	cr_assert_leq(distinct, 10, "%u", distinct);
	scene_close(&c);
}
#endif

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
