/* SPDX-License-Identifier: MIT */
/*
 * What an attached thread does to its own state: being held, safepoints,
 * blocking regions.  The state word is explained in thread_private.h.
 *
 *   hold, await_release     the thread itself, also in the signal handler:
 *                           nothing here but atomics and futex system calls
 *   poll, block_*           the thread itself
 *
 * Registers.  The compiler may keep the caller's references in registers that
 * functions must preserve.  A thread held in poll has them in poll's frame
 * (__builtin_unwind_init() makes the compiler save all of them there), and
 * that frame stays.  A blocked thread has left block_enter, so block_enter
 * copies its own frame into wr_thread_private, and wr_thread.more[0] tells
 * the owner to scan the copy.  A thread held by signal has them in the frame
 * that the kernel pushed, with the vector registers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/thread_private.h"

__thread struct wr_thread_private *wr_thread_self;

#if defined(__SANITIZE_ADDRESS__)
#define NO_ASAN __attribute__((no_sanitize_address))
#else
#define NO_ASAN
#endif

/* Wait while *word == value; may return early.  Keeps errno. */
int wr_futex_wait(uint32_t *word, uint32_t value,
		  const struct timespec *timeout)
{
	int saved = errno;
	int err = 0;

	if (syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout, NULL,
		    0) < 0)
		err = -errno;
	errno = saved;
	return err;
}

void wr_futex_wake(uint32_t *word, int count)
{
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
	errno = saved;
}

/* Tell the stopper that this thread is held.  Release: what the thread wrote
 * before is visible to the stopper, which reads `owed` with acquire order;
 * without it the stopper could scan a stack whose last stores are missing. */
static void acknowledge(struct wr_threads *r)
{
	if (__atomic_sub_fetch(&r->owed, 1, __ATOMIC_ACQ_REL) == 0)
		wr_futex_wake(&r->owed, 1);
}

/* state -> RUNNING once REQ and PARK are clear.  The acquire load of epoch
 * comes before that of the word: who clears one changes the word first and then
 * raises epoch, so either the word is seen clear or the wait sees epoch move.
 */
