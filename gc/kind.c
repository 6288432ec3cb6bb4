/* SPDX-License-Identifier: MIT */
/*
 * Object kinds: a table that only grows and never moves, so that markers read
 * it without a lock.  An entry is whole before kind_count counts it.
 */
#include "gc/mark.h"

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
	h->kind_count = WG_FIRST_KIND;
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
	for (uint32_t i = 0; i < h->kind_count; i++)
		free(h->kinds[i].bitmap);
	h->sys->release(h->kinds, table_bytes(h));
}

static int add(struct weir_heap *h, const struct wg_kind *k, weir_kind *out,
	       const char *function)
{
	struct weir_mutator *m = wg_mutator_self();
	int err = 0;

	wg_lock(h, m);
	if (h->kind_count == h->kinds_committed) {
		size_t step = (size_t)64 << 10;
		size_t at = h->kinds_committed * sizeof(*k);

		if (h->kind_count >= WG_KINDS_MAX - step ||
		    h->sys->commit((char *)h->kinds + at, step, false))
			err = wr_error(ENOMEM,
				       "%s: no memory for one more than %u "
				       "kinds of objects",
				       function, h->kind_count);
		else
			h->kinds_committed += step / sizeof(*k);
	}
	if (!err) {
		h->kinds[h->kind_count] = *k;
		*out = h->kind_count;
		/* Pairs with the acquire load in alloc_slow. */
		__atomic_store_n(&h->kind_count, h->kind_count + 1,
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
	if (flags & ~WEIR_TRACE_CONCURRENT)
		return wr_invalid(__func__, "unknown flags %#x", flags);
	k.concurrent = (flags & WEIR_TRACE_CONCURRENT) != 0;
	return add(h, &k, out, __func__);
}
