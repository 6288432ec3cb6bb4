/* SPDX-License-Identifier: MIT */
/*
 * The registry of threads: create, attach, detach, exit, fork.
 *
 *   attach, detach     the thread itself; wait while the world is stopped
 *   exit               the thread itself, from the C library's thread exit
 *   fork_*             the thread that forks
 *
 * The list is liburcu's cds_list under the registry lock.  No RCU read side
 * is needed, and none is wanted: a thread can be held between any two
 * instructions, and a grace period that waits for a reader which is held
 * would last as long as the pause.  Here the only readers are stoppers.  One
 * that stops the world closes the list: attach and detach wait until it is
 * open again.  One that holds threads one by one lets go of the lock while
 * it looks at a thread and keeps its place by that thread's REQ bit: a thread
 * with REQ set cannot leave the list (thread_private.h), so both its entry
 * and its link are valid when the lock is taken again.  An entry is freed by
 * its own thread after it left the list; by then nobody can have a pointer to
 * it.
 *
 * A thread never holds the registry lock and can be asked to stop at the same
 * time, because asking takes that lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/thread_private.h"

/* Where the process's first stack began; the C library's own variable. */
extern void *__libc_stack_end;

/* The registry whose signal handler is installed. */
static struct wr_threads *signal_user;

static void on_thread_exit(void *entry);

/* Signals that faults raise. */
static const int synchronous[] = {SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
				  SIGTRAP, SIGABRT, SIGSYS};

/* Also where threads stop at safepoints only: a bad value is never ignored. */
static int check_signal(int sig)
{
	bool bad = sig == SIGKILL || sig == SIGSTOP;

	for (size_t i = 0; i < sizeof(synchronous) / sizeof(int); i++)
		bad |= sig == synchronous[i];
	return bad ? wr_error(EINVAL,
			      "suspend-signal=%d: signal %d (%s) cannot stop "
			      "threads: it kills, stops or reports a fault; "
			      "choose another, SIGUSR2 say",
			      sig, sig, strsignal(sig))
		   : 0;
}

static int install_handler(struct wr_threads *r)
{
	struct sigaction action = {.sa_sigaction = wr_thread_on_suspend,
				   .sa_flags = SA_RESTART | SA_SIGINFO};
	struct wr_threads *none = NULL;
	int sig = r->config.suspend_signal;

	if (!__atomic_compare_exchange_n(&signal_user, &none, r, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return wr_error(EBUSY, "another registry stops threads by "
				       "signal already; destroy it first");
	/* Every signal, those that the C library keeps for cancellation and
	 * setuid() too: no handler may run on a held thread.  But what the
	 * thread itself would raise must still kill it with a report. */
	memset(&action.sa_mask, 0xff, sizeof(action.sa_mask));
	for (size_t i = 0; i < sizeof(synchronous) / sizeof(int); i++)
		sigdelset(&action.sa_mask, synchronous[i]);
	if (sigaction(sig, &action, &r->old_action) < 0) {
		int err = errno;

		__atomic_store_n(&signal_user, NULL, __ATOMIC_RELEASE);
		return wr_error(err,
				"signal %d cannot stop threads: %s; "
				"choose another suspend-signal",
				sig, strerror(err));
	}
	return 0;
}

static void remove_handler(struct wr_threads *r)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	/* A signal may still be pending on a thread that blocked it or that
	 * answered before it came.  Ignoring discards it; the default action,
	 * which may be what is put back, would kill the process. */
	sigaction(r->config.suspend_signal, &ignore, NULL);
	sigaction(r->config.suspend_signal, &r->old_action, NULL);
	__atomic_store_n(&signal_user, NULL, __ATOMIC_RELEASE);
}

int wr_threads_create(const struct wr_threads_config *config,
		      struct wr_threads **out)
{
	struct wr_threads *r;
	int err = check_signal(config->suspend_signal);

	if (err)
		return err;
	r = aligned_alloc(64, sizeof(*r));
	if (!r)
		return wr_error(ENOMEM, "no memory for the thread registry");
	memset(r, 0, sizeof(*r));
	r->config = *config;
	if (!r->config.suspend_signal)
		r->config.suspend_signal = SIGPWR;
	r->pid = getpid();
	CDS_INIT_LIST_HEAD(&r->list);
	err = pthread_key_create(&r->exit_key, on_thread_exit);
	if (err) {
		free(r);
		return wr_error(err,
				"no thread-specific key is left; a "
				"process has %d",
				PTHREAD_KEYS_MAX);
	}
	if (r->config.mode == WR_STOP_SIGNALS) {
		err = install_handler(r);
		if (err) {
			pthread_key_delete(r->exit_key);
			free(r);
			return err;
		}
	}
	wr_mutex_init(&r->stop, WR_RANK_stop);
	wr_mutex_init(&r->registry, WR_RANK_registry);
	*out = r;
	return 0;
}

void wr_threads_destroy(struct wr_threads *r)
{
	if (!r)
		return;
	/* Who detached last is done with the lock. */
	wr_mutex_lock(&r->registry);
	wr_mutex_unlock(&r->registry);
	wr_require(wr_threads_count(r) == 0,
		   "thread registry destroyed with %zu threads attached",
		   wr_threads_count(r));
	/* Who counted itself out may not have let go of the lock yet. */
	wr_mutex_lock(&r->registry);
	wr_mutex_unlock(&r->registry);
	if (r->config.mode == WR_STOP_SIGNALS)
		remove_handler(r);
	pthread_key_delete(r->exit_key);
	wr_mutex_destroy(&r->registry);
	wr_mutex_destroy(&r->stop);
	free(r);
}

size_t wr_threads_count(struct wr_threads *r)
{
	/* Relaxed: a figure, nothing is read by it. */
	return __atomic_load_n(&r->count, __ATOMIC_RELAXED);
}

/* ---- Attach and detach -------------------------------------------------- */

/* The C library asks /proc/self/maps for the first thread's stack, which is
 * not there in every container.  What it answers for the base is this page's
 * end; the low end is not needed (see below).  False: the caller runs on some
 * other stack. */
static bool first_stack(uintptr_t *base)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	*base = ((uintptr_t)__libc_stack_end & ~(page - 1)) + page;
	return gettid() == getpid() && here < *base &&
	       *base - here <= WR_FIRST_STACK;
}

