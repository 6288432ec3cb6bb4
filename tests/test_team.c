/* SPDX-License-Identifier: MIT */
/* Jobs of the marker team: every worker takes part once, and marking ends when
 * all work is done, wherever it was. */
#include <sched.h>

#include "gc/team.h"
#include "tests/marked.h"
#include "tests/short.h"

static unsigned ran[WG_MAX_MARKERS];

static void note(struct weir_heap *h, struct wg_marker *m, void *arg)
{
	cr_assert_eq(h, heap);
	cr_assert_eq(arg, ran);
	__atomic_fetch_add(&ran[m->index], 1, __ATOMIC_RELAXED);
}

Test(team, every_worker_runs_a_job_once)
{
	unsigned want[4] = {0};

	heap_open("heap-max=256m,barrier=none,heap-min=128m,markers=4");
	cr_assert_geq(heap->team->size, 4);
	for (unsigned i = 0; i < 2000; i++) {
		unsigned workers = i % 4 + 1;

		wg_team_run(heap, workers, note, ran);
		for (unsigned k = 0; k < 4; k++) {
			want[k] += k < workers;
			cr_assert_eq(ran[k], want[k], "job %u, worker %u", i,
				     k);
		}
	}
	heap_close();
}

Test(team, more_workers_than_there_are)
{
	heap_open("heap-max=256m,barrier=none,markers=2,pause-markers=2");
	wg_team_run(heap, 60, note, ran);
	cr_assert_eq(ran[0], 1);
	cr_assert_eq(ran[1], 1);
	cr_assert_eq(ran[2], 0);
	heap_close();
}

struct node {
	struct node *kid[2];
};

static struct node *tree(int depth)
{
	struct node *n = weir_alloc(self, sizeof(*n));

	if (depth) {
		n->kid[0] = tree(depth - 1);
		n->kid[1] = tree(depth - 1);
	}
	return n;
}

static size_t blacks(const struct node *n)
{
	if (!n)
		return 0;
	return black(n) + blacks(n->kid[0]) + blacks(n->kid[1]);
}

/* All work comes from one marker's stack; who else marks has stolen it. */
Test(team, marking_is_shared_and_ends)
{
	const size_t nodes = ((size_t)1 << 19) - 1;
	bool shared = false;
	struct node *t;

	heap_open("heap-max=256m,barrier=none,heap-min=192m,markers=4");
	t = tree(18);
	for (int round = 0; round < rounds(20) || (round < 20 && !shared);
	     round++) {
		uint64_t objects = 0;

		heap->colour ^= WG_BLACK_A ^ WG_BLACK_B;
		for (unsigned i = 0; i < 4; i++)
			heap->marker[i]->objects = 0;
		wg_push(heap->marker[0], (uintptr_t)t);
		wg_team_mark(heap, 4);
		cr_assert_eq(blacks(t), nodes);
		for (unsigned i = 0; i < 4; i++) {
			objects += heap->marker[i]->objects;
			shared |= i && heap->marker[i]->objects;
		}
		/* Two may have marked the same one at the same time. */
		cr_assert_geq(objects, nodes);
		cr_assert_leq(objects, nodes + nodes / 100);
	}
	cr_assert(shared, "no helper has marked anything in 20 rounds");
}

Test(team, no_work_is_an_end_too)
{
	heap_open("heap-max=256m,barrier=none,markers=4");
	for (int i = 0; i < 1000; i++)
		wg_team_mark(heap, 4);
	heap_close();
}
