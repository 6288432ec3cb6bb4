/* SPDX-License-Identifier: MIT */
/*
 * The probe table and the choice of a barrier, also where things are missing:
 * each test takes something away from its own process and looks whether that
 * is found, explained, and survived.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <weir/weir.h>

#include "runtime/barrier.h"
#include "runtime/probe.h"
#include "tests/memory.h"
#include "tests/remove_tree.h"
#include "tests/take_away.h"

static struct wr_probe_result run(const char *name, const char *root)
{
	const struct wr_probe *p = wr_probe_find(name);
	struct wr_probe_result r;

	cr_assert(p, "no probe \"%s\"", name);
	memset(&r, 0x5a, sizeof(r));
	p->run(root, &r);
	if (r.available)
		cr_assert(!*r.cause && !*r.cure, "%s", name);
	else
		cr_assert(*r.cause && *r.cure, "%s", name);
	return r;
}

/* The probe says no, with these words in its texts. */
static void expect_no(const char *name, const char *root, const char *cause,
		      const char *cure)
{
	struct wr_probe_result r = run(name, root);

	cr_assert(!r.available, "%s: %s", name, r.detail);
	cr_assert(strstr(r.cause, cause), "%s: cause \"%s\"", name, r.cause);
	cr_assert(strstr(r.cure, cure), "%s: cure \"%s\"", name, r.cure);
}

/* What AUTO takes; the probe must say the same, and `why` what is missing. */
static void expect_choice(enum wr_barrier_kind kind, const char *better)
{
	struct wr_probe_choice choice;
	struct wr_barrier *b;

	cr_assert_eq(wr_barrier_create(WR_BARRIER_AUTO, &b), 0);
	cr_assert_eq(wr_barrier_kind(b), kind, "auto took %s",
		     wr_barrier_name(wr_barrier_kind(b)));
	wr_barrier_destroy(b);
	wr_probe_choose(&choice);
	cr_assert_eq(choice.kind, kind);
	cr_assert(strstr(choice.better, better), "better: \"%s\"",
		  choice.better);
	cr_assert_geq(strlen(choice.why), 20);
	for (unsigned i = 0; i < WR_BARRIER_KINDS - 1; i++) {
		const struct wr_probe_kind *k = &choice.kinds[i];
		int err;

		cr_assert(!k->safe || k->available);
		cr_assert_eq(k->safe, !*k->reason);
		err = wr_barrier_create(k->kind, &b);
		cr_assert_eq(err, k->available ? 0 : -ENOTSUP, "%s: %d",
			     wr_barrier_name(k->kind), err);
		if (!err)
			wr_barrier_destroy(b);
	}
}

static void expect_refused(enum wr_barrier_kind kind, const char *text)
{
	struct wr_barrier *b;

	cr_assert_eq(wr_barrier_create(kind, &b), -ENOTSUP);
	cr_assert(strstr(weir_error_text(), text), "\"%s\"", weir_error_text());
}

/* ---- As it is ----------------------------------------------------------- */

Test(probe, table)
{
	size_t count;
	const struct wr_probe *p = wr_probes(&count);
	unsigned fds = 0, threads = threads_at_first();

	cr_assert_geq(count, 12);
	cr_assert_null(wr_probe_find("no-such-probe"));
	for (unsigned round = 0; round < 3; round++) {
		struct wr_probe_choice choice;

		for (size_t i = 0; i < count; i++) {
			run(p[i].name, "");
			cr_assert_eq(wr_probe_find(p[i].name), &p[i],
				     "%s twice", p[i].name);
			cr_assert_geq(strlen(p[i].use), 10);
		}
		wr_probe_choose(&choice);
		/* Nothing is left behind. */
		if (round)
			cr_assert_eq(memory_entries("/proc/self/fd"), fds);
		fds = memory_entries("/proc/self/fd");
		cr_assert_eq(wait_for_threads(threads), threads);
	}
}

static void check_consistent(void)
{
	bool device = run("dev-userfaultfd", "").available;
	bool kernel = run("uffd-kernel-mode", "").available || device;
	bool any = run("uffd-user-mode", "").available || kernel;
	bool async = any && run("uffd-wp-async", "").available &&
		     run("pagemap-scan", "").available;
	bool sync = kernel && run("uffd-wp", "").available &&
		    (run("uffd-wp-unpopulated", "").available ||
		     run("uffd-wp-read-first", "").available);

	cr_assert(any || !run("uffd-wp", "").available);
	expect_choice(async  ? WR_BARRIER_ASYNC
		      : sync ? WR_BARRIER_SYNC
			     : WR_BARRIER_NONE,
		      async ? "nothing" : "for async");
}

