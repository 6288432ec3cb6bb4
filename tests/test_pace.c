/* SPDX-License-Identifier: MIT */
/* The pacer's arithmetic, on a heap that is nothing but its figures. */
#include <criterion/criterion.h>
#include <string.h>

#include "gc/heap.h"

#define MIB ((uint64_t)1 << 20)

static struct weir_heap h;

/* 100 MiB live, 1 GiB of room, growth a half; the last cycle was full. */
static void reset(void)
{
	memset(&h, 0, sizeof(h));
	h.opt.growth = 0.5;
	h.opt.heap_min = 4 * MIB;
	h.opt.generational = true;
	h.tracking = true;
	h.sweep_minor = true;
	h.hard = 1024 * MIB;
	h.used = h.live = h.live_full = 100 * MIB;
	h.allocated = 1000 * MIB;
}

/* What may be allocated while a cycle runs: H. */
static uint64_t headroom(void)
{
	h.assist_at = UINT64_MAX;
	wg_pace_cycle_begin(&h);
	cr_assert_eq(h.trigger, UINT64_MAX);
	cr_assert_eq(h.cycle_start_allocated, h.allocated);
	return h.assist_at - h.allocated;
}

/* What is allocated before the next cycle, `during` having been while the last
 * one ran. */
static uint64_t gap(uint64_t during)
{
	h.cycle_start_allocated = h.allocated - during;
	wg_pace_during(&h, wg_pace_wants_full(&h, false));
	wg_pace_cycle_end(&h);
	cr_assert_eq(h.last_allocated, h.allocated);
	cr_assert_geq(h.assist_at, h.trigger);
	return h.trigger - h.allocated;
}

Test(pace, headroom_is_growth_and_the_minimum)
{
	reset();
	cr_assert_eq(headroom(), 54 * MIB);
	h.live_full = 0;
	cr_assert_eq(headroom(), 4 * MIB);
}

Test(pace, headroom_near_the_hard_limit)
{
	reset();
	h.used = 1004 * MIB;
	cr_assert_eq(headroom(), 10 * MIB);
	h.used = 1023 * MIB;
	cr_assert_eq(headroom(), MIB / 2);
	for (h.used = 1024 * MIB; h.used < 1030 * MIB; h.used += MIB)
		cr_assert_eq(headroom(), WG_BLOCK);
}

Test(pace, headroom_near_the_soft_limit)
{
	reset();
	h.soft = 200 * MIB;
	cr_assert_eq(headroom(), 50 * MIB);
	h.used = 160 * MIB;
	cr_assert_eq(headroom(), 20 * MIB);
	/* An eighth of what is alive, not nothing. */
	h.used = 300 * MIB;
	cr_assert_eq(headroom(), 100 * MIB / 8);
	/* But the hard limit is one. */
	h.hard = 310 * MIB;
	cr_assert_eq(headroom(), 5 * MIB);
	h.hard = 300 * MIB;
	cr_assert_eq(headroom(), WG_BLOCK);
}

Test(pace, full_cycles_wait_for_headroom_less_what_the_last_needed)
{
	reset();
	h.opt.generational = false;
	h.sweep_minor = false;
	cr_assert_eq(gap(0), 54 * MIB);
	cr_assert_eq(gap(20 * MIB), 29 * MIB);
	/* Never less than a quarter: the collector would run for ever. */
	cr_assert_eq(gap(500 * MIB), 54 * MIB / 4);
}

Test(pace, minor_cycles_come_by_nursery)
{
	reset();
	cr_assert_eq(gap(0), 25 * MIB);
	h.live_full = h.live = h.used = 8 * MIB;
	cr_assert_eq(gap(0), 4 * MIB);
	/* Not without a barrier. */
	h.tracking = false;
	cr_assert_eq(gap(0), 8 * MIB);
}

/* What is resident anyway saves cycles, a third of it at a time. */
Test(pace, spare_memory_is_used)
{
	reset();
	h.used = 160 * MIB;
	h.space[0].stale = 30 * MIB;
	cr_assert_eq(gap(0), 30 * MIB);
	h.soft = 190 * MIB;
	cr_assert_lt(gap(0), 30 * MIB);
}

Test(pace, mutators_wait_for_a_late_collector)
{
	reset();
	gap(0);
	cr_assert_eq(h.assist_at - h.trigger, 27 * MIB);
	gap(16 * MIB);
	cr_assert_eq(h.assist_at - h.trigger, 40 * MIB);
	gap(30 * MIB);
	cr_assert_eq(h.assist_at - h.trigger, 54 * MIB);
	/* Late already when it starts. */
	h.allocated += 100 * MIB;
	wg_pace_cycle_begin(&h);
	cr_assert_lt(h.assist_at, h.allocated);
}

