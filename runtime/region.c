/* SPDX-License-Identifier: MIT */
/*
 * Regions: memory that snapshots can be taken of.  How their pages are watched
 * is in watch.c, what a snapshot does with them in snapshot.c.
 *
 * A table of all regions is read by fault handlers without a lock: an entry is
 * published by a release store when all of the region is there, withdrawn
 * before any of it goes, and freed after a grace period of its watch.
 *
 *   `lock`   creating, releasing, watches; which snapshot a region is in
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/own_memory.h"
#include "runtime/procmaps.h"
#include "runtime/region.h"
#include "runtime/regions.h"
#include "runtime/sys.h"

#define REGIONS 64
#define HUGE ((size_t)2 << 20)
#define TOP ((size_t)1 << 46)

static struct weir_region *table[REGIONS]; /* atomic */
static struct wr_mutex lock = WR_MUTEX_INITIALIZER(WR_RANK_regions);

void wr_regions_lock(void)
{
	wr_mutex_lock(&lock);
}

void wr_regions_unlock(void)
{
	wr_mutex_unlock(&lock);
}

void wr_regions_lock_fork(void)
{
	/* Whatever fork() holds already: trylock does not mind the order, and
	 * who has the lock waits for nothing that fork() takes. */
	while (!wr_mutex_trylock(&lock))
		sched_yield();
}

/* ---- The table ---------------------------------------------------------- */

struct weir_region *wr_region_next(unsigned *i)
{
	while (*i < REGIONS) {
		/* Acquire: pairs with the release in finish(). */
		struct weir_region *r =
			__atomic_load_n(&table[(*i)++], __ATOMIC_ACQUIRE);

		if (r)
			return r;
	}
	return NULL;
}

struct weir_region *wr_region_find(uintptr_t p)
{
	struct weir_region *r;

	for (unsigned i = 0; (r = wr_region_next(&i));)
		if (p >= r->start && p - r->start < r->limit)
			return r;
	return NULL;
}

/* Lock held: an entry for r, if no other has a part of its memory. */
static int find_entry(const struct weir_region *r, unsigned *entry)
{
	*entry = REGIONS;
	for (unsigned i = 0; i < REGIONS; i++) {
		struct weir_region *other = table[i];

		if (!other)
			*entry = i;
		else if (r->start < other->start + other->limit &&
			 other->start < r->start + r->limit)
			return wr_error(EEXIST,
					"%#lx, %zu bytes: another region has a "
					"part of it; release that first",
					(unsigned long)r->start, r->limit);
	}
	if (*entry == REGIONS)
		return wr_error(EAGAIN,
				"%d regions exist already; release one, or put "
				"more in one",
				REGIONS);
	return 0;
}

/* Lock held: nobody uses it any more when this returns. */
static void withdraw(struct weir_region *r)
{
	for (unsigned i = 0; i < REGIONS; i++)
		/* SEQ_CST: see barrier_grace.h. */
		if (table[i] == r)
			__atomic_store_n(&table[i], NULL, __ATOMIC_SEQ_CST);
	if (r->watch)
		wr_watch_grace(r->watch);
}

int wr_region_valid(const struct weir_region *r, const char *function)
{
	struct weir_region *known;

	/* Looked up, for a released one's memory is gone. */
	for (unsigned i = 0; r && (known = wr_region_next(&i));)
		if (known == r)
			return 0;
	return wr_invalid(function,
			  r ? "the region was released" : "the region is NULL");
}

/* ---- Units -------------------------------------------------------------- */

bool wr_unit_move(struct weir_region *r, size_t u, unsigned from, unsigned to,
		  unsigned add)
{
	uint8_t seen = wr_unit_get(r, u);

	do {
		if ((seen & WR_UNIT_STATE) != from)
			return false;
	} while (!wr_unit_swap(
		r, u, &seen, (uint8_t)(((seen & ~WR_UNIT_STATE) | to | add))));
	return true;
}

