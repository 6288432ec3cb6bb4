/* SPDX-License-Identifier: MIT */
/*
 * The watches: descriptors, the listener, the SIGBUS handler, and what a fault
 * or a loss of pages means for a unit.  See watch.h, and region.h for the
 * units' states and the order of the steps.
 *
 *   listener       one thread a watch; all signals blocked; real-time priority
 *                  where that is allowed, because writers wait for it
 *   on_sigbus()    on the writing thread, every signal blocked
 *
 * Both look regions up and use them within a grace period of their watch.
 */
#define _GNU_SOURCE
#include "runtime/watch.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/barrier_grace.h"
#include "runtime/barrier_signal.h"
#include "runtime/check.h"
#include "runtime/futex_lock.h"
#include "runtime/kernel_abi.h"
#include "runtime/region.h"
#include "runtime/uffd.h"

#define BATCH 16
#define GONE 16
#define TABLE ((uintptr_t)2 << 20) /* what a page table maps, or less */
#define KEPT 1024                  /* events that wait: a thread each, mostly */

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
	unsigned count;          /* of msgs: faults, not done */
	struct uffd_msg msgs[KEPT + BATCH];
};

/* By manner. */
static struct wr_watch watches[2] = {
	{.stop = -1, .uffd = {.fd = -1}},
	{.stop = -1, .uffd = {.fd = -1}},
};

/* ---- Protection --------------------------------------------------------- */

int wr_watch_protect(struct wr_watch *w, uintptr_t start, uintptr_t end,
		     bool beside)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	int n;

	if (w->reads_first) {
		n = wr_uffd_populate(start, end);
		if (n < 0)
			return n;
	}
	n = wr_uffd_protect(w->uffd.fd, start, end);
	if (n < 0 || !beside)
		return n < 0 ? n : 0;
	/* Twice, after a look at each page table: a fault that splits the huge
	 * zero page meanwhile would leave pages unprotected; see
	 * barrier_sync.c. */
	for (uintptr_t p = start; p < end; p = (p | (TABLE - 1)) + 1)
		wr_uffd_populate(p, p + page);
	n = wr_uffd_protect(w->uffd.fd, start, end);
	return n < 0 ? n : 0;
}

int wr_watch_unprotect(struct wr_watch *w, uintptr_t start, uintptr_t end)
{
	int n = wr_uffd_unprotect(w->uffd.fd, start, end);

	/* ENOENT: unmapped behind our back, nobody waits there. */
	return n < 0 && n != -ENOENT ? n : 0;
}

void wr_watch_wake(struct wr_watch *w, uintptr_t start, uintptr_t end)
{
	struct uffdio_range range = {.start = start, .len = end - start};
	int saved = errno;

	if (!w->sigbus)
		ioctl(w->uffd.fd, UFFDIO_WAKE, &range);
	errno = saved;
}

/* Without waiting for an event that only the caller reads.  By halves where the
 * range lies in several mappings, before Linux 6.12. */
static int try_pieces(int fd, uintptr_t start, uintptr_t end)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), middle;
	int n = wr_uffd_try_unprotect(fd, start, end), more;

	middle = start + ((end - start) / 2 & ~(page - 1));
	if (n != -ENOENT || middle == start)
		return n;
	n = try_pieces(fd, start, middle);
	if (n == -EAGAIN)
		return n;
	more = try_pieces(fd, middle, end);
	return more < 0 ? more : n;
}

static bool try_open(struct wr_watch *w, const struct weir_region *r, size_t u)
{
	uintptr_t at = wr_unit_address(r, u);
	int n = try_pieces(w->uffd.fd, at, at + wr_region_unit(r));

	if (wr_unlikely(n < 0 && n != -EAGAIN && n != -ENOENT))
		wr_fatal("userfaultfd: %#lx cannot be made writable: %s",
			 (unsigned long)at, strerror(-n));
	return n != -EAGAIN;
}

/* ---- A fault ------------------------------------------------------------ */

static void count_fault(struct weir_region *r)
{
	/* Acquire: pairs with the release in weir_snapshot_create(). */
	struct weir_snapshot *s =
		__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);

	if (s)
		wr_snap_count(&s->figures.faults, 1);
}

