/* SPDX-License-Identifier: MIT */
/* weir_root_data_segments() and weir_root_exclude(): what variables hold lives
 * or dies with them. */
#define _GNU_SOURCE
#include "tests/hidden.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>

#define OPTIONS "verify=on,poison=on,heap-min=64m,heap-max=256m"
#define SLOTS 64
#define PAGE 65536 /* the largest there is */

/* The only references, each in an object file of this program. */
static void *volatile slots[SLOTS];
static char page[PAGE] __attribute__((aligned(PAGE)));
/* Handles, which are no references into the heap. */
static weir_weak *weak[SLOTS];

/* ThreadSanitizer has data segments of its own; test_roots has tests of the
 * same there. */
static void skip_here(void)
{
#ifdef __SANITIZE_THREAD__
	cr_skip("ThreadSanitizer's own data segments take minutes to scan");
#endif
}

static long fill(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)arg;
	for (int i = 0; i < SLOTS; i++) {
		void *p = weir_alloc(m, 48);

		must(p);
		slots[i] = p;
		must(weir_weak_create(h, p, &weak[i]) == 0);
	}
	return 0;
}

static void make_all(weir_heap *h)
{
	hidden(h, fill, NULL);
}

static long count_alive(weir_heap *h, weir_mutator *m, void *arg)
{
	bool *which = arg;
	long n = 0;

	(void)h;
	(void)m;
	for (int i = 0; i < SLOTS; i++) {
		bool is = weir_weak_get(weak[i]) != NULL;

		n += is;
		if (which)
			which[i] = is;
	}
	return n;
}

static long living(weir_heap *h)
{
	return hidden(h, count_alive, NULL);
}

static void forget(void)
{
	for (int i = 0; i < SLOTS; i++) {
		weir_weak_destroy(weak[i]);
		slots[i] = NULL;
	}
}

/* ---- Switched ------------------------------------------------------------ */

