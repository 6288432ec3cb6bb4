/* SPDX-License-Identifier: MIT */
/*
 * WEIR_TRACE_ALWAYS: objects with references in memory of malloc(), which
 * change without a write to the heap.
 *
 * Whatever has a young object's address in its hands runs on a thread of its
 * own, which has ended when a cycle runs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>

#include "gc/always.h"
#include "tests/heap_util.h"
#include "tests/must.h"
#include "tests/short.h"

#define MANY 1000
#define WORDS 8 /* of what a reference leads to */
#define HIDE(p) (~(uintptr_t)(p))

/* In memory of malloc(). */
struct outside {
	uint64_t *ref;        /* a leaf of WORDS words */
	uintptr_t hidden;     /* the same, for the test */
	uint64_t value;       /* what the words hold */
	struct outside *next; /* in the list of all */
};

struct thing {
	struct outside *out;
	uint64_t id;
};

static struct thing *things[MANY]; /* registered as roots */
static weir_kind kind;
static unsigned calls;

static void trace(void *object, size_t size, weir_visitor *v, void *arg)
{
	struct thing *t = object;

	(void)arg;
	__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
	if (size < sizeof(*t))
		abort();
	if (t->out)
		weir_visit(v, t->out->ref);
}

static void open(const char *options, unsigned flags)
{
	heap_open(options);
	cr_assert_eq(weir_root_add(heap, things, sizeof(things)), 0);
	cr_assert_eq(weir_kind_trace(heap, trace, NULL, flags, &kind), 0);
}

typedef void *thread_fn(weir_mutator *m, void *arg);

struct job {
	thread_fn *fn;
	void *arg;
};

static void *job_main(void *arg)
{
	struct job *j = arg;
	weir_mutator *m;
	void *result;

	must(!weir_thread_attach(heap, &m));
	result = j->fn(m, j->arg);
	must(!weir_thread_detach(m));
	return result;
}

static void *wait_for(void *thread)
{
	void *result;

	pthread_join(*(pthread_t *)thread, &result);
	return result;
}

/* Run fn on a thread of its own. */
static void *on_thread(thread_fn *fn, void *arg)
{
	struct job j = {fn, arg};
	pthread_t t;

	must(!pthread_create(&t, NULL, job_main, &j));
	return weir_blocking_call(self, wait_for, &t);
}

static struct outside *all; /* where a leak checker finds them */

static struct outside *new_outside(void)
{
	struct outside *out = calloc(1, sizeof(*out));

	must(out);
	out->next = __atomic_exchange_n(&all, out, __ATOMIC_RELAXED);
	return out;
}

/* Let o refer to a fresh leaf. */
static void renew(weir_mutator *m, struct outside *o, uint64_t value)
{
	uint64_t *leaf = weir_alloc_leaf(m, WORDS * sizeof(*leaf));

	must(leaf);
	for (int i = 0; i < WORDS; i++)
		leaf[i] = value + (uint64_t)i;
	o->value = value;
	o->hidden = HIDE(leaf);
	o->ref = leaf;
}

static bool is_whole(const struct outside *o)
{
	uint64_t *leaf = (uint64_t *)HIDE(o->hidden);

	if (weir_object_base(heap, leaf) != leaf)
		return false;
	for (int i = 0; i < WORDS; i++)
		if (leaf[i] != o->value + (uint64_t)i)
			return false;
	return true;
}

static void *make_things(weir_mutator *m, void *arg)
{
	size_t size = arg ? *(size_t *)arg : sizeof(struct thing);

	for (uint64_t i = 0; i < MANY; i++) {
		struct thing *t = weir_alloc_kind(m, size, kind);

		must(t);
		t->id = i;
		t->out = new_outside();
		things[i] = t;
		renew(m, t->out, i * 1000);
	}
	return NULL;
}

/* All but each third get a fresh leaf; no page of the heap with references is
 * written. */
static void *renew_things(weir_mutator *m, void *arg)
{
	for (uint64_t i = 0; i < MANY; i++)
		if (i % 3)
			renew(m, things[i]->out, *(uint64_t *)arg + i * 1000);
	return NULL;
}

/* How many lost what they refer to. */
static void *count_lost(weir_mutator *m, void *arg)
{
	uintptr_t lost = 0;

	(void)m;
	(void)arg;
	for (size_t i = 0; i < MANY; i++)
		lost += !is_whole(things[i]->out);
	return (void *)lost;
}

static void collect(unsigned flags)
{
	cr_assert_eq(weir_collect(heap, flags), 0);
}

