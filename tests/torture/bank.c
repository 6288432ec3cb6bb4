/* SPDX-License-Identifier: MIT */
/*
 * The bank: chains of spine nodes, each with a payload, of which the thread
 * keeps a full list outside the heap.  It can therefore reach any object
 * directly, without walking, and knows at once when one is gone.
 *
 *   table (one large node) -> chain heads
 *   spine node: field 0 the next one, field 1 its payload
 *
 * The collector finds the far end of a chain late.  Payloads, and the far
 * parts of chains, are moved from places that it has not reached to places
 * that it has left behind, with a wait in between in which only this thread's
 * stack or registers hold them.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/torture/torture.h"

enum { NEXT, PAYLOAD, SPINE_EDGES };

struct slot {
	uintptr_t spine;   /* hidden spine node */
	uint64_t spine_id; /* its number */
	uint64_t payload;  /* number of the payload, or 0 */
};

struct bank {
	unsigned chains, length; /* shape */
	struct slot *slot;       /* [chain * length + place] */
	uintptr_t table;         /* hidden */
	uint64_t table_id;
	unsigned *used; /* nodes in each chain; the head is the last */
};

static struct node *spine(struct worker *w, unsigned chain, unsigned place)
{
	struct slot *s = &w->bank->slot[chain * w->bank->length + place];
	struct node *p = show(s->spine);

	node_check(w, p, s->spine_id, "in the bank's list");
	return p;
}

static struct node *table(struct worker *w)
{
	struct node *p = show(w->bank->table);

	node_check(w, p, w->bank->table_id, "the bank's table");
	return p;
}

/* ---- Waiting with something in hand ------------------------------------- */

static void *sleep_blocked(void *arg)
{
	struct timespec t = {0, (long)*(uint64_t *)arg};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
	return arg;
}

/* Deep frames over the one that holds the reference. */
static __attribute__((noinline)) uint64_t deep(struct worker *w, unsigned n)
{
	volatile uint64_t frame[64];

	memset((void *)frame, 0x11, sizeof(frame));
	if (n)
		frame[n % 64] = deep(w, n - 1);
	else if (one_in(w, 2))
		sched_yield();
	return frame[0];
}

void hold(struct worker *w)
{
	uint64_t until, ns;

	switch (below(w, 16)) {
	case 0:
	case 1:
		/* Mostly short, sometimes as long as a cycle. */
		ns = 1000ull << below(w, one_in(w, 8) ? 16 : 8);
		until = now_ns() + ns;
		while (now_ns() < until)
			weir_safepoint(w->m);
		break;
	case 2:
		for (uint64_t i = below(w, 200); i; i--) {
			struct node *p = node_random(w, 0, false);

			if (!p)
				break;
		}
		break;
	case 3:
		if (cfg.on[F_block]) {
			ns = 1000ull << below(w, one_in(w, 8) ? 15 : 8);
			weir_blocking_call(w->m, sleep_blocked, &ns);
			w->n.blocks++;
		}
		break;
	case 4:
		deep(w, (unsigned)below(w, 100));
		break;
	case 5:
		if (one_in(w, 8))
			collect_step(w);
		break;
	case 6:
		if (one_in(w, 8))
			sched_yield();
		break;
	default:
		break;
	}
}

/* ---- Building ----------------------------------------------------------- */

static bool grow_chain(struct worker *w, unsigned chain)
{
	struct bank *b = w->bank;
	struct node *s = node_random(w, 2 + (unsigned)below(w, 2), false);
	struct node *next;
	struct slot *at;

	if (!s)
		return false;
	/* It is only in our hand until the table has it. */
	if (one_in(w, 8))
		hold(w);
	next = edge_get(w, table(w), chain);
	if (next)
		edge_set(s, NEXT, next, random_offset(w, next));
	edge_set(table(w), chain, s, 0);
	at = &b->slot[chain * b->length + b->used[chain]++];
	at->spine = hide(s);
	at->spine_id = s->id;
	at->payload = 0;
	return true;
}

