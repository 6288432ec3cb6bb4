/* SPDX-License-Identifier: MIT */
/*
 * Bad input, by the table in input_cases.def: each case in a process of its
 * own, which writes what the library said to standard error and exits with
 * the error number.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/weir.h>

#include "gc/heap.h"

/* ---- What the cases are made of ------------------------------------------ */

static weir_heap *heap, *spare_heap;
static weir_mutator *self, *spare;
static weir_weak *weak;
static weir_kind kind;
static const uint64_t bits = 1;
static struct weir_stats stats = {.size = sizeof(stats)};

/* See tests/heap_util.h for why. */
#ifdef __SANITIZE_THREAD__
#define STOP ",stop=safepoints"
#else
#define STOP ""
#endif
#define OPTIONS "heap-max=64m,markers=1,pause-markers=1" STOP

/* In a child, where no framework looks. */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "set-up of the case: %s: %s\n", what,
		weir_error_text());
	_exit(255);
}

/* The error of a call by its result.  Functions that return pointers must set
 * errno as well. */
static int code(long result)
{
	return result < 0 ? (int)-result : 0;
}

static int null(const void *result)
{
	return result ? 0 : errno;
}

static int zero(size_t result)
{
	return result ? 0 : errno;
}

/* Of a call that returns nothing: the text tells. */
static int said(int nothing)
{
	return *weir_error_text() ? errno : nothing;
}

static int collects_out_of_memory(weir_heap *h, size_t bytes, void *arg);

/* Arguments are evaluated in any order: what is there is not made again.
 *
 * A heap that this thread is not attached to. */
static weir_heap *alone(void)
{
	struct weir_heap_options o = {
		.size = sizeof(o),
		.oom = collects_out_of_memory,
		.options = OPTIONS,
	};

	if (!heap)
		must(!weir_heap_create(&o, &heap), "create");
	errno = 0;
	return heap;
}

static weir_heap *live(void)
{
	alone();
	if (!self)
		must(!weir_thread_attach(heap, &self), "attach");
	errno = 0;
	return heap;
}

static weir_mutator *mine(void)
{
	live();
	return self;
}

/* A heap, or a mutator, that was destroyed. */
static weir_heap *stale(void)
{
	must(!weir_heap_destroy(live()), "destroy");
	errno = 0;
	return heap;
}

static weir_mutator *stale_mutator(void)
{
	stale();
	return self;
}

static sem_t theirs_known;

static void *sleeps(void *arg)
{
	sem_post(&theirs_known);
	for (;;)
		pause();
	return arg;
}

static void *attached_thread(void *arg)
{
	weir_mutator **m = arg;

	must(!weir_thread_attach(heap, m), "attach");
	return weir_blocking_call(*m, sleeps, NULL);
}

/* A mutator of another thread; this one is not attached. */
static weir_mutator *unattached(void)
{
	pthread_t t;

	alone();
	sem_init(&theirs_known, 0, 0);
	must(!pthread_create(&t, NULL, attached_thread, &spare), "thread");
	while (sem_wait(&theirs_known))
		;
	errno = 0;
	return spare;
}

/* The same, with this one attached, too. */
static weir_mutator *theirs(void)
{
	unattached();
	live();
	return spare;
}

/* Memory that the library knows nothing of. */
static void *foreign(void)
{
	static char memory[4096];

	return memory;
}

static char *object(void)
{
	char *p = weir_alloc(mine(), 64);

	must(p, "alloc");
	return p;
}

static weir_weak *a_weak(void)
{
	live();
	must(!weir_weak_create(heap, object(), &weak), "weak reference");
	return weak;
}

static weir_weak *dead_weak(void)
{
	weir_weak_destroy(a_weak());
	return weak;
}

static weir_weak *stale_weak(void)
{
	must(!weir_heap_destroy((a_weak(), heap)), "destroy");
	return weak;
}

static weir_weak *unattached_weak(void)
{
	must(!weir_thread_detach((a_weak(), self)), "detach");
	return weak;
}

