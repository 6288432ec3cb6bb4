/* SPDX-License-Identifier: MIT */
/*
 * Stacks of the program's making: who switches says so by writing
 * GC_stackbottom (Crystal) or by GC_set_stackbottom(), and reports those that
 * are not run on from its push_other_roots.
 *
 * It is told of before the switch, as Crystal does: in between the stack that
 * is left is neither told of nor reported.
 */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

/* libgc's headers say it of GC_stackbottom. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define STACK ((size_t)256 << 10)
#define GUARD ((size_t)64 << 10)
#define FIBERS 8
#define SWITCHES 40000
/* What the frame of leave() may have below its own address. */
#define FRAME 512

struct fiber {
	ucontext_t context; /* registers while it is parked */
	char *map;          /* guard, stack, guard; NULL: the thread's own */
	void *base;         /* highest address */
	char *sp;           /* below all that is live, when parked */
	int parked;         /* atomic: to be reported */
};

static struct fiber fibers[FIBERS + 1]; /* the last is the thread's own */
static int on, ended = -1;              /* indices: runs; has ended */
static unsigned switches, seed;
static void (*tell)(void *base);
static GC_push_other_roots_proc before;

static void write_it(void *base)
{
	GC_stackbottom = base;
}

static void call_it(void *base)
{
	struct GC_stack_base b = {.mem_base = base};

	GC_set_stackbottom(NULL, &b);
}

static void push_parked(void)
{
	for (int i = 0; i <= FIBERS; i++) {
		struct fiber *f = &fibers[i];

		/* Acquire: partner of the releases in leave(). */
		if (!__atomic_load_n(&f->parked, __ATOMIC_ACQUIRE))
			continue;
		GC_push_all_eager(&f->context, &f->context + 1);
		GC_push_all_eager(f->sp, f->base);
	}
	if (before)
		before();
}

static unsigned next(unsigned n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % n;
}

static void fiber_main(void);

static void fiber_open(struct fiber *f)
{
	f->map = mmap(NULL, STACK + 2 * GUARD, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(f->map != MAP_FAILED);
	check(!mprotect(f->map + GUARD, STACK, PROT_READ | PROT_WRITE));
	f->base = f->map + GUARD + STACK;
	check(!getcontext(&f->context));
	f->context.uc_stack.ss_sp = f->map + GUARD;
	f->context.uc_stack.ss_size = STACK;
	f->context.uc_link = NULL;
	makecontext(&f->context, fiber_main, 0);
	f->sp = f->base;
}

/* Like Crystal's: told of, the one that is left is parked, the other is not,
 * and only then is it switched to. */
static __attribute__((noinline)) void leave(struct fiber *from,
					    struct fiber *to, int ends)
{
	tell(to->base);
	from->sp = (char *)__builtin_frame_address(0) - FRAME;
	/* Release: with its registers from the last time; those that count are
	 * on the stack, on which the thread still is. */
	__atomic_store_n(&from->parked, !ends, __ATOMIC_RELEASE);
	__atomic_store_n(&to->parked, 0, __ATOMIC_RELEASE);
	check(!swapcontext(&from->context, &to->context));
	__asm__ volatile("" ::: "memory");
}

/* On the other stack: the one that ended is unmapped, and made again. */
static void landed(void)
{
	struct fiber *f;

	if (ended < 0)
		return;
	f = &fibers[ended];
	ended = -1;
	check(!munmap(f->map, STACK + 2 * GUARD));
	fiber_open(f);
}

static void hop(int to, int ends)
{
	int from = on;

	if (from == to)
		return;
	on = to;
	switches++;
	ended = ends ? from : -1;
	leave(&fibers[from], &fibers[to], ends);
	landed();
}

static uintptr_t **make_list(unsigned length, uintptr_t value)
{
	uintptr_t **list = NULL;

	for (unsigned i = length; i-- > 0;) {
		uintptr_t **n = GC_malloc(32);

		n[0] = (uintptr_t *)list;
		n[1] = (uintptr_t *)(value + i);
		n[2] = GC_malloc_atomic(16);
		*n[2] = ~(value + i);
		list = n;
	}
	return list;
}

static void check_list(uintptr_t **n, unsigned length, uintptr_t value)
{
	for (unsigned i = 0; i < length; i++, n = (uintptr_t **)n[0])
		check(n && (uintptr_t)n[1] == value + i &&
			      *n[2] == ~(value + i),
		      "after %u switches", switches);
	check(!n);
}

static __attribute__((noinline)) void dive(unsigned depth)
{
	unsigned length = 1 + next(10);
	uintptr_t value = (uintptr_t)next(30000) << 8;
	uintptr_t **volatile list = make_list(length, value);

	if (depth)
		dive(depth - 1);
	else
		hop((int)next(FIBERS + 1), 0);
	make_list(20, 0);
	if (switches % 1000 == 999)
		GC_gcollect();
	check_list(list, length, value);
}

static void fiber_main(void)
{
	landed();
	for (unsigned rounds = 1 + next(8); rounds; rounds--)
		dive(next(6));
	hop(FIBERS, 1);
	abort();
}

static void switch_many(void)
{
	before = GC_get_push_other_roots();
	GC_set_push_other_roots(push_parked);
	on = FIBERS;
	for (int i = 0; i < FIBERS; i++)
		fiber_open(&fibers[i]);
	while (switches < SWITCHES)
		dive(next(6));
	GC_gcollect();
}

static void written(void)
{
	check(GC_stackbottom != NULL);
	tell = write_it;
	fibers[FIBERS].base = GC_stackbottom;
	switch_many();
}

static void told_of(void)
{
	struct GC_stack_base base;

	GC_get_my_stackbottom(&base);
	tell = call_it;
	fibers[FIBERS].base = base.mem_base;
	switch_many();
}

static void *read_it(void *arg)
{
	struct GC_stack_base base;

	GC_get_my_stackbottom(&base);
	check(base.mem_base != GC_stackbottom);
	check((char *)base.mem_base > (char *)&base);
	return arg;
}

/* The variable is that of the thread that started the collector. */
static void bottom(void)
{
	struct GC_stack_base base, mine;
	pthread_t t;

	check(GC_get_stack_base(&base) == GC_SUCCESS);
	GC_get_my_stackbottom(&mine);
	check(mine.mem_base == GC_stackbottom);
	check((char *)GC_stackbottom > (char *)&base &&
	      (char *)GC_stackbottom <= (char *)base.mem_base);
	check(!pthread_create(&t, NULL, read_it, NULL));
	check(!pthread_join(t, NULL));
}

const struct test stack_tests[] = {
	{"stacks: the bottom", bottom},
	{"stacks: GC_stackbottom is written", written},
	{"stacks: GC_set_stackbottom()", told_of},
	{NULL, NULL},
};
