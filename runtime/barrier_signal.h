/* SPDX-License-Identifier: MIT */
/*
 * SIGSEGV and SIGBUS for the back ends that resolve faults in the faulting
 * thread.  A signal that is not about a page of ours goes to whatever handled
 * it before.
 */
#ifndef WEIR_RUNTIME_BARRIER_SIGNAL_H
#define WEIR_RUNTIME_BARRIER_SIGNAL_H

#include <signal.h>
#include <stdbool.h>

#include "runtime/barrier_ops.h"

/* A fault at `p` in range r.  Runs in the signal handler, every signal
 * blocked.  False: not a fault of the barrier. */
typedef bool wr_fault_fn(struct wr_barrier *b, struct wr_range *r, uintptr_t p,
			 const siginfo_t *info, const void *context);

/* Hand faults in b's ranges to fn.  signo: SIGSEGV or SIGBUS.  -EAGAIN: too
 * many barriers. */
int wr_signal_attach(int signo, struct wr_barrier *b, wr_fault_fn *fn);
/* No handler looks at b any more when it returns. */
void wr_signal_detach(int signo, struct wr_barrier *b);
void wr_signal_fork_child(void);

#endif