/*
 * The sanitizers are not told: nothing orders this for them with the writers'
 * stores, which the kernel holds back until the unit is unprotected.  (Before
 * that a read and a write of one unit cannot meet.)
 */
__attribute__((no_sanitize("thread", "address"), noinline)) bool
wr_unit_copy(void *to, const void *from, size_t bytes)
{
	const uint64_t *in = from, *end = in + bytes / 8;
	uint64_t *out = to;

	/* Zero as far as it goes, in steps that the compiler can make wide. */
	for (; in < end; in += 8)
		if (in[0] | in[1] | in[2] | in[3] | in[4] | in[5] | in[6] |
		    in[7])
			break;
	if (in == end)
		return true;
	in = from;
#if defined(__x86_64__)
	{
		size_t n = bytes;

		/* Not memcpy(), which the sanitizers take over. */
		__asm__ volatile("rep movsb"
				 : "+D"(out), "+S"(in), "+c"(n)
				 :
				 : "memory");
	}
#else
	for (; in < end; in += 8, out += 8)
		for (int i = 0; i < 8; i++)
			out[i] = in[i];
#endif
	return false;
}

/* ---- Making one --------------------------------------------------------- */

static int check_options(const struct weir_region_options *given,
			 struct weir_region_options *o)
{
	static const unsigned known = WEIR_REGION_HUGE |
				      WEIR_REGION_USER_WRITES |
				      WEIR_REGION_SHARED | WEIR_REGION_TRACK;

	*o = (struct weir_region_options){.size = sizeof(*o)};
	if (given) {
		if (given->size < sizeof(given->size) || given->size > 4096)
			return wr_error(EINVAL,
					"options: size is %zu; set it "
					"to sizeof(struct "
					"weir_region_options)",
					given->size);
		memcpy(o, given,
		       given->size < sizeof(*o) ? given->size : sizeof(*o));
	}
	if (o->flags & ~known)
		return wr_error(EINVAL, "options: flags %#x are not known",
				o->flags & ~known);
	if (o->barrier > WEIR_REGION_ASYNC)
		return wr_error(EINVAL, "options: %u is not a barrier",
				o->barrier);
	if (o->barrier == WEIR_REGION_SIGBUS &&
	    !(o->flags & WEIR_REGION_USER_WRITES))
		return wr_error(EINVAL,
				"under sigbus a system call that writes to the "
				"region fails: promise that none does "
				"(WEIR_REGION_USER_WRITES), or take sync");
	if (o->name && strlen(o->name) > 31)
		return wr_error(EINVAL, "options: the name is longer than 31 "
					"bytes");
	return 0;
}

/* Lock held. */
static int watch_with(struct weir_region *r, bool sigbus)
{
	int err = wr_watch_get(sigbus, &r->watch);

	if (err) {
		r->watch = NULL;
		return err;
	}
	if (!sigbus && !(r->flags & WEIR_REGION_USER_WRITES) &&
	    !wr_watch_serves_kernel(r->watch))
		err = wr_error(
			ENOTSUP,
			"system calls that write to the region would fail "
			"(sync without privilege): sysctl "
			"vm.unprivileged_userfaultfd=1, CAP_SYS_PTRACE or "
			"access to /dev/userfaultfd would allow it; or promise "
			"that there are none (WEIR_REGION_USER_WRITES)");
	if (!err)
		err = wr_watch_add(r->watch, r);
	if (err) {
		wr_watch_put(r->watch);
		r->watch = NULL;
		return err;
	}
	r->barrier = sigbus ? WEIR_REGION_SIGBUS : WEIR_REGION_SYNC;
	return 0;
}

static int watch_async(struct weir_region *r)
{
	int err = wr_barrier_create(WR_BARRIER_ASYNC, &r->async);

	if (err)
		return err;
	err = wr_barrier_add_range(r->async, (void *)r->start, r->limit);
	if (err) {
		wr_barrier_destroy(r->async);
		r->async = NULL;
		return err;
	}
	r->barrier = WEIR_REGION_ASYNC;
	return 0;
}

