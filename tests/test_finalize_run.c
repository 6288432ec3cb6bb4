/* SPDX-License-Identifier: MIT */
/* The finalizer queue and the library's thread (gc/finalize_run.c). */
#include "tests/finalize.h"
#include "tests/quiet.h"

#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>

/* ---- The queue ---------------------------------------------------------- */

#define QUEUED 40000

static long make_queue(weir_heap *h, weir_mutator *m, void *count)
{
	int err = 0;

	for (long i = 0; i < (long)count; i++) {
		struct node *n = node(m, i);

		n->a = node(m, i + 1);
		err |= weir_finalizer_set(h, n, note, NULL, 0);
	}
	return err;
}

Test(finalize_run, the_queue_keeps_what_waits_in_it)
{
	weir_heap *h = start(OPTIONS);
	long total = 0, made = 0;

	/* More in than out, then all out: the queue moves and wraps. */
	for (int i = 0; i < rounds(12); i++) {
		cr_assert_eq(hidden(h, make_queue, (void *)QUEUED), 0);
		made += QUEUED;
		i % 3 == 0 ? full(h) : i % 3 == 1 ? minor(h) : stopped(h);
		total += hidden(h, run_all, (void *)(QUEUED - 5000));
		cr_assert_eq(total, runs);
		cr_assert_eq(total, (i + 1l) * (QUEUED - 5000));
	}
	full(h);
	minor(h);
	total += run(h);
	cr_assert_eq(total, made);
	cr_assert_eq(runs, made);
	cr_assert_eq(h->weak->fin.table.count, 0);
	cr_assert_eq(run(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- The library's thread ----------------------------------------------- */

static bool wait_for(long count)
{
	for (int i = 0; i < 12000 && runs < count; i++)
		usleep(5000);
	return runs == count;
}

static void collect_and_note(void *object, void *arg)
{
	/* A finalizer is the program's code: it may collect and allocate. */
	must(weir_thread_self(wg_heap));
	must(!weir_collect(wg_heap, WEIR_COLLECT_MINOR));
	must(weir_alloc(weir_thread_self(wg_heap), 64));
	note(object, arg);
}

static long make_collecting(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)arg;
	return weir_finalizer_set(h, node(m, 3), collect_and_note, NULL, 0);
}

static void the_thread(const char *options)
{
	weir_heap *h = start(options);

	cr_assert_eq(hidden(h, make_one, (void *)7), 0);
	full(h);
	cr_assert(wait_for(1));
	cr_assert_eq(hidden(h, make_collecting, NULL), 0);
	full(h);
	cr_assert(wait_for(2));
	/* Idle, it is in nobody's way. */
	for (int i = 0; i < 3; i++)
		stopped(h);
	cr_assert_eq(hidden(h, make_queue, (void *)1000), 0);
	full(h);
	cr_assert(wait_for(1002));
	cr_assert_eq(weir_heap_destroy(h), 0, "%s", weir_error_text());
}

Test(finalize_run, a_thread_of_the_library)
{
	the_thread(OPTIONS ",finalizer-thread=on");
}

Test(finalize_run, a_thread_of_the_library_at_safepoints)
{
	the_thread(OPTIONS ",finalizer-thread=on,stop=safepoints");
}

static long destroy_fails(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)m;
	(void)arg;
	/* The main thread is attached. */
	return weir_heap_destroy(h);
}

Test(finalize_run, the_thread_comes_back_after_a_destroy_that_failed)
{
	weir_heap *h = start(OPTIONS ",finalizer-thread=on");
	weir_mutator *m;

	cr_assert_eq(hidden(h, make_one, (void *)7), 0);
	full(h);
	cr_assert(wait_for(1));
	cr_assert_eq(weir_thread_attach(h, &m), 0);
	cr_assert_eq(hidden(h, destroy_fails, NULL), -EBUSY);
	cr_assert_eq(weir_thread_detach(m), 0);
	cr_assert_eq(hidden(h, make_one, (void *)8), 0);
	full(h);
	cr_assert(wait_for(2));
	cr_assert_eq(weir_heap_destroy(h), 0, "%s", weir_error_text());
}

/* Many seconds of them. */
#define SLOW 1000

static void slow(void *object, void *arg)
{
	usleep(20000);
	note(object, arg);
}

static long make_slow(weir_heap *h, weir_mutator *m, void *arg)
{
	int err = 0;

	(void)arg;
	for (long i = 0; i < SLOW; i++)
		err |= weir_finalizer_set(h, node(m, i), slow, NULL, 0);
	return err;
}

Test(finalize_run, destroy_does_not_wait_for_the_whole_queue)
{
	weir_heap *h = start(OPTIONS ",finalizer-thread=on");

	cr_assert_eq(hidden(h, make_slow, NULL), 0);
	full(h);
	while (!runs)
		usleep(1000);
	cr_assert_eq(weir_heap_destroy(h), 0, "%s", weir_error_text());
	cr_assert_lt(runs, SLOW);
}

static void destroy_within(void *object, void *arg)
{
	*(int *)arg = weir_heap_destroy(wg_heap);
	note(object, NULL);
}

static long make_destroying(weir_heap *h, weir_mutator *m, void *arg)
{
	return weir_finalizer_set(h, node(m, 1), destroy_within, arg, 0);
}

Test(finalize_run, destroy_by_a_finalizer_is_refused)
{
	weir_heap *h = start(OPTIONS ",finalizer-thread=on");
	int err = 0;

	cr_assert_eq(hidden(h, make_destroying, &err), 0);
	full(h);
	cr_assert(wait_for(1));
	cr_assert_eq(err, -EBUSY);
	cr_assert_eq(weir_heap_destroy(h), 0, "%s", weir_error_text());
}

Test(finalize_run, the_thread_starts_anew_in_a_child_of_fork)
{
#ifdef __SANITIZE_THREAD__
	cr_skip("ThreadSanitizer dies of a thread that is made in a forked "
		"child (\"dup thread with used id\")");
#endif
	weir_heap *h = start(OPTIONS ",finalizer-thread=on");
	int status;
	pid_t pid;

	cr_assert_eq(hidden(h, make_one, (void *)7), 0);
	full(h);
	cr_assert(wait_for(1));
	quiet_before_fork();
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		bool ok;

		alarm(120);
		ok = !hidden(h, make_one, (void *)8);
		full(h);
		ok = ok && wait_for(2) && !weir_heap_destroy(h);
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
	cr_assert_eq(hidden(h, make_one, (void *)9), 0);
	full(h);
	cr_assert(wait_for(2));
	cr_assert_eq(weir_heap_destroy(h), 0, "%s", weir_error_text());
}

/* ---- Telling, and all of them -------------------------------------------- */

static long told[64];
static long tells;

static void tell(void *object, void *arg)
{
	struct node *n = object;

	must(arg == &tells && n->check == MAGIC + (uintptr_t)n->id);
	must(n->a->check == MAGIC + (uintptr_t)n->a->id);
	must(wg_on_collector_thread());
	/* None has run yet. */
	for (int i = 0; i < runs; i++)
		must(ran[i] != n->id);
	told[tells++] = n->id;
}

static long queued(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)m;
	(void)arg;
	return (long)weir_finalizers_queued(h);
}

