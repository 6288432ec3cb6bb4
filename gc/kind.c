/* SPDX-License-Identifier: MIT */
/*
 * Object kinds: a table that only grows and never moves, so that markers read
 * it without a lock.  An entry is whole before a count counts it.
 *
 * There are two counts, since numbers below WG_INLINE_KINDS are not for kinds
 * whose objects are noted when they are allocated (gc/always.c, gc/disclaim.c),
 * and are left for others.
 */
#include "gc/always.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WG_KINDS_MAX ((size_t)1 << 20)
#define WG_BITMAP_WORDS 65536u

static void init(struct weir_heap *h)
{
	h->kinds[WEIR_KIND_CONSERVATIVE].type = WG_KIND_CONSERVATIVE;
	h->kinds[WEIR_KIND_LEAF].type = WG_KIND_LEAF;
	h->kinds[WG_EPHEMERON].type = WG_KIND_EPHEMERON;
	h->kind_count = h->inline_kinds = WG_FIRST_KIND;
}

static size_t table_bytes(const struct weir_heap *h)
{
	return wr_sys_pages(h->sys, WG_KINDS_MAX * sizeof(struct wg_kind));
}

int wg_kinds_create(struct weir_heap *h)
{
	const size_t page = h->sys->page_size;

	h->kinds = h->sys->reserve(table_bytes(h), page);
	if (!h->kinds)
		return wr_error(ENOMEM, "no addresses for the kind table");
	h->kinds_committed = page / sizeof(struct wg_kind);
	if (h->sys->commit(h->kinds, page, false))
		return wr_error(ENOMEM, "no memory for the kind table");
	init(h);
	return 0;
}

void wg_kinds_fini(struct weir_heap *h)
{
	if (!h->kinds)
		return;
	for (uint32_t i = 0; i < h->kind_count; i++) {
		free(h->kinds[i].bitmap);
		free(h->kinds[i].name);
	}
	h->sys->release(h->kinds, table_bytes(h));
}

/* Lock held. */
static uint32_t next_number(const struct weir_heap *h, const struct wg_kind *k)
{
	if (!k->always && !k->disclaim && h->inline_kinds < WG_INLINE_KINDS)
		return h->inline_kinds;
	return h->kind_count < WG_INLINE_KINDS ? WG_INLINE_KINDS
					       : h->kind_count;
}

bool wg_kind_made(const struct weir_heap *h, weir_kind kind)
{
	return kind < __atomic_load_n(&h->kind_count, __ATOMIC_ACQUIRE) &&
	       (kind >= WG_INLINE_KINDS ||
		kind < __atomic_load_n(&h->inline_kinds, __ATOMIC_ACQUIRE));
}

static int add(struct weir_heap *h, const struct wg_kind *k, weir_kind *out,
	       const char *function)
{
	struct weir_mutator *m = wg_mutator_self();
	uint32_t i;
	int err = 0;

	wg_lock(h, m);
	i = next_number(h, k);
	if (i == h->kinds_committed) {
		size_t step = (size_t)64 << 10;
		size_t at = h->kinds_committed * sizeof(*k);

		if (i >= WG_KINDS_MAX - step ||
		    h->sys->commit((char *)h->kinds + at, step, false))
			err = wr_error(ENOMEM,
				       "%s: no memory for one more than %u "
				       "kinds of objects",
				       function, i);
		else
			h->kinds_committed += step / sizeof(*k);
	}
	if (!err) {
		h->kinds[i] = *k;
		*out = i;
		/* Release, both: partners of the acquire loads in
		 * wg_kind_made(). */
		if (i < WG_INLINE_KINDS)
			__atomic_store_n(&h->inline_kinds, i + 1,
					 __ATOMIC_RELEASE);
		if (i >= h->kind_count)
			__atomic_store_n(&h->kind_count, i + 1,
					 __ATOMIC_RELEASE);
	}
	wg_unlock(h, m);
	return err;
}