/* The calling thread's stack, from its low end (0: it grows) to its base. */
static int find_stack(uintptr_t *low, uintptr_t *base)
{
	pthread_attr_t attr;
	size_t size;
	void *addr;
	int err;

	err = pthread_getattr_np(pthread_self(), &attr);
	if (!err) {
		err = pthread_attr_getstack(&attr, &addr, &size);
		pthread_attr_destroy(&attr);
	}
	if (err && first_stack(base)) {
		*low = 0;
		return 0;
	}
	if (err)
		return wr_error(err,
				"the extent of the thread's stack cannot be "
				"found: %s (is /proc mounted?)",
				strerror(err));
	*base = (uintptr_t)addr + size;
	*low = (uintptr_t)addr;
	/* What is reported as the main thread's low end follows from
	 * RLIMIT_STACK, which may change; most of it is not mapped. */
	if ((uintptr_t)__libc_stack_end >= *low &&
	    (uintptr_t)__libc_stack_end < *base)
		*low = 0;
	return 0;
}

/* Take the registry lock when the list is open and p, if not NULL, has no REQ.
 * The caller is not attached or BLOCKED, so no stop waits for it.  As in
 * wr_thread_await_release(), epoch is read first. */
static void lock_open(struct wr_threads *r, struct wr_thread_private *p)
{
	for (;;) {
		uint32_t epoch = __atomic_load_n(&r->epoch, __ATOMIC_ACQUIRE);

		wr_mutex_lock(&r->registry);
		/* Acquire: partner of the release in resume_world(). */
		if (!__atomic_load_n(&r->stopping, __ATOMIC_ACQUIRE) &&
		    !(p &&
		      (__atomic_load_n(&p->word, __ATOMIC_ACQUIRE) & WR_REQ)))
			return;
		wr_mutex_unlock(&r->registry);
		wr_futex_wait(&r->epoch, epoch, NULL);
	}
}

unsigned wr_thread_id(const struct wr_thread *t)
{
	return (unsigned)t->priv->tid;
}

