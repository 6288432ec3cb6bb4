/* SPDX-License-Identifier: MIT */
/*
 * What the cases of input_cases.def do: heaps, mutators and handles in every
 * state, and calls from regions, callbacks and finalizers.  Each case runs in
 * a process of its own, which need not clean up.
 */
#ifndef WEIR_TESTS_INPUT_ACTS_H
#define WEIR_TESTS_INPUT_ACTS_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <weir/embed.h>
#include <weir/heap_snapshot.h>

#include "gc/heap.h"

/* ---- What the cases are made of ------------------------------------------ */

static weir_heap *heap, *spare_heap;
static weir_mutator *self, *spare;
static weir_weak *weak;
static weir_kind kind;
static const uint64_t bits = 1;
static struct weir_stats stats = {.size = sizeof(stats)};

/* See tests/heap_util.h for why. */
#ifdef __SANITIZE_THREAD__
#define STOP ",stop=safepoints"
#else
#define STOP ""
#endif
#define OPTIONS "heap-max=64m,markers=1,pause-markers=1" STOP

/* In a child, where no framework looks. */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "set-up of the case: %s: %s\n", what,
		weir_error_text());
	_exit(255);
}

/* The error of a call by its result.  Functions that return pointers must set
 * errno as well. */
static int code(long result)
{
	return result < 0 ? (int)-result : 0;
}

static int null(const void *result)
{
	return result ? 0 : errno;
}

static int zero(size_t result)
{
	return result ? 0 : errno;
}

/* Of a call that returns nothing: the text tells. */
static int said(int nothing)
{
	return *weir_error_text() ? errno : nothing;
}

static int collects_out_of_memory(weir_heap *h, size_t bytes, void *arg);

/* Arguments are evaluated in any order: what is there is not made again.
 *
 * A heap that this thread is not attached to. */
static weir_heap *alone(void)
{
	struct weir_heap_options o = {
		.size = sizeof(o),
		.oom = collects_out_of_memory,
		.options = OPTIONS,
	};

	if (!heap)
		must(!weir_heap_create(&o, &heap), "create");
	errno = 0;
	return heap;
}

static weir_heap *live(void)
{
	alone();
	if (!self)
		must(!weir_thread_attach(heap, &self), "attach");
	errno = 0;
	return heap;
}

static weir_mutator *mine(void)
{
	live();
	return self;
}

/* A heap, or a mutator, that was destroyed. */
static weir_heap *stale(void)
{
	must(!weir_heap_destroy(live()), "destroy");
	errno = 0;
	return heap;
}

static weir_mutator *stale_mutator(void)
{
	stale();
	return self;
}

static sem_t theirs_known;

static void *sleeps(void *arg)
{
	sem_post(&theirs_known);
	for (;;)
		pause();
	return arg;
}

static void *attached_thread(void *arg)
{
	weir_mutator **m = arg;

	must(!weir_thread_attach(heap, m), "attach");
	return weir_blocking_call(*m, sleeps, NULL);
}

/* A mutator of another thread; this one is not attached. */
static weir_mutator *unattached(void)
{
	pthread_t t;

	alone();
	sem_init(&theirs_known, 0, 0);
	must(!pthread_create(&t, NULL, attached_thread, &spare), "thread");
	while (sem_wait(&theirs_known))
		;
	errno = 0;
	return spare;
}

/* The same, with this one attached, too. */
static weir_mutator *theirs(void)
{
	unattached();
	live();
	return spare;
}

/* Memory that the library knows nothing of. */
static void *foreign(void)
{
	static char memory[4096];

	return memory;
}

static char *object(void)
{
	char *p = weir_alloc(mine(), 64);

	must(p, "alloc");
	return p;
}

static weir_weak *a_weak(void)
{
	live();
	must(!weir_weak_create(heap, object(), &weak), "weak reference");
	return weak;
}

static weir_weak *dead_weak(void)
{
	weir_weak_destroy(a_weak());
	return weak;
}

static weir_weak *stale_weak(void)
{
	must(!weir_heap_destroy((a_weak(), heap)), "destroy");
	return weak;
}

static weir_weak *unattached_weak(void)
{
	must(!weir_thread_detach((a_weak(), self)), "detach");
	return weak;
}

/* Allocate until it fails. */
static int fill(void *(*alloc)(weir_mutator *, size_t))
{
	void **p, **last = NULL;
	static void *keep[1 << 17];
	size_t n = 0;

	live();
	must(!weir_root_add(heap, keep, sizeof(keep)), "root");
	while ((p = alloc(self, 1000))) {
		must(n < sizeof(keep) / sizeof(*keep), "the heap has an end");
		keep[n++] = last = p;
	}
	(void)last;
	return errno;
}

