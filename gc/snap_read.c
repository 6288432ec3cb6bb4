/* SPDX-License-Identifier: MIT */
/*
 * Reading a finished snapshot of the heap: objects, references, roots, pages.
 *
 * Nothing here changes it, and nothing looks at the heap that it was of.
 */
#include "gc/snap.h"

#include <errno.h>
#include <string.h>

#include "runtime/sized.h"

#define BATCH ((size_t)2 << 20) /* data that a call of a sink may have */
#define RUNS 64                 /* and runs */

/* ---- Finding objects ----------------------------------------------------- */

static bool is_live(const struct weir_heap_snapshot *s, size_t g)
{
	return (s->meta[g] & WEIR_META_COLOUR) == s->colour;
}

static bool in_use(const struct weir_heap_snapshot *s, uint32_t i)
{
	return (i >= s->first[0] && i < s->high[0]) ||
	       (i >= s->first[1] && i < s->high[1]);
}

static size_t resolve_small(const struct weir_heap_snapshot *s, size_t g)
{
	size_t begin = g & ~(size_t)(WG_BLOCK_GRANULES - 1);
	size_t start = wg_meta_prev(s->meta, g, begin);

	if (start == SIZE_MAX || !is_live(s, start) ||
	    wg_meta_ends_before(s->meta, start, g))
		return SIZE_MAX;
	return start;
}

size_t wg_snap_resolve(const struct weir_heap_snapshot *s, uintptr_t p)
{
	size_t g = (p - s->base) >> WEIR_GRANULE_SHIFT;
	uint32_t i = (uint32_t)((p - s->base) >> WG_BLOCK_SHIFT);
	const struct wg_snap_block *b = &s->block[i];

	if (p - s->base >= s->extent || !in_use(s, i))
		return SIZE_MAX;
	if (b->state == WG_SNAP_SMALL)
		return resolve_small(s, g);
	if (b->state == WG_SNAP_TAIL)
		i = b->head;
	if (s->block[i].state != WG_SNAP_LARGE)
		return SIZE_MAX;
	g = (size_t)i * WG_BLOCK_GRANULES;
	return is_live(s, g) && p - s->base - ((uintptr_t)i << WG_BLOCK_SHIFT) <
					s->block[i].size
		       ? g
		       : SIZE_MAX;
}

size_t wg_snap_bytes(const struct weir_heap_snapshot *s, size_t g)
{
	const struct wg_snap_block *b = &s->block[g / WG_BLOCK_GRANULES];

	if (b->state == WG_SNAP_LARGE)
		return b->size;
	return (wg_meta_end(s->meta, g) + 1 - g) << WEIR_GRANULE_SHIFT;
}

static uint64_t word_of(const struct weir_heap_snapshot *s, size_t g,
			size_t offset)
{
	uint64_t w;

	memcpy(&w, s->copy + (g << WEIR_GRANULE_SHIFT) + offset, sizeof(w));
	return w;
}

uint32_t wg_snap_kind_of(const struct weir_heap_snapshot *s, size_t g,
			 size_t bytes)
{
	uint32_t kind = s->meta[g] >> WEIR_META_KIND_SHIFT;

	if (kind == WG_INLINE_KINDS)
		kind = (uint32_t)word_of(s, g, bytes - 8);
	return kind < s->kind_count ? kind : WEIR_KIND_CONSERVATIVE;
}

/* The first granule of a live object in block i at g or behind it; or that of
 * the next block. */
static size_t next_in_block(const struct weir_heap_snapshot *s, uint32_t i,
			    size_t g)
{
	size_t begin = (size_t)i * WG_BLOCK_GRANULES;
	size_t end = begin + WG_BLOCK_GRANULES;

	switch (s->block[i].state) {
	case WG_SNAP_SMALL:
		return wg_meta_next(s->meta, g, end, s->colour);
	case WG_SNAP_LARGE:
		return g == begin && is_live(s, g) ? g : end;
	default:
		return end;
	}
}

bool wg_snap_next(const struct weir_heap_snapshot *s, size_t *g)
{
	for (int sp = 0; sp < 2; sp++) {
		size_t begin = (size_t)s->first[sp] * WG_BLOCK_GRANULES;
		size_t end = (size_t)s->high[sp] * WG_BLOCK_GRANULES;

		if (*g < begin)
			*g = begin;
		while (*g < end) {
			uint32_t i = (uint32_t)(*g / WG_BLOCK_GRANULES);
			size_t over = ((size_t)i + 1) * WG_BLOCK_GRANULES;

			*g = next_in_block(s, i, *g);
			if (*g < over)
				return true;
		}
	}
	return false;
}

/* ---- References ---------------------------------------------------------- */

struct words {
	const struct weir_heap_snapshot *s;
	size_t g;           /* the object */
	wg_snap_ref_fn *fn; /* whom to tell */
	void *arg;          /* its argument */
};