/* No snapshot is under way: whatever the unit was, it is open and changed. */
static bool open_unit(struct wr_watch *w, struct weir_region *r, size_t u)
{
	uint8_t seen;

	if (!wr_snap_mutant(WR_SNAP_OPEN_FIRST) && !try_open(w, r, u))
		return false;
	wr_snap_point();
	if (wr_snap_mutant(WR_SNAP_EARLY_MARK)) {
		wr_unit_is_open(r, u);
		wr_snap_point();
	}
	seen = wr_unit_get(r, u);
	while (!wr_unit_swap(r, u, &seen,
			     (seen & ~WR_UNIT_STATE) | WR_UNIT_OPEN |
				     WR_UNIT_DIRTY))
		;
	wr_snap_point();
	if (!wr_snap_mutant(WR_SNAP_EARLY_MARK))
		wr_unit_is_open(r, u);
	if (wr_snap_mutant(WR_SNAP_OPEN_FIRST)) {
		wr_snap_point();
		return try_open(w, r, u);
	}
	return true;
}

static bool failed_already(const struct weir_region *r)
{
	/* Acquire: pairs with the release in create. */
	return wr_snap_failed(__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE));
}

static enum wr_fault_result fault(struct wr_watch *w, struct weir_region *r,
				  uintptr_t p)
{
	size_t u = (p - r->start) >> r->shift;
	enum wr_fault_result result;

	/* SEQ_CST: see weir_snapshot_begin(), which stores TURNING and then
	 * waits for the grace period that this handler is in. */
	switch (__atomic_load_n(&r->phase, __ATOMIC_SEQ_CST)) {
	case WR_PHASE_TURNING:
		return WR_FAULT_AGAIN;
	case WR_PHASE_ACTIVE:
		if (u >= r->snap_units || failed_already(r))
			break;
		result = wr_snap_keep(r, u);
		if (result == WR_FAULT_DONE && !try_open(w, r, u))
			result = WR_FAULT_AGAIN;
		return result;
	}
	return open_unit(w, r, u) ? WR_FAULT_DONE : WR_FAULT_AGAIN;
}

/* ---- Pages that went ---------------------------------------------------- */

/* Unit u loses its content and its protection, now or in a moment: LOOSE in
 * every state, until begin protects it. */
static void lose_unit(struct weir_region *r, size_t u)
{
	struct weir_snapshot *s =
		__atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);
	uint8_t seen = wr_unit_get(r, u), next;
	bool lost;

	do {
		next = seen | WR_UNIT_LOOSE;
		lost = false;
		switch (seen & WR_UNIT_STATE) {
		case WR_UNIT_OPEN:
			next |= WR_UNIT_DIRTY;
			break;
		case WR_UNIT_SAVED:
			next |= WR_UNIT_NEXT;
			break;
		case WR_UNIT_TAKEN:
			next |= WR_UNIT_DIRTY;
			lost = true;
			break;
		case WR_UNIT_ARMED:
			next = (next & ~WR_UNIT_STATE) | WR_UNIT_OPEN |
			       WR_UNIT_DIRTY;
			lost = true;
			break;
		}
	} while (!wr_unit_swap(r, u, &seen, next));
	wr_unit_is_open(r, u);
	/* Acquire: pairs with the release in begin.  TURNING: the writers were
	 * to be quiet. */
	if (lost && s && u < r->snap_units &&
	    __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) >= WR_PHASE_TURNING)
		wr_snap_fail(s, ESTALE,
			     "pages of a region were given back or unmapped "
			     "before they were saved; use "
			     "weir_region_discard(), and unmap nothing during "
			     "a snapshot");
}

static void lose(uintptr_t start, uintptr_t end)
{
	struct weir_region *r;

	for (unsigned i = 0; (r = wr_region_next(&i));) {
		uintptr_t from = start > r->start ? start : r->start;
		uintptr_t to = r->start + r->limit;

		if (to > end)
			to = end;
		if (from >= to)
			continue;
		for (size_t u = (from - r->start) >> r->shift;
		     u <= (to - 1 - r->start) >> r->shift; u++)
			lose_unit(r, u);
	}
}

