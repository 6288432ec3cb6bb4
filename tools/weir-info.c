/* SPDX-License-Identifier: MIT */
/*
 * weir-info: what weir runs on here, and why.
 *
 * Prints the barrier that would be chosen, how every other one fares, and the
 * probe table, each entry found by doing; or the table of run-time options.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier.h"
#include "runtime/options.h"
#include "runtime/probe.h"
#include "tools/quote.h"

enum {
	EXIT_PRINTED = 0,
	EXIT_OUTPUT = 1,
	EXIT_USAGE = 2,
	EXIT_NO_BARRIER = 3,
};

static const char usage[] =
	"usage: weir-info [--json | --options | --check | --version | --help]\n"
	"\n"
	"Without an argument: what weir finds on this system, for people.\n"
	"  --json     the same as one JSON object\n"
	"  --options  the run-time options (WEIR_OPTIONS, weir_heap_create)\n"
	"  --check    print nothing; the exit status tells\n"
	"  --version  the library's version\n"
	"  --help     this text\n"
	"\n"
	"Exit status: 0 done; 1 the output could not be written; 2 bad\n"
	"arguments; with --check, 3 if only the barrier \"none\" is to be "
	"had,\n"
	"under which every collection stops the program while it marks.\n";

/* ---- For people --------------------------------------------------------- */

/* Text behind a label, broken at 79 columns, continued at `indent`. */
static void print_wrapped(int indent, const char *text)
{
	int column = indent;

	while (*text) {
		int n = (int)strcspn(text, " ");

		if (column > indent && column + n + 1 > 79) {
			printf("\n%*s", indent, "");
			column = indent;
		} else if (column > indent) {
			putchar(' ');
			column++;
		}
		printf("%.*s", n, text);
		column += n;
		text += n;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static void print_field(int indent, const char *label, const char *text)
{
	if (*text) {
		printf("%*s%-7s ", indent, "", label);
		print_wrapped(indent + 8, text);
	}
}

static void print_people(const struct utsname *os,
			 const struct wr_probe_choice *choice)
{
	size_t count;
	const struct wr_probe *probes = wr_probes(&count);

	printf("weir %s on %s %s %s, user %u\n\n", weir_version(), os->sysname,
	       os->release, os->machine, (unsigned)geteuid());
	printf("barrier: %s\n", wr_barrier_name(choice->kind));
	print_field(2, "why", choice->why);
	print_field(2, "better", choice->better);
	printf("\nbarriers\n");
	for (unsigned i = 0; i < WR_BARRIER_KINDS - 1; i++) {
		const struct wr_probe_kind *k = &choice->kinds[i];

		printf("  %-20s %s\n", wr_barrier_name(k->kind),
		       k->safe        ? "yes"
		       : k->available ? "on request only"
				      : "no");
		print_field(28, k->available ? "but" : "cause", k->reason);
	}
	printf("\nsystem\n");
	for (size_t i = 0; i < count; i++) {
		struct wr_probe_result r;

		probes[i].run("", &r);
		printf("  %-20s %-3s  ", probes[i].name,
		       r.available ? "yes" : "no");
		print_wrapped(28, probes[i].use);
		print_field(28, "found", r.detail);
		print_field(28, "cause", r.cause);
		print_field(28, "cure", r.cure);
	}
	printf("\nMore of what this kernel makes of write protection: "
	       "weir-kernel-check\n");
}

/* ---- For machines ------------------------------------------------------- */

static void print_key(const char *key, const char *value, const char *after)
{
	printf("\"%s\": ", key);
	quote(value);
	fputs(after, stdout);
}

static const char *json_bool(bool b)
{
	return b ? "true" : "false";
}

static void print_json(const struct utsname *os,
		       const struct wr_probe_choice *choice)
{
	size_t count;
	const struct wr_probe *probes = wr_probes(&count);

	printf("{\n  ");
	print_key("version", weir_version(), ",\n  ");
	print_key("kernel", os->release, ",\n  ");
	print_key("machine", os->machine, ",\n  ");
	printf("\"user\": %u,\n  ", (unsigned)geteuid());
	print_key("barrier", wr_barrier_name(choice->kind), ",\n  ");
	print_key("why", choice->why, ",\n  ");
	print_key("better", choice->better, ",\n  \"barriers\": [");
	for (unsigned i = 0; i < WR_BARRIER_KINDS - 1; i++) {
		const struct wr_probe_kind *k = &choice->kinds[i];

		printf("%s\n    { ", i ? "," : "");
		print_key("name", wr_barrier_name(k->kind), ", ");
		printf("\"available\": %s, \"safe\": %s, ",
		       json_bool(k->available), json_bool(k->safe));
		print_key("reason", k->reason, " }");
	}
	printf("\n  ],\n  \"probes\": [");
	for (size_t i = 0; i < count; i++) {
		struct wr_probe_result r;

		probes[i].run("", &r);
		printf("%s\n    { ", i ? "," : "");
		print_key("name", probes[i].name, ", ");
		print_key("use", probes[i].use, ",\n      ");
		printf("\"available\": %s, ", json_bool(r.available));
		print_key("detail", r.detail, ", ");
		print_key("cause", r.cause, ", ");
		print_key("cure", r.cure, " }");
	}
	printf("\n  ]\n}\n");
}

/* ------------------------------------------------------------------------- */

static int finish(void)
{
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "weir-info: cannot write: %s\n",
			strerror(errno));
		return EXIT_OUTPUT;
	}
	return EXIT_PRINTED;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct wr_probe_choice choice;
	struct utsname os;

	if (argc > 2) {
		fprintf(stderr,
			"weir-info: \"%s\" after \"%s\": one argument at "
			"most\n%s",
			argv[2], argv[1], usage);
		return EXIT_USAGE;
	}
	if (!strcmp(what, "--help")) {
		fputs(usage, stdout);
		return finish();
	}
	if (!strcmp(what, "--version")) {
		printf("%s\n", weir_version());
		return finish();
	}
	if (!strcmp(what, "--options")) {
		wr_options_print(stdout);
		return finish();
	}
	if (argc > 1 && strcmp(what, "--json") && strcmp(what, "--check")) {
		fprintf(stderr, "weir-info: unknown argument \"%s\"\n%s", what,
			usage);
		return EXIT_USAGE;
	}
	wr_probe_choose(&choice);
	if (!strcmp(what, "--check"))
		return choice.kind == WR_BARRIER_NONE ? EXIT_NO_BARRIER
						      : EXIT_PRINTED;
	uname(&os);
	if (argc > 1)
		print_json(&os, &choice);
	else
		print_people(&os, &choice);
	return finish();
}
