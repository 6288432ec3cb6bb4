/* SPDX-License-Identifier: MIT */
/*
 * Probes of memory: huge pages, limits, overcommit; and membarrier.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/membarrier.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/cgroup.h"
#include "runtime/probe_impl.h"
#include "runtime/sys.h"

#define MIB ((size_t)1 << 20)
#define THP "/sys/kernel/mm/transparent_hugepage/"

/* "always [madvise] never" -> "madvise". */
static void chosen_word(const char *root, const char *path, char *word,
			size_t size)
{
	char text[128], *open_bracket, *close_bracket;

	snprintf(word, size, "unknown");
	if (!wr_probe_read(root, path, text, sizeof(text)))
		return;
	open_bracket = strchr(text, '[');
	close_bracket = open_bracket ? strchr(open_bracket, ']') : NULL;
	if (close_bracket) {
		*close_bracket = '\0';
		snprintf(word, size, "%s", open_bracket + 1);
	}
}

/* Touch one byte: is a whole huge page resident then? */
static bool huge_page_came(size_t huge)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = huge / page, there = 0;
	char *map = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *resident = malloc(n);
	char *p;

	if (map != MAP_FAILED && resident) {
		p = (char *)(((uintptr_t)map + huge - 1) / huge * huge);
		madvise(p, huge, MADV_HUGEPAGE);
		*(volatile char *)p = 1;
		if (!mincore(p, huge, resident))
			for (size_t i = 0; i < n; i++)
				there += resident[i] & 1;
	}
	free(resident);
	if (map != MAP_FAILED)
		munmap(map, 2 * huge);
	return there == n;
}

void wr_probe_thp(const char *root, struct wr_probe_result *r)
{
	char enabled[32], defrag[32], size[32], detail[128];
	size_t huge = 0;

	chosen_word(root, THP "enabled", enabled, sizeof(enabled));
	chosen_word(root, THP "defrag", defrag, sizeof(defrag));
	if (wr_probe_read("", THP "hpage_pmd_size", size, sizeof(size)))
		huge = strtoull(size, NULL, 10);
	if (huge < 64 * 1024 || huge > 1024 * MIB)
		huge = 2 * MIB;
	snprintf(detail, sizeof(detail), "enabled=%s defrag=%s", enabled,
		 defrag);
	if (huge_page_came(huge)) {
		wr_probe_yes(r, "%s, %zu KiB came at one touch", detail,
			     huge / 1024);
		return;
	}
	if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1)
		wr_probe_no(r, "they are turned off for this process",
			    "do not start it with PR_SET_THP_DISABLE");
	else if (!strcmp(enabled, "never"))
		wr_probe_no(r, "they are turned off (enabled=never)",
			    "echo madvise > " THP "enabled");
	else if (!strcmp(enabled, "unknown"))
		wr_probe_no(r,
			    "no huge page came and " THP "enabled cannot be "
			    "read",
			    "mount /sys, or build the kernel with "
			    "CONFIG_TRANSPARENT_HUGEPAGE");
	else
		wr_probe_no(r,
			    "no huge page came at the first touch: memory is "
			    "short or fragmented, or defrag is off",
			    "free memory, or echo madvise > " THP "defrag");
	snprintf(r->detail, sizeof(r->detail), "%s", detail);
}

static long membarrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0);
}

void wr_probe_membarrier(const char *root, struct wr_probe_result *r)
{
	(void)root;
	if (!membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) &&
	    !membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)) {
		wr_probe_yes(r, "private expedited");
		return;
	}
	wr_probe_no(r,
		    errno == EPERM
			    ? "the system call is denied by a seccomp filter"
			    : "the system call is not there: a seccomp filter "
			      "hides it, or the kernel lacks CONFIG_MEMBARRIER",
		    "allow membarrier in the seccomp profile");
}

/* ---- Memory ------------------------------------------------------------- */

