/* SPDX-License-Identifier: MIT */
/*
 * An arena of jemalloc's in a region, by extent hooks.
 *
 * jemalloc asks for extents, which are cut from the region one behind the
 * other; it keeps those that it no longer uses (dalloc is refused, so it reuses
 * them itself) and may have their pages given back to the system (purge), but
 * not during a snapshot.  Extents are zero when they are new, and after a purge
 * by force.
 *
 * Thread caches are not used: one of a thread that has ended would keep objects
 * of an arena that is gone.
 *
 *   the hooks   jemalloc's locks held; `next` is atomic, growing is under
 * `lock`
 */
#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/embed.h>
#include <weir/jemalloc.h>

struct weir_arena {
	extent_hooks_t hooks; /* first: jemalloc hands its address back */
	weir_region *region;  /* where the memory is */
	char *start;          /* of it */
	size_t limit;         /* of it */
	size_t next;          /* first byte not yet cut; under `lock` */
	pthread_mutex_t lock; /* cutting and growing */
	unsigned number;      /* jemalloc's, of the arena */
	int flags;            /* for mallocx() */
};

/* By how much the usable part of the region grows, at least. */
#define GROW ((size_t)32 << 20)

/* Not in every program that is linked so is jemalloc the malloc(). */
#pragma weak mallctl
#pragma weak mallocx

static void *cut(struct weir_arena *a, size_t size, size_t alignment)
{
	struct weir_region_info info = {.size = sizeof(info)};
	size_t at = (a->next + alignment - 1) & ~(alignment - 1), want;

	if (at > a->limit || size > a->limit - at ||
	    weir_region_info(a->region, &info))
		return NULL;
	if (at + size > info.bytes) {
		want = at + size + GROW < a->limit ? at + size + GROW
						   : a->limit;
		if (weir_region_grow(a->region, want) &&
		    weir_region_grow(a->region, at + size))
			return NULL;
	}
	a->next = at + size;
	return a->start + at;
}

static void *hook_alloc(extent_hooks_t *hooks, void *address, size_t size,
			size_t alignment, bool *zero, bool *commit,
			unsigned number)
{
	struct weir_arena *a = (struct weir_arena *)hooks;
	void *p;

	(void)number;
	/* A certain place is never to be had. */
	if (address)
		return NULL;
	pthread_mutex_lock(&a->lock);
	p = cut(a, size, alignment);
	pthread_mutex_unlock(&a->lock);
	if (p)
		*zero = *commit = true;
	return p;
}

/* Refused: jemalloc goes on to use it. */
static bool hook_dalloc(extent_hooks_t *hooks, void *address, size_t size,
			bool committed, unsigned number)
{
	(void)hooks, (void)address, (void)size, (void)committed, (void)number;
	return true;
}

static bool hook_commit(extent_hooks_t *hooks, void *address, size_t size,
			size_t offset, size_t length, unsigned number)
{
	(void)hooks, (void)address, (void)size, (void)offset, (void)length;
	(void)number;
	return false; /* all of it is */
}

static bool hook_decommit(extent_hooks_t *hooks, void *address, size_t size,
			  size_t offset, size_t length, unsigned number)
{
	(void)hooks, (void)address, (void)size, (void)offset, (void)length;
	(void)number;
	return true;
}

/* True: not done.  weir_region_discard() of what is in a snapshot would work,
 * and cost room in its pool. */
static bool hook_purge(extent_hooks_t *hooks, void *address, size_t size,
		       size_t offset, size_t length, unsigned number)
{
	struct weir_arena *a = (struct weir_arena *)hooks;

	(void)size, (void)number;
	return weir_region_in_snapshot(a->region) ||
	       weir_region_discard(a->region, (char *)address + offset, length);
}

static bool hook_split(extent_hooks_t *hooks, void *address, size_t size,
		       size_t a, size_t b, bool committed, unsigned number)
{
	(void)hooks, (void)address, (void)size, (void)a, (void)b;
	(void)committed, (void)number;
	return false;
}