/* ---- In regions ---------------------------------------------------------- */

typedef int case_fn(void);

struct call {
	case_fn *fn; /* what to run */
	int result;  /* its result */
	bool ran;    /* it ran */
};

static void *run_call(void *arg)
{
	struct call *c = arg;

	c->result = c->fn();
	c->ran = true;
	return arg;
}

static int in_region(case_fn *fn)
{
	struct call c = {.fn = fn};

	weir_blocking_call(mine(), run_call, &c);
	must(c.ran, "the region");
	return c.result;
}

static int unblocked(case_fn *fn)
{
	struct call c = {.fn = fn};

	weir_unblocked_call(self, run_call, &c);
	must(c.ran, "the call");
	return c.result;
}

static void *same(void *arg)
{
	return arg;
}

static int region_destroy(void)
{
	return code(weir_heap_destroy(heap));
}

static int region_unblocked_destroy(void)
{
	return unblocked(region_destroy);
}

static int region_detach(void)
{
	return code(weir_thread_detach(self));
}

static int region_unblocked_detach(void)
{
	return unblocked(region_detach);
}

static int region_collect(void)
{
	return code(weir_collect(heap, 0));
}

static int region_nested(void)
{
	return null(weir_blocking_call(self, same, &spare));
}

static int region_unblocked_null(void)
{
	return null(weir_unblocked_call(self, NULL, NULL));
}

static int call_unblocked(void)
{
	return null(weir_unblocked_call(self, same, &spare));
}

static int region_unblocked_twice(void)
{
	return unblocked(call_unblocked);
}

static int region_safepoint(void)
{
	return said((weir_safepoint_slow(self), 0));
}

static int region_alloc(void)
{
	return null(weir_alloc(self, 16));
}

static int region_alloc_leaf(void)
{
	return null(weir_alloc_leaf(self, 16));
}

static int region_alloc_kind(void)
{
	return null(weir_alloc_kind(self, 16, 0));
}

static int region_alloc_aligned(void)
{
	return null(weir_alloc_aligned(self, 16, 64, 0));
}

static int region_run_all(void)
{
	return code(weir_finalizers_run_all(self));
}

static int region_disclaim_run(void)
{
	return code(weir_disclaim_run(self, 0));
}

static int region_finalizers_run(void)
{
	return code(weir_finalizers_run(self, 0));
}

static int make_weak(void)
{
	return code(weir_weak_create(heap, object(), &weak));
}

static int region_weak_get(void)
{
	must(!unblocked(make_weak), "weak reference");
	return null(weir_weak_get(weak));
}

static int region_set_stack(void)
{
	return code(weir_thread_set_stack(self, NULL));
}

static int disable_enable(void)
{
	int err = code(weir_collect_disable(heap));

	return err ? err : code(weir_collect_enable(heap));
}

static int hold_release(void)
{
	int err = code(weir_collect_hold(heap));

	return err ? err : code(weir_collect_release(heap));
}

static int region_ephemeron(void)
{
	return null(weir_ephemeron_create(self, &spare, NULL));
}

/* Within weir_locked_call(). */
static int in_locked(case_fn *fn)
{
	struct call c = {.fn = fn};

	weir_locked_call(live(), run_call, &c);
	must(c.ran, "the locked call");
	return c.result;
}

/* ---- In callbacks -------------------------------------------------------- */

static case_fn *in_callback;
static weir_visitor *visitor;
static int callback_result;
static char callback_text[512]; /* on its thread */
static bool called;

static void note_call(weir_visitor *v)
{
	if (called)
		return;
	visitor = v;
	callback_result = in_callback();
	snprintf(callback_text, sizeof(callback_text), "%s", weir_error_text());
	called = true;
}

static int result_of_call(void)
{
	must(called, "the callback");
	/* What this thread would have read. */
	fprintf(stderr, "%s\n", callback_text);
	return callback_result;
}

static void trace(void *p, size_t size, weir_visitor *v, void *arg)
{
	(void)p;
	(void)size;
	(void)arg;
	note_call(v);
}

static void root(weir_visitor *v, void *arg)
{
	(void)arg;
	note_call(v);
}

static int in_trace(case_fn *fn)
{
	void *volatile p;

	in_callback = fn;
	live();
	must(!weir_kind_trace(heap, trace, NULL, 0, &kind), "kind");
	must(!weir_weak_create(heap, object(), &weak), "weak reference");
	p = weir_alloc_kind(self, 64, kind);
	must(p && !weir_collect(heap, 0), "collection");
	return result_of_call();
}

