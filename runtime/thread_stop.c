/* SPDX-License-Identifier: MIT */
/*
 * Stopping threads: requests, the suspend handler, resume.
 *
 *   on_suspend                     a thread that got the suspend signal
 *   stop_world .. resume_world     one stopper; it holds the stop lock in
 *                                  between, and the registry lock for the
 *                                  requests; r->stopping closes the list
 *   hold_each                      one stopper; it holds the stop lock, and
 *                                  the registry lock only to step
 *
 * A signal is only a hint to look at the state word: one that comes late,
 * twice, or to a thread that is not attached finds no REQ and does nothing.
 * There is no resume signal.  A held thread waits on a futex inside the
 * handler: futex() is a bare system call, safe in a handler, and the wait's
 * compare-and-sleep closes the window that sigsuspend() closes otherwise; one
 * wake then releases every thread.
 *
 * The handler runs on the stack that the thread was running on (no
 * SA_ONSTACK), so the kernel's signal frame, which has all registers, lies
 * above the recorded stack pointer.  If that stack is not the thread's own,
 * what is live at least is noted as place.alt_end:
 *
 *   an alternate signal stack        from the stack pointer to its end
 *   any other (a coroutine's, or     from the stack pointer to where the
 *   an alternate one that is set     interrupted code's was: the signal
 *   with SS_AUTODISARM)              frame, thus the registers
 *
 * thread_stack.c has what else is.
 *
 * System calls: the signal interrupts one that blocks.  Those that SA_RESTART
 * covers go on; the others (poll, nanosleep, epoll_wait, semop, ..., see
 * signal(7)) return EINTR, as with any signal.  Blocking regions avoid it: a
 * BLOCKED thread gets no signal.  execve() too belongs into a blocking region:
 * a signal that is pending when the new program starts meets the default
 * action there, which for SIGPWR is to end the process.
 *
 * Under ThreadSanitizer a signal is put off until the thread next calls into
 * the C library, so a thread that only computes never stops; such builds of a
 * program use WR_STOP_SAFEPOINTS.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/thread_private.h"

/* A stop that takes longer is reported, once. */
#define STUCK_SECONDS 10
/* One that takes longer than this looks for threads that vanished; again and
 * again. */
#define LOOK_MS 50

/* The handler: be held here, or have the thread poll when its critical
 * section is over. */
static __attribute__((noinline)) void
hold_in_handler(struct wr_thread_private *p, const ucontext_t *uc)
{
	uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
	uintptr_t alt = (uintptr_t)uc->uc_stack.ss_sp;
	struct wr_gate *gate = &p->thread->gate;

	if (wr_unparked(__atomic_load_n(&p->word, __ATOMIC_ACQUIRE)) !=
	    (WR_RUNNING | WR_REQ))
		return;
	/* Relaxed: the same thread writes both; see weir/alloc.h for the
	 * compiler barriers on the other side. */
	if (__atomic_load_n(gate->critical, __ATOMIC_RELAXED)) {
		__atomic_store_n(gate->pending, 1, __ATOMIC_RELAXED);
		return;
	}
	wr_thread_stand(p, &p->held, sp, wr_context_sp(uc));
	/* The alternate stack may be an array on the own stack. */
	if (!(uc->uc_stack.ss_flags & SS_DISABLE) && sp >= alt &&
	    sp < alt + uc->uc_stack.ss_size) {
		p->held.alt_end = alt + uc->uc_stack.ss_size;
		p->held.on_signal_stack = true;
	}
	wr_thread_hold(p);
}

void wr_thread_on_suspend(int sig, siginfo_t *info, void *context)
{
	struct wr_thread_private *p = wr_thread_self;
	int saved = errno;

	(void)sig;
	(void)info;
	if (p)
		hold_in_handler(p, context);
	errno = saved;
}

/* ---- The stopper's side ------------------------------------------------- */