Test(probe, agrees_with_the_choice_as_started)
{
	check_consistent();
}

Test(probe, agrees_with_the_choice_unprivileged)
{
	drop_privileges();
	check_consistent();
}

/* ---- Without userfaultfd ------------------------------------------------ */

Test(probe, seccomp_denies_userfaultfd)
{
	need_async();
	drop_privileges();
	deny(SYS_userfaultfd, EPERM);
	expect_no("uffd-user-mode", "", "seccomp", "seccomp");
	expect_no("uffd-kernel-mode", "", "seccomp", "sysctl");
	expect_no("uffd-wp", "", "seccomp", "seccomp");
	expect_no("uffd-wp-unpopulated", "", "seccomp", "seccomp");
	expect_no("uffd-wp-async", "", "seccomp", "seccomp");
	expect_no("uffd-sigbus", "", "seccomp", "seccomp");
	cr_assert(run("pagemap-scan", "").available);
	expect_refused(WR_BARRIER_ASYNC, "seccomp");
	expect_refused(WR_BARRIER_SYNC, "seccomp");
	expect_refused(WR_BARRIER_SIGBUS, "seccomp");
	expect_choice(WR_BARRIER_NONE, "seccomp");
}

/* How some container runtimes deny. */
Test(probe, seccomp_hides_userfaultfd)
{
	need_async();
	drop_privileges();
	deny(SYS_userfaultfd, ENOSYS);
	expect_no("uffd-user-mode", "", "CONFIG_USERFAULTFD", "seccomp");
	expect_refused(WR_BARRIER_ASYNC, "seccomp");
	expect_choice(WR_BARRIER_NONE, "seccomp");
}

Test(probe, the_device_is_another_way)
{
	need_async();
	if (!run("dev-userfaultfd", "").available)
		cr_skip("/dev/userfaultfd is not to be had");
	deny(SYS_userfaultfd, EPERM);
	expect_no("uffd-user-mode", "", "seccomp", "seccomp");
	cr_assert(run("uffd-wp-async", "").available);
	expect_choice(WR_BARRIER_ASYNC, "nothing");
}

Test(probe, no_descriptor_is_left)
{
	struct rlimit old;

	need_async();
	old = lower(RLIMIT_NOFILE, 0);
	expect_no("uffd-user-mode", "", "descriptor", "RLIMIT_NOFILE");
	expect_no("uffd-wp-async", "", "descriptor", "RLIMIT_NOFILE");
	expect_refused(WR_BARRIER_ASYNC, "descriptor");
	expect_choice(WR_BARRIER_NONE, "descriptor");
	/* The test framework wants some. */
	setrlimit(RLIMIT_NOFILE, &old);
}

/* ---- Without the page map ----------------------------------------------- */

Test(probe, not_dumpable)
{
	need_async();
	drop_privileges();
	cr_assert(!prctl(PR_SET_DUMPABLE, 0));
	if (access("/proc/self/pagemap", R_OK) == 0)
		cr_skip("/proc/self/pagemap opens all the same");
	expect_no("pagemap-scan", "", "dumpable", "PR_SET_DUMPABLE");
	expect_refused(WR_BARRIER_ASYNC, "dumpable");
	if (!run("uffd-kernel-mode", "").available)
		expect_choice(WR_BARRIER_NONE, "dumpable");
}

Test(probe, proc_is_not_mounted)
{
	need_async();
	leave_proc();
	expect_no("pagemap-scan", "", "/proc is not mounted", "mount");
	expect_no("soft-dirty", "", "/proc is not mounted", "mount");
	cr_assert(run("map-count", "").available);
	expect_refused(WR_BARRIER_ASYNC, "/proc is not mounted");
	expect_refused(WR_BARRIER_MPROTECT, "mount /proc");
	expect_choice(WR_BARRIER_SYNC, "/proc is not mounted");
	/* Huge pages are found by touching one, so still. */
	run("huge-pages", "");
}

Test(probe, proc_is_not_mounted_unprivileged)
{
	need_async();
	leave_proc();
	drop_privileges();
	expect_choice(WR_BARRIER_NONE, "/proc is not mounted");
}