/* ---- The listener ------------------------------------------------------- */

static bool on_fault(struct wr_watch *w, uintptr_t p)
{
	unsigned ticket = wr_grace_enter(&w->grace);
	struct weir_region *r = wr_region_find(p);
	/* None: it is being removed, which wakes the writer. */
	bool done = !r || r->watch != w || fault(w, r, p) != WR_FAULT_AGAIN;

	wr_grace_leave(&w->grace, ticket);
	return done;
}

/* Do what can be done; the rest stays, in order. */
static void work_off(struct wr_watch *w)
{
	unsigned left = 0;

	for (unsigned i = 0; i < w->count; i++)
		if (!on_fault(w, (uintptr_t)w->msgs[i].arg.pagefault.address))
			w->msgs[left++] = w->msgs[i];
	w->count = left;
}

static void on_new_fault(uintptr_t p)
{
	struct weir_region *r = wr_region_find(p);

	if (r)
		count_fault(r);
}

/* What was read behind the faults that are kept: losses at once, whoever was
 * lets go on may count on it; faults are kept. */
static void sort_out(struct wr_watch *w, ssize_t bytes)
{
	unsigned n =
		bytes > 0 ? (unsigned)((size_t)bytes / sizeof(w->msgs[0])) : 0;
	unsigned ticket = wr_grace_enter(&w->grace), kept = w->count;

	for (unsigned i = w->count; i < w->count + n; i++) {
		const struct uffd_msg *m = &w->msgs[i];

		switch (m->event) {
		case UFFD_EVENT_PAGEFAULT:
			on_new_fault((uintptr_t)m->arg.pagefault.address);
			w->msgs[kept++] = *m;
			break;
		case UFFD_EVENT_REMOVE:
		case UFFD_EVENT_UNMAP:
			lose((uintptr_t)m->arg.remove.start,
			     (uintptr_t)m->arg.remove.end);
			break;
		case UFFD_EVENT_REMAP:
			lose((uintptr_t)m->arg.remap.from,
			     (uintptr_t)(m->arg.remap.from + m->arg.remap.len));
			break;
		default:
			wr_fatal("userfaultfd: event %#x was not asked for",
				 m->event);
		}
	}
	w->count = kept;
	wr_grace_leave(&w->grace, ticket);
}

static void *listen_main(void *arg)
{
	static const struct timespec moment = {.tv_nsec = 20000};
	struct wr_watch *w = arg;
	struct pollfd fds[] = {
		{.fd = w->uffd.fd, .events = POLLIN},
		{.fd = w->stop, .events = POLLIN},
	};
	ssize_t n;

	prctl(PR_SET_NAME, "weir-watch");
	for (;;) {
		if (poll(fds, 2, w->count ? 0 : -1) < 0 && errno != EINTR)
			wr_fatal("poll on userfaultfd: %s", strerror(errno));
		if (fds[1].revents)
			return NULL;
		n = 0;
		/* The kernel lets a discard go on inside of read(): see
		 * wr_watch_settle(). */
		__atomic_fetch_add(&w->turn, 1, __ATOMIC_SEQ_CST);
		if (w->count <= KEPT)
			n = read(w->uffd.fd, &w->msgs[w->count],
				 BATCH * sizeof(w->msgs[0]));
		/* EAGAIN: the writer was interrupted and took it back. */
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			wr_fatal("read from userfaultfd: %s", strerror(errno));
		sort_out(w, n);
		__atomic_fetch_add(&w->turn, 1, __ATOMIC_SEQ_CST);
		work_off(w);
		/* To whom it waits for, who may have a lower priority. */
		if (w->count)
			nanosleep(&moment, NULL);
	}
}

/*
 * SEQ_CST with the two increments in listen_main(): a discard that returned
 * before this call was read in a turn that had become odd before, so that is
 * seen here, or the turn is over.  The listener itself is never between the two
 * when it does a handler's work.
 */
void wr_watch_settle(struct wr_watch *w)
{
	static const struct timespec moment = {.tv_nsec = 20000};
	uint64_t seen = __atomic_load_n(&w->turn, __ATOMIC_SEQ_CST);
	unsigned tries = 0;

	while (seen & 1 && __atomic_load_n(&w->turn, __ATOMIC_SEQ_CST) == seen)
		if (++tries > 50)
			nanosleep(&moment, NULL);
		else
			sched_yield();
}