static bool tell_word(const struct words *w, size_t word)
{
	size_t to =
		wg_snap_resolve(w->s, word_of(w->s, w->g, word * sizeof(word)));

	return to == SIZE_MAX ||
	       w->fn(w->arg, to, WEIR_REFERENCE_WORD, (uint32_t)word);
}

static bool tell_words(const struct words *w, const struct wg_snap_kind *k,
		       size_t words)
{
	for (size_t i = 0, b = 0; i < words; i++, b++) {
		if (k->type == WG_KIND_BITMAP) {
			if (b == k->words)
				b = 0;
			if (!(k->bits[b / 64] >> (b % 64) & 1))
				continue;
		}
		if (!tell_word(w, i))
			return false;
	}
	return true;
}

bool wg_snap_refs(const struct weir_heap_snapshot *s, size_t g, size_t *link,
		  wg_snap_ref_fn *fn, void *arg)
{
	const struct wg_snap_link *e = s->links.entries;
	uintptr_t p = s->base + (g << WEIR_GRANULE_SHIFT);
	struct words w = {s, g, fn, arg};
	size_t bytes = wg_snap_bytes(s, g);
	const struct wg_snap_kind *k = &s->kinds[wg_snap_kind_of(s, g, bytes)];

	if (k->type != WG_KIND_LEAF && k->type != WG_KIND_EPHEMERON &&
	    !tell_words(&w, k, bytes / sizeof(uintptr_t)))
		return false;
	while (*link < s->links.count && e[*link].from < p)
		++*link;
	for (; *link < s->links.count && e[*link].from == p; ++*link)
		if (!fn(arg, (e[*link].to - s->base) >> WEIR_GRANULE_SHIFT,
			e[*link].kind, e[*link].word))
			return false;
	return true;
}

/* ---- The public form ----------------------------------------------------- */

static void fill_in(const struct weir_heap_snapshot *s, size_t g,
		    struct weir_heap_object *o)
{
	size_t bytes = wg_snap_bytes(s, g);
	const char *name;

	o->address = (const void *)(s->base + (g << WEIR_GRANULE_SHIFT));
	o->data = s->copy + (g << WEIR_GRANULE_SHIFT);
	o->kind = wg_snap_kind_of(s, g, bytes);
	name = s->kinds[o->kind].name;
	o->name = *name ? name : NULL;
	/* The kind's number is no part of it for the program. */
	if (s->meta[g] >> WEIR_META_KIND_SHIFT == WG_INLINE_KINDS)
		bytes -= 8;
	o->bytes = bytes;
}

int weir_heap_snapshot_each(const weir_heap_snapshot *s,
			    weir_heap_object_fn *fn, void *arg)
{
	int err = wg_snap_valid(s, __func__);

	if (err)
		return err;
	if (!fn)
		return wr_invalid(__func__, "the function is NULL");
	for (size_t g = 0; wg_snap_next(s, &g);) {
		struct weir_heap_object o;

		fill_in(s, g, &o);
		err = fn(&o, arg);
		if (err)
			return err;
		g += wg_snap_bytes(s, g) >> WEIR_GRANULE_SHIFT;
	}
	return 0;
}

int weir_heap_snapshot_object(const weir_heap_snapshot *s, const void *p,
			      struct weir_heap_object *object)
{
	int err = wg_snap_valid(s, __func__);
	size_t g;

	if (err)
		return err;
	if (!object)
		return wr_invalid(__func__, "no place for the result");
	g = wg_snap_resolve(s, (uintptr_t)p);
	if (g == SIZE_MAX)
		return wr_error(ENOENT, "%s: %p was in no object", __func__, p);
	fill_in(s, g, object);
	return 0;
}

struct public_ref {
	const struct weir_heap_snapshot *s;
	weir_heap_reference_fn *fn; /* the caller's */
	void *arg;                  /* its argument */
	int result;                 /* what that returned */
};

static bool tell_public(void *arg, size_t to, uint32_t kind, uint32_t word)
{
	struct public_ref *r = arg;

	r->result =
		r->fn((const void *)(r->s->base + (to << WEIR_GRANULE_SHIFT)),
		      (enum weir_heap_reference)kind, word, r->arg);
	return !r->result;
}

