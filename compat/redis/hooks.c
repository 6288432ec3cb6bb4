/* SPDX-License-Identifier: MIT */
/*
 * jemalloc's extent hooks.  Extents are cut from the memory one after another
 * and never come back (jemalloc retains them for reuse); what goes back to the
 * system is their pages, by `decommit`:
 *
 *   all shared   at once, as a hole of the file
 *   else         they are noted, a bit a page, and given back later: a child
 *                may read them.  Until then they are not zero, so that
 *                `commit`, by which jemalloc takes them again, clears them.
 *
 * Extents from before the hooks, and those of a child, are ordinary memory.
 *
 *   noted    set by decommit, under the lock; cleared under it by commit and by
 *            the keeper, when the pages have gone
 *   in_use   set by commit before the page is used, cleared by decommit; what
 *            folds passes by pages that are not
 *
 * Called with locks of jemalloc's held, so that nothing here allocates, and the
 * lock is never held while something of jemalloc's is waited for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "compat/redis/extent_hooks.h"
#include "compat/redis/internal.h"
#include "runtime/check.h"
#include "runtime/futex_lock.h"

#define SLICE ((size_t)1024) /* pages that the keeper gives back at once */

static uint32_t lock;      /* futex lock of the following */
static size_t used;        /* bytes that extents were cut from */
static bool held;          /* none is cut just now */
static bool full_said;     /* that the memory is full */
static uint64_t *in_use;   /* a bit a page: committed; words atomic */
static uint64_t *noted;    /* a bit a page of the memory; words atomic */
static size_t noted_at;    /* word where the keeper goes on */
static size_t noted_count; /* bits set; atomic */
static bool keep;          /* pages; atomic */
static size_t page;        /* bytes */

/* Whether it is the memory's, in the process that owns it. */
static bool ours(const void *p)
{
	return (uintptr_t)p - (uintptr_t)wr_redis_memory.start <
	       wr_redis_memory.limit;
}

static uint64_t bits_of(size_t from, size_t to, size_t word)
{
	uint64_t all = ~(uint64_t)0;
	size_t first = word * 64;

	if (from > first)
		all &= all << (from - first);
	if (to < first + 64)
		all &= ~(uint64_t)0 >> (first + 64 - to);
	return all;
}

/* Release: pairs with the look of who folds, and comes before any write. */
static void set_in_use(size_t from, size_t to, bool value)
{
	for (size_t w = from / 64; w <= (to - 1) / 64; w++) {
		uint64_t bits = bits_of(from, to, w);

		if (value)
			__atomic_fetch_or(&in_use[w], bits, __ATOMIC_SEQ_CST);
		else
			__atomic_fetch_and(&in_use[w], ~bits, __ATOMIC_SEQ_CST);
	}
}

/* ---- Extents ------------------------------------------------------------ */