/* Allocate until it fails. */
static int fill(void *(*alloc)(weir_mutator *, size_t))
{
	void **p, **last = NULL;
	static void *keep[1 << 17];
	size_t n = 0;

	live();
	must(!weir_root_add(heap, keep, sizeof(keep)), "root");
	while ((p = alloc(self, 1000))) {
		must(n < sizeof(keep) / sizeof(*keep), "the heap has an end");
		keep[n++] = last = p;
	}
	(void)last;
	return errno;
}

/* ---- In regions ---------------------------------------------------------- */

typedef int case_fn(void);

struct call {
	case_fn *fn; /* what to run */
	int result;  /* its result */
	bool ran;    /* it ran */
};

static void *run_call(void *arg)
{
	struct call *c = arg;

	c->result = c->fn();
	c->ran = true;
	return arg;
}

static int in_region(case_fn *fn)
{
	struct call c = {.fn = fn};

	weir_blocking_call(mine(), run_call, &c);
	must(c.ran, "the region");
	return c.result;
}

static int unblocked(case_fn *fn)
{
	struct call c = {.fn = fn};

	weir_unblocked_call(self, run_call, &c);
	must(c.ran, "the call");
	return c.result;
}

static void *same(void *arg)
{
	return arg;
}

static int region_destroy(void)
{
	return code(weir_heap_destroy(heap));
}

static int region_unblocked_destroy(void)
{
	return unblocked(region_destroy);
}

static int region_detach(void)
{
	return code(weir_thread_detach(self));
}

static int region_unblocked_detach(void)
{
	return unblocked(region_detach);
}

static int region_collect(void)
{
	return code(weir_collect(heap, 0));
}

static int region_nested(void)
{
	return null(weir_blocking_call(self, same, &spare));
}

static int region_unblocked_null(void)
{
	return null(weir_unblocked_call(self, NULL, NULL));
}

static int call_unblocked(void)
{
	return null(weir_unblocked_call(self, same, &spare));
}

static int region_unblocked_twice(void)
{
	return unblocked(call_unblocked);
}

static int region_safepoint(void)
{
	return said((weir_safepoint_slow(self), 0));
}

static int region_alloc(void)
{
	return null(weir_alloc(self, 16));
}

static int region_alloc_leaf(void)
{
	return null(weir_alloc_leaf(self, 16));
}

static int region_alloc_kind(void)
{
	return null(weir_alloc_kind(self, 16, 0));
}

static int region_alloc_aligned(void)
{
	return null(weir_alloc_aligned(self, 16, 64, 0));
}

static int region_finalizers_run(void)
{
	return code(weir_finalizers_run(self, 0));
}

static int make_weak(void)
{
	return code(weir_weak_create(heap, object(), &weak));
}

static int region_weak_get(void)
{
	must(!unblocked(make_weak), "weak reference");
	return null(weir_weak_get(weak));
}

static int region_ephemeron(void)
{
	return null(weir_ephemeron_create(self, &spare, NULL));
}

/* ---- In callbacks -------------------------------------------------------- */

static case_fn *in_callback;
static weir_visitor *visitor;
static int callback_result;
static char callback_text[512]; /* on its thread */
static bool called;

static void note_call(weir_visitor *v)
{
	if (called)
		return;
	visitor = v;
	callback_result = in_callback();
	snprintf(callback_text, sizeof(callback_text), "%s", weir_error_text());
	called = true;
}

static int result_of_call(void)
{
	must(called, "the callback");
	/* What this thread would have read. */
	fprintf(stderr, "%s\n", callback_text);
	return callback_result;
}

static void trace(void *p, size_t size, weir_visitor *v, void *arg)
{
	(void)p;
	(void)size;
	(void)arg;
	note_call(v);
}

static void root(weir_visitor *v, void *arg)
{
	(void)arg;
	note_call(v);
}

static int in_trace(case_fn *fn)
{
	void *volatile p;

	in_callback = fn;
	live();
	must(!weir_kind_trace(heap, trace, NULL, 0, &kind), "kind");
	must(!weir_weak_create(heap, object(), &weak), "weak reference");
	p = weir_alloc_kind(self, 64, kind);
	must(p && !weir_collect(heap, 0), "collection");
	return result_of_call();
}