bool bank_create(struct worker *w, size_t bytes)
{
	struct bank *b = calloc(1, sizeof(*b));
	struct node *t;
	size_t nodes = bytes / 4096;

	if (!b)
		return false;
	b->chains = 4 + (unsigned)below(w, 12);
	b->length = (unsigned)(nodes / b->chains);
	if (b->length < 16)
		b->length = 16;
	b->slot = calloc((size_t)b->chains * b->length, sizeof(*b->slot));
	b->used = calloc(b->chains, sizeof(*b->used));
	t = node_new(w, N_CONS, one_in(w, 2) ? 150000 : 0, b->chains);
	if (!t || !b->slot || !b->used) {
		free(b->slot);
		free(b->used);
		free(b);
		return false;
	}
	b->table = hide(t);
	b->table_id = t->id;
	w->anchor[0] = t;
	w->bank = b;
	return true;
}

void bank_destroy(struct worker *w)
{
	if (!w->bank)
		return;
	w->anchor[0] = NULL;
	free(w->bank->slot);
	free(w->bank->used);
	free(w->bank);
	w->bank = NULL;
}

/* ---- Steps -------------------------------------------------------------- */

/* A place that is in use; false: the chain is empty. */
static bool pick(struct worker *w, unsigned *chain, unsigned *place)
{
	struct bank *b = w->bank;

	*chain = (unsigned)below(w, b->chains);
	if (!b->used[*chain])
		return false;
	*place = (unsigned)below(w, b->used[*chain]);
	return true;
}

static struct slot *slot_at(struct worker *w, unsigned chain, unsigned place)
{
	return &w->bank->slot[chain * w->bank->length + place];
}

/* The payload's pointer as it is stored, checked against the list. */
static char *payload(struct worker *w, unsigned chain, unsigned place,
		     uint64_t *want)
{
	char *p = edge_raw(w, spine(w, chain, place), PAYLOAD, want);

	if (WANT_ID(*want) != slot_at(w, chain, place)->payload)
		fail(w, "checksum: a payload is %#llx, not %#llx",
		     (unsigned long long)*want,
		     (unsigned long long)slot_at(w, chain, place)->payload);
	return p;
}

static struct node *base_of(struct worker *w, char *raw, uint64_t want)
{
	struct node *p = (struct node *)(void *)(raw - WANT_OFFSET(want));

	node_check(w, p, WANT_ID(want), "from the hand");
	return p;
}

static __attribute__((noinline)) void store(struct worker *w, unsigned chain,
					    unsigned place, struct node *p)
{
	edge_set(spine(w, chain, place), PAYLOAD, p, random_offset(w, p));
	slot_at(w, chain, place)->payload = p->id;
}

static __attribute__((noinline)) char *fetch_and_clear(struct worker *w,
						       unsigned chain,
						       unsigned place,
						       uint64_t *want)
{
	char *raw = payload(w, chain, place, want);

	edge_clear(spine(w, chain, place), PAYLOAD);
	slot_at(w, chain, place)->payload = 0;
	return raw;
}

/* Load p from A, clear A's field, wait, store p in B: if the collector had
 * not come to A yet and had been at B, only the barrier or the stack tells. */
static void move(struct worker *w)
{
	unsigned ac, ap, bc, bp;
	uint64_t want;
	char *raw;

	if (!pick(w, &ac, &ap) || !pick(w, &bc, &bp))
		return;
	raw = fetch_and_clear(w, ac, ap, &want);
	if (!raw)
		return;
	__asm__ volatile("" : "+r"(raw)); /* the compiler forgets the base */
	hold(w);
	store(w, bc, bp, base_of(w, raw, want));
	w->n.moves++;
}

/* Exchange the far ends of two chains. */
static __attribute__((noinline)) struct node *
cut(struct worker *w, unsigned chain, unsigned place)
{
	struct node *a = spine(w, chain, place);
	struct node *p = edge_get(w, a, NEXT);

	edge_clear(a, NEXT);
	return p;
}

static __attribute__((noinline)) void join(struct worker *w, unsigned chain,
					   unsigned place, struct node *p)
{
	if (p)
		edge_set(spine(w, chain, place), NEXT, p, random_offset(w, p));
}

