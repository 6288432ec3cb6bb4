/* SPDX-License-Identifier: MIT */
/*
 * SIGSEGV and SIGBUS for those who resolve faults in the faulting thread: back
 * ends of the barrier, and regions under snapshots.  A signal that is not about
 * a page of ours goes to whatever handled it before.
 */
#ifndef WEIR_RUNTIME_BARRIER_SIGNAL_H
#define WEIR_RUNTIME_BARRIER_SIGNAL_H

#include <signal.h>
#include <stdbool.h>

#include <stdint.h>

/* A fault at `p`.  Runs in the signal handler, every signal blocked.  False:
 * not a fault of the owner's. */
typedef bool wr_fault_fn(void *owner, uintptr_t p, const siginfo_t *info,
			 const void *context);

/* Hand faults to fn, with `owner`, which tells attachments apart.  signo:
 * SIGSEGV or SIGBUS.  -EAGAIN: too many owners. */
int wr_signal_attach(int signo, void *owner, wr_fault_fn *fn);
/* No handler looks at the owner any more when it returns. */
void wr_signal_detach(int signo, void *owner);
void wr_signal_fork_child(void);

#endif
