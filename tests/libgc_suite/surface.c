/* SPDX-License-Identifier: MIT */
/* What few programs use: finalization in other ways, the lock, looking at all
 * objects, types with descriptors, roots that are left out, thread events.  (To
 * clear the exclusion table crashes libgc.) */
#include "check.h"

#include <gc/gc_gcj.h>
#include <gc/javaxfc.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define N 400

static int count;

static void apart(void *(*fn)(void *))
{
	pthread_t t;

	check(!GC_pthread_create(&t, NULL, fn, NULL));
	check(!GC_pthread_join(t, NULL));
}

/* ---- Finalizers -----------------------------------------------------------
 */

static int awaited[N], ran[N];
static void *root[N];

static void GC_CALLBACK await(void *p)
{
	awaited[*(int *)p]++;
}

static void GC_CALLBACK finalize(void *p, void *data)
{
	int id = *(int *)p;

	check(awaited[id] == (data != NULL), "%d was not told of before", id);
	check(!ran[id]);
	ran[id] = ++count;
}

static void *make_finalized(void *arg)
{
	for (int i = 0; i < N; i++) {
		int *p = GC_malloc_atomic(32);

		*p = i;
		root[i] = p;
		GC_register_finalizer_no_order(p, finalize, &count, NULL, NULL);
	}
	return arg;
}

static void told_before(void)
{
	int n = 0;

	GC_set_finalize_on_demand(1);
	check(!GC_get_await_finalize_proc());
	GC_set_await_finalize_proc(await);
	check(GC_get_await_finalize_proc() == await);
	apart(make_finalized);
	collect();
	for (int i = 0; i < N; i++)
		check(!awaited[i]);
	memset(root, 0, sizeof(root));
	collect();
	for (int i = 0; i < N; i++) {
		check(awaited[i] <= 1);
		n += awaited[i];
	}
	check(n > N * 9 / 10, "%d of %d", n, N);
	check(count == 0);
	check(GC_invoke_finalizers() == n && count == n);
	GC_set_await_finalize_proc(NULL);
	check(!GC_get_await_finalize_proc());
}

static void GC_CALLBACK once_more(void *p, void *data)
{
	(void)data;
	if (++count < 3 * N)
		GC_register_finalizer_no_order(p, once_more, NULL, NULL, NULL);
}

static void all_of_them(void)
{
	for (int i = 0; i < N; i++) {
		root[i] = GC_malloc(32);
		GC_register_finalizer(root[i], once_more, NULL, NULL, NULL);
	}
	collect();
	check(count == 0);
	GC_finalize_all();
	check(count >= 3 * N, "%d", count);
	count = 0;
	GC_finalize_all();
	check(count == 0);
	for (int i = 0; i < N; i++)
		check(GC_base(root[i]) == root[i]);
}

/* ---- The lock -------------------------------------------------------------
 */

static volatile long counter;
static uintptr_t *link_leaf; /* hidden references, each with a link */

static void *counts(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		long was;

		GC_alloc_lock();
		was = counter;
		if (was % 64 == 0)
			sched_yield();
		counter = was + 1;
		GC_alloc_unlock();
		if (i % 16 == 0)
			memset(GC_malloc(48), 0, 48);
	}
	return arg;
}

static void one_at_a_time(void)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		check(!GC_pthread_create(&t[i], NULL, counts, NULL));
	for (int i = 0; i < 20; i++)
		GC_gcollect();
	for (int i = 0; i < 3; i++)
		check(!GC_pthread_join(t[i], NULL));
	check(counter == 60000, "%ld", counter);
}

/* A hidden reference is looked at with the lock: what is found stays. */
static void *reveals(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		int k = i % 64;
		uintptr_t *p, *volatile kept;

		GC_alloc_lock();
		p = (uintptr_t *)link_leaf[k];
		p = p ? (uintptr_t *)~(uintptr_t)p : NULL;
		kept = p;
		GC_alloc_unlock();
		if (p) {
			check(p[0] == 0x77 && p[3] == (uintptr_t)k);
			kept = NULL;
			continue;
		}
		p = GC_malloc_atomic(64);
		p[0] = 0x77;
		p[3] = (uintptr_t)k;
		GC_alloc_lock();
		link_leaf[k] = ~(uintptr_t)p;
		GC_alloc_unlock();
		GC_general_register_disappearing_link((void **)&link_leaf[k],
						      p);
		memset(GC_malloc_atomic(64), 0xdd, 64);
		(void)kept;
	}
	return arg;
}