/* sigbus first where it is allowed to be: no thread is woken for a fault, which
 * takes a fifth of the time.  Measured with 100,000 writes a second: 0.57 s of
 * CPU for a snapshot of 1 GiB instead of 1.00. */
static int watch_auto(struct weir_region *r)
{
	int err = -ENOTSUP;

	if (r->flags & WEIR_REGION_USER_WRITES) {
		r->why = "no system call writes to it, as was promised";
		err = watch_with(r, true);
	}
	if (!err || err == -EBUSY)
		return err;
	r->why = "the thread that hears of writes hears of the kernel's, too";
	return watch_with(r, false);
}

int wr_region_watch(struct weir_region *r, unsigned wanted)
{
	r->why = "asked for, and it works here";
	switch (wanted) {
	case WEIR_REGION_ASYNC:
		return watch_async(r);
	case WEIR_REGION_SIGBUS:
		return watch_with(r, true);
	case WEIR_REGION_SYNC:
		return watch_with(r, false);
	default:
		return watch_auto(r);
	}
}

static size_t units(const struct weir_region *r)
{
	return r->limit >> r->shift;
}

static size_t groups(const struct weir_region *r)
{
	return (units(r) + WR_GROUP - 1) / WR_GROUP;
}

static void destroy(struct weir_region *r)
{
	wr_own_free(r->state, units(r));
	wr_own_free(r->hot, groups(r));
	if (!r->adopted && r->start)
		munmap((void *)r->start, r->limit);
	if (r->memfd >= 0)
		close(r->memfd);
	wr_own_free(r, sizeof(*r));
}

static struct weir_region *new_region(const struct weir_region_options *o)
{
	struct weir_region *r = wr_own_alloc(sizeof(*r));
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (!r) {
		wr_error(ENOMEM, "no memory for a region; free some");
		return NULL;
	}
	r->memfd = -1;
	r->flags = o->flags;
	r->shift = (unsigned)__builtin_ctzl(
		o->flags & WEIR_REGION_HUGE && page < HUGE ? HUGE : page);
	if (o->name)
		strcpy(r->name, o->name);
	return r;
}

/* The memory is there: all the rest.  On failure everything is undone. */
static int finish(struct weir_region *r, const struct weir_region_options *o,
		  struct weir_region **out)
{
	unsigned entry = 0;
	int err = 0;

	r->state = wr_own_alloc(units(r));
	r->hot = wr_own_alloc(groups(r));
	if (!r->state || !r->hot)
		err = wr_error(ENOMEM, "no memory for a region's tables; raise "
				       "RLIMIT_AS or free memory");
	wr_mutex_lock(&lock);
	if (!err)
		err = wr_regions_fork_ready();
	if (!err)
		err = find_entry(r, &entry);
	/* Nothing is protected yet: no handler looks for it. */
	if (!err)
		err = wr_region_watch(r, o->barrier);
	/* Release: pairs with wr_region_next(). */
	if (!err)
		__atomic_store_n(&table[entry], r, __ATOMIC_RELEASE);
	wr_mutex_unlock(&lock);
	if (err)
		destroy(r);
	else
		*out = r;
	return err;
}

