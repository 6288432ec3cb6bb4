/* SPDX-License-Identifier: MIT */
/*
 * The memory of compat/redis where the system refuses something: what it holds
 * is what was written, it is split or shared as a whole chunk, and all goes on
 * when the system gives again.  And what it leaves of mappings.
 */
#define _GNU_SOURCE
#include "compat/redis/memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <weir/weir.h>

#include "tests/must.h"
#include "tests/seccomp.h"

#define BYTES ((size_t)16 << 20)
#define WORDS (BYTES / 8)

static struct wr_memory memory;

static void open_or_skip(void)
{
	int err = wr_memory_open(&memory, BYTES, false);

	if (err == -ENOTSUP)
		cr_skip("%s", weir_error_text());
	cr_assert_eq(err, 0, "%s", weir_error_text());
}

static void fold_all(unsigned most)
{
	int err = 1;

	while (err > 0 && most--)
		err = wr_memory_fold(&memory);
	must(err >= 0);
}

/* Words that tell the pages apart; `salt` from one time to another. */
static void fill(uint64_t salt)
{
	for (size_t at = 0; at < WORDS; at += 512)
		((uint64_t *)memory.start)[at] = at + salt;
}

static bool filled(const char *where, uint64_t salt)
{
	for (size_t at = 0; at < WORDS; at += 512)
		if (((const uint64_t *)(const void *)where)[at] != at + salt)
			return false;
	return true;
}

/* No address space for the private mapping: it is all shared, as it was, and
 * can be split once there is some. */
Test(redis_memory_refused, split_without_address_space)
{
	struct rlimit all, none;
	int err;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer's shadow is above any limit");
#endif
	open_or_skip();
	fill(1);
	must(!getrlimit(RLIMIT_AS, &all));
	none = all;
	none.rlim_cur = 1;
	must(!setrlimit(RLIMIT_AS, &none));
	err = wr_memory_split(&memory, BYTES);
	must(!setrlimit(RLIMIT_AS, &all));
	cr_assert_eq(err, -ENOMEM);
	cr_assert_eq(memory.split, 0);
	cr_assert(filled(memory.start, 1));
	fill(2);
	cr_assert(filled(memory.alias, 2), "it is not shared");
	must(!wr_memory_split(&memory, BYTES));
	fill(3);
	cr_assert(filled(memory.alias, 2), "it is not split");
	/* What was folded cannot be split again: the rest still is. */
	fold_all(3);
	must(!setrlimit(RLIMIT_AS, &none));
	err = wr_memory_split(&memory, BYTES);
	must(!setrlimit(RLIMIT_AS, &all));
	cr_assert_eq(err, -ENOMEM);
	cr_assert_eq(memory.folded, 3 * WR_MEMORY_CHUNK);
	fill(4);
	fold_all(100);
	cr_assert(filled(memory.start, 4) && filled(memory.alias, 4));
	wr_memory_close(&memory);
}

/* Page tables that cannot be moved. */
Test(redis_memory_refused, split_without_mremap)
{
	open_or_skip();
	fill(1);
	must(!seccomp_deny(SYS_mremap, ENOMEM));
	cr_assert_eq(wr_memory_split(&memory, BYTES), -ENOMEM);
	cr_assert_eq(memory.split, 0);
	fill(2);
	cr_assert(filled(memory.start, 2) && filled(memory.alias, 2));
	wr_memory_close(&memory);
}

Test(redis_memory_refused, fold_without_mremap)
{
	open_or_skip();
	fill(1);
	must(!wr_memory_split(&memory, BYTES));
	fill(2);
	must(!seccomp_deny(SYS_mremap, ENOMEM));
	fold_all(100);
	cr_assert_eq(memory.split, 0);
	cr_assert(filled(memory.start, 2));
	fill(3);
	cr_assert(filled(memory.alias, 3), "it is not shared");
	wr_memory_close(&memory);
}

/* What cannot be protected stays split and whole, and is folded later. */
Test(redis_memory_refused, fold_without_uffd)
{
	int err, fd;

	open_or_skip();
	fill(1);
	must(!wr_memory_split(&memory, BYTES));
	fill(2);
	fold_all(2);
	fd = memory.uffd.fd;
	memory.uffd.fd = -1;
	err = wr_memory_fold(&memory);
	memory.uffd.fd = fd;
	cr_assert_eq(err, -EBADF);
	cr_assert_eq(memory.folded, 2 * WR_MEMORY_CHUNK);
	cr_assert(filled(memory.start, 2));
	fill(3);
	fold_all(100);
	cr_assert(filled(memory.start, 3) && filled(memory.alias, 3));
	wr_memory_close(&memory);
}

/* Mappings of the memory in this process; those that a core has, too. */
static unsigned mappings(unsigned *dumped)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned n = 0;
	bool ours = false;
	char line[512];

	must(f);
	*dumped = 0;
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, "memfd:weir-redis")) {
			ours = true;
			n++;
		} else if (!strncmp(line, "VmFlags:", 8)) {
			*dumped += ours && !strstr(line, " dd");
			ours = false;
		}
	}
	fclose(f);
	return n;
}

/* However often: their number does not grow (vm.max_map_count), and no core
 * has terabytes of holes. */
Test(redis_memory_refused, mappings_stay_few)
{
	unsigned dumped;

	open_or_skip();
	for (unsigned i = 0; i < 20; i++) {
		must(!wr_memory_split(&memory,
				      BYTES - i % 3 * WR_MEMORY_CHUNK));
		fill(i);
		cr_assert_leq(mappings(&dumped), 6);
		cr_assert_eq(dumped, 0);
		fold_all(i % 4 * 3);
		cr_assert_leq(mappings(&dumped), 6);
		cr_assert_eq(dumped, 0);
	}
	fold_all(100);
	cr_assert_eq(mappings(&dumped), 2);
	cr_assert_eq(dumped, 0);
	wr_memory_close(&memory);
}