static void hidden_references(void)
{
	pthread_t t;

	link_leaf = GC_malloc_atomic_uncollectable(64 * sizeof(uintptr_t));
	memset(link_leaf, 0, 64 * sizeof(uintptr_t));
	check(!GC_pthread_create(&t, NULL, reveals, NULL));
	for (int i = 0; i < 50; i++)
		GC_gcollect();
	check(!GC_pthread_join(t, NULL));
}

/* ---- Marks ----------------------------------------------------------------
 */

#define TAG 0x7a67000000000000ul

static int seen[N];
static int others;

static void GC_CALLBACK look(void *p, size_t size, void *data)
{
	uintptr_t v = size >= 48 ? *(uintptr_t *)p - TAG : N;

	check(data == &others && size > 0 && GC_size(p) == size);
	check(GC_base(p) == p);
	if (v < N)
		seen[v]++;
	else
		others++;
}

static void *look_at_all(void *arg)
{
	GC_enumerate_reachable_objects_inner(look, arg);
	return NULL;
}

static void *make_tagged(void *arg)
{
	for (int i = 0; i < N; i++) {
		uintptr_t *p = GC_malloc(i % 10 ? 48 + (size_t)i : 70000);

		p[0] = TAG + (uintptr_t)i;
		root[i] = i % 2 ? NULL : p;
	}
	return arg;
}

static void every_object(void)
{
	int dead = 0;

	apart(make_tagged);
	collect();
	GC_call_with_alloc_lock(look_at_all, &others);
	for (int i = 0; i < N; i++)
		if (i % 2 == 0)
			check(seen[i] == 1, "%d was seen %d times", i, seen[i]);
		else
			dead += seen[i];
	check(dead < N / 20, "%d dead ones were seen", dead);
}

static void *any_marked(void *p)
{
	return GC_is_marked(p) ? p : NULL;
}

static int self_marked, self_asked;

static struct GC_ms_entry *mark_self(GC_word *at, struct GC_ms_entry *top,
				     struct GC_ms_entry *limit, GC_word env)
{
	(void)limit;
	(void)env;
	if (*at == TAG) {
		self_asked++;
		self_marked += GC_is_marked(at) != 0;
	}
	return top;
}

static void marks(void)
{
	int kind =
		(int)GC_new_kind(GC_new_free_list(),
				 GC_MAKE_PROC(GC_new_proc(mark_self), 0), 0, 1);

	root[0] = GC_malloc(64);
	root[1] = GC_malloc_kind(64, kind);
	*(GC_word *)root[1] = TAG;
	collect();
	check(GC_call_with_alloc_lock(any_marked, root[0]) == root[0]);
	check(GC_call_with_alloc_lock(any_marked, root[1]) == root[1]);
	check(self_asked > 0 && self_asked == self_marked, "%d %d", self_asked,
	      self_marked);
}

/* ---- Types with descriptors -----------------------------------------------
 */

struct type {
	void *methods;      /* nothing */
	GC_word descriptor; /* of its objects */
};

struct typed {
	struct type *type; /* first */
	void *ref[3];      /* what it may refer to */
};

#define REF_BIT(i) ((GC_word)1 << (63 - 1 - (i)))

static struct type by_length = {NULL, 3 * sizeof(void *) | GC_DS_LENGTH};
static struct type by_bitmap = {NULL, REF_BIT(0) | REF_BIT(2) | GC_DS_BITMAP};
static struct type by_nothing = {NULL, sizeof(void *) | GC_DS_LENGTH};
static struct type by_proc = {NULL, 0};
static uintptr_t hidden[3][N];

