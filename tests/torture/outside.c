/* SPDX-License-Identifier: MIT */
/*
 * The system beside the heap: read(2), blocking regions, signals, fork,
 * short-lived threads, explicit collections.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/torture/torture.h"

enum { ALT_STACK = 65536, PIPE_MAX = 32768, CHILD_MS = 300 };

static uint64_t handled;   /* atomic: signals */
static uint64_t forks_now; /* atomic: a fork is under way */
static uint64_t last_fork;

/* ---- Signals ------------------------------------------------------------ */

static void on_signal(int sig)
{
	volatile unsigned char use[512];
	int saved = errno;

	/* Dirty some stack below whatever was interrupted. */
	memset((void *)use, sig, sizeof(use));
	__atomic_add_fetch(&handled, use[sig], __ATOMIC_RELAXED);
	errno = saved;
}

void outside_init(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct itimerval every = {{0, 1700}, {0, 1700}};

	signal(SIGPIPE, SIG_IGN);
	if (!cfg.on[F_signal])
		return;
	sigemptyset(&sa.sa_mask);
	sa.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &sa, NULL);
	sa.sa_flags = SA_RESTART | SA_ONSTACK;
	sigaction(SIGUSR1, &sa, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
}

void outside_fini(void)
{
	struct itimerval never = {{0, 0}, {0, 0}};

	setitimer(ITIMER_REAL, &never, NULL);
}

void outside_enter(struct worker *w)
{
	stack_t ss = {0};

	if (pipe(w->pipe))
		fail(w, "pipe: %s", strerror(errno));
	if (!cfg.on[F_signal] || !one_in(w, 2))
		return;
	w->altstack = mmap(NULL, ALT_STACK, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->altstack == MAP_FAILED)
		fail(w, "mmap: %s", strerror(errno));
	ss.ss_sp = w->altstack;
	ss.ss_size = ALT_STACK;
	if (sigaltstack(&ss, NULL))
		fail(w, "sigaltstack: %s", strerror(errno));
}

void outside_leave(struct worker *w)
{
	stack_t ss = {.ss_flags = SS_DISABLE};

	close(w->pipe[0]);
	close(w->pipe[1]);
	if (w->altstack) {
		sigaltstack(&ss, NULL);
		munmap(w->altstack, ALT_STACK);
		w->altstack = NULL;
	}
}

void pest_signal(struct worker *w, struct worker *victim)
{
	if (!pthread_kill(victim->thread, SIGUSR1))
		w->n.signals++;
}

/* ---- read(2) ------------------------------------------------------------ */

struct io {
	int fd;
	void *to;
	size_t size;
	ssize_t got;
	int error;
};

static void *do_read(void *arg)
{
	struct io *io = arg;

	do {
		io->got = read(io->fd, io->to, io->size);
	} while (io->got < 0 && errno == EINTR);
	io->error = errno;
	return NULL;
}

/* The node's contents come out of the pipe; its pages may be armed. */
void read_step(struct worker *w)
{
	static __thread uint64_t text[PIPE_MAX / 8];
	struct node *p;
	struct io io;
	uint64_t want, seed, id;
	char *raw = bank_take(w, &want);

	if (!raw)
		return;
	p = (void *)(raw - WANT_OFFSET(want));
	id = WANT_ID(want);
	node_check(w, p, id, "before a read");
	io.size = (p->size - p->tail) & ~(size_t)7;
	if (p->size > 4096 || !io.size || io.size > PIPE_MAX) {
		bank_put(w, p);
		return;
	}
	seed = rnd(w);
	for (size_t i = 0; i < io.size / 8; i++)
		text[i] = node_word(seed, i);
	if (write(w->pipe[1], text, io.size) != (ssize_t)io.size)
		fail(w, "write(2) to a pipe: %s", strerror(errno));
	if (one_in(w, 8))
		hold(w);
	io.fd = w->pipe[0];
	io.to = (char *)p + p->tail;
	if (cfg.on[F_block] && one_in(w, 2))
		weir_blocking_call(w->m, do_read, &io);
	else
		do_read(&io);
	if (io.got != (ssize_t)io.size)
		fail(w, "read(2) of %zu bytes into a heap object gave %zd: %s",
		     io.size, io.got, strerror(io.error));
	p->seed = seed;
	node_check(w, p, id, "after a read");
	node_contents(w, p);
	/* And the other way. */
	if (write(w->pipe[1], io.to, io.size) != (ssize_t)io.size ||
	    read(w->pipe[0], text, io.size) != (ssize_t)io.size ||
	    memcmp(text, io.to, io.size))
		fail(w, "write(2) from a heap object: %s", strerror(errno));
	w->n.reads++;
	bank_put(w, p);
}

/* ---- Blocking regions --------------------------------------------------- */

static void *inside(void *arg)
{
	struct worker *w = arg;

	/* An ordinary mutator again. */
	for (uint64_t i = below(w, 8); i; i--)
		bank_step(w);
	return NULL;
}

static void *blocked(void *arg)
{
	struct worker *w = arg;
	struct timespec t = {0, 1000l << below(w, 11)};

	nanosleep(&t, NULL);
	if (one_in(w, 2))
		weir_unblocked_call(w->m, inside, w);
	if (one_in(w, 4))
		nanosleep(&t, NULL);
	return NULL;
}

