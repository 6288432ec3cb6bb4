/* SPDX-License-Identifier: MIT */
/*
 * Planning queries, answering them, and the cache of document texts.
 *
 * Invariants of the cache: an entry is in the list and in its table slot, or
 * in neither; the list runs from the newest to the oldest use and holds
 * `count` <= `capacity` entries.
 */
#include "examples/wi_query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "examples/heap_shim.h"

#define QUERY_WORD_MIN 5u /* shortest word asked for */

/* ---- Planning ----------------------------------------------------------- */

/* xorshift64*: small, and the same everywhere. */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

/* Not drawn for this query already, and not in too many documents. */
static bool wanted_word(const struct query *q, const struct word *w)
{
	uint64_t documents = 0;
	uint32_t i;

	for (i = 0; i < q->words; i++)
		if (q->word[i].hash == w->hash)
			return false;
	for (i = 0; i < index_root.count; i++) {
		struct term *t = index_term(index_segment(i), w->text,
					    w->length, w->hash);

		documents += t ? t->documents : 0;
	}
	return documents <= QUERY_COMMON;
}

/* Words of one random document, so that at least that one will match. */
static bool draw_query(struct query *q, char *text, uint64_t *state)
{
	const struct corpus *corpus = index_root.corpus;
	size_t i = draw(state) % corpus->documents;
	uint32_t length = corpus->document[i].length;
	uint32_t copy = (uint32_t)(draw(state) % index_root.copies);
	uint32_t wanted = 2 + (uint32_t)(draw(state) & 1), tries, at;
	struct word w;

	corpus_text(corpus, i, text);
	word_start(&w, copy);
	q->words = 0;
	for (tries = 0; tries < 64 && q->words < wanted; tries++) {
		at = (uint32_t)(draw(state) % length);
		/* Not from the middle of a word. */
		while (at < length && word_byte(text[at]))
			at++;
		while (word_next(&w, text, length, &at))
			if (w.length - w.prefix >= QUERY_WORD_MIN)
				break;
		if (at < length && wanted_word(q, &w))
			q->word[q->words++] = w;
	}
	return q->words == wanted;
}

int query_plan(struct query_plan *plan, size_t count, uint64_t seed)
{
	char *text = malloc(CORPUS_DOCUMENT);
	uint64_t state = seed | 1;
	size_t i, failures = 0;

	plan->count = count;
	plan->query = calloc(count, sizeof(*plan->query));
	if (!text || !plan->query) {
		free(text);
		query_plan_free(plan);
		return -ENOMEM;
	}
	for (i = 0; i < count;) {
		if (draw_query(&plan->query[i], text, &state))
			i++;
		else if (++failures > 100 * count + 1000)
			break;
	}
	free(text);
	if (i < count) {
		query_plan_free(plan);
		return -ENODATA;
	}
	return 0;
}

void query_plan_free(struct query_plan *plan)
{
	free(plan->query);
	plan->query = NULL;
	plan->count = 0;
}

/* ---- The cache ---------------------------------------------------------- */

struct entry {
	struct entry *newer, *older; /* neighbours in the list */
	struct entry *chain;         /* next in the same slot */
	char *text;                  /* the document's text, leaf */
	uint32_t place;              /* its place in the corpus */
};

static struct cache {
	struct entry *newest, *oldest; /* ends of the list */
	struct entry **slot;           /* `slots` of them */
	uint32_t slots;                /* a power of two */
	uint32_t count;                /* entries held */
	uint32_t capacity;             /* most that are held */
} cache;                               /* a root of the heap */

void query_cache_open(uint32_t documents)
{
	heap_root(&cache, sizeof(cache));
	cache.capacity = documents;
	for (cache.slots = 16; cache.slots < documents;)
		cache.slots *= 2;
	cache.slot = heap_alloc(cache.slots * sizeof(*cache.slot));
}

void query_cache_close(void)
{
	memset(&cache, 0, sizeof(cache));
}

static void unlink_entry(struct entry *e)
{
	if (e->newer)
		e->newer->older = e->older;
	else
		cache.newest = e->older;
	if (e->older)
		e->older->newer = e->newer;
	else
		cache.oldest = e->newer;
}

static void link_newest(struct entry *e)
{
	e->newer = NULL;
	e->older = cache.newest;
	if (cache.newest)
		cache.newest->newer = e;
	else
		cache.oldest = e;
	cache.newest = e;
}

static void drop_oldest(void)
{
	struct entry *e = cache.oldest, **link;

	unlink_entry(e);
	link = &cache.slot[e->place & (cache.slots - 1)];
	while (*link != e)
		link = &(*link)->chain;
	*link = e->chain;
	cache.count--;
}

