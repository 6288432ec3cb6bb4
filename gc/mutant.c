/* SPDX-License-Identifier: MIT */
/* Planted bugs and random delays; see gc/mutant.h. */
#include "gc/mutant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gc/heap.h"

#ifdef WEIR_MUTANTS
enum wg_mutant wg_mutant_active;

void wg_mutant_init(void)
{
	static const char *const name[] = {
		[WG_MUTANT_SKIP_DIRTY] = "skip-dirty",
		[WG_MUTANT_FORGET_STACK] = "forget-stack",
		[WG_MUTANT_NO_REARM] = "no-rearm",
		[WG_MUTANT_BORN_WHITE] = "born-white",
		[WG_MUTANT_LOSE_LATER] = "lose-later",
		[WG_MUTANT_TRUST_AHEAD] = "trust-ahead",
		[WG_MUTANT_LOSE_PENDED] = "lose-pended",
		[WG_MUTANT_SNAP_LOSE] = "snap-lose",
		[WG_MUTANT_SNAP_REARM] = "snap-rearm",
	};
	const char *want = getenv("WEIR_MUTANT");

	wg_mutant_active = WG_MUTANT_NONE;
	if (!want || !*want)
		return;
	for (unsigned i = 1; i < sizeof(name) / sizeof(name[0]); i++)
		if (!strcmp(want, name[i]))
			wg_mutant_active = (enum wg_mutant)i;
	if (wg_mutant_active == WG_MUTANT_NONE)
		wr_fatal("WEIR_MUTANT=%s: no such mutant", want);
}
#endif

static __thread uint64_t state; /* 0: the thread has no number yet */

/* xorshift64 (Marsaglia, "Xorshift RNGs", 2003) */
static uint64_t next(struct weir_heap *h)
{
	if (wr_unlikely(!state))
		wg_delay_mutator(h);
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void wait_a_while(struct weir_heap *h, uint64_t r)
{
	struct timespec t = {0, 0};
	int saved = errno;

	t.tv_sec = (time_t)(r % h->opt.delay / 1000000);
	t.tv_nsec = (long)(r % h->opt.delay % 1000000) * 1000;
	nanosleep(&t, NULL);
	errno = saved;
}

void wg_delay_thread(struct weir_heap *h, unsigned id)
{
	/* splitmix64's finish (Steele, Lea, Flood 2014), for neighbours to
	 * differ in every bit. */
	uint64_t x = ((uint64_t)h->opt.seed << 32 | id) + 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	state = (x ^ x >> 31) | 1;
}

void wg_delay_mutator(struct weir_heap *h)
{
	static unsigned last; /* atomic, relaxed: only to be different */

	wg_delay_thread(h,
			WG_DELAY_MUTATOR +
				__atomic_add_fetch(&last, 1, __ATOMIC_RELAXED));
}

void wg_delay(struct weir_heap *h)
{
	if (wr_unlikely(h->opt.delay))
		wait_a_while(h, next(h));
}

void wg_delay_rarely(struct weir_heap *h)
{
	if (wr_likely(!h->opt.delay))
		return;
	if (next(h) >> 58 == 0)
		wait_a_while(h, next(h));
}

bool wg_delay_choice(struct weir_heap *h, unsigned n)
{
	return wr_unlikely(h->opt.delay) && (next(h) >> 32) % n == 0;
}
