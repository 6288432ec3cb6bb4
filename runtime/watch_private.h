/* SPDX-License-Identifier: MIT */
/*
 * Between watch.c, watch_fault.c and watch_listen.c.
 */
#ifndef WEIR_RUNTIME_WATCH_PRIVATE_H
#define WEIR_RUNTIME_WATCH_PRIVATE_H

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>

#include "runtime/barrier_grace.h"
#include "runtime/kernel_abi.h"
#include "runtime/region.h"
#include "runtime/uffd.h"
#include "runtime/watch.h"

#define BATCH 16
#define GONE 16
#define KEPT 256 /* entries of `kept` at first */

struct wr_kept_fault {
	uintptr_t address; /* that was written to */
	pid_t writer;      /* thread id */
};

struct wr_watch {
	bool sigbus;           /* its manner */
	bool reads_first;      /* before Linux 6.4: holes cannot be protected */
	bool attached;         /* SIGBUS comes to it */
	unsigned users;        /* regions; 0: closed */
	struct wr_uffd uffd;   /* the descriptor */
	struct wr_grace grace; /* handlers at work */
	pthread_t thread;      /* the listener */
	int stop;              /* eventfd: readable when it is to end */
	uint32_t grace_lock;   /* futex lock: one waits at a time */
	uint64_t turn;         /* odd: losses were read, not applied; atomic */
	struct {
		uintptr_t start; /* first byte; atomic */
		uintptr_t end;   /* one past the last; atomic */
	} gone[GONE];            /* ring of what was released last */
	unsigned next_gone;      /* its entry to be used next */
	/* The listener's: faults that wait, one a thread, mostly. */
	struct wr_kept_fault *kept; /* own memory */
	size_t capacity;            /* entries allocated */
	size_t count;               /* entries in use */
	struct uffd_msg msgs[BATCH];
};

/* ---- watch_fault.c ------------------------------------------------------- */

/* `writer` (see wr_snap_keep()) has written to p, of region r: what that means
 * for its unit.  In a grace period of w; all signals blocked. */
enum wr_fault_result wr_watch_fault(struct wr_watch *w, struct weir_region *r,
				    uintptr_t p, pid_t writer);
/* One more in the snapshot's figures.  Likewise. */
void wr_watch_count(struct weir_region *r);
/* Pages of [start, end) lose their content and their protection.  Likewise. */
void wr_watch_lose(uintptr_t start, uintptr_t end);
/* The owner of SIGBUS, a struct wr_watch; see barrier_signal.h. */
bool wr_watch_on_sigbus(void *owner, uintptr_t p, const siginfo_t *info,
			const void *context);

/* ---- watch_listen.c ------------------------------------------------------ */

/* The thread, and `stop`.  0 or a negative errno with text. */
int wr_watch_listen(struct wr_watch *w);

#endif
