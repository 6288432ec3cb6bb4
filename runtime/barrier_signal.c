/* SPDX-License-Identifier: MIT */
/*
 * Fault signals, shared by all owners of protected pages in the process.
 *
 * One handler a signal, installed with the first owner that needs it.  The
 * handler asks the owners in turn; if the address is nobody's, the handler that
 * was there before is called as the kernel would have called it, or the default
 * action is let happen.  With the last owner the old handler comes back, unless
 * the program has installed another meanwhile: then ours stays and passes
 * everything on.
 *
 * The program must not install a handler of its own after the first owner came,
 * unless it chains, and must not block the signal in a thread that writes to a
 * protected page: the kernel kills a process that faults so.
 *
 *   attach, detach, fork_child   any thread; `table_lock`
 *   the handler                  anything; takes no lock but a stripe
 */
#include "runtime/barrier_signal.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "runtime/barrier_grace.h"
#include "runtime/check.h"
#include "runtime/lock.h"

#define HOOKS 32

struct hook {
	void *owner;     /* NULL: free; atomic */
	wr_fault_fn *fn; /* set before owner is */
};

static struct source {
	int signo;               /* SIGSEGV or SIGBUS */
	unsigned attached;       /* hooks in use; under table_lock */
	struct sigaction before; /* what to chain to */
	struct hook hook[HOOKS]; /* the owners */
	struct wr_grace grace;   /* handlers that look at hook[] */
} sources[] = {
	{.signo = SIGSEGV},
	{.signo = SIGBUS},
};

static struct wr_mutex table_lock = WR_MUTEX_INITIALIZER(WR_RANK_barrier);

static struct source *source_of(int signo)
{
	return &sources[signo == SIGBUS];
}

static bool ours(struct source *s, const siginfo_t *info, const void *context)
{
	unsigned ticket = wr_grace_enter(&s->grace);
	bool done = false;

	for (unsigned i = 0; i < HOOKS && !done; i++) {
		/* SEQ_CST: see barrier_grace.h; also pairs with the store in
		 * attach, so that fn is there. */
		void *owner =
			__atomic_load_n(&s->hook[i].owner, __ATOMIC_SEQ_CST);

		if (owner)
			done = s->hook[i].fn(owner, (uintptr_t)info->si_addr,
					     info, context);
	}
	wr_grace_leave(&s->grace, ticket);
	return done;
}

/* What the kernel would do with `before` as the signal's action. */
static void chain(struct source *s, int signo, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	struct sigaction *prev = &s->before;
	sigset_t mask;

	if (!(prev->sa_flags & SA_SIGINFO) && prev->sa_handler == SIG_IGN &&
	    info->si_code <= 0)
		return; /* sent, not a fault; a fault cannot be ignored */
	if (!(prev->sa_flags & SA_SIGINFO) &&
	    (prev->sa_handler == SIG_DFL || prev->sa_handler == SIG_IGN)) {
		sigaction(signo, &dfl, NULL);
		/* A fault happens again on return; what was sent does not. */
		if (info->si_code <= 0)
			raise(signo);
		return;
	}
	mask = uc->uc_sigmask;
	for (int i = 1; i < NSIG; i++)
		if (sigismember(&prev->sa_mask, i) == 1)
			sigaddset(&mask, i);
	if (!(prev->sa_flags & SA_NODEFER))
		sigaddset(&mask, signo);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (prev->sa_flags & SA_SIGINFO)
		prev->sa_sigaction(signo, info, context);
	else
		prev->sa_handler(signo);
}

static void on_signal(int signo, siginfo_t *info, void *context)
{
	struct source *s = source_of(signo);
	int saved = errno;

	/* si_code > 0: the kernel's, so si_addr is an address. */
	if (info->si_code <= 0 || !ours(s, info, context))
		chain(s, signo, info, context);
	errno = saved;
}

static bool installed(int signo)
{
	struct sigaction now;

	return !sigaction(signo, NULL, &now) && (now.sa_flags & SA_SIGINFO) &&
	       now.sa_sigaction == on_signal;
}

int wr_signal_attach(int signo, void *owner, wr_fault_fn *fn)
{
	struct source *s = source_of(signo);
	struct hook *free_hook = NULL;
	int err = 0;

	wr_mutex_lock(&table_lock);
	for (unsigned i = 0; i < HOOKS && !free_hook; i++)
		if (!s->hook[i].owner)
			free_hook = &s->hook[i];
	if (!free_hook) {
		err = wr_error(EAGAIN,
			       "%d barriers and regions handle %s already; "
			       "destroy one",
			       HOOKS, strsignal(signo));
	} else {
		if (!s->attached && !installed(signo)) {
			struct sigaction sa = {
				.sa_sigaction = on_signal,
				.sa_flags =
					SA_SIGINFO | SA_ONSTACK | SA_RESTART,
			};

			sigfillset(&sa.sa_mask);
			/* First read, then set: the handler may run at once. */
			sigaction(signo, NULL, &s->before);
			sigaction(signo, &sa, NULL);
		}
		s->attached++;
		free_hook->fn = fn;
		__atomic_store_n(&free_hook->owner, owner, __ATOMIC_SEQ_CST);
	}
	wr_mutex_unlock(&table_lock);
	return err;
}

void wr_signal_detach(int signo, void *owner)
{
	struct source *s = source_of(signo);

	wr_mutex_lock(&table_lock);
	for (unsigned i = 0; i < HOOKS; i++) {
		if (s->hook[i].owner != owner)
			continue;
		__atomic_store_n(&s->hook[i].owner, NULL, __ATOMIC_SEQ_CST);
		s->attached--;
	}
	if (!s->attached && installed(signo))
		sigaction(signo, &s->before, NULL);
	wr_grace_wait(&s->grace);
	wr_mutex_unlock(&table_lock);
}

void wr_signal_fork_child(void)
{
	/* The lock and the readers may be those of threads left behind. */
	wr_mutex_init(&table_lock, WR_RANK_barrier);
	wr_grace_reset(&sources[0].grace);
	wr_grace_reset(&sources[1].grace);
}