void wr_thread_await_release(struct wr_thread_private *p, uint32_t state)
{
	for (;;) {
		uint32_t epoch =
			__atomic_load_n(&p->owner->epoch, __ATOMIC_ACQUIRE);
		uint32_t word = state;

		/* Acquire: partner of the release that clears REQ; what the
		 * stopper did to this thread's memory is seen after it. */
		if (__atomic_compare_exchange_n(&p->word, &word, WR_RUNNING,
						false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return;
		wr_assert((wr_unparked(word) & ~(uint32_t)WR_REQ) == state);
		wr_futex_wait(&p->owner->epoch, epoch, NULL);
	}
}

/* If REQ is set: be held, with p->held filled in, until it is clear.  A
 * handler may have come between the caller's store to p->held and this; then
 * p->held is the handler's, whose stack pointer is the lower one, so it
 * covers the same frames. */
void wr_thread_hold(struct wr_thread_private *p)
{
	uint32_t word = __atomic_load_n(&p->word, __ATOMIC_RELAXED);

	/* Release: p->held is written. */
	do {
		if (wr_unparked(word) != (WR_RUNNING | WR_REQ))
			return;
	} while (!__atomic_compare_exchange_n(
		&p->word, &word, word - WR_RUNNING + WR_HELD, false,
		__ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
	acknowledge(p->owner);
	wr_thread_await_release(p, WR_HELD);
	/* Relaxed, read by left_at(): a figure, nothing else rests on it.  A
	 * thread that is held once more before it gets here tells the later
	 * time. */
	__atomic_store_n(&p->left_ns, wr_thread_now_ns(), __ATOMIC_RELAXED);
}

/* The caller's frame, up to `top`, has every preserved register. */
static __attribute__((noinline)) void hold_below(struct wr_thread_private *p,
						 uintptr_t top)
{
	wr_thread_stand(p, &p->held, (uintptr_t)__builtin_frame_address(0),
			top);
	wr_thread_hold(p);
}

static __attribute__((noinline)) void hold_here(struct wr_thread_private *p)
{
	__builtin_unwind_init();
	hold_below(p, (uintptr_t)__builtin_dwarf_cfa());
	/* No tail call: this frame must outlast the call. */
	__asm__ volatile("" ::: "memory");
}

void wr_thread_poll(struct wr_thread *t)
{
	struct wr_thread_private *p = t->priv;

	wr_assert(p == wr_thread_self);
	wr_assert(!__atomic_load_n(t->gate.critical, __ATOMIC_RELAXED));
	/* Exchange, not store: under WR_STOP_SAFEPOINTS the stopper sets REQ,
	 * then pending with release order.  Either this reads its 1 and sees
	 * REQ below, or its 1 comes later and stays for the next poll.  A
	 * store could overwrite the 1 and not see REQ: a stop would wait for
	 * a safepoint that nothing announces. */
	__atomic_exchange_n(t->gate.pending, 0, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&p->word, __ATOMIC_ACQUIRE) & WR_REQ)
		hold_here(p);
}

/* Copy this frame's caller (block_enter) and become BLOCKED. */
static __attribute__((noinline)) NO_ASAN bool
enter_below(struct wr_thread_private *p, uintptr_t top)
{
	const uintptr_t *frame = __builtin_frame_address(0);
	size_t words = (top - (uintptr_t)frame) / sizeof(*frame);
	uint32_t word = __atomic_load_n(&p->word, __ATOMIC_RELAXED);

	wr_assert(p == wr_thread_self);
	if ((wr_unparked(word) & ~(uint32_t)WR_REQ) == WR_BLOCKED)
		return false;
	wr_assert(!__atomic_load_n(p->thread->gate.critical, __ATOMIC_RELAXED));
	wr_require(words <= WR_FRAME_WORDS,
		   "block_enter: frame of %zu words; raise WR_FRAME_WORDS",
		   words);
	for (size_t i = 0; i < words; i++)
		p->blocked.frame[i] = ((const volatile uintptr_t *)frame)[i];
	p->blocked.words = (unsigned)words;
	wr_thread_stand(p, &p->blocked.place, top, top);
	/* Release: frame and place are written before the stopper, which
	 * acquires with its read-modify-write of the word, sees BLOCKED. */
	word = __atomic_fetch_add(&p->word, WR_BLOCKED - WR_RUNNING,
				  __ATOMIC_ACQ_REL);
	if (word & WR_REQ)
		acknowledge(p->owner);
	return true;
}

__attribute__((noinline)) bool wr_thread_block_enter(struct wr_thread *t)
{
	bool entered;

	__builtin_unwind_init();
	entered = enter_below(t->priv, (uintptr_t)__builtin_dwarf_cfa());
	/* No tail call: the frame is what is copied. */
	__asm__ volatile("" ::: "memory");
	return entered;
}

/* Wait for the end of a stop; one of this thread alone is told of. */
static void leave_region(struct wr_thread_private *p)
{
	struct wr_threads *r = p->owner;
	uint64_t begin;
	bool alone;

	/* Relaxed: only for the figure; await_release() looks again. */
	if (wr_likely(
		    !(__atomic_load_n(&p->word, __ATOMIC_RELAXED) & WR_REQ))) {
		wr_thread_await_release(p, WR_BLOCKED);
		return;
	}
	begin = wr_thread_now_ns();
	alone = !__atomic_load_n(&r->stopping, __ATOMIC_RELAXED);
	wr_thread_await_release(p, WR_BLOCKED);
	if (alone && r->config.waited)
		r->config.waited(begin, wr_thread_now_ns(), r->config.arg);
}

void wr_thread_block_leave_call(struct wr_thread *t)
{
	wr_assert(t->priv == wr_thread_self);
	leave_region(t->priv);
}

void wr_thread_block_suspend(struct wr_thread *t, struct wr_blocked *saved)
{
	struct wr_thread_private *p = t->priv;

	wr_assert(p == wr_thread_self);
	*saved = p->blocked;
	leave_region(p);
}

void wr_thread_block_resume(struct wr_thread *t, const struct wr_blocked *saved)
{
	struct wr_thread_private *p = t->priv;
	uint32_t word;

	wr_assert(p == wr_thread_self);
	p->blocked = *saved;
	/* Release: as in enter_below(). */
	word = __atomic_fetch_add(&p->word, WR_BLOCKED - WR_RUNNING,
				  __ATOMIC_ACQ_REL);
	if (word & WR_REQ)
		acknowledge(p->owner);
}
