/* SPDX-License-Identifier: MIT */
/*
 * The verifier: an independent marking with the world stopped.
 *
 * It shares with the collector only the finding of an object's start and end;
 * its stack, its bitmap (a bit a granule) and its walk are its own, single
 * threaded, conservative words and all.  Every object that it reaches must
 * have the cycle's colour; the first that has not ends the process with a
 * description of the object and of where the reference was found.
 *
 * Strays.  Not every word of a conservative object that looks like a reference
 * is one: a flag is written over the low byte of an old pointer, an end pointer
 * is just past an array.  If there was no object when the word was read and its
 * page is not written any more, one that is made there later is not found, and
 * need not be: whoever has a reference to it wrote it somewhere since.  So
 * markers note the granules that they found empty, until the next full cycle
 * reads all words anew, and an object that is reached through one of them is
 * passed over.  The table is a hashed one of 2^20 bits; programs have a few
 * strays, asymptote 4, so next to no real miss goes unnoticed by it.
 */
#include "gc/verify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gc/mark.h"
#include "gc/weak.h"

#define STRAY_BITS ((size_t)1 << 20)

struct stack {
	uintptr_t *e;   /* objects to scan, granule starts */
	size_t n, size; /* in use, room */
};

static const char a_field[] = "an object's field";

struct verifier {
	struct weir_heap *h;     /* the heap */
	uint64_t *seen;          /* bitmap by granule */
	size_t seen_bytes;       /* its size */
	struct stack stack;      /* reached, not scanned */
	uintptr_t holder;        /* where the reference is that is looked at */
	const char *what;        /* what the holder is */
	uint64_t objects;        /* reached */
	struct wg_marker *probe; /* collects what callbacks report */
};

int wg_verify_create(struct weir_heap *h)
{
	if (!h->opt.verify)
		return 0;
	h->stray = calloc(STRAY_BITS / 64, sizeof(*h->stray));
	return h->stray ? 0 : wr_error(ENOMEM, "verify: no memory");
}

void wg_verify_destroy(struct weir_heap *h)
{
	free(h->stray);
	h->stray = NULL;
}

static size_t stray_bit(uintptr_t p)
{
	return (p >> WEIR_GRANULE_SHIFT) * 0x9e3779b97f4a7c15ull >> 44;
}

/* Relaxed, as the load below: the verifier runs when the team's job, which set
 * them, has ended. */
void wg_verify_stray(struct weir_heap *h, uintptr_t p)
{
	size_t bit = stray_bit(p);

	__atomic_fetch_or(&h->stray[bit / 64], 1ull << (bit % 64),
			  __ATOMIC_RELAXED);
}

bool wg_verify_is_stray(const struct weir_heap *h, uintptr_t p)
{
	size_t bit = stray_bit(p);

	return h->stray &&
	       __atomic_load_n(&h->stray[bit / 64], __ATOMIC_RELAXED) >>
			       (bit % 64) &
		       1;
}

void wg_verify_forget_strays(struct weir_heap *h)
{
	if (h->stray)
		memset(h->stray, 0, STRAY_BITS / 8);
}

static void push(struct verifier *v, uintptr_t p)
{
	struct stack *s = &v->stack;

	if (s->n == s->size) {
		size_t size = s->size ? s->size * 2 : (size_t)1 << 17;
		const struct wr_sys *sys = v->h->sys;
		uintptr_t *e = sys->reserve(size * sizeof(*e), sys->page_size);

		wr_require(e && !sys->commit(e, size * sizeof(*e), false),
			   "verify: no memory for a stack of %zu objects",
			   size);
		if (s->n) {
			memcpy(e, s->e, s->n * sizeof(*e));
			sys->release(s->e, s->size * sizeof(*e));
		}
		s->e = e;
		s->size = size;
	}
	s->e[s->n++] = p;
}