Test(finalize_run, told_of_before)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(weir_finalizers_on_queued(h, tell, &tells), 0);
	for (long i = 0; i < 6; i++) {
		cr_assert_eq(hidden(h, make_one, (void *)(100 + i)), 0);
		cr_assert_eq(tells, i);
		i % 2 ? full(h) : minor(h);
		cr_assert_eq(tells, i + 1);
		cr_assert_eq(told[i], 100 + i);
		if (i == 3)
			cr_assert_eq(run(h), 4);
	}
	cr_assert_eq(hidden(h, queued, NULL), 2);
	cr_assert_eq(run(h), 2);
	cr_assert_eq(runs, 6);
	cr_assert_eq(weir_finalizers_on_queued(h, NULL, NULL), 0);
	cr_assert_eq(hidden(h, make_one, (void *)200), 0);
	full(h);
	cr_assert_eq(tells, 6);
	cr_assert_eq(run(h), 1);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static void tell_slowly(void *object, void *arg)
{
	struct node *n = object;

	(void)arg;
	must(n->check == MAGIC + (uintptr_t)n->id);
	__atomic_store_n(&told[n->id], 1, __ATOMIC_RELAXED);
	usleep(200);
}

static void after_told(void *object, void *arg)
{
	struct node *n = object;

	(void)arg;
	must(__atomic_exchange_n(&told[n->id], 0, __ATOMIC_RELAXED) == 1);
	atomic_fetch_add(&runs, 1);
}

