/* SPDX-License-Identifier: MIT */
/*
 * The mprotect back end: pages are made read-only, a write raises SIGSEGV, the
 * handler makes the page read-write again.  Works on any kernel; for
 * comparison only, because a system call that writes into a protected page
 * fails with EFAULT.
 *
 * Protection is of mappings here, not of pages, and that brings two things:
 *
 *  - Only pages known to be read-write may be armed, or a PROT_NONE part would
 *    become accessible at its first "write fault".  They are learned from
 *    /proc/self/maps, each page once, so an owner may turn PROT_NONE into
 *    read-write at any time but not back.  The rest of a range stays DIRTY.
 *  - Every isolated writable page costs two mappings, and vm.max_map_count
 *    ends that (ENOMEM, at about 32,700 pages).  Then the whole range is made
 *    writable and DIRTY, which merges them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "runtime/barrier_map.h"
#include "runtime/barrier_signal.h"
#include "runtime/check.h"

static int set(uintptr_t start, uintptr_t end, int prot)
{
	int saved = errno, n = 1;

	if (mprotect((void *)start, end - start, prot)) {
		n = -errno;
		errno = saved;
	}
	return n;
}

static int mp_protect(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	(void)b;
	return set(start, end, PROT_READ);
}

static int mp_unprotect(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	(void)b;
	return set(start, end, PROT_READ | PROT_WRITE);
}

static const struct wr_protector protector = {
	.protect = mp_protect,
	.unprotect = mp_unprotect,
	.learn = wr_map_learn,
};

/* ---- The fault ---------------------------------------------------------- */

#if defined(__x86_64__)
static bool is_write(uintptr_t p, const void *context)
{
	const ucontext_t *uc = context;

	(void)p;
	return uc->uc_mcontext.gregs[REG_ERR] & 2;
}
#else
/*
 * The signal does not tell portably.  A write succeeds on the next try; what
 * faults at one place again and again, without any other fault in between, is
 * something else (a jump into data).  Initial-exec: the first use of another
 * model's variable may allocate, which a handler must not.
 */
static bool is_write(uintptr_t p, const void *context)
{
	static _Thread_local uintptr_t last
		__attribute__((tls_model("initial-exec")));
	static _Thread_local unsigned again
		__attribute__((tls_model("initial-exec")));

	(void)context;
	again = p == last ? again + 1 : 0;
	last = p;
	return again < 1000;
}
#endif

static void resolve(struct wr_barrier *b, struct wr_range *r, uintptr_t p)
{
	int err;

	wr_barrier_count_fault(b);
	err = wr_map_resolve(b, r, p);
	if (err == -ENOMEM)
		err = wr_map_open_up(b, r);
	if (err)
		wr_fatal("mprotect: page %#lx cannot be made writable: %s",
			 (unsigned long)p, strerror(-err));
}

static bool mp_fault(void *owner, uintptr_t p, const siginfo_t *info,
		     const void *context)
{
	struct wr_barrier *b = owner;
	unsigned ticket = wr_grace_enter(&b->grace);
	struct wr_range *r = wr_barrier_find(b, p);
	bool done = r && info->si_code == SEGV_ACCERR &&
		    wr_map_usable(r->state, wr_map_index(b, r, p)) &&
		    is_write(p, context);

	if (done)
		resolve(b, r, p);
	wr_grace_leave(&b->grace, ticket);
	return done;
}

/* ---- The back end ------------------------------------------------------- */

static int mp_open(struct wr_barrier *b)
{
	int err = wr_map_can_learn("the mprotect barrier");

	if (!err)
		err = wr_maps_open(b, &protector);
	if (err)
		return err;
	err = wr_signal_attach(SIGSEGV, b, mp_fault);
	if (err)
		wr_maps_close(b);
	return err;
}

static void mp_close(struct wr_barrier *b)
{
	wr_signal_detach(SIGSEGV, b);
	wr_maps_close(b);
}

static void mp_remove(struct wr_barrier *b, struct wr_range *r)
{
	/* Fails if the owner unmapped it already: nothing to give back. */
	wr_map_open_up(b, r);
	wr_map_remove(b, r);
}

static int mp_fork_child(struct wr_barrier *b)
{
	struct wr_range *r;
	int err = 0;

	/* The child inherited the mappings' protection with the memory. */
	wr_signal_fork_child();
	wr_maps_fork_child(b);
	for (r = b->ranges; r && !err; r = r->next)
		if (r->end)
			err = wr_map_open_up(b, r);
	if (!err)
		return 0;
	wr_fatal("mprotect after fork: pages cannot be made writable: %s",
		 strerror(-err));
}

const struct wr_barrier_ops wr_barrier_mprotect_ops = {
	.open = mp_open,
	.close = mp_close,
	.add = wr_map_add,
	.remove = mp_remove,
	.arm = wr_map_arm,
	.fetch = wr_map_fetch,
	.forget = wr_map_forget,
	.fork_prepare = wr_maps_fork_prepare,
	.fork_parent = wr_maps_fork_parent,
	.fork_child = mp_fork_child,
};
