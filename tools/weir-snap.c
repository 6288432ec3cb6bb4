/* SPDX-License-Identifier: MIT */
/*
 * weir-snap: what is in snapshot files, whether they are whole, how two of them
 * differ; and their memory back as plain files.
 *
 * Every command verifies all of every file that it is given, before anything
 * else.
 */
#include "tools/weir-snap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/image/codec.h"
#include "runtime/image/image.h"

static const char usage[] =
	"usage: weir-snap info [--json] FILE...\n"
	"       weir-snap verify [--each] FILE...\n"
	"       weir-snap restore [-o OUT] FILE...\n"
	"       weir-snap diff [--pages] [--json] A[,A...] B[,B...]\n"
	"       weir-snap --version | --help\n"
	"\n"
	"Snapshot files of weir: a whole one, or a chain of a whole one and "
	"the\n"
	"deltas that follow it, in the order they were made.  Each is "
	"verified\n"
	"from its first byte to its last.\n"
	"  info     what each file says of itself and how it is stored\n"
	"  verify   is it a chain, and is it whole?  --each: each file by "
	"itself,\n"
	"           also deltas without what they follow\n"
	"  restore  what memory held, to the file OUT, or OUT.0, OUT.1, ... "
	"if\n"
	"           there are several regions; sparse where it is zero.  Each "
	"is\n"
	"           replaced at once when it is whole.  OUT is the last FILE\n"
	"           with .raw behind it unless it is given\n"
	"  diff     where memory differs between two of them; --pages: each "
	"page\n"
	"           by itself.  Files of a chain are separated by commas\n"
	"  --json   the same for machines\n"
	"\n"
	"Exit status: 0 done, diff: the same; 1 a file is damaged, no "
	"snapshot\n"
	"or no chain, diff: they differ; 2 anything else, and any error of "
	"diff.\n";

/* ---- Output -------------------------------------------------------------- */

int snap_failed(int err)
{
	fflush(stdout);
	fprintf(stderr, "weir-snap: %s\n", weir_error_text());
	return err == -EBADMSG || err == -EINVAL || err == -ENODATA
		       ? EXIT_BAD
		       : EXIT_TROUBLE;
}

void snap_hex(const uint8_t id[16])
{
	for (int i = 0; i < 16; i++)
		printf("%02x", id[i]);
}

static int bad_usage(const char *cause, const char *what)
{
	fprintf(stderr, "weir-snap: %s%s%s\n%s", cause, *what ? ": " : "", what,
		usage);
	return EXIT_TROUBLE;
}

/* ---- info ---------------------------------------------------------------- */

static const char *kind_name(unsigned kind)
{
	return kind == WEIR_SNAPSHOT_BEGIN ? "begin" : "end";
}

static void print_time(uint64_t ns)
{
	time_t seconds = (time_t)(ns / 1000000000);
	char text[64] = "unknown";
	struct tm tm;

	if (ns && gmtime_r(&seconds, &tm))
		strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	printf("%s", text);
}

static void info_people(const weir_image *image)
{
	const struct wi_source *file = &image->files[0];
	const struct wi_identity *identity = &file->identity;
	bool whole = wi_id_is_zero(identity->base);

	quote(file->name);
	printf(": %s, kind %s\n  id      ", whole ? "whole" : "delta",
	       kind_name(identity->kind));
	snap_hex(identity->id);
	if (!whole) {
		printf("\n  follows ");
		snap_hex(identity->base);
	}
	printf("\n  time    ");
	print_time(file->time_ns);
	printf("\n  stored  %" PRIu64 " bytes, %" PRIu64 " chunks, pages of "
	       "%u bytes: %" PRIu64 " with data, %" PRIu64 " zero\n",
	       file->bytes, file->chunks, identity->page, file->data_pages,
	       file->zero_pages);
	for (unsigned c = 0; c < 3; c++)
		if (file->stored[c])
			printf("  %-7s %" PRIu64 " bytes\n", wi_codec_name(c),
			       file->stored[c]);
	for (uint32_t i = 0; i < identity->count; i++) {
		const struct wi_region *r = &identity->regions[i];

		printf("  region %u ", i);
		quote(r->name);
		printf(": %" PRIu64 " bytes at %#" PRIx64 ", data in %" PRIu64
		       "\n",
		       r->bytes, r->address,
		       image->data_pages[i] * identity->page);
	}
}

