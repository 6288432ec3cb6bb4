/* SPDX-License-Identifier: MIT */
/* What the last pause found alive (gc/walk.c): one object, or all. */
#define _GNU_SOURCE
#include "tests/hidden.h"

#include <unistd.h>

#include <weir/embed.h>

#include "gc/heap.h"

#define N 600
#define OPTIONS "heap-max=256m,verify=on,poison=on"
#define TAG 0x7a67000000000000ul

static uintptr_t *root[N];
static uintptr_t hide[N]; /* ~object */
static unsigned seen[N];  /* times */
static long others;       /* objects that are none of these */

static size_t size_of(long i)
{
	return i % 50 == 7 ? 100000 : 16 + (size_t)i * 3;
}

static long make(weir_heap *h, weir_mutator *m, void *every)
{
	(void)h;
	for (long i = 0; i < N; i++) {
		uintptr_t *p = i % 3 ? weir_alloc(m, size_of(i))
				     : weir_alloc_leaf(m, size_of(i));

		must(p);
		p[0] = TAG + (uintptr_t)i;
		hide[i] = ~(uintptr_t)p;
		root[i] = i % (long)every ? NULL : p;
	}
	return 0;
}

static weir_heap *open_heap(const char *options)
{
	weir_heap *h = hidden_heap(options);

	memset(root, 0, sizeof(root));
	cr_assert_eq(weir_root_add(h, root, sizeof(root)), 0);
	return h;
}

static void look(void *object, size_t size, void *arg)
{
	uintptr_t i = *(uintptr_t *)object - TAG;

	must(arg == &others && size >= 16);
	must(weir_object_size(wg_heap, object) == size);
	must(weir_object_marked(wg_heap, object) == 1);
	if (i < N) {
		must(hide[i] == ~(uintptr_t)object && size >= size_of((long)i));
		seen[i]++;
	} else {
		others++;
	}
}

static void *walk(void *h)
{
	memset(seen, 0, sizeof(seen));
	others = 0;
	return weir_object_each(h, look, &others) ? NULL : h;
}

static long walk_attached(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)m;
	(void)arg;
	return weir_locked_call(h, walk, h) == h;
}

static void those_with_roots(weir_heap *h, long every)
{
	for (int attached = 0; attached < 2; attached++) {
		if (attached)
			cr_assert(hidden(h, walk_attached, NULL));
		else
			cr_assert_eq(weir_locked_call(h, walk, h), h);
		for (long i = 0; i < N; i++)
			cr_assert_eq(seen[i], i % every == 0, "%ld: %u", i,
				     seen[i]);
		cr_assert_eq(others, 0);
	}
}

static void each(const char *options, void (*collect)(weir_heap *))
{
	weir_heap *h = open_heap(options);

	hidden(h, make, (void *)2);
	/* None is marked yet. */
	cr_assert_eq(weir_locked_call(h, walk, h), h);
	for (long i = 0; i < N; i++)
		cr_assert_eq(seen[i], 0);
	collect(h);
	those_with_roots(h, 2);
	collect(h);
	those_with_roots(h, 2);
	for (long i = 0; i < N; i++)
		if (i % 4)
			root[i] = NULL;
	full(h);
	those_with_roots(h, 4);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(walk, each_object_once)
{
	each(OPTIONS, full);
}

Test(walk, after_minor_cycles)
{
	each(OPTIONS, minor);
}

Test(walk, after_stopped_cycles)
{
	each(OPTIONS, stopped);
}

static int stay(void *object, void *arg)
{
	(void)object;
	(void)arg;
	return 0;
}

static long make_disclaiming(weir_heap *h, weir_mutator *m, void *kind)
{
	(void)h;
	must(weir_alloc_kind(m, 64, *(weir_kind *)kind));
	return 0;
}

static long ask(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)arg;
	return weir_disclaim_run(m, 0);
}

