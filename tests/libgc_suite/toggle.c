/* SPDX-License-Identifier: MIT */
/* Toggle references: strong, weak, dropped, as the program says. */
#include "check.h"

#include <pthread.h>
#include <stdint.h>

#define N 200

/* What the program has of each object, outside of the heap. */
static GC_ToggleRefStatus wanted[N];
static int asked[N];        /* calls of the callback */
static uintptr_t hidden[N]; /* ~object */
static void *root[N];

struct object {
	int *leaf;   /* reached by it */
	int id;      /* index */
	int unused;  /* 0 */
	void *other; /* 0 */
};

static GC_ToggleRefStatus GC_CALLBACK decide(void *p)
{
	struct object *o = p;

	check(o->id >= 0 && o->id < N && *o->leaf == o->id,
	      "the object is whole");
	asked[o->id]++;
	return wanted[o->id];
}

static __attribute__((noinline)) void make(GC_ToggleRefStatus w, int strong)
{
	for (int i = 0; i < N; i++) {
		struct object *o = GC_malloc(sizeof(*o));

		o->leaf = GC_malloc_atomic(sizeof(int));
		*o->leaf = o->id = i;
		hidden[i] = ~(uintptr_t)o;
		wanted[i] = w;
		check(GC_toggleref_add(o, strong) == GC_SUCCESS);
		check(!root[i]);
	}
}

static struct {
	GC_ToggleRefStatus wanted;
	int strong;
} order;

static void *maker(void *arg)
{
	make(order.wanted, order.strong);
	scrub();
	return arg;
}

/* On a thread of its own, whose stack is gone. */
static void made(GC_ToggleRefStatus w, int strong)
{
	pthread_t t;

	order.wanted = w;
	order.strong = strong;
	GC_set_toggleref_func(decide);
	check(GC_get_toggleref_func() == decide);
	check(!GC_pthread_create(&t, NULL, maker, NULL));
	check(!GC_pthread_join(t, NULL));
}

static int asked_now(void)
{
	int n = 0;

	memset(asked, 0, sizeof(asked));
	GC_gcollect();
	for (int i = 0; i < N; i++)
		n += asked[i] != 0;
	return n;
}

/* What is free is overwritten. */
static void churn(void)
{
	for (int i = 0; i < 20000; i++) {
		memset(GC_malloc_atomic(sizeof(struct object)), 0xdd,
		       sizeof(struct object));
		memset(GC_malloc_atomic(sizeof(int)), 0xdd, sizeof(int));
	}
}

static void strong_ones_live(void)
{
	made(GC_TOGGLE_REF_STRONG, 1);
	for (int i = 0; i < 5; i++) {
		collect();
		churn();
	}
	check(asked_now() == N, "%d of %d", asked_now(), N);
}

static void weak_ones_die(void)
{
	made(GC_TOGGLE_REF_WEAK, 0);
	collect();
	churn();
	check(asked_now() < N / 10, "%d of %d", asked_now(), N);
}

static void weak_ones_live_while_referred_to(void)
{
	made(GC_TOGGLE_REF_STRONG, 0);
	GC_gcollect();
	for (int i = 0; i < N; i++) {
		root[i] = (void *)~hidden[i];
		wanted[i] = GC_TOGGLE_REF_WEAK;
	}
	collect();
	churn();
	check(asked_now() == N, "%d of %d", asked_now(), N);
	/* And are strong again. */
	for (int i = 0; i < N; i++)
		wanted[i] = GC_TOGGLE_REF_STRONG;
	GC_gcollect();
	memset(root, 0, sizeof(root));
	collect();
	churn();
	check(asked_now() == N, "%d of %d", asked_now(), N);
}

static void strong_ones_turn_weak(void)
{
	made(GC_TOGGLE_REF_STRONG, 1);
	collect();
	check(asked_now() == N);
	for (int i = 0; i < N; i += 2)
		wanted[i] = GC_TOGGLE_REF_WEAK;
	collect();
	churn();
	check(asked_now() < N * 6 / 10, "%d of %d", asked_now(), N);
	for (int i = 1; i < N; i += 2)
		check(asked[i], "%d was strong", i);
}

