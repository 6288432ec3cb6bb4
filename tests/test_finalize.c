/* SPDX-License-Identifier: MIT */
/* Finalizers (gc/finalize.c, gc/finalize_run.c). */
#include "tests/finalize.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

#include <weir/embed.h>

Test(finalize, runs_once_when_unreachable)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_one, (void *)7), 0);
	cr_assert_eq(run(h), 0);
	full(h);
	cr_assert_eq(runs, 0, "it ran outside of weir_finalizers_run");
	cr_assert_eq(run(h), 1);
	cr_assert_eq(runs, 1);
	cr_assert_eq(ran[0], 7);
	full(h);
	full(h);
	cr_assert_eq(run(h), 0);
	cr_assert_eq(h->weak->fin.table.count, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(finalize, young_objects_in_minor_cycles)
{
	weir_heap *h = start(OPTIONS);

	full(h);
	for (long i = 0; i < 4; i++) {
		cr_assert_eq(hidden(h, make_one, (void *)i), 0);
		minor(h);
		cr_assert_eq(run(h), 1);
		cr_assert_eq(ran[i], i);
	}
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(finalize, in_one_stop_and_without_a_barrier)
{
	weir_heap *h = start(OPTIONS ",barrier=none");

	cr_assert_eq(hidden(h, make_one, (void *)1), 0);
	stopped(h);
	cr_assert_eq(hidden(h, make_one, (void *)2), 0);
	minor(h);
	/* The queue holds them through any cycle. */
	stopped(h);
	full(h);
	cr_assert_eq(run(h), 2);
	cr_assert_eq(ran[0], 1);
	cr_assert_eq(ran[1], 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_kept(weir_heap *h, weir_mutator *m, void *arg)
{
	slot[0] = node(m, 1);
	slot[1] = node(m, 2);
	slot[2] = node(m, 3);
	slot[0]->a = node(m, 4);
	(void)arg;
	return weir_finalizer_set(h, slot[0], note, NULL, 0) |
	       weir_finalizer_set(h, slot[1], note, NULL, 0) |
	       weir_finalizer_set(h, slot[2], note, NULL, 0) |
	       weir_finalizer_set(h, slot[0]->a, note, NULL, 0);
}

static void note_arg(void *object, void *arg)
{
	must(object);
	*(int *)arg += 1;
}

Test(finalize, kept_replaced_and_removed)
{
	weir_heap *h = start(OPTIONS);
	int count = 0;

	cr_assert_eq(hidden(h, make_kept, NULL), 0);
	full(h);
	minor(h);
	cr_assert_eq(run(h), 0);
	cr_assert_eq(weir_finalizer_set(h, slot[1], NULL, NULL, 0), 0);
	cr_assert_eq(weir_finalizer_set(h, slot[1], NULL, NULL, 0), 0);
	cr_assert_eq(weir_finalizer_set(h, slot[2], note_arg, &count, 0), 0);
	slot[1] = slot[2] = NULL;
	full(h);
	cr_assert_eq(run(h), 1);
	cr_assert_eq(count, 1);
	cr_assert_eq(runs, 0);
	slot[0] = NULL;
	full(h);
	cr_assert_eq(run(h), 2);
	cr_assert_eq(ran[0] + ran[1], 1 + 4);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Resurrection ------------------------------------------------------- */

static void keep(void *object, void *arg)
{
	note(object, arg);
	slot[0] = object;
}

static long make_keep(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = node(m, 5);

	n->a = node(m, 6);
	return weir_finalizer_set(h, n, keep, NULL, 0) |
	       weir_weak_create(h, n, arg);
}

static long aim(weir_heap *h, weir_mutator *m, void *weak)
{
	(void)h;
	(void)m;
	return weir_weak_set(weak, slot[0]);
}

Test(finalize, a_stored_object_lives_on_and_dies_without_a_second_run)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak;

	cr_assert_eq(hidden(h, make_keep, &weak), 0);
	full(h);
	cr_assert_not(alive(h, weak),
		      "weak references are cleared before finalizers run");
	cr_assert_eq(run(h), 1);
	cr_assert_eq(hidden(h, aim, weak), 0);
	full(h);
	minor(h);
	cr_assert(alive(h, weak));
	cr_assert_eq(slot[0]->a->id, 6);
	slot[0] = NULL;
	full(h);
	cr_assert_not(alive(h, weak));
	cr_assert_eq(run(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static void again(void *object, void *arg)
{
	note(object, arg);
	if (runs < 3)
		must(!weir_finalizer_set(wg_heap, object, again, NULL, 0));
}

static long make_again(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)arg;
	return weir_finalizer_set(h, node(m, 9), again, NULL, 0);
}

Test(finalize, given_anew_it_runs_again)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_again, NULL), 0);
	for (int i = 0; i < 3; i++) {
		full(h);
		cr_assert_eq(run(h), 1, "round %d", i);
	}
	full(h);
	cr_assert_eq(run(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Order -------------------------------------------------------------- */

static long make_chain(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = NULL;
	int err = 0;

	for (long i = 4; i >= 0; i--) {
		struct node *p = node(m, i);

		/* With an object in between that has none. */
		p->a = node(m, 100 + i);
		p->a->a = n;
		n = p;
		err |= weir_finalizer_set(h, p, note, NULL,
					  (unsigned)(uintptr_t)arg);
	}
	return err;
}

Test(finalize, ordered_chain_runs_from_its_head_one_a_cycle)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_chain, (void *)WEIR_FINALIZE_ORDERED), 0);
	for (long i = 0; i < 5; i++) {
		full(h);
		full(h); /* the next is not ready before this one ran */
		cr_assert_eq(run(h), 1);
		cr_assert_eq(ran[i], i);
	}
	full(h);
	cr_assert_eq(run(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(finalize, unordered_chain_runs_at_once)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_chain, (void *)WEIR_FINALIZE_UNORDERED), 0);
	full(h);
	cr_assert_eq(run(h), 5);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_cycle(weir_heap *h, weir_mutator *m, void *arg)
{
	unsigned flags = (unsigned)(uintptr_t)arg;
	struct node *a = node(m, 1), *b = node(m, 2), *self = node(m, 3);
	struct node *tail = node(m, 4), *head = node(m, 5);

	a->a = b;
	b->a = a;
	self->a = self;
	a->b = tail;
	head->a = a;
	return weir_finalizer_set(h, a, note, NULL, flags) |
	       weir_finalizer_set(h, b, note, NULL, flags) |
	       weir_finalizer_set(h, self, note, NULL, flags) |
	       weir_finalizer_set(h, tail, note, NULL, flags) |
	       weir_finalizer_set(h, head, note, NULL, flags);
}

Test(finalize, ordered_cycles_never_run_nor_what_they_reach)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_cycle, (void *)WEIR_FINALIZE_ORDERED), 0);
	full(h);
	/* What reaches the cycle is ready. */
	cr_assert_eq(run(h), 1);
	cr_assert_eq(ran[0], 5);
	for (int i = 0; i < 3; i++) {
		full(h);
		cr_assert_eq(run(h), 0);
	}
	cr_assert_eq(h->weak->fin.table.count, 4);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(finalize, unordered_cycles_run)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_cycle, (void *)WEIR_FINALIZE_UNORDERED), 0);
	full(h);
	cr_assert_eq(run(h), 5);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* 1 refers to itself, by more words than a marker's ring has room for; 2 and 3
 * to each other, 4 to itself through 5, which has no finalizer. */