int wr_thread_attach(struct wr_threads *r, struct wr_thread *t)
{
	struct wr_thread_private *p;
	sigset_t set, old;
	uintptr_t low = 0, base = 0;
	int err;

	if (wr_thread_self)
		return wr_error(EBUSY, "the thread is attached already");
	err = find_stack(&low, &base);
	if (err)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		return wr_error(ENOMEM, "no memory to attach a thread");
	err = pthread_setspecific(r->exit_key, p);
	if (err) {
		free(p);
		return wr_error(err, "no memory to attach a thread");
	}
	p->owner = r;
	p->thread = t;
	p->tid = gettid();
	p->stack_low = low;
	t->owner = r;
	t->priv = p;
	t->stack_base = base;
	if (r->config.mode == WR_STOP_SIGNALS) {
		sigemptyset(&set);
		sigaddset(&set, r->config.suspend_signal);
		pthread_sigmask(SIG_UNBLOCK, &set, &old);
		p->unblocked_signal =
			sigismember(&old, r->config.suspend_signal) == 1;
	}
	/* Before REQ can be set, so that the handler knows the thread. */
	wr_thread_self = p;
	lock_open(r, NULL);
	if (r->parked_all)
		p->word = WR_RUNNING | WR_PARK_ALL;
	cds_list_add(&p->link, &r->list);
	__atomic_add_fetch(&r->count, 1, __ATOMIC_RELAXED);
	wr_mutex_unlock(&r->registry);
	return 0;
}

/* Take an entry out; registry lock held.  Its memory goes back later, with no
 * lock held: free() may wait for a lock of the C library that a held thread
 * has, and the stopper needs the registry lock to let that thread go. */
void wr_thread_unlink(struct wr_threads *r, struct wr_thread_private *p)
{
	wr_mutex_assert_held(&r->registry);
	cds_list_del(&p->link);
	__atomic_sub_fetch(&r->count, 1, __ATOMIC_RELAXED);
}

void wr_thread_detach(struct wr_thread *t)
{
	struct wr_thread_private *p = t->priv;
	struct wr_threads *r = p->owner;
	bool block = p->unblocked_signal;
	sigset_t set;

	wr_assert(p == wr_thread_self);
	sigemptyset(&set);
	sigaddset(&set, r->config.suspend_signal);
	pthread_setspecific(r->exit_key, NULL);
	/* BLOCKED: no stop waits for this thread while it waits for the lock
	 * or for the end of its own hold. */
	wr_thread_block_enter(t);
	lock_open(r, p);
	/* No REQ, and the lock keeps it so.  A late signal finds no entry. */
	wr_thread_self = NULL;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	wr_thread_unlink(r, p);
	wr_mutex_unlock(&r->registry);
	free(p);
	t->priv = NULL;
	t->owner = NULL;
	/* r may be destroyed once the lock is free. */
	if (block)
		pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Destructor of exit_key.  The program's own destructors may still use the
 * heap, and their order is not ours to choose: come back in the last round but
 * one.  The last is when those go that must outlive us (a sanitizer's). */
static void on_thread_exit(void *entry)
{
	struct wr_thread_private *p = entry;
	struct wr_threads *r = p->owner;
	struct wr_thread *t = p->thread;

	if (++p->exit_rounds < PTHREAD_DESTRUCTOR_ITERATIONS - 1 &&
	    pthread_setspecific(r->exit_key, p) == 0)
		return;
	/* Cancelled or ended inside a blocking region. */
	if ((wr_unparked(__atomic_load_n(&p->word, __ATOMIC_RELAXED)) &
	     ~(uint32_t)WR_REQ) == WR_BLOCKED)
		wr_thread_block_leave(t);
	if (r->config.on_exit)
		r->config.on_exit(t, r->config.arg);
	/* The callback may have detached, and freed t. */
	if (wr_thread_self == p)
		wr_thread_detach(t);
}

/* ---- fork ---------------------------------------------------------------- */

void wr_threads_fork_prepare(struct wr_threads *r)
{
	struct wr_thread_private *p = wr_thread_self;
	bool entered = false;

	if (p && p->owner == r)
		entered = wr_thread_block_enter(p->thread);
	wr_mutex_lock(&r->stop);
	wr_mutex_lock(&r->registry);
	/* With both locks nobody can have REQ set: this does not wait. */
	if (entered)
		wr_thread_block_leave(p->thread);
}

void wr_threads_fork_parent(struct wr_threads *r)
{
	wr_mutex_unlock(&r->registry);
	wr_mutex_unlock(&r->stop);
}

void wr_threads_fork_child(struct wr_threads *r, wr_thread_fn *gone, void *arg)
{
	struct wr_thread_private *p, *next;

	r->pid = getpid();
	for (p = wr_thread_next(r, &r->list); p; p = next) {
		struct wr_thread *t = p->thread;

		next = wr_thread_next(r, &p->link);
		if (p == wr_thread_self) {
			p->tid = gettid();
			/* Who would let it go is not here. */
			p->word = wr_unparked(p->word);
			continue;
		}
		wr_thread_unlink(r, p);
		free(p);
		if (gone)
			gone(t, arg);
	}
	wr_mutex_unlock(&r->registry);
	wr_mutex_unlock(&r->stop);
}