/* Make a RUNNING thread look at its word.  False: there is no such thread. */
static bool kick(struct wr_threads *r, struct wr_thread_private *p)
{
	if (r->config.mode == WR_STOP_SAFEPOINTS) {
		/* Release: partner of the exchange in wr_thread_poll(). */
		__atomic_store_n(p->thread->gate.pending, 1, __ATOMIC_RELEASE);
		return true;
	}
	while (syscall(SYS_tgkill, r->pid, p->tid, r->config.suspend_signal) <
	       0) {
		if (errno == ESRCH)
			return false;
		/* EAGAIN: a real-time signal and the queue is full. */
		wr_require(errno == EAGAIN, "cannot signal thread %d: %s",
			   (int)p->tid, strerror(errno));
		sched_yield();
	}
	return true;
}

/* Set REQ; whether the thread owes an acknowledgement. */
static bool request(struct wr_threads *r, struct wr_thread_private *p)
{
	/* Acquire: partner of the release in enter_below() and hold(). */
	uint32_t word = __atomic_fetch_or(&p->word, WR_REQ, __ATOMIC_ACQ_REL);

	wr_assert(!(word & WR_REQ));
	if (wr_unparked(word) != WR_RUNNING)
		return false;
	if (kick(r, p))
		return true;
	/* It ended by the bare exit system call; nobody else touches it. */
	__atomic_store_n(&p->word, WR_DEAD | WR_REQ, __ATOMIC_RELAXED);
	return false;
}

static bool is_dead(struct wr_thread_private *p)
{
	return wr_unparked(__atomic_load_n(&p->word, __ATOMIC_RELAXED)) ==
	       (WR_DEAD | WR_REQ);
}

/* Clear REQ.  Release: what the stopper wrote is seen by the thread when it
 * runs on (the acquire in wr_thread_await_release()).  The dead stay as they
 * are, for wr_thread_end_stop(). */
static void release(struct wr_threads *r, struct wr_thread_private *p)
{
	p->to_leave = false;
	if (wr_unlikely(is_dead(p)))
		r->dead = true;
	else
		p->to_leave = __atomic_and_fetch(&p->word, ~(uint32_t)WR_REQ,
						 __ATOMIC_RELEASE) == WR_HELD;
}

/* After release() of some threads: let them go. */
void wr_thread_wake(struct wr_threads *r)
{
	__atomic_add_fetch(&r->epoch, 1, __ATOMIC_RELEASE);
	wr_futex_wake(&r->epoch, INT_MAX);
}

/*
 * When it was over for a thread that was let go: `from` is the clock before
 * its release, `now` the clock after the wake.  If it is seen to have left by
 * now it was over then, although this thread may have lost the processor to
 * it and reads the clock late.  If not, it could run by now, no earlier.  One
 * that is BLOCKED was not kept from anything.  Registry lock held.
 */
static uint64_t left_at(const struct wr_thread_private *p, uint64_t from,
			uint64_t now)
{
	uint64_t left = __atomic_load_n(&p->left_ns, __ATOMIC_RELAXED);

	if (!p->to_leave)
		return from;
	return left >= from && left < now ? left : now;
}

/* The same for all threads of the list. */
static uint64_t all_left_at(struct wr_threads *r, uint64_t from, uint64_t now)
{
	struct wr_thread_private *p;
	uint64_t last = from;

	wr_mutex_lock(&r->registry);
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link)) {
		uint64_t left = left_at(p, from, now);

		if (left > last)
			last = left;
	}
	wr_mutex_unlock(&r->registry);
	return last;
}

/* With nobody held any more: drop the dead, let go of the stop lock. */
void wr_thread_end_stop(struct wr_threads *r)
{
	struct wr_thread_private *p, *next, *dead = NULL;

	if (wr_unlikely(r->dead)) {
		wr_mutex_lock(&r->registry);
		for (p = wr_thread_next(r, &r->list); p; p = next) {
			next = wr_thread_next(r, &p->link);
			if (!is_dead(p))
				continue;
			wr_thread_unlink(r, p);
			p->next_dead = dead;
			dead = p;
		}
		r->dead = false;
		wr_mutex_unlock(&r->registry);
	}
	wr_mutex_unlock(&r->stop);
	for (p = dead; p; p = next) {
		next = p->next_dead;
		free(p);
	}
}