static struct GC_ms_entry *mark_typed(GC_word *at, struct GC_ms_entry *top,
				      struct GC_ms_entry *limit, GC_word env)
{
	struct typed *t;

	if (env == 1)
		at = GC_USR_PTR_FROM_BASE(at);
	t = (struct typed *)at;
	if (!t->type)
		return top;
	/* What it has is outside of the heap. */
	if (t->ref[1])
		top = GC_MARK_AND_PUSH(((void **)t->ref[1])[0], top, limit,
				       NULL);
	return GC_MARK_AND_PUSH(t->ref[2], top, limit, &t->ref[2]);
}

static struct type *type;
static int debug;

static void *make_typed(void *arg)
{
	for (int i = 0; i < N; i++) {
		struct typed *t =
			debug ? GC_debug_gcj_malloc(sizeof(*t), type, "t.c", 1)
			      : GC_gcj_malloc(sizeof(*t), type);

		check(t->type == type);
		root[i] = t;
		for (int k = 0; k < 3; k++) {
			t->ref[k] = GC_malloc_atomic(64);
			memset(t->ref[k], 0x11 * (k + 1), 64);
			hidden[k][i] = ~(uintptr_t)t->ref[k];
		}
	}
	return arg;
}

static int alive(int k)
{
	int n = 0;

	for (int i = 0; i < 50000; i++)
		memset(GC_malloc_atomic(64), 0xdd, 64);
	for (int i = 0; i < N; i++)
		n += GC_base((void *)~hidden[k][i]) &&
		     *(char *)~hidden[k][i] == 0x11 * (k + 1);
	return n;
}

static void keeps(struct type *t, unsigned refs)
{
	type = t;
	apart(make_typed);
	collect();
	for (int k = 0; k < 3; k++) {
		int n = alive(k);

		if (refs >> k & 1)
			check(n == N, "reference %d: %d of %d", k, n, N);
		else
			check(n < N / 5, "reference %d: %d of %d", k, n, N);
	}
}

static void init_gcj(void)
{
	GC_init_gcj_malloc(GC_GCJ_RESERVED_MARK_PROC_INDEX, (void *)mark_typed);
	GC_init_gcj_malloc(GC_GCJ_RESERVED_MARK_PROC_INDEX, (void *)mark_typed);
	by_proc.descriptor = GC_MAKE_PROC(GC_GCJ_RESERVED_MARK_PROC_INDEX, 0);
}

static void types_with_lengths(void)
{
	init_gcj();
	keeps(&by_length, 3);
	keeps(&by_nothing, 0);
}

static void types_with_bitmaps(void)
{
	init_gcj();
	keeps(&by_bitmap, 5);
}

static int kind_of(void *p)
{
	return GC_get_kind_and_size(p, NULL);
}

static void types_debugged(void)
{
	init_gcj();
	debug = 1;
	/* The procedure is asked, and reports reference 2. */
	keeps(&by_length, 4);
}

/* References that change without a write to the heap. */
static void types_with_procedures(void)
{
	void **outside = mmap(NULL, N * sizeof(void *), PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	init_gcj();
	for (int i = 0; i < N; i++) {
		struct typed *t = GC_gcj_malloc(sizeof(*t), &by_proc);

		t->ref[1] = &outside[i];
		root[i] = t;
	}
	check(kind_of(root[0]) == GC_gcj_kind);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < N; i++)
			if (!round || (i + round) % 3 == 0) {
				outside[i] = GC_malloc_atomic(64);
				memset(outside[i], i, 64);
			}
		for (int i = 0; i < 20000; i++)
			memset(GC_malloc_atomic(64), 0xdd, 64);
	}
	collect();
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 64; k++)
			check(((char *)outside[i])[k] == (char)i, "%d", i);
}

/* ---- Roots that are left out ----------------------------------------------
 */

extern void *in_segment[N]; /* not static: else nobody would store to it */
void *in_segment[N];
static int filtered, leave_out;

static void *make_in_segment(void *arg)
{
	for (int i = 0; i < N; i++) {
		in_segment[i] = GC_malloc_atomic(64);
		memset(in_segment[i], 0x11, 64);
		hidden[0][i] = ~(uintptr_t)in_segment[i];
	}
	return arg;
}

