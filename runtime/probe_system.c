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

/* The largest of want, want / 2, want / 4 ... that fits, or 0; tried from 1 MiB
 * on. */
static size_t largest(bool (*fits)(size_t), size_t want)
{
	while (want >= MIB && !fits(want))
		want = want / 2 & ~(MIB - 1);
	return want >= MIB ? want : 0;
}

/* As the heap does it: addresses first, then access; nothing is touched. */
static bool reserves(size_t size)
{
	const struct wr_sys *sys = wr_sys_linux();
	void *p = sys->reserve(size, sys->page_size);

	if (p)
		sys->release(p, size);
	return p != NULL;
}

static bool commits(size_t size)
{
	const struct wr_sys *sys = wr_sys_linux();
	void *p = sys->reserve(size, sys->page_size);
	bool done = p && !sys->commit(p, size, false);

	if (p)
		sys->release(p, size);
	return done;
}

/* Charged to the commit limit as the heap's memory is, but shared, so that
 * RLIMIT_DATA does not count it. */
static bool charges(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED)
		munmap(p, size);
	return p != MAP_FAILED;
}

/* "RLIMIT_DATA unlimited"; whether it is limited. */
static bool show_limit(__rlimit_resource_t which, const char *name, char *text,
		       size_t size)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

	getrlimit(which, &limit);
	if (limit.rlim_cur == RLIM_INFINITY) {
		snprintf(text, size, "%s unlimited", name);
		return false;
	}
	snprintf(text, size, "%s %llu MiB", name,
		 (unsigned long long)limit.rlim_cur / MIB);
	return true;
}

/* Without the root: the limit that holds is the process's own. */
void wr_probe_address_space(const char *root, struct wr_probe_result *r)
{
	size_t want = wr_sys_linux()->memory_limit() & ~(MIB - 1);
	size_t got = largest(reserves, want);
	char cause[200], shown[48];
	bool limited = show_limit(RLIMIT_AS, "RLIMIT_AS", shown, sizeof(shown));

	(void)root;
	if (got == want) {
		wr_probe_yes(r, "%s, %zu MiB can be reserved", shown,
			     want / MIB);
		return;
	}
	snprintf(cause, sizeof(cause),
		 "%zu MiB of addresses, the machine's memory, cannot be "
		 "reserved; %zu MiB can",
		 want / MIB, got / MIB);
	wr_probe_no(r, cause,
		    limited ? "ulimit -v unlimited, or set heap-max well below "
			      "the limit"
			    : "set heap-max lower");
	snprintf(r->detail, sizeof(r->detail), "%s", shown);
}

void wr_probe_data_limit(const char *root, struct wr_probe_result *r)
{
	size_t want =
		largest(reserves, wr_sys_linux()->memory_limit() & ~(MIB - 1));
	size_t got = largest(commits, want);
	char cause[200], shown[48];
	bool limited =
		show_limit(RLIMIT_DATA, "RLIMIT_DATA", shown, sizeof(shown));

	(void)root;
	if (got && got == want) {
		wr_probe_yes(r, "%s, %zu MiB can be made writable", shown,
			     want / MIB);
		return;
	}
	snprintf(cause, sizeof(cause),
		 "of %zu MiB that can be reserved only %zu MiB can be made "
		 "writable",
		 want / MIB, got / MIB);
	wr_probe_no(r, cause,
		    limited ? "ulimit -d unlimited, or set heap-max well below "
			      "the limit"
			    : "see overcommit; or set heap-max lower");
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

/* Done without root; what is read there only explains. */
void wr_probe_overcommit(const char *root, struct wr_probe_result *r)
{
	size_t want =
		largest(reserves, wr_sys_linux()->memory_limit() & ~(MIB - 1));
	size_t got = largest(charges, want);
	unsigned long long limit, used;
	char mode[16], setting[48], cause[240];

	if (!wr_probe_read(root, "/proc/sys/vm/overcommit_memory", mode,
			   sizeof(mode)))
		snprintf(mode, sizeof(mode), "unknown");
	snprintf(setting, sizeof(setting), "vm.overcommit_memory=%s", mode);
	if (got && got == want) {
		wr_probe_yes(r, "%s, %zu MiB can be committed untouched",
			     setting, want / MIB);
		return;
	}
	if (strcmp(mode, "2")) {
		snprintf(cause, sizeof(cause),
			 "of %zu MiB that can be reserved only %zu MiB can be "
			 "committed",
			 want / MIB, got / MIB);
		wr_probe_no(r, cause,
			    "sysctl vm.overcommit_memory=0, or set heap-max "
			    "lower");
	} else {
		limit = meminfo(root, "CommitLimit") / 1024;
		used = meminfo(root, "Committed_AS") / 1024;
		snprintf(cause, sizeof(cause),
			 "what the heap commits is charged at once, touched or "
			 "not: %zu of %zu MiB can be had; %llu of %llu MiB are "
			 "left",
			 got / MIB, want / MIB, limit > used ? limit - used : 0,
			 limit);
		wr_probe_no(
			r, cause,
			"sysctl vm.overcommit_memory=0, or raise "
			"vm.overcommit_ratio, or set heap-max below what is "
			"left");
	}
	snprintf(r->detail, sizeof(r->detail), "%s", setting);
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

/* Every second page made writable: as many mappings as pages, which is how
 * the mprotect barrier comes by them. */
static size_t split(size_t pages)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
	char *p = mmap(NULL, pages * page, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return 0;
	while (n < pages && !mprotect(p + n * page, page, PROT_READ))
		n += 2;
	munmap(p, pages * page);
	return n;
}

void wr_probe_map_count(const char *root, struct wr_probe_result *r)
{
	size_t want = 1000, got = split(want);
	char setting[64], limit[32], cause[200];

	if (!wr_probe_read(root, "/proc/sys/vm/max_map_count", limit,
			   sizeof(limit)))
		snprintf(limit, sizeof(limit), "unknown");
	snprintf(setting, sizeof(setting), "vm.max_map_count=%s", limit);
	if (got >= want) {
		wr_probe_yes(r,
			     "%s, %zu more could be made; only the mprotect "
			     "barrier comes near it",
			     setting, want);
		return;
	}
	snprintf(cause, sizeof(cause),
		 "of %zu more mappings only %zu could be made: the process is "
		 "near its limit",
		 want, got);
	wr_probe_no(r, cause, "sysctl vm.max_map_count=262144");
	snprintf(r->detail, sizeof(r->detail), "%s", setting);
}
