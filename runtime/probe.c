/* SPDX-License-Identifier: MIT */
/*
 * The table of probes, and the barrier that AUTO would choose with its
 * reasons.  The choice is not worked out from the table: every kind is made
 * and tried, as wr_barrier_create() does, so the two cannot disagree.
 */
#include "runtime/probe.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier_ops.h"
#include "runtime/probe_impl.h"

static const struct wr_probe table[] = {
#define X(function, name, use) {name, use, wr_probe_##function},
#include "runtime/probe.def"
#undef X
};

#define PROBES (sizeof(table) / sizeof(table[0]))

const struct wr_probe *wr_probes(size_t *count)
{
	*count = PROBES;
	return table;
}

const struct wr_probe *wr_probe_find(const char *name)
{
	for (size_t i = 0; i < PROBES; i++)
		if (!strcmp(table[i].name, name))
			return &table[i];
	return NULL;
}

/* ---- For the probes ----------------------------------------------------- */

void wr_probe_yes(struct wr_probe_result *r, const char *detail, ...)
{
	va_list args;

	*r = (struct wr_probe_result){.available = true};
	va_start(args, detail);
	vsnprintf(r->detail, sizeof(r->detail), detail, args);
	va_end(args);
}

void wr_probe_no(struct wr_probe_result *r, const char *cause, const char *cure)
{
	*r = (struct wr_probe_result){.available = false};
	snprintf(r->cause, sizeof(r->cause), "%s", cause);
	snprintf(r->cure, sizeof(r->cure), "%s", cure);
}

bool wr_probe_read(const char *root, const char *path, char *text, size_t size)
{
	char name[512];
	ssize_t n;
	int fd;

	snprintf(name, sizeof(name), "%s%s", root, path);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	if (n < 0)
		return false;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return true;
}

/* ---- The choice --------------------------------------------------------- */

static void try_kind(enum wr_barrier_kind kind, struct wr_probe_kind *k)
{
	struct wr_barrier *b;

	*k = (struct wr_probe_kind){.kind = kind};
	if (!wr_barrier_create_safe(kind, &b)) {
		k->available = k->safe = true;
		wr_barrier_destroy(b);
		return;
	}
	snprintf(k->reason, sizeof(k->reason), "%s", weir_error_text());
	if (!wr_barrier_create(kind, &b)) {
		k->available = true;
		wr_barrier_destroy(b);
	}
}

void wr_probe_choose(struct wr_probe_choice *choice)
{
	static const enum wr_barrier_kind order[] = WR_BARRIER_AUTO_ORDER;
	const struct wr_probe_kind *async, *sync;
	struct wr_barrier *b;

	*choice = (struct wr_probe_choice){.kind = WR_BARRIER_NONE};
	for (unsigned i = 0; i < WR_BARRIER_KINDS - 1; i++)
		try_kind((enum wr_barrier_kind)(i + 1), &choice->kinds[i]);
	async = &choice->kinds[WR_BARRIER_ASYNC - 1];
	sync = &choice->kinds[WR_BARRIER_SYNC - 1];
	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		if (choice->kinds[order[i] - 1].safe) {
			choice->kind = order[i];
			break;
		}
	}
	/* The word of the one that decides. */
	if (!wr_barrier_create(WR_BARRIER_AUTO, &b)) {
		choice->kind = wr_barrier_kind(b);
		wr_barrier_destroy(b);
	}
	switch (choice->kind) {
	case WR_BARRIER_ASYNC:
		snprintf(choice->why, sizeof(choice->why),
			 "the kernel resolves write faults by itself and tells "
			 "which pages were written");
		snprintf(choice->better, sizeof(choice->better),
			 "nothing: this is the best one");
		break;
	case WR_BARRIER_SYNC:
		snprintf(choice->why, sizeof(choice->why),
			 "async is not to be had; a thread of the library "
			 "resolves write faults, 7 to 50 times slower");
		snprintf(choice->better, sizeof(choice->better),
			 "for async: %s", async->reason);
		break;
	default:
		snprintf(choice->why, sizeof(choice->why),
			 "neither async nor sync is to be had; every "
			 "collection stops the program while it marks%s",
			 sync->available
				 ? " (under sync, system calls that write into "
				   "the heap would fail)"
				 : "");
		snprintf(choice->better, sizeof(choice->better),
			 "for async: %s", async->reason);
		break;
	}
}
