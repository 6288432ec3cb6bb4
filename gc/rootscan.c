/* SPDX-License-Identifier: MIT */
/*
 * Roots: stacks, registers, registered ranges and callbacks.
 *
 *   wg_roots_concurrent   the collector, beside the program
 *   wg_roots_calls,       the collector, with the world stopped
 *   wg_roots_paused
 */
#include "gc/mark.h"
#include "gc/mutant.h"
#include "gc/weak.h"

void wg_scan_thread(struct wg_marker *m, struct wr_thread *t)
{
	wg_scan_roots(m, t->stack_sp, t->stack_base);
	for (unsigned i = 0; i < sizeof(t->more) / sizeof(t->more[0]); i++)
		wg_scan_roots(m, t->more[i].start, t->more[i].end);
}

/* What a thread goes on allocating from will hold black objects. */
static void note_black(struct weir_heap *h, const struct wg_bump *bump)
{
	if (bump->block)
		wg_note_black(h, (size_t)bump->block * WG_BLOCK_GRANULES);
}

/* A handshake: from here on the thread's new objects have the cycle's colour
 * for them (black with `born-black`). */
static void thread_held(struct wr_thread *t, void *arg)
{
	struct wg_marker *m = arg;
	struct weir_mutator *mutator = wg_mutator_of(t);

	wg_delay_rarely(m->heap);
	mutator->b.newborn =
		wg_mutant(WG_MUTANT_BORN_WHITE) ? WG_YOUNG : m->heap->newborn;
	if (mutator->b.newborn != WG_YOUNG)
		for (int i = 0; i < 2; i++) {
			note_black(m->heap, &mutator->bump[i]);
			note_black(m->heap, &mutator->wide[i]);
		}
	wg_scan_thread(m, t);
}

static void handshake_end(struct weir_heap *h, uint64_t begin_ns,
			  uint64_t end_ns)
{
	wr_histogram_add(&h->stats.handshake, end_ns - begin_ns);
	wr_event_end(h->events, WR_PHASE_handshake, begin_ns, end_ns, 0, NULL);
}

void wg_handshake_waited(uint64_t begin_ns, uint64_t end_ns, void *heap)
{
	struct weir_heap *h = heap;

	wr_event_begin(h->events, WR_PHASE_handshake, begin_ns);
	handshake_end(h, begin_ns, end_ns);
}

static void held(uint64_t begin_ns, uint64_t end_ns, void *arg)
{
	struct weir_heap *h = ((struct wg_marker *)arg)->heap;

	if (!end_ns) {
		wr_event_begin(h->events, WR_PHASE_handshake, begin_ns);
		return;
	}
	handshake_end(h, begin_ns, end_ns);
}

static void root_range(void *arg, uintptr_t start, uintptr_t end)
{
	wg_scan_roots(arg, start, end);
}

static void root_call(void *arg, void (*fn)(void), void *fn_arg)
{
	((weir_root_fn *)fn)((struct weir_visitor *)arg, fn_arg);
}

void wg_roots_concurrent(struct weir_heap *h, struct wg_marker *m)
{
	wr_threads_hold_each(h->threads, thread_held, m, held);
	wr_roots_scan(h->roots, false, root_range, root_call, m);
	wg_weak_scan_roots(h, m);
}

void wg_roots_calls(struct weir_heap *h, struct wg_marker *m)
{
	wr_roots_calls(h->roots, root_call, m);
}

static void thread_stopped(struct wr_thread *t, void *arg)
{
	struct wg_marker *m = arg;
	struct weir_mutator *mutator = wg_mutator_of(t);

	static unsigned turn;

	if (!wg_mutant(WG_MUTANT_FORGET_STACK) || ++turn % 2)
		wg_scan_thread(m, t);
	/* Until the sweep has been through, a block with a buffer could not
	 * be told from one without; and the colour changes. */
	wg_buffers_retire(mutator, true);
	mutator->b.newborn = WG_YOUNG;
}

void wg_roots_paused(struct weir_heap *h, struct wg_marker *m)
{
	wr_threads_for_each(h->threads, thread_stopped, m);
	wr_roots_scan(h->roots, true, root_range, root_call, m);
	wg_weak_scan_roots(h, m);
}
