/* SPDX-License-Identifier: MIT */
/*
 * Which pages of a range are read-write, from /proc/self/maps: for the back
 * ends that can protect no others, see wr_protector.learn.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "runtime/barrier_map.h"
#include "runtime/check.h"
#include "runtime/procmaps.h"

int wr_map_can_learn(const char *who)
{
	if (!access(WR_PROCMAPS, R_OK))
		return 0;
	return wr_error(ENOTSUP,
			"%s reads " WR_PROCMAPS
			", which is not there: %s; mount /proc",
			who, strerror(errno));
}

int wr_map_learn(struct wr_barrier *b, struct wr_range *r, uintptr_t start,
		 uintptr_t end)
{
	struct wr_mapping map;
	struct wr_procmaps m;

	if (wr_procmaps_open(&m))
		return wr_error(errno,
				WR_PROCMAPS ": %s; mount /proc, or raise "
					    "RLIMIT_NOFILE",
				strerror(errno));
	while (wr_procmaps_next(&m, &map) && map.start < end) {
		if (map.start < start)
			map.start = start;
		if (map.end > end)
			map.end = end;
		if (map.writable && map.start < map.end)
			wr_map_set_usable(r->state,
					  wr_map_index(b, r, map.start),
					  wr_map_index(b, r, map.end));
	}
	wr_procmaps_close(&m);
	return 0;
}
