/* SPDX-License-Identifier: MIT */
/*
 * Latency seen from outside the collector.
 *
 * A bench_histogram counts durations in buckets whose width is 1/1024 of the
 * value or less (three significant digits), as HdrHistogram does: 1024
 * buckets to each power of two above 2048 ns, one a nanosecond below.  Its
 * memory is mapped, not allocated, so that no collector scans it and no
 * allocator is measured by it.
 *
 * A bench_meter watches one mutator thread, from that thread:
 *
 *   latency  from the intended start of an operation to its end.  With an
 *            arrival rate the intended start is given beforehand by the clock
 *            (an operation that had to wait for a late one before it is
 *            charged with the wait); without one it is the end of the
 *            operation before.
 *   gap      from the moment at which an operation could start at the
 *            earliest (intended start or end of the one before, whichever is
 *            later) to its end.  The longest gap less the median gap, which
 *            is the service time, is the longest stall seen from outside.
 *
 * A stall that is short may come back at once: the meter also tells the
 * minimum mutator utilisation (Cheng and Blelloch 2001) over 10 ms, which is
 * what the worst 10 ms left to the program.  A gap longer than 20 us and than
 * twice the median counts as stalled but for the median; shorter ones do not.
 */
#ifndef WEIR_BENCH_LATENCY_H
#define WEIR_BENCH_LATENCY_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_HISTOGRAM_BITS 10
#define BENCH_HISTOGRAM_MAX_BITS 40 /* longer durations count as 2^40 - 1 */
#define BENCH_HISTOGRAM_BUCKETS                                \
	((BENCH_HISTOGRAM_MAX_BITS - BENCH_HISTOGRAM_BITS + 1) \
	 << BENCH_HISTOGRAM_BITS)

struct bench_histogram {
	uint64_t count;                           /* durations recorded */
	uint64_t max;                             /* the longest, exact */
	uint64_t bucket[BENCH_HISTOGRAM_BUCKETS]; /* see bench_bucket() */
};

#define BENCH_LONG_GAP_NS 20000u     /* shorter ones are not kept */
#define BENCH_LONG_GAPS (1u << 20)   /* so many are */
#define BENCH_MMU_WINDOW_NS 10000000 /* 10 ms */

/* A gap with its time. */
struct bench_gap {
	uint64_t end; /* clock at its end */
	uint64_t ns;  /* its length */
};

struct bench_meter {
	struct bench_histogram *latency; /* NULL: not measured */
	struct bench_histogram *gap;
	uint64_t last;              /* end of the operation before */
	struct bench_gap *long_gap; /* BENCH_LONG_GAPS of them, in order */
	size_t long_gaps;           /* seen; more than kept: MMU unknown */
	uint64_t worst_merged;      /* most stalled of a window, of others */
	int lost;                   /* one of the others' is unknown */
};

/* Bucket of a duration.  Below 2^11 it is the value; above, the top eleven
 * bits select it. */
static inline uint32_t bench_bucket(uint64_t ns)
{
	uint32_t shift;

	if (ns >= 1ull << BENCH_HISTOGRAM_MAX_BITS)
		ns = (1ull << BENCH_HISTOGRAM_MAX_BITS) - 1;
	if (ns < 2u << BENCH_HISTOGRAM_BITS)
		return (uint32_t)ns;
	shift = 63u - BENCH_HISTOGRAM_BITS - (uint32_t)__builtin_clzll(ns);
	return (shift << BENCH_HISTOGRAM_BITS) + (uint32_t)(ns >> shift);
}

static inline void bench_histogram_add(struct bench_histogram *h, uint64_t ns)
{
	h->count++;
	h->bucket[bench_bucket(ns)]++;
	if (ns > h->max)
		h->max = ns;
}

struct bench_histogram *bench_histogram_create(void);
void bench_histogram_merge(struct bench_histogram *to,
			   const struct bench_histogram *from);
/* Upper bound of the bucket in which quantile q (0..1) lies, never above the
 * maximum; 0 of an empty histogram. */
uint64_t bench_histogram_quantile(const struct bench_histogram *h, double q);

void bench_meter_create(struct bench_meter *m, int with_latency);
void bench_meter_merge(struct bench_meter *to, const struct bench_meter *from);
/* The longest stall seen from outside, 0 if nothing was recorded. */
uint64_t bench_meter_stall(const struct bench_meter *m);

/* The most stalled nanoseconds in any window among n gaps in order, of which
 * each has `usual` ns that are none. */
uint64_t bench_worst_window(const struct bench_gap *gap, size_t n,
			    uint64_t usual, uint64_t window);
/* Minimum mutator utilisation over BENCH_MMU_WINDOW_NS, 0..1, of the thread
 * with the least; negative: too many gaps to tell. */
double bench_meter_mmu(const struct bench_meter *m);

static inline void bench_meter_gap(struct bench_meter *m, uint64_t ns,
				   uint64_t now)
{
	bench_histogram_add(m->gap, ns);
	if (__builtin_expect(ns < BENCH_LONG_GAP_NS, 1))
		return;
	if (m->long_gaps < BENCH_LONG_GAPS)
		m->long_gap[m->long_gaps] =
			(struct bench_gap){.end = now, .ns = ns};
	m->long_gaps++;
}

/* An operation that was to start at `intended` ended at `now`. */
static inline void bench_meter_op(struct bench_meter *m, uint64_t intended,
				  uint64_t now)
{
	uint64_t ready = intended > m->last ? intended : m->last;

	bench_histogram_add(m->latency, now - intended);
	bench_meter_gap(m, now - ready, now);
	m->last = now;
}

/* A piece of work of constant size ended at `now`. */
static inline void bench_meter_tick(struct bench_meter *m, uint64_t now)
{
	bench_meter_gap(m, now - m->last, now);
	m->last = now;
}

#endif
