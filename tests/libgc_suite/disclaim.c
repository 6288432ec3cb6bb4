/* SPDX-License-Identifier: MIT */
/* Disclaim procedures and finalized objects; leak mode. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define N 300
#define MARK 0x5a5a5a5a5a5a5a5aul

struct object {
	uintptr_t tag;       /* odd: not a link of a free list */
	uintptr_t id;        /* index */
	struct object *next; /* reference */
	uintptr_t mark;      /* MARK */
};

static int asked[N]; /* order in which each was, from 1 */
static int count;
static int refuse[N]; /* times to say no */
static int times[N];  /* asked in all */
static unsigned kind;

static int GC_CALLBACK ask(void *p)
{
	struct object *o = p;

	if (!(o->tag & 1))
		return 0; /* free already */
	check(o->mark == MARK && o->id < N, "the object is whole");
	times[o->id]++;
	if (refuse[o->id]-- > 0)
		return 1;
	check(!asked[o->id], "%d is asked again", (int)o->id);
	asked[o->id] = ++count;
	o->tag = 0;
	return 0;
}

static struct object *new_object(int id, struct object *next)
{
	struct object *o = GC_malloc_kind(sizeof(*o), (int)kind);

	o->id = (uintptr_t)id;
	o->next = next;
	o->mark = MARK;
	o->tag = 1;
	return o;
}

static void make_kind(GC_word descriptor, int add_size, int all)
{
	kind = GC_new_kind(GC_new_free_list(), descriptor, add_size, 1);
	GC_register_disclaim_proc((int)kind, ask, all);
}

/* On a thread of its own, whose stack is gone then. */
static void apart(void *(*fn)(void *))
{
	pthread_t t;

	check(!GC_pthread_create(&t, NULL, fn, NULL));
	check(!GC_pthread_join(t, NULL));
}

/* Collect, and have all be swept. */
static void sweep(void)
{
	collect();
	for (int i = 0; i < 20000; i++) {
		memset(GC_malloc(sizeof(struct object)), 0xdd,
		       sizeof(struct object));
		if (i % 100 == 0 && kind)
			((struct object *)GC_malloc_kind(sizeof(struct object),
							 (int)kind))
				->tag = 0;
	}
	collect();
}

static struct object *root[N];

static void *make_lone(void *arg)
{
	for (int i = 0; i < N; i++)
		root[i] = new_object(i, NULL);
	return arg;
}

static void when_dead(void)
{
	make_kind(GC_DS_LENGTH, 1, 0);
	apart(make_lone);
	sweep();
	check(count == 0, "%d were asked alive", count);
	for (int i = 0; i < N; i += 2)
		root[i] = NULL;
	sweep();
	check(count > N / 5 && count <= N / 2, "%d of %d", count, N / 2);
	for (int i = 1; i < N; i += 2)
		check(!asked[i] && root[i]->mark == MARK);
	memset(root, 0, sizeof(root));
	sweep();
	check(count > N * 9 / 10, "%d of %d", count, N);
}

static void refused(void)
{
	int three = 0;

	make_kind(GC_DS_LENGTH, 1, 0);
	for (int i = 0; i < N; i++)
		refuse[i] = 2;
	apart(make_lone);
	memset(root, 0, sizeof(root));
	for (int i = 0; i < 4; i++)
		sweep();
	for (int i = 0; i < N; i++)
		three += times[i] == 3 && asked[i];
	check(three > N * 9 / 10, "%d of %d", three, N);
}

static void *make_pairs(void *arg)
{
	for (int i = 0; i < N / 2; i++)
		root[i] = new_object(i, new_object(i + N / 2, NULL));
	return arg;
}

static int GC_CALLBACK ask_pair(void *p)
{
	struct object *o = p;

	if ((o->tag & 1) && o->id < N / 2)
		check(o->next->mark == MARK && (o->next->tag & 1) &&
			      o->next->id == o->id + N / 2,
		      "what it refers to is there");
	return ask(p);
}

