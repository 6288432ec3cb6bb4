/* SPDX-License-Identifier: MIT */
/*
 * The sync back end: a thread of ours reads each write fault from the
 * userfaultfd, notes the page and lets the writer go on.  What arrives is the
 * barrier's own faults only: population, copy-on-write after fork() and the
 * like are the kernel's and never reach the descriptor.
 *
 * Holes are protected too (WP_UNPOPULATED), at the price of their page tables,
 * because the map is all that is known: a page that came up unnoticed would
 * be CLEAN in it.  Kernels before 6.4 protect no holes; there they are read
 * first, so that the zero page is there to be protected.  What is read where
 * huge pages are allowed gets the huge zero page, whose split by a fault loses
 * protection that is set just then (see wp_protect()) or, on some kernels, that
 * was there; so ranges have no huge pages then.  For the same reason the
 * descriptor asks for EVENT_REMOVE: MADV_DONTNEED drops the protection, and the
 * event tells which pages.  It comes before the pages go, so a discard may not
 * race a re-arm (barrier.h). The discarding thread goes on when the event was
 * read, not when it is in the map: arm and fetch wait for the listener to be
 * done with what it has read.
 *
 * The listener never waits for anything but events: while one is unread, the
 * kernel says EAGAIN to every change of protection, and who holds a stripe
 * meanwhile tries until it is read.  What cannot be done at once is kept, and
 * tried again after the next read.
 *
 *   listener thread        reads events, resolves; all signals blocked;
 *                          attached to nothing, so no stop ever waits for it
 *   start, stop            with the barrier's creation, destruction, fork
 *
 * A faulting thread that gets a signal leaves its wait, runs the handler and
 * faults anew: then the page is found writable, or a second event comes.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "runtime/barrier_wp.h"
#include "runtime/check.h"
#include "runtime/kernel_abi.h"
#include "runtime/patience.h"

#define BATCH 16
#define KEPT 1024 /* events that wait: a thread each, mostly */

struct wr_listener {
	pthread_t thread; /* the reader */
	int stop;         /* eventfd: readable when it is to return */
	uint64_t turn;    /* odd: events were read and are not in the map */
	unsigned count;   /* of msgs: read, not done */
	struct uffd_msg msgs[KEPT + BATCH];
};

/* ---- Protection --------------------------------------------------------- */

/*
 * Twice.  While a fault splits the huge zero page, the entry of its table is
 * empty for a microsecond, and UFFDIO_WRITEPROTECT, which looks at it without
 * the lock, may pass over all of it and say that it was done: the split then
 * ends with pages that nothing protects.  So a page is read, which waits for
 * the lock, and protected again: from then on there is a table, and whatever
 * becomes of it keeps the bits.  A run lies within one table (a chunk).
 *
 * What cannot be read (PROT_NONE) has no pages that are being split.
 */
static int wp_protect(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	uintptr_t page = (uintptr_t)1 << b->page_shift;
	int n = wr_uffd_protect(b->uffd.fd, start, end), more;

	if (n < 0)
		return n;
	wr_uffd_populate(start, start + page);
	more = wr_uffd_protect(b->uffd.fd, start, end);
	return more < 0 ? more : n + 1 + more;
}

static int wp_unprotect(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	return wr_uffd_unprotect(b->uffd.fd, start, end);
}

/*
 * SEQ_CST with the two increments in listen_main(): a discard that returned
 * before this call was read in a turn that had become odd before, so that is
 * seen here, or the turn is over.  Without it a write after the discard, which
 * raises no event, would be missed by the fetch.
 */
static void wp_settle(struct wr_barrier *b)
{
	uint64_t *turn = &b->listener->turn;
	uint64_t seen = __atomic_load_n(turn, __ATOMIC_SEQ_CST);
	unsigned tries = 0;

	while (seen & 1 && __atomic_load_n(turn, __ATOMIC_SEQ_CST) == seen)
		wr_wait_a_bit(&tries);
}

static int wp_try_unprotect(struct wr_barrier *b, uintptr_t start,
			    uintptr_t end)
{
	return wr_uffd_try_unprotect(b->uffd.fd, start, end);
}

static const struct wr_protector wp_protector = {
	.protect = wp_protect,
	.unprotect = wp_unprotect,
	.try_unprotect = wp_try_unprotect,
	.settle = wp_settle,
};

/* Without WP_UNPOPULATED, where ranges have no huge pages: nothing is split. */
static int wp_protect_read(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	int calls = wr_uffd_populate(start, end), n;

	if (calls < 0)
		return calls;
	n = wr_uffd_protect(b->uffd.fd, start, end);
	return n < 0 ? n : calls + n;
}

