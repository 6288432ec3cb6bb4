/* SPDX-License-Identifier: MIT */
/* The work-stealing deque: order, capacity, and no segment lost or doubled. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#include "gc/mark.h"

#define COUNT 200000

static struct wg_deque deque;
static struct wg_segment *segments;
static uint8_t *taken;

Test(deque, owner_sees_a_stack_and_thieves_a_queue)
{
	struct wg_segment s[3];

	cr_assert(wg_deque_empty(&deque));
	for (int i = 0; i < 3; i++)
		cr_assert(wg_deque_push(&deque, &s[i]));
	cr_assert_eq(wg_deque_steal(&deque), &s[0]);
	cr_assert_eq(wg_deque_pop(&deque), &s[2]);
	cr_assert_eq(wg_deque_pop(&deque), &s[1]);
	cr_assert_null(wg_deque_pop(&deque));
	cr_assert_null(wg_deque_steal(&deque));
}

Test(deque, a_full_deque_refuses)
{
	struct wg_segment s;

	for (int i = 0; i < WG_DEQUE; i++)
		cr_assert(wg_deque_push(&deque, &s));
	cr_assert_not(wg_deque_push(&deque, &s));
	cr_assert_not_null(wg_deque_steal(&deque));
	cr_assert(wg_deque_push(&deque, &s));
}

static int done;

static void take(struct wg_segment *s)
{
	size_t i = (size_t)s->n;

	if (__atomic_fetch_add(&taken[i], 1, __ATOMIC_RELAXED))
		cr_assert_fail("segment %zu was taken twice", i);
}

static void *thief(void *arg)
{
	uint64_t *got = arg;

	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE) ||
	       !wg_deque_empty(&deque)) {
		struct wg_segment *s = wg_deque_steal(&deque);

		if (s) {
			take(s);
			++*got;
		}
	}
	return NULL;
}

Test(deque, nothing_is_lost_or_taken_twice)
{
	pthread_t t[2];
	uint64_t got[2] = {0, 0}, own = 0;
	size_t i = 0;

	segments = calloc(COUNT, sizeof(struct wg_segment *) * 8);
	taken = calloc(COUNT, 1);
	cr_assert(segments && taken);
	for (int k = 0; k < 2; k++)
		cr_assert_eq(pthread_create(&t[k], NULL, thief, &got[k]), 0);
	/* Only the header of a segment is used: they may overlap. */
	while (i < COUNT) {
		struct wg_segment *s =
			(struct wg_segment *)(void *)((char *)segments +
						      i * 64);

		s->n = i;
		if (wg_deque_push(&deque, s))
			i++;
		if (i % 3 == 0) {
			s = wg_deque_pop(&deque);
			if (s) {
				take(s);
				own++;
			}
		}
	}
	__atomic_store_n(&done, 1, __ATOMIC_RELEASE);
	for (int k = 0; k < 2; k++)
		pthread_join(t[k], NULL);
	cr_assert_eq(own + got[0] + got[1], COUNT);
	for (i = 0; i < COUNT; i++)
		cr_assert_eq(taken[i], 1, "segment %zu", i);
}
