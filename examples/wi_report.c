/* SPDX-License-Identifier: MIT */
/*
 * The report of a run.  Times in the JSON object are nanoseconds since the
 * first query was due, so what belongs to the first build is negative; sizes
 * are bytes.
 */
#include "examples/wi_report.h"

#include <inttypes.h>
#include <string.h>

/* Sums over the events of one type, in the measured part or before it. */
struct span_totals {
	uint64_t count;    /* pauses or assists */
	uint64_t total_ns; /* their sum */
	uint64_t max_ns;   /* the longest */
};

static struct span_totals sum_events(const struct run_result *r, uint32_t type,
				     bool measured)
{
	struct span_totals s = {0, 0, 0};
	size_t i;

	for (i = 0; i < r->events; i++) {
		const struct heap_event *e = &r->event[i];

		if (e->type != type || (e->end_ns >= r->start_ns) != measured)
			continue;
		s.count += e->count;
		s.total_ns += e->length_ns;
		if (e->max_ns > s.max_ns)
			s.max_ns = e->max_ns;
	}
	return s;
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

static double seconds(const struct run_result *r)
{
	return (double)(r->end_ns - r->start_ns) / 1e9;
}

static void text_words(const struct query *q, FILE *out)
{
	uint32_t i;

	for (i = 0; i < q->words; i++)
		fprintf(out, "%s%.*s", i ? " " : "",
			(int)(q->word[i].length - q->word[i].prefix),
			q->word[i].text + q->word[i].prefix);
}

void report_text(const struct report *p, FILE *out)
{
	const struct run_result *r = p->result;
	const struct corpus *c = p->corpus;
	struct span_totals pause = sum_events(r, HEAP_PAUSE, true);
	struct span_totals assist = sum_events(r, HEAP_ASSIST, true);
	struct span_totals first = sum_events(r, HEAP_PAUSE, false);
	uint32_t copies = index_root.copies;

	fprintf(out, "%s %s, %s\n", heap_peer, heap_version(),
		heap_configuration());
	fprintf(out,
		"  text      %u files, %.1f MiB on disk, %.1f MiB of text%s; "
		"%u %s = %.1f MiB indexed\n",
		c->files, mib(c->disk_bytes), mib(c->text_bytes),
		c->limited ? " (limit reached, files left)" : "", copies,
		copies == 1 ? "copy" : "copies", mib(c->text_bytes * copies));
	fprintf(out,
		"  index     %" PRIu64 " terms, %" PRIu64
		" postings, built in %.1f s (longest pause %.1f ms)\n",
		r->first_terms, r->first_postings,
		(double)(r->built_ns - r->opened_ns) / 1e9, ms(first.max_ns));
	fprintf(out,
		"  re-index  %.1f MiB/s beside the queries, %" PRIu64
		" segments, %" PRIu64 " collections\n",
		mib(r->indexed_bytes) / seconds(r), r->segments_built,
		r->collections);
	fprintf(out,
		"  queries   %" PRIu64 " at %u/s, %.1f matches each, checksum "
		"%016" PRIx64 "\n",
		r->totals.queries, p->options->rate,
		(double)r->totals.matches / (double)r->totals.queries,
		r->totals.checksum);
	fprintf(out,
		"  latency   p50 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms\n",
		ms(hdr_quantile(&r->latency, 0.5)),
		ms(hdr_quantile(&r->latency, 0.99)),
		ms(hdr_quantile(&r->latency, 0.999)), ms(r->latency.max));
	fprintf(out,
		"  pauses    %" PRIu64 ", longest %.3f ms, in all %.3f ms; "
		"assists and handshakes %" PRIu64
		", longest %.3f ms, in all %.3f ms\n",
		pause.count, ms(pause.max_ns), ms(pause.total_ns), assist.count,
		ms(assist.max_ns), ms(assist.total_ns));
	fprintf(out,
		"  memory    peak %.1f MiB; CPU %.2f s user, %.2f s system\n",
		mib(r->peak_rss), (double)r->user_ns / 1e9,
		(double)r->system_ns / 1e9);
	fprintf(out,
		"  machine   the sampler woke up late by p50 %.3f  p99 %.3f  "
		"max %.3f ms\n",
		ms(hdr_quantile(&r->noise, 0.5)),
		ms(hdr_quantile(&r->noise, 0.99)), ms(r->noise.max));
	if (r->example_query.words) {
		fprintf(out, "  example   \"");
		text_words(&r->example_query, out);
		fprintf(out,
			"\": %" PRIu64 " documents\n            ...%s...\n",
			r->example.matches, r->example.snippet);
	}
}

/* ---- JSON --------------------------------------------------------------- */

/* {"count", "mean", "p50", "p90", "p99", "p999", "max"} in ns. */
static void json_latency(const char *name, const struct hdr *h, FILE *out)
{
	fprintf(out,
		"\"%s\":{\"count\":%" PRIu64 ",\"mean\":%" PRIu64
		",\"p50\":%" PRIu64 ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64
		",\"p999\":%" PRIu64 ",\"max\":%" PRIu64 "},\n",
		name, h->count, h->count ? h->total / h->count : 0,
		hdr_quantile(h, 0.5), hdr_quantile(h, 0.9),
		hdr_quantile(h, 0.99), hdr_quantile(h, 0.999), h->max);
}

/* [[smallest ns of the bucket, width in ns, count], ...], empty ones left
 * out. */
static void json_buckets(const struct hdr *h, FILE *out)
{
	const char *comma = "";
	uint32_t i;

	fprintf(out, "\"latency_histogram\":[");
	for (i = 0; i + 1 < HDR_BUCKETS; i++) {
		if (!h->bucket[i])
			continue;
		fprintf(out, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]", comma,
			hdr_low(i), hdr_low(i + 1) - hdr_low(i), h->bucket[i]);
		comma = ",";
	}
	fprintf(out, "],\n");
}