static void report_stuck(struct wr_threads *r, struct wr_thread_private *only)
{
	struct wr_thread_private *p;
	char text[160];
	int n;

	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link)) {
		if ((only && p != only) ||
		    wr_unparked(__atomic_load_n(&p->word, __ATOMIC_RELAXED)) !=
			    (WR_RUNNING | WR_REQ))
			continue;
		n = snprintf(
			text, sizeof(text),
			"weir: thread %d did not stop within %d s: %s\n",
			(int)p->tid, STUCK_SECONDS,
			r->config.mode == WR_STOP_SIGNALS
				? "it blocks the suspend signal, another "
				  "handler took it, or it is critical"
				: "it reached no safepoint; blocking calls "
				  "need a blocking region");
		if (write(STDERR_FILENO, text, (size_t)n) < 0)
			return;
	}
}

/* The thread owes an acknowledgement and is no more: it ended by the bare exit
 * system call, either after it was asked, or just before: the kernel takes
 * signals for a thread until the very end of its exit, when its join may have
 * returned long since. */
static bool has_vanished(struct wr_threads *r, struct wr_thread_private *p)
{
	uint32_t word = __atomic_load_n(&p->word, __ATOMIC_RELAXED);

	if (wr_unparked(word) != (WR_RUNNING | WR_REQ))
		return false;
	if (syscall(SYS_tgkill, r->pid, p->tid, 0) == 0 || errno != ESRCH)
		return false;
	/* Looked at anew: it may have acknowledged before it ended. */
	return __atomic_compare_exchange_n(&p->word, &word, WR_DEAD | WR_REQ,
					   false, __ATOMIC_RELAXED,
					   __ATOMIC_RELAXED);
}

/* Nobody else will acknowledge for these; `only` as below. */
static void forgive_vanished(struct wr_threads *r,
			     struct wr_thread_private *only)
{
	struct wr_thread_private *p;
	uint32_t n = 0;

	if (only)
		n = has_vanished(r, only);
	else
		for (p = wr_thread_next(r, &r->list); p;
		     p = wr_thread_next(r, &p->link))
			n += has_vanished(r, p);
	__atomic_sub_fetch(&r->owed, n, __ATOMIC_ACQ_REL);
}

/* Wait until `requested` threads acknowledged.  `only`: the thread that it is
 * about, NULL for all (the list is closed).  Sleeps at once: a thread that is
 * to be held often needs this processor to get there. */
static void await_held(struct wr_threads *r, uint32_t requested,
		       struct wr_thread_private *only)
{
	const struct timespec patience = {.tv_nsec = LOOK_MS * 1000000};
	unsigned looks = 0;
	uint32_t owed;

	owed = __atomic_sub_fetch(&r->owed, WR_OWED_BIAS - requested,
				  __ATOMIC_ACQ_REL);
	while (owed) {
		if (wr_futex_wait(&r->owed, owed, &patience) == -ETIMEDOUT) {
			forgive_vanished(r, only);
			if (++looks == STUCK_SECONDS * 1000 / LOOK_MS) {
				if (only)
					wr_mutex_lock(&r->registry);
				report_stuck(r, only);
				if (only)
					wr_mutex_unlock(&r->registry);
			}
		}
		owed = __atomic_load_n(&r->owed, __ATOMIC_ACQUIRE);
	}
}

/* A RUNNING stopper would wait for itself. */
void wr_thread_check_stopper(struct wr_threads *r)
{
	struct wr_thread_private *p = wr_thread_self;

	wr_require(!p || p->owner != r ||
			   (wr_unparked(__atomic_load_n(&p->word,
							__ATOMIC_RELAXED)) &
			    ~(uint32_t)WR_REQ) == WR_BLOCKED,
		   "stop requested by an attached thread outside a blocking "
		   "region; enter one first");
}

