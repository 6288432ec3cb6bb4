/* SPDX-License-Identifier: MIT */
/*
 * The inverted index, all of it on the collected heap: many small objects
 * linked by references, and strings as leaves.
 *
 *   index_root -> segments[] -> segment -> table[] -> term -> term ...
 *                                             term -> word (leaf)
 *                                             term -> posting -> posting ...
 *                                                     posting -> document
 *
 * A segment covers a run of documents and never changes once it is published.
 * To re-index is to build a segment anew and to store it in segments[] in
 * place of the old one, which is garbage from then on, but for what queries
 * that run just then still hold on their stacks.
 *
 *   who may call                 from
 *   index_open, index_close      the main thread, with no other in the index
 *   index_build                  attached threads, each another segment
 *   index_segment                attached threads, any time
 *
 * index_build() stores the segment with release order; index_segment() loads
 * it with acquire order, else a query could see a segment without its tables.
 */
#ifndef WEIR_EXAMPLES_WI_INDEX_H
#define WEIR_EXAMPLES_WI_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "examples/wi_corpus.h"
#include "examples/wi_word.h"

/* Documents of one segment: 4 MiB of text at most. */
#define SEGMENT_DOCUMENTS 512u

/* One document of one copy, as the index knows it. */
struct document {
	char *title;     /* file name, leaf, ended by a zero */
	uint32_t number; /* copy * corpus->documents + place in the corpus */
	uint32_t words;  /* words in it, repetitions counted */
};

/* "term occurs in doc"; a term's postings ascend by document number. */
struct posting {
	struct posting *next; /* next document that has the word, or NULL */
	struct document *doc; /* where the word occurs */
	uint32_t count;       /* how often */
	uint32_t offset;      /* where in the document first */
};

struct term {
	struct term *next;     /* next in the same slot of the table */
	struct posting *first; /* postings in order */
	struct posting *last;  /* the newest, for appending */
	char *word;            /* prefix and word, leaf, `length` bytes */
	uint32_t hash;         /* of the word */
	uint32_t length;       /* bytes in word */
	uint32_t documents;    /* postings in the list */
};

struct segment {
	struct term **table; /* mask + 1 slots */
	uint32_t mask;       /* table size - 1, the size a power of two */
	uint32_t terms;      /* terms in the table */
	uint64_t postings;   /* postings of all terms */
	uint64_t text_bytes; /* text that was indexed */
};

struct index {
	struct segment **segments;   /* array on the heap; slots may be NULL */
	const struct corpus *corpus; /* the text, not on the heap */
	uint32_t copies;             /* how often the text is indexed */
	uint32_t per_copy;           /* segments of one copy */
	uint32_t count;              /* segments in all */
};

/* The one index; a root of the heap. */
extern struct index index_root;

void index_open(const struct corpus *corpus, uint32_t copies);
void index_close(void);
/* Build segment i from the text and publish it; returns the text's bytes. */
uint64_t index_build(uint32_t i);
/* The segment in slot i, or NULL before it was built first. */
struct segment *index_segment(uint32_t i);
/* The term of a word in a segment, or NULL. */
struct term *index_term(const struct segment *segment, const char *word,
			uint32_t length, uint32_t hash);

#endif
