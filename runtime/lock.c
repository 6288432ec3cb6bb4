/* SPDX-License-Identifier: MIT */
/*
 * Ranked mutexes and their witness.
 *
 * The witness is a stack of the locks that this thread holds, in thread-local
 * memory; no other thread reads it.  Invariant: but for locks that trylock
 * got, ranks rise from the bottom to the top.  A stop signal may find it half
 * changed, which nobody sees: the handler takes no lock.
 */
#include "runtime/lock.h"

#include <errno.h>
#include <string.h>

#include "runtime/check.h"

static const char *const rank_names[WR_RANKS] = {
#define WR_RANK(name, what) [WR_RANK_##name] = #name,
	WR_LOCK_RANKS(WR_RANK)
#undef WR_RANK
};

const char *wr_rank_name(enum wr_rank rank)
{
	return (unsigned)rank < WR_RANKS ? rank_names[rank] : "of no rank";
}

#if WEIR_CHECKING >= 1

static __thread struct {
	unsigned count;                            /* entries in use */
	const struct wr_mutex *held[WR_RANKS + 4]; /* in order of taking */
} witness;

#define WITNESS_MAX (sizeof(witness.held) / sizeof(witness.held[0]))

/* Before a wait for m: everything held must rank below it. */
static void witness_check(const struct wr_mutex *m)
{
	for (unsigned i = 0; i < witness.count; i++) {
		const struct wr_mutex *h = witness.held[i];

		wr_require(h != m, "lock order: %s lock taken twice",
			   wr_rank_name(m->rank));
		wr_require(h->rank < m->rank,
			   "lock order: taking the %s lock (rank %d) while "
			   "holding the %s lock (rank %d)",
			   wr_rank_name(m->rank), (int)m->rank,
			   wr_rank_name(h->rank), (int)h->rank);
	}
}

static void witness_push(const struct wr_mutex *m)
{
	wr_require(witness.count < WITNESS_MAX,
		   "lock order: too many locks held when taking the %s lock",
		   wr_rank_name(m->rank));
	witness.held[witness.count++] = m;
}

static void witness_pop(const struct wr_mutex *m)
{
	unsigned i = witness.count;

	while (i > 0 && witness.held[i - 1] != m)
		i--;
	wr_require(i > 0,
		   "lock order: releasing the %s lock, which this "
		   "thread does not hold",
		   wr_rank_name(m->rank));
	for (; i < witness.count; i++)
		witness.held[i - 1] = witness.held[i];
	witness.count--;
}

void wr_mutex_assert_held(const struct wr_mutex *m)
{
	for (unsigned i = 0; i < witness.count; i++)
		if (witness.held[i] == m)
			return;
	wr_fatal("lock order: the %s lock must be held here",
		 wr_rank_name(m->rank));
}

#else

static inline void witness_check(const struct wr_mutex *m)
{
	(void)m;
}

static inline void witness_push(const struct wr_mutex *m)
{
	(void)m;
}

static inline void witness_pop(const struct wr_mutex *m)
{
	(void)m;
}

void wr_mutex_assert_held(const struct wr_mutex *m)
{
	(void)m;
}

#endif

/* A pthread call on a mutex fails only if the mutex is broken. */
static void must(int err, const struct wr_mutex *m, const char *what)
{
	if (wr_unlikely(err))
		wr_fatal("%s of the %s lock: %s", what, wr_rank_name(m->rank),
			 strerror(err));
}

void wr_mutex_init(struct wr_mutex *m, enum wr_rank rank)
{
	m->rank = rank;
	must(pthread_mutex_init(&m->mutex, NULL), m, "initialization");
}

void wr_mutex_destroy(struct wr_mutex *m)
{
	must(pthread_mutex_destroy(&m->mutex), m, "destruction");
}

void wr_mutex_lock(struct wr_mutex *m)
{
	witness_check(m);
	must(pthread_mutex_lock(&m->mutex), m, "locking");
	witness_push(m);
}

bool wr_mutex_trylock(struct wr_mutex *m)
{
	int err = pthread_mutex_trylock(&m->mutex);

	if (err == EBUSY)
		return false;
	must(err, m, "locking");
	witness_push(m);
	return true;
}

void wr_mutex_unlock(struct wr_mutex *m)
{
	witness_pop(m);
	must(pthread_mutex_unlock(&m->mutex), m, "unlocking");
}

/* A thread that is cancelled in its wait would end with the lock held.  It is
 * cancelled at the next point that is the program's own. */
void wr_mutex_wait(struct wr_mutex *m, pthread_cond_t *cond)
{
	int err, cancel;

	witness_pop(m);
	witness_check(m); /* it is taken anew after the wait */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	err = pthread_cond_wait(cond, &m->mutex);
	pthread_setcancelstate(cancel, NULL);
	must(err, m, "waiting");
	witness_push(m);
}

int wr_mutex_timedwait(struct wr_mutex *m, pthread_cond_t *cond,
		       const struct timespec *deadline)
{
	int err, cancel;

	witness_pop(m);
	witness_check(m);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	err = pthread_cond_timedwait(cond, &m->mutex, deadline);
	pthread_setcancelstate(cancel, NULL);
	witness_push(m);
	if (err == ETIMEDOUT)
		return -ETIMEDOUT;
	must(err, m, "waiting");
	return 0;
}
