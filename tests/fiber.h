/* SPDX-License-Identifier: MIT */
/*
 * Fibers for the tests: ucontext on mapped stacks between guard pages, and
 * what a root callback reports of those that nobody runs on.
 *
 * A fiber is parked from before the switch away from it until after the switch
 * back.  Who looks at a parked one with its thread stopped in between reports
 * more than is live, from an old stack pointer, but never less.
 */
#ifndef WEIR_TESTS_FIBER_H
#define WEIR_TESTS_FIBER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "runtime/thread_private.h"
#include "tests/hidden.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#define FIBER_STACK ((size_t)256 << 10)
#define FIBER_GUARD ((size_t)64 << 10) /* a page of the largest size */

struct fiber {
	ucontext_t context; /* registers while it is parked */
	char *map;          /* guard, stack, guard; NULL: the thread's own */
	char *base;         /* highest address of the stack */
	bool parked;        /* atomic: see above */
	void *tsan;         /* its name there */
};

static inline void fiber_park(struct fiber *f, bool parked)
{
	/* Release: who sees it parked has its context, if it never ran. */
	__atomic_store_n(&f->parked, parked, __ATOMIC_RELEASE);
}

/* Its stack. */
static inline void fiber_map(struct fiber *f)
{
	f->map = mmap(NULL, FIBER_STACK + 2 * FIBER_GUARD, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(f->map != MAP_FAILED);
	must(mprotect(f->map + FIBER_GUARD, FIBER_STACK,
		      PROT_READ | PROT_WRITE) == 0);
	f->base = f->map + FIBER_GUARD + FIBER_STACK;
}

/* It runs body on the stack that it has. */
static inline void fiber_set(struct fiber *f, void (*body)(void))
{
	must(getcontext(&f->context) == 0);
	f->context.uc_stack.ss_sp = f->map + FIBER_GUARD;
	f->context.uc_stack.ss_size = FIBER_STACK;
	f->context.uc_link = NULL;
	makecontext(&f->context, body, 0);
#ifdef __SANITIZE_THREAD__
	f->tsan = __tsan_create_fiber(0);
#endif
	fiber_park(f, true);
}

static inline void fiber_open(struct fiber *f, void (*body)(void))
{
	fiber_map(f);
	fiber_set(f, body);
}

/* Nobody runs on it. */
static inline void fiber_close(struct fiber *f)
{
	fiber_park(f, false);
#ifdef __SANITIZE_THREAD__
	__tsan_destroy_fiber(f->tsan);
#endif
	must(munmap(f->map, FIBER_STACK + 2 * FIBER_GUARD) == 0);
	f->map = NULL;
}

/* The thread's own stack, before its first switch.  Its context is read here:
 * whoever finds it parked before that switch has saved it needs a stack
 * pointer. */
static inline void fiber_own(struct fiber *f)
{
	f->map = f->base = NULL;
	must(getcontext(&f->context) == 0);
#ifdef __SANITIZE_THREAD__
	f->tsan = __tsan_get_current_fiber();
#endif
}

static inline void fiber_switch(struct fiber *from, struct fiber *to)
{
	fiber_park(from, true);
#ifdef __SANITIZE_THREAD__
	__tsan_switch_to_fiber(to->tsan, 0);
#endif
	must(swapcontext(&from->context, &to->context) == 0);
	fiber_park(from, false);
}

/* With its thread stopped. */
static inline void fiber_report(struct fiber *f, weir_visitor *visitor)
{
	uintptr_t sp = wr_context_sp(&f->context) & ~(sizeof(sp) - 1);

	/* Acquire: partner of the release in fiber_park(). */
	if (!__atomic_load_n(&f->parked, __ATOMIC_ACQUIRE) || !f->map)
		return;
	weir_visit_range(visitor, &f->context, &f->context + 1);
	weir_visit_range(visitor, (void *)sp, f->base);
}

/* ---- Lists that only a fiber's frames keep ---- */

struct node {
	struct node *next; /* NULL at the end */
	uint64_t value;    /* of the first, plus its place */
};

static inline struct node *make_list(weir_mutator *m, unsigned length,
				     uint64_t value)
{
	struct node *list = NULL;

	for (unsigned i = length; i-- > 0;) {
		struct node *n = weir_alloc(m, sizeof(*n));

		must(n);
		n->value = value + i;
		n->next = list;
		list = n;
	}
	return list;
}

static inline void check_list(const struct node *n, unsigned length,
			      uint64_t value)
{
	for (unsigned i = 0; i < length; i++, n = n->next)
		must(n && n->value == value + i);
	must(!n);
}

#endif
