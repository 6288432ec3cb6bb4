/* SPDX-License-Identifier: MIT */
/*
 * What is live of the stacks of a thread that is held.
 *
 *   set_stack, watch_stack
 *               the thread itself, not in a stop
 *   set_held    the stopper, likewise
 *   show_live   the stopper, for a thread with REQ set
 *
 * Where the thread was when it was held or blocked (struct wr_place) says what
 * is live.  The signal handler only notes; everything else is found here.
 *
 *   on its own stack          from the stack pointer to the base
 *   on another, and set_stack was never called
 *                             from the stack pointer to place.alt_end, which
 *                             is the end of the alternate signal stack, or
 *                             where the interrupted code was; all of the own
 *                             stack: where it was left is not known
 *   on the alternate signal stack, set_stack was called
 *                             the same, and in a pause the mapping below the
 *                             base that was set: one of them is interrupted
 *   on another, set_stack was called
 *                             from the stack pointer to the base that was
 *                             set; to the end of the mapping if that base is
 *                             another stack's; the own stack from where
 *                             set_stack was last called on it, if it was
 *
 * watch_stack: the program writes the base to a word of its own.  The thread
 * reads that when it notes where it stands, in its handler or where it blocks,
 * so the word and the stack pointer are of one instant, in the order of the
 * program's own instructions, and the word counts as what was set last.  A base
 * within the own stack, or NULL, says that this is run on, or about to be:
 *
 *   on its own stack          nothing was set
 *   on another                all of the own stack, and the other to the end of
 *                             its mapping
 *
 * "That base is another stack's" holds between set_stack and the switch only.
 * Whether it does is seen by memory between the stack pointer and the base
 * that cannot be read: stacks have guard pages.  Each page is probed each time
 * and nothing is remembered, since stacks are unmapped, and others mapped in
 * their place, at any time.  What is probed is going to be scanned, which
 * costs more: 0.15 us a page, that is, 0.6 us for 16 KiB of live stack.  If it
 * cannot be read /proc/self/maps is looked through for the mapping's end,
 * which takes 0.22 ms where there are 1000 mappings, so only in a pause: a
 * handshake is a head start and scans what is sure.
 *
 * What is sure cannot go while the thread is held, for it runs there.  The
 * rest of a mapping can, if a thread that is not held unmaps it: then several
 * stacks are one mapping without guard pages, which embed.h rules out.
 *
 * Limits: an alternate stack set with SS_AUTODISARM is not known as one: what
 * its handler interrupted is not found when set_stack was called.  The same if
 * a handler on the alternate stack interrupts the program between set_stack
 * and the switch.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/procmaps.h"
#include "runtime/thread_private.h"

/* A base that was set and is another stack's: above no stack pointer. */
#define NO_BASE sizeof(uintptr_t)
/* No stack is larger. */
#define LARGEST_STACK WR_FIRST_STACK
/* What a switch may push on the stack below the frame that called set_stack:
 * registers, and the frames of the functions that do it. */
#define SWITCH_ROOM 2048

/* ---- The thread's side -------------------------------------------------- */

/* Whether sp is on the thread's own stack.  The main thread's stack grows and
 * has no fixed low end. */
bool wr_thread_on_own_stack(const struct wr_thread_private *p, uintptr_t sp)
{
	uintptr_t base = p->thread->stack_base;
	uintptr_t low = p->stack_low ? p->stack_low : base - WR_FIRST_STACK;

	return sp >= low && sp < base;
}

/* The base that the program's word has.  stack_base: the own stack's, while
 * the thread is on another. */
static uintptr_t watched_base(const struct wr_thread_private *p, bool on_own)
{
	/* Relaxed: the thread's own stores, also in its handler. */
	uintptr_t base = __atomic_load_n(p->watched, __ATOMIC_RELAXED);

	if (base && !wr_thread_on_own_stack(p, base - 1))
		return base;
	return on_own ? 0 : p->thread->stack_base;
}

/* Relaxed, as all of set_base and own_sp: only the thread itself and its
 * signal handler use them; the stopper sees copies in p->held or p->blocked. */
void wr_thread_stand(const struct wr_thread_private *p, struct wr_place *place,
		     uintptr_t sp, uintptr_t top)
{
	bool on_own = wr_thread_on_own_stack(p, sp);

	place->sp = sp;
	place->alt_end = on_own ? 0 : top;
	place->on_signal_stack = false;
	if (wr_unlikely(__atomic_load_n(&p->watched, __ATOMIC_RELAXED) != NULL))
		place->set_base = watched_base(p, on_own);
	else
		place->set_base =
			__atomic_load_n(&p->set_base, __ATOMIC_RELAXED);
	place->own_sp = __atomic_load_n(&p->own_sp, __ATOMIC_RELAXED);
}