static __attribute__((noreturn)) void missed(struct verifier *v, size_t g)
{
	struct weir_heap *h = v->h;
	size_t hg =
		wg_in_heap(h, v->holder) ? wg_resolve(h, v->holder) : SIZE_MAX;
	uint32_t i = (uint32_t)(g / WG_BLOCK_GRANULES);
	char from[160] = "";

	if (hg != SIZE_MAX)
		snprintf(from, sizeof(from),
			 "; its holder %#lx has colour %u, kind %u, in a block "
			 "of state %u",
			 (unsigned long)wg_granule_start(h, hg),
			 h->meta[hg] & WEIR_META_COLOUR,
			 h->meta[hg] >> WEIR_META_KIND_SHIFT,
			 h->blocks[hg / WG_BLOCK_GRANULES].state);
	wr_fatal("verify: the object at %#lx (%zu bytes, colour %u, kind %u, "
		 "block %u of state %u, young %u, fresh %u) is reachable from "
		 "%s at %#lx but was not marked (colour %u)%s",
		 (unsigned long)wg_granule_start(h, g), wg_object_bytes(h, g),
		 h->meta[g] & WEIR_META_COLOUR,
		 h->meta[g] >> WEIR_META_KIND_SHIFT, i, h->blocks[i].state,
		 h->blocks[i].young, h->blocks[i].fresh, v->what,
		 (unsigned long)v->holder, h->colour, from);
}

static void reach(struct verifier *v, uintptr_t p)
{
	struct weir_heap *h = v->h;
	size_t g;

	if (!wg_in_heap(h, p))
		return;
	g = wg_resolve(h, p);
	if (g == SIZE_MAX || (v->seen[g / 64] >> (g % 64) & 1))
		return;
	if (!wg_is_black(h, g)) {
		/* Stacks and roots the pause has read itself, with nobody
		 * allocating. */
		if (v->what == a_field && wg_verify_is_stray(h, p))
			return;
		missed(v, g);
	}
	v->seen[g / 64] |= 1ull << (g % 64);
	v->objects++;
	push(v, wg_granule_start(h, g));
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("address", "thread")))
#endif
static void
words(struct verifier *v, uintptr_t at, uintptr_t end)
{
	at = (at + sizeof(uintptr_t) - 1) & ~(sizeof(uintptr_t) - 1);
	for (; at + sizeof(uintptr_t) <= end; at += sizeof(uintptr_t)) {
		v->holder = at;
		reach(v, *(const volatile uintptr_t *)at);
	}
}

/* Run a callback of the program against a marker that only collects. */
static void collect(struct verifier *v)
{
	struct wg_marker *m = v->probe;

	wr_require(!m->lost, "verify: no memory is left for what callbacks "
			     "report; raise mark-stack-max");
	for (;;) {
		struct wg_segment *s = m->cur;

		if (!s || !s->n) {
			struct wg_segment *next = m->full;

			if (!next)
				return;
			m->full = next->next;
			if (s)
				wg_segment_put(v->h->pool, s);
			m->cur = next;
			continue;
		}
		reach(v, s->e[--s->n] - 1);
	}
}

static void scan(struct verifier *v, uintptr_t p)
{
	struct weir_heap *h = v->h;
	size_t g = wg_granule_of(h, p);
	size_t bytes = wg_object_bytes(h, g);
	const struct wg_kind *k = wg_object_kind(h, g, h->meta[g], bytes);
	uintptr_t key, value;

	v->what = a_field;
	switch (k->type) {
	case WG_KIND_CONSERVATIVE:
		words(v, p, p + bytes);
		break;
	case WG_KIND_BITMAP:
		for (size_t i = 0; i < bytes / sizeof(uintptr_t); i++) {
			size_t b = i % k->words;

			if (k->bitmap[b / 64] >> (b % 64) & 1)
				words(v, p + i * sizeof(uintptr_t),
				      p + (i + 1) * sizeof(uintptr_t));
		}
		break;
	case WG_KIND_TRACE:
		v->holder = p;
		k->fn((void *)p, bytes, (struct weir_visitor *)(void *)v->probe,
		      k->arg);
		collect(v);
		break;
	case WG_KIND_EPHEMERON:
		/* A key that is dead was cleared; one that is marked keeps
		 * the value. */
		wg_weak_ephemeron(h, p, &key, &value);
		v->holder = p;
		if (key && wg_in_heap(h, key) &&
		    wg_resolve(h, key) != SIZE_MAX &&
		    wg_is_black(h, wg_resolve(h, key)))
			reach(v, value);
		break;
	default:
		break;
	}
}

