/* SPDX-License-Identifier: MIT */
/* Finalizers of the four kinds, when and where they run, what they keep. */
#include "check.h"

#include <stdint.h>

#define N 500

static int ran[N]; /* order in which each was run, from 1 */
static int count;

struct node {
	struct node *next; /* reaches it */
	int id;            /* index */
};

static void finalize(void *object, void *data)
{
	struct node *n = object;

	check((intptr_t)data == n->id + 1000, "the data are passed");
	check(!ran[n->id], "%d ran twice", n->id);
	ran[n->id] = ++count;
}

static struct node *new_node(int id, struct node *next)
{
	struct node *n = GC_malloc(sizeof(*n));

	n->id = id;
	n->next = next;
	return n;
}

static void *data_of(int id)
{
	return (void *)(intptr_t)(id + 1000);
}

static __attribute__((noinline)) void make_lone(void)
{
	for (int i = 0; i < N; i++)
		GC_register_finalizer_no_order(new_node(i, NULL), finalize,
					       data_of(i), NULL, NULL);
}

static void run_once(void)
{
	make_lone();
	collect();
	collect();
	check(count > N * 9 / 10, "%d of %d ran", count, N);
}

static struct node *kept[N];

static void not_while_reachable(void)
{
	for (int i = 0; i < N; i++) {
		kept[i] = new_node(i, NULL);
		GC_register_finalizer(kept[i], finalize, data_of(i), NULL,
				      NULL);
	}
	collect();
	check(count == 0, "%d ran too early", count);
	memset(kept, 0, sizeof(kept));
	collect();
	check(count > N * 9 / 10, "%d of %d ran", count, N);
}

/* Chains of two: i reaches i + N / 2. */
static __attribute__((noinline)) void make_chains(void)
{
	for (int i = 0; i < N / 2; i++) {
		struct node *below = new_node(i + N / 2, NULL);
		struct node *above = new_node(i, below);

		GC_register_finalizer(below, finalize, data_of(i + N / 2), NULL,
				      NULL);
		GC_register_finalizer(above, finalize, data_of(i), NULL, NULL);
	}
}

static void in_order(void)
{
	make_chains();
	for (int i = 0; i < 5; i++)
		collect();
	check(count > N * 9 / 10, "%d of %d ran", count, N);
	for (int i = 0; i < N / 2; i++)
		if (ran[i + N / 2])
			check(ran[i] && ran[i] < ran[i + N / 2],
			      "%d ran before what reaches it", i + N / 2);
}

static __attribute__((noinline)) void make_cycles(int ignore_self)
{
	for (int i = 0; i < N; i++) {
		struct node *n = new_node(i, NULL);

		n->next = n;
		if (ignore_self)
			GC_register_finalizer_ignore_self(
				n, finalize, data_of(i), NULL, NULL);
		else
			GC_register_finalizer(n, finalize, data_of(i), NULL,
					      NULL);
	}
}

static void own_cycles_ignored(void)
{
	make_cycles(1);
	collect();
	collect();
	check(count > N * 9 / 10, "%d of %d ran", count, N);
}

static void own_cycles_never(void)
{
	GC_set_warn_proc(GC_ignore_warn_proc);
	make_cycles(0);
	collect();
	collect();
	check(count == 0, "%d ran", count);
}

static void replaced(void)
{
	struct node *volatile n = new_node(0, NULL);
	GC_finalization_proc old_fn = finalize;
	void *old_data = &old_fn;

	GC_register_finalizer_no_order(n, finalize, data_of(0), &old_fn,
				       &old_data);
	check(!old_fn && !old_data);
	GC_register_finalizer_no_order(n, finalize, data_of(1), &old_fn,
				       &old_data);
	check(old_fn == finalize && old_data == data_of(0));
	GC_register_finalizer_no_order(n, NULL, NULL, &old_fn, &old_data);
	check(old_fn == finalize && old_data == data_of(1));
	n = NULL;
	collect();
	check(count == 0);
}

static char **seen;