static int GC_CALLBACK has_roots(const char *name, void *start, size_t size)
{
	char *here = (char *)in_segment;

	check(name != NULL);
	filtered++;
	return !(leave_out && here >= (char *)start &&
		 here < (char *)start + size);
}

static void segments_filtered(void)
{
	GC_register_has_static_roots_callback(has_roots);
	apart(make_in_segment);
	collect();
	check(filtered > 0);
	check(alive(0) == N, "%d", alive(0));
	leave_out = 1;
	GC_register_has_static_roots_callback(has_roots);
	/* What else is known of it goes with the roots. */
	GC_clear_roots();
	collect();
	check(alive(0) < N / 5, "%d of %d", alive(0), N);
	GC_register_has_static_roots_callback(NULL);
	apart(make_in_segment);
	collect();
	check(alive(0) == N, "%d", alive(0));
}

/* ---- Threads that are held ------------------------------------------------
 */

static int held, let_go, over;
static pthread_t runner;

static void GC_CALLBACK on_thread(GC_EventType e, void *id)
{
	if (!pthread_equal((pthread_t)id, runner))
		return;
	if (e == GC_EVENT_THREAD_SUSPENDED)
		__atomic_add_fetch(&held, 1, __ATOMIC_RELAXED);
	else if (e == GC_EVENT_THREAD_UNSUSPENDED)
		__atomic_add_fetch(&let_go, 1, __ATOMIC_RELAXED);
}

static void *runs(void *arg)
{
	GC_malloc(16);
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
		;
	return arg;
}

static void thread_events(void)
{
	check(!GC_get_on_thread_event());
	check(!GC_pthread_create(&runner, NULL, runs, NULL));
	usleep(20000);
	GC_set_on_thread_event(on_thread);
	check(GC_get_on_thread_event() == on_thread);
	for (int i = 0; i < 5; i++)
		GC_gcollect();
	GC_set_on_thread_event(NULL);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	check(!GC_pthread_join(runner, NULL));
	check(held >= 5 && held == let_go, "%d %d", held, let_go);
}

/* ---- Threads that the program holds ---------------------------------------
 */

static unsigned long steps; /* atomic */

static void *steps_on(void *arg)
{
	uintptr_t *volatile mine = GC_malloc_atomic(64);

	mine[0] = mine[7] = TAG;
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		memset(GC_malloc(48), 0x33, 48);
		__atomic_add_fetch(&steps, 1, __ATOMIC_RELAXED);
		check(mine[0] == TAG && mine[7] == TAG);
	}
	return arg;
}

static unsigned long steps_now(void)
{
	return __atomic_load_n(&steps, __ATOMIC_RELAXED);
}

static void moves(void)
{
	unsigned long before = steps_now();

	while (steps_now() == before)
		usleep(100);
}

static void stands(void)
{
	unsigned long before = steps_now();

	usleep(20000);
	check(steps_now() == before, "it runs");
}

static void churn_and_collect(void)
{
	collect();
	for (int i = 0; i < 50000; i++)
		memset(GC_malloc_atomic(64), 0xdd, 64);
}

