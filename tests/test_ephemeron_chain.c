/* SPDX-License-Identifier: MIT */
/* Ephemerons: long chains, and races (gc/ephemeron.c). */
#include "tests/ephemeron.h"

#include <stdatomic.h>
#include <time.h>

/* ---- Chains -------------------------------------------------------------- */

/*
 * n ephemerons: the value of each is the key of the one made before it, the
 * table that holds the proxies is in the order of their making, and the root
 * is the key of the last made.  A collector that goes over its table until
 * nothing changes needs n passes.
 */
struct chain {
	long n;        /* length */
	bool in_value; /* each proxy is known only to the value before it */
};

static long make_chain(weir_heap *h, weir_mutator *m, void *arg)
{
	const struct chain *c = arg;
	void **table = weir_alloc(m, (size_t)c->n * sizeof(void *));
	struct node *next = node(m);

	(void)h;
	must(table);
	for (long i = 0; i < c->n; i++) {
		struct node *key = node(m);
		weir_ephemeron *e = ephemeron(m, key, next);

		if (c->in_value)
			key->e = e;
		else
			table[i] = e;
		next = key;
	}
	slot[0] = (void *)table;
	slot[1] = next;
	return 0;
}

static long chain_length(weir_heap *h, weir_mutator *m, void *arg)
{
	const struct chain *c = arg;
	void **table = (void **)slot[0];
	long whole = 0;

	(void)h;
	(void)m;
	if (c->in_value) {
		for (struct node *n = slot[1]; n && n->e;
		     n = weir_ephemeron_value(n->e))
			whole += state(n->e) == 2;
		return whole;
	}
	for (long i = 0; i < c->n; i++)
		whole += state(table[i]) == 2;
	return whole;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Processor time of the collector, so that what else the machine does is not
 * counted. */
static double collector_seconds(weir_heap *h)
{
	struct weir_stats s = {.size = sizeof(s)};

	cr_assert_eq(weir_heap_stats(h, &s), 0);
	return (double)s.collector_cpu_ns / 1e9;
}

/* What a cycle with a chain of n takes. */
static double chain_time(weir_heap *h, long n, bool in_value, unsigned flags)
{
	struct chain c = {.n = n, .in_value = in_value};
	double begin, t;

	cr_assert_eq(hidden(h, make_chain, &c), 0);
	full(h);
	minor(h);
	begin = collector_seconds(h);
	/* The second, a short one, begins when the first has ended. */
	cr_assert_eq(weir_collect(h, flags), 0);
	minor(h);
	t = collector_seconds(h) - begin;
	cr_assert_eq(hidden(h, chain_length, &c), n);
	slot[1] = NULL;
	full(h);
	if (!in_value)
		cr_assert_eq(hidden(h, chain_length, &c), 0);
	slot[0] = NULL;
	full(h);
	return t;
}

/* Less under the sanitizers, which take up to ten times as long: there the test
 * is for what they find. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define PAIRS 3
#define CHAIN 10000
#else
#define PAIRS 9
#define CHAIN 100000
#endif

/* Median, over pairs measured in turn, of time(2n) / time(n). */
static double chain_ratio(const char *what, long n, bool in_value,
			  unsigned flags)
{
	weir_heap *h = start("heap-max=1g,markers=2,pause-markers=2");
	double r[PAIRS], one = 0, two = 0;

	for (int i = 0; i < PAIRS; i++) {
		double a = chain_time(h, n, in_value, flags);
		double b = chain_time(h, 2 * n, in_value, flags);

		r[i] = b / a;
		one += a / PAIRS;
		two += b / PAIRS;
	}
	qsort(r, PAIRS, sizeof(r[0]), by_value);
	fprintf(stderr,
		"chain of ephemerons, %s: %ld %.1f ms, %ld %.1f ms, ratio %.2f "
		"(%.2f to %.2f)\n",
		what, n, one * 1e3, 2 * n, two * 1e3, r[PAIRS / 2], r[0],
		r[PAIRS - 1]);
	cr_assert_eq(weir_heap_destroy(h), 0);
	return r[PAIRS / 2];
}

static void linear(const char *what, bool in_value, unsigned flags)
{
	cr_assert_lt(chain_ratio(what, CHAIN, in_value, flags), 3);
}

Test(ephemeron_chain, a_chain_takes_linear_time)
{
	linear("full cycle", false, WEIR_COLLECT_FULL);
}

Test(ephemeron_chain, a_chain_takes_linear_time_in_one_stop)
{
	linear("one stop", false, WEIR_COLLECT_STOPPED);
}

Test(ephemeron_chain, a_chain_through_values_takes_linear_time)
{
	linear("proxies in values", true, WEIR_COLLECT_FULL);
}

/* A mark stack that overflows marks keys without looking them up. */
Test(ephemeron_chain, a_chain_survives_mark_stack_overflow)
{
	weir_heap *h = start(OPTIONS ",mark-stack-max=1m");
	struct chain c = {.n = 3000};

	cr_assert_eq(hidden(h, make_chain, &c), 0);
	full(h);
	stopped(h);
	cr_assert_eq(hidden(h, chain_length, &c), c.n);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Races --------------------------------------------------------------- */

#define STRESS_THREADS 3
#define TABLE 512

struct stress {
	weir_heap *heap;           /* the heap */
	atomic_bool stop;          /* enough */
	atomic_long kept, cleared; /* seen */
};

/* A weak table: proxies here, some of the keys there. */
static void *stress_main(void *arg)
{
	struct stress *s = arg;
	uint64_t x = (uintptr_t)&s | 1;
	weir_mutator *m;
	void **proxy;
	struct node **key;

	must(!weir_thread_attach(s->heap, &m));
	proxy = weir_alloc(m, TABLE * sizeof(void *));
	key = weir_alloc(m, TABLE * sizeof(void *));
	must(proxy && key);
	while (!s->stop) {
		long i, k;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		i = (long)(x >> 33 & (TABLE - 1));
		k = (long)(x >> 43 & (TABLE - 1));
		switch (x >> 61) {
		case 0: { /* a key, perhaps reachable from its value */
			struct node *n = node(m), *v = node(m);

			v->a = x >> 60 & 1 ? n : NULL;
			key[i] = n;
			proxy[i] = ephemeron(m, n, v);
			break;
		}
		case 1: /* the value leads to another entry and its key */
			if (key[i]) {
				struct node *v = node(m), *n = key[i];

				v->a = key[k];
				v->e = proxy[k];
				key[k] = NULL;
				proxy[i] = ephemeron(m, n, v);
			}
			break;
		case 2: /* the key goes */
			key[i] = NULL;
			break;
		default:
			if (!proxy[i])
				break;
			switch (state(proxy[i])) {
			case 0:
				/* Never, while the key is held. */
				must(!key[i]);
				s->cleared++;
				break;
			case 2: {
				struct node *v = weir_ephemeron_value(proxy[i]);

				must(v && intact(v));
				must(!v->a || intact(v->a));
				s->kept++;
				break;
			}
			default:
				/* Cleared between the two looks, but then the
				 * key was not held. */
				must(!weir_ephemeron_key(proxy[i]) &&
				     !weir_ephemeron_value(proxy[i]));
			}
		}
	}
	must(!weir_thread_detach(m));
	return NULL;
}

static void stress(const char *options)
{
	static struct stress s;
	pthread_t t[STRESS_THREADS];
	long cycles;

	s.heap = hidden_heap(options);
	for (int i = 0; i < STRESS_THREADS; i++)
		pthread_create(&t[i], NULL, stress_main, &s);
	cycles = many_cycles(s.heap);
	s.stop = true;
	for (int i = 0; i < STRESS_THREADS; i++)
		pthread_join(t[i], NULL);
	cr_log_info("%ld cycles, %ld seen kept, %ld cleared", cycles, s.kept,
		    s.cleared);
	cr_assert_gt(s.kept, 100);
	cr_assert_gt(s.cleared, 100);
	full(s.heap);
	full(s.heap);
	cr_assert_eq(s.heap->weak->eph.count, 0);
	cr_assert_eq(weir_heap_destroy(s.heap), 0);
}

Test(ephemeron_chain, races_with_collections, .timeout = 240)
{
	stress(RACE_HEAP ",verify=on,poison=on,heap-min=4m,markers=2");
}

Test(ephemeron_chain, races_with_collections_delayed, .timeout = 240)
{
	stress(RACE_HEAP ",verify=on,poison=on,heap-min=4m,delay=200");
}