static bool done;

static void *runs_them(void *h)
{
	weir_mutator *m;

	must(!weir_thread_attach(h, &m));
	while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
		must(weir_finalizers_run(m, 0) >= 0);
		weir_safepoint(m);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

static long make_told(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)arg;
	for (long i = 0; i < 64; i++)
		must(!weir_finalizer_set(h, node(m, i), after_told, NULL, 0));
	return 0;
}

Test(finalize_run, told_of_before_whoever_runs_them, .timeout = 180)
{
	weir_heap *h = start(OPTIONS);
	pthread_t t;

	memset(told, 0, sizeof(told));
	cr_assert_eq(weir_finalizers_on_queued(h, tell_slowly, NULL), 0);
	pthread_create(&t, NULL, runs_them, h);
	for (int i = 1; i < 10; i++) {
		hidden(h, make_told, NULL);
		full(h);
		while (runs < 64 * i)
			usleep(100);
	}
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static void set_again(void *object, void *arg)
{
	note(object, arg);
	if (runs < 20)
		must(!weir_finalizer_set(wg_heap, object, set_again, NULL,
					 WEIR_FINALIZE_ORDERED));
}

static long make_all_sorts(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)arg;
	for (int i = 0; i < 8; i++) {
		slot[i] = node(m, i);
		slot[i]->a = slot[i / 2];
		must(!weir_finalizer_set(h, slot[i], i == 3 ? set_again : note,
					 NULL, i % 2));
	}
	return make_one(h, m, (void *)50);
}

static long all_of_them(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)arg;
	return weir_finalizers_run_all(m);
}

Test(finalize_run, all_of_them)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, all_of_them, NULL), 0);
	cr_assert_eq(hidden(h, make_all_sorts, NULL), 0);
	minor(h);
	cr_assert_eq(weir_finalizers_queued(h), 1);
	cr_assert_geq(hidden(h, all_of_them, NULL), 20);
	cr_assert_geq(runs, 20);
	cr_assert_eq(h->weak->fin.table.count, 0);
	full(h);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(slot[i]->check, MAGIC + (uintptr_t)i);
	cr_assert_eq(run(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static void *collects(void *h)
{
	for (int i = 0; !__atomic_load_n(&done, __ATOMIC_RELAXED); i++)
		i % 3 ? minor(h) : full(h);
	return NULL;
}

static long make_and_run(weir_heap *h, weir_mutator *m, void *arg)
{
	long made = 0, ran_here = 0;

	for (int k = 0; k < 300; k++) {
		for (long i = 0; i < 50; i++, made++) {
			struct node *n = node(m, i);

			n->a = node(m, i + 1);
			must(!weir_finalizer_set(h, n, note, NULL, k % 2));
		}
		ran_here += weir_finalizers_run_all(m);
		weir_safepoint(m);
	}
	(void)arg;
	return made - ran_here;
}

Test(finalize_run, all_of_them_beside_cycles, .timeout = 240)
{
	weir_heap *h = start(OPTIONS ",delay=100");
	pthread_t t;

	pthread_create(&t, NULL, collects, h);
	cr_assert_eq(hidden(h, make_and_run, NULL), 0);
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
