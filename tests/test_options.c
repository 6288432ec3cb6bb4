/* SPDX-License-Identifier: MIT */
/* The option strings: every type, every limit, every complaint. */
#include <criterion/criterion.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include <weir/weir.h>

#include "runtime/options.h"

static struct wr_options o;

static void setup(void)
{
	cr_assert_eq(wr_options_init(&o), 0);
}

static void teardown(void)
{
	wr_options_fini(&o);
}

TestSuite(options, .init = setup, .fini = teardown);

static void parse(const char *text)
{
	int err = wr_options_parse(&o, text, "test");

	cr_assert_eq(err, 0, "\"%s\" gave %d: %s", text, err,
		     weir_error_text());
}

/* `text` is refused, and the complaint has each of the words. */
static void refuse(const char *text, const char *word1, const char *word2)
{
	int err = wr_options_parse(&o, text, "test");

	cr_assert_eq(err, -EINVAL, "\"%s\" gave %d", text, err);
	cr_assert(strstr(weir_error_text(), "test: "), "\"%s\" said: %s", text,
		  weir_error_text());
	cr_assert(strstr(weir_error_text(), word1), "\"%s\" said: %s", text,
		  weir_error_text());
	cr_assert(strstr(weir_error_text(), word2), "\"%s\" said: %s", text,
		  weir_error_text());
}

Test(options, defaults)
{
	cr_assert_eq(o.heap_max, 0);
	cr_assert_eq(o.heap_min, 3ull << 20);
	cr_assert_eq(o.barrier, WR_BARRIER_AUTO);
	cr_assert_eq(o.stop, WR_STOP_SIGNALS);
	cr_assert_eq(o.growth, 0.25);
	cr_assert(o.generational);
	cr_assert_not(o.verify);
	cr_assert_str_eq(o.log, "");
}

Test(options, empty_string_changes_nothing)
{
	parse("");
	cr_assert_eq(o.heap_min, 3ull << 20);
}

Test(options, several_at_once)
{
	parse("heap-max=2g,barrier=async,log=gc+barrier,generational=off");
	cr_assert_eq(o.heap_max, 2ull << 30);
	cr_assert_eq(o.barrier, WR_BARRIER_ASYNC);
	cr_assert_str_eq(o.log, "gc+barrier");
	cr_assert_not(o.generational);
}

Test(options, later_wins)
{
	parse("markers=2,markers=3");
	cr_assert_eq(o.markers, 3);
	parse("markers=4,log=gc");
	parse("log=all");
	cr_assert_eq(o.markers, 4);
	cr_assert_str_eq(o.log, "all");
}

Test(options, sizes)
{
	parse("heap-max=1");
	cr_assert_eq(o.heap_max, 1);
	parse("heap-max=3k");
	cr_assert_eq(o.heap_max, 3ull << 10);
	parse("heap-max=3M");
	cr_assert_eq(o.heap_max, 3ull << 20);
	parse("heap-max=3g");
	cr_assert_eq(o.heap_max, 3ull << 30);
	parse("heap-max=2T");
	cr_assert_eq(o.heap_max, 2ull << 40);
	parse("heap-max=64t");
	cr_assert_eq(o.heap_max, 1ull << 46);
	parse("heap-max=00012k");
	cr_assert_eq(o.heap_max, 12ull << 10);
}