static void references_are_kept(void)
{
	kind = GC_new_kind(GC_new_free_list(), GC_DS_LENGTH, 1, 1);
	GC_register_disclaim_proc((int)kind, ask_pair, 1);
	apart(make_pairs);
	memset(root, 0, sizeof(root));
	for (int i = 0; i < 3; i++)
		sweep();
	check(count > N * 9 / 10, "%d of %d", count, N);
	for (int i = 0; i < N / 2; i++)
		if (asked[i + N / 2])
			check(asked[i] && asked[i] < asked[i + N / 2],
			      "%d after what reaches it", i + N / 2);
}

static void freed(void)
{
	make_kind(GC_DS_LENGTH, 1, 0);
	apart(make_lone);
	for (int i = 0; i < N; i++) {
		GC_free(root[i]);
		root[i] = NULL;
	}
	sweep();
	check(count == 0, "%d were asked", count);
}

static void leaves(void)
{
	make_kind(GC_DS_LENGTH, 0, 0);
	apart(make_lone);
	memset(root, 0, sizeof(root));
	sweep();
	check(count > N * 9 / 10, "%d of %d", count, N);
}

#define LARGE 20

static void *make_large(void *arg)
{
	for (int i = 0; i < LARGE; i++) {
		struct object *o = GC_malloc_kind(
			(size_t)100000 * (size_t)(i % 5 + 1), (int)kind);

		*o = (struct object){1, (uintptr_t)i, NULL, MARK};
	}
	return arg;
}

static void large(void)
{
	make_kind(GC_DS_LENGTH, 1, 0);
	apart(make_large);
	sweep();
	check(count > LARGE * 8 / 10, "%d of %d", count, LARGE);
}

/* What the procedure gives back is not marked any more. */
static struct GC_ms_entry *mark_outside(GC_word *at, struct GC_ms_entry *top,
					struct GC_ms_entry *limit, GC_word env)
{
	struct object *o = (struct object *)at;

	(void)env;
	if (!(o->tag & 1))
		return top;
	check(*(uintptr_t *)o->next == MARK);
	return GC_MARK_AND_PUSH(o->next, top, limit, NULL);
}

static int GC_CALLBACK free_outside(void *p)
{
	struct object *o = p;

	if (!(o->tag & 1))
		return 0;
	*(uintptr_t *)o->next = 0;
	free(o->next);
	count++;
	return 0;
}

static void *make_marked(void *arg)
{
	for (int i = 0; i < N; i++) {
		uintptr_t *outside = malloc(sizeof(*outside));

		*outside = MARK;
		new_object(i, (struct object *)(void *)outside);
	}
	return arg;
}

static void with_mark_procedure(void)
{
	kind = GC_new_kind(GC_new_free_list(),
			   GC_MAKE_PROC(GC_new_proc(mark_outside), 0), 0, 1);
	GC_register_disclaim_proc((int)kind, free_outside, 0);
	apart(make_marked);
	sweep();
	sweep();
	check(count > N * 9 / 10, "%d of %d", count, N);
}

/* ---- Finalized objects --------------------------------------------------- */

static struct GC_finalizer_closure closure;
static int data;

static void GC_CALLBACK finalize(void *p, void *cd)
{
	struct object *o = p;

	check(cd == &data && o->mark == MARK);
	check(!o->next || o->next->mark == MARK);
	check(!asked[o->id]);
	asked[o->id] = ++count;
}

static struct object *finalized(int id, struct object *next)
{
	struct object *o = GC_finalized_malloc(sizeof(*o), &closure);

	*o = (struct object){1, (uintptr_t)id, next, MARK};
	return o;
}

static void *make_finalized(void *arg)
{
	for (int i = 0; i < N / 2; i++)
		root[i] = finalized(i, finalized(i + N / 2, NULL));
	return arg;
}