static void look(void *object, void *data)
{
	(void)object;
	for (int i = 0; i < 64; i++)
		check(((char *)data)[i] == 0x5a, "the data were freed");
	count++;
	seen = data;
}

static __attribute__((noinline)) void make_with_data(void)
{
	for (int i = 0; i < N; i++) {
		char *data = GC_malloc_atomic(64);

		memset(data, 0x5a, 64);
		GC_register_finalizer_no_order(GC_malloc(32), look, data, NULL,
					       NULL);
	}
}

static void data_are_kept(void)
{
	GC_set_finalize_on_demand(1);
	make_with_data();
	collect();
	for (int i = 0; i < 50000; i++)
		memset(GC_malloc_atomic(64), 0xdd, 64);
	check(count == 0, "on demand only");
	check(GC_should_invoke_finalizers());
	check(GC_invoke_finalizers() > 0);
	check(count > N * 9 / 10, "%d", count);
	check(!GC_should_invoke_finalizers() && !GC_invoke_finalizers());
}

static int told;

static void notify(void)
{
	told++;
}

static void notified(void)
{
	GC_set_finalize_on_demand(1);
	GC_set_finalizer_notifier(notify);
	check(GC_get_finalizer_notifier() == notify);
	make_lone();
	collect();
	for (int i = 0; i < 10000; i++)
		GC_malloc(1000);
	check(told > 0 && count == 0, "%d %d", told, count);
	check(GC_invoke_finalizers() == count && count > N * 9 / 10);
}

static struct node *saved[N];

static void save(void *object, void *data)
{
	struct node *n = object;

	(void)data;
	saved[n->id] = n;
	count++;
}

static __attribute__((noinline)) void make_savers(void)
{
	for (int i = 0; i < N; i++)
		GC_register_finalizer_no_order(
			new_node(i, new_node(i + N, NULL)), save, NULL, NULL,
			NULL);
}

static void brought_back(void)
{
	make_savers();
	collect();
	collect();
	for (int i = 0; i < 100000; i++)
		memset(GC_malloc(16), 0xdd, 16);
	check(count > N * 9 / 10);
	for (int i = 0; i < N; i++)
		if (saved[i])
			check(saved[i]->id == i && saved[i]->next->id == i + N);
}

static void no_object(void)
{
	static struct node n;
	GC_finalization_proc old = finalize;

	GC_register_finalizer(&n, finalize, NULL, &old, NULL);
	collect();
	check(count == 0);
}

/* References with a tag, as ECL's to conses. */
#define TAG 1

static void finalize_tagged(void *object, void *data)
{
	check(((uintptr_t)object & 15) == TAG);
	finalize((char *)object - TAG, data);
}

static __attribute__((noinline)) void *make_tagged(int id)
{
	struct node *n = GC_malloc_atomic(sizeof(*n));

	n->id = id;
	GC_register_finalizer_no_order((char *)n + TAG, finalize_tagged,
				       data_of(id), NULL, NULL);
	return (char *)n + TAG;
}

static void tagged(void)
{
	void *live;

	GC_register_displacement(TAG);
	for (int i = 1; i < N; i++)
		make_tagged(i);
	live = make_tagged(0);
	collect();
	collect();
	check(count > N * 9 / 10 && count < N, "%d of %d ran", count, N);
	check(!ran[0] && ((struct node *)((char *)live - TAG))->id == 0);
}

const struct test finalizer_tests[] = {
	{"finalizers: run once for each object", run_once},
	{"finalizers: not while it is reachable", not_while_reachable},
	{"finalizers: ordered", in_order},
	{"finalizers: an object that points to itself, ignored",
	 own_cycles_ignored},
	{"finalizers: an object that points to itself, never run",
	 own_cycles_never},
	{"finalizers: replaced and taken away", replaced},
	{"finalizers: on demand; their data are kept", data_are_kept},
	{"finalizers: the notifier", notified},
	{"finalizers: an object that is brought back", brought_back},
	{"finalizers: not for what is not in the heap", no_object},
	{"finalizers: of a reference with a tag", tagged},
	{NULL, NULL},
};
