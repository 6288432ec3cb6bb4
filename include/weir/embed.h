/* SPDX-License-Identifier: MIT */
/*
 * For those who put another collector's interface on top of weir, or run
 * programs that keep hidden pointers, stacks of their own or references the
 * collector cannot see written.  The conventions are those of <weir/weir.h>.
 */
#ifndef WEIR_EMBED_H
#define WEIR_EMBED_H

#include <pthread.h>

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

/* The same from begin to the end that belongs to it, on the same thread; they
 * nest, with calls of the above too.  end: -EINVAL if there was no begin. */
WEIR_API int weir_locked_begin(weir_heap *heap);
WEIR_API int weir_locked_end(weir_heap *heap);

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

/*
 * Objects that are asked before they go.  A kind like `like`, of whose objects
 * fn(object, arg) is called once one was found unreachable, before its memory
 * is used for anything else: the object and all that it reaches are as they
 * were.  0: it is not asked again, its memory goes with the cycle that finds it
 * unreachable next.  Anything else: it is kept, and asked again when a cycle
 * finds it so.  fn must not bring the object back, that is, store a reference
 * to it anywhere; weak references and links to it are cleared, and finalizers
 * have run.
 *
 * With ORDERED what an unreachable object refers to is kept, and thus neither
 * asked, finalized nor cleared, until it was asked itself: from the first of a
 * chain on one cycle each, and cycles of such objects are never asked.
 *
 * fn runs in weir_disclaim_run(), on several threads at once if these call it,
 * for one object once.  When it has returned 0 the object is of the kind
 * `like`; or a leaf, if that has a trace function: then what it leads to is not
 * kept any more for others that were found unreachable with it, unless ORDERED
 * is given. Until then a trace function of `like` may run in the middle of it:
 * a concurrent one at any time, others in a stop, unless it runs within
 * weir_locked_call().  Such objects are
 * never allocated inline, and not where there is no memory to note them
 * (ENOMEM).  The errors are those of weir_kind_trace(); -EINVAL also if `like`
 * has such a function.
 */
#define WEIR_DISCLAIM_ORDERED 1u
typedef int weir_disclaim_fn(void *object, void *arg);
WEIR_API int weir_kind_disclaim(weir_heap *heap, weir_kind like,
				weir_disclaim_fn *fn, void *arg, unsigned flags,
				weir_kind *kind);

/* Ask up to `max` objects (0: all) that were found unreachable, on the calling
 * mutator's thread.  Returns how many were asked, or a negative errno; other
 * errors and places are those of weir_finalizers_run(). */
WEIR_API long weir_disclaim_run(weir_mutator *mutator, size_t max);

/* How many wait to be asked.  Cheap; any thread.  0 for a heap that is none. */
WEIR_API size_t weir_disclaim_queued(weir_heap *heap);

/* The object is not asked any more: it is of the kind `like` from now on.  Not
 * within its own fn.  -ENOENT: no object of such a kind starts there.  Any
 * thread. */
WEIR_API int weir_disclaim_forget(weir_heap *heap, void *object);

/* The kind that the object which starts at `p` was allocated with; -ENOENT if
 * none does.  Any thread. */
WEIR_API int weir_object_kind(weir_heap *heap, const void *p, weir_kind *kind);

/* ---- What was found alive ----------------------------------------------- */

/*
 * Whether the object that `p` points into is marked: 1 or 0.  In a callback
 * that runs in a pause: by the cycle under way so far (in a minor one what is
 * old is marked).  Elsewhere only within weir_locked_call(): alive in the last
 * pause, or found so since.
 */
WEIR_API int weir_object_marked(weir_heap *heap, const void *p);

/* fn(object, size, arg) for each object that was alive in the last pause, or
 * was found so since; size as in weir_object_size().  Only within
 * weir_locked_call(), which see for what fn may do.  Nothing comes away
 * meanwhile. */
typedef void weir_object_fn(void *object, size_t size, void *arg);
WEIR_API int weir_object_each(weir_heap *heap, weir_object_fn *fn, void *arg);

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
	WEIR_EVENT_STOPPING,    /* the pause is about to begin */
	WEIR_EVENT_STOPPED,     /* the pause: all mutators are stopped */
	WEIR_EVENT_RESUMING,    /* its end: they are about to go on */
	WEIR_EVENT_CYCLE_END,   /* swept */
};

/*
 * fn is called on the collector's thread, for each cycle with all five in this
 * order.  Shorter stops of a cycle before its pause, in which pages are cleaned
 * or one thread's stack is read, are not told; nor are stops ahead of the
 * pause, in which root and trace callbacks run too.  In STOPPING the program
 * runs yet, but no weir_locked_call() does, from there to the end of the pause.
 * Between STOPPED and RESUMING what holds for root callbacks holds for it: no
 * malloc(), no lock that a stopped thread could hold.  It must not call the
 * library but for weir_heap_stats() and weir_thread_each_held().  One for a
 * heap: a second call replaces the first, NULL removes it; when the call
 * returns the old one is not called any more (-EDEADLK from within fn or a
 * trace or root callback).  An attached caller counts as blocked while it
 * waits.  After fork() the child has it too; who forks does not wait for fn,
 * which may be anywhere then, but from STOPPING on: in that it may take no lock
 * whose holder forks, or calls what waits for a pause or holds cycles.
 */
typedef void weir_event_fn(weir_heap *heap, enum weir_event event, void *arg);
WEIR_API int weir_heap_on_event(weir_heap *heap, weir_event_fn *fn, void *arg);

/*
 * Within the event handler, from STOPPED to RESUMING: fn(thread, arg) for each
 * thread that is held.  One in a blocking region is not.  What holds for the
 * handler holds for fn.  -EINVAL elsewhere.
 */