__attribute__((noinline)) void wr_thread_set_stack(struct wr_thread *t,
						   uintptr_t base)
{
	struct wr_thread_private *p = t->priv;
	volatile char room[SWITCH_ROOM];
	uintptr_t sp = (uintptr_t)room;

	wr_assert(p == wr_thread_self);
	room[0] = 0; /* the memory is there */
	if (!wr_thread_on_own_stack(p, sp)) {
		/* NULL: the switch back is still to come. */
		__atomic_store_n(&p->set_base, base ? base : NO_BASE,
				 __ATOMIC_RELAXED);
		return;
	}
	/* A handler between the two finds the thread on its own stack and uses
	 * neither. */
	__atomic_store_n(&p->own_sp, base ? sp & ~(sizeof(sp) - 1) : 0,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&p->set_base, base, __ATOMIC_RELAXED);
}

void wr_thread_watch_stack(struct wr_thread *t, const uintptr_t *base)
{
	struct wr_thread_private *p = t->priv;

	wr_assert(p == wr_thread_self);
	__atomic_store_n(&p->watched, base, __ATOMIC_RELAXED);
}

/* ---- What memory there is ----------------------------------------------- */

/* Lowest address of the mapping that ends at or above `base`, whose top page
 * is mapped.  msync(MS_ASYNC) does nothing but to fail with ENOMEM if a part
 * of the range is not mapped; the kernel keeps a gap below a growing stack. */
static uintptr_t lowest_mapped(uintptr_t base)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t low = base - page;
	uintptr_t step = page;

	while (msync((void *)(low - step), step, MS_ASYNC) == 0) {
		low -= step;
		step *= 2;
	}
	for (; step >= page; step /= 2)
		if (msync((void *)(low - step), step, MS_ASYNC) == 0)
			low -= step;
	return low;
}

/* Whether the page at `at` can be read.  The kernel reads the set of signals
 * before it finds that the first argument is bad; unlike other ways to probe
 * this needs no descriptor and no privilege. */
static bool readable(uintptr_t at)
{
	int saved = errno;
	bool is = syscall(SYS_rt_sigprocmask, -1, at, NULL,
			  (size_t)_NSIG / 8) == 0 ||
		  errno != EFAULT;

	errno = saved;
	return is;
}

/* The end of what can be read from `start` on, at most `end`. */
static uintptr_t readable_end(uintptr_t start, uintptr_t end)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t at;

	for (at = start & ~(page - 1); at < end && readable(at); at += page)
		;
	return at < end ? at : end;
}

/* What can be read around `address`, LARGEST_STACK to each side at most.
 * False: nothing. */
static bool readable_around(uintptr_t address, struct wr_span *out)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	out->start = (address & ~(page - 1)) + page;
	while (address < out->start + LARGEST_STACK &&
	       readable(out->start - page))
		out->start -= page;
	out->end = readable_end(address, address + LARGEST_STACK);
	return out->start <= address;
}

/* The readable mapping that `address` is in; false: none.  Where there is no
 * /proc: what can be read around it. */
static bool mapping_of(uintptr_t address, struct wr_span *out)
{
	struct wr_mapping map = {0};
	struct wr_procmaps m;
	int saved = errno;

	if (wr_procmaps_open(&m)) {
		errno = saved;
		return readable_around(address, out);
	}
	while (wr_procmaps_next(&m, &map) && map.end <= address)
		;
	wr_procmaps_close(&m);
	errno = saved;
	*out = (struct wr_span){map.start, map.end};
	return map.readable && map.start <= address && address < map.end;
}

/* ---- The stopper's side ------------------------------------------------- */

static uintptr_t own_low(const struct wr_thread_private *p)
{
	return p->stack_low ? p->stack_low
			    : lowest_mapped(p->thread->stack_base);
}

/* Told of, but not switched to: the program may no longer report that stack. */
static void show_next(struct wr_thread *t, const struct wr_place *at)
{
	struct wr_span map;

	if (at->set_base > NO_BASE && mapping_of(at->set_base - 1, &map)) {
		t->more[2].start = map.start;
		t->more[2].end = at->set_base & ~(sizeof(void *) - 1);
	}
}

