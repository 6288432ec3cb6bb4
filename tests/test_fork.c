/* SPDX-License-Identifier: MIT */
/*
 * fork() of a program with a heap, in every stage of a cycle and under every
 * back end: the child has the parent's data, collects as the parent does, and
 * the parent goes on.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gc/heap.h"
#include "tests/heap_util.h"
#include "tests/must.h"

#define NODES 20000

struct node {
	struct node *next;
	uint64_t id;
	struct node *extra;
};

/* Registered as roots. */
static struct {
	struct node *list;    /* NODES of them, old */
	struct node *pending; /* a young one on its way into the last of them */
} roots;
static struct node *last;
static int stop;

static bool list_is(const struct node *list, size_t n)
{
	while (n-- > 0) {
		if (!list || list->id != n)
			return false;
		list = list->next;
	}
	return !list;
}

static struct node *make_list(weir_mutator *m, size_t n)
{
	struct node *list = NULL;

	for (size_t i = 0; i < n; i++) {
		struct node *p = weir_alloc_inline(m, sizeof(*p), 0);

		if (!p)
			_exit(10);
		p->next = list;
		p->id = i;
		list = p;
	}
	return list;
}

static struct weir_stats child_stats(void)
{
	struct weir_stats s = {.size = sizeof(s)};

	CHILD(!weir_heap_stats(heap, &s));
	return s;
}

static bool extra_is_whole(void)
{
	return !last->extra || list_is(last->extra, 1);
}

/* What the child does, attached, with the parent's list of NODES in roots.list;
 * verify=on looks at every cycle. */
static void child(const char *barrier, bool destroy)
{
	bool none = !strcmp(barrier, "none");
	struct weir_stats before, s;
	struct node *mine;

	/* What delays find was found when the fork came. */
	heap->opt.delay = 0;
	before = child_stats();
	CHILD(!strcmp(before.barrier, barrier));
	CHILD(list_is(roots.list, NODES) && extra_is_whole());
	mine = make_list(self, NODES);
	CHILD(!weir_collect(heap, WEIR_COLLECT_FULL));
	CHILD(list_is(roots.list, NODES) && list_is(mine, NODES));
	CHILD(extra_is_whole());
	for (int i = 0; i < 3; i++) {
		uint64_t dirty = child_stats().dirty_pages;

		/* Young objects behind an old one, on a page that is armed. */
		mine->next = make_list(self, NODES / 4);
		CHILD(!weir_collect(heap, WEIR_COLLECT_MINOR));
		CHILD(child_stats().dirty_pages > dirty || none);
		CHILD(list_is(mine->next, NODES / 4));
	}
	CHILD(!weir_collect(heap, WEIR_COLLECT_FULL));
	CHILD(list_is(roots.list, NODES) && list_is(mine->next, NODES / 4));
	s = child_stats();
	CHILD(!strcmp(s.barrier, barrier));
	CHILD(s.cycles_full >= before.cycles_full + 2);
	if (none) {
		CHILD(s.cycles_stopped == s.cycles_full + s.cycles_minor);
	} else {
		CHILD(s.cycles_stopped == before.cycles_stopped);
		CHILD(s.cycles_minor >= before.cycles_minor + 3);
	}
	if (destroy)
		CHILD(!weir_heap_destroy(heap));
	_exit(0);
}

static void child_did_well(pid_t pid)
{
	int status;

	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status), "child: signal %d", WTERMSIG(status));
	cr_assert_eq(WEXITSTATUS(status), 0, "child: status %d",
		     WEXITSTATUS(status));
}

/* Collects and allocates without end. */
static void *busy(void *arg)
{
	struct node *volatile list;
	weir_mutator *m;
	unsigned i = 0;

	(void)arg;
	if (weir_thread_attach(heap, &m))
		return "attach";
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		list = make_list(m, NODES);
		if (weir_collect(heap, i++ % 3 ? WEIR_COLLECT_MINOR
					       : WEIR_COLLECT_FULL))
			return "collect";
		if (!list_is(list, NODES))
			return "list";
	}
	weir_thread_detach(m);
	return NULL;
}

/* gcc's address sanitizer does not hold its allocator's locks over fork: a
 * child whose parent had other threads may wait for ever in malloc. */
static void need_fork(void)
{
#ifdef __SANITIZE_ADDRESS__
	cr_skip("fork with threads: not under the address sanitizer");
#endif
#ifdef __SANITIZE_THREAD__
	cr_skip("fork with threads: not under the thread sanitizer");
#endif
}

/* ---- Every stage --------------------------------------------------------- */

#define IDLE WR_PHASES

static enum wr_phase stage_now(void)
{
	return __atomic_load_n(&heap->stage, __ATOMIC_RELAXED);
}

/* The stage at the fork: read by a handler that runs when the library's has
 * taken all its locks, because it was registered before it. */
static enum wr_phase forked_in;

static void note_stage(void)
{
	forked_in = heap ? stage_now() : IDLE;
}

/* fork waits for the end of these: the roots are locked from before the stop
 * on. */
