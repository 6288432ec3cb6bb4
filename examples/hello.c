/* SPDX-License-Identifier: MIT */
/*
 * The smallest whole program on weir: a heap, a thread, a list, a collection,
 * some figures.  With the library installed:
 *
 *	cc hello.c $(pkg-config --cflags --libs weir) -o hello && ./hello
 */
#include <weir/weir.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Ordinary C: the collector finds the references in it by itself. */
struct node {
	struct node *next; /* the node that was added before this one */
	char *text;        /* a leaf: memory without references */
};

/* A static variable is a root only if weir is told, see weir_root_add(). */
static struct node *list;

static int failed(const char *what, int err)
{
	/* Every failure has a text that names the cause and the cure. */
	fprintf(stderr, "hello: %s: %s: %s\n", what, strerror(-err),
		weir_error_text());
	return 1;
}

static struct node *add(weir_mutator *self, struct node *next, unsigned number)
{
	char text[32];
	int length = snprintf(text, sizeof(text), "number %u", number);
	/* The result is zeroed.  No need to register local variables: the
	 * stacks and registers of attached threads are roots. */
	struct node *node = weir_alloc(self, sizeof(*node));

	if (!node)
		return NULL;
	/* Leaves are not searched for references and cost no barrier. */
	node->text = weir_alloc_leaf(self, (size_t)length + 1);
	if (!node->text)
		return NULL;
	memcpy(node->text, text, (size_t)length + 1);
	/* Writing a reference is a plain store: the page table notices. */
	node->next = next;
	return node;
}

int main(void)
{
	/* `size` lets the struct grow in later versions; the string is read
	 * like the environment variable WEIR_OPTIONS, which overrides it. */
	struct weir_heap_options options = {
		.size = sizeof(options),
		.options = "heap-max=256m",
	};
	struct weir_stats stats = {.size = sizeof(stats)};
	weir_mutator *self;
	weir_heap *heap;
	struct node *n;
	unsigned i, length = 0;
	int err;

	err = weir_heap_create(&options, &heap);
	if (err)
		return failed("creating the heap", err);
	/* Each thread that allocates or holds references attaches itself. */
	err = weir_thread_attach(heap, &self);
	if (err)
		return failed("attaching the thread", err);
	err = weir_root_add(heap, &list, sizeof(list));
	if (err)
		return failed("adding the root", err);

	/* A million nodes; all but the last thousand become garbage. */
	for (i = 0; i < 1000000; i++) {
		list = add(self, i % 1000 ? list : NULL, i);
		if (!list)
			return failed("allocating", -errno);
	}

	/* Collections start by themselves; this one is for show. */
	err = weir_collect(heap, WEIR_COLLECT_FULL);
	if (err)
		return failed("collecting", err);

	for (n = list; n; n = n->next)
		length++;
	printf("the list has %u nodes; the first says \"%s\"\n", length,
	       list->text);

	err = weir_heap_stats(heap, &stats);
	if (err)
		return failed("reading the statistics", err);
	printf("weir %s, barrier %s\n", weir_version(), stats.barrier);
	printf("allocated %" PRIu64 " KiB, alive after the collection %" PRIu64
	       " KiB\n",
	       stats.allocated >> 10, stats.heap_live >> 10);
	printf("%" PRIu64 " full and %" PRIu64 " minor cycles, %" PRIu64
	       " pauses, the longest %" PRIu64 " us\n",
	       stats.cycles_full, stats.cycles_minor, stats.pause.count,
	       stats.pause.max_ns / 1000);

	list = NULL;
	weir_root_remove(heap, &list, sizeof(list));
	weir_thread_detach(self);
	weir_heap_destroy(heap);
	return 0;
}
