/* SPDX-License-Identifier: MIT */
/*
 * Nodes: objects that can tell whether they are still themselves.
 *
 * A node has a number, its shape, a sum over both, and reference fields, each
 * of two words: the pointer and what it must point to (WANT).  Whoever follows
 * a reference compares; an object that was freed too early shows by a number
 * or a sum that is wrong (poison, zero, another object).  Behind the fields
 * are contents that follow from a seed; words of a large node that are on
 * pages it does not write must be zero.
 *
 * Fields of N_TRACE and N_DEFER hold the complement of the pointer, so that
 * only the callback can find the target.
 */
#include <errno.h>
#include <string.h>

#include "tests/torture/torture.h"

enum {
	PER_KIND = 3,    /* kinds of the library for one of ours */
	FILLERS = 40,    /* so that some kinds have large numbers */
	RECORD = 64,     /* bytes a record of N_BITMAP */
	WIDE = 96 * 8,   /* and of N_WIDE */
	WIDE_EDGES = 45, /* fields in the first record of N_WIDE */
	SMALL = 4096,    /* up to here contents are written in full */
};

static weir_kind kinds[N_KINDS][PER_KIND];
static uint64_t last_id;

struct edge {
	uintptr_t p;   /* pointer, as the kind wants it, or 0 */
	uint64_t want; /* WANT() or 0 */
};

static struct edge *edge_at(const struct node *p, unsigned i)
{
	return (struct edge *)((uintptr_t)(p + 1) + (size_t)i * p->stride);
}

static uintptr_t encode(const struct node *p, uintptr_t target)
{
	return p->kind == N_TRACE || p->kind == N_DEFER ? ~target : target;
}

/* The object may be half initialized, and its owner may be writing it. */
static void trace(void *object, size_t size, weir_visitor *visitor, void *arg)
{
	struct node *p = object;
	unsigned n = __atomic_load_n(&p->edges, __ATOMIC_ACQUIRE);
	struct edge *e;

	(void)arg;
	for (unsigned i = 0; i < n; i++) {
		uintptr_t target;

		e = edge_at(p, i);
		if ((uintptr_t)(e + 1) > (uintptr_t)object + size)
			break;
		target = __atomic_load_n(&e->p, __ATOMIC_RELAXED);
		if (target)
			weir_visit(visitor, (void *)~target);
	}
}

static void need(int err, const char *what)
{
	if (err)
		fail(NULL, "%s: error %d, %s", what, -err, weir_error_text());
}

void nodes_init(void)
{
	uint64_t record[1] = {1u << 5};
	uint64_t wide[2] = {0, 0};

	for (unsigned i = 0; i < WIDE_EDGES; i++)
		wide[(5 + 2 * i) / 64] |= 1ull << ((5 + 2 * i) % 64);
	for (unsigned v = 0; v < PER_KIND; v++) {
		kinds[N_CONS][v] = WEIR_KIND_CONSERVATIVE;
		kinds[N_LEAF][v] = WEIR_KIND_LEAF;
		need(weir_kind_bitmap(heap, record, 8, &kinds[N_BITMAP][v]),
		     "weir_kind_bitmap");
		need(weir_kind_bitmap(heap, wide, 96, &kinds[N_WIDE][v]),
		     "weir_kind_bitmap");
		need(weir_kind_trace(heap, trace, NULL, WEIR_TRACE_CONCURRENT,
				     &kinds[N_TRACE][v]),
		     "weir_kind_trace");
		need(weir_kind_trace(heap, trace, NULL, 0, &kinds[N_DEFER][v]),
		     "weir_kind_trace");
		for (unsigned i = 0; i < FILLERS / PER_KIND; i++) {
			weir_kind k;

			need(weir_kind_bitmap(heap, record, 8, &k),
			     "weir_kind_bitmap");
		}
	}
}

static uint64_t node_sum(const struct node *p)
{
	return mix(p->id ^
		   mix((uint64_t)p->size << 32 | (uint64_t)p->kind << 16 |
		       p->edges) ^
		   mix(~((uint64_t)p->stride << 32 | p->tail))) |
	       1ull << 63;
}

uint64_t node_word(uint64_t seed, size_t index)
{
	/* Never an address. */
	return mix(seed + index) | 1ull << 63;
}

/* Whether word i of the contents is written at all. */
static bool written(const struct node *p, size_t i)
{
	return p->size <= SMALL || (mix(p->seed ^ i / 512) & 3) == 0;
}

static uint64_t *tail_of(const struct node *p, size_t *words)
{
	*words = (p->size - p->tail) / sizeof(uint64_t);
	return (uint64_t *)((uintptr_t)p + p->tail);
}