/* A little just past the limit, all of a millisecond a whole H past it. */
Test(pace, mutators_wait_longer_the_further_they_are)
{
	uint64_t near;

	reset();
	headroom();
	h.allocated = h.assist_at;
	near = wg_pace_stall_ns(&h);
	cr_assert_gt(near, 0);
	cr_assert_lt(near, 100000);
	h.allocated += 27 * MIB;
	cr_assert_gt(wg_pace_stall_ns(&h), 200000);
	cr_assert_lt(wg_pace_stall_ns(&h), 300000);
	h.allocated += 270 * MIB;
	cr_assert_eq(wg_pace_stall_ns(&h), 1000000);
	/* The cycle has found room: nobody waits for a while. */
	wg_pace_sweep_begin(&h);
	cr_assert_eq(h.assist_at - h.allocated, 54 * MIB);
	cr_assert_eq(wg_pace_stall_ns(&h), near);
}

/* Processors of mutators that wait are for markers. */
Test(pace, markers_take_the_place_of_those_that_wait)
{
	const uint64_t ms = 1000000;

	reset();
	h.markers = 2;
	h.pause_markers = 4;
	cr_assert_eq(wg_pace_markers(&h, 100 * ms), 2);
	h.stats.assist.total_ns = 4 * ms;
	cr_assert_eq(wg_pace_markers(&h, 110 * ms), 2);
	h.stats.assist.total_ns += 6 * ms;
	cr_assert_eq(wg_pace_markers(&h, 120 * ms), 3);
	h.stats.assist.total_ns += 90 * ms;
	cr_assert_eq(wg_pace_markers(&h, 130 * ms), 4);
	cr_assert_eq(wg_pace_markers(&h, 130 * ms), 2);
	h.stats.assist.total_ns += 90 * ms;
	/* Who waits for this very cycle counts as well. */
	h.stats.assist.total_ns = h.begun_stall_ns;
	h.waiting = 1;
	cr_assert_eq(wg_pace_markers(&h, 135 * ms), 3);
	h.waiting = 9;
	cr_assert_eq(wg_pace_markers(&h, 136 * ms), 4);
	h.waiting = 0;
	/* Who says how many gets as many. */
	h.opt.markers = 2;
	cr_assert_eq(wg_pace_markers(&h, 140 * ms), 2);
}

/* Stops may be put off while the program is far from its limit. */
Test(pace, slices_wait_for_half_of_the_room)
{
	reset();
	headroom();
	cr_assert(wg_pace_can_wait(&h));
	h.allocated += 26 * MIB;
	cr_assert(wg_pace_can_wait(&h));
	h.allocated += 2 * MIB;
	cr_assert(!wg_pace_can_wait(&h));
	h.allocated -= 2 * MIB;
	h.requests = WG_REQ_FULL;
	cr_assert(!wg_pace_can_wait(&h));
	h.requests = 0;
	h.starving = 1;
	cr_assert(!wg_pace_can_wait(&h));
	/* Late from the start. */
	h.starving = 0;
	cr_assert(wg_pace_can_wait(&h));
	h.assist_at = h.cycle_start_allocated - 1;
	cr_assert(!wg_pace_can_wait(&h));
}

Test(pace, minor_or_full)
{
	reset();
	cr_assert(!wg_pace_wants_full(&h, false));
	h.live = 150 * MIB;
	cr_assert(!wg_pace_wants_full(&h, false));
	h.live = 150 * MIB + 1;
	cr_assert(wg_pace_wants_full(&h, false));
	/* Sooner above the soft limit. */
	reset();
	h.soft = 120 * MIB;
	h.used = 125 * MIB;
	h.live = 112 * MIB;
	cr_assert(!wg_pace_wants_full(&h, false));
	h.live = 113 * MIB;
	cr_assert(wg_pace_wants_full(&h, false));
	/* A minor cycle needs to know what was written. */
	reset();
	h.tracking = false;
	cr_assert(wg_pace_wants_full(&h, false));
	reset();
	h.all_dirty = true;
	cr_assert(wg_pace_wants_full(&h, false));
	reset();
	h.opt.generational = false;
	cr_assert(wg_pace_wants_full(&h, false));
}

