/* SPDX-License-Identifier: MIT */
/*
 * Inside the thread registry: the state word and who may change it.
 *
 * Each attached thread has a word = state | REQ | PARK.  REQ says that a
 * stopper wants the thread held, or holds it; PARK, of two kinds, that it is
 * not to run even where nobody does (thread_park.c).
 *
 *   transition                      by           allowed if
 *   set REQ                         stopper      stop and registry locks held
 *   clear REQ                       stopper      it set it
 *   RUNNING -> HELD                 the thread   REQ set
 *   RUNNING -> BLOCKED              the thread   always
 *   HELD, BLOCKED -> RUNNING        the thread   REQ and PARK clear
 *   set PARK                        any thread   registry lock held
 *   clear PARK                      any thread   registry lock held
 *   RUNNING -> DEAD                 stopper      REQ set, no such thread
 *   link (attach)                   the thread   registry lock, list open
 *   unlink (detach)                 the thread   BLOCKED, REQ clear, registry
 *                                                lock, list open
 *
 * The list is closed (`stopping`) from the requests of a stop of all until the
 * last REQ of it is clear: the stopper walks it without the registry lock.
 *
 * What follows from it:
 *
 *  - Only the registry's lock allows to set REQ, so a thread that holds that
 *    lock cannot be asked to stop, and REQ does not appear while it is held.
 *  - REQ pins: a thread with REQ set stays attached, its wr_thread and its
 *    private part stay valid, until REQ is cleared.
 *  - A stopper that sets REQ and finds RUNNING is owed exactly one
 *    acknowledgement: the thread's next transition gives it, or the stopper
 *    itself when it makes the thread DEAD.  One that finds HELD or BLOCKED is
 *    owed none, the thread is held already.  HELD without
 *    REQ is a thread that was released and did not run yet.
 *
 * Waiting has two futex words.  `owed` counts acknowledgements down; the one
 * that makes it 0 wakes the stopper.  `epoch` is raised after REQ was cleared;
 * a thread reads epoch, then its word, then waits for epoch to change, so it
 * cannot miss the release.
 */
#ifndef WEIR_RUNTIME_THREAD_PRIVATE_H
#define WEIR_RUNTIME_THREAD_PRIVATE_H

#include <signal.h>
#include <sys/types.h>
#include <time.h>
#include <ucontext.h>

#include <urcu/list.h>

#include "runtime/lock.h"
#include "runtime/thread.h"

enum wr_thread_state {
	WR_RUNNING = 0,
	WR_BLOCKED = 1,
	WR_HELD = 2,
	WR_DEAD = 3,      /* went without detaching; the stopper unlinks it */
	WR_REQ = 4,       /* flag, see above */
	WR_PARK = 8,      /* flag: this thread */
	WR_PARK_ALL = 16, /* flag: one of all */
};

/* The word without what says PARK. */
static inline uint32_t wr_unparked(uint32_t word)
{
	return word & ~(uint32_t)(WR_PARK | WR_PARK_ALL);
}

/* Added to `owed` while requests go out, so that it cannot reach 0. */
#define WR_OWED_BIAS (1u << 30)

/* The kernel maps nothing else so near below the base of the process's first
 * stack on its own account. */
#define WR_FIRST_STACK (128ul << 20)

struct wr_thread_private {
	struct cds_list_head link; /* registry's list, under its lock */
	struct wr_thread_private *next_dead; /* the stopper's, when DEAD */
	struct wr_threads *owner;            /* the registry */
	struct wr_thread *thread; /* the owner's part; valid while linked */
	uint32_t word;            /* atomic: state | REQ, see above */
	pid_t tid;                /* where signals go */
	uintptr_t stack_low;      /* lowest address; 0: grows (main) */
	uintptr_t set_base;       /* atomic: of set_stack(), 0: normal */
	const uintptr_t *watched; /* atomic: of watch_stack(), or NULL */
	uintptr_t own_sp;     /* atomic: where it was called on the own stack */
	struct wr_place held; /* written before HELD is */
	struct wr_blocked blocked; /* written before BLOCKED is */
	unsigned exit_rounds;      /* calls of the exit destructor so far */
	bool unblocked_signal;     /* attach unblocked the suspend signal */
	bool to_leave;             /* the stopper's: was HELD when let go */
	uint64_t left_ns;          /* atomic: clock when it last left HELD */
};