void wr_threads_stop_world(struct wr_threads *r, struct wr_stop_times *times)
{
	struct wr_thread_private *p;
	uint32_t requested = 0;

	wr_thread_check_stopper(r);
	wr_mutex_lock(&r->stop);
	wr_mutex_lock(&r->registry);
	if (times)
		times->requested_ns = wr_thread_now_ns();
	__atomic_store_n(&r->stopping, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&r->owed, WR_OWED_BIAS, __ATOMIC_RELAXED);
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link))
		requested += request(r, p);
	wr_mutex_unlock(&r->registry);
	await_held(r, requested, NULL);
	if (times)
		times->stopped_ns = wr_thread_now_ns();
}

/* Takes no lock before the threads go on: once they do, they may keep this
 * thread from the processor, and whoever has the registry lock may have been
 * kept from it all along. */
uint64_t wr_threads_resume_world(struct wr_threads *r)
{
	struct wr_thread_private *p;
	uint64_t from, over;

	wr_mutex_assert_held(&r->stop);
	from = wr_thread_now_ns();
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link))
		release(r, p);
	/* Release: the walk is over before attach or detach, which read it
	 * with acquire order, may change the list. */
	__atomic_store_n(&r->stopping, 0, __ATOMIC_RELEASE);
	wr_thread_wake(r);
	over = all_left_at(r, from, wr_thread_now_ns());
	wr_thread_end_stop(r);
	return over;
}

void wr_threads_for_each(struct wr_threads *r, wr_thread_fn *fn, void *arg)
{
	struct wr_thread_private *p;

	wr_mutex_assert_held(&r->stop);
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link)) {
		if (is_dead(p))
			continue;
		wr_thread_show_live(p, true);
		fn(p->thread, arg);
	}
}

void wr_threads_for_each_held(struct wr_threads *r, wr_thread_fn *fn, void *arg)
{
	struct wr_thread_private *p;

	wr_mutex_assert_held(&r->stop);
	for (p = wr_thread_next(r, &r->list); p;
	     p = wr_thread_next(r, &p->link))
		if (wr_unparked(__atomic_load_n(&p->word, __ATOMIC_RELAXED)) ==
		    (WR_HELD | WR_REQ))
			fn(p->thread, arg);
}

/* New threads go to the head of the list, so the walk ends although threads
 * keep coming.  Hand over hand: REQ pins the thread that is looked at in the
 * list while the registry lock is free, and REQ is set on the next one before
 * that lock is let go again. */
void wr_threads_hold_each(struct wr_threads *r, wr_thread_fn *fn, void *arg,
			  wr_held_fn *held)
{
	struct wr_thread_private *p, *next;
	uint64_t begin, from;
	bool owed = false;

	wr_thread_check_stopper(r);
	wr_mutex_lock(&r->stop);
	wr_mutex_lock(&r->registry);
	for (p = wr_thread_next(r, &r->list); p; p = next) {
		begin = wr_thread_now_ns();
		__atomic_store_n(&r->owed, WR_OWED_BIAS, __ATOMIC_RELAXED);
		owed = request(r, p);
		wr_mutex_unlock(&r->registry);
		if (owed && held)
			held(begin, 0, arg);
		await_held(r, owed, p);
		if (!is_dead(p)) {
			wr_thread_show_live(p, false);
			fn(p->thread, arg);
		}
		wr_mutex_lock(&r->registry);
		next = wr_thread_next(r, &p->link);
		from = wr_thread_now_ns();
		release(r, p);
		wr_thread_wake(r);
		if (owed && held)
			held(begin, left_at(p, from, wr_thread_now_ns()), arg);
	}
	wr_mutex_unlock(&r->registry);
	wr_thread_end_stop(r);
}

void wr_thread_hold_one(struct wr_threads *r, struct wr_thread_private *p,
			void (*fn)(struct wr_thread_private *p, void *arg),
			void *arg)
{
	bool owed;

	__atomic_store_n(&r->owed, WR_OWED_BIAS, __ATOMIC_RELAXED);
	owed = request(r, p);
	wr_mutex_unlock(&r->registry);
	await_held(r, owed, p);
	wr_mutex_lock(&r->registry);
	if (fn && !is_dead(p))
		fn(p, arg);
	release(r, p);
	wr_thread_wake(r);
}
