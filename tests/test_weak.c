/* SPDX-License-Identifier: MIT */
/* Weak references (gc/weak_ref.c, gc/weak_tables.c). */
#include "tests/hidden.h"
#include "tests/quiet.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gc/weak_tables.h"

#define OPTIONS "heap-max=256m,verify=on,poison=on"
#define SLOTS 64

/* Roots of the tests. */
static void *slot[SLOTS];

static weir_heap *start(const char *options)
{
	weir_heap *h = hidden_heap(options);

	memset(slot, 0, sizeof(slot));
	cr_assert_eq(weir_root_add(h, slot, sizeof(slot)), 0);
	return h;
}

struct made {
	weir_weak *weak; /* to the object */
	int slot;        /* where it is rooted, -1: nowhere */
};

static long make(weir_heap *h, weir_mutator *m, void *arg)
{
	struct made *d = arg;
	void *p = weir_alloc(m, 48);

	if (d->slot >= 0)
		slot[d->slot] = p;
	return weir_weak_create(h, p, &d->weak);
}

static weir_weak *weak_at(weir_heap *h, int where)
{
	struct made d = {.slot = where};

	cr_assert_eq(hidden(h, make, &d), 0, "%s", weir_error_text());
	return d.weak;
}

Test(weak, cleared_when_unreachable_kept_while_reachable)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *dead = weak_at(h, -1), *kept = weak_at(h, 0);

	cr_assert(alive(h, kept));
	full(h);
	cr_assert_not(alive(h, dead));
	cr_assert(alive(h, kept));
	cr_assert(hidden(h, hidden_get, kept));
	slot[0] = NULL;
	full(h);
	cr_assert_not(alive(h, kept));
	weir_weak_destroy(dead);
	weir_weak_destroy(kept);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(weak, the_same_in_one_stop)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *dead = weak_at(h, -1), *kept = weak_at(h, 0);

	stopped(h);
	cr_assert_not(alive(h, dead));
	cr_assert(alive(h, kept));
	slot[0] = NULL;
	stopped(h);
	cr_assert_not(alive(h, kept));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(weak, the_same_without_a_barrier)
{
	weir_heap *h = start(OPTIONS ",barrier=none");
	weir_weak *dead = weak_at(h, -1), *kept = weak_at(h, 0);

	minor(h);
	cr_assert_not(alive(h, dead));
	cr_assert(alive(h, kept));
	full(h);
	cr_assert(alive(h, kept));
	slot[0] = NULL;
	full(h);
	cr_assert_not(alive(h, kept));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_interior(weir_heap *h, weir_mutator *m, void *arg)
{
	char *p = weir_alloc(m, 400);
	weir_weak **weak = arg;
	int err = weir_weak_create(h, p + 133, weak);

	slot[0] = p;
	return err ? err : weir_weak_get(*weak) == p + 133;
}

static long still_interior(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)m;
	return weir_weak_get(arg) == (char *)slot[0] + 133;
}

Test(weak, interior_targets_come_back_as_given)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak;

	cr_assert_eq(hidden(h, make_interior, &weak), 1);
	full(h);
	cr_assert(hidden(h, still_interior, weak));
	minor(h);
	cr_assert(hidden(h, still_interior, weak));
	slot[0] = NULL;
	full(h);
	cr_assert_not(alive(h, weak));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_large(weir_heap *h, weir_mutator *m, void *arg)
{
	char *p = weir_alloc_leaf(m, 300000);
	weir_weak **weak = arg;

	return weir_weak_create(h, p + 200001, weak);
}

Test(weak, large_objects)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak;

	cr_assert_eq(hidden(h, make_large, &weak), 0);
	cr_assert(alive(h, weak));
	full(h);
	cr_assert_not(alive(h, weak));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Minor cycles ------------------------------------------------------- */

Test(weak, minor_cycles_clear_young_targets)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *old = weak_at(h, 0), *young;

	full(h);
	for (int i = 0; i < 5; i++) {
		young = weak_at(h, -1);
		minor(h);
		cr_assert_not(alive(h, young), "round %d", i);
		cr_assert(alive(h, old), "round %d", i);
		weir_weak_destroy(young);
	}
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long make_below(weir_heap *h, weir_mutator *m, void *arg)
{
	void *p = weir_alloc(m, 32);
	int err = weir_weak_create(h, p, arg);

	/* The only reference is in an old object. */
	((void **)slot[0])[1] = p;
	return err;
}

Test(weak, young_target_of_an_old_object_survives_minor_cycles)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak, *old = weak_at(h, 0);

	full(h);
	cr_assert_eq(hidden(h, make_below, &weak), 0);
	for (int i = 0; i < 4; i++) {
		minor(h);
		cr_assert(alive(h, weak), "round %d", i);
	}
	slot[0] = NULL;
	full(h);
	cr_assert_not(alive(h, weak));
	cr_assert_not(alive(h, old));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static long aim(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)h;
	(void)m;
	return weir_weak_set(arg, slot[1]);
}

