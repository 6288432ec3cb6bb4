/* SPDX-License-Identifier: MIT */
/*
 * One run of the word index: build it, then answer queries at a fixed rate
 * while another thread builds segment after segment anew.
 *
 * The queries are an open loop: query i is due at start + i / rate whatever
 * became of those before it, and its latency counts from then.  A program
 * that is held up for a second thus shows a second's worth of late queries
 * and not one slow one.
 */
#ifndef WEIR_EXAMPLES_WI_RUN_H
#define WEIR_EXAMPLES_WI_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "examples/heap_shim.h"
#include "examples/wi_corpus.h"
#include "examples/wi_hdr.h"
#include "examples/wi_query.h"

#define RUN_POLL_NS 5000000u    /* the sampler wakes up this often */
#define RUN_SAMPLE_NS 50000000u /* and takes a sample this often */
#define RUN_WINDOW_NS 50000000u /* width of the latency windows */

struct run_options {
	uint32_t seconds;  /* length of the measured part */
	uint32_t rate;     /* queries a second */
	uint32_t builders; /* threads that build the first index */
	uint32_t cache;    /* documents in the query cache */
	uint32_t plan;     /* queries drawn, asked for in turn */
	uint64_t seed;     /* of the queries */
};

struct run_sample {
	uint64_t time_ns;  /* CLOCK_MONOTONIC */
	uint64_t used;     /* heap_figures.used */
	uint64_t reserved; /* heap_figures.reserved */
	uint64_t rss;      /* resident set of the process, bytes */
};

struct run_result {
	uint64_t opened_ns;         /* clock when the first build began */
	uint64_t built_ns;          /* clock when the first index was there */
	uint64_t start_ns;          /* clock when the first query was due */
	uint64_t end_ns;            /* clock when the last query was answered */
	uint64_t indexed_bytes;     /* text indexed anew from start to end */
	uint64_t segments_built;    /* segments of it */
	uint64_t first_terms;       /* terms of the first index */
	uint64_t first_postings;    /* postings of the first index */
	uint64_t peak_rss;          /* of the process so far, bytes */
	uint64_t user_ns;           /* CPU time from start to end */
	uint64_t system_ns;         /* the same, in the kernel */
	uint64_t collections;       /* cycles from start to end */
	uint64_t collector_cpu_ns;  /* weir: of its threads, start to end */
	struct query_totals totals; /* what the queries found */
	struct answer example;      /* the last answer that had a snippet */
	struct query example_query; /* its query; no words: none had one */
	struct hdr latency;         /* from when a query was due */
	struct hdr service;         /* from when a query was begun */
	struct hdr noise; /* how late the sampler woke up: the machine's own */
	size_t windows;   /* entries in window[] */
	uint64_t *window; /* longest latency of queries due in it */
	size_t samples;   /* entries in sample[] */
	struct run_sample *sample;
	size_t events; /* entries in event[], build included */
	struct heap_event *event;
};

/* Run on an open heap and an open index; 0, or what query_plan() failed with.
 * Prints and exits on other failures. */
int run(const struct run_options *options, struct run_result *result);
void run_free(struct run_result *result);
uint64_t run_now(void);

#endif
