/* SPDX-License-Identifier: MIT */
/*
 * Numbers and reachability for a heap dump.
 *
 * An object's number is how many start before it: those before its 512
 * granules, from a table, and the bits below its own.  So an object costs no
 * more than its bits, and a table by address is not needed.
 *
 * What is alive in a snapshot and not reached from its roots by the words of
 * objects was found by trace functions, or is what these found alive, or it was
 * born black: the first of each such part, by address, is noted as an other.
 *
 *   all of it: the thread that dumps; one graph by one thread
 */
#include "gc/snap_graph.h"

#include <errno.h>

#define PART 512 /* granules that an entry of `before` stands for */

static int no_memory(void)
{
	return wr_error(ENOMEM, "no memory for a heap dump; free some, or dump "
				"a smaller heap");
}

/* The parts of the maps for what was in use. */
static int commit_space(struct wg_snap_graph *n, int sp)
{
	const struct weir_heap_snapshot *s = n->s;
	size_t from = (size_t)s->first[sp] * WG_BLOCK_GRANULES / 8;
	size_t to = (size_t)s->high[sp] * WG_BLOCK_GRANULES / 8;
	size_t page = s->sys->page_size;
	char *const map[] = {(char *)n->live, (char *)n->reached};

	from &= ~(page - 1);
	to = wr_sys_pages(s->sys, to);
	for (unsigned i = 0; i < 2 && from < to; i++)
		if (s->sys->commit(map[i] + from, to - from, false))
			return no_memory();
	/* A 64th of the maps, whole pages. */
	from = from / 8 & ~(page - 1);
	to = wr_sys_pages(s->sys, to / 8);
	return from < to && s->sys->commit((char *)n->before + from, to - from,
					   false)
		       ? no_memory()
		       : 0;
}
_Static_assert(PART == 8 * 64, "an entry of `before` for 8 words of a map");

static void number(struct wg_snap_graph *n)
{
	const struct weir_heap_snapshot *s = n->s;

	for (int sp = 0; sp < 2; sp++) {
		size_t g = (size_t)s->first[sp] * WG_BLOCK_GRANULES;
		size_t end = (size_t)s->high[sp] * WG_BLOCK_GRANULES;
		size_t next = g;
		bool more = wg_snap_next(s, &next);

		for (; g < end; g += PART) {
			n->before[g / PART] = n->objects;
			while (more && next < g + PART) {
				n->live[next / 64] |= 1ull << (next % 64);
				n->objects++;
				next += wg_snap_bytes(s, next) >>
					WEIR_GRANULE_SHIFT;
				more = wg_snap_next(s, &next);
			}
		}
	}
}

uint64_t wg_snap_number(const struct wg_snap_graph *n, size_t g)
{
	uint64_t number = n->before[g / PART];

	for (size_t i = g / PART * (PART / 64); i < g / 64; i++)
		number += (uint64_t)__builtin_popcountll(n->live[i]);
	return number + (uint64_t)__builtin_popcountll(
				n->live[g / 64] & ((1ull << (g % 64)) - 1));
}

/* ---- What is reached ----------------------------------------------------- */

struct walk {
	struct wg_snap_graph *n;
	struct wg_snap_table stack; /* size_t: granules, reached, not scanned */
	bool lost;                  /* no memory for one */
};

static bool reach(struct walk *w, size_t g)
{
	uint64_t *word = &w->n->reached[g / 64];
	size_t *entry;

	if (*word >> (g % 64) & 1)
		return true;
	*word |= 1ull << (g % 64);
	entry = wg_snap_add(&w->stack, sizeof(*entry));
	if (entry)
		*entry = g;
	else
		w->lost = true;
	return !w->lost;
}

static bool follow(void *arg, size_t to, uint32_t kind, uint32_t word)
{
	(void)word;
	return kind == WEIR_REFERENCE_KEY || kind == WEIR_REFERENCE_LINK ||
	       reach(arg, to);
}

static bool drain(struct walk *w)
{
	const struct weir_heap_snapshot *s = w->n->s;

	while (w->stack.count && !w->lost) {
		size_t g = ((size_t *)w->stack.entries)[--w->stack.count];
		size_t link = wg_snap_first_link(
			s, s->base + (g << WEIR_GRANULE_SHIFT));

		wg_snap_refs(s, g, &link, follow, w);
	}
	return !w->lost;
}

static bool reach_roots(struct walk *w)
{
	const struct weir_heap_snapshot *s = w->n->s;
	const struct wg_snap_root *root = s->roots.entries;
	const struct wg_snap_source *source = s->sources.entries;

	for (size_t i = 0; i < s->roots.count && !w->lost; i++)
		if (wg_snap_root_strong(source[root[i].source].kind))
			reach(w,
			      (root[i].object - s->base) >> WEIR_GRANULE_SHIFT);
	return drain(w);
}

static bool reach_others(struct walk *w)
{
	struct wg_snap_graph *n = w->n;

	for (size_t g = 0; wg_snap_next(n->s, &g) && !w->lost;) {
		if (!(n->reached[g / 64] >> (g % 64) & 1)) {
			size_t *other = wg_snap_add(&n->others, sizeof(*other));

			if (!other)
				return false;
			*other = g;
			if (!reach(w, g) || !drain(w))
				return false;
		}
		g += wg_snap_bytes(n->s, g) >> WEIR_GRANULE_SHIFT;
	}
	return !w->lost;
}

static bool count_one(void *arg, size_t to, uint32_t kind, uint32_t word)
{
	(void)to, (void)kind, (void)word;
	++*(uint64_t *)arg;
	return true;
}

static void count_edges(struct wg_snap_graph *n)
{
	size_t link = 0;

	for (size_t g = 0; wg_snap_next(n->s, &g);) {
		wg_snap_refs(n->s, g, &link, count_one, &n->edges);
		g += wg_snap_bytes(n->s, g) >> WEIR_GRANULE_SHIFT;
	}
}

int wg_snap_graph_make(struct wg_snap_graph *n,
		       const struct weir_heap_snapshot *s)
{
	size_t map =
		wr_sys_pages(s->sys, (s->extent >> WEIR_GRANULE_SHIFT) / 8);
	size_t before = wr_sys_pages(s->sys, map / 8);
	struct walk w = {.n = n};
	char *p;
	bool done;

	*n = (struct wg_snap_graph){.s = s, .bytes = 2 * map + before};
	p = s->sys->reserve(n->bytes, s->sys->page_size);
	if (!p)
		return no_memory();
	n->live = (uint64_t *)(void *)p;
	n->reached = (uint64_t *)(void *)(p + map);
	n->before = (uint64_t *)(void *)(p + 2 * map);
	if (commit_space(n, 0) || commit_space(n, 1)) {
		wg_snap_graph_free(n);
		return -ENOMEM;
	}
	number(n);
	done = reach_roots(&w) && reach_others(&w);
	wg_snap_table_free(&w.stack, sizeof(size_t));
	if (!done) {
		wg_snap_graph_free(n);
		return no_memory();
	}
	count_edges(n);
	return 0;
}

void wg_snap_graph_free(struct wg_snap_graph *n)
{
	wg_snap_table_free(&n->others, sizeof(size_t));
	if (n->live)
		n->s->sys->release(n->live, n->bytes);
	n->live = NULL;
}
