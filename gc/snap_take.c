/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of the heap: asking for one, and the life of the handle.
 *
 * Who wants one makes it, puts it into h->snap_wanted, asks for a full cycle
 * and waits.  The collector takes it from there when the cycle begins, and says
 * `done` when it has ended; all under the control lock.  One at a time: who
 * comes second waits for the first.
 *
 * A cycle that is held at the gate before its pause (collector.c) may stay
 * there for long: who waits for a snapshot gives up, as who waits for a cycle
 * does, and the cycle goes on without it.
 *
 *   take, free       any thread
 *   cycle_*          the collector
 *   fork_child       the thread that forks
 */
#include "gc/snap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "gc/locked.h"
#include "runtime/sized.h"

#define NAME_ROOM 128 /* of a kind's name */

/* ---- The handle ---------------------------------------------------------- */

/* The tables by block and page, one after the other. */
static int make_tables(struct weir_heap_snapshot *s)
{
	const struct wr_sys *sys = s->sys;
	size_t pages = s->extent / s->page;
	size_t meta = s->extent >> WEIR_GRANULE_SHIFT;
	size_t map = wr_sys_pages(sys, pages / 8);
	size_t blocks = wr_sys_pages(sys, (s->extent >> WG_BLOCK_SHIFT) *
						  sizeof(*s->block));
	size_t probe = wr_sys_pages(sys, sizeof(*s->probe));
	size_t small = blocks + 2 * map + probe;
	char *p;

	s->side_bytes = meta + small;
	s->side = sys->reserve(s->side_bytes, sys->page_size);
	s->copy = s->side ? sys->reserve(s->extent, sys->page_size) : NULL;
	if (!s->copy)
		return wr_error(ENOMEM,
				"cannot reserve %zu MiB of addresses for a "
				"heap snapshot; raise RLIMIT_AS (ulimit -v) or "
				"lower heap-max",
				(s->extent + s->side_bytes) >> 20);
	s->meta = (uint8_t *)s->side;
	p = s->side + meta;
	s->block = (struct wg_snap_block *)(void *)p;
	s->kept = (uint64_t *)(void *)(p + blocks);
	s->have = (uint64_t *)(void *)(p + blocks + map);
	s->probe = (struct wg_marker *)(void *)(p + blocks + 2 * map);
	return sys->commit(p, small, false);
}

static void free_snapshot(struct weir_heap_snapshot *s)
{
	for (uint32_t i = 0; i < s->kind_count; i++) {
		free((void *)s->kinds[i].bits);
		free((void *)s->kinds[i].name);
	}
	free(s->kinds);
	wg_snap_table_free(&s->sources, sizeof(struct wg_snap_source));
	wg_snap_table_free(&s->roots, sizeof(struct wg_snap_root));
	wg_snap_table_free(&s->links, sizeof(struct wg_snap_link));
	if (s->copy)
		s->sys->release(s->copy, s->extent);
	if (s->side)
		s->sys->release(s->side, s->side_bytes);
	wg_snap_handle_free(s);
}

static struct weir_heap_snapshot *make(struct weir_heap *h)
{
	struct weir_heap_snapshot *s = wg_snap_handle_new();

	if (!s) {
		wr_error(ENOMEM, "no memory for a heap snapshot; free some");
		return NULL;
	}
	s->sys = h->sys;
	s->base = h->base;
	s->extent = h->extent;
	s->span = h->span;
	s->page = h->sys->page_size;
	for (int sp = 0; sp < 2; sp++)
		s->first[sp] = s->room[sp] = h->space[sp].first;
	if (make_tables(s)) {
		free_snapshot(s);
		return NULL;
	}
	return s;
}

void weir_heap_snapshot_free(weir_heap_snapshot *s)
{
	struct weir_mutator *m = wg_mutator_self();
	bool blocked;

	if (!s || wg_snap_valid(s, __func__))
		return;
	/* The system takes long to unmap much memory, and no signal meanwhile:
	 * a stop would wait for it. */
	blocked = wg_region_enter(m);
	free_snapshot(s);
	wg_region_leave(m, blocked);
}

/* ---- The collector's side ------------------------------------------------ */

void wg_snap_cycle_begin(struct weir_heap *h)
{
	wr_mutex_lock(&h->ctl_lock);
	h->snap = h->snap_wanted;
	wr_mutex_unlock(&h->ctl_lock);
	if (h->snap)
		h->snap->begun_ns = h->sys->now_ns();
}

void wg_snap_cycle_end(struct weir_heap *h)
{
	struct weir_heap_snapshot *s = h->snap;

	if (!s)
		return;
	s->done = true;
	h->snap = h->snap_wanted = NULL;
}

void wg_snap_fork_child(struct weir_heap *h)
{
	struct weir_heap_snapshot *s = h->snap_wanted;

	h->snap = h->snap_wanted = h->snap_meta = NULL;
	h->leaf_armed = false;
	/* Who waited for it is not here. */
	if (s)
		free_snapshot(s);
}

/* ---- Taking one ---------------------------------------------------------- */

static int no_cycles(void)
{
	return wr_error(EBUSY, "weir_heap_snapshot_take: cycles are disabled "
			       "or held; enable or release them first");
}