int weir_kind_bitmap(weir_heap *h, const uint64_t *bitmap, size_t words,
		     weir_kind *out)
{
	struct wg_kind k = {.type = WG_KIND_BITMAP};
	size_t n = (words + 63) / 64;
	bool any = false;
	int err;

	err = wg_heap_enter(h);
	if (err)
		return err;
	if (!bitmap || !out)
		return wr_invalid(__func__, "the bitmap or the place for the "
					    "result is NULL");
	if (!words || words > WG_BITMAP_WORDS)
		return wr_invalid(__func__, "%zu words, not 1 to %u", words,
				  WG_BITMAP_WORDS);
	for (size_t i = 0; i < words; i++)
		any |= bitmap[i / 64] >> (i % 64) & 1;
	if (!any) {
		*out = WEIR_KIND_LEAF;
		return 0;
	}
	k.words = (uint32_t)words;
	k.bitmap = malloc(n * sizeof(uint64_t));
	if (!k.bitmap)
		return wr_error(ENOMEM, "weir_kind_bitmap: no memory");
	memcpy(k.bitmap, bitmap, n * sizeof(uint64_t));
	err = add(h, &k, out, __func__);
	if (err)
		free(k.bitmap);
	return err;
}

int weir_kind_trace(weir_heap *h, weir_trace_fn *fn, void *arg, unsigned flags,
		    weir_kind *out)
{
	struct wg_kind k = {.type = WG_KIND_TRACE, .fn = fn, .arg = arg};
	int err = wg_heap_enter(h);

	if (err)
		return err;
	if (!fn || !out)
		return wr_invalid(__func__, "the function or the place for the "
					    "result is NULL");
	if (flags & ~(WEIR_TRACE_CONCURRENT | WEIR_TRACE_ALWAYS))
		return wr_invalid(__func__, "unknown flags %#x", flags);
	k.concurrent = (flags & WEIR_TRACE_CONCURRENT) != 0;
	k.always = (flags & WEIR_TRACE_ALWAYS) != 0;
	if (k.concurrent && k.always)
		return wr_invalid(__func__,
				  "WEIR_TRACE_ALWAYS is for the pause, not "
				  "together with WEIR_TRACE_CONCURRENT");
	err = k.always ? wg_always_need(h) : 0;
	if (err)
		return err;
	return add(h, &k, out, __func__);
}

int weir_kind_disclaim(weir_heap *h, weir_kind like, weir_disclaim_fn *fn,
		       void *arg, unsigned flags, weir_kind *out)
{
	struct wg_kind k;
	int err = wg_heap_enter(h);

	if (err)
		return err;
	if (!fn || !out)
		return wr_invalid(__func__, "the function or the place for the "
					    "result is NULL");
	if (flags & ~WEIR_DISCLAIM_ORDERED)
		return wr_invalid(__func__, "unknown flags %#x", flags);
	if (!wg_kind_made(h, like) || like == WG_EPHEMERON)
		return wr_invalid(__func__, "kind %u was never created", like);
	k = h->kinds[like];
	k.name = NULL;
	if (k.disclaim)
		return wr_invalid(__func__,
				  "kind %u has a function already; give the "
				  "kind that was passed for it",
				  like);
	k.disclaim = fn;
	k.disclaim_arg = arg;
	k.like = like;
	k.ordered = (flags & WEIR_DISCLAIM_ORDERED) != 0;
	if (k.bitmap) {
		size_t size = (k.words + 63ul) / 64 * sizeof(uint64_t);

		k.bitmap = malloc(size);
		if (!k.bitmap)
			return wr_error(ENOMEM,
					"weir_kind_disclaim: no memory");
		memcpy(k.bitmap, h->kinds[like].bitmap, size);
	}
	err = add(h, &k, out, __func__);
	if (err)
		free(k.bitmap);
	return err;
}
