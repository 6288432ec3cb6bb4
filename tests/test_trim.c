/* SPDX-License-Identifier: MIT */
/* Free memory goes back to the system: when idle, after cycles, and when it
 * would take the process above the limit of the heap. */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/memory.h"

#define MIB ((size_t)1 << 20)

#define SIZE ((size_t)1024)

/* What is alive; leaves cannot keep each other. */
static void *table[128 << 10];
static size_t filled;
static struct wr_sys fake;
static const struct wr_sys *real;

/* Objects of `bytes` together, every page of them written; they stay if they
 * are kept. */
static __attribute__((noinline)) void fill(size_t bytes, weir_kind kind,
					   bool keep)
{
	for (size_t i = 0; i < bytes / SIZE; i++) {
		char *p = weir_alloc_kind(self, SIZE, kind);

		cr_assert_not_null(p, "%s", weir_error_text());
		memset(p, 1, SIZE);
		if (keep)
			table[filled++] = p;
	}
}

static void drop(void)
{
	memset(table, 0, filled * sizeof(table[0]));
	filled = 0;
	scrub();
}

static void open(const char *options)
{
	heap_open(options);
	cr_assert_eq(weir_root_add(heap, table, sizeof(table)), 0);
}

static void need_own_memory(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("the sanitizer's own memory grows with the heap's");
#endif
}

/* One cycle, then nothing. */
static void idle(const char *options)
{
	size_t before, full, after;

	need_own_memory();
	open(options);
	fill(8 * MIB, 0, true);
	before = memory_mib("VmRSS");
	fill(120 * MIB, 0, false);
	full = memory_mib("VmRSS");
	cr_assert_geq(full, before + 100, "%zu, then %zu", before, full);
	scrub();
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	after = wait_for_rss(before + 40);
	cr_assert_lt(after, before + 40, "%zu MiB, %zu full, %zu idle", before,
		     full, after);
	heap_close();
}

Test(trim, an_idle_program_gives_memory_back)
{
	idle("heap-min=256m");
}

Test(trim, an_idle_program_gives_memory_back_thp_off)
{
	idle("heap-min=256m,thp=off");
}

/* Once: the collector does not go on to wake up. */
Test(trim, an_idle_collector_wakes_up_once)
{
	uint64_t cpu;

	open("heap-min=256m");
	fill(64 * MIB, 0, false);
	scrub();
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	while (heap_stats().cycles_full < 1 ||
	       __atomic_load_n(&heap->phase, __ATOMIC_RELAXED) != WG_IDLE)
		usleep(1000);
	for (int i = 0;
	     i < 600 && __atomic_load_n(&heap->trim_due, __ATOMIC_RELAXED); i++)
		usleep(100000);
	cr_assert(!__atomic_load_n(&heap->trim_due, __ATOMIC_RELAXED));
	cpu = heap_stats().cycles_full;
	usleep(1500000);
	cr_assert(!__atomic_load_n(&heap->trim_due, __ATOMIC_RELAXED));
	cr_assert_eq(heap_stats().cycles_full, cpu);
	heap_close();
}

/* The sum over both spaces of bytes in blocks that are free and resident. */
static size_t count_stale(size_t *said)
{
	size_t n = 0;

	wg_lock(heap, self);
	*said = heap->space[0].stale + heap->space[1].stale;
	for (int sp = 0; sp < 2; sp++) {
		const struct wg_space *s = &heap->space[sp];

		for (uint32_t i = s->first + !sp; i < s->committed; i++)
			n += wg_block_state(&heap->blocks[i]) == WG_FREE &&
					     !heap->blocks[i].zeroed
				     ? WG_BLOCK
				     : 0;
	}
	wg_unlock(heap, self);
	return n;
}

static uint64_t opened_ns;

static uint64_t slow_clock(void)
{
	return (real->now_ns() - opened_ns) / 1000 + 1;
}

/* What was used in one space counts when the other is filled.  The clock is
 * slow so that nothing is given back for the time that has gone by. */