static long make_selfish(weir_heap *h, weir_mutator *m, void *arg)
{
	unsigned flags = (unsigned)(uintptr_t)arg;
	struct {
		struct node node;
		void *more[100];
	} *self = weir_alloc(m, sizeof(*self));
	struct node *two = node(m, 2), *three = node(m, 3);
	struct node *four = node(m, 4), *five = node(m, 5);

	self->node.check = MAGIC + 1;
	self->node.id = 1;
	self->node.a = &self->node;
	for (int i = 0; i < 100; i++)
		self->more[i] = self;
	two->a = three;
	three->a = two;
	four->a = five;
	five->a = four;
	return weir_finalizer_set(h, self, note, NULL, flags) |
	       weir_finalizer_set(h, two, note, NULL, flags) |
	       weir_finalizer_set(h, three, note, NULL, flags) |
	       weir_finalizer_set(h, four, note, NULL, flags);
}

Test(finalize, ordered_that_ignores_its_own_references)
{
	weir_heap *h = start(OPTIONS);
	unsigned both = WEIR_FINALIZE_ORDERED | WEIR_FINALIZE_IGNORE_SELF;

	cr_assert_eq(hidden(h, make_selfish, (void *)WEIR_FINALIZE_ORDERED), 0);
	full(h);
	full(h);
	cr_assert_eq(run(h), 0);
	cr_assert_eq(hidden(h, make_selfish, (void *)(uintptr_t)both), 0);
	full(h);
	full(h);
	cr_assert_eq(run(h), 1);
	cr_assert_eq(ran[0], 1);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* Who replaces or removes one gets its argument; a queued one is nobody's. */
static long make_swapped(weir_heap *h, weir_mutator *m, void *arg)
{
	void *object = node(m, 1), *old = arg;
	static int a, b;

	if (weir_finalizer_swap(h, object, note, &a, 0, &old) != 0)
		return 1;
	if (weir_finalizer_swap(h, object, note, &b, 0, &old) != 1 || old != &a)
		return 2;
	if (weir_finalizer_swap(h, object, NULL, NULL, 0, &old) != 1 ||
	    old != &b)
		return 3;
	if (weir_finalizer_swap(h, object, NULL, NULL, 0, &old) != 0)
		return 4;
	return weir_finalizer_swap(h, object, note, &a, 0, &old);
}

static long swap_queued;

static void swap_in_it(void *object, void *arg)
{
	void *old;

	swap_queued = weir_finalizer_swap(arg, object, note, NULL, 0, &old);
}

Test(finalize, swapped)
{
	weir_heap *h = start(OPTIONS);
	weir_mutator *m;

	cr_assert_eq(hidden(h, make_swapped, NULL), 0);
	full(h);
	cr_assert_eq(run(h), 1);
	cr_assert_eq(weir_thread_attach(h, &m), 0);
	swap_queued = -1;
	cr_assert_eq(
		weir_finalizer_set(h, slot[0] = node(m, 2), swap_in_it, h, 0),
		0);
	slot[0] = NULL;
	for (int i = 0; i < 5 && swap_queued < 0; i++) {
		full(h);
		run(h);
	}
	cr_assert_eq(swap_queued, 0, "the one that runs is not in the table");
	cr_assert_eq(weir_thread_detach(m), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* What others refer to counts for one that ignores itself: it waits. */
static long make_outer_and_selfish(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)arg;
	for (long i = 0; i < 10; i++) {
		struct node *inner = node(m, 20 + i), *outer = node(m, i);

		outer->a = inner;
		inner->a = inner;
		if (weir_finalizer_set(h, inner, note, NULL,
				       WEIR_FINALIZE_ORDERED |
					       WEIR_FINALIZE_IGNORE_SELF) ||
		    weir_finalizer_set(h, outer, note, NULL,
				       WEIR_FINALIZE_ORDERED |
					       WEIR_FINALIZE_IGNORE_SELF))
			return 1;
	}
	return 0;
}

Test(finalize, ordered_that_ignores_itself_waits_for_others)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_outer_and_selfish, NULL), 0);
	full(h);
	cr_assert_eq(run(h), 10);
	for (int i = 0; i < 10; i++)
		cr_assert_lt(ran[i], 20, "%ld ran before what reaches it",
			     ran[i]);
	full(h);
	cr_assert_eq(run(h), 10);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_mixed(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *u = node(m, 1), *o = node(m, 2), *last = node(m, 3);

	(void)arg;
	u->a = o;
	o->a = last;
	return weir_finalizer_set(h, u, note, NULL, 0) |
	       weir_finalizer_set(h, o, note, NULL, WEIR_FINALIZE_ORDERED) |
	       weir_finalizer_set(h, last, note, NULL, 0);
}

