/* SPDX-License-Identifier: MIT */
/* The report of one save; times in the JSON object are milliseconds. */
#include "examples/sqlite_report.h"

#include <inttypes.h>

void report_name(const struct run_options *o, char *name, size_t bytes)
{
	snprintf(name, bytes, "%s%s%s", save_name(o->method),
		 o->store.huge ? " huge" : "",
		 o->store.small_units ? " (4K units)" : "");
}

static void text_stretch(const char *name, const struct stretch *s, FILE *out)
{
	fprintf(out,
		"  %-8s %9.0f transactions/s; p50 %.3f  p99 %.3f  p99.9 %.3f  "
		"longest %.3f ms (%.3f without waits for a processor)\n",
		name, s->per_second, s->p50_ms, s->p99_ms, s->p999_ms,
		s->longest_ms, s->own_ms);
}

void report_text(const struct run_options *o, const struct result *r, FILE *out)
{
	char name[64];

	report_name(o, name, sizeof(name));
	fprintf(out, "%s%s%s: %" PRIu64 " transactions, %.1f MiB: %s%s\n", name,
		*r->barrier ? ", " : "", r->barrier, r->transactions,
		(double)r->bytes / (1 << 20),
		r->ok ? "ok" : "WRONG: ", r->ok ? "" : r->why);
	fprintf(out,
		"  moment   writers held off %.3f ms (processor time %.3f ms), "
		"the longest wait of one %.3f ms\n",
		r->held_ms, r->held_cpu_ms, r->save.stall_ms);
	text_stretch("before", &r->before, out);
	text_stretch("save", &r->save, out);
	text_stretch("no save", &r->noise, out);
	fprintf(out,
		"  save     %.0f ms, written after %.0f ms; %.1f MiB more "
		"memory at the peak\n",
		r->save_ms, r->write_ms, r->memory_mib);
	if (o->method == SAVE_WEIR)
		fprintf(out,
			"  weir     prepare %.1f ms; %" PRIu64
			" faults, %" PRIu64 " units kept, %" PRIu64
			" of them in begin, %" PRIu64
			" waited for room; pool %.1f MiB, at most %.1f used\n",
			r->prepare_ms, r->faults, r->kept, r->hot, r->waits,
			r->pool_mib, r->pool_peak_mib);
}

static void json_string(const char *text, FILE *out)
{
	fputc('"', out);
	for (; *text; text++) {
		if ((unsigned char)*text < ' ') {
			fputc(' ', out);
			continue;
		}
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void json_stretch(const char *name, const struct stretch *s, FILE *out)
{
	fprintf(out,
		",\"%s\":{\"per_second\":%.1f,\"longest_ms\":%.6f,"
		"\"own_ms\":%.6f,"
		"\"p50_ms\":%.6f,\"p99_ms\":%.6f,\"p999_ms\":%.6f,"
		"\"stall_ms\":%.6f}",
		name, s->per_second, s->longest_ms, s->own_ms, s->p50_ms,
		s->p99_ms, s->p999_ms, s->stall_ms);
}

/* Until as long after the save as there was before it. */
static void json_windows(const struct result *r, FILE *out)
{
	double end = (2 * r->save_at_ms + r->save_ms) / RUN_WINDOW_MS;

	fprintf(out, ",\"save_at_ms\":%.3f,\"window_ms\":%g,\"windows_us\":[",
		r->save_at_ms, RUN_WINDOW_MS);
	for (unsigned i = 0; i < RUN_WINDOWS && i < end; i++)
		fprintf(out, "%s%" PRIu32, i ? "," : "", r->window_us[i]);
	fputc(']', out);
}

void report_json(const struct run_options *o, const struct result *r, FILE *out)
{
	fprintf(out,
		"{\"example\":\"sqlite-snapshot\",\"method\":\"%s\","
		"\"huge\":%s,\"small_units\":%s,\"barrier\":\"%s\","
		"\"writers\":%u,\"rate\":%" PRIu64 ",\"ok\":%s,\"why\":",
		save_name(o->method), o->store.huge ? "true" : "false",
		o->store.small_units ? "true" : "false", r->barrier, o->writers,
		o->rate, r->ok ? "true" : "false");
	json_string(r->why, out);
	fprintf(out,
		",\"transactions\":%" PRIu64 ",\"bytes\":%" PRIu64
		",\"held_ms\":%.6f,"
		"\"held_cpu_ms\":%.6f,\"prepare_ms\":%.3f,\"save_ms\":%.3f,"
		"\"write_ms\":%.3f,\"memory_mib\":%.3f,\"pool_mib\":%.3f,"
		"\"pool_peak_mib\":%.3f,\"faults\":%" PRIu64
		",\"kept\":%" PRIu64 ",\"hot\":%" PRIu64 ",\"waits\":%" PRIu64,
		r->transactions, r->bytes, r->held_ms, r->held_cpu_ms,
		r->prepare_ms, r->save_ms, r->write_ms, r->memory_mib,
		r->pool_mib, r->pool_peak_mib, r->faults, r->kept, r->hot,
		r->waits);
	json_stretch("before", &r->before, out);
	json_stretch("save", &r->save, out);
	json_stretch("noise", &r->noise, out);
	json_windows(r, out);
	fprintf(out, "}\n");
}
