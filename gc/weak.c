/* SPDX-License-Identifier: MIT */
/* Weak references, finalizers and ephemerons. */
#include "gc/weak.h"

int wg_weak_create(struct weir_heap *h)
{
	(void)h;
	return 0;
}

void wg_weak_destroy(struct weir_heap *h)
{
	(void)h;
}

void wg_weak_preclean(struct weir_heap *h)
{
	(void)h;
}

void wg_weak_pause(struct weir_heap *h)
{
	(void)h;
}

void wg_weak_after(struct weir_heap *h)
{
	(void)h;
}

void wg_weak_roots(struct weir_heap *h, void (*visit)(void *arg, uintptr_t p),
		   void *arg)
{
	(void)h;
	(void)visit;
	(void)arg;
}

void wg_weak_ephemeron(struct weir_heap *h, uintptr_t p, uintptr_t *key,
		       uintptr_t *value)
{
	(void)h;
	(void)p;
	*key = *value = 0;
}

void wg_weak_fork(struct weir_heap *h, int stage)
{
	(void)h;
	(void)stage;
}
