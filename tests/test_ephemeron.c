/* SPDX-License-Identifier: MIT */
/* Ephemerons (gc/ephemeron.c). */
#include "tests/ephemeron.h"
#include "tests/quiet.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static long state_of_0(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)m;
	(void)arg;
	return state(slot[0]->e);
}

static long make(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *key = node(m);

	(void)h;
	slot[0] = node(m);
	slot[0]->e = ephemeron(m, key, node(m));
	if (arg)
		slot[1] = key;
	return state(slot[0]->e);
}

static void kept_then_cleared(const char *options, unsigned flags)
{
	weir_heap *h = start(options);

	cr_assert_eq(hidden(h, make, (void *)1), 2);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(weir_collect(h, flags), 0);
		cr_assert_eq(hidden(h, state_of_0, NULL), 2, "round %d", i);
	}
	slot[1] = NULL;
	full(h);
	cr_assert_eq(hidden(h, state_of_0, NULL), 0);
	slot[0] = NULL;
	full(h);
	full(h);
	cr_assert_eq(h->weak->eph.count, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(ephemeron, kept_with_the_key_then_cleared)
{
	kept_then_cleared(OPTIONS, WEIR_COLLECT_FULL);
}

Test(ephemeron, the_same_in_minor_cycles)
{
	kept_then_cleared(OPTIONS, WEIR_COLLECT_MINOR);
}

Test(ephemeron, the_same_in_one_stop)
{
	kept_then_cleared(OPTIONS, WEIR_COLLECT_STOPPED);
}

Test(ephemeron, the_same_without_a_barrier)
{
	kept_then_cleared(OPTIONS ",barrier=none", WEIR_COLLECT_MINOR);
}

Test(ephemeron, minor_cycles_clear_young_keys)
{
	weir_heap *h = start(OPTIONS);

	full(h);
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(hidden(h, make, NULL), 2);
		minor(h);
		cr_assert_eq(hidden(h, state_of_0, NULL), 0, "round %d", i);
	}
	full(h);
	minor(h);
	cr_assert_leq(h->weak->eph.count, 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Old and young, mixed ------------------------------------------------ */

static long old_parts(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)arg;
	slot[0] = node(m); /* holds the proxy */
	slot[1] = node(m); /* key */
	slot[2] = node(m); /* value */
	return 0;
}

static long join_parts(weir_heap *h, weir_mutator *m, void *arg)
{
	uintptr_t young = (uintptr_t)arg;

	(void)h;
	if (young & 1)
		slot[1] = node(m);
	slot[0]->e = ephemeron(m, slot[1], young & 2 ? node(m) : slot[2]);
	slot[2] = NULL;
	return 0;
}

Test(ephemeron, old_and_young_keys_and_values)
{
	weir_heap *h = start(OPTIONS);

	for (uintptr_t young = 0; young < 4; young++) {
		cr_assert_eq(hidden(h, old_parts, NULL), 0);
		full(h);
		cr_assert_eq(hidden(h, join_parts, (void *)young), 0);
		for (int i = 0; i < 3; i++) {
			minor(h);
			cr_assert_eq(hidden(h, state_of_0, NULL), 2);
		}
		slot[1] = NULL;
		full(h);
		cr_assert_eq(hidden(h, state_of_0, NULL), 0);
	}
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Keys reached through values ---------------------------------------- */

static long make_own(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *key = node(m), *value = node(m);

	(void)h;
	(void)arg;
	value->a = key; /* the key is reachable from its own value */
	slot[0] = node(m);
	slot[0]->e = ephemeron(m, key, value);
	return state(slot[0]->e);
}

Test(ephemeron, a_key_reachable_from_its_own_value_dies)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_own, NULL), 2);
	full(h);
	cr_assert_eq(hidden(h, state_of_0, NULL), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_crossed(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *a = node(m), *b = node(m);

	(void)h;
	slot[0] = node(m);
	slot[0]->e = ephemeron(m, a, b);
	slot[0]->f = ephemeron(m, b, a);
	if (arg)
		slot[1] = b;
	return state(slot[0]->e) + state(slot[0]->f);
}

static long state_of_both(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)m;
	(void)arg;
	return state(slot[0]->e) + state(slot[0]->f);
}