Test(pace, survival)
{
	reset();
	h.lazy_arm = true;
	h.last_allocated = 900 * MIB;
	h.cycle_start_allocated = 1000 * MIB;
	/* Half of the estimate is its past. */
	wg_pace_survival(&h, 80 * MIB, false);
	cr_assert_float_eq(h.survival, 0.4, 1e-9);
	cr_assert(!h.lazy_arm);
	wg_pace_survival(&h, 0, false);
	cr_assert_float_eq(h.survival, 0.2, 1e-9);
	cr_assert(h.lazy_arm);
	/* Full cycles mark old objects, and no new ones say nothing. */
	wg_pace_survival(&h, 100 * MIB, true);
	cr_assert_float_eq(h.survival, 0.2, 1e-9);
	h.last_allocated = h.cycle_start_allocated;
	wg_pace_survival(&h, MIB, false);
	cr_assert_float_eq(h.survival, 0.2, 1e-9);
}

/* A full cycle that found `live` bytes alive, `made` ones after the last. */
static void full_cycle(uint64_t made, uint64_t live)
{
	uint64_t before = h.live_full;

	h.allocated += made;
	h.live = h.live_full = live;
	wg_pace_yield(&h, before);
}

/* A minor one that kept `kept` of `made` bytes. */
static void minor_cycle(uint64_t made, uint64_t kept)
{
	h.last_allocated = h.allocated;
	h.allocated += made;
	h.cycle_start_allocated = h.allocated;
	wg_pace_survival(&h, kept, false);
}

Test(pace, minor_cycles_that_only_delay_are_left_out)
{
	unsigned skipped = 2;

	reset();
	h.full_allocated = h.allocated;
	for (int round = 0; round < 8; round++) {
		/* All of what was made is dead, though minor cycles keep it. */
		full_cycle(50 * MIB, 100 * MIB);
		cr_assert_float_eq(h.yield, 1, 1e-9);
		cr_assert(!wg_pace_wants_full(&h, false));
		minor_cycle(25 * MIB, 25 * MIB);
		for (unsigned i = 0; i < skipped; i++) {
			cr_assert(wg_pace_wants_full(&h, false));
			full_cycle(50 * MIB, 100 * MIB);
		}
		cr_assert(!wg_pace_wants_full(&h, false));
		skipped = skipped < 8 ? 2 * skipped : 8;
	}
	/* And one that finds more makes it begin anew. */
	minor_cycle(25 * MIB, 5 * MIB);
	cr_assert(!wg_pace_wants_full(&h, false));
	minor_cycle(25 * MIB, 25 * MIB);
	full_cycle(50 * MIB, 100 * MIB);
	cr_assert(wg_pace_wants_full(&h, false));
	full_cycle(50 * MIB, 100 * MIB);
	cr_assert(!wg_pace_wants_full(&h, false));
}

/* In a heap that grows full cycles find no more. */
Test(pace, minor_cycles_of_a_growing_heap_stay)
{
	reset();
	h.full_allocated = h.allocated;
	for (int round = 1; round < 8; round++) {
		full_cycle(50 * MIB, 100 * MIB + (uint64_t)round * 40 * MIB);
		cr_assert_lt(h.yield, 0.5);
		minor_cycle(25 * MIB, 25 * MIB);
		cr_assert(!wg_pace_wants_full(&h, false));
	}
	/* Nor when it begins to, after a time in which they did. */
	full_cycle(50 * MIB, h.live_full);
	minor_cycle(25 * MIB, 25 * MIB);
	cr_assert(wg_pace_wants_full(&h, false));
	full_cycle(50 * MIB, h.live_full + 50 * MIB);
	cr_assert(!wg_pace_wants_full(&h, false));
}

/* Full cycles wait for all of H, not for a nursery. */
Test(pace, without_minor_cycles_there_is_no_nursery)
{
	reset();
	h.sweep_minor = false;
	h.skip = 1;
	/* But for who asks for one. */
	cr_assert(!wg_pace_wants_full(&h, true));
	cr_assert_eq(gap(0), 54 * MIB);
}

Test(pace, room_that_is_reserved)
{
	reset();
	gap(0);
	wg_pace_set_min(&h, 200 * MIB);
	cr_assert_eq(h.opt.heap_min, 200 * MIB);
	cr_assert_eq(h.trigger, h.allocated + 25 * MIB + 196 * MIB);
	cr_assert_geq(h.assist_at, h.trigger);
	/* The next wait has it, too; one that is under way keeps its end. */
	cr_assert_eq(gap(0), 200 * MIB);
	h.trigger = UINT64_MAX;
	wg_pace_set_min(&h, 300 * MIB);
	cr_assert_eq(h.trigger, UINT64_MAX);
	h.running = true;
	h.trigger = 5;
	wg_pace_set_min(&h, 400 * MIB);
	cr_assert_eq(h.trigger, 5);
	cr_assert_eq(h.opt.heap_min, 400 * MIB);
}
