/* SPDX-License-Identifier: MIT */
/*
 * The write barrier's common part: the kinds, the choice among them, and the
 * table of ranges.  What a kind does is in barrier_<kind>.c.
 *
 * Invariants: live ranges do not overlap; every range is known to the back
 * end exactly while end != 0 (add publishes after the back end has it, remove
 * withdraws before the back end drops it).
 */
#define _GNU_SOURCE
#include "runtime/barrier.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier_ops.h"
#include "runtime/barrier_wp.h"
#include "runtime/check.h"

static const struct {
	const char *name;
	const struct wr_barrier_ops *ops;
} kinds[WR_BARRIER_KINDS] = {
	[WR_BARRIER_AUTO] = {"auto", NULL},
	[WR_BARRIER_ASYNC] = {"async", &wr_barrier_async_ops},
	[WR_BARRIER_SYNC] = {"sync", &wr_barrier_sync_ops},
	[WR_BARRIER_SIGBUS] = {"sigbus", &wr_barrier_sigbus_ops},
	[WR_BARRIER_MPROTECT] = {"mprotect", &wr_barrier_mprotect_ops},
	[WR_BARRIER_NONE] = {"none", &wr_barrier_none_ops},
};

const char *wr_barrier_name(enum wr_barrier_kind kind)
{
	return (unsigned)kind < WR_BARRIER_KINDS ? kinds[kind].name : "?";
}