static int in_root(case_fn *fn)
{
	in_callback = fn;
	live();
	must(!weir_root_add_callback(heap, root, NULL, 0), "callback");
	must(!weir_collect(heap, 0), "collection");
	return result_of_call();
}

static int callback_create(void)
{
	return code(weir_heap_create(NULL, &spare_heap));
}

static int callback_destroy(void)
{
	return code(weir_heap_destroy(heap));
}

static int callback_set_limits(void)
{
	return code(weir_heap_set_limits(heap, 0, 0));
}

static int callback_collect(void)
{
	return code(weir_collect(heap, WEIR_COLLECT_NOWAIT));
}

static int callback_attach(void)
{
	return code(weir_thread_attach(heap, &spare));
}

static int callback_alloc(void)
{
	return null(weir_alloc(self, 16));
}

static int callback_visit(void)
{
	weir_visit(visitor, NULL);
	weir_visit(visitor, &spare);
	weir_visit(visitor, (void *)UINTPTR_MAX);
	return said(0);
}

static int callback_visit_backwards(void)
{
	return said((weir_visit_range(visitor, &spare + 1, &spare), 0));
}

static int callback_visit_nothing(void)
{
	return said((weir_visit_range(visitor, NULL, NULL), 0));
}

static int callback_bitmap(void)
{
	return code(weir_kind_bitmap(heap, &bits, 4, &kind));
}

static int callback_kind_trace(void)
{
	return code(weir_kind_trace(heap, trace, NULL, 0, &kind));
}

static int disclaim(void *p, void *arg)
{
	(void)p;
	(void)arg;
	return 0;
}

static weir_kind disclaiming(void)
{
	weir_kind k;

	must(!weir_kind_disclaim(live(), 0, disclaim, NULL, 0, &k), "kind");
	errno = 0;
	return k;
}

static int callback_kind_disclaim(void)
{
	return code(weir_kind_disclaim(heap, 0, disclaim, NULL, 0, &kind));
}

static int callback_root_add(void)
{
	return code(weir_root_add(heap, &spare, 8));
}

static int callback_root_remove(void)
{
	return code(weir_root_remove(heap, &spare, 8));
}

static int callback_add_callback(void)
{
	return code(weir_root_add_callback(heap, root, NULL, 0));
}

static int callback_remove_callback(void)
{
	return code(weir_root_remove_callback(heap, root, NULL));
}

static void finalizer(void *p, void *arg)
{
	(void)p;
	(void)arg;
	callback_result = in_callback();
	called = true;
}

static int callback_finalizer_set(void)
{
	return code(weir_finalizer_set(heap, &spare, finalizer, NULL, 0));
}

static int callback_weak_create(void)
{
	return code(weir_weak_create(heap, &spare, &weak));
}

static int callback_weak_set(void)
{
	return code(weir_weak_set(weak, NULL));
}

static int callback_weak_destroy(void)
{
	return said((weir_weak_destroy(weak), 0));
}

static void *word; /* a link's */

static void event(weir_heap *h, enum weir_event e, void *arg)
{
	(void)h;
	(void)e;
	(void)arg;
	note_call(NULL);
}

static int in_event(case_fn *fn)
{
	in_callback = fn;
	live();
	must(!weir_heap_on_event(heap, event, NULL), "handler");
	must(!weir_collect(heap, 0), "collection");
	return result_of_call();
}

static int begin_and_end(void)
{
	int err = weir_locked_begin(heap);

	if (err)
		return code(err);
	return code(weir_locked_end(heap));
}

static int marked_nothing(void)
{
	return code(weir_object_marked(heap, &spare));
}

static weir_mutator *foreign_mutator(void)
{
	return (weir_mutator *)(void *)&spare;
}

/* To what it is. */
static int set_own_stack(void)
{
	return code(weir_thread_set_stack_of(heap, self,
					     (void *)self->thread.stack_base));
}

static int suspend_self(void)
{
	return code(weir_thread_suspend(heap, pthread_self()));
}

static int am_suspended(void)
{
	return code(weir_thread_suspended(heap, pthread_self()));
}

static int suspend_all(void)
{
	int err = weir_threads_suspend_begin(heap);

	if (err)
		return code(err);
	return code(weir_threads_suspend_end(heap));
}

static void each_object(void *p, size_t size, void *arg)
{
	(void)p;
	(void)size;
	(void)arg;
}

static int each_with_lock(void)
{
	return code(weir_object_each(heap, each_object, NULL));
}

static void each_thread(pthread_t t, void *arg)
{
	(void)t;
	(void)arg;
}

static void queued(void *p, void *arg)
{
	(void)p;
	(void)arg;
}

static int callback_on_queued(void)
{
	return code(weir_finalizers_on_queued(heap, queued, NULL));
}

