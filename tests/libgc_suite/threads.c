/* SPDX-License-Identifier: MIT */
/* Threads: created, joined, detached, registered; blocking; locks; fork. */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

static void *churn(void *arg)
{
	uint64_t **kept[64] = {0};
	uintptr_t seed = (uintptr_t)arg;

	for (int i = 0; i < 100000; i++) {
		uint64_t **p = GC_malloc(32);

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		p[0] = GC_malloc_atomic(24);
		p[0][0] = p[0][2] = (uintptr_t)p;
		if (seed >> 60 == 0) {
			uint64_t **old = kept[seed >> 50 & 63];

			if (old)
				check(old[0][0] == (uintptr_t)old &&
				      old[0][2] == (uintptr_t)old);
			kept[seed >> 50 & 63] = p;
		}
	}
	for (int i = 0; i < 64; i++)
		if (kept[i])
			check(kept[i][0][0] == (uintptr_t)kept[i]);
	{
		char *result = GC_malloc_atomic(100);

		memset(result, 0x42, 100);
		return result;
	}
}

static void created_and_joined(void)
{
	pthread_t t[4];

	for (uintptr_t i = 0; i < 4; i++)
		check(!pthread_create(&t[i], NULL, churn, (void *)(i + 1)));
	for (int i = 0; i < 4; i++) {
		void *result;

		check(!pthread_join(t[i], &result));
		for (int k = 0; k < 100; k++)
			check(((char *)result)[k] == 0x42);
	}
}

static void *give(void *arg)
{
	char *p = GC_malloc_atomic(100);

	memset(p, 0x43, 100);
	(void)arg;
	return p;
}

/* The result has no other reference until the thread is joined. */
static void results_are_kept(void)
{
	pthread_t t[20];

	for (int i = 0; i < 20; i++)
		check(!pthread_create(&t[i], NULL, give, i % 2 ? &t[i] : NULL));
	usleep(100000);
	collect();
	for (int i = 0; i < 100000; i++)
		memset(GC_malloc_atomic(100), 0xdd, 100);
	for (int i = 0; i < 20; i++) {
		void *result;

		check(!pthread_join(t[i], &result));
		for (int k = 0; k < 100; k++)
			check(((char *)result)[k] == 0x43, "thread %d", i);
	}
}

static void *take(void *arg)
{
	char *p = arg;

	usleep(1000);
	for (int i = 0; i < 100; i++)
		check(p[i] == 0x44);
	return NULL;
}

static void arguments_are_kept(void)
{
	for (int i = 0; i < 50; i++) {
		pthread_t t;
		char *p = GC_malloc_atomic(100);

		memset(p, 0x44, 100);
		check(!pthread_create(&t, NULL, take, p));
		p = NULL;
		if (i % 10 == 0)
			collect();
		if (i % 2)
			check(!pthread_detach(t));
		else
			check(!pthread_join(t, NULL));
	}
	usleep(50000);
}

static void *registered(void *arg)
{
	struct GC_stack_base base;

	check(GC_get_stack_base(&base) == GC_SUCCESS);
	check(!GC_thread_is_registered());
	check(GC_register_my_thread(&base) == GC_SUCCESS);
	check(GC_register_my_thread(&base) == GC_DUPLICATE);
	check(GC_thread_is_registered());
	churn(arg);
	check(GC_unregister_my_thread() == GC_SUCCESS);
	check(!GC_thread_is_registered());
	return NULL;
}

#undef pthread_create
#undef pthread_join
static void registered_by_hand(void)
{
	pthread_t t[3];

	GC_allow_register_threads();
	for (uintptr_t i = 0; i < 3; i++)
		check(!pthread_create(&t[i], NULL, registered,
				      (void *)(i + 1)));
	for (int i = 0; i < 20; i++)
		GC_gcollect();
	for (int i = 0; i < 3; i++)
		check(!pthread_join(t[i], NULL));
}
#define pthread_create GC_pthread_create
#define pthread_join GC_pthread_join

static void *pass(void *arg)
{
	return (char *)arg + 1;
}

static void *allocate(void *arg)
{
	char *p = GC_malloc_atomic(100);

	memset(p, 0x45, 100);
	GC_gcollect();
	check(p[99] == 0x45);
	return arg;
}