/* ---- The signal --------------------------------------------------------- */

/* Wait for s->wake to change from `seen`, or a moment: what is waited for may
 * have been done by one who did not see us wait. */
static void wait_for(struct weir_snapshot *s, uint32_t seen)
{
	struct timespec at_most = {.tv_nsec = 2000000};

	/* SEQ_CST: pairs with wr_snap_wake(): either it sees the waiter, or
	 * the word has changed and the kernel does not sleep. */
	__atomic_fetch_add(&s->waiting, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &s->wake, FUTEX_WAIT_PRIVATE, seen, &at_most);
	__atomic_fetch_sub(&s->waiting, 1, __ATOMIC_SEQ_CST);
}

/* Whether p was in a region of w's until a while ago. */
static bool is_gone(const struct wr_watch *w, uintptr_t p)
{
	for (unsigned i = 0; i < GONE; i++)
		/* Relaxed: it was noted before the region was withdrawn, with
		 * SEQ_CST, which was seen.  A range in the making only makes a
		 * fault come again. */
		if (p >= __atomic_load_n(&w->gone[i].start, __ATOMIC_RELAXED) &&
		    p < __atomic_load_n(&w->gone[i].end, __ATOMIC_RELAXED))
			return true;
	return false;
}

static bool on_sigbus(void *owner, uintptr_t p, const siginfo_t *info,
		      const void *context)
{
	static const struct timespec moment = {.tv_nsec = 20000};
	/* Initial-exec: the first use of another model's variable may allocate,
	 * which a handler must not. */
	static _Thread_local uintptr_t last
		__attribute__((tls_model("initial-exec")));
	static _Thread_local unsigned again
		__attribute__((tls_model("initial-exec")));
	struct wr_watch *w = owner;
	struct weir_region *r;
	unsigned tries = 0;

	(void)context;
	/* Others are hardware's: a poisoned page (BUS_MCEERR_AR). */
	if (info->si_code != BUS_ADRERR)
		return false;
	/* Nor is one that comes again and again: the file behind it was cut
	 * short, or its device fails. */
	if (p == last && ++again > 1000)
		return false;
	if (p != last)
		again = 0;
	last = p;
	for (;;) {
		unsigned ticket = wr_grace_enter(&w->grace);
		enum wr_fault_result result = WR_FAULT_DONE;
		struct weir_snapshot *s = NULL;
		uint32_t seen = 0;

		r = wr_region_find(p);
		if (r && r->watch == w) {
			if (!tries)
				count_fault(r);
			s = __atomic_load_n(&r->snapshot, __ATOMIC_ACQUIRE);
			if (s)
				seen = __atomic_load_n(&s->wake,
						       __ATOMIC_SEQ_CST);
			result = fault(w, r, p);
			/* In the grace period, or the snapshot could go. */
			if (result == WR_FAULT_WAIT && s)
				wait_for(s, seen);
		}
		wr_grace_leave(&w->grace, ticket);
		/* A region of another watch has real ones only.  One that was
		 * released meanwhile is not protected any more. */
		if (!r || r->watch != w)
			return !r && is_gone(w, p);
		if (result == WR_FAULT_DONE)
			return true;
		/* Not for long: begin, the copying of a unit, a loss that the
		 * listener has yet to read. */
		if (result == WR_FAULT_AGAIN && ++tries > 50)
			nanosleep(&moment, NULL);
		else
			sched_yield();
	}
}

/* ---- Life --------------------------------------------------------------- */

