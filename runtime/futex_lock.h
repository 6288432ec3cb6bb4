/* SPDX-License-Identifier: MIT */
/*
 * A mutex of one word, for what signal handlers take too: pthread mutexes are
 * not for them.  Who takes it outside of a handler blocks signals first, so
 * that no handler on its thread waits for it.  No owner, no order: callers take
 * one at a time.
 *
 *   word  0 free, 1 held, 2 held and waited for
 */
#ifndef WEIR_RUNTIME_FUTEX_LOCK_H
#define WEIR_RUNTIME_FUTEX_LOCK_H

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Acquire, here and below, pairs with the release in wr_futex_unlock(): the
 * holder sees what the one before it left. */
static inline bool wr_futex_trylock(uint32_t *word)
{
	uint32_t zero = 0;

	return __atomic_compare_exchange_n(word, &zero, 1, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void wr_futex_lock(uint32_t *word)
{
	if (wr_futex_trylock(word))
		return;
	while (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE) != 0)
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, NULL);
}

static inline void wr_futex_unlock(uint32_t *word)
{
	if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2)
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1);
}

/* The same outside of handlers: with every signal blocked, as they were before
 * in *saved. */
static inline void wr_futex_enter(uint32_t *word, sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
	wr_futex_lock(word);
}

static inline void wr_futex_leave(uint32_t *word, const sigset_t *saved)
{
	wr_futex_unlock(word);
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

#endif