Test(finalize, ordered_waits_for_unordered_that_reaches_it)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_mixed, NULL), 0);
	full(h);
	cr_assert_eq(run(h), 2);
	cr_assert_eq(ran[0] + ran[1], 1 + 3);
	full(h);
	cr_assert_eq(run(h), 1);
	cr_assert_eq(ran[2], 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

#define WIDE 600 /* above the room for slices of large objects */

static long make_wide(weir_heap *h, weir_mutator *m, void *arg)
{
	int err = 0;

	(void)arg;
	for (long i = 0; i < WIDE; i++) {
		struct node *big = weir_alloc(m, 16384);
		struct node *small = node(m, 2 * i + 1);

		must(big);
		big->check = MAGIC + 2ul * (uintptr_t)i;
		big->id = 2 * i;
		/* At its end, so that all of it must be scanned. */
		((struct node **)big)[16384 / 8 - 1] = small;
		err |= weir_finalizer_set(h, big, note, NULL,
					  WEIR_FINALIZE_ORDERED) |
		       weir_finalizer_set(h, small, note, NULL,
					  WEIR_FINALIZE_ORDERED);
	}
	return err;
}

Test(finalize, order_among_many_large_objects)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_wide, NULL), 0);
	full(h);
	cr_assert_eq(run(h), WIDE);
	for (int i = 0; i < 64; i++)
		cr_assert_eq(ran[i] % 2, 0);
	full(h);
	cr_assert_eq(run(h), WIDE);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