static bool hook_merge(extent_hooks_t *hooks, void *a, size_t a_size, void *b,
		       size_t b_size, bool committed, unsigned number)
{
	(void)hooks, (void)a, (void)a_size, (void)b, (void)b_size;
	(void)committed, (void)number;
	return false;
}

static const extent_hooks_t hooks = {
	.alloc = hook_alloc,
	.dalloc = hook_dalloc,
	.commit = hook_commit,
	.decommit = hook_decommit,
	.purge_forced = hook_purge,
	.split = hook_split,
	.merge = hook_merge,
};

static int make_arena(struct weir_arena *a)
{
	extent_hooks_t *mine = &a->hooks;
	size_t size = sizeof(a->number);
	const char *version = NULL;
	size_t version_size = sizeof(version);
	int err;

	if (!mallctl || !mallocx ||
	    mallctl("version", &version, &version_size, NULL, 0) ||
	    version[0] < '5')
		return weir_error_set(ENOTSUP,
				      "the malloc() of this program is not "
				      "jemalloc 5; link it with -ljemalloc, or "
				      "preload libjemalloc.so.2");
	err = mallctl("arenas.create", &a->number, &size, &mine, sizeof(mine));
	if (err)
		return weir_error_set(err, "jemalloc: arenas.create: %s",
				      strerror(err));
	a->flags = MALLOCX_ARENA(a->number) | MALLOCX_TCACHE_NONE;
	return 0;
}

int weir_arena_create(size_t limit, const struct weir_region_options *options,
		      weir_arena **arena)
{
	struct weir_region_info info = {.size = sizeof(info)};
	struct weir_arena *a;
	int err;

	if (!arena)
		return weir_error_set(EINVAL, "weir_arena_create: arena is "
					      "NULL");
	a = calloc(1, sizeof(*a));
	if (!a)
		return weir_error_set(ENOMEM, "no memory for an arena; free "
					      "some");
	a->hooks = hooks;
	pthread_mutex_init(&a->lock, NULL);
	err = weir_region_reserve(limit < GROW ? limit : GROW, limit, options,
				  &a->region);
	if (!err)
		err = weir_region_info(a->region, &info);
	a->start = info.address;
	a->limit = info.limit;
	if (!err)
		err = make_arena(a);
	if (err) {
		if (a->region)
			weir_region_release(a->region);
		free(a);
		return err;
	}
	*arena = a;
	return 0;
}

int weir_arena_destroy(weir_arena *a)
{
	char name[48];
	int err;

	if (!a)
		return 0;
	if (weir_region_in_snapshot(a->region))
		return weir_error_set(EBUSY, "the arena's region is in a "
					     "snapshot; end that first");
	snprintf(name, sizeof(name), "arena.%u.destroy", a->number);
	err = mallctl(name, NULL, NULL, NULL, 0);
	if (err)
		return weir_error_set(err, "jemalloc: %s: %s", name,
				      strerror(err));
	err = weir_region_release(a->region);
	pthread_mutex_destroy(&a->lock);
	free(a);
	return err;
}

weir_region *weir_arena_region(const weir_arena *a)
{
	return a->region;
}

int weir_arena_flags(const weir_arena *a)
{
	return a->flags;
}

/* ---- Allocating --------------------------------------------------------- */

/* jemalloc's own functions set no errno. */
static void *or_enomem(void *p)
{
	if (!p)
		errno = ENOMEM;
	return p;
}

void *weir_arena_malloc(weir_arena *a, size_t size)
{
	return or_enomem(mallocx(size ? size : 1, a->flags));
}

void *weir_arena_calloc(weir_arena *a, size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes))
		return or_enomem(NULL);
	return or_enomem(mallocx(bytes ? bytes : 1, a->flags | MALLOCX_ZERO));
}

void *weir_arena_realloc(weir_arena *a, void *p, size_t size)
{
	if (!p)
		return weir_arena_malloc(a, size);
	return or_enomem(rallocx(p, size ? size : 1, a->flags));
}

void weir_arena_free(weir_arena *a, void *p)
{
	if (p)
		dallocx(p, a->flags);
}

size_t weir_arena_usable_size(weir_arena *a, const void *p)
{
	return p ? sallocx(p, a->flags) : 0;
}