static int in_root(case_fn *fn)
{
	in_callback = fn;
	live();
	must(!weir_root_add_callback(heap, root, NULL, 0), "callback");
	must(!weir_collect(heap, 0), "collection");
	return result_of_call();
}

static int callback_create(void)
{
	return code(weir_heap_create(NULL, &spare_heap));
}

static int callback_destroy(void)
{
	return code(weir_heap_destroy(heap));
}

static int callback_set_limits(void)
{
	return code(weir_heap_set_limits(heap, 0, 0));
}

static int callback_collect(void)
{
	return code(weir_collect(heap, WEIR_COLLECT_NOWAIT));
}

static int callback_attach(void)
{
	return code(weir_thread_attach(heap, &spare));
}

static int callback_alloc(void)
{
	return null(weir_alloc(self, 16));
}

static int callback_visit(void)
{
	weir_visit(visitor, NULL);
	weir_visit(visitor, &spare);
	weir_visit(visitor, (void *)UINTPTR_MAX);
	return said(0);
}

static int callback_visit_backwards(void)
{
	return said((weir_visit_range(visitor, &spare + 1, &spare), 0));
}

static int callback_visit_nothing(void)
{
	return said((weir_visit_range(visitor, NULL, NULL), 0));
}

static int callback_bitmap(void)
{
	return code(weir_kind_bitmap(heap, &bits, 4, &kind));
}

static int callback_kind_trace(void)
{
	return code(weir_kind_trace(heap, trace, NULL, 0, &kind));
}

static int callback_root_add(void)
{
	return code(weir_root_add(heap, &spare, 8));
}

static int callback_root_remove(void)
{
	return code(weir_root_remove(heap, &spare, 8));
}

static int callback_add_callback(void)
{
	return code(weir_root_add_callback(heap, root, NULL, 0));
}

static int callback_remove_callback(void)
{
	return code(weir_root_remove_callback(heap, root, NULL));
}

static void finalizer(void *p, void *arg)
{
	(void)p;
	(void)arg;
	callback_result = in_callback();
	called = true;
}

static int callback_finalizer_set(void)
{
	return code(weir_finalizer_set(heap, &spare, finalizer, NULL, 0));
}

static int callback_weak_create(void)
{
	return code(weir_weak_create(heap, &spare, &weak));
}

static int callback_weak_set(void)
{
	return code(weir_weak_set(weak, NULL));
}

static int callback_weak_destroy(void)
{
	return said((weir_weak_destroy(weak), 0));
}

static __attribute__((noinline)) void drop_objects(void)
{
	for (int i = 0; i < 1000; i++)
		must(!weir_finalizer_set(heap, object(), finalizer, NULL, 0),
		     "finalizer");
}

static int in_finalizer(case_fn *fn)
{
	in_callback = fn;
	live();
	drop_objects();
	must(!weir_collect(heap, 0), "collection");
	must(weir_finalizers_run(self, 1) == 1, "finalizers");
	must(called, "the finalizer");
	return callback_result;
}

#define finalizer_destroy region_destroy
#define finalizer_detach region_detach
#define oom_destroy region_destroy
#define oom_detach region_detach

/* Only for in_oom(). */
static int collects_out_of_memory(weir_heap *h, size_t bytes, void *arg)
{
	(void)h;
	(void)bytes;
	(void)arg;
	if (in_callback)
		note_call(NULL);
	return 0;
}

static int in_oom(case_fn *fn)
{
	in_callback = fn;
	must(!weir_alloc(mine(), (size_t)63 << 20) ||
		     !weir_alloc(self, (size_t)63 << 20),
	     "no memory");
	return result_of_call();
}

/* ---- The table ----------------------------------------------------------- */

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)

#define INVALID(function, what, err, expression) \
	static int PASTE(case_, __LINE__)(void)  \
	{                                        \
		return expression;               \
	}
