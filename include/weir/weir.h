/* SPDX-License-Identifier: MIT */
/*
 * weir: a concurrent garbage collector whose write barrier is the page table.
 *
 * The whole public interface but for the inlinable allocation path, which is
 * in <weir/alloc.h>.  Conventions, which hold unless a comment says otherwise:
 *
 *  - Functions return 0 or a negative errno value; those that return pointers
 *    return NULL and set errno.  weir_error_text() then says, in a sentence,
 *    what was wrong and what would cure it.
 *  - Sizes are in bytes, times in nanoseconds of CLOCK_MONOTONIC.
 *  - A `weir_mutator *` may be used only by the thread that attached it.  A
 *    `weir_heap *` may be used by any thread, attached or not, until
 *    weir_heap_destroy() is called.
 *  - Nothing here may be called from a signal handler.
 *  - What is never right is -EINVAL (NULL with errno EINVAL; functions that
 *    return nothing do nothing): NULL where it is not said to be allowed, a
 *    handle after its destruction, a mutator that is not the calling
 *    thread's, a foreign pointer, unknown flags, a range past the end of the
 *    address space.  Checking builds (configure --enable-checking) abort
 *    instead, with the function's name and the cause.  What may happen to a
 *    right program is an error in every build; so is -EINVAL of options, of
 *    limits, and of weir_thread_attach() for a heap that was destroyed.
 *  - Handles of a heap (mutators, kinds, weak references) end with it.  One
 *    used later is -EINVAL as long as nothing new has its address.
 *  - Functions of the program that the library calls must return: no
 *    longjmp() and no C++ exception out of them.  pthread_exit() is allowed.
 *  - A reference keeps its object alive if it points to any byte of it; one
 *    that points past its last byte does not.
 *  - A reference goes from thread to thread as any pointer does: by a lock,
 *    or a store with release and a load with acquire order.  Without that
 *    the other thread may see old contents; the collector needs none of it.
 *  - With data-segments=on, what dl_iterate_phdr() calls must not allocate or
 *    wait for a cycle: it holds the loader's lock, which a cycle needs.
 *  - fork() may be called at any time.  The child goes on with the calling
 *    thread and its own collector.  Handlers of pthread_atfork() registered
 *    before weir_heap_create() run while the library's locks are held: they
 *    must not call the library, nor write to the heap.
 *  - Trace and root callbacks run on threads of the collector and may call
 *    weir_visit(), weir_visit_range(), weir_object_base(),
 *    weir_object_size(), weir_heap_stats(), weir_thread_self() (NULL there),
 *    weir_version() and weir_error_text().  Others return -EDEADLK, and those
 *    that need an attached thread -EINVAL.
 */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WEIR_API __attribute__((visibility("default")))
#else
#define WEIR_API
#endif

#define WEIR_VERSION_MAJOR 0
#define WEIR_VERSION_MINOR 1
#define WEIR_VERSION_PATCH 0

/* A collected heap.  One heap may exist in a process at a time. */
typedef struct weir_heap weir_heap;

/* A thread that may hold references into a heap and allocate from it. */
typedef struct weir_mutator weir_mutator;

/* What a trace or root callback hands the references it finds to. */
typedef struct weir_visitor weir_visitor;

/* How the collector finds the references in an object.  See weir_kind_*(). */
typedef uint32_t weir_kind;
/* Any aligned word may be a reference; the object holds none. */
#define WEIR_KIND_CONSERVATIVE ((weir_kind)0)
#define WEIR_KIND_LEAF ((weir_kind)1)

/* ---- Library ------------------------------------------------------------ */

/* "MAJOR.MINOR.PATCH" of the library that is running, static storage. */
WEIR_API const char *weir_version(void);

/*
 * Why the last weir call of this thread failed and what would cure it.  Never
 * NULL; "" if none failed yet.  Valid until this thread's next weir call.
 */
WEIR_API const char *weir_error_text(void);

/* ---- Heap --------------------------------------------------------------- */

/*
 * Called when the heap cannot serve an allocation of `bytes` even after a
 * stopped collection.  Runs on the allocating thread, with no lock held, and
 * may release references or raise the limit; weir_heap_destroy() and the last
 * weir_thread_detach() in it are -EBUSY.  Return non-zero to try once
 * more, zero to make the allocation return NULL with errno ENOMEM.
 */
