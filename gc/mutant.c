/* SPDX-License-Identifier: MIT */
/* Planted bugs and random delays; see gc/mutant.h. */
#include "gc/mutant.h"

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

void wg_delay(struct weir_heap *h)
{
	static __thread uint64_t state;
	struct timespec t = { 0, 0 };

	if (wr_likely(!h->opt.delay))
		return;
	if (!state)
		state = h->opt.seed * 0x9e3779b97f4a7c15ull +
			(uintptr_t)&state;
	/* xorshift64 (Marsaglia, "Xorshift RNGs", 2003) */
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	t.tv_nsec = (long)(state % h->opt.delay) * 1000;
	nanosleep(&t, NULL);
}