/* ---- Memory ------------------------------------------------------------- */

Test(probe, address_space_is_limited)
{
	struct rlimit old;
	char text[64] = "";
	size_t pages = 0;
	int fd = open("/proc/self/statm", O_RDONLY);

	cr_assert(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	cr_assert(sscanf(text, "%zu", &pages) == 1);
	old = lower(RLIMIT_AS,
		    pages * (size_t)sysconf(_SC_PAGESIZE) + 64 * MIB);
	expect_no("address-space", "", "cannot be reserved", "ulimit -v");
	cr_assert(strstr(run("address-space", "").detail, "RLIMIT_AS"));
	/* The barrier itself needs next to nothing. */
	check_consistent();
	setrlimit(RLIMIT_AS, &old);
}

Test(probe, no_memory_for_a_scratch_page)
{
	struct wr_barrier *b;
	struct rlimit old;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer needs addresses of its own");
#endif
	need_async();
	old = lower(RLIMIT_AS, 0);
	cr_assert_eq(wr_barrier_create(WR_BARRIER_ASYNC, &b), -ENOTSUP);
	cr_assert(strstr(weir_error_text(), "RLIMIT_AS"), "%s",
		  weir_error_text());
	expect_no("address-space", "", "cannot be reserved", "ulimit");
	setrlimit(RLIMIT_AS, &old);
}

/* A directory that stands for / when settings are read. */
static const char *fake_root(void)
{
	static char root[] = "/tmp/weir-probe-XXXXXX";
	static const char *const dirs[] = {
		"/proc",
		"/proc/self",
		"/proc/sys",
		"/proc/sys/vm",
		"/sys",
		"/sys/fs",
		"/sys/fs/cgroup",
		"/sys/fs/cgroup/small",
		"/sys/kernel",
		"/sys/kernel/mm",
		"/sys/kernel/mm/transparent_hugepage",
	};
	char name[256];

	cr_assert(mkdtemp(root));
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", root, dirs[i]);
		cr_assert(!mkdir(name, 0700), "%s", name);
	}
	return root;
}

static void put(const char *root, const char *path, const char *text)
{
	char name[256];
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", root, path);
	f = fopen(name, "w");
	cr_assert(f, "%s", name);
	fputs(text, f);
	fclose(f);
}

/* What a file says counts for less than what can be done. */
Test(probe, overcommit_that_works)
{
	const char *root = fake_root();
	const char *file = "/proc/sys/vm/overcommit_memory";
	static const char *const modes[] = {"0", "1", "2", "7"};

	if (!run("overcommit", "").available)
		cr_skip("overcommit: %s", run("overcommit", "").cause);
	cr_assert(strstr(run("overcommit", root).detail, "=unknown"));
	for (size_t i = 0; i < 4; i++) {
		struct wr_probe_result r;
		char text[8];

		snprintf(text, sizeof(text), "%s\n", modes[i]);
		put(root, file, text);
		r = run("overcommit", root);
		cr_assert(r.available, "%s", r.cause);
		snprintf(text, sizeof(text), "=%s,", modes[i]);
		cr_assert(strstr(r.detail, text), "%s", r.detail);
		cr_assert(strstr(r.detail, "can be committed"), "%s", r.detail);
	}
	remove_tree(root);
}

/* The kernel refuses what is charged, and only that. */
Test(probe, overcommit_refused)
{
	const char *root = fake_root();
	const char *file = "/proc/sys/vm/overcommit_memory";

	put(root, file, "2\n");
	put(root, "/proc/meminfo",
	    "MemTotal:        4194304 kB\n"
	    "CommitLimit:     1048576 kB\n"
	    "Committed_AS:     262144 kB\n");
	cr_assert(!seccomp_deny_if(SYS_mmap, 3, MAP_SHARED, ENOMEM));
	expect_no("overcommit", root, "768 of 1024 MiB", "overcommit_ratio");
	expect_no("overcommit", root, "0 of ", "heap-max");
	cr_assert(strstr(run("overcommit", root).detail, "=2"));
	/* More is charged than the limit allows: that is 0, not a huge number.
	 */
	put(root, "/proc/meminfo",
	    "CommitLimit:     1048576 kB\n"
	    "Committed_AS:    2097152 kB\n");
	expect_no("overcommit", root, " 0 of 1024 MiB", "heap-max");
	put(root, file, "0\n");
	expect_no("overcommit", root, "only 0 MiB", "heap-max");
	remove_tree(root);
}

