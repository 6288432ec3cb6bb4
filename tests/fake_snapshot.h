/* SPDX-License-Identifier: MIT */
/*
 * A snapshot engine for tests of what writes files: it hands over a model
 * (tests/image_make.h), and fails where it is told to.  Its functions have the
 * engine's names in the text and others in the objects (tests/local.mk), so
 * that both can be in one program.
 */
#ifndef WEIR_TESTS_FAKE_SNAPSHOT_H
#define WEIR_TESTS_FAKE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>

#include <weir/snapshot.h>

struct model;

/* What a `weir_snapshot *` points to here. */
struct fake_snapshot {
	struct model *model; /* what is read */
	size_t run;          /* pages of a run */
	size_t failing;      /* the call of the sink before which it fails */
	int err;             /* what with, > 0; 0: it does not */
	size_t calls;        /* of the sink */
	bool aborted;        /* abort was called */
	/* Called before each call of the sink. */
	void (*before)(struct fake_snapshot *fake);
};

#endif
