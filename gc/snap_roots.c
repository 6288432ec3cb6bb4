/* SPDX-License-Identifier: MIT */
/*
 * Where the roots of a snapshot were, and its weak references.
 *
 * Roots are read in the pause, in the order and the way of the verifier
 * (verify.c), when all that is alive is black: what a word leads to is noted
 * with the word's place.  Names are made when the cycle is over: to read
 * /proc/self/maps takes long.
 *
 * Weak references, links and ephemerons are read behind the pause, beside the
 * program, before the collector frees entries of dead ephemerons.  An
 * ephemeron's key and value are set once, and cleared in pauses: so they are
 * those of the moment for each proxy that was alive at it, and of no other any
 * is kept.  Weak references and links may be set or gone since.
 *
 * No malloc(): a stopped thread may hold its lock.
 *
 *   roots, links     the collector: in the pause, and behind it
 *   finish_roots     whoever waited for the snapshot
 */
#define _GNU_SOURCE
#include "gc/snap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gc/weak_tables.h"
#include "runtime/own_memory.h"

#define FIRST_ROOM 1024

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
/* Stacks are read whole, red zones included; see scan.c. */
#define ROOTS __attribute__((no_sanitize("address", "thread")))
#else
#define ROOTS
#endif

void *wg_snap_add(struct wg_snap_table *t, size_t size)
{
	if (t->count == t->room) {
		size_t n = t->room ? 2 * t->room : FIRST_ROOM;
		void *p = wr_own_grow(t->entries, t->room * size, n * size);

		if (!p)
			return NULL;
		t->entries = p;
		t->room = n;
	}
	return (char *)t->entries + t->count++ * size;
}

void wg_snap_table_free(struct wg_snap_table *t, size_t size)
{
	wr_own_free(t->entries, t->room * size);
	*t = (struct wg_snap_table){.entries = NULL};
}

static void no_memory(struct weir_heap_snapshot *s)
{
	wg_snap_fail(s, wr_error(ENOMEM, "no memory for the roots of a heap "
					 "snapshot; free some"));
}

/* ---- In the pause -------------------------------------------------------- */

struct reader {
	struct weir_heap *h;          /* the heap */
	struct weir_heap_snapshot *s; /* where to */
	uint32_t source;              /* that is read */
	uintptr_t start;              /* where that begins */
	uint32_t callbacks;           /* so far */
};

static bool begin_source(struct reader *r, enum weir_heap_root kind,
			 uint32_t id, uintptr_t start, uintptr_t end)
{
	struct wg_snap_source *source =
		wg_snap_add(&r->s->sources, sizeof(*source));

	if (!source) {
		no_memory(r->s);
		return false;
	}
	*source = (struct wg_snap_source){
		.start = start, .end = end, .kind = kind, .id = id};
	r->source = (uint32_t)r->s->sources.count - 1;
	r->start = start;
	return true;
}

/* The word `w`, found at `at`. */
static void note(struct reader *r, uintptr_t w, uintptr_t at)
{
	struct wg_snap_root *e;
	size_t g;

	if (!wg_in_heap(r->h, w))
		return;
	g = wg_resolve(r->h, w);
	if (g == SIZE_MAX || !wg_is_black(r->h, g))
		return;
	e = wg_snap_add(&r->s->roots, sizeof(*e));
	if (!e) {
		no_memory(r->s);
		return;
	}
	*e = (struct wg_snap_root){
		.object = wg_granule_start(r->h, g),
		.source = r->source,
		.word = (uint32_t)((at - r->start) / sizeof(uintptr_t))};
}

static ROOTS void words(struct reader *r, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at + sizeof(at) <= end && !r->s->err;
	     at += sizeof(at))
		note(r, *(const volatile uintptr_t *)at, at);
}

/* Where the first word is: places are counted in words from there. */
static uintptr_t first_word(uintptr_t start)
{
	return (start + sizeof(start) - 1) & ~(sizeof(start) - 1);
}

static void part(struct reader *r, enum weir_heap_root kind, uint32_t id,
		 uintptr_t start, uintptr_t end)
{
	start = first_word(start);
	if (begin_source(r, kind, id, start, end))
		words(r, start, end);
}

static void thread_roots(struct wr_thread *t, void *arg)
{
	struct reader *r = arg;
	unsigned id = wr_thread_id(t);

	part(r, WEIR_ROOT_STACK, id, t->stack_sp, t->stack_base);
	for (unsigned i = 0; i < sizeof(t->more) / sizeof(t->more[0]); i++)
		if (t->more[i].start < t->more[i].end)
			part(r, WEIR_ROOT_REGISTERS, id, t->more[i].start,
			     t->more[i].end);
}

static void range(void *arg, uintptr_t start, uintptr_t end)
{
	part(arg, WEIR_ROOT_RANGE, 0, start, end);
}