static void both_spaces(const char *options)
{
	size_t before, peak = 0;

	need_own_memory();
	open(options);
	real = heap->sys;
	opened_ns = real->now_ns();
	fake = *real;
	fake.now_ns = slow_clock;
	heap->sys = &fake;
	before = memory_mib("VmRSS");
	for (int round = 0; round < 6; round++) {
		fill(48 * MIB, round % 2 ? WEIR_KIND_LEAF : 0, true);
		for (int k = 0; k < 2; k++) {
			void *p = weir_alloc_kind(self, 3 * MIB, (weir_kind)k);

			cr_assert_not_null(p, "%s", weir_error_text());
			memset(p, 1, 3 * MIB);
		}
		if (memory_mib("VmRSS") > peak)
			peak = memory_mib("VmRSS");
		drop();
	}
	/* The limit, side tables, and some for what else the process did. */
	cr_assert_lt(peak, before + 64 + 24, "%zu MiB, at first %zu", peak,
		     before);
	heap_close();
}

Test(trim, the_limit_bounds_resident_memory)
{
	both_spaces("heap-max=64m,heap-min=4m");
}

Test(trim, the_limit_bounds_resident_memory_thp_off)
{
	both_spaces("heap-max=64m,heap-min=4m,thp=off");
}

Test(trim, the_limit_bounds_resident_memory_stopped)
{
	both_spaces("heap-max=64m,heap-min=4m,barrier=none");
}

Test(trim, stale_bytes_are_counted)
{
	size_t said, n;

	open("heap-max=96m,heap-min=4m,poison=on,verify=on");
	for (int round = 0; round < 30; round++) {
		fill((size_t)(round * 7 % 40) * MIB,
		     round % 3 ? WEIR_KIND_LEAF : 0, true);
		weir_alloc_kind(self, (size_t)(round % 5) * MIB + 70000,
				round % 2 ? WEIR_KIND_LEAF : 0);
		n = count_stale(&said);
		cr_assert_eq(n, said, "round %d: %zu, not %zu", round, n, said);
		if (round % 4 == 0)
			weir_collect(heap, WEIR_COLLECT_FULL);
		drop();
	}
	heap_close();
}

static int no_discard(void *p, size_t size)
{
	(void)p;
	(void)size;
	return -ENOMEM;
}

/* Memory that cannot be given back is no reason to fail. */
Test(trim, a_discard_that_fails_does_not_fail_allocation)
{
	size_t said;

	open("heap-max=64m,heap-min=4m");
	fake = *heap->sys;
	fake.discard = no_discard;
	heap->sys = &fake;
	for (int round = 0; round < 4; round++) {
		fill(40 * MIB, round % 2 ? WEIR_KIND_LEAF : 0, true);
		drop();
	}
	cr_assert_eq(count_stale(&said), said);
	cr_assert_gt(said, 0);
	heap_close();
}

/* ---- fork while memory is being given back ------------------------------ */

static int forks, failures;

/* In the child no free block may be missing from the free map. */
static int map_is_whole(void)
{
	for (int sp = 0; sp < 2; sp++) {
		const struct wg_space *s = &heap->space[sp];

		for (uint32_t i = s->first + !sp; i < s->committed; i++) {
			uint32_t k = i - s->first;
			bool bit = s->free_map[k / 64] >> (k % 64) & 1;

			if (bit !=
			    (wg_block_state(&heap->blocks[i]) == WG_FREE))
				return 1;
		}
	}
	return 0;
}

static int discard_and_fork(void *p, size_t size)
{
	if (forks < 3) {
		pid_t pid = fork();
		int status = 0;

		if (!pid)
			_exit(map_is_whole());
		forks++;
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
	}
	return real->discard(p, size);
}

Test(trim, fork_puts_back_what_is_being_given_back)
{
	size_t said;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("fork with threads: not under a sanitizer");
#endif
	open("heap-min=256m");
	fill(64 * MIB, 0, false);
	fill(16 * MIB, WEIR_KIND_LEAF, false);
	scrub();
	real = heap->sys;
	fake = *real;
	fake.discard = discard_and_fork;
	heap->sys = &fake;
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	for (int i = 0;
	     i < 600 &&
	     (__atomic_load_n(&heap->trim_due, __ATOMIC_RELAXED) || !forks);
	     i++)
		usleep(100000);
	cr_assert_eq(forks, 3);
	cr_assert_eq(failures, 0);
	cr_assert_eq(count_stale(&said), said);
	heap_close();
}