typedef int weir_oom_fn(weir_heap *heap, size_t bytes, void *arg);

/* Options of weir_heap_create().  Set `size` to sizeof(the struct); zero the
 * rest for the defaults. */
struct weir_heap_options {
	size_t size; /* sizeof(struct weir_heap_options) of the caller */
	const char *options; /* "key=value,..." as in WEIR_OPTIONS, or NULL */
	weir_oom_fn *oom;    /* out-of-memory callback, or NULL */
	void *oom_arg;       /* its argument */
};

/*
 * Create the heap and start its collector threads.  `options` may be NULL.
 * Options given here are read first; the environment variable WEIR_OPTIONS
 * overrides them.  `weir-info --options` lists every key.  Without heap-max
 * the hard limit is three quarters of the memory that the machine or the
 * process's control group has.
 *
 * Errors: -EINVAL an unknown key, a bad value or a struct of an unknown size;
 * -EBUSY a heap exists already; -ENOMEM the address range could not be
 * reserved; -ENOTSUP the barrier asked for is not to be had here; -EDEADLK in
 * a callback of the collector.  *heap is not written then.
 */
WEIR_API int weir_heap_create(const struct weir_heap_options *options,
			      weir_heap **heap);

/*
 * Stop the collector and give all memory back.  Every other thread must be
 * detached (-EBUSY if not); the caller's own mutator, if any, is detached.
 * Finalizers that did not run yet are not run.  NULL is allowed.  Of other
 * threads' calls only weir_thread_attach() may come beside it: one of the two
 * is refused.  -EBUSY also in a blocking region, a finalizer or an
 * out-of-memory callback of the calling thread; -EDEADLK in a trace or root
 * callback.  An error changes nothing.
 */
WEIR_API int weir_heap_destroy(weir_heap *heap);

/* Change the limits of a running heap.  0 leaves a limit as it is.  `hard` is
 * never exceeded, by the blocks in use and free ones that the system still
 * backs together; above `soft` the collector works as hard as it can. -EINVAL:
 * hard above the range reserved at creation, or soft above hard; then both stay
 * as they are. */
WEIR_API int weir_heap_set_limits(weir_heap *heap, size_t soft, size_t hard);

#define WEIR_COLLECT_FULL 0u    /* mark everything anew */
#define WEIR_COLLECT_MINOR 1u   /* only what was allocated since the last */
#define WEIR_COLLECT_NOWAIT 2u  /* start the cycle and return */
#define WEIR_COLLECT_STOPPED 4u /* one stop-the-world cycle, no concurrency */

/*
 * Run a cycle and return when it has finished, swept.  The cycle starts after
 * the call does: garbage that existed at the call is found, but for what
 * conservative roots retain.  Where other threads write all over the heap it
 * takes seconds: they are stopped for a small part of the time only.
 * Callable from attached and other threads, in blocking regions and in
 * finalizers; an attached caller counts as blocked while it waits.  -EINVAL
 * for unknown flags, -EDEADLK from within a trace or root callback.
 */
WEIR_API int weir_collect(weir_heap *heap, unsigned flags);

/* ---- Threads ------------------------------------------------------------ */

/*
 * Make the calling thread a mutator of `heap`.  Its whole stack and its
 * registers are roots from now on; its thread-local variables are not.
 * Attaching twice nests: the same handle comes back and as many detaches are
 * needed.  A thread that exits while attached is detached by the library.
 * Errors: -EINVAL, also when the heap was destroyed (beside the call, too);
 * -ENOMEM; those of pthread_getattr_np() when the stack's extent cannot be
 * found; -EDEADLK in a trace or root callback.
 */
WEIR_API int weir_thread_attach(weir_heap *heap, weir_mutator **mutator);

/* Undo one attach.  The calling thread must hold no heap reference that it
 * goes on to use.  -EINVAL if the handle is not the calling thread's; -EBUSY
 * for the last one in a blocking region, a finalizer or an out-of-memory
 * callback of this thread, which goes on to use the mutator. */