/* What a callback reported to the probe. */
static void collect(struct reader *r)
{
	struct wg_marker *m = r->s->probe;

	if (m->lost)
		no_memory(r->s);
	for (;;) {
		struct wg_segment *segment = m->cur;

		while (segment && segment->n)
			/* Candidates: bit 0 is set. */
			note(r, segment->e[--segment->n] - 1, r->start);
		if (!m->full)
			return;
		m->cur = m->full;
		m->full = m->full->next;
		if (segment)
			wg_segment_put(r->h->pool, segment);
	}
}

static void call(void *arg, void (*fn)(void), void *fn_arg)
{
	struct reader *r = arg;

	if (!begin_source(r, WEIR_ROOT_CALLBACK, ++r->callbacks, 0, 0))
		return;
	((weir_root_fn *)fn)((struct weir_visitor *)(void *)r->s->probe,
			     fn_arg);
	collect(r);
}

static void queued(void *arg, uintptr_t p)
{
	struct reader *r = arg;

	note(r, p, r->start);
}

void wg_snap_roots(struct weir_heap *h, struct weir_heap_snapshot *s)
{
	struct reader r = {.h = h, .s = s};
	struct wg_marker *m = s->probe;

	m->heap = h;
	m->in_pause = true;
	m->collects = true;
	wr_threads_for_each(h->threads, thread_roots, &r);
	wr_roots_scan(h->roots, true, range, call, &r);
	if (begin_source(&r, WEIR_ROOT_QUEUED, 0, 0, 0))
		wg_weak_roots(h, queued, &r);
	if (m->cur)
		wg_segment_put(h->pool, m->cur);
	if (m->spare)
		wg_segment_put(h->pool, m->spare);
	m->cur = m->spare = NULL;
}

/* ---- Behind it ----------------------------------------------------------- */

static void add_link(struct weir_heap_snapshot *s, uintptr_t from, uintptr_t to,
		     uint32_t kind)
{
	struct wg_snap_link *e;

	if (!to || s->err)
		return;
	e = wg_snap_add(&s->links, sizeof(*e));
	if (e)
		*e = (struct wg_snap_link){
			.from = from, .to = to, .kind = kind};
	else
		no_memory(s);
}

/* A batch of a table of watches, from entry i on; where the next begins. */
static uint32_t watches(struct weir_heap *h, struct weir_heap_snapshot *s,
			const struct wg_watches *t, uint32_t i)
{
	uint32_t end;

	wg_weak_lock(h, NULL);
	end = t->high - i > WG_WEAK_BATCH ? i + WG_WEAK_BATCH : t->high;
	for (; i < end; i++) {
		const struct wg_watch *e = wg_watch_at(t, i);
		uintptr_t to = __atomic_load_n(&e->object, __ATOMIC_RELAXED);

		if (!(e->state & WG_WATCH_LIVE))
			continue;
		if (t == &h->weak->refs)
			add_link(s, (uintptr_t)e, to, WEIR_ROOT_WEAK);
		else
			add_link(
				s,
				((const struct wg_link *)(const void *)e)->slot,
				to, WEIR_ROOT_LINK);
	}
	i = i < t->high ? i : 0;
	wg_weak_unlock(h, NULL);
	return i;
}

static uint32_t ephemerons(struct weir_heap *h, struct weir_heap_snapshot *s,
			   uint32_t i)
{
	const struct wg_ephemerons *t = &h->weak->eph;
	const struct wg_ephemeron *e =
		(const struct wg_ephemeron *)(const void *)t->entries.base;
	uint32_t high, end;

	wg_weak_lock(h, NULL);
	high = __atomic_load_n(&t->high, __ATOMIC_RELAXED);
	end = high - i > WG_WEAK_BATCH ? i + WG_WEAK_BATCH : high;
	for (; i < end; i++) {
		if (!e[i].proxy)
			continue;
		/* Numbers apart from the others until finish_roots(). */
		add_link(s, e[i].proxy,
			 __atomic_load_n(&e[i].key, __ATOMIC_RELAXED),
			 WEIR_ROOT_LINK + 1);
		add_link(s, e[i].proxy,
			 __atomic_load_n(&e[i].value, __ATOMIC_RELAXED),
			 WEIR_ROOT_LINK + 2);
	}
	i = i < high ? i : 0;
	wg_weak_unlock(h, NULL);
	return i;
}

void wg_snap_links(struct weir_heap *h, struct weir_heap_snapshot *s)
{
	for (uint32_t i = 1; i && !s->err;)
		i = watches(h, s, &h->weak->refs, i);
	for (uint32_t i = 1; i && !s->err;)
		i = watches(h, s, &h->weak->links.table, i);
	for (uint32_t i = 1; i && !s->err;)
		i = ephemerons(h, s, i);
}

/* ---- When the cycle is over ---------------------------------------------- */

/* The start of the live object that p points into, or 0. */
static uintptr_t start_of(const struct weir_heap_snapshot *s, uintptr_t p)
{
	size_t g = wg_snap_resolve(s, p);

	return g == SIZE_MAX ? 0 : s->base + (g << WEIR_GRANULE_SHIFT);
}