static int listen_start(struct wr_watch *w)
{
	struct sched_param low = {.sched_priority =
					  sched_get_priority_min(SCHED_FIFO)};
	sigset_t all, saved;
	int err;

	w->count = 0;
	w->turn = 0;
	w->stop = eventfd(0, EFD_CLOEXEC);
	if (w->stop < 0)
		return wr_error(errno, "eventfd: %s; raise RLIMIT_NOFILE",
				strerror(errno));
	/* The thread inherits the mask: signals are for the program's own. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = pthread_create(&w->thread, NULL, listen_main, w);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (err) {
		close(w->stop);
		w->stop = -1;
		return wr_error(err,
				"the thread that hears of writes cannot be "
				"made: %s; raise RLIMIT_NPROC or RLIMIT_AS",
				strerror(err));
	}
	/* Where it is not allowed, it is done without. */
	pthread_setschedparam(w->thread, SCHED_FIFO, &low);
	return 0;
}

static int open_descriptor(struct wr_watch *w)
{
	uint64_t offered = wr_uffd_offered();
	uint64_t features =
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMOVE |
		UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP |
		(w->sigbus ? UFFD_FEATURE_SIGBUS : 0) |
		(offered & UFFD_FEATURE_WP_HUGETLBFS_SHMEM);

	w->reads_first = offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP &&
			 !(offered & UFFD_FEATURE_WP_UNPOPULATED);
	if (!w->reads_first)
		features |= UFFD_FEATURE_WP_UNPOPULATED;
	return wr_uffd_open(&w->uffd, features, !w->sigbus);
}

int wr_watch_get(bool sigbus, struct wr_watch **out)
{
	struct wr_watch *w = &watches[sigbus];
	int err;

	*out = w;
	if (w->users++)
		return 0;
	w->sigbus = sigbus;
	err = open_descriptor(w);
	if (!err) {
		err = listen_start(w);
		if (err)
			wr_uffd_close(&w->uffd);
	}
	if (!err && sigbus && !w->attached) {
		err = wr_signal_attach(SIGBUS, w, on_sigbus);
		if (err) {
			wr_watch_put(w);
			return err;
		}
		/* For good: a fault may be on its way to the handler when the
		 * last region is released. */
		w->attached = true;
	}
	if (err)
		w->users = 0;
	return err;
}

void wr_watch_put(struct wr_watch *w)
{
	uint64_t one = 1;

	if (--w->users)
		return;
	while (write(w->stop, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(w->thread, NULL);
	close(w->stop);
	w->stop = -1;
	wr_uffd_close(&w->uffd);
}

bool wr_watch_serves_kernel(const struct wr_watch *w)
{
	return !w->sigbus && wr_uffd_serves_kernel(&w->uffd);
}

int wr_watch_add(struct wr_watch *w, struct weir_region *r)
{
	void *start = (void *)r->start;

	/* What KSM merges loses its protection.  EINVAL: there is no KSM, or
	 * there are no huge pages. */
	madvise(start, r->limit, MADV_UNMERGEABLE);
	if (w->reads_first && !r->shared)
		madvise(start, r->limit, MADV_NOHUGEPAGE);
	return wr_uffd_add_range(&w->uffd, r->start, r->start + r->limit);
}

void wr_watch_remove(struct wr_watch *w, struct weir_region *r)
{
	unsigned i = w->next_gone++ % GONE;

	__atomic_store_n(&w->gone[i].end, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&w->gone[i].start, r->start, __ATOMIC_RELAXED);
	__atomic_store_n(&w->gone[i].end, r->start + r->limit,
			 __ATOMIC_RELAXED);
	wr_uffd_remove_range(&w->uffd, r->start, r->start + r->limit);
}

void wr_watch_grace(struct wr_watch *w)
{
	/* Any thread may come to it, for any of the regions. */
	wr_futex_lock(&w->grace_lock);
	wr_grace_wait(&w->grace);
	wr_futex_unlock(&w->grace_lock);
}

unsigned wr_watch_enter(struct wr_watch *w)
{
	return wr_grace_enter(&w->grace);
}

void wr_watch_leave(struct wr_watch *w, unsigned ticket)
{
	wr_grace_leave(&w->grace, ticket);
}

void wr_watch_fork_child(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct wr_watch *w = &watches[i];

		if (w->attached)
			wr_signal_fork_child();
		if (!w->users)
			continue;
		if (w->stop >= 0)
			close(w->stop);
		w->stop = -1;
		wr_uffd_close(&w->uffd);
		wr_grace_reset(&w->grace);
		w->grace_lock = 0;
		w->users = 0;
	}
}