#if WEIR_CHECKING
Test(finalize, an_interior_pointer_aborts, .signal = SIGABRT)
{
	weir_heap *h = start(OPTIONS);

	hidden(h, make_kept, NULL);
	weir_finalizer_set(h, (char *)slot[0] + 8, note, NULL, 0);
}
#else
Test(finalize, bad_input_is_refused)
{
	weir_heap *h = start(OPTIONS);
	int local;

	cr_assert_eq(hidden(h, make_kept, NULL), 0);
	cr_assert_eq(weir_finalizer_set(NULL, slot[0], note, NULL, 0), -EINVAL);
	cr_assert_eq(weir_finalizer_set(h, NULL, note, NULL, 0), -EINVAL);
	cr_assert_eq(weir_finalizer_set(h, &local, note, NULL, 0), -EINVAL);
	cr_assert_eq(weir_finalizer_set(h, (char *)slot[0] + 8, note, NULL, 0),
		     -EINVAL);
	cr_assert_eq(weir_finalizer_set(h, slot[0], note, NULL, 4), -EINVAL);
	cr_assert_eq(weir_finalizer_set(h, slot[0], note, NULL,
					WEIR_FINALIZE_IGNORE_SELF),
		     -EINVAL);
	cr_assert(strstr(weir_error_text(), "weir_finalizer_set"));
	cr_assert_eq(weir_finalizers_run(NULL, 0), -EINVAL);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
#endif

/* ---- Races -------------------------------------------------------------- */

#define STRESS_THREADS 3
/* Finalizers that may wait: without a bound a slow machine makes so many that
 * each cycle takes longer than the one before. */
#if defined(__SANITIZE_THREAD__)
#define STRESS_WAITING 20000
#else
#define STRESS_WAITING 1000000
#endif

struct stress {
	weir_heap *heap;           /* the heap */
	atomic_bool stop;          /* enough */
	atomic_long made, removed; /* finalizers */
};

static void once(void *object, void *arg)
{
	struct node *n = object;

	must(n->check == MAGIC + (uintptr_t)n->id);
	must(!n->a || n->a->check == MAGIC + (uintptr_t)n->a->id);
	n->check = 0; /* a second run would see it */
	atomic_fetch_add((atomic_long *)arg, 1);
}

static void *stress_main(void *arg)
{
	struct stress *s = arg;
	uint64_t x = (uintptr_t)&s | 1;
	struct node *kept[8] = {NULL};
	weir_mutator *m;

	must(!weir_thread_attach(s->heap, &m));
	for (long i = 0; !s->stop; i++) {
		struct node *n = node(m, i);
		unsigned flags = x >> 20 & 1;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		n->a = node(m, i + 1);
		must(!weir_finalizer_set(s->heap, n, once, &runs, flags));
		s->made++;
		if (x >> 60 == 0) {
			must(!weir_finalizer_set(s->heap, n, NULL, NULL, 0));
			s->removed++;
		} else if (x >> 60 < 8) {
			/* What the stack holds was not finalized. */
			struct node **k = &kept[x >> 40 & 7];

			must(!*k || (*k)->check == MAGIC + (uintptr_t)(*k)->id);
			*k = n;
		}
		if (i % 512 == 0)
			must(weir_finalizers_run(m, 300) >= 0);
		while (s->made - s->removed - runs > STRESS_WAITING &&
		       !s->stop) {
			must(weir_finalizers_run(m, 300) >= 0);
			weir_safepoint(m);
			sched_yield();
		}
	}
	must(!weir_thread_detach(m));
	return NULL;
}

Test(finalize, races_with_collections, .timeout = 240)
{
	static struct stress s;
	struct timespec begin, now;
	pthread_t t[STRESS_THREADS];
	long cycles = 0;

	s.heap = start("heap-max=1g,verify=on,poison=on,heap-min=4m");
	for (int i = 0; i < STRESS_THREADS; i++)
		pthread_create(&t[i], NULL, stress_main, &s);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		some_cycle(s.heap, cycles++);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - begin.tv_sec < rounds(2) ||
		 (cycles < rounds(20) && now.tv_sec - begin.tv_sec < 50));
	cr_assert_geq(cycles, 7, "not one of each kind");
	s.stop = true;
	for (int i = 0; i < STRESS_THREADS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 3; i++) {
		full(s.heap);
		cr_assert_geq(run(s.heap), 0);
	}
	cr_log_info("%ld cycles, %ld finalizers, %ld of them removed", cycles,
		    s.made, s.removed);
	cr_assert_eq(runs, s.made - s.removed);
	cr_assert_eq(s.heap->weak->fin.table.count, 0);
	cr_assert_eq(weir_heap_destroy(s.heap), 0);
}