static void sweep_finalized(void)
{
	sweep();
	for (int i = 0; i < 1000; i++)
		GC_finalized_malloc(sizeof(struct object), &closure) == NULL
			? abort()
			: (void)0;
}

static void GC_CALLBACK nothing(void *p, void *cd)
{
	(void)p;
	(void)cd;
}

static void finalized_objects(void)
{
	closure = (struct GC_finalizer_closure){finalize, &data};
	GC_init_finalized_malloc();
	GC_init_finalized_malloc();
	apart(make_finalized);
	collect();
	check(count == 0 && root[7]->mark == MARK);
	check(GC_base(root[7]) == (uintptr_t *)root[7] - 1);
	memset(root, 0, sizeof(root));
	for (int i = 0; i < 3; i++) {
		collect();
		collect();
	}
	closure.proc = finalize;
	check(count > N * 4 / 10, "%d of %d", count, N);
	for (int i = 0; i < N / 2; i++)
		if (asked[i + N / 2])
			check(asked[i] && asked[i] < asked[i + N / 2]);
}

static void *churn_finalized(void *arg)
{
	for (int i = 0; i < 100000; i++)
		*(struct object *)GC_finalized_malloc(
			sizeof(struct object) + (size_t)(i % 5) * 16,
			&closure) = (struct object){1, 0, NULL, MARK};
	return arg;
}

static void beside_threads(void)
{
	pthread_t t[3];

	closure = (struct GC_finalizer_closure){nothing, &data};
	GC_init_finalized_malloc();
	for (int i = 0; i < 3; i++)
		check(!GC_pthread_create(&t[i], NULL, churn_finalized, NULL));
	for (int i = 0; i < 3; i++)
		check(!GC_pthread_join(t[i], NULL));
	sweep_finalized();
}

/* ---- Leak mode ----------------------------------------------------------- */

static void *leak_some(void *arg)
{
	for (int i = 0; i < 7; i++) {
		void **p = GC_malloc(100);

		p[0] = GC_malloc_atomic(30);
		GC_free(GC_malloc(64));
		if (i == 0) {
			GC_malloc_uncollectable(50);
			root[0] = GC_malloc(40);
			root[1] = GC_malloc(200);
			root[1] = GC_realloc(root[1], 2000);
			GC_free(GC_realloc(GC_malloc(32), 4000));
		}
	}
	return arg;
}

static void *leak_debug(void *arg)
{
	void *p = GC_debug_malloc(100, "there.c", 17);

	p = GC_debug_malloc_atomic(333, "here.c", 18);
	memset(p, 0x11, 333);
	GC_debug_free(GC_debug_malloc(50, "freed.c", 19));
	root[2] = GC_debug_malloc(50, "kept.c", 20);
	return arg;
}

static char report[20000]; /* what was written to standard error */

/* fn's output on standard error. */
static void captured(void (*fn)(void))
{
	int saved = dup(2), file = memfd_create("report", 0);
	ssize_t n;

	check(saved >= 0 && file >= 0);
	fflush(stderr);
	dup2(file, 2);
	fn();
	fflush(stderr);
	dup2(saved, 2);
	close(saved);
	n = pread(file, report, sizeof(report) - 1, 0);
	check(n >= 0);
	report[n] = 0;
	close(file);
}

static int lines_with(const char *what)
{
	int n = 0;

	for (const char *s = report; (s = strstr(s, what)); s++)
		n++;
	return n;
}

static void leak_mode(void)
{
	GC_set_find_leak(1);
	check(GC_get_find_leak() == 1);
	apart(leak_some);
	captured(collect);
	check(lines_with("Found ") >= 1 &&
		      lines_with(" leaked objects:\n") >= 1,
	      "%s", report);
	/* One may be kept by chance. */
	check(lines_with("(composite)\n") >= 6 &&
		      lines_with("(composite)\n") <= 7,
	      "%s", report);
	check(lines_with("(atomic)\n") >= 6 && lines_with("(atomic)\n") <= 7,
	      "%s", report);
	check(lines_with("object at ") ==
	      lines_with("(composite)\n") + lines_with("(atomic)\n"));
	/* Once. */
	captured(collect);
	check(lines_with("object at ") <= 2, "%s", report);
	check(root[0] && root[1]);
	memset(root, 0, sizeof(root));
	captured(collect);
	check(lines_with("(composite)\n") >= 1, "%s", report);
}