static bool all_stopped(enum wr_phase stage)
{
	return stage == WR_PHASE_pause || stage == WR_PHASE_remark ||
	       stage == WR_PHASE_weak || stage == WR_PHASE_verify;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct attempt {
	enum wr_phase stage; /* to fork in */
	const char *barrier; /* the parent's */
	bool destroy;        /* the child's heap at its end */
	enum wr_phase asked; /* stage when fork was called */
};

/* Called out of a blocking region, where the heap cannot be destroyed. */
static void *child_back_in(void *arg)
{
	struct attempt *a = arg;

	CHILD(!a->destroy || weir_heap_destroy(heap) == -EBUSY);
	child(a->barrier, false);
	return NULL;
}

/* Wait for the stage and fork.  In a blocking region, or else this thread
 * would be stopped when all are. */
static void *fork_in_stage(void *arg)
{
	struct attempt *a = arg;
	uint64_t limit = now_ms() + 60000;
	pid_t pid;

	while (stage_now() != a->stage) {
		cr_assert_lt(now_ms(), limit, "stage %d never came", a->stage);
		sched_yield();
	}
	a->asked = stage_now();
	pid = fork();
	if (!pid) {
		alarm(120);
		weir_unblocked_call(self, child_back_in, a);
	}
	child_did_well(pid);
	return NULL;
}

/* A young object moves behind an old one that no marker has seen yet in the
 * first stages: no root has it any more, and in the child no dirty page. */
static __attribute__((noinline)) void move_behind_old(void)
{
	last->extra = roots.pending;
	roots.pending = NULL;
}

/* From an attached thread that runs, which no stop finds at rest. */
static void fork_running(struct attempt *a)
{
	uint64_t limit = now_ms() + 60000;
	pid_t pid;

	roots.pending = make_list(self, 1);
	while (stage_now() != a->stage)
		cr_assert_lt(now_ms(), limit, "stage %d never came", a->stage);
	a->asked = stage_now();
	move_behind_old();
	pid = fork();
	if (!pid) {
		alarm(120);
		child(a->barrier, a->destroy);
	}
	child_did_well(pid);
}

#define IN_TIME 2 /* forks that must have met each stage */
#define TRIES 200 /* of them; where others use the processors, few meet it */

static void forks(const char *barrier, const enum wr_phase *stages, size_t n)
{
	unsigned met[WR_PHASES + 1] = {0};
	struct weir_stats s;
	pthread_t t;
	void *wrong;

	cr_assert_eq(pthread_create(&t, NULL, busy, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		bool stopped = all_stopped(stages[i]);
		unsigned *count = &met[stages[i]];

		/* The stage may be over by the time the locks are taken. */
		for (unsigned k = 0; k < TRIES && *count < IN_TIME; k++) {
			struct attempt a = {stages[i], barrier, k % 2, IDLE};

			if (stopped || k % 2)
				weir_blocking_call(self, fork_in_stage, &a);
			else
				fork_running(&a);
			cr_assert_not(all_stopped(forked_in),
				      "forked with the world stopped (%d)",
				      forked_in);
			met[stopped ? a.asked : forked_in]++;
			cr_assert(list_is(roots.list, NODES));
		}
		cr_assert_geq(*count, IN_TIME, "stage %d: %u of %d forks",
			      stages[i], *count, TRIES);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	wr_thread_block_enter(&self->thread);
	pthread_join(t, &wrong);
	wr_thread_block_leave(&self->thread);
	cr_assert_null(wrong, "%s", (char *)wrong);
	/* The parent goes on as it was. */
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(weir_collect(heap, i % 2), 0);
		cr_assert(list_is(roots.list, NODES));
	}
	s = heap_stats();
	cr_assert_str_eq(s.barrier, barrier);
	cr_assert_eq(s.cycles_stopped,
		     strcmp(barrier, "none") ? 0
					     : s.cycles_full + s.cycles_minor);
}

struct kind {
	char name[16];
};

static struct kind kinds[] = {
	{"async"}, {"sync"}, {"sigbus"}, {"mprotect"}, {"none"}};

/* Skips where the kernel lacks the back end. */
static void open_with(const char *barrier, const char *more)
{
	struct wr_barrier *b;
	enum wr_barrier_kind kind;
	char options[200];

	cr_assert_eq(wr_barrier_parse(barrier, &kind), 0);
	if (wr_barrier_create(kind, &b))
		cr_skip("%s: %s", barrier, weir_error_text());
	wr_barrier_destroy(b);
	snprintf(options, sizeof(options),
		 "barrier=%s,verify=on,poison=on,heap-min=2m%s", barrier, more);
	heap_open(options);
	cr_assert_str_eq(heap_stats().barrier, barrier);
	cr_assert_eq(weir_root_add(heap, &roots, sizeof(roots)), 0);
	roots.list = make_list(self, NODES);
	for (last = roots.list; last->next; last = last->next)
		;
}

ParameterizedTestParameters(fork, in_every_stage)
{
	return cr_make_param_array(struct kind, kinds, 5);
}

ParameterizedTest(struct kind *k, fork, in_every_stage)
{
	static const enum wr_phase stages[] = {IDLE,
					       WR_PHASE_pause,
					       WR_PHASE_sweep,
					       WR_PHASE_remark,
					       WR_PHASE_verify,
					       WR_PHASE_arm,
					       WR_PHASE_roots,
					       WR_PHASE_mark,
					       WR_PHASE_preclean};

	need_fork();
	cr_assert_eq(pthread_atfork(note_stage, NULL, NULL), 0);
	open_with(k->name, ",delay=2000");
	/* Without a barrier the first five are all there is. */
	forks(k->name, stages, strcmp(k->name, "none") ? 9 : 5);
	heap_close();
}

/* ---- Who forks, and how often -------------------------------------------- */

static void *fork_unattached(void *arg)
{
	pid_t pid = fork();

	(void)arg;
	if (!pid) {
		alarm(120);
		CHILD(wr_threads_count(heap->threads) == 0);
		CHILD(!weir_thread_attach(heap, &self));
		child("async", true);
	}
	child_did_well(pid);
	return NULL;
}

Test(fork, by_a_thread_that_is_not_attached)
{
	pthread_t t;

	need_fork();
	open_with("async", "");
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(pthread_create(&t, NULL, fork_unattached, NULL),
			     0);
		weir_blocking_call(self, join, &t);
		cr_assert_eq(weir_collect(heap, i % 2), 0);
		cr_assert(list_is(roots.list, NODES));
	}
	heap_close();
}

static void grandchild(const char *barrier)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		child(barrier, true);
	CHILD(waitpid(pid, &status, 0) == pid && status == 0);
	child(barrier, false);
}

