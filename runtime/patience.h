/* SPDX-License-Identifier: MIT */
/*
 * Waiting for another thread for what is mostly a microsecond: first only the
 * processor is given away, then it sleeps.  Only to give it away would be for
 * ever where the other has a lower priority than a real-time thread, and shares
 * its processor.
 *
 *	unsigned tries = 0;
 *	while (!done)
 *		wr_wait_a_bit(&tries);
 *
 * Callable in signal handlers; errno is left as it was.  No cancellation point,
 * as nanosleep() would be: a thread may wait with locks held.
 */
#ifndef WEIR_RUNTIME_PATIENCE_H
#define WEIR_RUNTIME_PATIENCE_H

#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WR_WAIT_NS 20000

static inline void wr_wait_a_bit(unsigned *tries)
{
	static const struct timespec moment = {.tv_nsec = WR_WAIT_NS};
	int saved = errno;

	if (++*tries > 50)
		syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &moment, NULL);
	else
		sched_yield();
	errno = saved;
}

#endif