Test(ephemeron, two_that_keep_each_others_key_die)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_crossed, NULL), 4);
	full(h);
	cr_assert_eq(hidden(h, state_of_both, NULL), 0);
	cr_assert_eq(hidden(h, make_crossed, (void *)1), 4);
	full(h);
	cr_assert_eq(hidden(h, state_of_both, NULL), 4);
	slot[1] = NULL;
	full(h);
	cr_assert_eq(hidden(h, state_of_both, NULL), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_interior(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *key = node(m);

	(void)h;
	(void)arg;
	slot[0] = node(m);
	slot[1] = key;
	slot[0]->e = ephemeron(m, &key->b, &node(m)->a);
	slot[0]->f = ephemeron(m, key, NULL);
	return 0;
}

static long check_interior(weir_heap *h, weir_mutator *m, void *arg)
{
	char *value = weir_ephemeron_value(slot[0]->e);

	(void)h;
	(void)m;
	(void)arg;
	return weir_ephemeron_key(slot[0]->e) == &slot[1]->b && value &&
	       intact((void *)(value - offsetof(struct node, a))) &&
	       weir_ephemeron_key(slot[0]->f) == slot[1] &&
	       !weir_ephemeron_value(slot[0]->f);
}

Test(ephemeron, interior_keys_and_values_and_no_value)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, make_interior, NULL), 0);
	full(h);
	cr_assert(hidden(h, check_interior, NULL));
	minor(h);
	cr_assert(hidden(h, check_interior, NULL));
	slot[1] = NULL;
	full(h);
	cr_assert_eq(hidden(h, state_of_both, NULL), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- With finalizers and weak references -------------------------------- */

static long in_finalizer;

static void look(void *object, void *arg)
{
	struct node *n = object;

	(void)arg;
	must(intact(n));
	in_finalizer = state(n->e);
	slot[0] = NULL;
}

static long make_finalized(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *key = node(m), *value = node(m);
	weir_weak **weak = arg;

	/* Only the key's own finalizer leads back to the proxy. */
	key->e = ephemeron(m, key, value);
	return weir_finalizer_set(h, key, look, NULL, 0) |
	       weir_weak_create(h, key, &weak[0]) |
	       weir_weak_create(h, value, &weak[1]);
}

static long run_all(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)arg;
	return weir_finalizers_run(m, 0);
}

Test(ephemeron, a_finalizer_finds_the_values_of_its_object)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak[2];

	cr_assert_eq(hidden(h, make_finalized, weak), 0);
	full(h);
	cr_assert_not(alive(h, weak[0]));
	cr_assert_not(alive(h, weak[1]));
	minor(h);
	cr_assert_eq(hidden(h, run_all, NULL), 1);
	cr_assert_eq(in_finalizer, 2);
	full(h);
	full(h);
	cr_assert_eq(h->weak->eph.count, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_ordered(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *key = node(m), *value = node(m);

	/* The key reaches the value by the ephemeron only. */
	(void)arg;
	key->e = ephemeron(m, key, value);
	value->e = ephemeron(m, value, node(m));
	return weir_finalizer_set(h, key, look, NULL, WEIR_FINALIZE_ORDERED) |
	       weir_finalizer_set(h, value, look, NULL, WEIR_FINALIZE_ORDERED);
}

Test(ephemeron, ordered_finalizers_run_all_the_same)
{
	weir_heap *h = start(OPTIONS);
	long ran = 0;

	cr_assert_eq(hidden(h, make_ordered, NULL), 0);
	for (int i = 0; i < 4; i++) {
		full(h);
		ran += hidden(h, run_all, NULL);
	}
	cr_assert_eq(ran, 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Bad input ---------------------------------------------------------- */

#if WEIR_CHECKING
static long bad_key(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	return weir_ephemeron_create(m, arg, NULL) != NULL;
}

Test(ephemeron, a_foreign_key_aborts, .signal = SIGABRT)
{
	weir_heap *h = start(OPTIONS);
	int local;

	hidden(h, bad_key, &local);
}
#else
static long bad_input(weir_heap *h, weir_mutator *m, void *arg)
{
	struct node *n = node(m);
	int local;

	(void)h;
	(void)arg;
	errno = 0;
	must(!weir_ephemeron_create(NULL, n, n) && errno == EINVAL);
	errno = 0;
	must(!weir_ephemeron_create(m, NULL, n) && errno == EINVAL);
	errno = 0;
	must(!weir_ephemeron_create(m, &local, n) && errno == EINVAL);
	must(strstr(weir_error_text(), "weir_ephemeron_create"));
	errno = 0;
	must(!weir_ephemeron_key((void *)n) && errno == EINVAL);
	errno = 0;
	must(!weir_ephemeron_value((void *)&local) && errno == EINVAL);
	errno = 0;
	must(!weir_ephemeron_key(NULL) && errno == EINVAL);
	return 0;
}

Test(ephemeron, bad_input_is_refused)
{
	weir_heap *h = start(OPTIONS);

	cr_assert_eq(hidden(h, bad_input, NULL), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
#endif

/* ---- Entries come back --------------------------------------------------- */

static long make_garbage(weir_heap *h, weir_mutator *m, void *count)
{
	(void)h;
	for (long i = 0; i < (long)count; i++)
		ephemeron(m, node(m), node(m));
	return 0;
}

Test(ephemeron, entries_of_dead_proxies_are_used_again)
{
	weir_heap *h = start(OPTIONS);
	uint32_t high = 0;

	for (int i = 0; i < 12; i++) {
		cr_assert_eq(hidden(h, make_garbage, (void *)20000), 0);
		i % 2 ? minor(h) : full(h);
		/* The next cycle starts after this one's reaping. */
		minor(h);
		if (i == 2)
			high = h->weak->eph.high;
	}
	cr_assert_leq(h->weak->eph.high, high + 2000);
	cr_assert_lt(h->weak->eph.count, 2000);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(ephemeron, a_child_of_fork_goes_on)
{
	weir_heap *h = start(OPTIONS);
	int status;
	pid_t pid;

	cr_assert_eq(hidden(h, make, (void *)1), 2);
	full(h);
	quiet_before_fork();
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		bool ok;

		alarm(60);
		minor(h);
		full(h);
		ok = hidden(h, state_of_0, NULL) == 2;
		slot[1] = NULL;
		full(h);
		ok = ok && hidden(h, state_of_0, NULL) == 0;
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
	full(h);
	cr_assert_eq(hidden(h, state_of_0, NULL), 2);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