static void suspended(void)
{
	check(!GC_pthread_create(&runner, NULL, steps_on, NULL));
	moves();
	for (int i = 0; i < 20; i++) {
		check(!GC_is_thread_suspended(runner));
		GC_suspend_thread(runner);
		GC_suspend_thread(runner);
		check(GC_is_thread_suspended(runner));
		stands();
		if (i < 5)
			churn_and_collect();
		GC_resume_thread(runner);
		moves();
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	check(!GC_pthread_join(runner, NULL));
}

static void *suspends_itself(void *arg)
{
	GC_malloc(16);
	__atomic_store_n(&steps, 1, __ATOMIC_RELAXED);
	GC_suspend_thread(pthread_self());
	__atomic_store_n(&steps, 2, __ATOMIC_RELAXED);
	return arg;
}

static void suspended_by_itself(void)
{
	check(!GC_pthread_create(&runner, NULL, suspends_itself, NULL));
	while (steps_now() != 1)
		usleep(100);
	while (!GC_is_thread_suspended(runner))
		usleep(100);
	churn_and_collect();
	check(steps_now() == 1);
	GC_resume_thread(runner);
	check(!GC_pthread_join(runner, NULL));
	check(steps_now() == 2);
}

static void world_stopped(void)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		check(!GC_pthread_create(&t[i], NULL, steps_on, NULL));
	moves();
	for (int i = 0; i < 20; i++) {
		GC_stop_world_external();
		stands();
		GC_start_world_external();
		moves();
		if (i < 5)
			churn_and_collect();
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		check(!GC_pthread_join(t[i], NULL));
}

/* ---- Coroutines, told of in collections -----------------------------------
 */

#define STACK ((size_t)256 << 10)

static ucontext_t own_context, there_context;
static struct GC_stack_base there;
static void *handle;
static int is_there; /* atomic */
static GC_push_other_roots_proc pushed_before;

static __attribute__((noinline)) void hold_there(void)
{
	uintptr_t *volatile hold[N];

	for (int i = 0; i < N; i++) {
		hold[i] = GC_malloc_atomic(64);
		memset(hold[i], 0x11, 64);
	}
	__atomic_store_n(&is_there, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
		;
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 64; k++)
			check(((char *)hold[i])[k] == 0x11, "%d was lost", i);
	__atomic_store_n(&is_there, 0, __ATOMIC_RELEASE);
}

static void coroutine(void)
{
	hold_there();
	swapcontext(&there_context, &own_context);
}

static void push_with_bottom(void)
{
	if (__atomic_load_n(&is_there, __ATOMIC_ACQUIRE))
		GC_set_stackbottom(handle, &there);
	pushed_before();
}

static void *goes_there(void *arg)
{
	char *map = mmap(NULL, STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	struct GC_stack_base base;

	check(map != MAP_FAILED);
	check(!mprotect(map + 65536, STACK - 2 * 65536,
			PROT_READ | PROT_WRITE));
	there.mem_base = map + STACK - 65536;
	handle = GC_get_my_stackbottom(&base);
	check(handle && base.mem_base);
	getcontext(&there_context);
	there_context.uc_stack.ss_sp = map + 65536;
	there_context.uc_stack.ss_size = STACK - 2 * 65536;
	makecontext(&there_context, coroutine, 0);
	swapcontext(&own_context, &there_context);
	GC_set_stackbottom(NULL, &base);
	munmap(map, STACK);
	return arg;
}

static void coroutines_of_others(void)
{
	pushed_before = GC_get_push_other_roots();
	GC_set_push_other_roots(push_with_bottom);
	/* No collection until it is there. */
	GC_disable();
	check(!GC_pthread_create(&runner, NULL, goes_there, NULL));
	while (!__atomic_load_n(&is_there, __ATOMIC_ACQUIRE))
		usleep(100);
	GC_enable();
	for (int i = 0; i < 5; i++)
		churn_and_collect();
	GC_disable();
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	check(!GC_pthread_join(runner, NULL));
	GC_enable();
	churn_and_collect();
}

const struct test surface_tests[] = {
	{"finalizers: told of before they run", told_before},
	{"finalizers: all of them", all_of_them},
	{"the lock: one at a time", one_at_a_time},
	{"the lock: hidden references", hidden_references},
	{"marks: every reachable object", every_object},
	{"marks: of one object", marks},
	{"types: lengths", types_with_lengths},
	{"types: bitmaps", types_with_bitmaps},
	{"types: procedures", types_with_procedures},
	{"types: the debugging form", types_debugged},
	{"roots: segments that the program leaves out", segments_filtered},
	{"threads: told of when held", thread_events},
	{"threads: held by the program", suspended},
	{"threads: held by themselves", suspended_by_itself},
	{"threads: all held by the program", world_stopped},
	{"threads: their coroutines, told of in collections",
	 coroutines_of_others},
	{NULL, NULL},
};
