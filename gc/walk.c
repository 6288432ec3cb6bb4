/* SPDX-License-Identifier: MIT */
/*
 * What the last pause found alive: one object, or all.
 *
 * Let L be the black of the last pause.  No pause comes while the caller is in
 * a locked call (gc/locked.c), so L stays, and what was alive then stays in
 * memory: it is swept after the next pause.  An object's colour is
 *
 *	young    it is newer, or dead
 *	L        it was alive, or a minor cycle under way has found it so
 *	other    dead since an earlier pause, if its block is not swept yet; or,
 *		 while a full cycle marks under that colour, alive: before the
 *		 colour turns every block is swept
 *
 * Whether a full cycle marks is read under the control lock, as it is written
 * when the colour turns.  If it does the colour is read once more: what it was
 * before may have been swept, and its memory be another object's, since.
 *
 * In callbacks that run in a pause L is the colour of the cycle under way.
 *
 *   marked, each    threads in a locked call
 *   marked          callbacks in a pause, too
 */
#include "gc/mark.h"

#include <errno.h>

#include <weir/embed.h>

#include "gc/locked.h"
#include "gc/weak_tables.h"

static unsigned colour_at(const struct weir_heap *h, size_t g)
{
	return wg_meta_load(&h->meta[g]) & WEIR_META_COLOUR;
}

static bool full_cycle_marks(struct weir_heap *h)
{
	struct weir_mutator *m = wg_mutator_self();
	bool blocked = wg_control_lock(h, m);
	bool marks = h->open_full;

	wg_control_unlock(h, m, blocked);
	return marks;
}

/* Whether an object that starts at granule g was alive. */
static bool was_alive(struct weir_heap *h, size_t g)
{
	unsigned c = colour_at(h, g);

	if (c < WG_BLACK_A)
		return false;
	if (c == h->weak->colour)
		return true;
	return full_cycle_marks(h) && colour_at(h, g) >= WG_BLACK_A;
}

static int not_locked(const char *function)
{
	return wr_invalid(function, "not within weir_locked_call()");
}

int weir_object_marked(weir_heap *h, const void *p)
{
	size_t g;

	if (!wg_heap_ok(h))
		return -EINVAL;
	if (wg_on_collector_thread()) {
		g = wg_resolve(h, (uintptr_t)p);
		return g != SIZE_MAX && colour_at(h, g) == h->colour;
	}
	if (!wg_locked_depth)
		return not_locked(__func__);
	g = wg_resolve(h, (uintptr_t)p);
	return g != SIZE_MAX && was_alive(h, g);
}

struct walk {
	struct weir_heap *h; /* the heap */
	weir_object_fn *fn;  /* to be called */
	void *arg;           /* its argument */
};

/* Of an object that is not freed meanwhile; one that was asked and is to go
 * (gc/disclaim.c) is none any more. */
static void tell(const struct walk *w, size_t g, size_t bytes)
{
	struct weir_heap *h = w->h;
	uintptr_t p = wg_granule_start(h, g);
	unsigned kind = wg_meta_load(&h->meta[g]) >> WEIR_META_KIND_SHIFT;

	if (kind == WG_INLINE_KINDS) {
		bytes -= sizeof(uint64_t);
		if (*(const volatile uint64_t *)(p + bytes) & WG_KIND_WENT)
			return;
	}
	w->fn((void *)p, bytes, w->arg);
}

static void walk_small(const struct walk *w, uint32_t i)
{
	struct weir_heap *h = w->h;
	size_t g = (size_t)i * WG_BLOCK_GRANULES, end = g + WG_BLOCK_GRANULES;

	while ((g = wg_meta_nonzero(h->meta, g, end)) < end) {
		size_t bytes;

		if (!was_alive(h, g)) {
			g++;
			continue;
		}
		bytes = wg_object_bytes(h, g);
		tell(w, g, bytes);
		g += bytes >> WEIR_GRANULE_SHIFT;
	}
}

static void walk_block(const struct walk *w, uint32_t i)
{
	struct weir_heap *h = w->h;
	size_t g = (size_t)i * WG_BLOCK_GRANULES;

	switch (wg_block_state(&h->blocks[i])) {
	case WG_FREE:
	case WG_LARGE_NEW:
	case WG_LARGE_TAIL:
		break;
	case WG_LARGE_HEAD:
		if (was_alive(h, g))
			tell(w, g, wg_object_bytes(h, g));
		break;
	default:
		walk_small(w, i);
		break;
	}
}

int weir_object_each(weir_heap *h, weir_object_fn *fn, void *arg)
{
	struct walk w = {h, fn, arg};
	int err = wg_heap_enter(h);

	if (err)
		return err;
	if (!fn)
		return wr_invalid(__func__, "the function is NULL");
	if (!wg_locked_depth)
		return not_locked(__func__);
	for (int sp = 0; sp < 2; sp++) {
		const struct wg_space *s = &h->space[sp];

		/* Block 0 is none.  Blocks above what is read here are new. */
		for (uint32_t i = s->first + !sp; i < wg_high(s); i++)
			walk_block(&w, i);
	}
	return 0;
}