/* Without the root: the limit that holds is the process's own. */
void wr_probe_address_space(const char *root, struct wr_probe_result *r)
{
	size_t want = wr_sys_linux()->memory_limit();
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
	char cause[200], shown[48] = "RLIMIT_AS unlimited";
	void *p;

	(void)root;
	getrlimit(RLIMIT_AS, &limit);
	if (limit.rlim_cur != RLIM_INFINITY)
		snprintf(shown, sizeof(shown), "RLIMIT_AS %llu MiB",
			 (unsigned long long)limit.rlim_cur / MIB);
	p = mmap(NULL, want, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p != MAP_FAILED) {
		munmap(p, want);
		wr_probe_yes(r, "%s, %zu MiB can be reserved", shown,
			     want / MIB);
		return;
	}
	snprintf(cause, sizeof(cause),
		 "%zu MiB of addresses, the machine's memory, cannot be "
		 "reserved: %s",
		 want / MIB, strerror(errno));
	wr_probe_no(r, cause,
		    limit.rlim_cur != RLIM_INFINITY
			    ? "ulimit -v unlimited, or set heap-max well below "
			      "the limit"
			    : "set heap-max lower");
	snprintf(r->detail, sizeof(r->detail), "%s", shown);
}

/* kB value of a key of /proc/meminfo; 0: not found. */
static unsigned long long meminfo(const char *root, const char *key)
{
	char name[512], line[160];
	unsigned long long value = 0;
	size_t n = strlen(key);
	FILE *f;

	snprintf(name, sizeof(name), "%s/proc/meminfo", root);
	f = fopen(name, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, n) && line[n] == ':') {
			value = strtoull(line + n + 1, NULL, 10);
			break;
		}
	}
	fclose(f);
	return value;
}

void wr_probe_overcommit(const char *root, struct wr_probe_result *r)
{
	unsigned long long limit, used, left;
	char mode[16], cause[240];

	if (!wr_probe_read(root, "/proc/sys/vm/overcommit_memory", mode,
			   sizeof(mode))) {
		wr_probe_no(r, "/proc/sys/vm/overcommit_memory cannot be read",
			    "mount /proc");
		return;
	}
	if (!strcmp(mode, "0") || !strcmp(mode, "1")) {
		wr_probe_yes(r, "vm.overcommit_memory=%s (%s)", mode,
			     *mode == '0' ? "heuristic" : "always");
		return;
	}
	if (strcmp(mode, "2")) {
		snprintf(cause, sizeof(cause),
			 "vm.overcommit_memory is \"%s\", which weir does not "
			 "know",
			 mode);
		wr_probe_no(r, cause, "sysctl vm.overcommit_memory=0");
		return;
	}
	limit = meminfo(root, "CommitLimit") / 1024;
	used = meminfo(root, "Committed_AS") / 1024;
	left = limit > used ? limit - used : 0;
	snprintf(cause, sizeof(cause),
		 "vm.overcommit_memory=2: what the heap commits is charged at "
		 "once, touched or not; %llu of %llu MiB are left",
		 left, limit);
	wr_probe_no(r, cause,
		    "sysctl vm.overcommit_memory=0, or raise "
		    "vm.overcommit_ratio, or set heap-max below what is left");
	snprintf(r->detail, sizeof(r->detail), "vm.overcommit_memory=2");
}

void wr_probe_memory(const char *root, struct wr_probe_result *r)
{
	unsigned long long ram = meminfo(root, "MemTotal") / 1024;
	size_t group = wr_cgroup_memory_limit(root);

	if (!ram)
		ram = (unsigned long long)sysconf(_SC_PHYS_PAGES) *
		      (unsigned long long)sysconf(_SC_PAGESIZE) / MIB;
	if (group == SIZE_MAX || group / MIB >= ram)
		wr_probe_yes(r, "%llu MiB of RAM, no control group limit below",
			     ram);
	else
		wr_probe_yes(r, "%zu MiB by the control group, %llu MiB of RAM",
			     group / MIB, ram);
}

void wr_probe_map_count(const char *root, struct wr_probe_result *r)
{
	char text[32];

	if (wr_probe_read(root, "/proc/sys/vm/max_map_count", text,
			  sizeof(text)))
		wr_probe_yes(r, "%s; only the mprotect barrier comes near it",
			     text);
	else
		wr_probe_no(r, "/proc/sys/vm/max_map_count cannot be read",
			    "mount /proc");
}