Test(options, bad_sizes)
{
	static const char *const bad[] = {
		"heap-max=",     "heap-max=g",
		"heap-max=-1",   "heap-max=+1",
		"heap-max=1x",   "heap-max=1gb",
		"heap-max=1 g",  "heap-max= 1",
		"heap-max=1.5g", "heap-max=0x10",
		"heap-max=1e3",  "heap-max=18446744073709551616",
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		refuse(bad[i], "heap-max", "k, m, g or t");
	cr_assert_eq(o.heap_max, 0);
}

Test(options, size_limits)
{
	refuse("heap-max=65t", "heap-max=65t", "64t");
	refuse("heap-max=18446744073709551615", "from 0 to", "64t");
	refuse("heap-max=18446744073709551615t", "from 0 to", "64t");
	refuse("heap-max=70368744177665", "from 0 to", "64t");
	refuse("heap-min=1023k", "heap-min", "from 1m to 64t");
	parse("heap-min=1m");
	cr_assert_eq(o.heap_min, 1ull << 20);
}

Test(options, numbers)
{
	parse("markers=0,pause-markers=64,seed=4294967295,delay=1000000");
	cr_assert_eq(o.markers, 0);
	cr_assert_eq(o.pause_markers, 64);
	cr_assert_eq(o.seed, 4294967295u);
	cr_assert_eq(o.delay, 1000000);
	refuse("markers=65", "markers=65", "from 0 to 64");
	refuse("seed=4294967296", "seed", "4294967295");
	refuse("markers=1k", "markers=1k", "whole number");
	refuse("markers=", "markers", "whole number");
	refuse("markers=two", "two", "whole number");
}

Test(options, decimals)
{
	parse("growth=0.05");
	cr_assert_eq(o.growth, 0.05);
	parse("growth=1");
	cr_assert_eq(o.growth, 1);
	parse("growth=2.250");
	cr_assert_eq(o.growth, 2.25);
	refuse("growth=0.04", "growth=0.04", "from 0.05 to 16");
	refuse("growth=16.1", "growth=16.1", "from 0.05 to 16");
	refuse("growth=nan", "growth=nan", "decimal");
	refuse("growth=.5", "growth=.5", "decimal");
	refuse("growth=1.", "growth=1.", "decimal");
	refuse("growth=1e1", "growth=1e1", "decimal");
	refuse("growth=-1", "growth=-1", "decimal");
	refuse("growth=0;5", "growth", "decimal");
	cr_assert_eq(o.growth, 2.25);
}

Test(options, switches)
{
	parse("verify=on,thp=off");
	cr_assert(o.verify);
	cr_assert_not(o.thp);
	refuse("verify=1", "verify=1", "on or off");
	refuse("verify=ON", "verify=ON", "on or off");
	refuse("verify=", "verify", "on or off");
	refuse("verify", "verify", "needs a value");
}

Test(options, barriers)
{
	static const struct {
		const char *text;          /* option */
		enum wr_barrier_kind kind; /* what it means */
	} all[] = {
		{"barrier=auto", WR_BARRIER_AUTO},
		{"barrier=async", WR_BARRIER_ASYNC},
		{"barrier=sync", WR_BARRIER_SYNC},
		{"barrier=sigbus", WR_BARRIER_SIGBUS},
		{"barrier=mprotect", WR_BARRIER_MPROTECT},
		{"barrier=none", WR_BARRIER_NONE},
	};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		parse(all[i].text);
		cr_assert_eq(o.barrier, all[i].kind, "%s", all[i].text);
	}
	refuse("barrier=uffd", "barrier=uffd", "mprotect or none");
	refuse("barrier=", "barrier", "auto, async");
}

Test(options, stops)
{
	parse("stop=safepoints");
	cr_assert_eq(o.stop, WR_STOP_SAFEPOINTS);
	parse("stop=signals");
	cr_assert_eq(o.stop, WR_STOP_SIGNALS);
	refuse("stop=never", "stop=never", "signals or safepoints");
}

Test(options, unknown_keys)
{
	refuse("heapmax=1g", "\"heapmax\"", "did you mean \"heap-max\"");
	refuse("gc-speed=11", "unknown option \"gc-speed\"", "--options");
	cr_assert_null(strstr(weir_error_text(), "did you mean"));
	refuse("=1", "unknown option \"\"", "--options");
	refuse("a-key-that-is-longer-than-any-key-of-the-table=1", "unknown",
	       "--options");
	refuse("Heap-max=1g", "\"Heap-max\"", "did you mean \"heap-max\"");
	refuse(" heap-max=1g", "\" heap-max\"", "did you mean \"heap-max\"");
}

Test(options, commas)
{
	refuse(",", "missing", "comma");
	refuse("markers=1,", "missing", "comma");
	refuse(",markers=1", "missing", "comma");
	refuse("markers=1,,verify=on", "missing", "comma");
}

Test(options, strings_may_hold_equals)
{
	parse("trace=/tmp/a=b.json");
	cr_assert_str_eq(o.trace, "/tmp/a=b.json");
	parse("trace=");
	cr_assert_str_eq(o.trace, "");
}

Test(options, locale_changes_nothing)
{
	/* A locale with a decimal comma, if there is one. */
	setlocale(LC_ALL, "de_DE.UTF-8");
	parse("growth=0.75");
	cr_assert_eq(o.growth, 0.75);
}

Test(options, list)
{
	char *text = NULL;
	size_t size = 0, lines = 0, options = 0;
	FILE *f = open_memstream(&text, &size);

	wr_options_print(f);
	fclose(f);
	for (char *s = text; (s = strchr(s, '\n')); s++)
		lines++;
#define X(field, key, type, dflt, lo, hi, help)                \
	options++;                                             \
	cr_assert(strstr(text, key " "), "%s is listed", key); \
	cr_assert(strstr(text, help), "%s is explained", key);
#include "runtime/options.def"
#undef X
	cr_assert_eq(lines, options);
	cr_assert(strstr(text, "3m"));
	cr_assert(strstr(text, "auto"));
	cr_assert(strstr(text, "signals"));
	free(text);
}