/* The first link of an object at p or behind it. */
size_t wg_snap_first_link(const struct weir_heap_snapshot *s, uintptr_t p)
{
	const struct wg_snap_link *e = s->links.entries;
	size_t low = 0, high = s->links.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (e[middle].from < p)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int weir_heap_snapshot_refs(const weir_heap_snapshot *s, const void *address,
			    weir_heap_reference_fn *fn, void *arg)
{
	struct public_ref r = {s, fn, arg, 0};
	uintptr_t p = (uintptr_t)address;
	int err = wg_snap_valid(s, __func__);
	size_t g, link;

	if (err)
		return err;
	if (!fn)
		return wr_invalid(__func__, "the function is NULL");
	g = wg_snap_resolve(s, p);
	if (g == SIZE_MAX || s->base + (g << WEIR_GRANULE_SHIFT) != p)
		return wr_error(ENOENT, "%s: no object started at %p", __func__,
				address);
	link = wg_snap_first_link(s, p);
	wg_snap_refs(s, g, &link, tell_public, &r);
	return r.result;
}

int weir_heap_snapshot_roots(const weir_heap_snapshot *s, weir_heap_root_fn *fn,
			     void *arg)
{
	int err = wg_snap_valid(s, __func__);
	const struct wg_snap_root *e;
	const struct wg_snap_source *sources;

	if (err)
		return err;
	if (!fn)
		return wr_invalid(__func__, "the function is NULL");
	e = s->roots.entries;
	sources = s->sources.entries;
	for (size_t i = 0; i < s->roots.count; i++) {
		const struct wg_snap_source *from = &sources[e[i].source];
		uintptr_t at =
			from->start
				? from->start + e[i].word * sizeof(uintptr_t)
				: 0;

		err = fn((const void *)e[i].object,
			 (enum weir_heap_root)from->kind, from->name,
			 (const void *)at, arg);
		if (err)
			return err;
	}
	return 0;
}

/* ---- Pages --------------------------------------------------------------- */

int weir_heap_snapshot_identity(const weir_heap_snapshot *s,
				struct weir_snapshot_identity *identity)
{
	int err = wg_snap_valid(s, __func__);
	struct weir_snapshot_identity all;

	if (!err)
		err = wr_sized_check(identity, __func__, "identity");
	if (err)
		return err;
	all = (struct weir_snapshot_identity){
		.kind = WEIR_SNAPSHOT_END,
		.count = 2,
		.time_ns = s->info.time_ns,
	};
	memcpy(all.id, s->id, sizeof(all.id));
	wr_sized_fill(identity, &all, sizeof(all));
	return 0;
}

int weir_heap_snapshot_region(const weir_heap_snapshot *s, size_t i,
			      struct weir_region_info *info)
{
	static const char *const name[] = {"heap: objects with references",
					   "heap: leaf objects"};
	int err = wg_snap_valid(s, __func__);
	struct weir_region_info all = {.memfd = -1};

	if (err)
		return err;
	if (i > 1)
		return wr_invalid(__func__, "region %zu of 2", i);
	err = wr_sized_check(info, __func__, "info");
	if (err)
		return err;
	all.address = (void *)(s->base + i * s->span);
	/* An empty one is a page of nothing: files have no empty regions. */
	all.bytes = (size_t)(s->high[i] - s->first[i]) << WG_BLOCK_SHIFT;
	if (!all.bytes)
		all.bytes = WG_BLOCK;
	all.limit = s->span;
	all.unit = s->page;
	all.barrier = WEIR_REGION_ASYNC;
	all.why = "a heap's";
	strcpy(all.name, name[i]);
	wr_sized_fill(info, &all, sizeof(all));
	return 0;
}

struct batch {
	weir_snapshot_sink_fn *sink; /* takes the runs */
	void *arg;                   /* its argument */
	struct weir_snapshot_run run[RUNS];
	size_t count; /* of them */
	size_t data;  /* bytes of data in them */
};

static int hand_over(struct batch *b)
{
	int err = b->count ? b->sink(b->arg, b->run, b->count) : 0;

	b->count = b->data = 0;
	return err;
}

/* One more page. */
static int add_page(struct batch *b, size_t region, uint64_t offset,
		    size_t page, const char *data)
{
	struct weir_snapshot_run *last =
		b->count ? &b->run[b->count - 1] : NULL;
	int err = 0;

	if (last && last->region == region &&
	    last->offset + last->bytes == offset && !last->data == !data &&
	    b->data + page <= BATCH) {
		last->bytes += page;
		b->data += data ? page : 0;
		return 0;
	}
	if (b->count == RUNS || b->data + page > BATCH)
		err = hand_over(b);
	b->run[b->count++] = (struct weir_snapshot_run){.region = region,
							.offset = offset,
							.bytes = page,
							.data = data};
	b->data += data ? page : 0;
	return err;
}

int weir_heap_snapshot_read(const weir_heap_snapshot *s,
			    weir_snapshot_sink_fn *sink, void *arg)
{
	struct batch b = {.sink = sink, .arg = arg};
	int err = wg_snap_valid(s, __func__);

	if (!err && !sink)
		err = wr_invalid(__func__, "the function is NULL");
	for (size_t i = 0; i < 2 && !err; i++) {
		struct weir_region_info info = {.size = sizeof(info)};
		uintptr_t start;

		err = weir_heap_snapshot_region(s, i, &info);
		start = (uintptr_t)info.address;
		for (size_t at = 0; at < info.bytes && !err; at += s->page) {
			bool have = wg_snap_bit(s->have,
						wg_snap_page_of(s, start + at));

			err = add_page(&b, i, at, s->page,
				       have ? wg_snap_at(s, start + at) : NULL);
		}
	}
	return err ? err : hand_over(&b);
}
