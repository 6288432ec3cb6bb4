/* SPDX-License-Identifier: MIT */
/*
 * How much memory bench-snapshot's processes take.
 *
 * Looked at twice: before the snapshot, and when the sink has taken the last
 * page, before anything is given back.  That is the most: fork's copies are
 * made one by one and none goes before the child does, and weir's pool is there
 * from prepare to end.  Pages that parent and child share count once
 * (Pss_Anon).  The page cache of a file is no part of it, nor is memory shared
 * on purpose (the sink's checksums).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "benchmarks/snapshot_bench.h"

/* The number after `key` in a file of /proc, in bytes. */
static uint64_t proc_kib(const char *path, const char *key)
{
	char line[256];
	uint64_t kib = 0;
	bool found = false;
	FILE *f = fopen(path, "r");

	if (!f)
		bench_die("cannot read %s", path);
	while (!found && fgets(line, sizeof(line), f))
		found = !strncmp(line, key, strlen(key)) &&
			sscanf(line + strlen(key), "%" SCNu64, &kib) == 1;
	fclose(f);
	if (!found)
		bench_die("no %s in %s", key, path);
	return kib << 10;
}

void snap_memory_add(struct snap_memory *m, pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	m->anonymous += proc_kib(path, "Pss_Anon:");
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	m->tables += proc_kib(path, "VmPTE:");
}

void snap_memory_check(bool is_fork)
{
	uint64_t left = proc_kib("/proc/meminfo", "MemAvailable:");
	uint64_t need = snap_want.size + (256u << 20);

	/* A copy of each page, at worst. */
	need += is_fork ? snap_want.size : snap_want.pool;
	if (left < need)
		bench_die("%" PRIu64 " MiB of memory are available, this takes "
			  "up to %" PRIu64 "; choose a smaller --size",
			  left >> 20, need >> 20);
}