void block_step(struct worker *w)
{
	uint64_t want;
	char *raw = bank_take(w, &want);

	__asm__ volatile("" : "+r"(raw));
	weir_blocking_call(w->m, blocked, w);
	w->n.blocks++;
	if (raw) {
		struct node *p = (void *)(raw - WANT_OFFSET(want));

		node_check(w, p, WANT_ID(want), "after a blocking region");
		bank_put(w, p);
	}
}

/* ---- Explicit collections ----------------------------------------------- */

void collect_step(struct worker *w)
{
	static const unsigned all[] = {
		WEIR_COLLECT_FULL,
		WEIR_COLLECT_MINOR,
		WEIR_COLLECT_MINOR,
		WEIR_COLLECT_STOPPED,
		WEIR_COLLECT_FULL | WEIR_COLLECT_NOWAIT,
		WEIR_COLLECT_MINOR | WEIR_COLLECT_NOWAIT,
	};
	unsigned flags = all[below(w, sizeof(all) / sizeof(all[0]))];
	int err;

	if (!cfg.on[F_collect])
		return;
	/* After a stopped cycle the next is full; so in most runs most are
	 * minor. */
	if (cfg.seed % 3 && !one_in(w, 16))
		flags = one_in(w, 2) ? WEIR_COLLECT_MINOR
				     : WEIR_COLLECT_MINOR | WEIR_COLLECT_NOWAIT;
	err = weir_collect(heap, flags);
	if (err)
		fail(w, "weir_collect: error %d, %s", -err, weir_error_text());
	w->n.collects++;
}

/* ---- fork --------------------------------------------------------------- */

static void child(struct worker *w)
{
	in_child = true;
	forked_worker = w->index;
	cfg.on[F_fork] = cfg.on[F_churn] = false;
	deadline = now_ns() + CHILD_MS * 1000000ull;
	w->action = "fork child";
	while (!over())
		worker_step(w);
	worker_final_check(w);
	if (weir_collect(heap, WEIR_COLLECT_FULL))
		fail(w, "weir_collect in a child: %s", weir_error_text());
	worker_final_check(w);
	_exit(0);
}

struct wait {
	pid_t pid;
	int status;
	bool late;
};

static void *wait_child(void *arg)
{
	struct wait *x = arg;
	struct timespec t = {0, 5000000};
	uint64_t end = now_ns() + 30000000000ull;

	for (;;) {
		pid_t got = waitpid(x->pid, &x->status, WNOHANG);

		if (got == x->pid)
			return NULL;
		if (got < 0 && errno != EINTR) {
			x->status = -1;
			return NULL;
		}
		if (now_ns() > end && !x->late) {
			x->late = true;
			kill(x->pid, SIGABRT);
			end += 5000000000ull;
		} else if (now_ns() > end) {
			kill(x->pid, SIGKILL);
		}
		nanosleep(&t, NULL);
	}
}

void fork_step(struct worker *w)
{
	struct wait x = {0};

	if (now_ns() < __atomic_load_n(&last_fork, __ATOMIC_RELAXED) +
			       400000000u ||
	    __atomic_exchange_n(&forks_now, 1, __ATOMIC_ACQUIRE))
		return;
	/* The child must not find a slot locked by a thread it has not. */
	share_lock_all(true);
	x.pid = fork();
	share_lock_all(false);
	if (x.pid < 0)
		fail(w, "fork: %s", strerror(errno));
	if (!x.pid)
		child(w);
	weir_blocking_call(w->m, wait_child, &x);
	if (x.late)
		fail(w, "the child of a fork did not end (see above)");
	if (!WIFEXITED(x.status) || WEXITSTATUS(x.status))
		fail(w, "the child of a fork failed: status %#x", x.status);
	w->n.forks++;
	__atomic_store_n(&last_fork, now_ns(), __ATOMIC_RELAXED);
	__atomic_store_n(&forks_now, 0, __ATOMIC_RELEASE);
}

/* ---- Short-lived threads ------------------------------------------------ */

static __attribute__((noinline)) void short_life(struct worker *w)
{
	void *volatile anchor[4] = {0};
	unsigned attaches = 1 + (unsigned)below(w, 2);

	w->anchor = anchor;
	for (unsigned i = 0; i < attaches; i++) {
		int err = weir_thread_attach(heap, &w->m);

		if (err)
			fail(w, "weir_thread_attach: error %d, %s", -err,
			     weir_error_text());
	}
	outside_enter(w);
	if (bank_create(w, 100000)) {
		for (uint64_t i = below(w, 300); i && !over(); i--) {
			bank_step(w);
			if (cfg.on[F_share] && one_in(w, 4))
				share_step(w);
		}
		bank_audit(w);
		bank_destroy(w);
	}
	outside_leave(w);
	if (one_in(w, 2))
		for (unsigned i = 0; i < attaches; i++)
			weir_thread_detach(w->m);
	/* Else it ends attached. */
}

static void *short_main(void *arg)
{
	short_life(arg);
	return NULL;
}

void churn_step(struct worker *w)
{
	struct worker one[3];
	unsigned n = 1 + (unsigned)below(w, 3);

	for (unsigned i = 0; i < n; i++) {
		worker_init(&one[i], 100 + i, rnd(w));
		one[i].action = "short life";
		if (pthread_create(&one[i].thread, NULL, short_main, &one[i]))
			fail(w, "pthread_create: %s", strerror(errno));
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(one[i].thread, NULL);
		w->n.threads++;
		w->n.nodes += one[i].n.nodes;
		w->n.checks += one[i].n.checks;
	}
}