static int reserve_memory(struct weir_region *r, void *address)
{
	int prot = r->flags & WEIR_REGION_SHARED ? PROT_READ | PROT_WRITE
						 : PROT_NONE;
	int flags = MAP_NORESERVE;
	size_t align = wr_region_unit(r), slack = address ? 0 : align;
	char *p;

	if (r->flags & WEIR_REGION_SHARED) {
		r->memfd = memfd_create(r->name[0] ? r->name : "weir-region",
					MFD_CLOEXEC);
		if (r->memfd < 0 || ftruncate(r->memfd, (off_t)r->limit))
			return wr_error(errno,
					"memfd_create: %s; raise "
					"RLIMIT_NOFILE or free memory",
					strerror(errno));
		r->shared = true;
	}
#ifdef MAP_FIXED_NOREPLACE
	if (address)
		flags |= MAP_FIXED_NOREPLACE;
#endif
	/* Address space first, aligned, then the file over it. */
	p = mmap(address, r->limit + slack, PROT_NONE,
		 flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED && address && p != address) {
		munmap(p, r->limit);
		p = MAP_FAILED;
		errno = EEXIST;
	}
	if (p == MAP_FAILED) {
		if (errno == EEXIST)
			return wr_error(EEXIST,
					"something is mapped in the %zu bytes "
					"from %p; choose another address",
					r->limit, address);
		return wr_error(ENOMEM,
				"no address space for %zu bytes: %s; raise "
				"RLIMIT_AS",
				r->limit, strerror(errno));
	}
	if (slack) {
		size_t head = (size_t)(-(uintptr_t)p & (align - 1));

		if (head)
			munmap(p, head);
		munmap(p + head + r->limit, slack - head);
		p += head;
	}
	if (r->shared && mmap(p, r->limit, prot, MAP_SHARED | MAP_FIXED,
			      r->memfd, 0) == MAP_FAILED) {
		int err = errno;

		munmap(p, r->limit);
		return wr_error(err,
				"the region's file cannot be mapped: %s; "
				"raise vm.max_map_count or free memory",
				strerror(err));
	}
	r->start = (uintptr_t)p;
	return 0;
}

/* Make [from, to) usable. */
static int open_memory(struct weir_region *r, size_t from, size_t to)
{
	void *p = (void *)(r->start + from);

	if (from < to && !r->shared &&
	    mprotect(p, to - from, PROT_READ | PROT_WRITE))
		return wr_error(errno,
				"the system refused %zu bytes more: %s; raise "
				"RLIMIT_DATA or vm.overcommit_memory",
				to - from, strerror(errno));
	/* EINVAL: a kernel without huge pages. */
	if (from < to)
		madvise(p, to - from,
			r->flags & WEIR_REGION_HUGE ? MADV_HUGEPAGE
						    : MADV_NOHUGEPAGE);
	return 0;
}

int weir_region_reserve(size_t bytes, size_t limit,
			const struct weir_region_options *options,
			weir_region **region)
{
	struct weir_region_options o;
	struct weir_region *r;
	size_t unit;
	int err = check_options(options, &o);

	if (err)
		return err;
	if (!region)
		return wr_invalid(__func__, "region is NULL");
	if (limit < bytes)
		limit = bytes;
	if (!limit || limit > TOP)
		return wr_error(EINVAL,
				"a region of %zu bytes: from 1 to 2^46 "
				"are possible",
				limit);
	r = new_region(&o);
	if (!r)
		return -ENOMEM;
	unit = wr_region_unit(r);
	r->bytes = (bytes + unit - 1) & ~(unit - 1);
	r->limit = (limit + unit - 1) & ~(unit - 1);
	err = (uintptr_t)o.address & (unit - 1)
		      ? wr_error(EINVAL, "address %p is not aligned to %zu",
				 o.address, unit)
		      : reserve_memory(r, o.address);
	if (!err)
		err = open_memory(r, 0, r->bytes);
	if (err) {
		destroy(r);
		return err;
	}
	return finish(r, &o, region);
}

