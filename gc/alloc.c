/* SPDX-License-Identifier: MIT */
/*
 * Allocation out of line: refilling the buffers, medium and large objects.
 *
 * A buffer is a hole: a run of free granules in a block that the mutator owns
 * (ACTIVE), zeroed a slice at a time.  Blocks are taken in this order: the one
 * owned; swept blocks with holes, or unswept ones which the mutator sweeps
 * itself; free blocks; and if a limit is in the way, after a collection.
 *
 * A medium object that no hole at hand can hold goes to a second buffer, which
 * only takes whole free blocks, so that one such object does not make the
 * mutator give up a block full of small holes.
 *
 * Everything here runs CRITICAL (a stop is put off) but for the waits and the
 * zeroing of large objects.
 */
#include "gc/heap.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "gc/always.h"
#include "gc/locked.h"
#include "gc/mutant.h"
#include "gc/room.h"
#include "gc/weak.h"

static void critical_enter(struct weir_mutator *m)
{
	__atomic_store_n(&m->b.critical, 1, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
}

static void critical_leave(struct weir_mutator *m)
{
	WEIR_COMPILER_BARRIER();
	__atomic_store_n(&m->b.critical, 0, __ATOMIC_RELAXED);
	WEIR_COMPILER_BARRIER();
	if (wr_unlikely(__atomic_load_n(&m->b.pending, __ATOMIC_RELAXED))) {
		wg_delay_rarely(m->heap);
		wr_thread_poll(&m->thread);
	}
}

/* Publish the object [p, p + n), n a multiple of the granule. */
static void publish(struct weir_mutator *m, char *p, size_t n, weir_kind kind)
{
	uint8_t *meta = m->heap->meta + wg_granule_of(m->heap, (uintptr_t)p);
	size_t last = (n >> WEIR_GRANULE_SHIFT) - 1;

	if (kind >= WG_INLINE_KINDS) {
		/* The kind's number is in the object's last word. */
		*(uint64_t *)(void *)(p + n - 8) = kind;
		kind = WG_INLINE_KINDS;
	}
	__atomic_store_n(&meta[last], (uint8_t)WEIR_META_END, __ATOMIC_RELAXED);
	__atomic_store_n(&meta[0],
			 (uint8_t)(m->b.newborn | kind << WEIR_META_KIND_SHIFT |
				   (last ? 0 : WEIR_META_END)),
			 __ATOMIC_RELEASE);
	WEIR_PUBLISH_BARRIER();
}

/* Hand over what was taken; start a cycle when it is time. */
static void account(struct weir_mutator *m)
{
	struct weir_heap *h = m->heap;
	uint64_t total =
		__atomic_add_fetch(&h->allocated, m->handed, __ATOMIC_RELAXED);

	m->handed = 0;
	if (total >= __atomic_load_n(&h->trigger, __ATOMIC_RELAXED))
		wg_cycle_request(h, 0);
}

/* Find a hole of at least `need` granules in the owned block and make its
 * first slice the buffer. */
static bool next_hole(struct weir_mutator *m, struct wg_bump *bump,
		      char **cursor, char **limit, size_t need)
{
	struct weir_heap *h = m->heap;
	struct wg_block *b = &h->blocks[bump->block];
	size_t g = bump->next;
	size_t end = ((size_t)bump->block + 1) * WG_BLOCK_GRANULES;
	uintptr_t start;
	size_t size;

	if (need < WG_MIN_HOLE)
		need = WG_MIN_HOLE;
	while (g < end) {
		size_t stop;

		/* Relaxed: partners are markers, which change the colour of
		 * a START but make no byte zero or not zero. */
		if (__atomic_load_n(&h->meta[g], __ATOMIC_RELAXED)) {
			g = wg_meta_end(h->meta, g) + 1;
			continue;
		}
		stop = wg_meta_nonzero(h->meta, g, end);
		if (stop - g < need) {
			g = stop;
			continue;
		}
		start = wg_granule_start(h, g);
		size = (stop - g) << WEIR_GRANULE_SHIFT;
		if (g >= bump->bare &&
		    __atomic_load_n(&b->armed, __ATOMIC_RELAXED)) {
			wg_delay_rarely(h);
			wg_forget(h, start, size);
			wg_delay_rarely(h);
			bump->bare = stop;
		}
		/* The rest of the hole is found again from `next`. */
		if (size > WG_SLICE && (need << WEIR_GRANULE_SHIFT) <= WG_SLICE)
			size = WG_SLICE;
		if (!b->zeroed)
			memset((void *)start, 0, size);
		*cursor = (char *)start;
		*limit = (char *)start + size;
		bump->next = g + (size >> WEIR_GRANULE_SHIFT);
		m->handed += size;
		return true;
	}
	return false;
}

static void own(struct weir_mutator *m, struct wg_bump *bump, uint32_t i,
		bool fresh)
{
	struct weir_heap *h = m->heap;
	struct wg_block *b = &h->blocks[i];

	wg_delay_rarely(h);
	/* Of blocks that it has already, the handshake that changes its colour
	 * makes the note (rootscan.c). */
	if (m->b.newborn != WG_YOUNG)
		wg_note_black(h, (size_t)i * WG_BLOCK_GRANULES);

	__atomic_store_n(&b->young, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
	__atomic_store_n(&b->fresh, fresh, __ATOMIC_RELAXED);
	bump->block = i;
	bump->next = bump->bare = (size_t)i * WG_BLOCK_GRANULES;
}

/* Own block i if it has holes, one of them of `need` granules, sweeping it if
 * need be; *work grows by what that cost. */
static bool recycle_one(struct weir_mutator *m, struct wg_bump *bump,
			uint32_t i, size_t need, unsigned *work)
{
	struct weir_heap *h = m->heap;
	struct wg_block *b = &h->blocks[i];

	*work += 1;
	if (wg_sweep_claim(h, i)) {
		wg_sweep_block(h, i);
		*work += WG_SWEEP_WORK;
	} else if (wg_block_state(b) == WG_RECYCLABLE &&
		   wg_block_unswept(h, b)) {
		return false; /* somebody else is at it */
	}
	/* A recyclable block that is claimed here was swept, or this sweep
	 * leaves it alone. */
	if (wg_block_state(b) != WG_RECYCLABLE ||
	    __atomic_load_n(&b->hole, __ATOMIC_RELAXED) < need ||
	    !wg_block_claim(b, WG_RECYCLABLE, WG_ACTIVE))
		return false;
	b->zeroed = 0;
	own(m, bump, i, false);
	if (__atomic_load_n(&b->armed, __ATOMIC_RELAXED)) {
		/* Holes a page apart are written one after the other: one call
		 * for all of them. */
		wg_delay_rarely(h);
		wg_forget_holes(h, i);
		wg_delay_rarely(h);
		bump->bare = ((size_t)i + 1) * WG_BLOCK_GRANULES;
	}
	return true;
}

/* A block that a thread left behind when it ended. */
static bool recycle_left(struct weir_mutator *m, struct wg_space *s,
			 struct wg_bump *bump)
{
	unsigned work = 0;

	for (unsigned k = 0; k < WG_LEFT; k++) {
		uint32_t i = __atomic_load_n(&s->left[k], __ATOMIC_RELAXED);

		if (i) {
			i = __atomic_exchange_n(&s->left[k], 0,
						__ATOMIC_RELAXED);
			if (i && recycle_one(m, bump, i, 0, &work))
				return true;
		}
	}
	return false;
}

/* Own a block with holes that exists already.  All of it is CRITICAL, and in a
 * dense heap holes are far between: not more work than `most`. */
static bool recycle(struct weir_mutator *m, unsigned space,
		    struct wg_bump *bump, unsigned most)
{
	struct weir_heap *h = m->heap;
	struct wg_space *s = &h->space[space];
	unsigned work = 0;

	if (recycle_left(m, s, bump))
		return true;
	while (work < most) {
		uint32_t i = __atomic_load_n(&s->cursor, __ATOMIC_RELAXED);

		if (i >= wg_high(s))
			return false;
		i = __atomic_fetch_add(&s->cursor, 1, __ATOMIC_RELAXED);
		if (i >= wg_high(s))
			return false;
		if (recycle_one(m, bump, i, 0, &work))
			return true;
	}
	return false;
}

/* A whole block will be written: take its protection off at once.  If the
 * collector is arming it just now its pages may end up armed, and fault. */
static void unarm(struct weir_heap *h, uint32_t i)
{
	struct wg_block *b = &h->blocks[i];

	if (!__atomic_load_n(&b->armed, __ATOMIC_RELAXED))
		return;
	wg_delay_rarely(h);
	wr_barrier_forget(h->barrier, (void *)wg_block_start(h, i), WG_BLOCK);
	wg_delay_rarely(h);
	__atomic_store_n(&b->armed, 0, __ATOMIC_RELAXED);
}

static bool take_free(struct weir_mutator *m, unsigned space,
		      struct wg_bump *bump, enum wg_no *why)
{
	struct weir_heap *h = m->heap;
	uint32_t i = wg_block_take(h, space, m->stale_ok, why);

	if (!i)
		return false;
	if (h->opt.thp && h->blocks[i].zeroed)
		m->untouched = i;
	unarm(h, i);
	own(m, bump, i,
	    m->b.newborn != WG_YOUNG ||
		    (wg_mutant(WG_MUTANT_BORN_WHITE) &&
		     __atomic_load_n(&h->newborn, __ATOMIC_RELAXED) !=
			     WG_YOUNG));
	return true;
}

static void disown(struct weir_mutator *m, struct wg_bump *bump, char **cursor,
		   char **limit)
{
	m->handed -= (uint64_t)(*limit - *cursor);
	*cursor = *limit = NULL;
	if (bump->block) {
		/* The block is not free, so zeroed says nothing more. */
		m->heap->blocks[bump->block].zeroed = 0;
		wg_block_set(&m->heap->blocks[bump->block], WG_USED);
		bump->block = 0;
	}
}

/* For recycle(): about 50 us, but above the soft limit whatever it takes. */
static unsigned search_limit(const struct weir_heap *h)
{
	size_t soft = wg_soft(h);

	if (soft && __atomic_load_n(&h->used, __ATOMIC_RELAXED) >= soft)
		return UINT_MAX;
	return 64 * WG_SWEEP_WORK;
}

/* Make the main buffer of `space` hold `size` bytes, or say why not. */
static bool refill(struct weir_mutator *m, unsigned space, size_t size,
		   enum wg_no *why)
{
	struct wg_bump *bump = &m->bump[space];
	char **cursor = &m->b.buffer[space].cursor;
	char **limit = &m->b.buffer[space].limit;
	size_t need = size >> WEIR_GRANULE_SHIFT;

	m->handed -= (uint64_t)(*limit - *cursor);
	*cursor = *limit = NULL;
	for (;;) {
		if (bump->block && next_hole(m, bump, cursor, limit, need))
			return true;
		disown(m, bump, cursor, limit);
		account(m);
		if (!recycle(m, space, bump, search_limit(m->heap)) &&
		    !take_free(m, space, bump, why) &&
		    !recycle(m, space, bump, UINT_MAX))
			return false;
	}
}

/* A recyclable block with a hole of `need` granules, passing over others
 * without using them up: small objects will come to them. */
static bool recycle_wide(struct weir_mutator *m, unsigned space,
			 struct wg_bump *bump, size_t need)
{
	struct weir_heap *h = m->heap;
	struct wg_space *s = &h->space[space];
	unsigned work = 0;

	for (int tries = 0; tries < 64; tries++) {
		uint32_t i = __atomic_fetch_add(&s->wide, 1, __ATOMIC_RELAXED);

		if (i >= wg_high(s)) {
			__atomic_store_n(&s->wide, wg_high(s),
					 __ATOMIC_RELAXED);
			return false;
		}
		if (recycle_one(m, bump, i, need, &work))
			return true;
	}
	return false;
}

/* The same for the buffer of medium objects. */
static bool refill_wide(struct weir_mutator *m, unsigned space, size_t size,
			enum wg_no *why)
{
	struct wg_bump *bump = &m->wide[space];
	char **cursor = &m->wide_buffer[space].cursor;
	char **limit = &m->wide_buffer[space].limit;
	size_t need = size >> WEIR_GRANULE_SHIFT;

	m->handed -= (uint64_t)(*limit - *cursor);
	*cursor = *limit = NULL;
	for (;;) {
		if (bump->block && next_hole(m, bump, cursor, limit, need))
			return true;
		disown(m, bump, cursor, limit);
		account(m);
		if (!recycle_wide(m, space, bump, need) &&
		    !take_free(m, space, bump, why))
			return false;
	}
}

/* p in the buffer such that p is aligned and p + n fits, or NULL. */
static char *bump_aligned(char **cursor, char *limit, size_t n, size_t align)
{
	uintptr_t p = ((uintptr_t)*cursor + align - 1) & ~(align - 1);

	if (!*cursor || p > (uintptr_t)limit || (uintptr_t)limit - p < n)
		return NULL;
	*cursor = (char *)(p + n);
	return (char *)p;
}

static char *small_alloc(struct weir_mutator *m, unsigned space, size_t n,
			 size_t align, enum wg_no *why)
{
	size_t room = n + (align > WEIR_GRANULE ? align : 0);
	bool wide = room > WEIR_SMALL_MAX;
	char *p;

	p = bump_aligned(&m->b.buffer[space].cursor, m->b.buffer[space].limit,
			 n, align);
	if (!p && wide)
		p = bump_aligned(&m->wide_buffer[space].cursor,
				 m->wide_buffer[space].limit, n, align);
	if (p)
		return p;
	if (!(wide ? refill_wide : refill)(m, space, room, why))
		return NULL;
	if (m->untouched) {
		*why = WG_NO_PAGES;
		return NULL;
	}
	if (wide)
		return bump_aligned(&m->wide_buffer[space].cursor,
				    m->wide_buffer[space].limit, n, align);
	return bump_aligned(&m->b.buffer[space].cursor,
			    m->b.buffer[space].limit, n, align);
}

/* The memory of a large object, its head LARGE_NEW. */
static char *large_alloc(struct weir_mutator *m, unsigned space, size_t n,
			 size_t align, enum wg_no *why)
{
	struct weir_heap *h = m->heap;
	uint32_t i, count;
	struct wg_block *b;
	uintptr_t p;

	i = wg_run_take(h, space, n, align, m->stale_ok, why);
	if (!i)
		return NULL;
	b = &h->blocks[i];
	count = b->blocks;
	p = wg_block_start(h, i);
	m->handed += n;
	account(m);
	/* Zeroing may take long: let the thread be stopped.  The run is
	 * LARGE_NEW meanwhile, which nobody marks or sweeps. */
	critical_leave(m);
	for (uint32_t k = i; k < i + count; k++) {
		size_t part = n - ((size_t)(k - i) << WG_BLOCK_SHIFT);

		if (part > WG_BLOCK)
			part = WG_BLOCK;
		unarm(h, k);
		if (h->blocks[k].zeroed && h->opt.thp &&
		    (k == i ||
		     (count <= WG_HUGE_BLOCKS && k % WG_HUGE_BLOCKS == 0))) {
			m->untouched = k;
			wg_room_touch(m);
		}
		if (!h->blocks[k].zeroed)
			memset((void *)wg_block_start(h, k), 0, part);
		h->blocks[k].zeroed = 0;
	}
	critical_enter(m);
	return (char *)p;
}

static void publish_large(struct weir_mutator *m, char *at, size_t n,
			  weir_kind kind)
{
	struct weir_heap *h = m->heap;
	uintptr_t p = (uintptr_t)at;
	struct wg_block *b = &h->blocks[wg_block_of(h, p)];

	if (kind >= WG_INLINE_KINDS) {
		*(uint64_t *)(p + n - 8) = kind;
		kind = WG_INLINE_KINDS;
	}
	__atomic_store_n(&b->young, 1, __ATOMIC_RELAXED);
	/* Not for the sweep under way, which began before the object did. */
	__atomic_store_n(&b->seq, h->sweep_seq, __ATOMIC_RELAXED);
	if (m->b.newborn != WG_YOUNG)
		wg_note_black(h, wg_granule_of(h, p));
	/* The state first: who finds the START through an old word that looks
	 * like a reference takes the size from the block, not from an END. */
	wg_block_set(b, WG_LARGE_HEAD);
	wg_delay_rarely(h);
	__atomic_store_n(&h->meta[wg_granule_of(h, p)],
			 (uint8_t)(m->b.newborn | kind << WEIR_META_KIND_SHIFT),
			 __ATOMIC_RELEASE);
	WEIR_PUBLISH_BARRIER();
}

/* Publish [p, p + n) as an object of a kind that was made; false: there is no
 * memory for the note that it needs, it was given up. */
static bool publish_any(struct weir_mutator *m, char *p, size_t n,
			weir_kind kind, bool large)
{
	struct weir_heap *h = m->heap;
	const struct wg_kind *k =
		kind >= WG_INLINE_KINDS ? &h->kinds[kind] : NULL;
	bool always = k && k->always, disclaim = k && k->disclaim;
	uint32_t i = wg_block_of(h, (uintptr_t)p);

	if (always && !wg_always_begin(h, p))
		goto no_note;
	if (disclaim && !wg_disclaim_begin(h, p, k)) {
		if (always)
			wg_always_undo(h);
		goto no_note;
	}
	if (large)
		publish_large(m, p, n, kind);
	else
		publish(m, p, n, kind);
	if (disclaim)
		wg_disclaim_end(h);
	if (always)
		wg_always_end(h);
	return true;
no_note:
	/* Of a small one the next sweep finds the granules free. */
	if (large)
		wg_blocks_free(h, i, h->blocks[i].blocks);
	return false;
}

static void *alloc_slow(struct weir_mutator *m, size_t size, size_t align,
			weir_kind kind, const char *function)
{
	struct weir_heap *h = m->heap;
	unsigned space = kind == WEIR_KIND_LEAF;
	size_t n = (size ? size : 1);
	bool large, noted;
	char *p;

	if (wr_unlikely(wg_locked_check(function)))
		return NULL;
	if (!wg_kind_made(h, kind)) {
		wr_invalid(function, "kind %u was never created", kind);
		return NULL;
	}
	if (n > h->span || n + align > h->span) {
		wr_error(ENOMEM,
			 "%s: %zu bytes are more than the heap can ever hold; "
			 "raise heap-max",
			 function, size);
		errno = ENOMEM;
		return NULL;
	}
	if (kind >= WG_INLINE_KINDS)
		n += 8;
	n = (n + WEIR_GRANULE - 1) & ~(size_t)(WEIR_GRANULE - 1);
	large = n + (align > WEIR_GRANULE ? align : 0) > WG_MEDIUM_MAX;
	if (wr_unlikely(__atomic_load_n(&h->allocated, __ATOMIC_RELAXED) >=
			__atomic_load_n(&h->assist_at, __ATOMIC_RELAXED)) &&
	    !wg_disabled(h))
		wg_room_assist(m, size);
	for (int attempt = 0;;) {
		enum wg_no why;

		critical_enter(m);
		p = large ? large_alloc(m, space, n, align, &why)
			  : small_alloc(m, space, n, align, &why);
		noted = !p || publish_any(m, p, n, kind, large);
		critical_leave(m);
		if (wr_unlikely(!noted))
			return wg_room_no_note(h, function);
		if (p) {
			m->stale_ok = false;
			return p;
		}
		if (why == WG_NO_PAGES) {
			wg_room_touch(m);
			continue;
		}
		m->stale_ok =
			why == WG_NO_STALE && !wg_room_give_back(m, space, n);
		if (why == WG_NO_STALE)
			continue;
		if (wr_unlikely(wg_large_bytes(h, n) > wg_hard(h))) {
			/* No cycle would help, a higher limit would. */
			if (!wg_room_ask(m, size) ||
			    wg_large_bytes(h, n) > wg_hard(h))
				return wg_room_none(h, size, n, why, function);
			attempt = 0;
		} else if (!wg_room_make(m, size, attempt++)) {
			return wg_room_none(h, size, n, why, function);
		}
	}
}

void *wg_alloc(struct weir_mutator *m, size_t size, weir_kind kind,
	       const char *function)
{
	return alloc_slow(m, size, WEIR_GRANULE, kind, function);
}

/* Ephemeron proxies are not the program's to make. */
static bool kind_ok(weir_kind kind, const char *function)
{
	if (wr_likely(kind != WG_EPHEMERON))
		return true;
	wr_invalid(function, "kind %u was never created", kind);
	return false;
}

void *weir_alloc_kind(weir_mutator *m, size_t size, weir_kind kind)
{
	if (!wg_mutator_ok(m, __func__) || !kind_ok(kind, __func__))
		return NULL;
	return alloc_slow(m, size, WEIR_GRANULE, kind, __func__);
}

static void *slow(weir_mutator *m, size_t size, weir_kind kind)
{
	return alloc_slow(m, size, WEIR_GRANULE, kind, "weir_alloc");
}

void *weir_alloc(weir_mutator *m, size_t size)
{
	if (!wg_mutator_ok(m, __func__))
		return NULL;
	return weir_alloc_inline_or(m, size, WEIR_KIND_CONSERVATIVE, slow);
}

static void *slow_leaf(weir_mutator *m, size_t size, weir_kind kind)
{
	return alloc_slow(m, size, WEIR_GRANULE, kind, "weir_alloc_leaf");
}

void *weir_alloc_leaf(weir_mutator *m, size_t size)
{
	if (!wg_mutator_ok(m, __func__))
		return NULL;
	return weir_alloc_inline_or(m, size, WEIR_KIND_LEAF, slow_leaf);
}

void *weir_alloc_aligned(weir_mutator *m, size_t size, size_t alignment,
			 weir_kind kind)
{
	if (!wg_mutator_ok(m, __func__) || !kind_ok(kind, __func__))
		return NULL;
	if (!alignment || (alignment & (alignment - 1)) ||
	    alignment > (size_t)1 << 30) {
		wr_invalid(__func__,
			   "alignment %zu is not a power of two up to 2^30",
			   alignment);
		return NULL;
	}
	return alloc_slow(m, size,
			  alignment < WEIR_GRANULE ? WEIR_GRANULE : alignment,
			  kind, __func__);
}