struct wr_threads {
	struct wr_threads_config config; /* as given, signal filled in */
	struct sigaction old_action;     /* to put back */
	pthread_key_t exit_key;          /* its destructor sees exits */
	pid_t pid;                       /* for tgkill */

	struct wr_mutex stop;      /* held from stop to resume */
	struct wr_mutex registry;  /* guards list */
	struct cds_list_head list; /* newest first */
	size_t count;              /* atomic: threads in list */
	uint32_t stopping;         /* atomic: the list is closed, see above */
	bool dead;       /* the stopper's: there are DEAD threads to drop */
	bool parked_all; /* threads that attach are parked; under `registry` */

	/* Apart from each other: threads hit them at the same time. */
	uint32_t owed __attribute__((aligned(64)));  /* atomic futex */
	uint32_t epoch __attribute__((aligned(64))); /* atomic futex */
};

/* The entry after `link`, NULL at the end; registry lock held or list closed.
 */
static inline struct wr_thread_private *
wr_thread_next(struct wr_threads *r, struct cds_list_head *link)
{
	if (link->next == &r->list)
		return NULL;
	return cds_list_entry(link->next, struct wr_thread_private, link);
}

/* The calling thread's entry, NULL if it is not attached.  initial-exec: the
 * signal handler must not allocate the variable. */
extern __thread struct wr_thread_private *wr_thread_self
	__attribute__((tls_model("initial-exec")));

static inline uint64_t wr_thread_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* thread_block.c: the thread's own transitions. */
void wr_thread_hold(struct wr_thread_private *p);
void wr_thread_await_release(struct wr_thread_private *p, uint32_t state);
int wr_futex_wait(uint32_t *word, uint32_t value,
		  const struct timespec *timeout);
void wr_futex_wake(uint32_t *word, int count);

/* thread_stack.c: the thread notes that it stands at sp; if that is not on its
 * own stack, what is below top is live at least. */
void wr_thread_stand(const struct wr_thread_private *p, struct wr_place *place,
		     uintptr_t sp, uintptr_t top);
bool wr_thread_on_own_stack(const struct wr_thread_private *p, uintptr_t sp);
/* thread_stack.c: the stopper fills in what is live on a thread that is held;
 * in a pause, all of it. */
void wr_thread_show_live(struct wr_thread_private *p, bool paused);

/* thread_stop.c: the suspend signal's handler. */
void wr_thread_on_suspend(int sig, siginfo_t *info, void *context);

/* thread_stop.c, for thread_park.c: the caller may wait for threads to be held;
 * hold one, with both locks, call fn for it, which may be NULL, and let it go,
 * `registry` dropped until fn is called; the end of that, `stop` dropped; have
 * whoever waits look at its word. */
void wr_thread_check_stopper(struct wr_threads *r);
void wr_thread_hold_one(struct wr_threads *r, struct wr_thread_private *p,
			void (*fn)(struct wr_thread_private *p, void *arg),
			void *arg);
void wr_thread_end_stop(struct wr_threads *r);
void wr_thread_wake(struct wr_threads *r);

/* thread_park.c: the first for which match() is true, or NULL; registry lock
 * held. */
struct wr_thread_private *wr_thread_find(struct wr_threads *r,
					 wr_thread_match_fn *match, void *arg);

/* thread_registry.c: take out an entry; registry lock held, list open. */
void wr_thread_unlink(struct wr_threads *r, struct wr_thread_private *p);

/* Stack pointer of interrupted or parked code. */
static inline uintptr_t wr_context_sp(const ucontext_t *uc)
{
#if defined(__x86_64__)
	return (uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
	return (uintptr_t)uc->uc_mcontext.sp;
#elif defined(__riscv)
	return (uintptr_t)uc->uc_mcontext.__gregs[REG_SP];
#else
#error "stack pointer of a context: not known for this machine"
#endif
}

#endif
