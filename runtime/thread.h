/* SPDX-License-Identifier: MIT */
/*
 * Mutator threads: registry, stops, blocking regions.
 *
 * States of an attached thread:
 *
 *   RUNNING   runs program code; must be stopped before its stack is read
 *   CRITICAL  RUNNING with *gate.critical != 0: a stop is put off
 *             (*gate.pending = 1) until wr_thread_poll()
 *   BLOCKED   inside a blocking region: its stack [sp, base) and saved
 *             registers are constant; leaving the region waits out a stop
 *   STOPPED   held in the signal handler or in wr_thread_poll()
 *
 * A stopper holds the stop lock from stop to resume, so stops never nest.
 * While the world is stopped no registered thread is RUNNING, none can
 * attach, detach, or leave BLOCKED.
 *
 *   who may call                        from
 *   attach, detach, poll, block_*,      the thread itself, not in a stop
 *   set_stack, watch_stack
 *   stop_world/resume_world, hold_each  any thread that is not attached, or an
 *                                       attached one in a blocking region
 *   for_each                            between stop_world and resume_world
 *   count                               any thread at any time
 *   fork_*                              the thread that calls fork()
 *
 * What a held thread may have in its hands: any lock, the C library's too.
 * Between stop and resume, and in hold_each's fn, take no lock that a running
 * thread takes, and do not allocate with malloc().
 *
 * Limits: a thread must leave through return, pthread_exit() or cancellation,
 * not by the bare exit system call; it must not block the suspend signal; a
 * thread runs on its own stack, on its alternate signal stack, or on one that
 * set_stack tells of.  On any other only what the signal put there is found
 * (see thread_stack.c), and all others are the owner's to register as roots.
 */
#ifndef WEIR_RUNTIME_THREAD_H
#define WEIR_RUNTIME_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wr_threads; /* the registry */

enum wr_stop_mode {
	WR_STOP_SIGNALS,    /* preemptive; works for any code */
	WR_STOP_SAFEPOINTS, /* threads stop at wr_thread_poll() only */
};

/* Where the thread's deferral flags are: the head of a weir_mutator. */
struct wr_gate {
	uint32_t *critical;
	uint32_t *pending;
};

struct wr_span {
	uintptr_t start; /* first byte */
	uintptr_t end;   /* after the last byte */
};

/* Embedded in the owner's per-thread object, which the owner allocates and
 * frees (after detach returned, or in the exit callback). */
struct wr_thread {
	struct wr_gate gate;            /* set by the owner before attach */
	struct wr_threads *owner;       /* registry, set by attach */
	struct wr_thread_private *priv; /* the registry's own state */
	uintptr_t stack_base;           /* highest address of the stack */
	uintptr_t stack_sp; /* lowest live address; valid when held */
	/* What is live beside [stack_sp, stack_base), valid when held: the
	 * registers of a blocked thread; its part of an alternate signal
	 * stack or one of set_stack; what the alternate signal stack may have
	 * interrupted of the latter.  Every scan of the stack must scan these;
	 * start == end if there is none. */
	struct wr_span more[3];
};

/* Where a thread stands. */
struct wr_place {
	uintptr_t sp;       /* lowest live address */
	uintptr_t alt_end;  /* not 0: sp is on another stack, live up to here */
	uintptr_t set_base; /* of set_stack(), 0: not called; or as watched */
	uintptr_t own_sp;   /* where it was called on the own stack, or 0 */
	bool on_signal_stack; /* that of sigaltstack() */
};

/* Words of the frame of block_enter that are kept: it has all registers that
 * functions must preserve, and little else. */
#define WR_FRAME_WORDS 64

/* What a thread in a blocking region had when it entered. */
struct wr_blocked {
	struct wr_place place;           /* of its stack */
	unsigned words;                  /* of frame[], in use */
	uintptr_t frame[WR_FRAME_WORDS]; /* its registers */
};

struct wr_threads_config {
	enum wr_stop_mode mode;
	int suspend_signal; /* 0: the default (SIGPWR) */
	/* A thread exits while attached: runs on it while it is attached and
	 * running.  It may call wr_thread_detach() and then free the thread;
	 * if it does not, the registry detaches right after.  May be NULL. */
	void (*on_exit)(struct wr_thread *thread, void *arg);
	void *arg;
	/* A thread that leaves a blocking region has waited, while the stopper
	 * looked at its stack alone: runs on it when it may go on.  Not told of
	 * stops of all.  May be NULL. */
	void (*waited)(uint64_t begin_ns, uint64_t end_ns, void *arg);
};

struct wr_stop_times {
	uint64_t requested_ns; /* clock when the first signal was about to go */
	uint64_t stopped_ns;   /* clock when the last thread was held */
};

int wr_threads_create(const struct wr_threads_config *config,
		      struct wr_threads **out);
void wr_threads_destroy(struct wr_threads *r); /* no thread attached */
size_t wr_threads_count(struct wr_threads *r);

/* The kernel's number of an attached thread. */
unsigned wr_thread_id(const struct wr_thread *t);

int wr_thread_attach(struct wr_threads *r, struct wr_thread *t);
void wr_thread_detach(struct wr_thread *t);

/* If a stop is pending or in progress, be held until it is over.  Called when
 * gate.critical is 0; clears gate.pending. */
void wr_thread_poll(struct wr_thread *t);