/* Old things, new references: the number that a minor cycle loses. */
static uintptr_t lost_of_old(unsigned flags, const char *options)
{
	uintptr_t lost = 0;

	open(options, flags);
	need_barrier(heap);
	on_thread(make_things, NULL);
	collect(WEIR_COLLECT_FULL);
	collect(WEIR_COLLECT_FULL);
	for (uint64_t round = 1; round < 6 && !lost; round++) {
		uint64_t value = round << 32;

		on_thread(renew_things, &value);
		collect(WEIR_COLLECT_MINOR);
		lost = (uintptr_t)on_thread(count_lost, NULL);
	}
	heap_close();
	return lost;
}

#define CHECKED "poison=on,verify=on,markers=1,pause-markers=2"

Test(always, young_objects_behind_old_ones_live)
{
	cr_assert_eq(lost_of_old(WEIR_TRACE_ALWAYS, CHECKED), 0);
}

Test(always, young_objects_behind_old_ones_live_born_black)
{
	cr_assert_eq(lost_of_old(WEIR_TRACE_ALWAYS, CHECKED ",born-black=on"),
		     0);
}

/* That the tests above can fail: so it is without the flag, */
Test(always, an_ordinary_kind_loses_them)
{
	cr_assert_gt(lost_of_old(0, "poison=on"), MANY / 2);
}

/* and this is what the verifier makes of it. */
Test(always, the_verifier_finds_what_an_ordinary_kind_loses)
{
	int status;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (!pid) {
		struct weir_stats s;

		signal(SIGABRT, SIG_DFL);
		freopen("/dev/null", "w", stderr);
		open(CHECKED, 0);
		s = heap_stats();
		if (!strcmp(s.barrier, "none"))
			_exit(77);
		on_thread(make_things, NULL);
		weir_collect(heap, WEIR_COLLECT_FULL);
		weir_collect(heap, WEIR_COLLECT_FULL);
		/* The first that comes finds their pages not armed yet. */
		for (uint64_t i = 1; i < 4; i++) {
			on_thread(renew_things, &(uint64_t){i << 32});
			weir_collect(heap, WEIR_COLLECT_MINOR);
		}
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		cr_skip("the kernel offers no barrier: all cycles are stopped");
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%x",
		  status);
}

/* Each is traced once in a stop, of the pause or ahead of it, if none refers to
 * another. */
Test(always, once_in_a_stop)
{
	static const unsigned flags[] = {WEIR_COLLECT_MINOR, WEIR_COLLECT_FULL,
					 WEIR_COLLECT_STOPPED};

	open("poison=on", WEIR_TRACE_ALWAYS);
	on_thread(make_things, NULL);
	collect(WEIR_COLLECT_FULL);
	for (int i = 0; i < 3; i++) {
		unsigned before = __atomic_load_n(&calls, __ATOMIC_RELAXED);
		uint64_t stops = heap_stats().pause.count;

		collect(flags[i]);
		stops = heap_stats().pause.count - stops;
		cr_assert_leq(stops, 5);
		cr_assert_eq(__atomic_load_n(&calls, __ATOMIC_RELAXED) - before,
			     stops * MANY);
	}
	heap_close();
}

/* ---- The table ----------------------------------------------------------- */

static void *drop_odd(weir_mutator *m, void *arg)
{
	(void)m;
	(void)arg;
	/* What they have outside must stay until they are found dead. */
	for (size_t i = 1; i < MANY; i += 2)
		things[i] = NULL;
	return NULL;
}

static void *churn(weir_mutator *m, void *arg)
{
	struct outside *none = NULL;

	for (size_t i = 0; i < 10 * MANY; i++) {
		struct thing *t = weir_alloc_kind(m, *(size_t *)arg, kind);

		must(t);
		t->out = none;
	}
	return NULL;
}

/* Dead ones leave the table, young ones in a minor cycle, old ones in a full
 * one; a stale word on some stack may keep a few. */
static void leave_the_table(size_t size, size_t some, const char *options)
{
	size_t n;

	open(options, WEIR_TRACE_ALWAYS);
	need_barrier(heap); /* else there are no minor cycles */
	cr_assert_eq(wg_always_count(heap), 0);
	on_thread(make_things, &size);
	cr_assert_eq(wg_always_count(heap), MANY);
	collect(WEIR_COLLECT_FULL);
	cr_assert_eq(wg_always_count(heap), MANY);
	on_thread(drop_odd, NULL);
	collect(WEIR_COLLECT_MINOR);
	n = wg_always_count(heap);
	cr_assert_eq(n, MANY);
	on_thread(churn, &some);
	cr_assert_geq(wg_always_count(heap), MANY);
	collect(WEIR_COLLECT_MINOR);
	collect(WEIR_COLLECT_MINOR);
	n = wg_always_count(heap);
	cr_assert(n >= MANY && n < MANY + 50, "%zu entries", n);
	collect(WEIR_COLLECT_FULL);
	n = wg_always_count(heap);
	cr_assert(n >= MANY / 2 && n < MANY / 2 + 50, "%zu entries", n);
	for (size_t i = 0; i < MANY; i += 2) {
		cr_assert_eq(things[i]->id, i);
		cr_assert(is_whole(things[i]->out));
	}
	heap_close();
}

