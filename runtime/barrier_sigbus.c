/* SPDX-License-Identifier: MIT */
/*
 * The sigbus back end: userfaultfd with UFFD_FEATURE_SIGBUS.  The faulting
 * thread gets SIGBUS and resolves its fault itself in the handler, without a
 * thread switch.  The listener thread reads only discards (EVENT_REMOVE).
 *
 * A system call that writes into a protected page fails with EFAULT under any
 * privilege: the kernel has nobody to send the signal to.  So AUTO never takes
 * this kind; it is here for comparison.
 */
#include <signal.h>

#include "runtime/barrier_signal.h"
#include "runtime/barrier_wp.h"
#include "runtime/check.h"
#include "runtime/kernel_abi.h"

static bool sigbus_fault(void *owner, uintptr_t p, const siginfo_t *info,
			 const void *context)
{
	struct wr_barrier *b = owner;
	struct wr_range *r;
	unsigned ticket;

	(void)context;
	/* Others are hardware's: a poisoned page (BUS_MCEERR_AR). */
	if (info->si_code != BUS_ADRERR)
		return false;
	ticket = wr_grace_enter(&b->grace);
	r = wr_barrier_find(b, p);
	if (r) {
		wr_barrier_count_fault(b);
		wr_wp_fault(b, r, p);
	}
	wr_grace_leave(&b->grace, ticket);
	return r;
}

static int sigbus_open(struct wr_barrier *b)
{
	int err = wr_wp_open(b, UFFD_FEATURE_SIGBUS);

	if (err)
		return err;
	err = wr_signal_attach(SIGBUS, b, sigbus_fault);
	if (err)
		wr_wp_close(b);
	return err;
}

static void sigbus_close(struct wr_barrier *b)
{
	wr_signal_detach(SIGBUS, b);
	wr_wp_close(b);
}

static int sigbus_fork_child(struct wr_barrier *b)
{
	int err;

	wr_signal_fork_child();
	err = wr_wp_fork_child(b);
	if (err)
		wr_signal_detach(SIGBUS, b);
	return err;
}

const struct wr_barrier_ops wr_barrier_sigbus_ops = {
	.open = sigbus_open,
	.close = sigbus_close,
	.add = wr_wp_add,
	.remove = wr_wp_remove,
	.arm = wr_map_arm,
	.fetch = wr_map_fetch,
	.forget = wr_map_forget,
	.fork_prepare = wr_maps_fork_prepare,
	.fork_parent = wr_maps_fork_parent,
	.fork_child = sigbus_fork_child,
};