int weir_region_adopt(void *start, size_t bytes,
		      const struct weir_region_options *options,
		      weir_region **region)
{
	struct weir_region_options o;
	struct weir_region *r;
	size_t unit;
	int err = check_options(options, &o);

	if (err)
		return err;
	if (!region)
		return wr_invalid(__func__, "region is NULL");
	if (o.flags & WEIR_REGION_SHARED || o.address)
		return wr_error(EINVAL, "WEIR_REGION_SHARED and address are "
					"for weir_region_reserve()");
	r = new_region(&o);
	if (!r)
		return -ENOMEM;
	r->adopted = true;
	r->start = (uintptr_t)start;
	r->bytes = r->limit = bytes;
	unit = wr_region_unit(r);
	if (!start || !bytes || bytes > TOP ||
	    (r->start | bytes) & (unit - 1) || r->start + bytes < r->start) {
		err = wr_error(EINVAL,
			       "%p, %zu bytes: not whole units of %zu bytes",
			       start, bytes, unit);
		r->limit = 0;
	} else {
		err = wr_region_look(r);
		if (!err && o.flags & WEIR_REGION_HUGE)
			madvise(start, bytes, MADV_HUGEPAGE);
	}
	if (err) {
		destroy(r);
		return err;
	}
	return finish(r, &o, region);
}

/* ---- Using one ---------------------------------------------------------- */

int weir_region_grow(weir_region *r, size_t bytes)
{
	int err = wr_region_valid(r, __func__);
	size_t unit, now;

	if (err)
		return err;
	if (r->adopted)
		return wr_error(EINVAL, "the region was adopted: its memory is "
					"yours; adopt what is new as another");
	unit = wr_region_unit(r);
	now = __atomic_load_n(&r->bytes, __ATOMIC_RELAXED);
	if (bytes < now)
		return wr_error(EINVAL,
				"a region of %zu bytes does not shrink to %zu; "
				"weir_region_discard() gives memory back",
				now, bytes);
	if (bytes > r->limit)
		return wr_error(ENOMEM,
				"the region's limit is %zu bytes; reserve it "
				"with more",
				r->limit);
	bytes = (bytes + unit - 1) & ~(unit - 1);
	err = open_memory(r, now, bytes);
	if (err)
		return err;
	/* Release: pairs with the acquire in begin; the memory is usable. */
	__atomic_store_n(&r->bytes, bytes, __ATOMIC_RELEASE);
	return 0;
}

int weir_region_in_snapshot(const weir_region *r)
{
	int err = wr_region_valid(r, __func__);

	if (err)
		return err;
	/* Relaxed: nothing of the snapshot is looked at. */
	return __atomic_load_n(&r->snapshot, __ATOMIC_RELAXED) != NULL;
}

int weir_region_info(const weir_region *r, struct weir_region_info *info)
{
	int err = wr_region_valid(r, __func__);
	struct weir_region_info all;
	size_t n;

	if (err)
		return err;
	if (!info || info->size < sizeof(info->size))
		return wr_invalid(__func__, "info is NULL or its size not set");
	all = (struct weir_region_info){
		.size = info->size,
		.address = (void *)r->start,
		.bytes = __atomic_load_n(&r->bytes, __ATOMIC_ACQUIRE),
		.limit = r->limit,
		.unit = wr_region_unit(r),
		.flags = r->flags,
		.barrier = r->barrier,
		.memfd = r->memfd,
		.why = r->why,
	};
	memcpy(all.name, r->name, sizeof(all.name));
	n = info->size < sizeof(all) ? info->size : sizeof(all);
	memcpy(info, &all, n);
	return 0;
}

int weir_region_release(weir_region *r)
{
	int err;

	if (!r)
		return 0;
	err = wr_region_valid(r, __func__);
	if (err)
		return err;
	wr_mutex_lock(&lock);
	if (r->snapshot) {
		wr_mutex_unlock(&lock);
		return wr_error(EBUSY, "the region is in a snapshot; end that "
				       "first");
	}
	/* First unprotected: a writer of memory that stays finds nobody to ask
	 * once the region is withdrawn. */
	if (r->watch)
		wr_watch_remove(r->watch, r);
	withdraw(r);
	if (r->watch)
		wr_watch_put(r->watch);
	if (r->async)
		wr_barrier_destroy(r->async);
	wr_mutex_unlock(&lock);
	destroy(r);
	return 0;
}