static void *ordinary(size_t size, size_t alignment)
{
	char *p = mmap(NULL, size + alignment, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t head;

	if (p == MAP_FAILED)
		return NULL;
	head = (size_t)(-(uintptr_t)p & (alignment - 1));
	if (head)
		munmap(p, head);
	munmap(p + head + size, alignment - head);
	return p + head;
}

static void *cut(size_t size, size_t alignment)
{
	size_t at;
	char *p = NULL;
	bool full = false;

	wr_futex_lock(&lock);
	at = (used + alignment - 1) & ~(alignment - 1);
	if (!held && at < wr_redis_memory.limit &&
	    size <= wr_redis_memory.limit - at) {
		p = wr_redis_memory.start + at;
		used = at + size;
	} else if (!held && !full_said) {
		full = full_said = true;
	}
	wr_futex_unlock(&lock);
	if (full)
		wr_redis_say(true,
			     "%zu GiB are in use; what is allocated from "
			     "now on fork() copies: give a higher "
			     "WEIR_REDIS_LIMIT",
			     wr_redis_memory.limit >> 30);
	return p;
}

static void *hook_alloc(struct extent_hooks *hooks, void *at, size_t size,
			size_t alignment, bool *zero, bool *commit,
			unsigned arena)
{
	void *p = NULL;

	(void)hooks;
	(void)arena;
	/* An address that is asked for is one that may as well not be had. */
	if (at)
		return NULL;
	if (alignment < page)
		alignment = page;
	if (wr_redis_role == WR_REDIS_OWNER)
		p = cut(size, alignment);
	if (!p)
		p = ordinary(size, alignment);
	if (!p)
		return NULL;
	*zero = true;
	if (!ours(p))
		*commit = true;
	else if (*commit) /* no `commit` follows */
		set_in_use((size_t)((char *)p - wr_redis_memory.start) / page,
			   (size_t)((char *)p - wr_redis_memory.start + size) /
				   page,
			   true);
	return p;
}

static bool hook_dalloc(struct extent_hooks *hooks, void *p, size_t size,
			bool committed, unsigned arena)
{
	(void)hooks;
	(void)p;
	(void)size;
	(void)committed;
	(void)arena;
	return true;
}

static bool hook_split(struct extent_hooks *hooks, void *p, size_t size,
		       size_t size_a, size_t size_b, bool committed,
		       unsigned arena)
{
	(void)hooks;
	(void)p;
	(void)size;
	(void)size_a;
	(void)size_b;
	(void)committed;
	(void)arena;
	return false;
}

static bool hook_merge(struct extent_hooks *hooks, void *a, size_t size_a,
		       void *b, size_t size_b, bool committed, unsigned arena)
{
	(void)hooks;
	(void)size_a;
	(void)size_b;
	(void)committed;
	(void)arena;
	return ours(a) != ours(b);
}

/* ---- Pages -------------------------------------------------------------- */

/* Lock held, or one thread. */
static void note(size_t from, size_t to)
{
	size_t n = 0;

	for (size_t w = from / 64; w <= (to - 1) / 64; w++) {
		uint64_t bits = bits_of(from, to, w);

		/* Relaxed, as below: the lock orders them, and who looks
		 * without it is the one who set them, through jemalloc. */
		n += (size_t)__builtin_popcountll(
			bits &
			~__atomic_fetch_or(&noted[w], bits, __ATOMIC_RELAXED));
	}
	__atomic_fetch_add(&noted_count, n, __ATOMIC_RELAXED);
}

static bool any_noted(size_t from, size_t to)
{
	for (size_t w = from / 64; w <= (to - 1) / 64; w++)
		if (__atomic_load_n(&noted[w], __ATOMIC_ACQUIRE) &
		    bits_of(from, to, w))
			return true;
	return false;
}

/* Clear the bits of [from, to); the pages too if `clear`. */
static void unnote(size_t from, size_t to, bool clear)
{
	size_t n = 0;

	for (; from < to; from++) {
		uint64_t bit = (uint64_t)1 << from % 64;

		if (!(noted[from / 64] & bit))
			continue;
		if (clear)
			memset(wr_redis_memory.start + from * page, 0, page);
		/* Release: pairs with any_noted(): who sees the bit clear may
		 * use the page. */
		__atomic_fetch_and(&noted[from / 64], ~bit, __ATOMIC_RELEASE);
		n++;
	}
	__atomic_fetch_sub(&noted_count, n, __ATOMIC_RELAXED);
}

static bool hook_commit(struct extent_hooks *hooks, void *p, size_t size,
			size_t offset, size_t length, unsigned arena)
{
	size_t from =
		((uintptr_t)p + offset - (uintptr_t)wr_redis_memory.start) /
		page;
	size_t to = from + length / page;

	(void)hooks;
	(void)size;
	(void)arena;
	if (!ours(p) || !length)
		return false;
	set_in_use(from, to, true);
	if (!any_noted(from, to))
		return false;
	if (wr_redis_role == WR_REDIS_CHILD) {
		unnote(from, to, true);
		return false;
	}
	wr_futex_lock(&lock);
	unnote(from, to, true);
	wr_futex_unlock(&lock);
	return false;
}

static bool hook_decommit(struct extent_hooks *hooks, void *p, size_t size,
			  size_t offset, size_t length, unsigned arena)
{
	char *at = (char *)p + offset;
	size_t from = (size_t)(at - wr_redis_memory.start) / page;
	size_t to = from + length / page;

	(void)hooks;
	(void)size;
	(void)arena;
	if (wr_redis_role != WR_REDIS_OWNER || !ours(p) || !length)
		return true;
	/* Acquire: pairs with the release in wr_redis_keep_pages().  Whoever
	 * is overtaken by a fork() between the look and the hole gives back
	 * what was free before it, which no child reads. */
	if (!__atomic_load_n(&keep, __ATOMIC_ACQUIRE)) {
		if (wr_memory_discard(&wr_redis_memory, at, length))
			return true;
	} else {
		wr_futex_lock(&lock);
		note(from, to);
		wr_futex_unlock(&lock);
	}
	set_in_use(from, to, false);
	return false;
}

/* Ordinary memory only: the other is decommitted. */
static bool hook_purge(struct extent_hooks *hooks, void *p, size_t size,
		       size_t offset, size_t length, unsigned arena)
{
	(void)hooks;
	(void)size;
	(void)arena;
	if (ours(p))
		return true;
	return madvise((char *)p + offset, length, MADV_DONTNEED) != 0;
}

void wr_redis_keep_pages(bool now)
{
	__atomic_store_n(&keep, now, __ATOMIC_RELEASE);
}

/* The next run of noted pages from word w on, no more than a slice. */
static size_t noted_run(size_t w, size_t words, size_t *to)
{
	size_t from = w * 64, end = words * 64;

	while (from < end && !(noted[from / 64] >> from % 64 & 1))
		from = noted[from / 64] >> from % 64 ? from + 1
						     : (from | 63) + 1;
	*to = from;
	while (*to<end && * to - from<SLICE && noted[*to / 64]>> * to % 64 & 1)
		++*to;
	return from;
}

bool wr_redis_discard_noted(void)
{
	size_t words, from, to;
	bool more = false;

	if (!__atomic_load_n(&noted_count, __ATOMIC_RELAXED))
		return false;
	wr_futex_lock(&lock);
	words = (used / page + 63) / 64;
	from = noted_run(noted_at, words, &to);
	if (from == to) {
		noted_at = 0;
		more = noted_count != 0;
	} else {
		wr_memory_discard(&wr_redis_memory,
				  wr_redis_memory.start + from * page,
				  (to - from) * page);
		unnote(from, to, false);
		noted_at = from / 64;
		more = true;
	}
	wr_futex_unlock(&lock);
	return more;
}

/* ---- Life --------------------------------------------------------------- */

size_t wr_redis_hold_extents(void)
{
	size_t now;

	wr_futex_lock(&lock);
	held = true;
	now = used;
	wr_futex_unlock(&lock);
	return now;
}

void wr_redis_release_extents(void)
{
	wr_futex_lock(&lock);
	held = false;
	wr_futex_unlock(&lock);
}

void wr_redis_hooks_in_child(void)
{
	lock = 0;
	held = false;
}

static struct extent_hooks hooks = {
	.alloc = hook_alloc,
	.dalloc = hook_dalloc,
	.commit = hook_commit,
	.decommit = hook_decommit,
	.purge_forced = hook_purge,
	.split = hook_split,
	.merge = hook_merge,
};

static uint64_t *new_table(void)
{
	void *p = mmap(NULL, wr_redis_memory.limit / page / 8,
		       PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int wr_redis_hook(void *function)
{
	mallctl_fn *mallctl = (mallctl_fn *)function;
	struct extent_hooks *new = &hooks;
	unsigned arenas = 0;
	size_t size = sizeof(arenas), oversize = 1;
	size_t oversize_size = sizeof(oversize);
	int err;

	page = (size_t)sysconf(_SC_PAGESIZE);
	mallctl("opt.narenas", &arenas, &size, NULL, 0);
	mallctl("opt.oversize_threshold", &oversize, &oversize_size, NULL, 0);
	if (arenas != 1 || oversize)
		return wr_error(ENOTSUP,
				"jemalloc was started with %u arenas and a "
				"threshold of %zu: start the program with "
				"weir-redis, which sets MALLOC_CONF to "
				"narenas:1,oversize_threshold:0",
				arenas, oversize);
	noted = new_table();
	in_use = new_table();
	if (!noted || !in_use)
		return wr_error(ENOMEM, "no memory for a table; free some");
	wr_redis_memory.used = in_use;
	err = mallctl("arena.0.extent_hooks", NULL, NULL, &new, sizeof(new));
	if (err)
		return wr_error(ENOTSUP,
				"jemalloc refuses extent hooks (%s); it takes "
				"jemalloc 5",
				strerror(err));
	return 0;
}
