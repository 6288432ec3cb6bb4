/* SPDX-License-Identifier: MIT */
/*
 * For those who put another collector's interface on top of weir, or run
 * programs that keep hidden pointers, stacks of their own or references the
 * collector cannot see written.  The conventions are those of <weir/weir.h>.
 */
#ifndef WEIR_EMBED_H
#define WEIR_EMBED_H

#include <weir/weir.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Links: words that are cleared when an object dies ------------------ */

#define WEIR_LINK_SHORT 0u /* cleared before finalizers are queued */
#define WEIR_LINK_LONG 1u  /* cleared once no finalizer keeps it, either */

/*
 * Store 0 in *slot when the object that `target` points into is found
 * unreachable.  The slot is any aligned word; what it holds does not matter,
 * and must not be seen as a reference (hidden, or in a leaf object) if it is
 * not to keep the target.  It is cleared with all mutators stopped.  The link
 * goes away when it was cleared, and when the slot is in a heap object that
 * died; a slot outside of the heap must be removed before its memory goes.
 * Each slot has at most one short and one long link.
 *
 * Returns 0, or 1 if the slot had such a link, whose target is replaced.
 * -EINVAL: slot NULL, not aligned or in free memory of the heap, target not in
 * an object, unknown flags; -ENOMEM; -EDEADLK in a trace or root callback.  Any
 * thread.
 */
WEIR_API int weir_link_add(weir_heap *heap, void **slot, const void *target,
			   unsigned flags);
/* -ENOENT: there is none (any more). */
WEIR_API int weir_link_remove(weir_heap *heap, void **slot, unsigned flags);
/* Let the link of `from` clear `to` instead; the words themselves are the
 * caller's to copy, the reference before the call: `to` may be cleared when it
 * returns.  -ENOENT: `from` has none; -EEXIST: `to` has one. */
WEIR_API int weir_link_move(weir_heap *heap, void **from, void **to,
			    unsigned flags);

/*
 * Run fn(arg) while no pause is: no link and no weak reference is cleared
 * meanwhile.  One thread at a time; calls nest.  fn must be short, since a
 * pause waits for it, and return; it must not fork.  It may use the functions
 * above.  What could wait for a pause is refused to it with EDEADLK: memory
 * from the heap, weir_collect() without NOWAIT, creating and destroying heaps.
 * The thread may still be stopped for a moment in the middle of fn, for the
 * collector to look at its stack or to clean pages.
 *
 * Returns what fn returned.  NULL with errno, fn not called: EINVAL, fn is NULL
 * or the heap is none; EDEADLK in a trace, root or event callback.  Any thread:
 * an unattached one, or one in a blocking region, is serialised too.
 */
WEIR_API void *weir_locked_call(weir_heap *heap, void *(*fn)(void *),
				void *arg);

/* ---- Kinds -------------------------------------------------------------- */

/*
 * A flag of weir_kind_trace(): the references of a live object of this kind
 * may change without a write to its pages (they are in memory outside of the
 * heap, say).  So fn runs for every live one in the pause of every cycle, also
 * of a minor one, and in stops ahead of it, so that what only they lead to is
 * marked beside the program.  Not together with WEIR_TRACE_CONCURRENT
 * (-EINVAL).  Such objects are never allocated inline, and not where there is
 * no memory to note them (ENOMEM).  Those that the pause finds dead are
 * forgotten in it; what fn looks at must stay until then.
 */
#define WEIR_TRACE_ALWAYS 2u

/* The kind that the object which starts at `p` was allocated with; -ENOENT if
 * none does.  Any thread. */
WEIR_API int weir_object_kind(weir_heap *heap, const void *p, weir_kind *kind);

/* ---- No cycles for a while ---------------------------------------------- */

/*
 * No cycle begins until weir_collect_enable() was called as often; one that is
 * under way or asked for is waited for.  Meanwhile weir_collect() is -EBUSY,
 * and allocation at the limit asks the out-of-memory callback, if there is one,
 * and else fails at once.  If a cycle is due when it is enabled again, the next
 * allocation to look begins it.  A child of fork() has what was disabled when
 * it was made.  The same places and errors as weir_collect(); enable: -EINVAL
 * if it was not disabled.
 */
WEIR_API int weir_collect_disable(weir_heap *heap);
WEIR_API int weir_collect_enable(weir_heap *heap);

/*
 * The same without a wait: a cycle that is under way goes no further than to
 * its pause until weir_collect_release() was called as often.  Nothing is found
 * dead meanwhile, no weak reference or link is cleared, and none of the
 * functions runs that only pauses and the stops ahead of them call; what runs
 * beside the program may.  Who waited for that cycle is refused, as if it had
 * come later.  Also within weir_locked_call(); which this waits for if another
 * thread is in it.  release: -EINVAL if it was not held.
 */
WEIR_API int weir_collect_hold(weir_heap *heap);
WEIR_API int weir_collect_release(weir_heap *heap);

/* ---- Room ahead of time -------------------------------------------------- */

/*
 * The program says that it will need this many bytes: what heap-min says
 * becomes that, if it is less, so that they can be allocated before the first
 * cycle, or between two.  Nothing is taken from the system yet.  Any thread.
 * -EINVAL: above the hard limit; -EDEADLK in a trace or root callback.
 */