Test(probe, data_is_limited)
{
	struct rlimit old;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer needs memory of its own");
#endif
	if (!run("data-limit", "").available)
		cr_skip("there is no data limit to lower");
	cr_assert(strstr(run("data-limit", "").detail, "RLIMIT_DATA"));
	old = lower(RLIMIT_DATA, 256 * MIB);
	expect_no("data-limit", "", "made writable", "ulimit -d");
	cr_assert(strstr(run("data-limit", "").detail, "256 MiB"));
	/* It is neither of the others. */
	cr_assert(run("address-space", "").available);
	cr_assert(run("overcommit", "").available);
	setrlimit(RLIMIT_DATA, &old);
}

Test(probe, memory)
{
	const char *root = fake_root();
	struct wr_probe_result r;

	put(root, "/proc/meminfo", "MemTotal:        4194304 kB\n");
	r = run("memory", root);
	cr_assert(strstr(r.detail, "4096 MiB of RAM, no"), "%s", r.detail);
	put(root, "/proc/self/cgroup", "0::/small\n");
	put(root, "/proc/self/mountinfo",
	    "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
	put(root, "/sys/fs/cgroup/small/memory.max", "134217728\n");
	r = run("memory", root);
	cr_assert(strstr(r.detail, "128 MiB by the control group"), "%s",
		  r.detail);
	put(root, "/sys/fs/cgroup/small/memory.max", "max\n");
	r = run("memory", root);
	cr_assert(strstr(r.detail, "no control group"), "%s", r.detail);
	remove_tree(root);
}

Test(probe, map_count)
{
	const char *root = fake_root();
	struct wr_probe_result r = run("map-count", root);
	size_t pages = 2000000, n = 0, page = (size_t)getpagesize();
	char *p;

	cr_assert(r.available, "%s", r.cause);
	cr_assert(strstr(r.detail, "=unknown"), "%s", r.detail);
	put(root, "/proc/sys/vm/max_map_count", "1234\n");
	cr_assert(strstr(run("map-count", root).detail, "=1234,"));
	remove_tree(root);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return; /* the sanitizer needs mappings of its own */
#endif
	/* Use them up. */
	p = mmap(NULL, pages * page, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	cr_assert_neq(p, MAP_FAILED);
	while (n < 400000 && !mprotect(p + n * page, page, PROT_READ))
		n += 2;
	if (n >= 400000) {
		munmap(p, pages * page);
		cr_skip("more than 400000 mappings are allowed");
	}
	r = (struct wr_probe_result){.available = true};
	wr_probe_find("map-count")->run("", &r);
	munmap(p, pages * page);
	cr_assert_not(r.available, "%zu used: %s", n, r.detail);
	cr_assert(strstr(r.cause, "near its limit"), "%s", r.cause);
	cr_assert(strstr(r.cure, "vm.max_map_count"), "%s", r.cure);
	cr_assert(run("map-count", "").available);
}

Test(probe, huge_pages_by_doing)
{
	const char *root = fake_root();
	const char *file = "/sys/kernel/mm/transparent_hugepage/enabled";
	bool here = run("huge-pages", "").available;
	struct wr_probe_result r;

	put(root, file, "always madvise [never]\n");
	r = run("huge-pages", root);
	/* What a file says counts for less than what came. */
	cr_assert_eq(r.available, here);
	cr_assert(strstr(r.detail, "enabled=never"), "%s", r.detail);
	cr_assert(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	expect_no("huge-pages", "", "turned off for this process",
		  "PR_SET_THP_DISABLE");
	remove_tree(root);
}

Test(probe, membarrier)
{
	if (!run("membarrier", "").available)
		cr_skip("there is no membarrier to take away");
	deny(SYS_membarrier, EPERM);
	expect_no("membarrier", "", "seccomp", "allow membarrier");
}

/* The bit in the page map is tested by what the kernel says of itself. */
Test(probe, soft_dirty)
{
	struct wr_probe_result r = run("soft-dirty", "");
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[256];
	bool flag = false;

	/* "sd" among the VmFlags of any mapping: the kernel tracks it. */
	cr_assert(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "VmFlags:", 8) && strstr(line, " sd"))
			flag = true;
	fclose(f);
	cr_assert_eq(r.available, flag);
}