/*
 * Enter/leave a blocking region.  enter records registers and the stack
 * pointer so that everything the caller's callers hold is in [sp, base);
 * returns whether it did (false: was blocked already, leave must be skipped).
 * leave waits until no stop is in progress.
 *
 * The frame of the function that called enter has what its callers had in the
 * registers that it uses itself.  So it must be there until leave returns: one
 * function calls both, and leave must not be its tail call, which would give
 * the frame away and have the registers restored when nobody looks at them
 * any more.  Hence the inline function.  A helper that calls only one of them
 * is always inlined.
 */
bool wr_thread_block_enter(struct wr_thread *t);
void wr_thread_block_leave_call(struct wr_thread *t);

static inline __attribute__((always_inline)) void
wr_thread_block_leave(struct wr_thread *t)
{
	wr_thread_block_leave_call(t);
	__asm__ volatile("" ::: "memory"); /* no tail call */
}

/* Leave a region for a while, to go back into the same one.  What was live
 * when the region was entered is kept in *saved: a second enter, deeper down,
 * would record registers that functions between have taken over, and their
 * own frames are gone when the region goes on. */
void wr_thread_block_suspend(struct wr_thread *t, struct wr_blocked *saved);
void wr_thread_block_resume(struct wr_thread *t,
			    const struct wr_blocked *saved);

/* What weir_thread_set_stack() of weir/embed.h says; in a blocking region it
 * counts when that is left. */
void wr_thread_set_stack(struct wr_thread *t, uintptr_t base);
/* What weir_thread_watch_stack() says. */
void wr_thread_watch_stack(struct wr_thread *t, const uintptr_t *base);

/* The same for another thread, where it stands when it is held: by its own
 * stack's base or 0 it is back on that.  In a stop of all, from whoever stopped
 * it, the thread's live parts are shown anew, unless nothing has changed
 * (false); else as stop_world, -ESRCH: there is no such thread. */
bool wr_thread_set_stack_held(struct wr_thread *t, uintptr_t base);
typedef bool wr_thread_match_fn(const struct wr_thread *t, void *arg);
int wr_threads_set_stack(struct wr_threads *r, wr_thread_match_fn *match,
			 void *arg, uintptr_t base);

/* Stop every attached thread but the caller (if attached it is BLOCKED). */
void wr_threads_stop_world(struct wr_threads *r, struct wr_stop_times *times);
/* Let them go.  Returns when the stop was over: the clock when the last thread
 * that was held was running again, or if one is not yet seen to, when all had
 * been made runnable. */
uint64_t wr_threads_resume_world(struct wr_threads *r);

/* With the world stopped: call fn for each attached thread.  t->stack_sp and
 * t->stack_base bound its live stack, t->more[] is the rest; all its registers
 * were saved in these.  hold_each may leave out some of a stack that set_stack
 * told of, while the thread switches. */
typedef void wr_thread_fn(struct wr_thread *t, void *arg);
void wr_threads_for_each(struct wr_threads *r, wr_thread_fn *fn, void *arg);

/* The same for those only that did not stand still by themselves, in a blocking
 * region; what is live of them is not looked for. */
void wr_threads_for_each_held(struct wr_threads *r, wr_thread_fn *fn,
			      void *arg);

/* Told of a thread that was running, twice: end_ns == 0 when it has been asked
 * to stop, at begin_ns; then with the time when that was over, which is the
 * one that resume_world would return.  Must not call into the registry. */
typedef void wr_held_fn(uint64_t begin_ns, uint64_t end_ns, void *arg);

/* One after the other: hold a thread, call fn for it, let it go.  Threads
 * that attach meanwhile may be missed, threads that detach may be skipped.
 * held may be NULL. */
void wr_threads_hold_each(struct wr_threads *r, wr_thread_fn *fn, void *arg,
			  wr_held_fn *held);

/*
 * Parked threads: they do not run until somebody says so, and are stopped and
 * looked at like all others meanwhile.  park holds the thread for which match()
 * is true, if it runs; one in a blocking region goes on in there, but does not
 * leave it; the caller, which must be in one, is like these.  park_all does so
 * with all but the caller, and with those that attach from then on: these wait
 * in wr_thread_await_unparked().  -ESRCH: there is no such thread.
 *
 * await_unparked,
 * parked             the thread itself
 * the others         as stop_world
 */
int wr_threads_park(struct wr_threads *r, wr_thread_match_fn *match, void *arg);
int wr_threads_unpark(struct wr_threads *r, wr_thread_match_fn *match,
		      void *arg);
/* 1, 0 or -ESRCH. */
int wr_threads_is_parked(struct wr_threads *r, wr_thread_match_fn *match,
			 void *arg);
void wr_threads_park_all(struct wr_threads *r);
void wr_threads_unpark_all(struct wr_threads *r);
void wr_thread_await_unparked(struct wr_thread *t);
/* Whether the calling thread is parked, and would be held if it ran. */
bool wr_thread_parked(const struct wr_thread *t);

/* fork: prepare waits out a stop in progress and holds the registry; in the
 * child only the calling thread (if attached) remains. */
void wr_threads_fork_prepare(struct wr_threads *r);
void wr_threads_fork_parent(struct wr_threads *r);
/* gone is called for every thread that the child does not have. */
void wr_threads_fork_child(struct wr_threads *r, wr_thread_fn *gone, void *arg);

#endif
