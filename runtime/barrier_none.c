/* SPDX-License-Identifier: MIT */
/*
 * The barrier that is none: every page is DIRTY at all times.  A collector on
 * it stops the program for each whole cycle, and is correct.
 */
#include "runtime/barrier_ops.h"

static int none_open(struct wr_barrier *b)
{
	(void)b;
	return 0;
}

static void none_close(struct wr_barrier *b)
{
	(void)b;
}

static int none_add(struct wr_barrier *b, struct wr_range *r)
{
	(void)b;
	(void)r;
	return 0;
}

static void none_remove(struct wr_barrier *b, struct wr_range *r)
{
	(void)b;
	(void)r;
}

/* Arming and forgetting: the state that they ask for or a safe one holds. */
static int none_change(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	(void)b;
	(void)start;
	(void)end;
	return 0;
}

static int none_fetch(struct wr_barrier *b, uintptr_t start, uintptr_t end,
		      unsigned flags, wr_run_fn *fn, void *arg)
{
	struct wr_run run = {start, end};

	(void)b;
	(void)flags;
	fn(arg, &run, 1);
	return 0;
}

static int none_fork_child(struct wr_barrier *b)
{
	(void)b;
	return 0;
}

const struct wr_barrier_ops wr_barrier_none_ops = {
	.open = none_open,
	.close = none_close,
	.add = none_add,
	.remove = none_remove,
	.arm = none_change,
	.fetch = none_fetch,
	.forget = none_change,
	.fork_child = none_fork_child,
};