Test(weak, set_aims_at_another_object)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak = weak_at(h, -1), *other = weak_at(h, 1);

	cr_assert_eq(hidden(h, aim, weak), 0);
	full(h);
	cr_assert(alive(h, weak));
	cr_assert_eq(weir_weak_set(weak, NULL), 0);
	cr_assert_not(alive(h, weak));
	/* To an object that is old, and dies. */
	cr_assert_eq(hidden(h, aim, weak), 0);
	minor(h);
	cr_assert(alive(h, weak));
	slot[1] = NULL;
	full(h);
	cr_assert_not(alive(h, weak));
	cr_assert_not(alive(h, other));
	/* A cleared reference can be aimed again. */
	weir_weak_destroy(other);
	other = weak_at(h, 1);
	cr_assert_eq(hidden(h, aim, weak), 0);
	minor(h);
	cr_assert(alive(h, weak));
	slot[1] = NULL;
	full(h);
	cr_assert_not(alive(h, weak));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Bad input ---------------------------------------------------------- */

#if WEIR_CHECKING
Test(weak, a_stale_handle_aborts, .signal = SIGABRT)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak = weak_at(h, 0);

	weir_weak_destroy(weak);
	weir_weak_set(weak, NULL);
}

Test(weak, a_foreign_target_aborts, .signal = SIGABRT)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak;
	int local;

	weir_weak_create(h, &local, &weak);
}
#else
Test(weak, bad_input_is_refused)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *weak, *good = weak_at(h, 0);
	int local;

	cr_assert_eq(weir_weak_create(h, &local, &weak), -EINVAL);
	cr_assert(strstr(weir_error_text(), "weir_weak_create"));
	cr_assert_eq(weir_weak_create(h, NULL, &weak), -EINVAL);
	cr_assert_eq(weir_weak_create(NULL, &local, &weak), -EINVAL);
	cr_assert_eq(weir_weak_create(h, slot[0], NULL), -EINVAL);
	cr_assert_eq(weir_weak_set(NULL, NULL), -EINVAL);
	cr_assert_eq(weir_weak_set((weir_weak *)&local, NULL), -EINVAL);
	cr_assert_eq(weir_weak_set(good, &local), -EINVAL);
	errno = 0;
	cr_assert_null(weir_weak_get(NULL));
	cr_assert_eq(errno, EINVAL);
	weir_weak_destroy(NULL);
	weir_weak_destroy(good);
	cr_assert_eq(weir_weak_set(good, NULL), -EINVAL);
	errno = 0;
	cr_assert_null(weir_weak_get(good));
	cr_assert_eq(errno, EINVAL);
	/* What was refused broke nothing. */
	good = weak_at(h, 0);
	full(h);
	cr_assert(alive(h, good));
	cr_assert_eq(weir_heap_destroy(h), 0);
	cr_assert_null(weir_weak_get(good));
}
#endif

/* ---- Races -------------------------------------------------------------- */

#define SHARED 256
#define STRESS_THREADS 3

struct stress {
	weir_heap *heap;                   /* the heap */
	_Atomic(weir_weak *) weak[SHARED]; /* aimed by everybody */
	atomic_bool stop;                  /* enough */
	atomic_long found, cleared;        /* by get */
};

struct node {
	uintptr_t check; /* address ^ MAGIC */
	struct node *next;
	uintptr_t pad[3];
};
#define MAGIC 0x5ca1ab1e0ddba11ul

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static struct node *new_node(weir_mutator *m)
{
	struct node *n = weir_alloc(m, sizeof(*n));

	must(n);
	n->check = (uintptr_t)n ^ MAGIC;
	return n;
}

static void intact(const struct node *n)
{
	must(n->check == ((uintptr_t)n ^ MAGIC));
}

/* Several threads may do it at once. */
static void link_to(struct node *n, struct node *next)
{
	__atomic_store_n(&n->next, next, __ATOMIC_RELAXED);
}

static void *stress_main(void *arg)
{
	struct stress *s = arg;
	uint64_t seed = (uintptr_t)&seed | 1;
	struct node *keep[16] = {NULL};
	weir_mutator *m;

	must(weir_thread_attach(s->heap, &m) == 0);
	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		uint64_t r = rnd(&seed);
		weir_weak *w = s->weak[(r >> 8) % SHARED];
		struct node *n;

		switch (r % 8) {
		case 0: /* a new object that only the reference knows */
			must(weir_weak_set(w, new_node(m)) == 0);
			break;
		case 1: /* one that is also kept for a while */
			n = keep[(r >> 32) % 16] = new_node(m);
			must(weir_weak_set(w, n) == 0);
			break;
		case 2: { /* a reference of one's own, short-lived */
			weir_weak *own;

			n = new_node(m);
			must(weir_weak_create(s->heap, n, &own) == 0);
			intact(weir_weak_get(own));
			must(weir_weak_get(own) == n);
			weir_weak_destroy(own);
			break;
		}
		default: /* what is found must be alive; link it */
			n = weir_weak_get(w);
			if (n) {
				intact(n);
				link_to(n, keep[(r >> 40) % 16]);
				if (r >> 60 == 0)
					keep[(r >> 32) % 16] = n;
				atomic_fetch_add(&s->found, 1);
			} else {
				atomic_fetch_add(&s->cleared, 1);
			}
		}
		/* Long chains would keep all alive. */
		if ((r >> 50) % 64 == 0)
			for (int i = 0; i < 16; i++)
				if (keep[i])
					link_to(keep[i], NULL);
	}
	for (int i = 0; i < 16; i++)
		if (keep[i])
			intact(keep[i]);
	must(weir_thread_detach(m) == 0);
	return NULL;
}

