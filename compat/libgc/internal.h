/* SPDX-License-Identifier: MIT */
/*
 * libgc.so.1 on weir: what its files share.
 *
 * One heap, made by the first call that needs it.  Every thread that allocates
 * is attached: by GC_pthread_create(), GC_register_my_thread(), or by itself
 * when it first allocates.
 *
 * Locks.  lg_lock guards finalizers' entries, kept and uncollectable objects,
 * threads; lg_outer kinds and ranges of roots, which are weir's too.  Either
 * may be held by a thread that is stopped, so callbacks of the collector never
 * take one: what they read is published with atomic stores and never moves.
 * Under lg_lock nothing of weir is called, and no function of the program under
 * either.
 */
#ifndef WEIR_COMPAT_LIBGC_INTERNAL_H
#define WEIR_COMPAT_LIBGC_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/alloc.h>
#include <weir/embed.h>
#include <weir/weir.h>

#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include "gc/gc.h"
#include "gc/gc_disclaim.h"
#include "gc/gc_gcj.h"
#include "gc/gc_inline.h"
#include "gc/gc_mark.h"
#include "gc/gc_typed.h"

#define LG_API __attribute__((visibility("default")))
#define lg_likely(x) __builtin_expect(!!(x), 1)
#define lg_unlikely(x) __builtin_expect(!!(x), 0)

/* What the heap is; NULL before init. */
extern weir_heap *lg_heap;

/* The calling thread's handle, NULL as long as it has none. */
extern __thread weir_mutator *lg_self
	__attribute__((tls_model("initial-exec")));

/* What the callback that is running on this thread reports to, or NULL. */
extern __thread weir_visitor *lg_visitor
	__attribute__((tls_model("initial-exec")));

extern pthread_mutex_t lg_lock, lg_outer;

/* init.c */
/* The heap, made if need be; ends the process, with the cause, if it cannot
 * be. */
weir_heap *lg_init(void);
/* Attach the calling thread. */
weir_mutator *lg_attach(void) __attribute__((cold));
/* Say why and end the process. */
void lg_fatal(const char *format, ...)
	__attribute__((cold, noreturn, format(printf, 1, 2)));
/* The same for what is not supported, by name. */
#define lg_unsupported()                                                    \
	lg_fatal("%s is not supported by weir's libgc.so.1; docs/LIBGC.md " \
		 "says what to use instead",                                \
		 __func__)
void lg_warn(const char *format, GC_word arg);

static inline weir_mutator *lg_mutator(void)
{
	weir_mutator *m = lg_self;

	return lg_likely(m) ? m : lg_attach();
}

/* libgc keeps alive what a pointer just past the end points to, by giving
 * each object a byte more, where interior pointers count. */
static inline size_t lg_padded(size_t n)
{
	return n + (size_t)(GC_all_interior_pointers != 0);
}

/* threads.c */
/* The calling thread is the one that starts the collector. */
void lg_stack_first(void);
/* It was attached, as `m`. */
void lg_stack_attached(weir_mutator *m);

/* alloc.c */
/* Out of memory: what the program's function makes of it. */
void *lg_no_memory(size_t n) __attribute__((cold));
/* n bytes, as they are, of weir's kind. */
void *lg_alloc(size_t n, weir_kind kind);
/* After an allocation that was not inline: finalizers that wait. */
void lg_after_slow(void);

/* kinds.c */
/* weir's kind for libgc's; ends the process for a bad one. */
weir_kind lg_kind(int kind);
/* libgc's number of weir's kind. */
int lg_kind_of(weir_kind kind);

/* Some kind's objects are noted when they are allocated: GC_free() looks; */
extern bool lg_noting;
/* conservative or pointer-free ones among them.  Both atomic. */
extern bool lg_plain_noted;
/* Leak mode was switched: let the kinds be what they should be. */
void lg_kinds_leak_mode(void);
/* Objects were found dead that are to be asked: do so. */
void lg_disclaim_due(void);

/* leak.c */
extern bool lg_leaks; /* atomic: leak mode */
static inline bool lg_leak_mode(void)
{
	return lg_unlikely(__atomic_load_n(&lg_leaks, __ATOMIC_RELAXED));
}
void lg_leak_init(void);
/* A kind like `like` whose dead objects are reported; debug: they end with the
 * place of their allocation.  0 or an error. */
int lg_leak_kind(weir_kind like, bool debug, weir_kind *kind);
/* In leak mode: an object with the place of its allocation.  NULL: no memory.
 */
void *lg_leak_alloc(size_t n, weir_kind kind, const char *file, int line);
/* The kind for another object in place of one of this kind. */
weir_kind lg_leak_plain(weir_kind kind);
/* Report what was found. */
void lg_leaks_due(void);

/* roots.c */
void lg_roots_init(weir_heap *h);
/* Keep `object` alive; its slot, 0: no memory.  Under lg_lock. */
size_t lg_keep(const void *object);
void lg_unkeep(size_t slot);
/* Under lg_lock, or by whoever alone changes this slot. */
void lg_keep_other(size_t slot, const void *object);
const void *lg_kept(size_t slot);

/* uncollectable.c */
bool lg_make_uncollectable(void *object);
/* Whether it was. */
bool lg_make_collectable(void *object);

/* reuse.c: objects below are never taken or given. */
#define LG_REUSE_MIN ((size_t)1 << 15)
/* The program freed it; its size and kind. */
void lg_reuse_put(void *object, size_t size, weir_kind kind);
/* One of n bytes or not many more, its first n cleared; or NULL. */
void *lg_reuse_take(size_t n, weir_kind kind);
void lg_reuse_empty(void);

/* finalize.c */
void lg_finalize_forget(void *object);
/* Finalizers wait: run them, or tell the program, as it wants it. */
void lg_finalize_due(void);

/* Whether *told, an atomic counter of the caller's, was not `now` yet; it is
 * from here on.  Relaxed: who of several threads finds it so is of no matter,
 * one does. */
static inline bool lg_first(uint64_t *told, uint64_t now)
{
	uint64_t last = __atomic_load_n(told, __ATOMIC_RELAXED);

	return last != now &&
	       __atomic_compare_exchange_n(told, &last, now, false,
					   __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* toggle.c */
/* The pause is about to begin: ask the program of each toggle reference. */
void lg_toggles_decide(void);

/* events.c */
void lg_events_init(weir_heap *h);
/* A cycle began since the last call: the program's start callback. */
void lg_start_due(void);
uint64_t lg_cycles(void);

#endif
