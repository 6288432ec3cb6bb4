/* SPDX-License-Identifier: MIT */
/*
 * Scanning: objects by kind, dirty pages, roots.
 *
 * The words of an object are read while mutators may be writing them.  Each is
 * read once, whole, with a relaxed atomic load; what it held before or will
 * hold after is the dirty page's business: the page was armed before it is
 * read here, so a later write makes it dirty and it is read again.
 */
#include "gc/mark.h"
#include "gc/weak.h"

/* ThreadSanitizer cannot know of the page table: mutators write heap words
 * with plain stores. */
#if defined(__SANITIZE_THREAD__)
#define WG_RACY __attribute__((no_sanitize("thread")))
#else
#define WG_RACY
#endif
#if defined(__SANITIZE_ADDRESS__)
/* Stacks are read whole, red zones included. */
#define WG_ROOTS __attribute__((no_sanitize("address"))) WG_RACY
#else
#define WG_ROOTS WG_RACY
#endif

static inline WG_RACY uintptr_t word_at(uintptr_t a)
{
	return *(const volatile uintptr_t *)a;
}

/* The size of the large object at g, or 0 if it is not one. */
static inline size_t large_bytes(const struct weir_heap *h, size_t g)
{
	if (wr_unlikely(!(g & (WG_BLOCK_GRANULES - 1)))) {
		const struct wg_block *b = &h->blocks[g / WG_BLOCK_GRANULES];

		if (wg_block_state(b) == WG_LARGE_HEAD)
			return __atomic_load_n(&b->size, __ATOMIC_RELAXED);
	}
	return 0;
}

size_t wg_object_bytes(const struct weir_heap *h, size_t g)
{
	size_t large = large_bytes(h, g);

	if (large)
		return large;
	return (wg_meta_end(h->meta, g) + 1 - g) << WEIR_GRANULE_SHIFT;
}

size_t wg_object_bytes_now(const struct weir_heap *h, size_t g)
{
	size_t large = large_bytes(h, g);
	size_t block_end = (g | (WG_BLOCK_GRANULES - 1)) + 1;
	size_t end;

	if (large)
		return large;
	end = wg_meta_end_within(h->meta, g, block_end);
	return end == block_end ? 0 : (end + 1 - g) << WEIR_GRANULE_SHIFT;
}

const struct wg_kind *wg_object_kind(const struct weir_heap *h, size_t g,
				     uint8_t byte, size_t bytes)
{
	uint64_t kind = byte >> WEIR_META_KIND_SHIFT;

	if (kind == WG_INLINE_KINDS)
		kind = (uint32_t)word_at(wg_granule_start(h, g) + bytes - 8);
	wr_assert(kind < __atomic_load_n(&h->kind_count, __ATOMIC_RELAXED));
	return &h->kinds[kind];
}

static WG_RACY void scan_words(struct wg_marker *m, uintptr_t at, uintptr_t end)
{
	for (; at < end; at += sizeof(uintptr_t))
		wg_push_word(m, word_at(at));
}

static void scan_bitmap(struct wg_marker *m, const struct wg_kind *k,
			uintptr_t object, uintptr_t at, uintptr_t end)
{
	size_t i = ((at - object) / sizeof(uintptr_t)) % k->words;

	for (; at < end; at += sizeof(uintptr_t)) {
		if (k->bitmap[i / 64] >> (i % 64) & 1)
			wg_push_word(m, word_at(at));
		if (++i == k->words)
			i = 0;
	}
}

/* Run the callback now or put it off to the pause. */
static void scan_traced(struct wg_marker *m, const struct wg_kind *k,
			uintptr_t object, size_t bytes)
{
	if (k->always && !m->in_pause)
		return; /* the pause finds it black (gc/always.c) */
	if (k->concurrent || m->in_pause)
		k->fn((void *)object, bytes, (struct weir_visitor *)(void *)m,
		      k->arg);
	else if (!wg_list_add(m, &m->deferred, object))
		wg_mark_defer(m, wg_granule_of(m->heap, object));
}