Test(segments, variables_are_roots_while_switched_on)
{
	weir_heap *h;

	skip_here();
	h = hidden_heap(OPTIONS);
	for (int k = 0; k < 3; k++) {
		make_all(h);
		cr_assert_eq(weir_root_data_segments(h, 1), 0);
		minor(h);
		cr_assert_eq(living(h), SLOTS);
		full(h);
		cr_assert_eq(living(h), SLOTS);
		stopped(h);
		cr_assert_eq(living(h), SLOTS);
		cr_assert_eq(weir_root_data_segments(h, 0), 0);
		full(h);
		cr_assert_eq(living(h), 0);
		forget();
	}
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(segments, the_option_can_be_taken_back)
{
	weir_heap *h;

	skip_here();
	h = hidden_heap("data-segments=on," OPTIONS);
	make_all(h);
	full(h);
	cr_assert_eq(living(h), SLOTS);
	cr_assert_eq(weir_root_data_segments(h, 0), 0);
	full(h);
	cr_assert_eq(living(h), 0);
	forget();
	cr_assert_eq(weir_heap_destroy(h), 0);
}

static bool ended;

static void *collect_on(void *heap)
{
	while (!__atomic_load_n(&ended, __ATOMIC_RELAXED)) {
		minor(heap);
		full(heap);
	}
	return NULL;
}

/* In the heap's hands while it is attached and stopped at safepoints only. */
static long switch_on_and_off(weir_heap *h, weir_mutator *m, void *arg)
{
	(void)m;
	(void)arg;
	for (int k = 0; k < 100; k++) {
		must(weir_root_data_segments(h, 1) == 0);
		must(weir_root_data_segments(h, 0) == 0);
	}
	must(weir_root_data_segments(h, 1) == 0);
	return 0;
}

Test(segments, switched_beside_cycles)
{
	weir_heap *h;
	pthread_t t;

	skip_here();
	h = hidden_heap("stop=safepoints," OPTIONS);
	cr_assert_eq(pthread_create(&t, NULL, collect_on, h), 0);
	for (int k = 0; k < 10; k++) {
		/* What it has returned from holds for the cycle under way. */
		hidden(h, switch_on_and_off, NULL);
		make_all(h);
		full(h);
		cr_assert_eq(living(h), SLOTS);
		cr_assert_eq(weir_root_data_segments(h, 0), 0);
		full(h);
		full(h); /* the one under way may have seen them */
		cr_assert_eq(living(h), 0);
		forget();
	}
	__atomic_store_n(&ended, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Excluded ------------------------------------------------------------ */

Test(segments, excluded_ranges_are_no_roots)
{
	weir_heap *h;
	bool is[SLOTS], out[SLOTS] = {false};
	unsigned seed = 7;

	skip_here();
	h = hidden_heap("data-segments=on," OPTIONS);
	make_all(h);
	full(h);
	cr_assert_eq(living(h), SLOTS);
	for (int k = 0; k < 24; k++) {
		int from = rand_r(&seed) % SLOTS, n = rand_r(&seed) % 4;

		if (from + n > SLOTS)
			n = SLOTS - from;
		cr_assert_eq(weir_root_exclude(h, (void *)&slots[from],
					       (size_t)n * sizeof(slots[0])),
			     0);
		for (int i = from; i < from + n; i++)
			out[i] = true;
		full(h);
		hidden(h, count_alive, is);
		for (int i = 0; i < SLOTS; i++)
			cr_assert_eq(is[i], !out[i], "slot %d, round %d", i, k);
	}
	cr_assert_gt(living(h), 0);
	/* A byte of a word is enough. */
	cr_assert_eq(weir_root_exclude(h, (char *)&slots[0] + 3,
				       (SLOTS - 1) * sizeof(slots[0])),
		     0);
	full(h);
	cr_assert_eq(living(h), 0);
	forget();
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(segments, excluded_before_switched_on)
{
	weir_heap *h;

	skip_here();
	h = hidden_heap(OPTIONS);
	cr_assert_eq(weir_root_exclude(h, (void *)&slots[SLOTS / 2],
				       sizeof(slots) / 2),
		     0);
	cr_assert_eq(weir_root_data_segments(h, 1), 0);
	make_all(h);
	full(h);
	cr_assert_eq(living(h), SLOTS / 2);
	forget();
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(segments, registered_ranges_are_scanned_all_the_same)
{
	weir_heap *h;

	skip_here();
	h = hidden_heap("data-segments=on," OPTIONS);
	make_all(h);
	cr_assert_eq(weir_root_add(h, (void *)slots, sizeof(slots)), 0);
	cr_assert_eq(weir_root_exclude(h, (void *)slots, sizeof(slots)), 0);
	minor(h);
	full(h);
	cr_assert_eq(living(h), SLOTS);
	cr_assert_eq(weir_root_remove(h, (void *)slots, sizeof(slots)), 0);
	full(h);
	cr_assert_eq(living(h), 0);
	forget();
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* Made unreadable as soon as it is excluded, with a cycle anywhere. */
Test(segments, what_is_excluded_is_not_read)
{
	weir_heap *h;
	pthread_t t;

	skip_here();
	h = hidden_heap("data-segments=on," OPTIONS);
	cr_assert_eq(pthread_create(&t, NULL, collect_on, h), 0);
	usleep(20000);
	cr_assert_eq(weir_root_exclude(h, page, sizeof(page)), 0);
	cr_assert_eq(mprotect(page, sizeof(page), PROT_NONE), 0);
	usleep(100000);
	__atomic_store_n(&ended, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	full(h);
	stopped(h);
	cr_assert_eq(mprotect(page, sizeof(page), PROT_READ | PROT_WRITE), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Errors, fork -------------------------------------------------------- */

static weir_heap *callback_heap;
static int denied;

static void tries(weir_visitor *visitor, void *arg)
{
	(void)visitor;
	(void)arg;
	denied += weir_root_data_segments(callback_heap, 1) == -EDEADLK;
	denied += weir_root_exclude(callback_heap, page, 8) == -EDEADLK;
}

Test(segments, not_from_a_root_callback)
{
	weir_heap *h = hidden_heap(OPTIONS);

	callback_heap = h;
	cr_assert_eq(weir_root_add_callback(h, tries, NULL, 0), 0);
	full(h);
	cr_assert_geq(denied, 2);
	cr_assert_eq(denied % 2, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(segments, a_forked_child_has_both)
{
	weir_heap *h;
	int status;
	pid_t pid;

	skip_here();
#ifdef __SANITIZE_ADDRESS__
	cr_skip("fork with threads: not under the address sanitizer");
#endif
	h = hidden_heap(OPTIONS);
	make_all(h);
	cr_assert_eq(weir_root_exclude(h, (void *)&slots[SLOTS / 2],
				       sizeof(slots) / 2),
		     0);
	for (int on = 0; on < 2; on++) {
		/* First it is the child that switches it on. */
		if (on)
			cr_assert_eq(weir_root_data_segments(h, 1), 0);
		pid = fork();
		cr_assert_geq(pid, 0);
		if (pid == 0) {
			alarm(60);
			if (!on && weir_root_data_segments(h, 1))
				_exit(1);
			full(h);
			if (living(h) != SLOTS / 2)
				_exit(2);
			weir_root_data_segments(h, 0);
			full(h);
			_exit(living(h) ? 3 : 0);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFEXITED(status) && !WEXITSTATUS(status),
			  "child %d: status %x", on, status);
	}
	forget();
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Filtered -------------------------------------------------------------
 */

static int asked_of, leave_out; /* atomic */

static int scan_it(const char *name, const void *start, size_t size, void *arg)
{
	const char *here = (const char *)&slots;

	must(name && arg == &leave_out);
	__atomic_add_fetch(&asked_of, 1, __ATOMIC_RELAXED);
	return !__atomic_load_n(&leave_out, __ATOMIC_RELAXED) ||
	       here < (const char *)start || here >= (const char *)start + size;
}

Test(segments, filtered)
{
	weir_heap *h;

	skip_here();
	h = hidden_heap(OPTIONS ",data-segments=on");
	cr_assert_eq(weir_root_segment_filter(h, scan_it, &leave_out), 0);
	make_all(h);
	full(h);
	cr_assert_gt(asked_of, 0);
	cr_assert_eq(living(h), SLOTS);
	leave_out = 1;
	/* Only when the list is made anew. */
	full(h);
	cr_assert_eq(living(h), SLOTS);
	cr_assert_eq(weir_root_segment_filter(h, scan_it, &leave_out), 0);
	full(h);
	cr_assert_eq(living(h), 0);
	forget();
	cr_assert_eq(weir_root_segment_filter(h, NULL, NULL), 0);
	make_all(h);
	asked_of = 0;
	full(h);
	cr_assert_eq(living(h), SLOTS);
	cr_assert_eq(asked_of, 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

Test(segments, excluded_no_more)
{
	weir_heap *h;

	skip_here();
	h = hidden_heap(OPTIONS ",data-segments=on");
	cr_assert_eq(weir_root_exclude(h, (void *)slots, sizeof(slots)), 0);
	make_all(h);
	full(h);
	cr_assert_eq(living(h), 0);
	forget();
	cr_assert_eq(weir_root_exclude_none(h), 0);
	make_all(h);
	full(h);
	cr_assert_eq(living(h), SLOTS);
	/* And again. */
	cr_assert_eq(weir_root_exclude(h, (void *)slots, sizeof(slots)), 0);
	full(h);
	cr_assert_eq(living(h), 0);
	cr_assert_eq(weir_heap_destroy(h), 0);
}
