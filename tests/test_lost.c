/* SPDX-License-Identifier: MIT */
/*
 * A heap where the system gives less: no /proc, no userfaultfd, no privileges,
 * limits.  Each test takes one thing away from its own process, before the
 * heap is made, and runs whole cycles; the barrier must be the one that the
 * probe table promises, and must do what it is for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "gc/heap.h"
#include "runtime/probe.h"
#include "tests/heap_util.h"
#include "tests/take_away.h"

#define NODES 50000

struct node {
	struct node *next;
	uint64_t id;
};

static struct node *root;

static void *make_list(weir_mutator *m, size_t n)
{
	struct node *list = NULL;

	for (size_t i = 0; i < n; i++) {
		struct node *p = weir_alloc(m, sizeof(*p));

		cr_assert_not_null(p, "%s", weir_error_text());
		p->next = list;
		p->id = i;
		list = p;
	}
	return list;
}

static void check_list(const struct node *list, size_t n)
{
	for (size_t i = n; i-- > 0; list = list->next) {
		cr_assert_not_null(list);
		cr_assert_eq(list->id, i);
	}
	cr_assert_null(list);
}

/* Another thread attaches, allocates and keeps what it made on its stack. */
static void *other_main(void *arg)
{
	struct node *volatile mine;
	weir_mutator *m;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0, "%s", weir_error_text());
	mine = make_list(m, NODES);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	check_list(mine, NODES);
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

/* Below the frame that holds the list. */
static __attribute__((noinline)) void cycles(void)
{
	static const unsigned kinds[] = {WEIR_COLLECT_FULL, WEIR_COLLECT_MINOR,
					 WEIR_COLLECT_MINOR};
	pthread_t t;

	for (unsigned i = 0; i < 6; i++) {
		make_list(self, NODES / 2);
		cr_assert_eq(weir_collect(heap, kinds[i % 3]), 0);
		/* Young behind old. */
		root->next = make_list(self, 1000);
		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
		check_list(root->next, 1000);
	}
	cr_assert_eq(pthread_create(&t, NULL, other_main, NULL), 0);
	weir_blocking_call(self, join, &t);
}

/* Create, attach the first thread, allocate, collect, look, destroy. */
static void run(enum wr_barrier_kind kind)
{
	struct node *volatile held; /* by this frame only */
	struct wr_probe_choice choice;
	struct weir_stats s;
	uint64_t all;

	wr_probe_choose(&choice);
	cr_assert_eq(choice.kind, kind, "the probe table says %s",
		     wr_barrier_name(choice.kind));
	heap_open("verify=on,poison=on,heap-min=2m");
	cr_assert_str_eq(heap_stats().barrier, wr_barrier_name(kind));
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = weir_alloc(self, sizeof(*root));
	held = make_list(self, NODES);
	cycles();
	check_list(held, NODES);
	s = heap_stats();
	all = s.cycles_full + s.cycles_minor;
	cr_assert_geq(s.cycles_full, 2);
	/* Concurrent if there is a barrier, and it found what was written;
	 * without one there is nothing to tell what a minor cycle may skip. */
	cr_assert_geq(s.cycles_minor, kind == WR_BARRIER_NONE ? 0 : 6);
	cr_assert_geq(s.dirty_pages, kind == WR_BARRIER_NONE ? 0 : 6);
	cr_assert_eq(s.cycles_stopped, kind == WR_BARRIER_NONE ? all : 0);
	heap_close();
}

static bool device_opens(void)
{
	return access("/dev/userfaultfd", R_OK | W_OK) == 0;
}

/* ---- Privileges --------------------------------------------------------- */

Test(lost, nothing)
{
	need_async();
	run(WR_BARRIER_ASYNC);
}

Test(lost, privileges)
{
	need_async();
	drop_privileges();
	run(WR_BARRIER_ASYNC);
}

/* /proc/self/pagemap is root's then. */
Test(lost, the_right_to_look_at_oneself)
{
	need_async();
	drop_privileges();
	cr_assert(!prctl(PR_SET_DUMPABLE, 0));
	if (access("/proc/self/pagemap", R_OK) == 0)
		cr_skip("/proc/self/pagemap opens all the same");
	run(WR_BARRIER_NONE);
}

/* ---- userfaultfd -------------------------------------------------------- */

Test(lost, userfaultfd_denied)
{
	need_async();
	drop_privileges();
	if (device_opens())
		cr_skip("/dev/userfaultfd opens for everybody");
	deny(SYS_userfaultfd, EPERM);
	run(WR_BARRIER_NONE);
}

Test(lost, userfaultfd_hidden)
{
	need_async();
	drop_privileges();
	if (device_opens())
		cr_skip("/dev/userfaultfd opens for everybody");
	deny(SYS_userfaultfd, ENOSYS);
	run(WR_BARRIER_NONE);
}

Test(lost, userfaultfd_but_for_the_device)
{
	need_async();
	if (!device_opens())
		cr_skip("/dev/userfaultfd is not to be had");
	deny(SYS_userfaultfd, EPERM);
	run(WR_BARRIER_ASYNC);
}

/* ---- /proc -------------------------------------------------------------- */

Test(lost, proc)
{
	need_async();
	leave_proc();
	run(WR_BARRIER_SYNC);
}

Test(lost, proc_and_privileges)
{
	need_async();
	leave_proc();
	drop_privileges();
	run(WR_BARRIER_NONE);
}

static uintptr_t base_of_first_stack(void)
{
	uintptr_t base;

	heap_open(NULL);
	base = self->thread.stack_base;
	heap_close();
	return base;
}

/* The base found without /proc is the one that the C library finds in it. */
Test(lost, proc_but_the_stack_is_the_same)
{
	uintptr_t base = base_of_first_stack();

	leave_proc();
	cr_assert_eq(base_of_first_stack(), base);
}

/* ---- Limits ------------------------------------------------------------- */

Test(lost, addresses)
{
	struct rlimit old;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer needs addresses of its own");
#endif
	need_async();
	old = lower(RLIMIT_AS, 1024 * MIB);
	run(WR_BARRIER_ASYNC);
	setrlimit(RLIMIT_AS, &old);
}

/* Keep all that is allocated until nothing more comes. */
static size_t fill(void)
{
	size_t n = 0;
	void **p;

	while ((p = weir_alloc(self, 4096))) {
		*p = root;
		root = (struct node *)p;
		n++;
	}
	return n;
}

/* A limit on private writable memory: it does for a small heap; one that grows
 * into it gets an error that names it, and lives on. */
Test(lost, data)
{
	struct rlimit old;
	size_t n;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer needs memory of its own");
#endif
	need_async();
	old = lower(RLIMIT_DATA, 192 * MIB);
	run(WR_BARRIER_ASYNC);

	heap_open(NULL);
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	n = fill();
	cr_assert_eq(errno, ENOMEM);
	cr_assert(strstr(weir_error_text(), "ulimit -d"), "\"%s\"",
		  weir_error_text());
	cr_assert_gt(n, 1000);
	cr_assert_lt(n, 192 * MIB / 4096);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	root = NULL;
	scrub();
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	check_list(make_list(self, NODES), NODES);
	cr_assert_gt(fill(), n / 2);
	heap_close();
	setrlimit(RLIMIT_DATA, &old);
}