/* Scan [at, end) of a marked object. */
static void scan_part(struct wg_marker *m, const struct wg_kind *k,
		      uintptr_t object, size_t bytes, uintptr_t at,
		      uintptr_t end)
{
	switch (k->type) {
	case WG_KIND_CONSERVATIVE:
		scan_words(m, at, end);
		break;
	case WG_KIND_BITMAP:
		scan_bitmap(m, k, object, at, end);
		break;
	case WG_KIND_TRACE:
		scan_traced(m, k, object, bytes);
		break;
	case WG_KIND_EPHEMERON:
		wg_ephemeron_reached(m, object);
		break;
	default:
		break;
	}
}

void wg_scan_slice(struct wg_marker *m)
{
	struct wg_slice *s = &m->slice[m->slices - 1];
	struct weir_heap *h = m->heap;
	size_t g = wg_granule_of(h, s->object);
	size_t bytes = wg_object_bytes(h, g);
	const struct wg_kind *k =
		wg_object_kind(h, g, wg_meta_load(&h->meta[g]), bytes);
	uintptr_t object = s->object, at = s->at, end;

	end = at + WG_SLICE_WORDS * sizeof(uintptr_t);
	if (end >= s->end) {
		end = s->end;
		m->slices--;
	} else {
		s->at = end;
	}
	scan_part(m, k, object, bytes, at, end);
}

void wg_scan_object(struct wg_marker *m, size_t g, uint8_t byte)
{
	struct weir_heap *h = m->heap;
	size_t bytes = wg_object_bytes(h, g);
	uintptr_t p = wg_granule_start(h, g);
	uint8_t kind = byte >> WEIR_META_KIND_SHIFT;
	const struct wg_kind *k;

	m->objects++;
	m->bytes += bytes;
	if (wr_likely(kind == WEIR_KIND_CONSERVATIVE &&
		      bytes <= WG_SLICE_WORDS * sizeof(uintptr_t))) {
		scan_words(m, p, p + bytes);
		return;
	}
	if (kind == WEIR_KIND_LEAF)
		return;
	k = wg_object_kind(h, g, byte, bytes);
	if (bytes <= WG_SLICE_WORDS * sizeof(uintptr_t) ||
	    k->type == WG_KIND_TRACE) {
		scan_part(m, k, p, bytes, p, p + bytes);
		return;
	}
	if (m->slices == WG_SLICES) {
		wg_mark_overflow(m, g);
		return;
	}
	m->slice[m->slices++] =
		(struct wg_slice){.object = p, .at = p, .end = p + bytes};
}

/* One object, marked, clipped to [start, end). */
static void scan_clipped(struct wg_marker *m, size_t g, uintptr_t start,
			 uintptr_t end)
{
	struct weir_heap *h = m->heap;
	uint8_t byte = wg_meta_load(&h->meta[g]);
	size_t bytes = wg_object_bytes(h, g);
	uintptr_t p = wg_granule_start(h, g);
	const struct wg_kind *k = wg_object_kind(h, g, byte, bytes);

	if (k->type == WG_KIND_TRACE) {
		if (m->traced == p)
			return;
		m->traced = p;
	}
	scan_part(m, k, p, bytes, p > start ? p : start,
		  p + bytes < end ? p + bytes : end);
}