static void thread_roots(struct wr_thread *t, void *arg)
{
	struct verifier *v = arg;

	v->what = "a thread's stack";
	words(v, t->stack_sp, t->stack_base);
	v->what = "a thread's registers or its other stack";
	for (unsigned i = 0; i < sizeof(t->more) / sizeof(t->more[0]); i++)
		words(v, t->more[i].start, t->more[i].end);
}

static void range(void *arg, uintptr_t start, uintptr_t end)
{
	struct verifier *v = arg;

	v->what = "a root range";
	words(v, start, end);
}

static void call(void *arg, void (*fn)(void), void *fn_arg)
{
	struct verifier *v = arg;

	v->what = "a root callback";
	v->holder = 0;
	((weir_root_fn *)fn)((struct weir_visitor *)(void *)v->probe, fn_arg);
	collect(v);
}

static void queued(void *arg, uintptr_t p)
{
	struct verifier *v = arg;

	v->what = "the finalizer queue";
	v->holder = 0;
	reach(v, p);
}

/* Relaxed: what is committed meanwhile holds nothing yet. */
static size_t backed(const struct weir_heap *h, int space)
{
	return __atomic_load_n(&h->backed[space], __ATOMIC_RELAXED);
}

/* The part of the bitmap for committed memory: all of it is a 128th of the
 * address range, which a limit on data may not allow. */
static int commit_seen(struct verifier *v, uintptr_t start, size_t size)
{
	const struct wr_sys *sys = v->h->sys;
	size_t from = wg_granule_of(v->h, start) / 8 & ~(sys->page_size - 1);
	size_t to = wr_sys_pages(sys, wg_granule_of(v->h, start + size) / 8);

	return from < to ? sys->commit((char *)v->seen + from, to - from, false)
			 : 0;
}

void wg_verify(struct weir_heap *h, bool full)
{
	struct verifier v = {.h = h};
	const size_t probe = wr_sys_pages(h->sys, sizeof(*v.probe));

	(void)full;
	v.seen_bytes =
		wr_sys_pages(h->sys, (h->extent >> WEIR_GRANULE_SHIFT) / 8);
	v.seen = h->sys->reserve(v.seen_bytes, h->sys->page_size);
	/* Not malloc: a stopped thread may hold its lock. */
	v.probe = h->sys->reserve(probe, h->sys->page_size);
	wr_require(v.seen && v.probe &&
			   !commit_seen(&v, h->base, backed(h, 0)) &&
			   !commit_seen(&v, h->leaf_base, backed(h, 1)) &&
			   !h->sys->commit(v.probe, probe, false),
		   "verify: no memory for the bitmap: %s", weir_error_text());
	v.probe->heap = h;
	v.probe->in_pause = true;
	v.probe->collects = true;
	wr_threads_for_each(h->threads, thread_roots, &v);
	wr_roots_scan(h->roots, true, range, call, &v);
	wg_weak_roots(h, queued, &v);
	while (v.stack.n)
		scan(&v, v.stack.e[--v.stack.n]);
	if (v.stack.e)
		h->sys->release(v.stack.e, v.stack.size * sizeof(*v.stack.e));
	h->sys->release(v.seen, v.seen_bytes);
	if (v.probe->cur)
		wg_segment_put(h->pool, v.probe->cur);
	if (v.probe->spare)
		wg_segment_put(h->pool, v.probe->spare);
	h->sys->release(v.probe, probe);
}