WEIR_API int weir_thread_detach(weir_mutator *mutator);

/* The calling thread's mutator of `heap`, or NULL (errno unchanged): also for
 * a heap that is NULL or was destroyed, in every build. */
WEIR_API weir_mutator *weir_thread_self(weir_heap *heap);

/*
 * Run fn(arg) as a blocking region: the collector does not wait for this
 * thread while it is inside.  fn may read and write heap memory only through
 * system calls on objects that are reachable from elsewhere, must not
 * allocate (what is not inlined refuses, EINVAL) or read weak references, and
 * may call weir_unblocked_call().  Regions nest.  Returns what fn returned;
 * NULL with errno EINVAL, fn not called, if the mutator is not the calling
 * thread's or fn is NULL.
 */
WEIR_API void *weir_blocking_call(weir_mutator *mutator, void *(*fn)(void *),
				  void *arg);

/* From within a blocking region: run fn(arg) as an ordinary mutator again.
 * The same result and errors; EINVAL outside of a region, too. */
WEIR_API void *weir_unblocked_call(weir_mutator *mutator, void *(*fn)(void *),
				   void *arg);

/* A place where the collector may stop this thread.  Needed only under
 * `stop=safepoints`; cheap enough for loops (see weir_safepoint() in alloc.h
 * for the inline form).  Does nothing in a blocking region, or for a mutator
 * that is not the calling thread's (checking builds abort).  Under
 * `stop=safepoints` call dlopen(), dlclose() and dl_iterate_phdr() in blocking
 * regions if data-segments=on: a pause may hold the loader's lock. */
WEIR_API void weir_safepoint_slow(weir_mutator *mutator);

/* ---- Allocation --------------------------------------------------------- */

/*
 * Zeroed memory of at least `size` bytes, 16-byte aligned, collected when no
 * reference is left.  Size 0 gives a unique object of 16 bytes.
 * NULL with errno ENOMEM when the heap is exhausted or the size is above the
 * hard limit, EINVAL for an unknown kind or a mutator that is not the calling
 * thread's, or is in a blocking region.
 */
WEIR_API void *weir_alloc(weir_mutator *mutator, size_t size);
/* Of an object without references: it is not scanned. */
WEIR_API void *weir_alloc_leaf(weir_mutator *mutator, size_t size);
/* Of an object of that kind: scanned as it says. */
WEIR_API void *weir_alloc_kind(weir_mutator *mutator, size_t size,
			       weir_kind kind);

/* The same with an alignment, a power of two up to 2^30 (else EINVAL). */
WEIR_API void *weir_alloc_aligned(weir_mutator *mutator, size_t size,
				  size_t alignment, weir_kind kind);

/* First byte of the object that `p` points into, or NULL if none (no error:
 * `p` may be anything).  Any thread; NULL with errno EINVAL for a bad heap. */
WEIR_API void *weir_object_base(weir_heap *heap, const void *p);
/* Usable bytes of the object that starts at `p`, or 0 if none does; the same
 * otherwise. */
WEIR_API size_t weir_object_size(weir_heap *heap, const void *p);

/* ---- Kinds -------------------------------------------------------------- */

/* Hand a reference to the collector.  NULL, interior and foreign pointers are
 * allowed; the latter are ignored.  The visitor is the callback's, valid until
 * it returns, on its thread; NULL: nothing happens (checking builds abort). */
WEIR_API void weir_visit(weir_visitor *visitor, const void *reference);
/* Hand over every aligned word of [start, end) as a possible reference.  An
 * empty range is allowed, NULL too; an end before its start is like a NULL
 * visitor. */
WEIR_API void weir_visit_range(weir_visitor *visitor, const void *start,
			       const void *end);

/*
 * Reports the references of the object at `object` with weir_visit().  May
 * run on any collector thread, several objects at once; must not allocate,
 * lock anything that a stopped thread could hold, or write to the heap.
 */
typedef void weir_trace_fn(void *object, size_t size, weir_visitor *visitor,
			   void *arg);

#define WEIR_TRACE_CONCURRENT                          \
	1u /* fn may run while mutators write `object` \
	    */