static void scan_marked_small(struct wg_marker *m, uint32_t i, uintptr_t start,
			      uintptr_t end)
{
	struct weir_heap *h = m->heap;
	size_t begin = (size_t)i * WG_BLOCK_GRANULES;
	size_t limit = begin + WG_BLOCK_GRANULES;
	size_t g = wg_granule_of(h, start);
	size_t stop = wg_granule_of(h, end);

	/* An object that began on an earlier page. */
	if (g > begin) {
		size_t s = wg_meta_prev(h->meta, g - 1, begin);

		if (s != SIZE_MAX && wg_is_black(h, s) &&
		    !wg_meta_ends_before(h->meta, s, g))
			scan_clipped(m, s, start, end);
	}
	while ((g = wg_meta_next(h->meta, g, limit, h->colour)) < stop) {
		/* Acquire, before the END is looked for. */
		uint8_t byte = wg_meta_load(&h->meta[g]);
		size_t last = wg_meta_end(h->meta, g);

		if (wr_likely(byte >> WEIR_META_KIND_SHIFT ==
			      WEIR_KIND_CONSERVATIVE)) {
			uintptr_t at = wg_granule_start(h, g);
			uintptr_t over = wg_granule_start(h, last + 1);

			scan_words(m, at > start ? at : start,
				   over < end ? over : end);
		} else {
			scan_clipped(m, g, start, end);
		}
		g = last + 1;
	}
}

void wg_scan_marked(struct wg_marker *m, uintptr_t start, uintptr_t end)
{
	struct weir_heap *h = m->heap;

	while (start < end) {
		uint32_t i = wg_block_of(h, start);
		struct wg_block *b = &h->blocks[i];
		uintptr_t stop = wg_block_start(h, i + 1);
		unsigned state = wg_block_state(b);

		if (state == WG_LARGE_TAIL) {
			i = __atomic_load_n(&b->head, __ATOMIC_RELAXED);
			b = &h->blocks[i];
			state = wg_block_state(b);
		}
		if (stop > end)
			stop = end;
		if (!__atomic_load_n(&h->black[i], __ATOMIC_RELAXED)) {
			/* nothing to scan */
		} else if (state == WG_LARGE_HEAD) {
			uintptr_t last =
				wg_block_start(h, i) +
				__atomic_load_n(&b->size, __ATOMIC_RELAXED);
			size_t g = (size_t)i * WG_BLOCK_GRANULES;

			if (wg_is_black(h, g) && start < last)
				scan_clipped(m, g, start,
					     stop < last ? stop : last);
		} else if (state != WG_FREE && state != WG_LARGE_NEW) {
			scan_marked_small(m, i, start, stop);
		}
		start = stop;
	}
}

WG_ROOTS void wg_scan_words(struct wg_marker *m, uintptr_t start, uintptr_t end)
{
	start = (start + sizeof(uintptr_t) - 1) & ~(sizeof(uintptr_t) - 1);
	for (; start + sizeof(uintptr_t) <= end; start += sizeof(uintptr_t))
		wg_push_word(m, *(const volatile uintptr_t *)start);
}

WG_ROOTS void wg_scan_roots(struct wg_marker *m, uintptr_t start, uintptr_t end)
{
	struct weir_heap *h = m->heap;

	start = (start + sizeof(uintptr_t) - 1) & ~(sizeof(uintptr_t) - 1);
	for (; start + sizeof(uintptr_t) <= end; start += sizeof(uintptr_t)) {
		uintptr_t w = *(const volatile uintptr_t *)start;
		struct wg_block *b;

		if (wr_likely(!wg_in_heap(h, w)))
			continue;
		b = &h->blocks[wg_block_of(h, w)];
		if (wg_block_state(b) != WG_FREE &&
		    !__atomic_load_n(&b->fresh, __ATOMIC_RELAXED))
			wg_push(m, w);
	}
}

void weir_visit(weir_visitor *v, const void *reference)
{
	if (wr_unlikely(!v)) {
		wr_invalid(__func__, "the visitor is NULL");
		return;
	}
	wg_push_word(&v->marker, (uintptr_t)reference);
}

void weir_visit_range(weir_visitor *v, const void *start, const void *end)
{
	if (wr_unlikely(!v || start > end)) {
		wr_invalid(__func__, v ? "the range ends before it starts"
				       : "the visitor is NULL");
		return;
	}
	wg_scan_words(&v->marker, (uintptr_t)start, (uintptr_t)end);
}