Test(always, dead_ones_leave_the_table)
{
	leave_the_table(sizeof(struct thing), sizeof(struct thing),
			CHECKED ",heap-min=256m");
}

Test(always, medium_ones_leave_the_table)
{
	leave_the_table(2000, 3000, CHECKED ",heap-min=512m");
}

Test(always, large_ones_leave_the_table)
{
	leave_the_table(70000, 100, CHECKED ",heap-min=512m");
}

/* ---- Kinds --------------------------------------------------------------- */

Test(always, kinds_have_numbers_that_are_not_inlined)
{
	const uint64_t bit = 1;
	weir_kind small, other;

	heap_open("verify=on");
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(weir_kind_trace(heap, trace, NULL,
					     WEIR_TRACE_ALWAYS, &kind),
			     0);
		cr_assert_eq(kind, WG_INLINE_KINDS + (unsigned)i);
		cr_assert(wg_kind_made(heap, kind));
		cr_assert_not(wg_kind_made(heap, kind + 1));
		/* The numbers below are not used up, nor are they taken for
		 * kinds. */
		small = WG_FIRST_KIND + (unsigned)i;
		cr_assert_not(wg_kind_made(heap, small));
		cr_assert_eq(weir_kind_bitmap(heap, &bit, 4, &other), 0);
		cr_assert_eq(other, small);
		cr_assert(wg_kind_made(heap, small));
	}
	while (other < WG_INLINE_KINDS - 1)
		cr_assert_eq(weir_kind_bitmap(heap, &bit, 4, &other), 0);
	cr_assert_eq(weir_kind_bitmap(heap, &bit, 4, &other), 0);
	cr_assert_eq(other, kind + 1);
	cr_assert_not_null(weir_alloc_inline(self, 16, kind));
	cr_assert_eq(wg_always_count(heap), 1);
	cr_assert_not_null(weir_alloc_inline(self, 16, other));
	cr_assert_not_null(weir_alloc_aligned(self, 16, 4096, kind));
	cr_assert_eq(wg_always_count(heap), 2);
	heap_close();
}

#if !WEIR_CHECKING
Test(always, not_together_with_concurrent)
{
	heap_open(NULL);
	kind = 77;
	cr_assert_eq(weir_kind_trace(heap, trace, NULL,
				     WEIR_TRACE_ALWAYS | WEIR_TRACE_CONCURRENT,
				     &kind),
		     -EINVAL);
	cr_assert_eq(kind, 77);
	cr_assert_eq(weir_kind_trace(heap, trace, NULL, 4, &kind), -EINVAL);
	heap_close();
}
#endif

/* ---- No memory ----------------------------------------------------------- */

static struct wr_sys short_sys;
static bool refuse;
static int (*real_commit)(void *p, size_t size, bool thp);

static int commit(void *p, size_t size, bool thp)
{
	return refuse ? -ENOMEM : real_commit(p, size, thp);
}

static void fails(size_t size)
{
	errno = 0;
	cr_assert_null(weir_alloc_kind(self, size, kind));
	cr_assert_eq(errno, ENOMEM);
	cr_assert(strstr(weir_error_text(), "WEIR_TRACE_ALWAYS"), "%s",
		  weir_error_text());
}

Test(always, no_object_without_an_entry)
{
	size_t room = ((size_t)64 << 10) / sizeof(uintptr_t);
	uint64_t used;

	open("heap-min=64m,verify=on", WEIR_TRACE_ALWAYS);
	short_sys = *heap->sys;
	real_commit = short_sys.commit;
	short_sys.commit = commit;
	heap->sys = &short_sys;
	for (size_t i = 0; i < room; i++)
		cr_assert_not_null(weir_alloc_kind(self, 16, kind));
	/* So that the heap has memory. */
	cr_assert_not_null(weir_alloc_kind(self, 100000, 0));
	refuse = true;
	used = heap_stats().heap_used;
	for (int i = 0; i < 10; i++) {
		fails(16);
		fails(5000);
		fails(100000);
		fails(1000000);
	}
	cr_assert_eq(wg_always_count(heap), room);
	/* A block for the medium ones at most. */
	cr_assert_leq(heap_stats().heap_used, used + 2 * WG_BLOCK);
	refuse = false;
	collect(WEIR_COLLECT_FULL);
	cr_assert_lt(wg_always_count(heap), 50);
	cr_assert_not_null(weir_alloc_kind(self, 100000, kind));
	heap_close();
}