/*
 * An object is a run of records of `words` words each; bit i of `bitmap` (64
 * bits a uint64_t, least significant first) says that word i of a record may
 * hold a reference.  The bitmap is copied.  A bitmap without a bit gives a
 * kind like WEIR_KIND_LEAF.  -EINVAL: no words, more than 65536 words, NULL.
 * -ENOMEM: no memory, or the table of 2^20 kinds is nearly full (kinds are
 * not freed before the heap is).  *kind is not written then.
 */
WEIR_API int weir_kind_bitmap(weir_heap *heap, const uint64_t *bitmap,
			      size_t words, weir_kind *kind);

/* Objects traced by `fn`, once or more often in a cycle.  Without
 * WEIR_TRACE_CONCURRENT fn runs only while all mutators are stopped: ahead of
 * the pause, in stops that last half a millisecond by it, and for objects that
 * were written to last in the pause itself.  -EINVAL: NULL, unknown flags;
 * -ENOMEM as above. */
WEIR_API int weir_kind_trace(weir_heap *heap, weir_trace_fn *fn, void *arg,
			     unsigned flags, weir_kind *kind);

/* ---- Roots -------------------------------------------------------------- */

/*
 * Scan every aligned word of [start, start + size) for references, until
 * removed with the same arguments.  Ranges may overlap; size 0 is allowed,
 * nothing is scanned.  The memory must stay readable until remove returns,
 * else the collector faults: remove it before it is unmapped.  Any thread.
 * -EINVAL: start NULL, or start + size overflows; -ENOENT: no such range;
 * -ENOMEM; -EDEADLK in a trace or root callback.
 */
WEIR_API int weir_root_add(weir_heap *heap, const void *start, size_t size);
WEIR_API int weir_root_remove(weir_heap *heap, const void *start, size_t size);

typedef void weir_root_fn(weir_visitor *visitor, void *arg);

/* fn reports roots with weir_visit(); it runs with all mutators stopped, in the
 * pause and in stops ahead of it, and with WEIR_TRACE_CONCURRENT beside them
 * instead of in the latter.  Like a
 * trace function it must not allocate, from malloc() either, or lock what a
 * stopped thread could hold.  It is not called any more once remove returned.
 * -EINVAL: fn NULL, unknown flags; the rest as above. */
WEIR_API int weir_root_add_callback(weir_heap *heap, weir_root_fn *fn,
				    void *arg, unsigned flags);
/* The callback that was added with this fn and arg; errors as above. */
WEIR_API int weir_root_remove_callback(weir_heap *heap, weir_root_fn *fn,
				       void *arg);

/* ---- Finalizers, weak references, ephemerons ---------------------------- */

typedef void weir_finalizer_fn(void *object, void *arg);

#define WEIR_FINALIZE_UNORDERED 0u   /* as soon as `object` is unreachable */
#define WEIR_FINALIZE_ORDERED 1u     /* only once no other finalizable object */
				     /* reaches it (cycles are never run) */
#define WEIR_FINALIZE_IGNORE_SELF 2u /* with ORDERED: its own references to */
				     /* itself do not count */

/*
 * Call fn(object, arg) once after `object` became unreachable; the object is
 * alive again for the call and dies at a later cycle unless it is stored or
 * given a finalizer anew.  One finalizer an object: a second call replaces
 * the first, fn == NULL removes it.  `arg` is not a root.  -EINVAL: not the
 * start of an object, unknown flags; -ENOMEM.  Any thread.  Finalizers run in
 * weir_finalizers_run(), or on the library's own attached thread with
 * `finalizer-thread=on`.
 */
WEIR_API int weir_finalizer_set(weir_heap *heap, void *object,
				weir_finalizer_fn *fn, void *arg,
				unsigned flags);

/* Run up to `max` queued finalizers (0: all) on the calling mutator's thread.
 * Returns how many ran, or a negative errno.  In a finalizer the last detach
 * of its thread and weir_heap_destroy() are -EBUSY.  -EINVAL in a blocking
 * region. */
WEIR_API long weir_finalizers_run(weir_mutator *mutator, size_t max);

/* A reference that does not keep its target alive. */
typedef struct weir_weak weir_weak;