static const struct wr_protector wp_read_protector = {
	.protect = wp_protect_read,
	.unprotect = wp_unprotect,
	.try_unprotect = wp_try_unprotect,
	/* What is not read-write cannot be read: it stays DIRTY. */
	.learn = wr_map_learn,
	.settle = wp_settle,
};

static void must_resolve(int err, uintptr_t p)
{
	/* ENOENT: the range was unregistered meanwhile, which unprotected the
	 * page and woke its waiters. */
	if (wr_unlikely(err && err != -ENOENT))
		wr_fatal("userfaultfd: page %#lx cannot be made writable: %s",
			 (unsigned long)p, strerror(-err));
}

void wr_wp_fault(struct wr_barrier *b, struct wr_range *r, uintptr_t p)
{
	must_resolve(wr_map_resolve(b, r, p), p);
}

/* ---- The listener ------------------------------------------------------- */

/* Whether it is done. */
static bool on_fault(struct wr_barrier *b, uintptr_t p)
{
	unsigned ticket = wr_grace_enter(&b->grace);
	struct wr_range *r = wr_barrier_find(b, p);
	/* No range: it is being removed, which wakes the writer. */
	int err = r ? wr_map_try_resolve(b, r, p) : 0;

	wr_grace_leave(&b->grace, ticket);
	if (err == -EAGAIN)
		return false;
	must_resolve(err, p);
	return true;
}

static bool on_event(struct wr_barrier *b, const struct uffd_msg *m)
{
	unsigned ticket;
	bool done;

	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		return on_fault(b, (uintptr_t)m->arg.pagefault.address);
	case UFFD_EVENT_REMOVE:
		ticket = wr_grace_enter(&b->grace);
		done = wr_map_try_discarded(b, (uintptr_t)m->arg.remove.start,
					    (uintptr_t)m->arg.remove.end);
		wr_grace_leave(&b->grace, ticket);
		return done;
	default:
		wr_fatal("userfaultfd: event %#x was not asked for", m->event);
	}
}

/* Do what can be done; the rest stays, in order. */
static void work_off(struct wr_barrier *b, struct wr_listener *l)
{
	unsigned left = 0;

	for (unsigned i = 0; i < l->count; i++)
		if (!on_event(b, &l->msgs[i]))
			l->msgs[left++] = l->msgs[i];
	l->count = left;
}

static void *listen_main(void *arg)
{
	struct wr_barrier *b = arg;
	struct wr_listener *l = b->listener;
	struct pollfd fds[] = {
		{.fd = b->uffd.fd, .events = POLLIN},
		{.fd = l->stop, .events = POLLIN},
	};
	uint64_t *turn = &l->turn;
	unsigned tries = 0;
	ssize_t n;

	prctl(PR_SET_NAME, "weir-barrier");
	for (;;) {
		if (poll(fds, 2, l->count ? 0 : -1) < 0 && errno != EINTR)
			wr_fatal("poll on userfaultfd: %s", strerror(errno));
		if (fds[1].revents)
			return NULL;
		if (!(*turn & 1))
			__atomic_fetch_add(turn, 1, __ATOMIC_SEQ_CST);
		if (!l->count)
			tries = 0;
		n = 0;
		if (l->count <= KEPT)
			n = read(b->uffd.fd, &l->msgs[l->count],
				 BATCH * sizeof(l->msgs[0]));
		/* EAGAIN: the writer was interrupted and took it back. */
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			wr_fatal("read from userfaultfd: %s", strerror(errno));
		for (; n > 0; n -= (ssize_t)sizeof(l->msgs[0]))
			/* Counted before the writer goes on. */
			if (l->msgs[l->count++].event == UFFD_EVENT_PAGEFAULT)
				wr_barrier_count_fault(b);
		work_off(b, l);
		if (!l->count)
			__atomic_fetch_add(turn, 1, __ATOMIC_SEQ_CST);
		else
			wr_wait_a_bit(&tries); /* for who holds the stripe */
	}
}

