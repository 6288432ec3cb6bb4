/* SPDX-License-Identifier: MIT */
/*
 * Allocation that has to wait, or is refused.
 *
 * A mutator that runs ahead of the collector waits for it a little, as the
 * pacer says (gc/pace.c).  One that a limit is in the way of gives free memory
 * back to the system if that helps, waits for cycles, asks the program, and is
 * told at last what the limit is and how to move it.  All waiting is noted as
 * assist.
 *
 *   all of it: attached mutators, not CRITICAL
 */
#include "gc/room.h"

#include <errno.h>

#include "gc/always.h"

static uint64_t assist_begin(struct weir_heap *h)
{
	uint64_t now = h->sys->now_ns();

	wr_event_begin(h->events, WR_PHASE_assist, now);
	return now;
}

static void assist_end(struct weir_heap *h, uint64_t begin, size_t size)
{
	uint64_t now = h->sys->now_ns();

	wr_histogram_add(&h->stats.assist, now - begin);
	wr_event_end(h->events, WR_PHASE_assist, begin, now, size, "bytes");
}

/* A page like this is there afterwards, whatever it holds and whoever has it by
 * now.  Not the program's order of accesses: no sanitizer's business. */
__attribute__((no_sanitize("address", "thread"))) static void
touch(volatile uint64_t *word)
{
	uint64_t zero = 0;

	__atomic_compare_exchange_n(word, &zero, 0, false, __ATOMIC_RELAXED,
				    __ATOMIC_RELAXED);
}

/* The system clears 2 MiB when a huge page is first written, and may have to
 * find them: up to 5 ms in a guest, during which a thread takes no signal.  In
 * a blocking region no stop waits for it.  The block may be taken from the
 * mutator meanwhile. */
void wg_room_touch(struct weir_mutator *m)
{
	struct weir_heap *h = m->heap;
	uint32_t i = m->untouched;
	bool entered = wg_region_enter(m);

	m->untouched = 0;
	touch((volatile uint64_t *)wg_block_start(h, i));
	touch((volatile uint64_t *)(h->meta + (size_t)i * WG_BLOCK_GRANULES));
	wg_region_leave(m, entered);
}

bool wg_room_ask(struct weir_mutator *m, size_t size)
{
	struct weir_heap *h = m->heap;
	bool again;

	m->callbacks++;
	again = h->oom && h->oom(h, size, h->oom_arg);
	m->callbacks--;
	return again;
}

bool wg_room_give_back(struct weir_mutator *m, unsigned space, size_t size)
{
	uint64_t begin = assist_begin(m->heap);
	bool given = wg_trim_room(m->heap, m, space, size);

	assist_end(m->heap, begin, size);
	return given;
}

/* Whether other threads took what the last cycle found, rather than that
 * there was nothing: then go on, but not for ever, since what is free may be
 * in pieces that are too small. */
static bool was_outrun(const struct weir_heap *h, size_t n, int attempt)
{
	size_t hard = wg_hard(h);
	uint64_t live = __atomic_load_n(&h->live, __ATOMIC_RELAXED);

	return attempt < (n <= WG_MEDIUM_MAX ? 64 : 6) &&
	       live + n + hard / 8 < hard;
}

/*
 * A limit is in the way: wait for a cycle, then for a full one, then for a
 * stopped one, then ask the program.  Where cycles are disabled the first waits
 * for what is under way yet, and the program is asked at once.
 */
bool wg_room_make(struct weir_mutator *m, size_t size, int attempt)
{
	struct weir_heap *h = m->heap;
	uint64_t begin;
	bool disabled;

	if (attempt > 2 && was_outrun(h, size, attempt))
		attempt = 2;
	disabled = attempt > 0 && wg_disabled(h);
	if ((attempt > 2 || disabled) && !wg_room_ask(m, size))
		return false;
	if (disabled)
		return true; /* the program gave way */
	begin = assist_begin(h);
	/* Relaxed: partner of the load in wg_pace_can_wait(), which looks again
	 * every few milliseconds. */
	__atomic_add_fetch(&h->starving, 1, __ATOMIC_RELAXED);
	switch (attempt) {
	case 0:
		wg_cycle_wait(h, m, 0);
		break;
	case 1:
		wg_cycle_wait(h, m, WG_REQ_FULL);
		break;
	case 2:
		wg_cycle_wait(h, m, WG_REQ_FULL | WG_REQ_STOPPED);
		break;
	default:
		/* What the program let go is found by one more cycle. */
		wg_cycle_wait(h, m, WG_REQ_FULL);
		break;
	}
	__atomic_sub_fetch(&h->starving, 1, __ATOMIC_RELAXED);
	assist_end(h, begin, size);
	return true;
}

/* Run ahead of the collector no further: wait for it, the longer the further
 * (gc/pace.c), and above the soft limit until it is done. */
void wg_room_assist(struct weir_mutator *m, size_t size)
{
	struct weir_heap *h = m->heap;
	uint64_t begin = assist_begin(h);
	size_t soft = wg_soft(h);
	bool above =
		soft && __atomic_load_n(&h->used, __ATOMIC_RELAXED) >= soft;

	wg_cycle_stall(h, m, above ? 500000000 : wg_pace_stall_ns(h));
	assist_end(h, begin, size);
}

void *wg_room_none(const struct weir_heap *h, size_t size, size_t n,
		   enum wg_no why, const char *function)
{
	size_t used = __atomic_load_n(&h->used, __ATOMIC_RELAXED) >> 20;

	if (wg_large_bytes(h, n) > wg_hard(h))
		wr_error(ENOMEM,
			 "%s: %zu bytes are more than the limit of %zu "
			 "MiB; raise heap-max",
			 function, size, wg_hard(h) >> 20);
	else if (wg_disabled(h))
		wr_error(ENOMEM,
			 "%s: no room for %zu bytes: %zu of %zu MiB are in use "
			 "and cycles are disabled; call weir_collect_enable() "
			 "or %s",
			 function, size, used, wg_hard(h) >> 20,
			 why == WG_NO_SYSTEM ? "let the system give more memory"
					     : "raise heap-max");
	else if (why == WG_NO_SYSTEM)
		wr_error(ENOMEM,
			 "%s: no room for %zu bytes: the system refuses "
			 "more memory than the %zu MiB in use after a full "
			 "collection; raise the limit on data (ulimit -d), the "
			 "commit limit (vm.overcommit_memory, "
			 "vm.overcommit_ratio) or vm.max_map_count, or drop "
			 "references",
			 function, size, used);
	else
		wr_error(ENOMEM,
			 "%s: no room for %zu bytes: %zu of %zu MiB are "
			 "in use after a full collection; raise heap-max or "
			 "drop references",
			 function, size, used, wg_hard(h) >> 20);
	errno = ENOMEM;
	return NULL;
}

void *wg_room_no_note(struct weir_heap *h, const char *function)
{
	wr_error(ENOMEM,
		 "%s: no memory for one more than %zu objects of kinds made "
		 "with WEIR_TRACE_ALWAYS, or one of weir_kind_disclaim()",
		 function, wg_always_count(h));
	errno = ENOMEM;
	return NULL;
}