int wr_barrier_parse(const char *name, enum wr_barrier_kind *kind)
{
	for (unsigned i = 0; i < WR_BARRIER_KINDS; i++) {
		if (!strcmp(name, kinds[i].name)) {
			*kind = (enum wr_barrier_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

static void free_ranges(struct wr_barrier *b)
{
	struct wr_range *r;

	while ((r = b->ranges)) {
		b->ranges = r->next;
		free(r);
	}
}

/* ---- Making one ---------------------------------------------------------- */

static void seen(void *arg, const struct wr_run *runs, size_t count)
{
	struct wr_run *sum = arg;

	if (!sum->start)
		sum->start = runs[0].start;
	sum->end = runs[count - 1].end;
}

/* Of two armed pages the second is written, by the program or by a system
 * call: it and nothing else must be reported. */
static int try_write(struct wr_barrier *b, volatile char *p, size_t page,
		     const int *pipe_end)
{
	uintptr_t at = (uintptr_t)p;
	struct wr_run run = {0, 0};
	int err = wr_barrier_arm(b, (void *)at, 2 * page);

	if (err)
		return err;
	if (!pipe_end)
		p[page] = 2;
	else if (write(pipe_end[1], "3", 1) != 1 ||
		 read(pipe_end[0], (char *)at + page, 1) != 1)
		return wr_error(
			ENOTSUP,
			"under the \"%s\" barrier a system call that "
			"writes into a protected page fails (%s); %s",
			wr_barrier_name(b->kind), strerror(errno),
			b->kind == WR_BARRIER_SYNC
				? "sysctl vm.unprivileged_userfaultfd=1, "
				  "CAP_SYS_PTRACE or access to "
				  "/dev/userfaultfd would allow it"
				: "that is its nature: choose it only "
				  "for programs that make no such calls");
	err = wr_barrier_fetch(b, (void *)at, 2 * page, 0, seen, &run);
	if (!err && (run.start != at + page || run.end != at + 2 * page))
		err = wr_error(ENOTSUP,
			       "the \"%s\" barrier does not report the page "
			       "that was written, and only it; choose another "
			       "barrier and report the kernel's version",
			       wr_barrier_name(b->kind));
	return err;
}

/* Does it work here?  Found by doing, on a scratch page. */
static int prove(struct wr_barrier *b, bool kernel_writes)
{
	size_t page = (size_t)1 << b->page_shift;
	int ends[2];
	char *p;
	int err;

	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return wr_error(ENOMEM, "no memory for a scratch page; raise "
					"RLIMIT_AS or free memory");
	memset(p, 1, page); /* the second is a hole when it is first written */
	err = wr_barrier_add_range(b, p, 2 * page);
	if (!err)
		err = try_write(b, p, page, NULL);
	if (!err && kernel_writes) {
		if (pipe2(ends, O_CLOEXEC)) {
			err = wr_error(errno, "no pipe to try the barrier "
					      "with; raise RLIMIT_NOFILE");
		} else {
			err = try_write(b, p, page, ends);
			close(ends[0]);
			close(ends[1]);
		}
	}
	wr_barrier_remove_range(b, p, 2 * page);
	munmap(p, 2 * page);
	return err;
}

static int open_kind(struct wr_barrier *b, enum wr_barrier_kind kind, bool safe)
{
	int err;

	b->ops = kinds[kind].ops;
	b->kind = kind;
	err = b->ops->open(b);
	if (err || kind == WR_BARRIER_NONE)
		return err;
	err = prove(b, safe);
	if (err) {
		b->ops->close(b);
		/* What fails in the proof is missing, whatever it said. */
		return -ENOTSUP;
	}
	/* The proof's own are not the caller's.  Relaxed: no fault is on its
	 * way, and the sums order nothing. */
	__atomic_store_n(&b->faults, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->calls, 0, __ATOMIC_RELAXED);
	b->arms = b->fetches = b->forgets = 0;
	return 0;
}

static int create(enum wr_barrier_kind kind, bool safe, struct wr_barrier **out)
{
	struct wr_barrier *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return wr_error(ENOMEM, "no memory for a barrier; free some");
	b->page_shift =
		(unsigned)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
	wr_mutex_init(&b->lock, WR_RANK_barrier);
	err = open_kind(b, kind, safe);
	if (!err) {
		*out = b;
		return 0;
	}
	free_ranges(b);
	wr_mutex_destroy(&b->lock);
	free(b);
	return err;
}

int wr_barrier_create_safe(enum wr_barrier_kind kind, struct wr_barrier **out)
{
	return create(kind, true, out);
}

int wr_barrier_create(enum wr_barrier_kind kind, struct wr_barrier **out)
{
	static const enum wr_barrier_kind order[] = WR_BARRIER_AUTO_ORDER;
	char passed[sizeof((*out)->why) - 128] = "";
	int err = -ENOTSUP;

	if ((unsigned)kind >= WR_BARRIER_KINDS)
		return wr_error(EINVAL,
				"%d is not a barrier kind; weir-info "
				"lists them",
				(int)kind);
	if (kind != WR_BARRIER_AUTO) {
		err = create(kind, false, out);
		if (!err)
			snprintf((*out)->why, sizeof((*out)->why),
				 "asked for, and it works here");
		return err;
	}
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && err; i++) {
		size_t n = strlen(passed);

		err = wr_barrier_create_safe(order[i], out);
		if (err)
			snprintf(passed + n, sizeof(passed) - n, "; not %s: %s",
				 wr_barrier_name(order[i]), weir_error_text());
	}
	if (!err)
		snprintf((*out)->why, sizeof((*out)->why),
			 "the first that works here, for system calls too%s",
			 passed);
	return err;
}

void wr_barrier_destroy(struct wr_barrier *b)
{
	struct wr_range *r;

	if (!b)
		return;
	for (r = b->ranges; r; r = r->next) {
		if (r->end)
			wr_barrier_remove_range(b, (void *)r->start,
						r->end - r->start);
	}
	b->ops->close(b);
	free_ranges(b);
	wr_mutex_destroy(&b->lock);
	free(b);
}

void wr_barrier_abandon(struct wr_barrier *b)
{
	wr_assert(b->kind == WR_BARRIER_ASYNC);
	/* Its lock may be held by a thread that is not here. */
	b->ops->close(b);
	free_ranges(b);
	free(b);
}

bool wr_barrier_huge_pages(const struct wr_barrier *b)
{
	return (b->kind != WR_BARRIER_SYNC && b->kind != WR_BARRIER_SIGBUS) ||
	       !wr_wp_reads_first(b);
}

bool wr_barrier_serves_kernel(const struct wr_barrier *b)
{
	switch (b->kind) {
	case WR_BARRIER_ASYNC:
	case WR_BARRIER_NONE:
		return true;
	case WR_BARRIER_SYNC:
		return wr_uffd_serves_kernel(&b->uffd);
	default:
		return false;
	}
}

const char *wr_barrier_why(const struct wr_barrier *b)
{
	return b->why;
}

enum wr_barrier_kind wr_barrier_kind(const struct wr_barrier *b)
{
	return b->kind;
}

void wr_barrier_stats(const struct wr_barrier *b, struct wr_barrier_stats *s)
{
	/* Relaxed: sums, no other memory depends on them. */
	s->faults = __atomic_load_n(&b->faults, __ATOMIC_RELAXED);
	s->calls = __atomic_load_n(&b->calls, __ATOMIC_RELAXED);
	s->arms = __atomic_load_n(&b->arms, __ATOMIC_RELAXED);
	s->fetches = __atomic_load_n(&b->fetches, __ATOMIC_RELAXED);
	s->forgets = __atomic_load_n(&b->forgets, __ATOMIC_RELAXED);
}

/* ---- Ranges ------------------------------------------------------------- */

struct wr_range *wr_barrier_find(struct wr_barrier *b, uintptr_t p)
{
	/* Acquire: pairs with the release in link(); else the node's fields
	 * could be read before they were written. */
	struct wr_range *r = __atomic_load_n(&b->ranges, __ATOMIC_ACQUIRE);

	for (; r; r = r->next) {
		/* Acquire: pairs with the release in publish(); else start and
		 * state could be those of the node's former life. */
		uintptr_t end = __atomic_load_n(&r->end, __ATOMIC_ACQUIRE);
		uintptr_t start;

		if (p >= end)
			continue;
		start = __atomic_load_n(&r->start, __ATOMIC_ACQUIRE);
		/* A node reused between the loads: its end was 0 in between, so
		 * a second look tells unless the range is the same again. */
		if (p >= start &&
		    end == __atomic_load_n(&r->end, __ATOMIC_RELAXED))
			return r;
	}
	return NULL;
}

/* b->lock held: a node out of use, new or old, or NULL. */
static struct wr_range *get_node(struct wr_barrier *b)
{
	struct wr_range *r;

	for (r = b->ranges; r; r = r->next)
		if (!r->end)
			return r;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->next = b->ranges;
	/* Release: pairs with the acquire of the head in wr_barrier_find(). */
	__atomic_store_n(&b->ranges, r, __ATOMIC_RELEASE);
	return r;
}

static bool whole_pages(uintptr_t start, size_t size)
{
	uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;

	return size && !((start | size) & mask) && start + size > start;
}

int wr_barrier_add_range(struct wr_barrier *b, void *p, size_t size)
{
	uintptr_t start = (uintptr_t)p, end = start + size;
	struct wr_range *r;
	int err;

	if (!whole_pages(start, size))
		return wr_error(EINVAL, "%p, %zu bytes: not whole pages", p,
				size);
	wr_mutex_lock(&b->lock);
	err = 0;
	for (r = b->ranges; r && !err; r = r->next)
		if (r->end > start && r->start < end)
			err = wr_error(EEXIST,
				       "range %p, %zu bytes: a part of it was "
				       "added before; remove that first",
				       p, size);
	r = err ? NULL : get_node(b);
	if (r) {
		struct wr_range fresh = {.start = start, .end = end};

		err = b->ops->add(b, &fresh);
		if (!err) {
			r->state = fresh.state;
			__atomic_store_n(&r->start, start, __ATOMIC_RELAXED);
			/* Release: pairs with wr_barrier_find(). */
			__atomic_store_n(&r->end, end, __ATOMIC_RELEASE);
		}
	} else if (!err) {
		err = wr_error(ENOMEM, "no memory for a range; free some");
	}
	wr_mutex_unlock(&b->lock);
	return err;
}

int wr_barrier_remove_range(struct wr_barrier *b, void *p, size_t size)
{
	uintptr_t start = (uintptr_t)p, end = start + size;
	struct wr_range *r, old;
	int err = 0;

	wr_mutex_lock(&b->lock);
	for (r = b->ranges; r; r = r->next)
		if (size && r->start == start && r->end == end)
			break;
	if (r) {
		old = *r;
		__atomic_store_n(&r->end, 0, __ATOMIC_SEQ_CST);
		wr_grace_wait(&b->grace);
		b->ops->remove(b, &old);
	} else {
		err = wr_error(ENOENT,
			       "range %p, %zu bytes was never added; pass what "
			       "was passed to add",
			       p, size);
	}
	wr_mutex_unlock(&b->lock);
	return err;
}

static bool inside(struct wr_barrier *b, uintptr_t start, size_t size)
{
	struct wr_range *r = wr_barrier_find(b, start);

	return whole_pages(start, size) && r && start + size <= r->end;
}

int wr_barrier_arm(struct wr_barrier *b, void *start, size_t size)
{
	wr_assert(inside(b, (uintptr_t)start, size));
	wr_barrier_count(&b->arms);
	return b->ops->arm(b, (uintptr_t)start, (uintptr_t)start + size);
}

int wr_barrier_fetch(struct wr_barrier *b, void *start, size_t size,
		     unsigned flags, wr_run_fn *fn, void *arg)
{
	wr_assert(inside(b, (uintptr_t)start, size));
	wr_barrier_count(&b->fetches);
	return b->ops->fetch(b, (uintptr_t)start, (uintptr_t)start + size,
			     flags, fn, arg);
}

int wr_barrier_forget(struct wr_barrier *b, void *start, size_t size)
{
	wr_assert(inside(b, (uintptr_t)start, size));
	wr_barrier_count(&b->forgets);
	return b->ops->forget(b, (uintptr_t)start, (uintptr_t)start + size);
}

/* ---- fork --------------------------------------------------------------- */

void wr_barrier_fork_prepare(struct wr_barrier *b)
{
	wr_mutex_lock(&b->lock);
	if (b->ops->fork_prepare)
		b->ops->fork_prepare(b);
}

void wr_barrier_fork_parent(struct wr_barrier *b)
{
	if (b->ops->fork_parent)
		b->ops->fork_parent(b);
	wr_mutex_unlock(&b->lock);
}

int wr_barrier_fork_child(struct wr_barrier *b)
{
	int err;

	/* The child has one thread: nothing to be kept out any more. */
	wr_mutex_unlock(&b->lock);
	wr_grace_reset(&b->grace);
	err = b->ops->fork_child(b);
	if (!err)
		return 0;
	/* Text is set.  Every page DIRTY for ever is always right. */
	b->ops = &wr_barrier_none_ops;
	b->kind = WR_BARRIER_NONE;
	snprintf(b->why, sizeof(b->why), "none other works after a fork: %s",
		 weir_error_text());
	return -ENOTSUP;
}
