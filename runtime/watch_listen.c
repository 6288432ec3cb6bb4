/* SPDX-License-Identifier: MIT */
/*
 * The listener: one thread a watch that reads the descriptor's events.  All
 * signals blocked; real-time priority where that is allowed, because writers
 * wait for it.
 *
 * It waits for nothing but events: while a loss is unread the kernel says
 * EAGAIN to every change of protection.  What cannot be done at once it keeps
 * and tries again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/own_memory.h"
#include "runtime/patience.h"
#include "runtime/watch_private.h"

static bool on_fault(struct wr_watch *w, const struct wr_kept_fault *f)
{
	unsigned ticket = wr_grace_enter(&w->grace);
	struct weir_region *r = wr_region_find(f->address);
	/* None: it is being removed, which wakes the writer. */
	bool done =
		!r || r->watch != w ||
		wr_watch_fault(w, r, f->address, f->writer) != WR_FAULT_AGAIN;

	wr_grace_leave(&w->grace, ticket);
	return done;
}

/* Do what can be done; the rest stays, in order. */
static void work_off(struct wr_watch *w)
{
	size_t left = 0;

	for (size_t i = 0; i < w->count; i++)
		if (!on_fault(w, &w->kept[i]))
			w->kept[left++] = w->kept[i];
	w->count = left;
}

/* Room for one more that is kept. */
static bool make_room(struct wr_watch *w)
{
	size_t more = w->capacity ? 2 * w->capacity : KEPT;
	struct wr_kept_fault *p;

	if (w->count < w->capacity)
		return true;
	p = wr_own_grow(w->kept, w->capacity * sizeof(*p), more * sizeof(*p));
	if (!p)
		return false;
	w->kept = p;
	w->capacity = more;
	return true;
}

/* However many wait: the kernel hands out losses behind faults, and all that
 * changes protection waits until a loss was read. */
static void on_new_fault(struct wr_watch *w, const struct uffd_msg *m)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t p = (uintptr_t)m->arg.pagefault.address;
	struct weir_region *r = wr_region_find(p);

	if (r)
		wr_watch_count(r);
	if (make_room(w))
		w->kept[w->count++] = (struct wr_kept_fault){
			p, (pid_t)m->arg.pagefault.feat.ptid};
	else /* it faults anew */
		wr_watch_wake(w, p & ~(page - 1), (p & ~(page - 1)) + page);
}

/* What was read: losses at once, whoever was let go on may count on it; faults
 * are kept. */
static void sort_out(struct wr_watch *w, ssize_t bytes)
{
	size_t n = bytes > 0 ? (size_t)bytes / sizeof(w->msgs[0]) : 0;
	unsigned ticket = wr_grace_enter(&w->grace);

	for (size_t i = 0; i < n; i++) {
		const struct uffd_msg *m = &w->msgs[i];

		switch (m->event) {
		case UFFD_EVENT_PAGEFAULT:
			on_new_fault(w, m);
			break;
		case UFFD_EVENT_REMOVE:
		case UFFD_EVENT_UNMAP:
			wr_watch_lose((uintptr_t)m->arg.remove.start,
				      (uintptr_t)m->arg.remove.end);
			break;
		case UFFD_EVENT_REMAP:
			wr_watch_lose((uintptr_t)m->arg.remap.from,
				      (uintptr_t)(m->arg.remap.from +
						  m->arg.remap.len));
			break;
		default:
			wr_fatal("userfaultfd: event %#x was not asked for",
				 m->event);
		}
	}
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
		/* The kernel lets a discard go on inside of read(): see
		 * wr_watch_settle(). */
		__atomic_fetch_add(&w->turn, 1, __ATOMIC_SEQ_CST);
		n = read(w->uffd.fd, w->msgs, sizeof(w->msgs));
		/* EAGAIN: the writer was interrupted and took it back. */
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			wr_fatal("read from userfaultfd: %s", strerror(errno));
		sort_out(w, n);
		__atomic_fetch_add(&w->turn, 1, __ATOMIC_SEQ_CST);
		work_off(w);
		/* To whom it waits for, who may have a lower priority. */
		if (w->count && n <= 0)
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
	uint64_t seen = __atomic_load_n(&w->turn, __ATOMIC_SEQ_CST);
	unsigned tries = 0;

	while (seen & 1 && __atomic_load_n(&w->turn, __ATOMIC_SEQ_CST) == seen)
		wr_wait_a_bit(&tries);
}

int wr_watch_listen(struct wr_watch *w)
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
