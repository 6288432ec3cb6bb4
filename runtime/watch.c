/* SPDX-License-Identifier: MIT */
/*
 * The watches: their descriptors, changing protection, their life.  See
 * watch.h; what a fault or a loss of pages means is in watch_fault.c, the
 * thread that hears of them in watch_listen.c.
 */
#define _GNU_SOURCE
#include "runtime/watch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/barrier_signal.h"
#include "runtime/check.h"
#include "runtime/futex_lock.h"
#include "runtime/own_memory.h"
#include "runtime/watch_private.h"

#define TABLE ((uintptr_t)2 << 20) /* what a page table maps, or less */

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

/* ---- Life --------------------------------------------------------------- */

static int open_descriptor(struct wr_watch *w)
{
	uint64_t offered = wr_uffd_offered();
	uint64_t features =
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMOVE |
		UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP |
		(w->sigbus ? UFFD_FEATURE_SIGBUS : UFFD_FEATURE_THREAD_ID) |
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
		err = wr_watch_listen(w);
		if (err)
			wr_uffd_close(&w->uffd);
	}
	if (!err && sigbus && !w->attached) {
		err = wr_signal_attach(SIGBUS, w, wr_watch_on_sigbus);
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
	wr_own_free(w->kept, w->capacity * sizeof(*w->kept));
	w->kept = NULL;
	w->capacity = 0;
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
		/* The listener may just have been replacing it: left alone. */
		w->kept = NULL;
		w->capacity = 0;
	}
}