typedef void weir_thread_fn(pthread_t thread, void *arg);
WEIR_API int weir_thread_each_held(weir_heap *heap, weir_thread_fn *fn,
				   void *arg);

/* weir_finalizer_set() that tells what it replaced or removed: 1, and its
 * argument in *old, which nothing here refers to any more; 0: there was none,
 * or it is queued already, and will run. */
WEIR_API int weir_finalizer_swap(weir_heap *heap, void *object,
				 weir_finalizer_fn *fn, void *arg,
				 unsigned flags, void **old);

/* How many finalizers are queued now; weir_finalizers_run() runs them.  Cheap;
 * any thread.  0 for a heap that is none. */
WEIR_API size_t weir_finalizers_queued(weir_heap *heap);

/* Run all finalizers that there are, queued or not, until none is left: those
 * that they set themselves too.  Their objects may be in use yet.  In no order.
 * Returns how many ran; the rest is as in weir_finalizers_run(). */
WEIR_API long weir_finalizers_run_all(weir_mutator *mutator);

/*
 * fn(object, arg) is called for each object whose finalizer was queued, before
 * that can run: on the collector's thread, when the pause that found it is
 * over, and no weir_locked_call() is under way.  It must not call the library.
 * One for a heap, NULL: none.  When the call returns the old one is not called
 * any more.  -EDEADLK in a trace, root or event callback.
 */
typedef void weir_queued_fn(void *object, void *arg);
WEIR_API int weir_finalizers_on_queued(weir_heap *heap, weir_queued_fn *fn,
				       void *arg);

/* ---- Threads held by the program ----------------------------------------- */

/*
 * Hold an attached thread wherever it is, until it is resumed: all cycles go on
 * meanwhile, its stack counts.  It is not held inside of weir_locked_call(),
 * but may be with any lock of the program's or the C library's: one that is
 * held in the middle of dlopen(), dlclose() or dl_iterate_phdr() keeps cycles
 * from their ends where data segments are roots, and one in malloc() may.  A
 * thread that is in a blocking region must not leave it within
 * weir_locked_call().  One in a
 * blocking region goes on in there, and is held when it leaves it; the caller
 * is held before suspend() returns.  They do not nest.  suspended: 1 or 0.
 * -ESRCH: no such thread is attached; suspend: -EDEADLK for the caller within
 * weir_locked_call().  Any thread; all are -EDEADLK in a trace, root or event
 * callback.
 */
WEIR_API int weir_thread_suspend(weir_heap *heap, pthread_t thread);
WEIR_API int weir_thread_resume(weir_heap *heap, pthread_t thread);
WEIR_API int weir_thread_suspended(weir_heap *heap, pthread_t thread);

/* The same for all attached threads but the caller, and those that attach
 * meanwhile: they wait.  From begin to end the caller is as within
 * weir_locked_call().  end: -EINVAL if this thread did not begin. */
WEIR_API int weir_threads_suspend_begin(weir_heap *heap);
WEIR_API int weir_threads_suspend_end(weir_heap *heap);

/* ---- Roots and stacks --------------------------------------------------- */

/* From now on writable data segments of the program and its shared objects
 * are roots (on != 0) or not, whatever data-segments= said.  Any thread, but
 * not within a callback of dl_iterate_phdr(): it waits for a pause, which may
 * wait for the loader's lock.  -ENOMEM or -EAGAIN: there is no thread to watch
 * the segments, nothing has changed; -EDEADLK in a trace or root callback. */
WEIR_API int weir_root_data_segments(weir_heap *heap, int on);

/* Never scan [start, start + size) as part of a data segment, nor a word that
 * is partly in it; ranges that are registered with weir_root_add() are scanned.
 * Ranges may overlap; they stay excluded until exclude_none() forgets all of
 * them.  When it returns the range may be made unreadable.  Any thread.
 * -EINVAL, -ENOMEM, -EDEADLK as in weir_root_add(). */
WEIR_API int weir_root_exclude(weir_heap *heap, const void *start, size_t size);
WEIR_API int weir_root_exclude_none(weir_heap *heap);

/*
 * Of data segments scan those only for which fn(file name of the object, start,
 * size, arg) is not 0; the name is "" for the program.  NULL: all.  fn is asked
 * anew when objects were loaded or unloaded: on a thread of the library, the
 * loader's lock held, beside the program.  It must not call the library, nor
 * load anything.  One for a heap; when the call returns the old one is not
 * called any more.  Places and errors are those of weir_root_data_segments().
 */
typedef int weir_segment_fn(const char *name, const void *start, size_t size,
			    void *arg);
WEIR_API int weir_root_segment_filter(weir_heap *heap, weir_segment_fn *fn,
				      void *arg);

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

/*
 * The same for another thread, which is held for a moment: it is to switch to,
 * or runs on, a stack with that base; its own stack's base: is back there.
 * Also in a root callback that runs in the pause: it counts in that pause.
 * `mutator` is only a name here.  -ESRCH: that thread is not attached (any
 * more); -EDEADLK in a trace or event callback, and in a root callback that
 * runs beside the program.
 */
WEIR_API int weir_thread_set_stack_of(weir_heap *heap, weir_mutator *mutator,
				      void *base);

/* ---- Errors -------------------------------------------------------------- */

/* For libraries on top of weir: what weir_error_text() says on this thread from
 * now on, by a format as printf()'s; it is cut at 511 bytes, and an argument
 * may be the text that there was.  Returns -err; errno stays. */
WEIR_API int weir_error_set(int err, const char *format, ...)
#if defined(__GNUC__)
	__attribute__((format(printf, 2, 3)))
#endif
	;

#ifdef __cplusplus
}
#endif
#endif