static int callback_exclude_none(void)
{
	return code(weir_root_exclude_none(heap));
}

static int segment(const char *name, const void *start, size_t size, void *arg)
{
	(void)name;
	(void)start;
	(void)size;
	(void)arg;
	return 1;
}

static int callback_filter(void)
{
	return code(weir_root_segment_filter(heap, segment, NULL));
}

static int callback_link_add(void)
{
	return code(weir_link_add(heap, &word, &spare, 0));
}

static int callback_link_remove(void)
{
	return code(weir_link_remove(heap, &word, 0));
}

static int callback_link_move(void)
{
	return code(weir_link_move(heap, &word, &word, 0));
}

static int callback_locked(void)
{
	return null(weir_locked_call(heap, same, &spare));
}

static int callback_disable(void)
{
	return code(weir_collect_disable(heap));
}

static int callback_enable(void)
{
	return code(weir_collect_enable(heap));
}

static int callback_reserve(void)
{
	return code(weir_heap_reserve(heap, 1));
}

static int callback_hold(void)
{
	return code(weir_collect_hold(heap));
}

static int callback_release(void)
{
	return code(weir_collect_release(heap));
}

static int callback_on_event(void)
{
	return code(weir_heap_on_event(heap, NULL, NULL));
}

static int callback_segments(void)
{
	return code(weir_root_data_segments(heap, 0));
}

static int callback_exclude(void)
{
	return code(weir_root_exclude(heap, &spare, 8));
}

/* A link of `word` to an object. */
static void **linked(void)
{
	must(weir_link_add(live(), &word, object(), 0) >= 0, "link");
	errno = 0;
	return &word;
}

static void **linked_too(void)
{
	static void *other;

	must(weir_link_add(live(), &other, object(), 0) >= 0, "link");
	errno = 0;
	return &other;
}

static int disabled_collect(void)
{
	must(!weir_collect_disable(live()), "disable");
	return code(weir_collect(heap, 0));
}

static __attribute__((noinline)) void drop_objects(void)
{
	for (int i = 0; i < 1000; i++)
		must(!weir_finalizer_set(heap, object(), finalizer, NULL, 0),
		     "finalizer");
}

static int in_finalizer(case_fn *fn)
{
	in_callback = fn;
	live();
	drop_objects();
	must(!weir_collect(heap, 0), "collection");
	must(weir_finalizers_run(self, 1) == 1, "finalizers");
	must(called, "the finalizer");
	return callback_result;
}

#define finalizer_destroy region_destroy
#define finalizer_detach region_detach
#define oom_destroy region_destroy
#define oom_detach region_detach

/* Only for in_oom(). */
static int collects_out_of_memory(weir_heap *h, size_t bytes, void *arg)
{
	(void)h;
	(void)bytes;
	(void)arg;
	if (in_callback)
		note_call(NULL);
	return 0;
}

static int in_oom(case_fn *fn)
{
	void *volatile keep;

	in_callback = fn;
	keep = weir_alloc(mine(), (size_t)63 << 20);
	must(!keep || !weir_alloc(self, (size_t)63 << 20) || !keep,
	     "no memory");
	return result_of_call();
}

/* ---- Snapshots of the heap ------------------------------------------------
 */

static weir_heap_snapshot *spare_shot;

static int take_shot(void)
{
	return code(weir_heap_snapshot_take(heap, &spare_shot));
}

static weir_heap_snapshot *shot(void)
{
	live();
	must(!take_shot(), "snapshot");
	errno = 0;
	return spare_shot;
}

/* One that was freed. */
static weir_heap_snapshot *old_shot(void)
{
	weir_heap_snapshot *s = shot();

	weir_heap_snapshot_free(s);
	errno = 0;
	return s;
}

static int dump_nowhere(void)
{
	return code(weir_heap_dump(heap, "/nowhere/at/all"));
}

static int name_kind(void)
{
	return code(weir_kind_name(heap, WEIR_KIND_LEAF, "leaf"));
}

static int no_object(const struct weir_heap_object *o, void *arg)
{
	(void)o, (void)arg;
	return 0;
}

static int no_reference(const void *to, enum weir_heap_reference how,
			size_t word, void *arg)
{
	(void)to, (void)how, (void)word, (void)arg;
	return 0;
}

static int no_root(const void *to, enum weir_heap_root r, const char *name,
		   const void *where, void *arg)
{
	(void)to, (void)r, (void)name, (void)where, (void)arg;
	return 0;
}

static int no_pages(void *arg, const struct weir_snapshot_run *runs,
		    size_t count)
{
	(void)arg, (void)runs, (void)count;
	return 0;
}

#endif
