/* SPDX-License-Identifier: MIT */
/*
 * Queries: two or three words, all of which must occur; the ten documents
 * with most occurrences are ranked, and of the first three a snippet is cut
 * from the document's text, which a least-recently-used cache on the
 * collected heap holds.
 *
 * What a query answers depends on the text alone, not on which version of a
 * segment it met, so the checksum over all answers is the same whatever
 * collector runs underneath and however the threads interleave.
 *
 *   query_plan, query_plan_free   the main thread, attached
 *   the rest                      one attached thread
 */
#ifndef WEIR_EXAMPLES_WI_QUERY_H
#define WEIR_EXAMPLES_WI_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include "examples/wi_index.h"

#define QUERY_WORDS 3u
#define QUERY_COMMON 500u /* words in more documents are not asked for */
#define QUERY_TOP 10u
#define QUERY_SNIPPETS 3u
#define SNIPPET_MAX 160u

struct query {
	uint32_t words;                /* 2 or 3 */
	struct word word[QUERY_WORDS]; /* with the prefix of their copy */
};

/* Queries drawn before the run, from the text, with a fixed seed. */
struct query_plan {
	size_t count;        /* queries in query[] */
	struct query *query; /* not on the heap: no references in it */
};

/* One answer. */
struct hit {
	struct document *doc; /* on the heap; keep on the stack only */
	uint64_t score;       /* occurrences of all words */
	uint32_t offset;      /* where the first word occurs first */
};

struct answer {
	uint64_t matches;              /* documents that have all words */
	uint32_t hits;                 /* ranked ones in hit[] */
	struct hit hit[QUERY_TOP];     /* best first */
	char snippet[SNIPPET_MAX + 1]; /* of the best hit */
};

struct query_totals {
	uint64_t queries;    /* answered */
	uint64_t matches;    /* documents that matched, summed */
	uint64_t snippets;   /* texts asked of the cache */
	uint64_t cache_hits; /* of them found there */
	uint64_t checksum;   /* over all answers, order included */
};

/* Draw `count` queries from the text of the index, which must be built; 0 or
 * -ENOMEM, or -ENODATA if the text has too few words of five letters that are
 * not in more than QUERY_COMMON documents. */
int query_plan(struct query_plan *plan, size_t count, uint64_t seed);
void query_plan_free(struct query_plan *plan);

/* Make the cache of `documents` texts; a root of the heap. */
void query_cache_open(uint32_t documents);
void query_cache_close(void);

/* Answer a query and add it to the totals. */
void query_run(const struct query *query, struct answer *answer,
	       struct query_totals *totals);

#endif