ParameterizedTestParameters(fork, a_child_of_a_child)
{
	return cr_make_param_array(struct kind, kinds, 5);
}

ParameterizedTest(struct kind *k, fork, a_child_of_a_child)
{
	pid_t pid;

	need_fork();
	open_with(k->name, "");
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	pid = fork();
	if (!pid) {
		alarm(120);
		grandchild(k->name);
	}
	child_did_well(pid);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_MINOR), 0);
	cr_assert(list_is(roots.list, NODES));
	heap_close();
}

/* ---- A child that gets less ---------------------------------------------- */

static size_t read_all(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	close(fd);
	cr_assert_geq(n, 0, "%s", path);
	text[n] = 0;
	return (size_t)n;
}

/* No descriptor is left for the child's own barrier: it collects without one,
 * and says so. */
Test(fork, a_child_without_its_barrier_says_so)
{
	char path[] = "/tmp/weir-fork-XXXXXX", more[64], text[4096];
	struct rlimit old, none;
	pid_t pid;

	need_fork();
	close(mkstemp(path));
	snprintf(more, sizeof(more), ",log=barrier,log-file=%s", path);
	open_with("async", more);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = 0;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	pid = fork();
	if (!pid) {
		struct weir_stats before = child_stats(), s;

		alarm(120);
		CHILD(!strcmp(before.barrier, "none"));
		for (unsigned i = 0; i < 4; i++) {
			last->extra = make_list(self, 1000);
			CHILD(!weir_collect(heap, i % 2));
			CHILD(list_is(last->extra, 1000));
		}
		s = child_stats();
		CHILD(!strcmp(s.barrier, "none"));
		CHILD(s.cycles_stopped == before.cycles_stopped + 4);
		CHILD(!weir_heap_destroy(heap));
		_exit(0);
	}
	setrlimit(RLIMIT_NOFILE, &old);
	child_did_well(pid);
	read_all(path, text, sizeof(text));
	unlink(path);
	cr_assert(strstr(text, "fork: the child cannot go on with the barrier "
			       "\"async\""),
		  "the log: \"%s\"", text);
	cr_assert(strstr(text, "descriptor"), "the log: \"%s\"", text);
	cr_assert_str_eq(heap_stats().barrier, "async");
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	cr_assert_eq(heap_stats().cycles_stopped, 0);
	heap_close();
}

/* Another thread was about to publish a large object: its blocks are taken, and
 * it has no START.  The child, which has not that thread, frees them. */
Test(fork, a_large_object_not_yet_published)
{
	const size_t size = 1 << 20;
	uintptr_t p;
	uint8_t *start, was;
	pid_t pid;

	need_fork();
	open_with("async", ",verify=on");
	p = (uintptr_t)weir_alloc(self, size);
	cr_assert(p);
	start = &heap->meta[wg_granule_of(heap, p)];
	was = *start;
	*start = 0;
	pid = fork();
	if (!pid) {
		alarm(120);
		CHILD(wg_block_state(&heap->blocks[wg_block_of(heap, p)]) ==
		      WG_FREE);
		CHILD(!weir_collect(heap, WEIR_COLLECT_FULL));
		CHILD(list_is(roots.list, NODES));
		_exit(0);
	}
	*start = was;
	child_did_well(pid);
	cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
	heap_close();
}

Test(fork, without_a_heap)
{
	int status;
	pid_t pid;

	need_fork();
	heap_open(NULL);
	heap_close();
	pid = fork();
	if (!pid) {
		heap_open(NULL);
		heap_close();
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}