/* On a stack of the program's making, which it told of. */
static void show_told(struct wr_thread *t, const struct wr_place *at,
		      bool paused)
{
	struct wr_span map;

	if (at->set_base == t->stack_base) {
		t->stack_sp = own_low(t->priv);
		if (paused && mapping_of(at->sp, &map))
			t->more[1].end = map.end;
		return;
	}
	t->stack_sp = at->own_sp ? at->own_sp : t->stack_base;
	if (at->set_base > at->sp && at->set_base - at->sp <= LARGEST_STACK &&
	    readable_end(at->sp, at->set_base) == at->set_base)
		t->more[1].end = at->set_base;
	else if (paused) {
		if (mapping_of(at->sp, &map))
			t->more[1].end = map.end;
		show_next(t, at);
	}
}

/* No other thread writes these fields, so that the handler cannot disturb a
 * block_enter. */
void wr_thread_show_live(struct wr_thread_private *p, bool paused)
{
	/* Acquire: partner of the release in hold() and enter_below(). */
	uint32_t state =
		wr_unparked(__atomic_load_n(&p->word, __ATOMIC_ACQUIRE)) &
		~(uint32_t)WR_REQ;
	const struct wr_place *at =
		state == WR_BLOCKED ? &p->blocked.place : &p->held;
	struct wr_thread *t = p->thread;
	struct wr_span map;

	wr_assert(state == WR_BLOCKED || state == WR_HELD);
	t->more[0].start = (uintptr_t)p->blocked.frame;
	t->more[0].end = (uintptr_t)p->blocked.frame;
	if (state == WR_BLOCKED)
		t->more[0].end +=
			p->blocked.words * sizeof(p->blocked.frame[0]);
	t->stack_sp = at->sp;
	t->more[1].start = t->more[1].end = at->sp;
	t->more[2].start = t->more[2].end = at->sp;
	if (wr_likely(!at->alt_end)) {
		if (wr_unlikely(at->set_base) && paused)
			show_next(t, at);
		return;
	}
	t->more[1].end = at->alt_end;
	if (at->set_base && !at->on_signal_stack) {
		show_told(t, at, paused);
	} else {
		t->stack_sp = own_low(p);
		if (at->set_base > NO_BASE && at->set_base != t->stack_base &&
		    paused && mapping_of(at->set_base - 1, &map)) {
			t->more[2].end = at->set_base;
			t->more[2].start = map.start;
		}
	}
	/* Whole words; the end of such a stack may be odd. */
	t->more[1].end &= ~(sizeof(void *) - 1);
	t->more[2].end &= ~(sizeof(void *) - 1);
}

/* ---- Another thread's stack ---------------------------------------------- */

/* The thread is held: what it noted is what it goes on with. */
static bool set_held(struct wr_thread_private *p, uintptr_t base)
{
	uint32_t word =
		wr_unparked(__atomic_load_n(&p->word, __ATOMIC_ACQUIRE));
	struct wr_place *at = (word & ~(uint32_t)WR_REQ) == WR_BLOCKED
				      ? &p->blocked.place
				      : &p->held;
	bool own = wr_thread_on_own_stack(p, at->sp);
	uintptr_t set = base == p->thread->stack_base ? 0 : base;

	if (!set && !own)
		set = NO_BASE;
	if (set == at->set_base)
		return false;
	if (own)
		at->own_sp = set ? at->sp & ~(sizeof(uintptr_t) - 1) : 0;
	at->set_base = set;
	__atomic_store_n(&p->own_sp, at->own_sp, __ATOMIC_RELAXED);
	__atomic_store_n(&p->set_base, set, __ATOMIC_RELAXED);
	return true;
}

bool wr_thread_set_stack_held(struct wr_thread *t, uintptr_t base)
{
	bool changed = set_held(t->priv, base);

	if (changed)
		wr_thread_show_live(t->priv, true);
	return changed;
}

static void set_found(struct wr_thread_private *p, void *base)
{
	set_held(p, *(uintptr_t *)base);
}

int wr_threads_set_stack(struct wr_threads *r, wr_thread_match_fn *match,
			 void *arg, uintptr_t base)
{
	struct wr_thread_private *p;

	wr_thread_check_stopper(r);
	wr_mutex_lock(&r->stop);
	wr_mutex_lock(&r->registry);
	p = wr_thread_find(r, match, arg);
	if (p)
		wr_thread_hold_one(r, p, set_found, &base);
	wr_mutex_unlock(&r->registry);
	wr_thread_end_stop(r);
	return p ? 0 : -ESRCH;
}
