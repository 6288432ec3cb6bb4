/* SPDX-License-Identifier: MIT */
/* The lines of log=gc and log=barrier; gc/report.h says who calls. */
#include "gc/report.h"

#include <weir/heap_snapshot.h>

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / 1048576;
}

static unsigned long long number(uint64_t n)
{
	return n;
}

void wg_report_begin(struct weir_heap *h, struct wg_report *r)
{
	wr_barrier_stats(h->barrier, &r->barrier);
	r->dirty_all = h->stats.dirty_pages;
}

void wg_report_slices(struct weir_heap *h, const struct wg_report *r,
		      const struct wg_stops *batch, uint64_t pages)
{
	if (!wr_log_gc(h->events) || !batch->count)
		return;
	wr_event_log(h->events,
		     "gc %llu slices: %u pauses, longest %.3f ms, in all %.3f "
		     "ms, put off for %.0f ms | %llu pages",
		     number(r->number), batch->count, ms(batch->max_ns),
		     ms(batch->total_ns), ms(r->put_off_ns), number(pages));
}

void wg_report_ahead(struct weir_heap *h, const struct wg_report *r)
{
	if (!wr_log_gc(h->events) || !r->ahead.count)
		return;
	wr_event_log(h->events,
		     "gc %llu ahead: %u pauses, longest %.3f ms, in all %.3f "
		     "ms",
		     number(r->number), r->ahead.count, ms(r->ahead.max_ns),
		     ms(r->ahead.total_ns));
}

void wg_report_pause(struct weir_heap *h, const struct wg_report *r)
{
	char verify[32] = "";

	if (!wr_log_gc(h->events))
		return;
	if (h->opt.verify)
		snprintf(verify, sizeof(verify), " verify %.3f",
			 ms(r->verify_ns));
	wr_event_log(h->events,
		     "gc %llu pause %.3f ms: stop %.3f remark %.3f weak "
		     "%.3f%s | %llu pages, marked %.3f MiB",
		     number(r->number), ms(r->pause_ns), ms(r->stop_ns),
		     ms(r->remark_ns), ms(r->weak_ns), verify,
		     number(r->remark_pages), mib(r->remark_marked));
}

void wg_report_snapshot(struct weir_heap *h, const struct wg_report *r,
			const struct weir_heap_snapshot_info *info,
			unsigned rounds)
{
	if (!wr_log_gc(h->events))
		return;
	wr_event_log(h->events,
		     "gc %llu snapshot: %u passes, %u rounds of stops, %llu "
		     "pages | in the pause %llu pages, %.3f ms",
		     number(r->number), info->passes, rounds,
		     number(info->pages), number(info->pages_stopped),
		     ms(info->stopped_ns));
}

static void report_barrier(struct weir_heap *h, const struct wg_report *r)
{
	enum wr_barrier_kind kind = wr_barrier_kind(h->barrier);
	const struct wr_barrier_stats *then = &r->barrier;
	struct wr_barrier_stats now;
	char faults[32] = "not seen";

	wr_barrier_stats(h->barrier, &now);
	/* The kernel resolves those of async and tells nobody. */
	if (kind != WR_BARRIER_ASYNC)
		snprintf(faults, sizeof(faults), "%llu",
			 number(now.faults - then->faults));
	wr_event_log(h->events,
		     "barrier gc %llu %s: arm %llu fetch %llu forget %llu, "
		     "system calls %llu | dirty %llu pages, faults %s",
		     number(r->number), wr_barrier_name(kind),
		     number(now.arms - then->arms),
		     number(now.fetches - then->fetches),
		     number(now.forgets - then->forgets),
		     number(now.calls - then->calls),
		     number(h->stats.dirty_pages - r->dirty_all), faults);
}

void wg_report_cycle(struct weir_heap *h, const struct wg_report *r,
		     uint64_t marked)
{
	struct weir_histogram *const held[] = {
		&h->stats.assist, &h->stats.handshake, &h->stats.waited};
	uint64_t waits = 0, longest = 0;

	if (wr_log_barrier(h->events))
		report_barrier(h, r);
	if (!wr_log_gc(h->events))
		return;
	for (unsigned i = 0; i < sizeof(held) / sizeof(held[0]); i++) {
		struct weir_histogram one;

		wr_histogram_read(held[i], &one);
		waits += one.count;
		if (one.max_ns > longest)
			longest = one.max_ns;
	}
	wr_event_log(
		h->events,
		"gc %llu %s%s: pauses %u, longest %.3f ms, in all %.3f ms | "
		"arm %.1f mark %.1f preclean %.1f/%u+%u sweep %.1f ms | dirty "
		"%llu pages, marked %.1f MiB, live %.1f MiB, used %.1f MiB | "
		"waits so far %llu, longest %.3f ms",
		number(r->number), r->full ? "full" : "minor",
		r->stopped ? " stopped" : "", r->pauses.count,
		ms(r->pauses.max_ns), ms(r->pauses.total_ns), ms(r->arm_ns),
		ms(r->mark_ns), ms(r->preclean_ns), r->passes, r->slices.count,
		ms(r->sweep_ns), number(r->dirty + r->remark_pages),
		mib(marked), mib(h->live),
		mib(__atomic_load_n(&h->used, __ATOMIC_RELAXED)), number(waits),
		ms(longest));
}

void wg_report_barrier(struct weir_heap *h)
{
	if (wr_log_barrier(h->events))
		wr_event_log(h->events, "barrier %s: %s",
			     wr_barrier_name(wr_barrier_kind(h->barrier)),
			     wr_barrier_why(h->barrier));
}
