/* SPDX-License-Identifier: MIT */
/*
 * Regions: memory that snapshots can be taken of.  Where it comes from is in
 * region_memory.c, how its pages are watched in watch.c, what a snapshot does
 * with them in snapshot.c.
 *
 * A table of all regions is read by fault handlers without a lock: an entry is
 * published by a release store when all of the region is there, withdrawn
 * before any of it goes, and freed after a grace period of its watch.
 *
 *   `lock`   creating, releasing, watches; which snapshot a region is in
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/own_memory.h"
#include "runtime/patience.h"
#include "runtime/region.h"
#include "runtime/regions.h"
#include "runtime/sized.h"
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
	unsigned tries = 0;

	/* Whatever fork() holds already: trylock does not mind the order, and
	 * who has the lock waits for nothing that fork() takes. */
	while (!wr_mutex_trylock(&lock))
		wr_wait_a_bit(&tries);
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
	static const unsigned known =
		WEIR_REGION_HUGE | WEIR_REGION_USER_WRITES |
		WEIR_REGION_SHARED | WEIR_REGION_TRACK | WEIR_REGION_PAGES;

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
	if (o->flags & WEIR_REGION_PAGES && !(o->flags & WEIR_REGION_HUGE))
		return wr_error(EINVAL,
				"options: WEIR_REGION_PAGES is for memory with "
				"WEIR_REGION_HUGE; other memory is saved by "
				"pages anyway");
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

static size_t units(const struct weir_region *r)
{
	return r->limit >> r->shift;
}

static size_t groups(const struct weir_region *r)
{
	return wr_groups_of(units(r));
}

static void destroy(struct weir_region *r)
{
	wr_own_free(r->state, units(r));
	wr_own_free(r->hot, groups(r));
	wr_own_free(r->held, wr_held_bytes(r->held_pages));
	if (!r->adopted && r->start)
		munmap((void *)r->start, r->limit);
	if (r->memfd >= 0)
		close(r->memfd);
	wr_own_free(r, sizeof(*r));
}

size_t wr_region_grain(const struct weir_region *r)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return r->flags & WEIR_REGION_HUGE && page < HUGE ? HUGE : page;
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
		o->flags & WEIR_REGION_PAGES ? page : wr_region_grain(r));
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
	unit = wr_region_grain(r);
	r->bytes = (bytes + unit - 1) & ~(unit - 1);
	r->limit = (limit + unit - 1) & ~(unit - 1);
	err = (uintptr_t)o.address & (unit - 1)
		      ? wr_error(EINVAL, "address %p is not aligned to %zu",
				 o.address, unit)
		      : wr_region_map(r, o.address);
	if (!err)
		err = wr_region_open(r, 0, r->bytes);
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
	unit = wr_region_grain(r);
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
	err = wr_region_open(r, now, bytes);
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

	if (!err)
		err = wr_sized_check(info, __func__, "info");
	if (err)
		return err;
	all = (struct weir_region_info){
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
	wr_sized_fill(info, &all, sizeof(all));
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
