/* SPDX-License-Identifier: MIT */
/* Memory limits of control groups, read from made-up /proc and /sys trees. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cgroup.h"
#include "tests/remove_tree.h"

static char root[64];

static void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(root, sizeof root, "%.40s/weir-cgroup-XXXXXX",
		 tmp && strlen(tmp) <= 40 ? tmp : "/tmp");
	cr_assert_not_null(mkdtemp(root));
}

static void teardown(void)
{
	remove_tree(root);
}

TestSuite(cgroup, .init = setup, .fini = teardown);

/* Make root/path, and the directories above it, hold `text`. */
static void put(const char *path, const char *text)
{
	char name[512];
	FILE *f;

	snprintf(name, sizeof name, "%s%s", root, path);
	for (char *s = name + strlen(root) + 1; (s = strchr(s, '/')); s++) {
		*s = '\0';
		cr_assert(!mkdir(name, 0755) || errno == EEXIST, "%s", name);
		*s = '/';
	}
	f = fopen(name, "w");
	cr_assert_not_null(f, "%s", name);
	fputs(text, f);
	cr_assert_eq(fclose(f), 0);
}

#define OTHER_MOUNTS                                     \
	"22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw\n" \
	"23 28 0:22 / /proc rw shared:5 - proc proc rw\n"

#define V2_MOUNT     \
	OTHER_MOUNTS \
	"35 22 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"

Test(cgroup, none)
{
	cr_assert_eq(wr_cgroup_memory_limit(root), SIZE_MAX);
}

Test(cgroup, not_mounted)
{
	put("/proc/self/cgroup", "0::/a\n");
	put("/proc/self/mountinfo", OTHER_MOUNTS);
	cr_assert_eq(wr_cgroup_memory_limit(root), SIZE_MAX);
}

Test(cgroup, v2_own_limit)
{
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/sys/fs/cgroup/a/b/memory.max", "1048576\n");
	put("/sys/fs/cgroup/a/memory.max", "max\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 1048576);
}

Test(cgroup, v2_limit_above)
{
	put("/proc/self/cgroup", "0::/a/b/c\n");
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/sys/fs/cgroup/a/b/c/memory.max", "5000000\n");
	put("/sys/fs/cgroup/a/memory.max", "3000000\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 3000000);
}

Test(cgroup, v2_no_limit)
{
	put("/proc/self/cgroup", "0::/a\n");
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/sys/fs/cgroup/a/memory.max", "max\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), SIZE_MAX);
}

Test(cgroup, v2_neighbours_do_not_count)
{
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/sys/fs/cgroup/a/b/memory.max", "9000000\n");
	put("/sys/fs/cgroup/a/bb/memory.max", "1\n");
	put("/sys/fs/cgroup/b/memory.max", "2\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 9000000);
}

Test(cgroup, v2_namespace)
{
	/* In a container the group is "/", its limit is at the mount point. */
	put("/proc/self/cgroup", "0::/\n");
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/sys/fs/cgroup/memory.max", "7000000\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 7000000);
}

Test(cgroup, v2_outside_the_namespace)
{
	put("/proc/self/cgroup", "0::/../other\n");
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/sys/fs/cgroup/memory.max", "7000001\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 7000001);
}

Test(cgroup, v2_mount_of_a_part)
{
	/* Only /docker/x is mounted, but the group is named from the top. */
	put("/proc/self/cgroup", "0::/docker/x/inner\n");
	put("/proc/self/mountinfo",
	    "35 22 0:30 /docker/x /cg ro - cgroup2 cgroup2 rw\n");
	put("/cg/inner/memory.max", "6000000\n");
	put("/cg/memory.max", "8000000\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 6000000);
	put("/cg/memory.max", "4000000\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 4000000);
}

Test(cgroup, mount_root_is_no_mere_prefix)
{
	put("/proc/self/cgroup", "0::/docker/xy\n");
	put("/proc/self/mountinfo",
	    "35 22 0:30 /docker/x /cg ro - cgroup2 cgroup2 rw\n");
	put("/cg/memory.max", "8000000\n");
	put("/cg/y/memory.max", "1\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 8000000);
}

Test(cgroup, v1)
{
	put("/proc/self/cgroup", "11:cpu,cpuacct:/c\n"
				 "4:memory:/a/b\n"
				 "1:name=systemd:/memory\n");
	put("/proc/self/mountinfo", OTHER_MOUNTS
	    "36 32 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	    "37 32 0:32 / /sys/fs/cgroup/memory rw shared:16 master:2 - "
	    "cgroup cgroup rw,memory\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes",
	    "9223372036854771712\n");
	put("/sys/fs/cgroup/cpu/a/b/memory.limit_in_bytes", "1\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), SIZE_MAX);
	put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "2000000\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 2000000);
}

Test(cgroup, hybrid)
{
	/* systemd's hybrid layout: both versions, memory under version 1. */
	put("/proc/self/cgroup", "4:memory:/m\n0::/u\n");
	put("/proc/self/mountinfo",
	    "33 32 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	    "37 32 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup "
	    "rw,memory\n");
	put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "2000002\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 2000002);
}

Test(cgroup, escaped_mount_point)
{
	put("/proc/self/cgroup", "0::/\n");
	put("/proc/self/mountinfo",
	    "35 22 0:30 / /a\\040b rw - cgroup2 cgroup2 rw\n");
	put("/a b/memory.max", "3000003\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), 3000003);
}

Test(cgroup, garbage_is_no_limit)
{
	put("/proc/self/cgroup", "nonsense\n0:\n\n:\n0::/a\n");
	put("/proc/self/mountinfo",
	    "nonsense\n - cgroup2\n1 2 3 - cgroup2 x y\n" V2_MOUNT);
	put("/sys/fs/cgroup/a/memory.max", "lots\n");
	cr_assert_eq(wr_cgroup_memory_limit(root), SIZE_MAX);
	put("/sys/fs/cgroup/a/memory.max", "");
	cr_assert_eq(wr_cgroup_memory_limit(root), SIZE_MAX);
}