Test(walk, not_what_was_asked_and_goes)
{
	weir_heap *h = open_heap(OPTIONS);
	weir_kind kind;

	cr_assert_eq(weir_kind_disclaim(h, 0, stay, NULL, 0, &kind), 0);
	hidden(h, make_disclaiming, &kind);
	full(h);
	cr_assert_eq(weir_locked_call(h, walk, h), h);
	cr_assert_eq(others, 1);
	cr_assert_eq(hidden(h, ask, NULL), 1);
	cr_assert_eq(weir_locked_call(h, walk, h), h);
	cr_assert_eq(others, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Beside cycles --------------------------------------------------------
 */

static bool over; /* atomic */

static void *churns(void *h)
{
	weir_mutator *m;

	must(!weir_thread_attach(h, &m));
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		for (int i = 0; i < 100; i++)
			must(weir_alloc(m, 48));
		weir_safepoint(m);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

static void *collects(void *h)
{
	for (int i = 0; !__atomic_load_n(&over, __ATOMIC_RELAXED); i++)
		i % 3 ? minor(h) : full(h);
	return NULL;
}

static void beside(const char *options)
{
	weir_heap *h = open_heap(options);
	pthread_t t[2];

	hidden(h, make, (void *)2);
	full(h);
	pthread_create(&t[0], NULL, churns, h);
	pthread_create(&t[1], NULL, collects, h);
	for (int k = 0; k < rounds(RACE_CYCLES / 2); k++) {
		if (k % 2)
			cr_assert(hidden(h, walk_attached, NULL));
		else
			cr_assert_eq(weir_locked_call(h, walk, h), h);
		for (long i = 0; i < N; i++)
			cr_assert_eq(seen[i], i % 2 == 0);
		usleep(3000);
	}
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(walk, beside_cycles, .timeout = 240)
{
	beside(RACE_HEAP ",heap-min=2m,poison=on");
}

Test(walk, beside_cycles_with_delays, .timeout = 240)
{
	beside(RACE_HEAP ",heap-min=2m,poison=on,delay=500,born-black=on");
}

Test(walk, beside_cycles_at_safepoints, .timeout = 240)
{
	beside(RACE_HEAP ",heap-min=2m,poison=on,stop=safepoints");
}

/* ---- One object -----------------------------------------------------------
 */

static void *marked(void *p)
{
	return weir_object_marked(wg_heap, p) == 1 ? p : NULL;
}

static int in_pause; /* atomic: answers that were wrong */

static void push(weir_visitor *v, void *arg)
{
	int before, after;

	(void)arg;
	before = weir_object_marked(wg_heap, (void *)~hide[1]);
	weir_visit(v, (void *)~hide[1]);
	/* What is visited is marked later. */
	after = weir_object_marked(wg_heap, (void *)~hide[1]);
	if (before < 0 || after < 0)
		__atomic_add_fetch(&in_pause, 1, __ATOMIC_RELAXED);
}

Test(walk, one_object)
{
	weir_heap *h = open_heap(OPTIONS);

	hidden(h, make, (void *)2);
	cr_assert_null(weir_locked_call(h, marked, (void *)~hide[2]));
	minor(h);
	cr_assert_not_null(weir_locked_call(h, marked, (void *)~hide[2]));
	cr_assert_not_null(
		weir_locked_call(h, marked, (char *)~hide[57 + 51] + 9));
	cr_assert_null(weir_locked_call(h, marked, (void *)~hide[1]));
	cr_assert_null(weir_locked_call(h, marked, &h));
	cr_assert_null(weir_locked_call(h, marked, NULL));
#if !WEIR_CHECKING
	cr_assert_eq(weir_object_marked(h, (void *)~hide[2]), -EINVAL);
	cr_assert_eq(weir_object_each(h, look, NULL), -EINVAL);
#endif
	/* A callback in the pause needs no lock. */
	hidden(h, make, (void *)2);
	cr_assert_eq(weir_root_add_callback(h, push, NULL, 0), 0);
	full(h);
	cr_assert_eq(in_pause, 0);
	cr_assert_not_null(weir_locked_call(h, marked, (void *)~hide[1]));
	cr_assert_eq(weir_heap_destroy(h), 0);
}
