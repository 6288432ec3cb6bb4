/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of the heap while all else goes on, and what they must hold: a
 * reference is stored beside the number of the object that it refers to, so
 * each node of a snapshot tells what its targets must be, in the same snapshot.
 *
 * A thread may have been stopped in the middle of storing one: between the two
 * words.  So as many may be wrong as there are threads, and no more.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <weir/heap_snapshot.h>

#include "tests/torture/torture.h"

struct look {
	const weir_heap_snapshot *s;
	struct worker *w;
	uint64_t nodes;  /* seen */
	uint64_t edges;  /* followed */
	unsigned wrong;  /* of them */
	char first[160]; /* the first of these, in words */
};

/* The node that an object of the snapshot is, or NULL: none, or not yet. */
static const struct node *node_in(const struct weir_heap_object *o)
{
	const struct node *p = o->data;

	return o->bytes >= sizeof(*p) && node_whole(p) && p->size <= o->bytes
		       ? p
		       : NULL;
}

static void follow(struct look *l, const struct weir_heap_object *from,
		   const struct node *p, unsigned i)
{
	struct weir_heap_object o;
	const struct node *to = NULL;
	uint64_t want;
	char *raw = edge_in(p, i, &want);
	int err;

	if (!raw || !want)
		return;
	l->edges++;
	raw -= WANT_OFFSET(want);
	err = weir_heap_snapshot_object(l->s, raw, &o);
	if (!err && o.address == raw)
		to = node_in(&o);
	if (to && to->id == WANT_ID(want))
		return;
	if (!l->wrong++)
		snprintf(l->first, sizeof(l->first),
			 "field %u of node %#llx at %p leads to %p, which "
			 "should be %#llx and is %s%#llx",
			 i, (unsigned long long)p->id, from->address,
			 (void *)raw, (unsigned long long)WANT_ID(want),
			 to ? "" : "none, ",
			 (unsigned long long)(to ? to->id : 0));
}

static int look_at(const struct weir_heap_object *o, void *arg)
{
	struct look *l = arg;
	const struct node *p = node_in(o);

	if (!p)
		return 0;
	l->nodes++;
	for (unsigned i = 0; i < p->edges; i++)
		follow(l, o, p, i);
	return 0;
}

static void dump(struct worker *w, const weir_heap_snapshot *s)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), err;

	if (fd < 0)
		return;
	err = weir_heap_snapshot_dump_fd(s, fd);
	close(fd);
	if (err)
		fail(w, "weir_heap_snapshot_dump_fd: error %d, %s", -err,
		     weir_error_text());
}

void dump_step(struct worker *w)
{
	struct look l = {.w = w};
	weir_heap_snapshot *s;
	int err = weir_heap_snapshot_take(heap, &s);

	if (err)
		fail(w, "weir_heap_snapshot_take: error %d, %s", -err,
		     weir_error_text());
	l.s = s;
	weir_heap_snapshot_each(s, look_at, &l);
	if (l.wrong > cfg.threads)
		fail(w,
		     "snapshot: %u references of %llu are wrong, of %llu "
		     "nodes; %s",
		     l.wrong, (unsigned long long)l.edges,
		     (unsigned long long)l.nodes, l.first);
	if (one_in(w, 4))
		dump(w, s);
	weir_heap_snapshot_free(s);
	w->n.snapshots++;
	w->n.checks += l.edges;
}