static void dropped(void)
{
	made(GC_TOGGLE_REF_DROP, 1);
	check(asked_now() > 0);
	check(asked_now() == 0, "%d", asked_now());
	collect();
	/* And their entries are used again. */
	made(GC_TOGGLE_REF_STRONG, 0);
	collect();
	churn();
	check(asked_now() == N);
}

/* Finalizers see an object whose weak reference is there yet. */
static int finalized;

static void GC_CALLBACK finalize(void *p, void *data)
{
	struct object *o = p;

	(void)data;
	check(*o->leaf == o->id);
	finalized++;
}

static __attribute__((noinline)) void add_finalizers(void)
{
	for (int i = 0; i < N; i++)
		GC_register_finalizer_no_order((void *)~hidden[i], finalize,
					       NULL, NULL, NULL);
}

static void finalized_first(void)
{
	made(GC_TOGGLE_REF_STRONG, 1);
	add_finalizers();
	collect();
	check(finalized == 0);
	for (int i = 0; i < N; i++)
		wanted[i] = GC_TOGGLE_REF_WEAK;
	collect();
	collect();
	check(finalized > N * 9 / 10, "%d of %d", finalized, N);
	churn();
	check(asked_now() < N / 10, "%d of %d", asked_now(), N);
}

static void without_callback(void)
{
	void *volatile p = GC_malloc(32);

	check(GC_get_toggleref_func() == NULL);
	check(GC_toggleref_add(p, 1) == GC_SUCCESS);
	GC_set_toggleref_func(decide);
	check(asked_now() == 0);
}

/* Threads that make them while collections come by themselves. */
#define OWN 3000

static GC_ToggleRefStatus GC_CALLBACK by_object(void *p)
{
	uintptr_t *o = p;
	uintptr_t v = __atomic_load_n(&o[0], __ATOMIC_RELAXED);

	check(v >= 1 && v <= 3, "the object is whole: %#lx", (long)v);
	return v == 1   ? GC_TOGGLE_REF_STRONG
	       : v == 2 ? GC_TOGGLE_REF_WEAK
			: GC_TOGGLE_REF_DROP;
}

static void *makes_many(void *arg)
{
	uintptr_t *mine = malloc(OWN * sizeof(*mine)); /* hidden */

	check(mine);
	for (int i = 0; i < OWN; i++) {
		uintptr_t *o = GC_malloc_atomic(64);

		o[0] = 1;
		o[1] = (uintptr_t)i;
		check(GC_toggleref_add(o, i % 2) == GC_SUCCESS);
		mine[i] = ~(uintptr_t)o;
		for (int k = 0; k < 50; k++)
			memset(GC_malloc_atomic(64), 0xdd, 64);
		/* The strong one of a while ago is there, nobody else has it.
		 */
		if (i >= 100) {
			o = (uintptr_t *)~mine[i - 100];
			check(o[0] == 1 && o[1] == (uintptr_t)i - 100);
			__atomic_store_n(&o[0], i % 3 ? 2 : 3,
					 __ATOMIC_RELAXED);
		}
		if (i % 500 == 0)
			GC_gcollect();
	}
	free(mine);
	return arg;
}

static void beside_threads(void)
{
	pthread_t t[3];

	GC_set_toggleref_func(by_object);
	for (int i = 0; i < 3; i++)
		check(!GC_pthread_create(&t[i], NULL, makes_many, NULL));
	for (int i = 0; i < 3; i++)
		check(!GC_pthread_join(t[i], NULL));
}

const struct test toggle_tests[] = {
	{"toggle references: strong ones keep", strong_ones_live},
	{"toggle references: weak ones do not", weak_ones_die},
	{"toggle references: a weak one stays while something else keeps it",
	 weak_ones_live_while_referred_to},
	{"toggle references: strong ones turn weak", strong_ones_turn_weak},
	{"toggle references: dropped ones are not asked of again", dropped},
	{"toggle references: finalizers come first", finalized_first},
	{"toggle references: none without a callback", without_callback},
	{"toggle references: beside threads", beside_threads},
	{NULL, NULL},
};