static void exchange(struct worker *w)
{
	struct bank *b = w->bank;
	unsigned ac, ap, bc, bp, n;
	struct node *x, *y;

	if (!pick(w, &ac, &ap) || !pick(w, &bc, &bp) || ac == bc)
		return;
	/* The same number of nodes is below both. */
	if (ap > bp)
		ap = bp;
	n = ap;
	x = cut(w, ac, ap);
	if (one_in(w, 4))
		hold(w);
	y = cut(w, bc, ap);
	hold(w);
	join(w, bc, ap, x);
	join(w, ac, ap, y);
	for (unsigned i = 0; i < n; i++) {
		struct slot t = b->slot[ac * b->length + i];

		b->slot[ac * b->length + i] = b->slot[bc * b->length + i];
		b->slot[bc * b->length + i] = t;
	}
	w->n.moves++;
}

static void replace(struct worker *w)
{
	unsigned chain, place;
	struct node *p;

	if (!pick(w, &chain, &place))
		return;
	p = graph_new(w);
	if (!p)
		return;
	if (one_in(w, 8))
		hold(w);
	if (cfg.on[F_large] && one_in(w, 2000)) {
		p = node_random(w, 0, true);
		if (!p)
			return;
	}
	store(w, chain, place, p);
}

static void drop_chain(struct worker *w, unsigned chain)
{
	edge_clear(table(w), chain);
	w->bank->used[chain] = 0;
}

static void look(struct worker *w, unsigned chain, unsigned place)
{
	struct slot *s = slot_at(w, chain, place);
	struct node *p = edge_get(w, spine(w, chain, place), PAYLOAD);

	if ((p ? p->id : 0) != s->payload)
		fail(w, "checksum: a payload is %#llx, not %#llx",
		     (unsigned long long)(p ? p->id : 0),
		     (unsigned long long)s->payload);
	if (p)
		graph_check(w, p, s->payload);
}

char *bank_take(struct worker *w, uint64_t *want)
{
	unsigned chain, place;

	if (!w->bank || !pick(w, &chain, &place))
		return NULL;
	return fetch_and_clear(w, chain, place, want);
}

void bank_put(struct worker *w, struct node *p)
{
	unsigned chain, place;

	if (w->bank && pick(w, &chain, &place))
		store(w, chain, place, p);
}

void bank_shrink(struct worker *w)
{
	if (w->bank)
		for (unsigned i = 0; i < w->bank->chains; i++)
			if (one_in(w, 2))
				drop_chain(w, i);
}

void bank_step(struct worker *w)
{
	struct bank *b = w->bank;
	unsigned chain, place;

	switch (below(w, 16)) {
	case 0:
	case 1:
	case 2:
		replace(w);
		break;
	case 3:
		exchange(w);
		break;
	case 4:
	case 5:
		chain = (unsigned)below(w, b->chains);
		for (uint64_t i = below(w, 64); i; i--)
			if (b->used[chain] == b->length ||
			    !grow_chain(w, chain))
				break;
		break;
	case 6:
		if (one_in(w, 400))
			drop_chain(w, (unsigned)below(w, b->chains));
		break;
	case 7:
	case 8:
		for (int i = 0; i < 8; i++)
			if (pick(w, &chain, &place))
				look(w, chain, place);
		break;
	case 9:
		if (cfg.on[F_graph] && pick(w, &chain, &place)) {
			struct node *p =
				edge_get(w, spine(w, chain, place), PAYLOAD);

			if (p)
				graph_mutate(w, p);
		}
		break;
	default:
		move(w);
		break;
	}
}

/* Walk all chains as the collector does, and compare with the list. */
void bank_audit(struct worker *w)
{
	struct bank *b = w->bank;

	for (unsigned c = 0; c < b->chains; c++) {
		struct node *p = edge_get(w, table(w), c);

		for (unsigned i = b->used[c]; i-- > 0;) {
			if (p != spine(w, c, i))
				fail(w,
				     "checksum: place %u of chain %u is %p, "
				     "not %p",
				     i, c, (void *)p, (void *)spine(w, c, i));
			look(w, c, i);
			p = edge_get(w, p, NEXT);
		}
		if (p)
			fail(w, "checksum: chain %u has no end", c);
	}
	w->n.audits++;
}