/* ---- Cost --------------------------------------------------------------- */

#define MANY 1000000

static long make_many(weir_heap *h, weir_mutator *m, void *arg)
{
	void **all = weir_alloc(m, MANY * sizeof(void *));

	(void)arg;
	slot[0] = (void *)all;
	for (long i = 0; i < MANY; i++) {
		all[i] = weir_alloc_leaf(m, 16);
		if (weir_finalizer_set(h, all[i], note, NULL, 0))
			return -1;
	}
	return 0;
}

Test(finalize, a_million_of_living_objects_cost_the_pause_little)
{
	weir_heap *h = start("heap-max=1g");
	double live_full = 1e9, live_minor = 1e9, live_stopped, dead;

	need_barrier(h);
	cr_assert_eq(hidden(h, make_many, NULL), 0, "%s", weir_error_text());
	minor(h);
	for (int i = 0; i < 3; i++) {
		full(h);
		if ((double)h->weak->pause_ns < live_full)
			live_full = (double)h->weak->pause_ns;
		minor(h);
		if ((double)h->weak->pause_ns < live_minor)
			live_minor = (double)h->weak->pause_ns;
	}
	stopped(h);
	live_stopped = (double)h->weak->pause_ns;
	slot[0] = NULL;
	full(h);
	dead = (double)h->weak->pause_ns;
	fprintf(stderr,
		"weak part of the pause, 1e6 finalizers: live, full cycle %.1f "
		"us, minor %.1f us, one stop %.1f us; all dying at once %.1f "
		"us\n",
		live_full / 1e3, live_minor / 1e3, live_stopped / 1e3,
		dead / 1e3);
	cr_assert_eq(h->weak->fin.queued, MANY);
	/* A walk over all takes milliseconds, as one stop shows. */
	cr_assert_lt(live_full, live_stopped / 4);
	cr_assert_lt(live_minor, live_stopped / 4);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