static void json_span(const char *name, struct span_totals s, FILE *out)
{
	fprintf(out,
		"\"%s\":{\"count\":%" PRIu64 ",\"total_ns\":%" PRIu64
		",\"max_ns\":%" PRIu64 "},\n",
		name, s.count, s.total_ns, s.max_ns);
}

/* [[time, used, reserved, resident], ...] */
static void json_timeline(const struct run_result *r, FILE *out)
{
	size_t i;

	fprintf(out, "\"timeline\":[");
	for (i = 0; i < r->samples; i++) {
		const struct run_sample *x = &r->sample[i];

		fprintf(out,
			"%s[%" PRId64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]",
			i ? "," : "", (int64_t)(x->time_ns - r->start_ns),
			x->used, x->reserved, x->rss);
	}
	fprintf(out, "],\n");
}

/* [[time of the end, length of the longest, sum, count, "pause" or "assist"],
 * ...]; count is 1 for nearly all pauses. */
static void json_events(const struct run_result *r, FILE *out)
{
	size_t i;

	fprintf(out, "\"events\":[");
	for (i = 0; i < r->events; i++) {
		const struct heap_event *e = &r->event[i];

		fprintf(out,
			"%s[%" PRId64 ",%" PRIu64 ",%" PRIu64 ",%u,\"%s\"]",
			i ? "," : "", (int64_t)(e->end_ns - r->start_ns),
			e->max_ns, e->length_ns, e->count,
			e->type == HEAP_PAUSE ? "pause" : "assist");
	}
	fprintf(out, "],\n");
}

static void json_windows(const struct run_result *r, FILE *out)
{
	size_t i;

	fprintf(out, "\"latency_windows\":{\"width_ns\":%u,\"max_ns\":[",
		RUN_WINDOW_NS);
	for (i = 0; i < r->windows; i++)
		fprintf(out, "%s%" PRIu64, i ? "," : "", r->window[i]);
	fprintf(out, "]}\n");
}

void report_json(const struct report *p, FILE *out)
{
	const struct run_result *r = p->result;
	const struct corpus *c = p->corpus;

	fprintf(out,
		"{\"benchmark\":\"word-index\",\"peer\":\"%s\","
		"\"version\":\"%s\",\"configuration\":\"%s\",\n",
		heap_peer, heap_version(), heap_configuration());
	fprintf(out,
		"\"corpus\":{\"files\":%u,\"skipped\":%u,\"limited\":%s,"
		"\"disk_bytes\":%" PRIu64 ",\"text_bytes\":%" PRIu64
		",\"crc32\":\"%08x\",\"documents\":%zu,\"copies\":%u,"
		"\"indexed_bytes\":%" PRIu64 "},\n",
		c->files, c->skipped, c->limited ? "true" : "false",
		c->disk_bytes, c->text_bytes, c->crc, c->documents,
		index_root.copies, c->text_bytes * index_root.copies);
	fprintf(out,
		"\"build\":{\"seconds\":%.3f,\"threads\":%u,\"terms\":%" PRIu64
		",\"postings\":%" PRIu64 "},\n",
		(double)(r->built_ns - r->opened_ns) / 1e9,
		p->options->builders, r->first_terms, r->first_postings);
	json_span("build_pauses", sum_events(r, HEAP_PAUSE, false), out);
	json_span("build_assists", sum_events(r, HEAP_ASSIST, false), out);
	fprintf(out,
		"\"seconds\":%.3f,\"index\":{\"bytes\":%" PRIu64
		",\"bytes_per_s\":%.0f,\"segments\":%" PRIu64
		",\"collections\":%" PRIu64 "},\n",
		seconds(r), r->indexed_bytes,
		(double)r->indexed_bytes / seconds(r), r->segments_built,
		r->collections);
	fprintf(out,
		"\"queries\":{\"rate\":%u,\"count\":%" PRIu64
		",\"matches\":%" PRIu64 ",\"snippets\":%" PRIu64
		",\"cache_hits\":%" PRIu64 ",\"seed\":%" PRIu64
		",\"checksum\":\"%016" PRIx64 "\"},\n",
		p->options->rate, r->totals.queries, r->totals.matches,
		r->totals.snippets, r->totals.cache_hits, p->options->seed,
		r->totals.checksum);
	json_latency("latency_ns", &r->latency, out);
	json_latency("service_ns", &r->service, out);
	json_latency("noise_ns", &r->noise, out);
	json_span("pauses", sum_events(r, HEAP_PAUSE, true), out);
	json_span("assists", sum_events(r, HEAP_ASSIST, true), out);
	fprintf(out,
		"\"peak_rss\":%" PRIu64 ",\"cpu\":{\"user_ns\":%" PRIu64
		",\"system_ns\":%" PRIu64 ",\"collector_ns\":%" PRIu64 "},\n",
		r->peak_rss, r->user_ns, r->system_ns, r->collector_cpu_ns);
	json_buckets(&r->latency, out);
	json_timeline(r, out);
	json_events(r, out);
	json_windows(r, out);
	fprintf(out, "}\n");
}