static long stress_fill(weir_heap *h, weir_mutator *m, void *arg)
{
	struct stress *s = arg;

	for (int i = 0; i < SHARED; i++) {
		weir_weak *w;

		if (weir_weak_create(h, new_node(m), &w))
			return -1;
		s->weak[i] = w;
	}
	return 0;
}

static void stress(const char *options)
{
	static struct stress s;
	pthread_t t[STRESS_THREADS];
	long cycles;

	memset(&s, 0, sizeof(s));
	s.heap = hidden_heap(options);
	cr_assert_eq(hidden(s.heap, stress_fill, &s), 0);
	for (int i = 0; i < STRESS_THREADS; i++)
		pthread_create(&t[i], NULL, stress_main, &s);
	cycles = many_cycles(s.heap);
	s.stop = true;
	for (int i = 0; i < STRESS_THREADS; i++)
		pthread_join(t[i], NULL);
	cr_log_info("%ld cycles, %ld gets found, %ld cleared", cycles, s.found,
		    s.cleared);
	cr_assert_gt(s.found, 100);
	cr_assert_gt(s.cleared, 100);
	cr_assert_eq(weir_heap_destroy(s.heap), 0);
}

Test(weak, races_with_collections)
{
	stress(RACE_HEAP ",verify=on,poison=on,heap-min=4m");
}

Test(weak, races_with_collections_delayed)
{
	stress(RACE_HEAP ",verify=on,poison=on,heap-min=4m,delay=200");
}

Test(weak, races_with_collections_at_safepoints)
{
	stress(RACE_HEAP ",verify=on,poison=on,heap-min=4m,stop=safepoints");
}

/* ---- fork --------------------------------------------------------------- */

Test(weak, a_child_of_fork_goes_on)
{
	weir_heap *h = start(OPTIONS);
	weir_weak *kept = weak_at(h, 0), *dead = weak_at(h, -1);
	int status;
	pid_t pid;

	quiet_before_fork();
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		weir_weak *more;
		bool ok;

		alarm(60);
		full(h);
		more = weak_at(h, -1);
		ok = alive(h, kept) && !alive(h, dead) && alive(h, more);
		minor(h);
		ok = ok && !alive(h, more);
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
	full(h);
	cr_assert(alive(h, kept));
	cr_assert_not(alive(h, dead));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Cost --------------------------------------------------------------- */

#define MANY 1000000

struct many {
	weir_weak **weak; /* MANY handles */
	void **object;    /* a heap array that keeps the targets */
};

static long make_many(weir_heap *h, weir_mutator *m, void *arg)
{
	struct many *d = arg;

	slot[0] = d->object = weir_alloc(m, MANY * sizeof(void *));
	for (int i = 0; i < MANY; i++) {
		d->object[i] = weir_alloc_leaf(m, 16);
		if (weir_weak_create(h, d->object[i], &d->weak[i]))
			return -1;
	}
	d->object = NULL;
	return 0;
}

/* What the weak phase takes in the pause, in microseconds. */
static double weak_us(weir_heap *h)
{
	return (double)h->weak->pause_ns / 1e3;
}

Test(weak, a_million_live_references_cost_the_pause_little)
{
	weir_heap *h = start("heap-max=1g");
	struct many d = {.weak = calloc(MANY, sizeof(weir_weak *))};
	double live_full = 1e9, live_minor = 1e9, live_stopped, dead;

	need_barrier(h);
	cr_assert_eq(hidden(h, make_many, &d), 0, "%s", weir_error_text());
	minor(h);
	for (int i = 0; i < 3; i++) {
		full(h);
		if (weak_us(h) < live_full)
			live_full = weak_us(h);
		minor(h);
		if (weak_us(h) < live_minor)
			live_minor = weak_us(h);
	}
	stopped(h);
	live_stopped = weak_us(h);
	slot[0] = NULL;
	full(h);
	dead = weak_us(h);
	cr_assert_not(alive(h, d.weak[MANY / 2]));
	fprintf(stderr,
		"weak part of the pause, 1e6 references: live, full cycle %.1f "
		"us, minor %.1f us, one stop %.1f us; all dying at once %.1f "
		"us\n",
		live_full, live_minor, live_stopped, dead);
	/* A walk over all takes milliseconds, as one stop shows. */
	cr_assert_lt(live_full, live_stopped / 4);
	cr_assert_lt(live_minor, live_stopped / 4);
	free(d.weak);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