WEIR_API int weir_heap_reserve(weir_heap *heap, size_t bytes);

/* ---- Events ------------------------------------------------------------- */

enum weir_event {
	WEIR_EVENT_CYCLE_BEGIN, /* before anything is marked */
	WEIR_EVENT_STOPPED,     /* the pause: all mutators are stopped */
	WEIR_EVENT_RESUMING,    /* its end: they are about to go on */
	WEIR_EVENT_CYCLE_END,   /* swept */
};

/*
 * fn is called on the collector's thread, for each cycle with all four in this
 * order.  Shorter stops of a cycle before its pause, in which pages are cleaned
 * or one thread's stack is read, are not told; nor are stops ahead of the
 * pause, in which root and trace callbacks run too.  Between STOPPED and
 * RESUMING what holds for root callbacks holds for it: no malloc(), no lock
 * that a stopped thread could hold.  It must not call the library but for
 * weir_heap_stats().  One for a heap: a second call replaces the first, NULL
 * removes it; when the call returns the old one is not called any more
 * (-EDEADLK from within fn or a trace or root callback).  An attached caller
 * counts as blocked while it waits.  After fork() the child has it too; who
 * forks does not wait for fn, which may be anywhere then.
 */
typedef void weir_event_fn(weir_heap *heap, enum weir_event event, void *arg);
WEIR_API int weir_heap_on_event(weir_heap *heap, weir_event_fn *fn, void *arg);

/* weir_finalizer_set() that tells what it replaced or removed: 1, and its
 * argument in *old, which nothing here refers to any more; 0: there was none,
 * or it is queued already, and will run. */
WEIR_API int weir_finalizer_swap(weir_heap *heap, void *object,
				 weir_finalizer_fn *fn, void *arg,
				 unsigned flags, void **old);

/* How many finalizers are queued now; weir_finalizers_run() runs them.  Cheap;
 * any thread.  0 for a heap that is none. */
WEIR_API size_t weir_finalizers_queued(weir_heap *heap);

/* ---- Roots and stacks --------------------------------------------------- */

/* From now on writable data segments of the program and its shared objects
 * are roots (on != 0) or not, whatever data-segments= said.  Any thread, but
 * not within a callback of dl_iterate_phdr(): it waits for a pause, which may
 * wait for the loader's lock.  -ENOMEM or -EAGAIN: there is no thread to watch
 * the segments, nothing has changed; -EDEADLK in a trace or root callback. */
WEIR_API int weir_root_data_segments(weir_heap *heap, int on);

/* Never scan [start, start + size) as part of a data segment, nor a word that
 * is partly in it; ranges that are registered with weir_root_add() are scanned.
 * Ranges may overlap; they stay excluded until the heap is destroyed.  When it
 * returns the range may be made unreadable.  Any thread.  -EINVAL, -ENOMEM,
 * -EDEADLK as in weir_root_add(). */
WEIR_API int weir_root_exclude(weir_heap *heap, const void *start, size_t size);

/*
 * The calling thread is about to switch to, or runs on, a stack of its own
 * making whose highest address is `base`: what is live is scanned from its
 * stack pointer up to there.  NULL: back on the thread's own stack.  Where the
 * stack pointer is found decides: on the thread's own stack that one is
 * scanned; elsewhere up to `base` if that is above the stack pointer and all
 * between can be read, else to the end of the mapping that the stack pointer
 * is in, so that the call may come before or after the switch; so may one with
 * NULL.  Therefore stacks have a page that cannot be read (PROT_NONE) at both
 * ends, and each is one mapping.
 *
 * Stacks that no thread runs on are the program's to report, with
 * weir_root_add() or a root callback, and so are registers that a switch saves
 * elsewhere.  The thread's own is one of them while it is away, but if this
 * function was called on it, with a base, before it was left, it is scanned
 * from the stack pointer of the last such call.  A handler that runs on an
 * alternate signal stack has the mapping below `base` scanned: it must not
 * come between this call and the switch, nor may that stack be SS_AUTODISARM.
 *
 * Cheap: it makes a note.  In a blocking region it counts when that is left.
 * -EINVAL: not the calling thread's mutator.
 */
WEIR_API int weir_thread_set_stack(weir_mutator *mutator, void *base);

/*
 * The same for a program that writes the base of the stack that the calling
 * thread switches to into a word of its own, *base, on that thread, before or
 * after the switch: what the word has when the thread is stopped or enters a
 * blocking region counts as told.  An address in the thread's own stack, or
 * one past it, is its NULL.  The own stack is the program's to report while the
 * thread is away, except in the pause that comes between the write and the
 * switch, or the switch and the write: then what is live of the stack that it
 * stands on is scanned, and all of the one that the word tells of.  A call of
 * weir_thread_set_stack() notes where the own stack is left, and no more.
 *
 * The word must be there until the thread is detached, or until another one, or
 * NULL for none, is given.  -EINVAL: not the calling thread's mutator, or not
 * aligned.
 */
WEIR_API int weir_thread_watch_stack(weir_mutator *mutator,
				     void *const volatile *base);

#ifdef __cplusplus
}
#endif
#endif