#define REFUSED INVALID
#define ALLOWED(function, what, expression) \
	INVALID(function, what, 0, expression)
#include "tests/input_cases.def"
#undef INVALID
#undef REFUSED
#undef ALLOWED

static const struct row {
	const char *function; /* public function */
	const char *what;     /* what is bad */
	int err;              /* errno; 0: nothing is */
	bool aborts;          /* in checking builds */
	case_fn *fn;          /* returns the errno */
} rows[] = {
#define INVALID(function, what, err, expression) \
	{#function, what, err, WEIR_CHECKING > 0, PASTE(case_, __LINE__)},
#define REFUSED(function, what, err, expression) \
	{#function, what, err, false, PASTE(case_, __LINE__)},
#define ALLOWED(function, what, expression) \
	{#function, what, 0, false, PASTE(case_, __LINE__)},
#include "tests/input_cases.def"
};

#define ROWS (sizeof(rows) / sizeof(*rows))

static void run_child(const struct row *row, int out)
{
	struct rlimit none = {0, 0};

	signal(SIGABRT, SIG_DFL);
	setrlimit(RLIMIT_CORE, &none);
	dup2(out, STDERR_FILENO);
	alarm(60); /* a case that hangs */
	errno = 0;
	int err = row->fn();

	fprintf(stderr, "%s\n", weir_error_text());
	fflush(stderr);
	/* Not _exit(): there the thread sanitizer waits a second for others. */
	syscall(SYS_exit_group, err);
}

/* Whether some line of text begins with (prefix, ) "function: cause". */
static bool names(const char *text, const char *prefix, const char *function)
{
	char start[128];
	size_t n = (size_t)snprintf(start, sizeof(start), "%s%s: ", prefix,
				    function);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, start, n) && line[n] && line[n] != '\n')
			return true;
	}
	return false;
}

static bool run_row(const struct row *row)
{
	char text[4096];
	size_t n = 0;
	int fds[2], status;
	ssize_t got;
	bool ok;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid)
		run_child(row, fds[1]);
	close(fds[1]);
	while ((got = read(fds[0], text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	close(fds[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (row->aborts)
		ok = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
		     names(text, "weir: ", row->function);
	else
		ok = WIFEXITED(status) && WEXITSTATUS(status) == row->err &&
		     (!row->err || names(text, "", row->function));
	if (!ok)
		fprintf(stderr,
			"%s, %s: wait status %#x, expected %s%s; it said:\n%s",
			row->function, row->what, status,
			row->aborts ? "SIGABRT for " : "",
			row->err ? strerror(row->err) : "success", text);
	return ok;
}

Test(input, every_case)
{
	unsigned bad = 0;

	for (size_t i = 0; i < ROWS; i++)
		bad += !run_row(&rows[i]);
	cr_assert_eq(bad, 0, "%u of %zu cases", bad, ROWS);
}

/* ---- Is the table complete? ---------------------------------------------- */

static bool has_row(const char *function)
{
	for (size_t i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].function, function))
			return true;
	return false;
}

/* The functions of a header, as tests/symbols.sh reads them: how many have no
 * case, or cannot be read. */
static unsigned lacking(const char *path, unsigned *functions)
{
	FILE *f = fopen(path, "re");
	unsigned missing = 0;
	char line[512];
	regmatch_t m[2];
	regex_t re;

	cr_assert(f, "%s: %s", path, strerror(errno));
	cr_assert_eq(regcomp(&re, "^WEIR_API .*[ *](weir_[a-z_0-9]*)\\(",
			     REG_EXTENDED),
		     0);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "WEIR_API ", 9))
			continue;
		++*functions;
		if (!regexec(&re, line, 2, m, 0)) {
			line[m[1].rm_eo] = 0;
			if (has_row(line + m[1].rm_so))
				continue;
			fprintf(stderr, "no case for %s\n", line + m[1].rm_so);
		} else {
			fprintf(stderr, "not understood: %s", line);
		}
		missing++;
	}
	regfree(&re);
	fclose(f);
	return missing;
}

