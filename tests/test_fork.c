/* SPDX-License-Identifier: MIT */
/* fork() of a program with a heap, in every phase of a cycle. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gc/heap.h"
#include "tests/heap_util.h"

struct node {
	struct node *next;
	uint64_t id;
};

static struct node *root;
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

/* What the child does; its exit status says what went wrong. */
static void child(size_t n)
{
	struct node *mine;

	if (!list_is(root, n))
		_exit(1);
	mine = make_list(self, 50000);
	if (weir_collect(heap, WEIR_COLLECT_FULL))
		_exit(2);
	if (!list_is(root, n) || !list_is(mine, 50000))
		_exit(3);
	for (int i = 0; i < 3; i++) {
		root = make_list(self, 20000);
		if (weir_collect(heap, WEIR_COLLECT_MINOR))
			_exit(4);
		if (!list_is(root, 20000) || !list_is(mine, 50000))
			_exit(5);
	}
	if (weir_collect(heap, WEIR_COLLECT_FULL) || !list_is(mine, 50000))
		_exit(6);
	_exit(0);
}

/* Collects and allocates without end. */
static void *busy(void *arg)
{
	weir_mutator *m;
	unsigned i = 0;

	(void)arg;
	if (weir_thread_attach(heap, &m))
		return "attach";
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		struct node *list = make_list(m, 30000);

		if (weir_collect(heap, i++ % 3 ? WEIR_COLLECT_MINOR :
						 WEIR_COLLECT_FULL))
			return "collect";
		if (!list_is(list, 30000))
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

static void forks(const char *options, int count)
{
	const size_t n = 100000;
	unsigned seen[3] = { 0, 0, 0 };
	pthread_t t;
	void *wrong;

	heap_open(options);
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = make_list(self, n);
	stop = 0;
	cr_assert_eq(pthread_create(&t, NULL, busy, NULL), 0);
	for (int i = 0; i < count; i++) {
		int status;
		pid_t pid;

		/* Wait for the phase whose turn it is, a little. */
		for (int k = 0; k < 20000; k++)
			if (__atomic_load_n(&heap->phase, __ATOMIC_RELAXED) ==
			    (unsigned)i % 3)
				break;
		seen[__atomic_load_n(&heap->phase, __ATOMIC_RELAXED)]++;
		pid = fork();
		cr_assert_geq(pid, 0);
		if (!pid)
			child(n);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFEXITED(status), "fork %d: signal %d", i,
			  WTERMSIG(status));
		cr_assert_eq(WEXITSTATUS(status), 0, "fork %d: child said %d",
			     i, WEXITSTATUS(status));
		cr_assert(list_is(root, n));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	wr_thread_block_enter(&self->thread);
	pthread_join(t, &wrong);
	wr_thread_block_leave(&self->thread);
	cr_assert_null(wrong, "%s", (char *)wrong);
	cr_assert(seen[WG_MARKING] > 0, "no fork while marking");
	heap_close();
}

Test(fork, in_every_phase_async)
{
	need_fork();
	forks("verify=on,poison=on,heap-min=2m,delay=300", 60);
}

Test(fork, in_every_phase_stopped)
{
	const size_t n = 1000;
	int status;
	pid_t pid;

	need_fork();
	heap_open("barrier=none,verify=on,heap-min=2m");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = make_list(self, n);
	pid = fork();
	if (!pid)
		child(n);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	heap_close();
}

Test(fork, a_child_of_a_child)
{
	int status;
	pid_t pid;

	need_fork();
	heap_open("verify=on,heap-min=2m");
	cr_assert_eq(weir_root_add(heap, &root, sizeof(root)), 0);
	root = make_list(self, 1000);
	pid = fork();
	if (!pid) {
		pid = fork();
		if (!pid)
			child(1000);
		if (waitpid(pid, &status, 0) != pid || status)
			_exit(7);
		child(1000);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
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