static int listen_start(struct wr_barrier *b)
{
	struct wr_listener *l = malloc(sizeof(*l));
	sigset_t all, saved;
	int err;

	if (!l)
		return wr_error(ENOMEM, "no memory for a thread; free some");
	l->turn = 0;
	l->count = 0;
	l->stop = eventfd(0, EFD_CLOEXEC);
	if (l->stop < 0) {
		err = errno;
		free(l);
		return wr_error(err, "eventfd: %s; raise RLIMIT_NOFILE",
				strerror(err));
	}
	b->listener = l;
	/* The thread inherits the mask: signals are for the program's own. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = pthread_create(&l->thread, NULL, listen_main, b);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (err) {
		close(l->stop);
		free(l);
		b->listener = NULL;
		return wr_error(err,
				"the barrier's thread cannot be made: %s; "
				"raise RLIMIT_NPROC or RLIMIT_AS",
				strerror(err));
	}
	return 0;
}

static void listen_stop(struct wr_barrier *b)
{
	struct wr_listener *l = b->listener;
	uint64_t one = 1;

	while (write(l->stop, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(l->thread, NULL);
	close(l->stop);
	free(l);
	b->listener = NULL;
}

/* ---- Shared with sigbus ------------------------------------------------- */

static int read_first_works(struct wr_barrier *b)
{
	uintptr_t page = (uintptr_t)1 << b->page_shift;
	uintptr_t here = (uintptr_t)b & ~(page - 1);

	if (wr_uffd_populate(here, here + page) < 0)
		return wr_error(ENOTSUP,
				"the kernel's userfaultfd lacks WP_UNPOPULATED "
				"(Linux 6.4), and madvise() MADV_POPULATE_READ "
				"(5.14); run Linux 6.7 or later");
	return wr_map_can_learn("sync before Linux 6.4");
}

int wr_wp_open(struct wr_barrier *b, uint64_t features)
{
	const struct wr_protector *how = &wp_protector;
	uint64_t offered = wr_uffd_offered();
	int err;

	features |= UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMOVE;
	/* Only if it is known that there is the one and not the other. */
	if (offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP &&
	    !(offered & UFFD_FEATURE_WP_UNPOPULATED)) {
		err = read_first_works(b);
		if (err)
			return err;
		how = &wp_read_protector;
	} else {
		features |= UFFD_FEATURE_WP_UNPOPULATED;
	}
	err = wr_uffd_open(&b->uffd, features, true);
	if (err)
		return err;
	err = wr_maps_open(b, how);
	if (!err) {
		err = listen_start(b);
		if (err)
			wr_maps_close(b);
	}
	if (err)
		wr_uffd_close(&b->uffd);
	return err;
}

void wr_wp_close(struct wr_barrier *b)
{
	listen_stop(b);
	wr_uffd_close(&b->uffd);
	wr_maps_close(b);
}

bool wr_wp_reads_first(const struct wr_barrier *b)
{
	return b->maps->how == &wp_read_protector;
}

int wr_wp_add(struct wr_barrier *b, struct wr_range *r)
{
	int err = wr_map_add(b, r);

	if (err)
		return err;
	/* What KSM merges loses its protection with the bit of its entry.
	 * EINVAL: a kernel without KSM, or without huge pages. */
	madvise((void *)r->start, r->end - r->start, MADV_UNMERGEABLE);
	if (wr_wp_reads_first(b))
		madvise((void *)r->start, r->end - r->start, MADV_NOHUGEPAGE);
	err = wr_uffd_add_range(&b->uffd, r->start, r->end);
	if (err)
		wr_map_remove(b, r);
	return err;
}

void wr_wp_remove(struct wr_barrier *b, struct wr_range *r)
{
	wr_uffd_remove_range(&b->uffd, r->start, r->end);
	wr_map_remove(b, r);
}

int wr_wp_fork_child(struct wr_barrier *b)
{
	struct wr_listener *l = b->listener;
	int err;

	wr_maps_fork_child(b);
	/* The thread is the parent's; only its things came along. */
	close(l->stop);
	free(l);
	b->listener = NULL;
	err = wr_uffd_reopen(&b->uffd);
	if (!err) {
		err = listen_start(b);
		if (err)
			wr_uffd_close(&b->uffd);
	}
	if (err)
		wr_maps_drop(b);
	return err;
}

/* ---- The back end ------------------------------------------------------- */

static int sync_open(struct wr_barrier *b)
{
	return wr_wp_open(b, 0);
}

const struct wr_barrier_ops wr_barrier_sync_ops = {
	.open = sync_open,
	.close = wr_wp_close,
	.add = wr_wp_add,
	.remove = wr_wp_remove,
	.arm = wr_map_arm,
	.fetch = wr_map_fetch,
	.forget = wr_map_forget,
	.fork_prepare = wr_maps_fork_prepare,
	.fork_parent = wr_maps_fork_parent,
	.fork_child = wr_wp_fork_child,
};