/* Contents go from one state that is expected to another. */
void node_fill(struct node *p, uint64_t seed)
{
	size_t words;
	uint64_t *tail = tail_of(p, &words);

	if (p->size > SMALL) {
		/* Pages of the old seed become zero again. */
		for (size_t i = 0; i < words; i += 512)
			if (p->seed && written(p, i))
				memset(tail + i, 0,
				       (words - i < 512 ? words - i : 512) * 8);
	}
	p->seed = seed;
	for (size_t i = 0; i < words; i += 512) {
		size_t end = i + 512 < words ? i + 512 : words;

		if (written(p, i))
			for (size_t k = i; k < end; k++)
				tail[k] = node_word(seed, k);
	}
}

void node_contents(struct worker *w, const struct node *p)
{
	size_t words, step = 1;
	const uint64_t *tail = tail_of(p, &words);

	if (words > 64)
		step = 1 + below(w, words / 16);
	for (size_t i = 0; i < words; i += step) {
		uint64_t must = written(p, i) ? node_word(p->seed, i) : 0;

		if (tail[i] != must)
			fail(w,
			     "checksum: word %zu of the contents of node %#llx "
			     "at %p (kind %u, %u bytes) is %#llx, not %#llx",
			     i, (unsigned long long)p->id, (const void *)p,
			     p->kind, p->size, (unsigned long long)tail[i],
			     (unsigned long long)must);
	}
	w->n.checks++;
}

void node_check(struct worker *w, const struct node *p, uint64_t id,
		const char *how)
{
	w->n.checks++;
	if (__builtin_expect(p->id == id && p->sum == node_sum(p), 1))
		return;
	fail(w,
	     "checksum: %s, %p should be node %#llx but holds %016llx %016llx "
	     "%016llx %016llx %016llx (sum %s)",
	     how, (const void *)p, (unsigned long long)id,
	     (unsigned long long)p->id,
	     (unsigned long long)((const uint64_t *)(const void *)p)[1],
	     (unsigned long long)((const uint64_t *)(const void *)p)[2],
	     (unsigned long long)p->seed, (unsigned long long)p->sum,
	     p->sum == node_sum(p) ? "right" : "wrong");
}

/* All of a small object, samples of another. */
static void must_be_zero(struct worker *w, const uint64_t *p, size_t words)
{
	size_t step = words > 256 ? 1 + below(w, words / 8) : 1;

	for (size_t i = 0; i < words; i += step)
		if (p[i])
			fail(w,
			     "checksum: word %zu of the new object at %p (%zu "
			     "words) is %#llx, not zero",
			     i, (const void *)p, words,
			     (unsigned long long)p[i]);
}

static void *allocate(struct worker *w, enum node_kind kind, size_t size)
{
	weir_kind k = kinds[kind][below(w, PER_KIND)];
	size_t align = WEIR_GRANULE;
	void *p;

	if (cfg.on[F_aligned] && one_in(w, 16)) {
		align = (size_t)1 << below(w, one_in(w, 16) ? 18 : 9);
		p = weir_alloc_aligned(w->m, size, align, k);
	} else if (kind == N_CONS && one_in(w, 4)) {
		p = weir_alloc(w->m, size);
	} else if (kind == N_LEAF && one_in(w, 4)) {
		p = weir_alloc_leaf(w->m, size);
	} else if (one_in(w, 4)) {
		p = weir_alloc_kind(w->m, size, k);
	} else {
		p = weir_alloc_inline(w->m, size, k);
	}
	if (!p) {
		if (errno != ENOMEM)
			fail(w, "allocation of %zu bytes: errno %d, %s", size,
			     errno, weir_error_text());
		w->n.no_memory++;
		return NULL;
	}
	if ((uintptr_t)p & (align - 1) || (uintptr_t)p & (WEIR_GRANULE - 1))
		fail(w, "%p is not aligned to %zu", p, align);
	if (one_in(w, 64) &&
	    (weir_object_base(heap, (char *)p + size - 1) != p ||
	     weir_object_size(heap, p) < size))
		fail(w, "object at %p, %zu bytes: base %p, size %zu", p, size,
		     weir_object_base(heap, (char *)p + size - 1),
		     weir_object_size(heap, p));
	must_be_zero(w, p, size / sizeof(uint64_t));
	return p;
}