/* Under ctl_lock: until it is done.  -EBUSY: it was given up. */
static int wait_for(struct weir_heap *h, struct weir_heap_snapshot *s)
{
	while (h->snap_wanted && !h->disabled)
		wr_mutex_wait(&h->ctl_lock, &h->ctl_done);
	if (h->disabled)
		return -EBUSY;
	h->snap_wanted = s;
	wg_cycle_ask_locked(h, WG_REQ_FULL | WG_REQ_SNAPSHOT);
	while (!s->done && !h->parked)
		wr_mutex_wait(&h->ctl_lock, &h->ctl_done);
	if (s->done)
		return 0;
	/* The collector waits for the lock, and looks at both anew. */
	h->snap_wanted = NULL;
	if (h->snap == s) {
		h->snap = NULL;
		/* The next one that waits for its turn. */
		pthread_cond_broadcast(&h->ctl_done);
	}
	return -EBUSY;
}

/* In a blocking region, where who has the lock is not stopped. */
static char *copy_name(struct weir_heap *h, const struct wg_kind *k)
{
	char name[NAME_ROOM] = "";

	wr_mutex_lock(&h->lock);
	if (k->name)
		strcpy(name, k->name);
	wr_mutex_unlock(&h->lock);
	return strdup(name);
}

/* Kinds are made at any time, but not changed: those of objects of the moment
 * were made before. */
static int copy_kinds(struct weir_heap *h, struct weir_heap_snapshot *s)
{
	uint32_t n = __atomic_load_n(&h->kind_count, __ATOMIC_ACQUIRE);

	s->kinds = calloc(n, sizeof(*s->kinds));
	if (!s->kinds)
		return -1;
	s->kind_count = n;
	for (uint32_t i = 0; i < n; i++) {
		const struct wg_kind *from = &h->kinds[i];
		struct wg_snap_kind *to = &s->kinds[i];

		to->type = from->type;
		to->words = from->words;
		if (from->bitmap) {
			size_t bytes = (from->words + 63ul) / 64 * 8;
			uint64_t *bits = malloc(bytes);

			if (!bits)
				return -1;
			memcpy(bits, from->bitmap, bytes);
			to->bits = bits;
		}
		to->name = copy_name(h, from);
		if (!to->name)
			return -1;
	}
	return 0;
}

static void count(struct weir_heap_snapshot *s)
{
	for (size_t g = 0; wg_snap_next(s, &g);) {
		size_t bytes = wg_snap_bytes(s, g);

		s->info.objects++;
		s->info.bytes += bytes;
		g += bytes >> WEIR_GRANULE_SHIFT;
	}
	for (int sp = 0; sp < 2; sp++) {
		size_t pages = WG_BLOCK / s->page;
		size_t end = s->high[sp] * pages;

		for (size_t i = s->first[sp] * pages; i < end; i++)
			if (wg_snap_bit(s->have, i))
				s->info.memory += s->page;
		/* Of a large object one granule byte was written. */
		for (uint32_t i = s->first[sp]; i < s->high[sp]; i++)
			if (s->block[i].state == WG_SNAP_SMALL)
				s->info.memory += WG_BLOCK_GRANULES;
			else if (s->block[i].state == WG_SNAP_LARGE)
				s->info.memory += s->page;
	}
}

static int finish(struct weir_heap *h, struct weir_heap_snapshot *s)
{
	if (s->err)
		return wr_error(-s->err, "%s", s->text);
	if (getrandom(s->id, sizeof(s->id), 0) != sizeof(s->id))
		return wr_error(EIO, "getrandom: %s", strerror(errno));
	if (copy_kinds(h, s))
		return wr_error(ENOMEM, "no memory for the kinds of a heap "
					"snapshot; free some");
	s->info.size = sizeof(s->info);
	s->info.roots = (unsigned)s->roots.count;
	count(s);
	return wg_snap_finish_roots(s);
}

int weir_heap_snapshot_take(weir_heap *h, weir_heap_snapshot **out)
{
	struct weir_mutator *m = wg_mutator_self();
	struct weir_heap_snapshot *s;
	int err = wg_heap_enter(h), cancel;
	bool blocked;

	if (!err && !out)
		err = wr_invalid(__func__, "no place for the result");
	if (!err)
		err = wg_locked_check(__func__);
	if (err)
		return err;
	s = make(h);
	if (!s)
		return -ENOMEM;
	/* To the end: what is done with it takes long.  And the memory would be
	 * lost if the thread were cancelled. */
	blocked = wg_region_enter(m);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	wr_mutex_lock(&h->ctl_lock);
	err = wait_for(h, s);
	wr_mutex_unlock(&h->ctl_lock);
	err = err ? no_cycles() : finish(h, s);
	if (err)
		free_snapshot(s);
	pthread_setcancelstate(cancel, NULL);
	wg_region_leave(m, blocked);
	if (!err)
		*out = s;
	return err;
}

int weir_heap_snapshot_info(const weir_heap_snapshot *s,
			    struct weir_heap_snapshot_info *info)
{
	int err = wg_snap_valid(s, __func__);

	if (!err)
		err = wr_sized_check(info, __func__, "info");
	if (!err)
		wr_sized_fill(info, &s->info, sizeof(s->info));
	return err;
}

/* ---- Names of kinds ------------------------------------------------------ */

int weir_kind_name(weir_heap *h, weir_kind kind, const char *name)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = wg_heap_enter(h);
	char *copy, *old;

	if (err)
		return err;
	if (!wg_kind_made(h, kind))
		return wr_invalid(__func__, "kind %u was never created", kind);
	if (!name || !*name || strlen(name) >= NAME_ROOM)
		return wr_invalid(__func__,
				  "the name is NULL, empty or longer than %d "
				  "bytes",
				  NAME_ROOM - 1);
	copy = strdup(name);
	if (!copy)
		return wr_error(ENOMEM, "weir_kind_name: no memory");
	wg_lock(h, m);
	old = h->kinds[kind].name;
	h->kinds[kind].name = copy;
	wg_unlock(h, m);
	free(old);
	return 0;
}