static void *sleep_inside(void *arg)
{
	GC_word no = *(GC_word *)arg;

	/* Another thread's collections go on. */
	for (int i = 0; i < 1000 && GC_get_gc_no() < no + 3; i++)
		usleep(10000);
	check(GC_get_gc_no() >= no + 3);
	check(GC_call_with_gc_active(allocate, arg) == arg);
	return arg;
}

static void *collector(void *arg)
{
	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE)) {
		GC_gcollect();
		usleep(1000);
	}
	return NULL;
}

static void blocking(void)
{
	GC_word no = GC_get_gc_no();
	int stop = 0;
	pthread_t t;
	char *volatile p = GC_malloc_atomic(64);

	memset(p, 0x46, 64);
	check(GC_do_blocking(pass, (void *)5) == (void *)6);
	check(GC_call_with_gc_active(pass, (void *)5) == (void *)6);
	check(!pthread_create(&t, NULL, collector, &stop));
	check(GC_do_blocking(sleep_inside, &no) == &no);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	check(!pthread_join(t, NULL));
	for (int i = 0; i < 64; i++)
		check(p[i] == 0x46);
}

static long counter;

static void *increment(void *arg)
{
	volatile long *c = arg;
	long was = *c;

	for (volatile int i = 0; i < 20; i++)
		;
	*c = was + 1;
	return NULL;
}

static void *locked(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		GC_call_with_alloc_lock(increment, &counter);
		if (i % 16 == 0)
			GC_malloc(100);
	}
	return arg;
}

static void alloc_lock(void)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		check(!pthread_create(&t[i], NULL, locked, NULL));
	for (int i = 0; i < 4; i++)
		check(!pthread_join(t[i], NULL));
	check(counter == 80000, "%ld", counter);
}

static void *with_base(struct GC_stack_base *base, void *arg)
{
	char here;

	check((char *)base->mem_base > &here);
	return arg;
}

static void stack_base(void)
{
	struct GC_stack_base base;

	check(GC_get_stack_base(&base) == GC_SUCCESS);
	check((char *)base.mem_base > (char *)&base);
	check(GC_call_with_stack_base(with_base, &base) == &base);
}

static void forked(void)
{
	char *volatile p = GC_malloc_atomic(100);
	pid_t child;
	int status;

	memset(p, 0x47, 100);
	GC_set_handle_fork(1);
	child = fork();
	check(child >= 0);
	if (!child) {
		for (int i = 0; i < 300000; i++)
			memset(GC_malloc(100), 1, 100);
		collect();
		for (int i = 0; i < 100; i++)
			check(p[i] == 0x47);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && status == 0);
	collect();
	check(p[99] == 0x47);
}

/* The program's own handler of SIGSEGV stays the program's. */
static volatile sig_atomic_t faults;
static char *volatile fault_page;

static void on_fault(int sig)
{
	(void)sig;
	faults++;
	_exit(faults == 1 ? 0 : 1);
}

static void own_segv_handler(void)
{
	signal(SIGSEGV, on_fault);
	for (int i = 0; i < 500000; i++)
		GC_malloc(64);
	collect();
	check(faults == 0);
	*fault_page = 1; /* ends in the handler */
	exit(1);
}

static void signals(void)
{
	check(GC_get_suspend_signal() > 0);
	check(GC_get_thr_restart_signal() > 0);
	{
		sigset_t all, now;

		sigfillset(&all);
		check(!GC_pthread_sigmask(SIG_SETMASK, &all, NULL));
		pthread_sigmask(SIG_BLOCK, NULL, &now);
		check(!sigismember(&now, GC_get_suspend_signal()));
		check(sigismember(&now, SIGUSR1));
	}
}

const struct test thread_tests[] = {
	{"threads: created and joined", created_and_joined},
	{"threads: results are kept until joined", results_are_kept},
	{"threads: arguments are kept", arguments_are_kept},
	{"threads: registered by hand", registered_by_hand},
	{"threads: blocking", blocking},
	{"threads: the allocation lock", alloc_lock},
	{"threads: stack bases", stack_base},
	{"threads: fork", forked},
	{"threads: the program's SIGSEGV handler", own_segv_handler},
	{"threads: signals", signals},
	{NULL, NULL},
};
