/* SPDX-License-Identifier: MIT */
/* The verifier finds a reachable object that was not marked, whatever refers to
 * it, and says nothing when there is none. */
#include <pthread.h>
#include <signal.h>

#include "gc/mark.h"
#include "gc/verify.h"
#include "tests/heap_util.h"

static void *root[2];
static weir_kind traced;

static void visit_first(void *object, size_t size, weir_visitor *v, void *arg)
{
	(void)size;
	(void)arg;
	weir_visit(v, *(void **)object);
}

/* A thread that is none of the heap's stops the others and looks. */
static void *verify(void *arg)
{
	(void)arg;
	wr_roots_pause_begin(heap->roots);
	wr_threads_stop_world(heap->threads, NULL);
	wg_verify(heap, true);
	wr_threads_resume_world(heap->threads);
	wr_roots_pause_end(heap->roots);
	return NULL;
}

/* root[0] -> conservative -> traced -> leaf, all of them marked. */
static void open_marked(void)
{
	void **a, **b, *c;

	heap_open("heap-max=256m,heap-min=128m,barrier=none");
	cr_assert_eq(weir_kind_trace(heap, visit_first, NULL, 0, &traced), 0);
	cr_assert_eq(weir_root_add(heap, root, sizeof(root)), 0);
	root[0] = a = weir_alloc(self, 64);
	a[3] = b = weir_alloc_kind(self, 32, traced);
	b[0] = c = weir_alloc_leaf(self, 40);
	cr_assert_not_null(c);
	weir_collect(heap, WEIR_COLLECT_FULL);
}

static void unmark(void *p)
{
	uint8_t *byte = &heap->meta[wg_granule_of(heap, (uintptr_t)p)];

	cr_assert(*byte & WEIR_META_COLOUR);
	*byte = (uint8_t)((*byte & ~WEIR_META_COLOUR) | WG_YOUNG);
}

Test(verify, all_is_marked)
{
	open_marked();
	run_thread(verify, NULL);
	heap_close();
}

/* On threads of their own, so that no stack refers to the leaf: what stacks
 * lead to is always to be marked. */

static uintptr_t gone, hidden_leaf;

static void *make_words(void *arg)
{
	weir_mutator *m;
	uintptr_t *a;

	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	root[0] = a = weir_alloc(m, 64);
	a[3] = (uintptr_t)weir_alloc_leaf(m, 48);
	/* Far behind all that is allocated. */
	a[4] = gone = a[3] + ((uintptr_t)16 << 20) + 1;
	hidden_leaf = ~a[3];
	cr_assert_eq(weir_thread_detach(m), 0);
	return arg;
}

/* As if it had come there since. */
static void *unmark_leaf(void *arg)
{
	cr_assert_not(wg_verify_is_stray(heap, ~hidden_leaf));
	unmark((void *)~hidden_leaf);
	wg_verify_stray(heap, ~hidden_leaf);
	return arg;
}

/* Words that refer to nothing are noted, until a full cycle reads them anew:
 * what is made there later need not be marked. */
Test(verify, reached_from_a_stray_word)
{
	heap_open("heap-max=256m,heap-min=128m,barrier=none,verify=on");
	cr_assert_eq(weir_root_add(heap, root, sizeof(root)), 0);
	run_thread(make_words, NULL);
	weir_collect(heap, WEIR_COLLECT_FULL);
	cr_assert(wg_verify_is_stray(heap, gone));
	run_thread(unmark_leaf, NULL);
	run_thread(verify, NULL);
	((uintptr_t *)root[0])[4] = 0;
	weir_collect(heap, WEIR_COLLECT_FULL);
	cr_assert_not(wg_verify_is_stray(heap, gone));
	heap_close();
}

Test(verify, reached_from_a_root, .signal = SIGABRT)
{
	open_marked();
	unmark(root[0]);
	run_thread(verify, NULL);
}

Test(verify, reached_from_words, .signal = SIGABRT)
{
	open_marked();
	unmark(((void **)root[0])[3]);
	run_thread(verify, NULL);
}

Test(verify, reached_through_a_callback, .signal = SIGABRT)
{
	open_marked();
	unmark(*(void **)((void **)root[0])[3]);
	run_thread(verify, NULL);
}

Test(verify, reached_from_a_stack, .signal = SIGABRT)
{
	void *volatile mine;

	open_marked();
	mine = weir_alloc(self, 32);
	run_thread(verify, NULL);
	cr_assert_not_null(mine);
}