struct node *node_new(struct worker *w, enum node_kind kind, size_t size,
		      unsigned edges)
{
	struct node *p;
	size_t stride = sizeof(struct edge), tail, least;

	if (kind == N_LEAF)
		edges = 0;
	if (kind == N_BITMAP)
		stride = RECORD;
	if (kind == N_WIDE && edges > WIDE_EDGES)
		stride = WIDE;
	least = sizeof(*p) + (edges ? (edges - 1) * stride + 16 : 0);
	if (size < least)
		size = least;
	size = (size + 7) & ~(size_t)7;
	/* Spread the fields of big nodes over their pages. */
	if (kind != N_BITMAP && kind != N_WIDE && edges > 1 && size > SMALL &&
	    one_in(w, 2)) {
		stride = (size - sizeof(*p) - 16) / (edges - 1) & ~(size_t)7;
		least = sizeof(*p) + (edges - 1) * stride + 16;
	}
	/* In the other kinds' records the words between the fields are
	 * nobody's; contents come behind. */
	tail = edges ? least : sizeof(*p);
	p = allocate(w, kind, size);
	if (!p)
		return NULL;
	p->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
	if (in_child)
		p->id |= 1ull << 39;
	p->size = (uint32_t)size;
	p->kind = (uint16_t)kind;
	p->stride = (uint32_t)stride;
	p->tail = (uint32_t)tail;
	/* Pairs with the load in trace(). */
	__atomic_store_n(&p->edges, (uint16_t)edges, __ATOMIC_RELEASE);
	p->sum = node_sum(p);
	node_fill(p, rnd(w));
	w->n.nodes++;
	return p;
}

struct node *node_random(struct worker *w, unsigned edges, bool big)
{
	enum node_kind kind = N_CONS;
	size_t size = 0;

	if (cfg.on[F_leaf] && !edges && one_in(w, 4))
		kind = N_LEAF;
	else if (cfg.on[F_bitmap] && one_in(w, 3))
		kind = one_in(w, 4) ? N_WIDE : N_BITMAP;
	else if (cfg.on[F_trace] && one_in(w, 6))
		kind = N_TRACE;
	else if (cfg.on[F_defer] && one_in(w, 30))
		kind = N_DEFER;
	if (!edges)
		edges = (unsigned)below(w, 5);
	if (big) {
		size = ((size_t)100 << 10) << below(w, 7);
		if (size > (size_t)6 << 20)
			size = (size_t)6 << 20;
		size += below(w, size / 4);
		edges += (unsigned)below(w, 32);
	} else if (one_in(w, 64)) {
		size = below(w, 60000);
	} else if (one_in(w, 8)) {
		size = below(w, 3000);
	} else {
		size = below(w, 200);
	}
	return node_new(w, kind, size, edges);
}

/* ---- Fields ------------------------------------------------------------- */

size_t random_offset(struct worker *w, const struct node *to)
{
	if (!cfg.on[F_interior] || one_in(w, 2))
		return 0;
	return below(w, to->size);
}

void edge_set(struct node *p, unsigned i, struct node *to, size_t offset)
{
	struct edge *e = edge_at(p, i);

	e->want = WANT(to->id, offset);
	__atomic_store_n(&e->p, encode(p, (uintptr_t)to + offset),
			 __ATOMIC_RELAXED);
}

void edge_clear(struct node *p, unsigned i)
{
	struct edge *e = edge_at(p, i);

	e->want = 0;
	__atomic_store_n(&e->p, 0, __ATOMIC_RELAXED);
}

char *edge_raw(struct worker *w, struct node *p, unsigned i, uint64_t *want)
{
	struct edge *e = edge_at(p, i);

	*want = e->want;
	if (!e->want && !e->p)
		return NULL;
	if (!(e->want >> 63) || !e->p)
		fail(w,
		     "checksum: field %u of node %#llx at %p is %#llx, %#llx",
		     i, (unsigned long long)p->id, (void *)p,
		     (unsigned long long)e->p, (unsigned long long)e->want);
	return (char *)encode(p, e->p);
}

char *edge_in(const struct node *p, unsigned i, uint64_t *want)
{
	const struct edge *e = edge_at(p, i);

	*want = e->want;
	return e->p ? (char *)encode(p, e->p) : NULL;
}

bool node_whole(const struct node *p)
{
	return p->sum == node_sum(p);
}

struct node *edge_get(struct worker *w, struct node *p, unsigned i)
{
	uint64_t want;
	char *raw = edge_raw(w, p, i, &want);
	struct node *to;

	if (!raw)
		return NULL;
	to = (struct node *)(void *)(raw - WANT_OFFSET(want));
	node_check(w, to, WANT_ID(want), "behind a field");
	return to;
}