/* A weak reference to the object `target` points into.  The handle is not in
 * the heap: it lives until weir_weak_destroy(), or until the heap is
 * destroyed: then the functions below refuse it.  -EINVAL: no such object
 * (NULL too); -ENOMEM.  Create, set and destroy: any thread. */
WEIR_API int weir_weak_create(weir_heap *heap, void *target, weir_weak **weak);
/* The target, or NULL once it was found unreachable.  The caller must be an
 * attached thread that is not in a blocking region: else, and for a bad
 * handle, NULL with errno EINVAL. */
WEIR_API void *weir_weak_get(const weir_weak *weak);
/* Aim it at another object, or at none (NULL). */
WEIR_API int weir_weak_set(weir_weak *weak, void *target);
/* NULL is allowed.  No other thread may be using the handle. */
WEIR_API void weir_weak_destroy(weir_weak *weak);

/* A heap object that keeps `value` alive only while `key` is reachable other
 * than through values of such objects.  Collected when itself unreachable.
 * The key must point into an object (NULL and foreign pointers: EINVAL); a
 * value that does not, NULL among them, is returned as it is.  NULL with errno
 * ENOMEM when there is no memory. */
typedef struct weir_ephemeron weir_ephemeron;
WEIR_API weir_ephemeron *weir_ephemeron_create(weir_mutator *mutator, void *key,
					       void *value);
/* Both NULL once the key was found unreachable; with errno EINVAL for what is
 * no ephemeron, and on a thread that is not attached or in a blocking region.
 */
WEIR_API void *weir_ephemeron_key(const weir_ephemeron *ephemeron);
WEIR_API void *weir_ephemeron_value(const weir_ephemeron *ephemeron);

/* ---- Seeing what happens ------------------------------------------------ */

#define WEIR_HISTOGRAM_BUCKETS 64

/* Durations by power of two: bucket i counts those in [2^i, 2^(i+1)) ns,
 * bucket 0 those below 2 ns too. */
struct weir_histogram {
	uint64_t count;                          /* durations recorded */
	uint64_t total_ns;                       /* their sum */
	uint64_t max_ns;                         /* the longest */
	uint64_t bucket[WEIR_HISTOGRAM_BUCKETS]; /* see above */
};

struct weir_stats {
	size_t size;               /* sizeof(struct weir_stats) of the caller */
	uint64_t cycles_full;      /* cycles that turned the mark epoch */
	uint64_t cycles_minor;     /* cycles that kept the marks */
	uint64_t cycles_stopped;   /* of both, run in one stop */
	uint64_t heap_used;        /* bytes in blocks that hold objects */
	uint64_t heap_live;        /* bytes marked by the last cycle */
	uint64_t heap_committed;   /* bytes the system backs or may back */
	uint64_t heap_peak;        /* highest heap_used so far */
	uint64_t allocated;        /* bytes handed out since creation */
	uint64_t dirty_pages;      /* pages fetched from the barrier, summed */
	uint64_t remark_dirty;     /* of them, scanned in pauses */
	uint64_t collector_cpu_ns; /* CPU time of the collector's threads */
	uint64_t overflows;        /* mark-stack overflows recovered */
	/* All threads stopped: from the first request to the moment when the
	 * last of those that were held was running again or, if one is not
	 * yet seen to when the collector looks, when all could run. */
	struct weir_histogram pause;
	struct weir_histogram stop; /* of it: until the last thread stopped */
	struct weir_histogram handshake; /* one thread held for its stack,
					  * measured likewise, or one that
					  * waited to leave a blocking region
					  * while its stack was looked at */
	struct weir_histogram assist;    /* a mutator held to help or wait */
	char barrier[16];                /* the back end in use */
	/* Write faults that reached the barrier, each once; 0 under async,
	 * where the kernel answers them and counts none, and under none. */
	uint64_t barrier_faults;
	/* Attached threads that waited in weir_collect() for a cycle. */
	struct weir_histogram waited;
};

/* Fill *stats (its `size` set by the caller; smaller structs are filled as
 * far as they go, of larger ones the rest is left alone).  Figures are read
 * without stopping anything.  -EINVAL: stats NULL, or size below that of its
 * own field. */
WEIR_API int weir_heap_stats(weir_heap *heap, struct weir_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
