/* SPDX-License-Identifier: MIT */
/* Delays and planted bugs for tests; see snap_point.h. */
#define _GNU_SOURCE
#include "runtime/snap_point.h"

#ifdef WEIR_MUTANTS
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum wr_snap_mutant wr_snap_mutant_active;
unsigned wr_snap_delay_us;

/* May run in a signal handler: no state but the clock. */
void wr_snap_point(void)
{
	struct timespec t;
	uint64_t r;

	if (!wr_snap_delay_us)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	r = (uint64_t)t.tv_nsec * 0x9e3779b97f4a7c15u >> 32;
	if (r % 16)
		return;
	t = (struct timespec){.tv_nsec =
				      (long)(r / 16 % wr_snap_delay_us) * 1000};
	nanosleep(&t, NULL);
}

int wr_snap_mutant_choose(const char *name)
{
	static const char *const names[] = {
		[WR_SNAP_MUTANT_NONE] = "none",
		[WR_SNAP_LATE_KEEP] = "late-keep",
		[WR_SNAP_EARLY_MARK] = "early-mark",
		[WR_SNAP_OPEN_FIRST] = "open-first",
		[WR_SNAP_NO_GRACE] = "no-grace",
		[WR_SNAP_LATE_COPY] = "late-copy",
		[WR_SNAP_SKIP_HOT] = "skip-hot",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(name, names[i])) {
			wr_snap_mutant_active = (enum wr_snap_mutant)i;
			return 0;
		}
	}
	return -EINVAL;
}
#endif