/* The text of a document, from the cache or through it. */
static const char *cached_text(uint32_t place, struct query_totals *totals)
{
	struct entry **slot = &cache.slot[place & (cache.slots - 1)], *e;

	totals->snippets++;
	for (e = *slot; e; e = e->chain) {
		if (e->place == place) {
			totals->cache_hits++;
			unlink_entry(e);
			link_newest(e);
			return e->text;
		}
	}
	if (cache.count == cache.capacity)
		drop_oldest();
	e = heap_alloc(sizeof(*e));
	e->text = heap_leaf(index_root.corpus->document[place].length);
	corpus_text(index_root.corpus, place, e->text);
	e->place = place;
	e->chain = *slot;
	*slot = e;
	link_newest(e);
	cache.count++;
	return e->text;
}

/* ---- Answering ---------------------------------------------------------- */

static void rank(struct answer *a, const struct hit *hit)
{
	uint32_t i;

	/* Ties: the lower document number first, so the order is total. */
	for (i = a->hits; i > 0; i--) {
		const struct hit *h = &a->hit[i - 1];

		if (h->score > hit->score ||
		    (h->score == hit->score &&
		     h->doc->number < hit->doc->number))
			break;
		if (i < QUERY_TOP)
			a->hit[i] = *h;
	}
	if (i < QUERY_TOP) {
		a->hit[i] = *hit;
		if (a->hits < QUERY_TOP)
			a->hits++;
	}
}

/* Walk the words' postings of one segment in step. */
static void search(const struct segment *segment, const struct query *q,
		   struct answer *a)
{
	struct posting *p[QUERY_WORDS];
	struct hit hit;
	uint32_t i, high;

	for (i = 0; i < q->words; i++) {
		const struct word *w = &q->word[i];
		struct term *t =
			index_term(segment, w->text, w->length, w->hash);

		if (!t)
			return;
		p[i] = t->first;
	}
	for (;;) {
		high = p[0]->doc->number;
		for (i = 1; i < q->words; i++)
			if (p[i]->doc->number > high)
				high = p[i]->doc->number;
		hit.score = 0;
		for (i = 0; i < q->words; i++) {
			while (p[i] && p[i]->doc->number < high)
				p[i] = p[i]->next;
			if (!p[i])
				return;
			if (p[i]->doc->number == high)
				hit.score += p[i]->count;
			else
				break;
		}
		if (i < q->words)
			continue;
		a->matches++;
		hit.doc = p[0]->doc;
		hit.offset = p[0]->offset;
		rank(a, &hit);
		p[0] = p[0]->next;
		if (!p[0])
			return;
	}
}

static uint64_t mix(uint64_t sum, uint64_t v)
{
	sum = (sum ^ v) * UINT64_C(0x9e3779b97f4a7c15);
	return sum ^ sum >> 29;
}

/* Copy a line around the hit; returns a hash of what was copied. */
static uint64_t snippet(const struct hit *hit, char *out,
			struct query_totals *totals)
{
	const struct corpus *corpus = index_root.corpus;
	uint32_t place = (uint32_t)(hit->doc->number % corpus->documents);
	uint32_t length = corpus->document[place].length, i, n = 0;
	uint64_t sum = 0;
	const char *text = cached_text(place, totals);

	i = hit->offset > SNIPPET_MAX / 2 ? hit->offset - SNIPPET_MAX / 2 : 0;
	for (; n < SNIPPET_MAX && i < length; i++) {
		/* The raw byte is summed: a text mixed up would show. */
		sum = mix(sum, (unsigned char)text[i]);
		out[n++] = (unsigned char)text[i] < ' ' ? ' ' : text[i];
	}
	out[n] = 0;
	return sum;
}

void query_run(const struct query *q, struct answer *a,
	       struct query_totals *totals)
{
	char line[SNIPPET_MAX + 1];
	uint32_t i;

	a->matches = 0;
	a->hits = 0;
	a->snippet[0] = 0;
	for (i = 0; i < index_root.count; i++)
		search(index_segment(i), q, a);
	totals->queries++;
	totals->matches += a->matches;
	totals->checksum = mix(totals->checksum, a->matches);
	for (i = 0; i < a->hits; i++) {
		totals->checksum = mix(totals->checksum, a->hit[i].score);
		totals->checksum = mix(totals->checksum, a->hit[i].doc->number);
		if (i < QUERY_SNIPPETS)
			totals->checksum =
				mix(totals->checksum,
				    snippet(&a->hit[i], i ? line : a->snippet,
					    totals));
	}
}
