/* SPDX-License-Identifier: MIT */
/*
 * Building the index.  See wi_index.h for its shape and its rules.
 *
 * Invariants of a published segment: every term has at least one posting,
 * `documents` counts them, `last` is the end of the list that begins at
 * `first`, and each posting's document number is above the one before.
 */
#include "examples/wi_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "examples/heap_shim.h"

#define TABLE_FIRST 1024u /* slots of a new segment's table */

struct index index_root;

void index_open(const struct corpus *corpus, uint32_t copies)
{
	struct index *x = &index_root;

	x->corpus = corpus;
	x->copies = copies;
	x->per_copy = (uint32_t)((corpus->documents + SEGMENT_DOCUMENTS - 1) /
				 SEGMENT_DOCUMENTS);
	x->count = x->per_copy * copies;
	heap_root(&index_root, sizeof(index_root));
	x->segments = heap_alloc(x->count * sizeof(*x->segments));
}

void index_close(void)
{
	index_root.segments = NULL;
}

static char *new_string(const char *text, uint32_t length)
{
	char *s = heap_leaf(length + 1);

	memcpy(s, text, length);
	s[length] = 0;
	return s;
}

struct term *index_term(const struct segment *segment, const char *word,
			uint32_t length, uint32_t hash)
{
	struct term *t;

	for (t = segment->table[hash & segment->mask]; t; t = t->next)
		if (t->hash == hash && t->length == length &&
		    !memcmp(t->word, word, length))
			return t;
	return NULL;
}

static void grow_table(struct segment *segment)
{
	uint32_t mask = segment->mask * 2 + 1, i;
	struct term **table = heap_alloc((mask + (size_t)1) * sizeof(*table));
	struct term *t, *next;

	for (i = 0; i <= segment->mask; i++) {
		for (t = segment->table[i]; t; t = next) {
			next = t->next;
			t->next = table[t->hash & mask];
			table[t->hash & mask] = t;
		}
	}
	segment->table = table;
	segment->mask = mask;
}

static struct term *new_term(struct segment *segment, const struct word *w)
{
	struct term *t = heap_alloc(sizeof(*t));
	struct term **slot;

	t->word = new_string(w->text, w->length);
	t->hash = w->hash;
	t->length = w->length;
	if (segment->terms > segment->mask)
		grow_table(segment);
	slot = &segment->table[w->hash & segment->mask];
	t->next = *slot;
	*slot = t;
	segment->terms++;
	return t;
}

static void add_word(struct segment *segment, struct document *doc,
		     const struct word *w)
{
	struct term *t = index_term(segment, w->text, w->length, w->hash);
	struct posting *p;

	if (!t)
		t = new_term(segment, w);
	if (t->last && t->last->doc == doc) {
		t->last->count++;
		return;
	}
	p = heap_alloc(sizeof(*p));
	p->doc = doc;
	p->count = 1;
	p->offset = w->offset;
	if (t->last)
		t->last->next = p;
	else
		t->first = p;
	t->last = p;
	t->documents++;
	segment->postings++;
}

static void add_document(struct segment *segment, uint32_t copy, size_t i)
{
	const struct corpus *corpus = index_root.corpus;
	const struct corpus_document *d = &corpus->document[i];
	const char *path = corpus->path[d->file];
	struct document *doc = heap_alloc(sizeof(*doc));
	struct word w;
	uint32_t at = 0;
	char *text;

	doc->title = new_string(path, (uint32_t)strlen(path));
	doc->number = (uint32_t)(copy * corpus->documents + i);
	/* Read straight into the collected heap; garbage when we return. */
	text = heap_leaf(d->length);
	corpus_text(corpus, i, text);
	word_start(&w, copy);
	while (word_next(&w, text, d->length, &at)) {
		add_word(segment, doc, &w);
		doc->words++;
	}
	segment->text_bytes += d->length;
}

uint64_t index_build(uint32_t i)
{
	struct index *x = &index_root;
	uint32_t copy = i / x->per_copy;
	size_t at = (size_t)(i % x->per_copy) * SEGMENT_DOCUMENTS;
	size_t end = at + SEGMENT_DOCUMENTS;
	struct segment *segment = heap_alloc(sizeof(*segment));

	if (end > x->corpus->documents)
		end = x->corpus->documents;
	segment->mask = TABLE_FIRST - 1;
	segment->table = heap_alloc(TABLE_FIRST * sizeof(*segment->table));
	for (; at < end; at++)
		add_document(segment, copy, at);
	__atomic_store_n(&x->segments[i], segment, __ATOMIC_RELEASE);
	return segment->text_bytes;
}

struct segment *index_segment(uint32_t i)
{
	return __atomic_load_n(&index_root.segments[i], __ATOMIC_ACQUIRE);
}
