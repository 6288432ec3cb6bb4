/* SPDX-License-Identifier: MIT */
/* What tests take away from their own process: privileges, /proc, limits,
 * system calls. */
#ifndef WEIR_TESTS_TAKE_AWAY_H
#define WEIR_TESTS_TAKE_AWAY_H

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier.h"
#include "tests/seccomp.h"

#define NOBODY 65534
#define MIB ((size_t)1 << 20)

static inline void need_root(void)
{
	if (geteuid() != 0)
		cr_skip("needs root");
}

/* What is to be taken away must be there before. */
static inline void need_async(void)
{
	struct wr_barrier *b;

	if (wr_barrier_create(WR_BARRIER_ASYNC, &b))
		cr_skip("async: %s", weir_error_text());
	wr_barrier_destroy(b);
}

static inline void drop_privileges(void)
{
	if (geteuid() == 0) {
		cr_assert(!setresgid(NOBODY, NOBODY, NOBODY));
		cr_assert(!setresuid(NOBODY, NOBODY, NOBODY));
	}
	/* As after an execve(): changing the user took this away. */
	cr_assert(!prctl(PR_SET_DUMPABLE, 1));
}

static inline void leave_proc(void)
{
#ifdef __SANITIZE_ADDRESS__
	cr_skip("the leak checker needs /proc at the end");
#endif
	need_root();
	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		cr_skip("no mount namespace is to be had: %s", strerror(errno));
	cr_assert(!umount2("/proc", MNT_DETACH), "%s", strerror(errno));
	cr_assert(access("/proc/self", F_OK));
}

/* Set a soft limit; returns what it was. */
static inline struct rlimit lower(int resource, rlim_t value)
{
	struct rlimit old, now;

	cr_assert(!getrlimit((__rlimit_resource_t)resource, &old));
	now = old;
	now.rlim_cur = value;
	cr_assert(!setrlimit((__rlimit_resource_t)resource, &now));
	return old;
}

/* Make one system call fail from now on. */
static inline void deny(int number, int err)
{
	cr_assert(!seccomp_deny(number, err), "%s", strerror(errno));
}

#endif