/* ---- fork ---------------------------------------------------------------- */

static int over;

/* Makes things that die, and collects. */
static void *busy(weir_mutator *m, void *arg)
{
	size_t size = sizeof(struct thing);

	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		churn(m, &size);
		must(!weir_collect(heap, arg ? WEIR_COLLECT_FULL
					     : WEIR_COLLECT_MINOR));
	}
	return NULL;
}

static void in_child(void)
{
	CHILD(wg_always_count(heap) >= MANY);
	for (uint64_t round = 1; round < 4; round++) {
		uint64_t value = round << 40;

		on_thread(renew_things, &value);
		CHILD(!weir_collect(heap, WEIR_COLLECT_MINOR));
		CHILD(!on_thread(count_lost, NULL));
	}
	CHILD(!weir_collect(heap, WEIR_COLLECT_FULL));
	CHILD(!weir_collect(heap, WEIR_COLLECT_FULL));
	CHILD(!on_thread(count_lost, NULL));
	CHILD(wg_always_count(heap) < MANY + 100);
	_exit(0);
}

Test(always, fork_beside_cycles, .timeout = 240)
{
	struct job minor = {busy, NULL}, full = {busy, &over};
	pthread_t t[2];

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	cr_skip("fork with threads: not under the sanitizer");
#endif
	open(CHECKED, WEIR_TRACE_ALWAYS);
	on_thread(make_things, NULL);
	collect(WEIR_COLLECT_FULL);
	must(!pthread_create(&t[0], NULL, job_main, &minor));
	must(!pthread_create(&t[1], NULL, job_main, &full));
	for (uint64_t i = 1; i < 30; i++) {
		int status;
		pid_t pid;

		usleep((useconds_t)(i * 200));
		pid = fork();
		if (!pid)
			in_child();
		cr_assert_gt(pid, 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "%x", status);
		on_thread(renew_things, &(uint64_t){i << 32});
		cr_assert_null(on_thread(count_lost, NULL));
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		weir_blocking_call(self, wait_for, &t[i]);
	heap_close();
}

/* ---- Beside cycles ------------------------------------------------------- */

/* Renews its half of the things, and makes some of them anew, again and again.
 */
static void *renewer(weir_mutator *m, void *arg)
{
	size_t first = *(size_t *)arg;
	uint64_t value = 0;

	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		for (size_t i = first; i < MANY; i += 2) {
			struct outside *o = things[i]->out;

			must(is_whole(o));
			must(things[i]->id == i);
			if (i % 7 == first) {
				struct thing *t = weir_alloc_kind(
					m, i % 5 ? sizeof(*t) : 3000, kind);

				must(t);
				t->id = i;
				t->out = o;
				/* Relaxed: partner of the collector, which
				 * reads roots. */
				__atomic_store_n(&things[i], t,
						 __ATOMIC_RELAXED);
			}
			renew(m, o, value += WORDS);
			weir_safepoint(m);
		}
	}
	return NULL;
}

static void beside_cycles(const char *options)
{
	size_t first[2] = {0, 1};
	struct job job[2] = {{renewer, &first[0]}, {renewer, &first[1]}};
	pthread_t t[2];
	size_t n;

	open(options, WEIR_TRACE_ALWAYS);
	on_thread(make_things, NULL);
	for (int i = 0; i < 2; i++)
		must(!pthread_create(&t[i], NULL, job_main, &job[i]));
	for (int i = 0; i < rounds(40); i++)
		collect(i % 4 == 3   ? WEIR_COLLECT_FULL
			: i % 8 == 4 ? WEIR_COLLECT_STOPPED
				     : WEIR_COLLECT_MINOR);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		weir_blocking_call(self, wait_for, &t[i]);
	collect(WEIR_COLLECT_FULL);
	collect(WEIR_COLLECT_FULL);
	n = wg_always_count(heap);
	cr_assert(n >= MANY && n < MANY + 50, "%zu entries", n);
	cr_assert_null(on_thread(count_lost, NULL));
	heap_close();
}

Test(always, beside_cycles, .timeout = 240)
{
	beside_cycles(CHECKED);
}

Test(always, beside_cycles_born_black, .timeout = 240)
{
	beside_cycles(CHECKED ",born-black=on");
}

Test(always, beside_cycles_with_delays, .timeout = 240)
{
	beside_cycles(CHECKED ",delay=2000,seed=7");
}