/* A source for weak references from outside of the heap, or SIZE_MAX. */
static size_t weak_source(struct weir_heap_snapshot *s, uint32_t kind)
{
	struct wg_snap_source *source =
		wg_snap_add(&s->sources, sizeof(*source));

	if (!source)
		return SIZE_MAX;
	*source = (struct wg_snap_source){.kind = kind};
	return s->sources.count - 1;
}

/* A link becomes a root of a weak source, or stays one of an object. */
static int settle_link(struct weir_heap_snapshot *s, struct wg_snap_link *e,
		       const size_t *source)
{
	uintptr_t to = start_of(s, e->to), from = start_of(s, e->from);
	struct wg_snap_root *root;
	uint32_t kind = e->kind;

	e->to = to;
	if (!to)
		return 0;
	if (kind > WEIR_ROOT_LINK) {
		e->kind = kind == WEIR_ROOT_LINK + 1 ? WEIR_REFERENCE_KEY
						     : WEIR_REFERENCE_VALUE;
		if (from != e->from)
			e->to = 0;
		return 0;
	}
	if (kind == WEIR_ROOT_LINK && from) {
		e->word = (uint32_t)((e->from - from) / sizeof(uintptr_t));
		e->from = from;
		e->kind = WEIR_REFERENCE_LINK;
		return 0;
	}
	/* A slot in an object that was not alive is no matter. */
	e->to = 0;
	if (kind == WEIR_ROOT_LINK && e->from - s->base < s->extent)
		return 0;
	root = wg_snap_add(&s->roots, sizeof(*root));
	if (!root)
		return -1;
	*root = (struct wg_snap_root){
		.object = to,
		.source = (uint32_t)source[kind == WEIR_ROOT_LINK]};
	return 0;
}

static int by_from(const void *a, const void *b)
{
	const struct wg_snap_link *x = a, *y = b;

	if (x->from != y->from)
		return x->from < y->from ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->word < y->word ? -1 : x->word > y->word;
}

static void name_range(struct wg_snap_source *source, const char *what)
{
	/* The end of a long path says more than its start. */
	if (strlen(what) > 60)
		what += strlen(what) - 60;
	snprintf(source->name, sizeof(source->name), "range %#lx-%#lx in %.60s",
		 (unsigned long)source->start, (unsigned long)source->end,
		 what);
}

/* What is mapped where ranges are, from the maps, once through them: there may
 * be thousands of both. */
static void name_ranges(struct weir_heap_snapshot *s)
{
	struct wg_snap_source *source = s->sources.entries;
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512], path[256];
	unsigned long start, end;

	while (maps && fgets(line, sizeof(line), maps)) {
		path[0] = 0;
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %255[^\n]", &start,
			   &end, path) < 3)
			continue;
		for (size_t i = 0; i < s->sources.count; i++)
			if (source[i].kind == WEIR_ROOT_RANGE &&
			    source[i].start >= start && source[i].start < end)
				name_range(&source[i], path);
	}
	if (maps)
		fclose(maps);
}

static void name_source(struct wg_snap_source *source)
{
	switch (source->kind) {
	case WEIR_ROOT_STACK:
		snprintf(source->name, sizeof(source->name),
			 "stack of thread %u", source->id);
		break;
	case WEIR_ROOT_REGISTERS:
		snprintf(source->name, sizeof(source->name),
			 "registers or second stack of thread %u", source->id);
		break;
	case WEIR_ROOT_RANGE:
		name_range(source, "memory");
		break;
	case WEIR_ROOT_CALLBACK:
		snprintf(source->name, sizeof(source->name), "root callback %u",
			 source->id);
		break;
	case WEIR_ROOT_QUEUED:
		strcpy(source->name, "finalizer queue");
		break;
	case WEIR_ROOT_WEAK:
		strcpy(source->name, "weak references");
		break;
	default:
		strcpy(source->name, "links");
		break;
	}
}

int wg_snap_finish_roots(struct weir_heap_snapshot *s)
{
	struct wg_snap_link *e = s->links.entries;
	size_t source[2] = {weak_source(s, WEIR_ROOT_WEAK),
			    weak_source(s, WEIR_ROOT_LINK)};
	struct wg_snap_source *all = s->sources.entries;
	size_t n = 0;

	if (source[0] == SIZE_MAX || source[1] == SIZE_MAX)
		goto none;
	for (size_t i = 0; i < s->links.count; i++) {
		if (settle_link(s, &e[i], source))
			goto none;
		if (e[i].to)
			e[n++] = e[i];
	}
	s->links.count = n;
	if (n)
		qsort(e, n, sizeof(*e), by_from);
	for (size_t i = 0; i < s->sources.count; i++)
		name_source(&all[i]);
	name_ranges(s);
	return 0;
none:
	return wr_error(ENOMEM, "no memory for the roots of a heap snapshot; "
				"free some");
}