static void leak_places(void)
{
	GC_set_find_leak(1);
	apart(leak_debug);
	captured(collect);
	check(lines_with("there.c:17, sz= 100, NORMAL)\n") == 1, "%s", report);
	check(lines_with("here.c:18, sz= 333, PTRFREE)\n") == 1, "%s", report);
	check(!lines_with("freed.c") && !lines_with("kept.c"), "%s", report);
}

static void *leak_many(void *arg)
{
	for (int i = 0; i < 100; i++)
		memset(GC_malloc_atomic(30), 1, 30);
	return arg;
}

static void many_leaks(void)
{
	int n = 0;

	GC_set_find_leak(1);
	apart(leak_many);
	for (int i = 0; i < 4; i++) {
		captured(collect);
		check(lines_with("object at ") <= 3 * 40);
		n += lines_with("object at ");
	}
	check(n >= 40 && n <= 101, "%d", n);
}

static void GC_CALLBACK never(void *p, void *cd)
{
	(void)p;
	(void)cd;
	check(0, "a finalizer in leak mode");
}

static void *with_finalizers(void *arg)
{
	void *p = GC_malloc_atomic(50);
	static void *link;

	GC_register_finalizer_no_order(p, never, NULL, NULL, NULL);
	link = (void *)~(uintptr_t)p;
	check(GC_general_register_disappearing_link(&link, p) ==
	      GC_UNIMPLEMENTED);
	return arg;
}

static void leaks_have_no_finalizers(void)
{
	GC_set_find_leak(1);
	apart(with_finalizers);
	captured(collect);
	check(lines_with("object at ") <= 1, "%s", report);
}

/* The variable of the environment, and the end of the process. */
static void leaks_at_the_end(void)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char command[5000];
	FILE *out;
	size_t got;

	check(n > 0);
	self[n] = 0;
	snprintf(command, sizeof(command),
		 "GC_FIND_LEAK=1 %s --leak 2>&1 >/dev/null", self);
	out = popen(command, "r");
	check(out);
	got = fread(report, 1, sizeof(report) - 1, out);
	report[got] = 0;
	check(pclose(out) == 0);
	check(lines_with("Found ") == 1 && lines_with("object at ") >= 12, "%s",
	      report);
	snprintf(command, sizeof(command),
		 "GC_ABORT_ON_LEAK=1 GC_FIND_LEAK=1 %s --leak 2>/dev/null "
		 ">/dev/null",
		 self);
	check(system(command) != 0);
}

int leak_main(void)
{
	GC_INIT();
	apart(leak_some);
	return 0;
}

const struct test disclaim_tests[] = {
	{"disclaim: asked when dead, once", when_dead},
	{"disclaim: who says no is asked again", refused},
	{"disclaim: references are kept until it was asked",
	 references_are_kept},
	{"disclaim: what was freed is not asked", freed},
	{"disclaim: leaves", leaves},
	{"disclaim: large objects", large},
	{"disclaim: with a mark procedure", with_mark_procedure},
	{"disclaim: finalized objects", finalized_objects},
	{"disclaim: finalized objects beside threads", beside_threads},
	{"leak mode: what was not freed is told", leak_mode},
	{"leak mode: places of the debugging forms", leak_places},
	{"leak mode: some at a time", many_leaks},
	{"leak mode: no finalizers, no links", leaks_have_no_finalizers},
	{"leak mode: by the environment, at the end", leaks_at_the_end},
	{NULL, NULL},
};