Test(input, every_public_function_has_a_case)
{
	unsigned functions = 0, rowed = 0;

	cr_assert_eq(lacking(WEIR_HEADERS "/weir.h", &functions) +
			     lacking(WEIR_HEADERS "/alloc.h", &functions),
		     0);
	/* And no case is for a function that there is not. */
	for (size_t i = 0; i < ROWS; i++)
		rowed += !i || strcmp(rows[i].function, rows[i - 1].function);
	cr_assert_eq(rowed, functions);
}

/* ---- The signal that stops threads --------------------------------------- */

Test(input, a_signal_that_faults_raise_cannot_stop_threads)
{
	static const int bad[] = {SIGSEGV, SIGBUS, SIGILL,  SIGFPE, SIGTRAP,
				  SIGABRT, SIGSYS, SIGKILL, SIGSTOP};
	struct weir_heap_options o = {.size = sizeof(o)};
	char text[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		o.options = text;
		for (int mode = 0; mode < 2; mode++) {
			snprintf(text, sizeof(text), "suspend-signal=%d%s",
				 bad[i], mode ? ",stop=safepoints" : "");
			cr_assert_eq(weir_heap_create(&o, &heap), -EINVAL, "%s",
				     text);
			cr_assert(strstr(weir_error_text(), "suspend-signal="),
				  "%s", weir_error_text());
		}
	}
	snprintf(text, sizeof(text), "suspend-signal=%d", SIGUSR2);
	cr_assert_eq(weir_heap_create(&o, &heap), 0, "%s", weir_error_text());
	cr_assert_eq(weir_heap_destroy(heap), 0);
}

/* ---- Attaching beside create and destroy --------------------------------- */

static int over, hush;
static unsigned attaches;

static void *attaches_and_leaves(void *arg)
{
	for (unsigned i = 0; !__atomic_load_n(&over, __ATOMIC_RELAXED); i++) {
		weir_heap *h = __atomic_load_n(&heap, __ATOMIC_RELAXED);
		weir_mutator *m;
		int err;

		if (__atomic_load_n(&hush, __ATOMIC_RELAXED)) {
			usleep(100);
			continue;
		}
		err = weir_thread_attach(h, &m);
		if (err) {
			must(err == -EINVAL, "attach");
			continue;
		}
		/* Not each time: it takes a block. */
		must(i % 8 || weir_alloc(m, 48) || errno == ENOMEM, "alloc");
		must(!weir_thread_detach(m), "detach");
		__atomic_add_fetch(&attaches, 1, __ATOMIC_RELAXED);
		if (i % 4 == 0)
			usleep(50);
	}
	return arg;
}

/* The threads know the heap's address only, which may be that of one that was
 * destroyed. */
Test(input, threads_attach_beside_destroy_and_create)
{
	struct weir_heap_options o = {
		.size = sizeof(o),
		.options = OPTIONS,
	};
	unsigned destroyed = 0, busy = 0;
	pthread_t t[3];
	weir_heap *h;

	cr_assert_eq(weir_heap_create(&o, &h), 0, "%s", weir_error_text());
	__atomic_store_n(&heap, h, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(
			pthread_create(&t[i], NULL, attaches_and_leaves, NULL),
			0);
	while (destroyed < 50 ||
	       __atomic_load_n(&attaches, __ATOMIC_RELAXED) < 200) {
		int err = weir_heap_destroy(h);

		if (err) {
			cr_assert_eq(err, -EBUSY, "%s", weir_error_text());
			/* So that the test ends whatever the threads do. */
			if (++busy % 64 == 0)
				__atomic_store_n(&hush, 1, __ATOMIC_RELAXED);
			if (busy % 16 == 0)
				weir_collect(h, WEIR_COLLECT_MINOR);
			continue;
		}
		__atomic_store_n(&hush, 0, __ATOMIC_RELAXED);
		destroyed++;
		cr_assert_eq(weir_heap_create(&o, &h), 0, "%s",
			     weir_error_text());
		__atomic_store_n(&heap, h, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(weir_heap_destroy(h), 0, "%s", weir_error_text());
}