static void info_json(const weir_image *image, bool first)
{
	const struct wi_source *file = &image->files[0];
	const struct wi_identity *identity = &file->identity;

	printf("%s\n  {\"file\": ", first ? "" : ",");
	quote(file->name);
	printf(", \"version\": %d, \"id\": \"", WI_VERSION);
	snap_hex(identity->id);
	printf("\", \"base\": ");
	if (wi_id_is_zero(identity->base)) {
		printf("null");
	} else {
		putchar('"');
		snap_hex(identity->base);
		putchar('"');
	}
	printf(", \"kind\": \"%s\", \"time_ns\": %" PRIu64
	       ", \"page\": %u, \"bytes\": %" PRIu64 ", \"chunks\": %" PRIu64
	       ", \"data_pages\": %" PRIu64 ", \"zero_pages\": %" PRIu64
	       ",\n   \"stored\": {",
	       kind_name(identity->kind), file->time_ns, identity->page,
	       file->bytes, file->chunks, file->data_pages, file->zero_pages);
	for (unsigned c = 0; c < 3; c++)
		printf("%s\"%s\": %" PRIu64, c ? ", " : "", wi_codec_name(c),
		       file->stored[c]);
	printf("},\n   \"regions\": [");
	for (uint32_t i = 0; i < identity->count; i++) {
		const struct wi_region *r = &identity->regions[i];

		printf("%s\n    {\"name\": ", i ? "," : "");
		quote(r->name);
		printf(", \"address\": %" PRIu64 ", \"bytes\": %" PRIu64
		       ", \"data\": %" PRIu64 ", \"unit\": %" PRIu64
		       ", \"flags\": %u}",
		       r->address, r->bytes,
		       image->data_pages[i] * identity->page, r->unit,
		       r->flags);
	}
	printf("]}");
}

static int info(const char *const *paths, size_t count,
		const struct snap_options *options)
{
	int status = EXIT_FINE;
	bool first = true;

	if (options->json)
		printf("[");
	for (size_t i = 0; i < count; i++) {
		weir_image *image;
		int err = weir_image_open_part(paths[i], &image);

		if (err) {
			int failed = snap_failed(err);

			status = failed > status ? failed : status;
			continue;
		}
		if (options->json)
			info_json(image, first);
		else
			info_people(image);
		first = false;
		weir_image_close(image);
	}
	if (options->json)
		printf("\n]\n");
	return status;
}

/* ---- verify -------------------------------------------------------------- */

static int verify(const char *const *paths, size_t count,
		  const struct snap_options *options)
{
	int status = EXIT_FINE;
	weir_image *image;
	int err;

	if (!options->each) {
		err = weir_image_open(paths, count, &image);
		if (err)
			return snap_failed(err);
		weir_image_close(image);
		printf("whole: %zu file%s\n", count, count == 1 ? "" : "s");
		return EXIT_FINE;
	}
	for (size_t i = 0; i < count; i++) {
		struct weir_image_info what = {.size = sizeof what};

		err = weir_image_open_part(paths[i], &image);
		if (err) {
			int failed = snap_failed(err);

			status = failed > status ? failed : status;
			continue;
		}
		weir_image_info(image, &what);
		quote(paths[i]);
		printf(": undamaged, %s\n",
		       wi_id_is_zero(what.base) ? "whole" : "delta");
		weir_image_close(image);
	}
	return status;
}

/* ---- Arguments ----------------------------------------------------------- */

/* One option; how many arguments it took, 0: it is none of the command's. */
static int take_option(const char *command, char **argv, int left,
		       struct snap_options *options)
{
	const char *option = argv[0];
	bool is_diff = !strcmp(command, "diff");

	if (!strcmp(option, "--json") && (is_diff || !strcmp(command, "info")))
		options->json = true;
	else if (!strcmp(option, "--pages") && is_diff)
		options->pages = true;
	else if (!strcmp(option, "--each") && !strcmp(command, "verify"))
		options->each = true;
	else if (!strcmp(option, "-o") && !strcmp(command, "restore") &&
		 left > 1 && *argv[1])
		return options->out = argv[1], 2;
	else
		return 0;
	return 1;
}

static int run(const char *command, const char *const *paths, size_t count,
	       const struct snap_options *options)
{
	if (!strcmp(command, "info"))
		return info(paths, count, options);
	if (!strcmp(command, "verify"))
		return verify(paths, count, options);
	if (!strcmp(command, "restore"))
		return snap_restore(paths, count, options);
	if (count != 2)
		return bad_usage("diff takes two snapshots", "");
	return snap_diff(paths[0], paths[1], options);
}

/* What was printed must have got out. */
static int finish(int status)
{
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "weir-snap: cannot write: %s\n",
			strerror(errno));
		return EXIT_TROUBLE;
	}
	return status;
}

int main(int argc, char **argv)
{
	static const char *const commands[] = {"info", "verify", "restore",
					       "diff"};
	struct snap_options options = {0};
	const char *command = argc > 1 ? argv[1] : "";
	bool known = false;
	int i = 2;

	if (argc == 2 && !strcmp(command, "--help")) {
		fputs(usage, stdout);
		return finish(EXIT_FINE);
	}
	if (argc == 2 && !strcmp(command, "--version")) {
		printf("%s\n", weir_version());
		return finish(EXIT_FINE);
	}
	if (argc < 2)
		return bad_usage("no command", "");
	for (size_t c = 0; c < 4; c++)
		known = known || !strcmp(command, commands[c]);
	if (!known)
		return bad_usage("unknown command", command);
	while (i < argc && argv[i][0] == '-' && argv[i][1]) {
		int took;

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		took = take_option(command, argv + i, argc - i, &options);
		if (!took)
			return bad_usage("unknown or unfinished option",
					 argv[i]);
		i += took;
	}
	if (i == argc)
		return bad_usage("no file", "");
	return finish(run(command, (const char *const *)argv + i,
			  (size_t)(argc - i), &options));
}
