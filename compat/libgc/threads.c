/* SPDX-License-Identifier: MIT */
/*
 * Threads: made by GC_pthread_create(), registered by the program, or attached
 * when they first allocate.
 *
 * What a thread was given and what it returns are references that nobody else
 * may hold: the argument is kept until the thread has it on its stack, the
 * result until it was joined.
 */
#define _GNU_SOURCE /* pthread_getattr_np() */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

/* A thread of GC_pthread_create() that was not joined or detached yet. */
struct made {
	pthread_t thread;  /* set before the thread runs program code */
	size_t slot;       /* keeps its result */
	bool detached;     /* nobody will ask for it */
	bool ended;        /* the result is there */
	struct made *next; /* of the list */
};

struct start {
	void *(*fn)(void *); /* the program's */
	void *arg;           /* to it */
	struct made *made;   /* the thread's entry */
};

static struct made *made_list; /* under lg_lock */
static __thread struct made *me __attribute__((tls_model("initial-exec")));

static struct made **made_place(pthread_t t)
{
	struct made **at = &made_list;

	while (*at && !pthread_equal((*at)->thread, t))
		at = &(*at)->next;
	return at;
}

/* Under lg_lock. */
static void made_free(struct made *m)
{
	struct made **at = &made_list;

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	lg_unkeep(m->slot);
	free(m);
}

static void ended(void *result)
{
	struct made *m = me;

	if (!m)
		return;
	me = NULL;
	pthread_mutex_lock(&lg_lock);
	m->ended = true;
	if (m->detached)
		made_free(m);
	else
		lg_keep_other(m->slot, result);
	pthread_mutex_unlock(&lg_lock);
}

/* Cancelled, or ended by the C library's own pthread_exit(). */
static void cleanup(void *arg)
{
	(void)arg;
	ended(NULL);
}

static void *thread_main(void *arg)
{
	struct start *start = arg;
	void *(*fn)(void *) = start->fn;
	void *volatile data = start->arg;
	void *result;

	lg_attach();
	me = start->made;
	GC_free(start);
	pthread_cleanup_push(cleanup, NULL);
	result = fn(data);
	pthread_cleanup_pop(0);
	ended(result);
	return result;
}

LG_API int GC_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			     void *(*fn)(void *), void *arg)
{
	struct start *start;
	struct made *m = malloc(sizeof(*m));
	int state = PTHREAD_CREATE_JOINABLE, err;

	lg_mutator();
	if (!m)
		return EAGAIN;
	start = GC_malloc_uncollectable(sizeof(*start));
	if (attr)
		pthread_attr_getdetachstate(attr, &state);
	*m = (struct made){.detached = state == PTHREAD_CREATE_DETACHED};
	pthread_mutex_lock(&lg_lock);
	m->slot = lg_keep(NULL);
	pthread_mutex_unlock(&lg_lock);
	if (!start || !m->slot) {
		pthread_mutex_lock(&lg_lock);
		if (m->slot)
			lg_unkeep(m->slot);
		pthread_mutex_unlock(&lg_lock);
		GC_free(start);
		free(m);
		return EAGAIN;
	}
	*start = (struct start){fn, arg, m};
	/* The thread ends under the lock, so not before it is in the list. */
	pthread_mutex_lock(&lg_lock);
	err = pthread_create(thread, attr, thread_main, start);
	if (!err) {
		m->thread = *thread;
		m->next = made_list;
		made_list = m;
	} else {
		lg_unkeep(m->slot);
		free(m);
	}
	pthread_mutex_unlock(&lg_lock);
	if (err)
		GC_free(start);
	return err;
}

/* A thread's number is its alone until it was joined: its entry is looked for
 * before.  The wait is not a blocking region, which a cancelled thread would
 * leave the wrong way; a stop interrupts it and the C library goes on. */
LG_API int GC_pthread_join(pthread_t thread, void **result)
{
	void *got;
	struct made *m;
	int err;

	pthread_mutex_lock(&lg_lock);
	m = *made_place(thread);
	pthread_mutex_unlock(&lg_lock);
	err = pthread_join(thread, &got);
	if (err)
		return err;
	if (result)
		*result = got;
	pthread_mutex_lock(&lg_lock);
	if (m)
		made_free(m);
	pthread_mutex_unlock(&lg_lock);
	return 0;
}

LG_API int GC_pthread_detach(pthread_t thread)
{
	struct made *m;
	int err;

	pthread_mutex_lock(&lg_lock);
	m = *made_place(thread);
	err = pthread_detach(thread);
	if (!err && m) {
		m->detached = true;
		if (m->ended)
			made_free(m);
	}
	pthread_mutex_unlock(&lg_lock);
	return err;
}

LG_API int GC_pthread_cancel(pthread_t thread)
{
	return pthread_cancel(thread);
}

LG_API void GC_pthread_exit(void *result)
{
	ended(result);
	pthread_exit(result);
}

/* The signal that stops threads stays open. */
LG_API int GC_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t without;

	if (set && (how == SIG_BLOCK || how == SIG_SETMASK)) {
		without = *set;
		sigdelset(&without, GC_get_suspend_signal());
		set = &without;
	}
	return pthread_sigmask(how, set, old);
}

LG_API void *GC_dlopen(const char *path, int mode)
{
	return dlopen(path, mode);
}

/* ---- Registration ------------------------------------------------------- */

LG_API void GC_allow_register_threads(void)
{
	lg_mutator();
}

LG_API void GC_start_mark_threads(void)
{
}

LG_API int GC_register_my_thread(const struct GC_stack_base *base)
{
	(void)base; /* the whole stack is known */
	if (lg_self)
		return GC_DUPLICATE;
	lg_attach();
	return GC_SUCCESS;
}

LG_API int GC_unregister_my_thread(void)
{
	weir_mutator *m = lg_self;

	if (!m)
		return GC_SUCCESS;
	lg_self = NULL;
	weir_thread_detach(m);
	return GC_SUCCESS;
}

LG_API int GC_thread_is_registered(void)
{
	return lg_self != NULL;
}

LG_API void GC_register_altstack(void *stack, GC_word size, void *altstack,
				 GC_word altsize)
{
	/* weir looks at alternate signal stacks by itself. */
	(void)stack;
	(void)size;
	(void)altstack;
	(void)altsize;
}

/* ---- Stacks ------------------------------------------------------------- */

/* Of the thread that started the collector GC_stackbottom is the bottom, as in
 * libgc, and the program may write it at each switch (Crystal does); of all
 * others this, NULL: the thread's own. */
static __thread void *bottom __attribute__((tls_model("initial-exec")));
static __thread bool first __attribute__((tls_model("initial-exec")));

static void *own_bottom(void)
{
	static __thread void *end __attribute__((tls_model("initial-exec")));
	pthread_attr_t attr;
	void *low;
	size_t size;

	if (!end && !pthread_getattr_np(pthread_self(), &attr)) {
		if (!pthread_attr_getstack(&attr, &low, &size))
			end = (char *)low + size;
		pthread_attr_destroy(&attr);
	}
	return end;
}

LG_API int GC_get_stack_base(struct GC_stack_base *base)
{
	base->mem_base = own_bottom();
	return base->mem_base ? GC_SUCCESS : GC_UNIMPLEMENTED;
}

LG_API void *GC_get_my_stackbottom(struct GC_stack_base *base)
{
	weir_mutator *m = lg_mutator();

	base->mem_base = first ? GC_stackbottom : bottom;
	if (!base->mem_base)
		base->mem_base = own_bottom();
	return m;
}

void lg_stack_first(void)
{
	first = true;
	if (!GC_stackbottom)
		GC_stackbottom = own_bottom();
}

void lg_stack_attached(weir_mutator *m)
{
	if (first && weir_thread_watch_stack(m, (void *const *)&GC_stackbottom))
		lg_fatal("GC_stackbottom: %s", weir_error_text());
}

/* A thread's own, or NULL for it: a coroutine is switched to.  The variable
 * comes last: from then on it says where the thread is.  Of other threads
 * Crystal tells so, in push_other_roots. */
LG_API void GC_set_stackbottom(void *thread, const struct GC_stack_base *base)
{
	weir_mutator *m;

	if (lg_visitor || (thread && thread != lg_self)) {
		if (weir_thread_set_stack_of(lg_init(), thread, base->mem_base))
			lg_fatal("GC_set_stackbottom: %s", weir_error_text());
		return;
	}
	m = lg_mutator();
	bottom = base->mem_base == own_bottom() ? NULL : base->mem_base;
	if (weir_thread_set_stack(m, bottom))
		lg_fatal("GC_set_stackbottom: %s", weir_error_text());
	if (first)
		GC_stackbottom = base->mem_base;
}

LG_API __attribute__((noinline)) void *
GC_call_with_stack_base(GC_stack_base_func fn, void *arg)
{
	struct GC_stack_base base = {.mem_base = __builtin_frame_address(0)};
	void *result = fn(&base, arg);

	__asm__ volatile("" ::: "memory"); /* no tail call */
	return result;
}

/* ---- Blocking, locks ---------------------------------------------------- */

static __thread unsigned blocked __attribute__((tls_model("initial-exec")));

struct call {
	GC_fn_type fn; /* the program's */
	void *data;    /* to it */
};

static void *inside(void *arg)
{
	struct call *c = arg;
	void *result;

	blocked++;
	result = c->fn(c->data);
	blocked--;
	return result;
}

LG_API void *GC_do_blocking(GC_fn_type fn, void *data)
{
	struct call c = {fn, data};

	if (!lg_self)
		return fn(data);
	return weir_blocking_call(lg_self, inside, &c);
}

static void *active(void *arg)
{
	struct call *c = arg;
	unsigned outer = blocked;
	void *result;

	blocked = 0;
	result = c->fn(c->data);
	blocked = outer;
	return result;
}

LG_API void *GC_call_with_gc_active(GC_fn_type fn, void *data)
{
	struct call c = {fn, data};

	if (!blocked)
		return fn(data);
	return weir_unblocked_call(lg_self, active, &c);
}

LG_API void *GC_call_with_alloc_lock(GC_fn_type fn, void *data)
{
	return weir_locked_call(lg_init(), fn, data);
}

/* In callbacks on the collector's thread they do nothing: it has the lock. */
LG_API void GC_alloc_lock(void)
{
	weir_locked_begin(lg_init());
}

LG_API void GC_alloc_unlock(void)
{
	weir_locked_end(lg_init());
}

LG_API int GC_get_suspend_signal(void)
{
	return SIGPWR;
}

/* None is needed; libgc's. */
LG_API int GC_get_thr_restart_signal(void)
{
	return SIGXCPU;
}

LG_API void GC_set_suspend_signal(int sig)
{
	if (sig != SIGPWR)
		lg_warn("GC_set_suspend_signal(%lu) is ignored; "
			"WEIR_OPTIONS=suspend-signal=N sets it\n",
			(GC_word)sig);
}

LG_API void GC_set_thr_restart_signal(int sig)
{
	(void)sig;
}

/* ---- Threads held by the program ---------------------------------------- */

/*
 * A thread that is held must have neither the lock of libgc's interface, as in
 * libgc, nor one of ours.  The order of these three is not the one in which
 * others take them, so nothing is waited for with one of them.
 */
struct holding {
	int (*fn)(weir_heap *, pthread_t); /* what to do then */
	pthread_t thread;                  /* with this */
	bool done;                         /* it was */
};

static void *try_holding(void *arg)
{
	struct holding *h = arg;

	if (pthread_mutex_trylock(&lg_outer))
		return NULL;
	if (!pthread_mutex_trylock(&lg_lock)) {
		h->fn(lg_heap, h->thread);
		h->done = true;
		pthread_mutex_unlock(&lg_lock);
	}
	pthread_mutex_unlock(&lg_outer);
	return NULL;
}

static void hold(int (*fn)(weir_heap *, pthread_t), pthread_t thread)
{
	struct holding h = {fn, thread, false};

	lg_mutator();
	while (!h.done) {
		weir_locked_call(lg_heap, try_holding, &h);
		if (!h.done)
			sched_yield();
	}
}

LG_API void GC_suspend_thread(pthread_t t);
LG_API void GC_suspend_thread(pthread_t t)
{
	if (pthread_equal(t, pthread_self()))
		weir_thread_suspend(lg_init(), t);
	else
		hold(weir_thread_suspend, t);
}

LG_API void GC_resume_thread(pthread_t t);
LG_API void GC_resume_thread(pthread_t t)
{
	weir_thread_resume(lg_init(), t);
}

LG_API int GC_is_thread_suspended(pthread_t t);
LG_API int GC_is_thread_suspended(pthread_t t)
{
	return weir_thread_suspended(lg_init(), t) == 1;
}

static int suspend_all(weir_heap *h, pthread_t t)
{
	(void)t;
	return weir_threads_suspend_begin(h);
}

/* From there to the start the caller has the lock, as in libgc. */
LG_API void GC_stop_world_external(void)
{
	hold(suspend_all, pthread_self());
}

LG_API void GC_start_world_external(void)
{
	weir_threads_suspend_end(lg_init());
}

/* fork() is handled always: weir has its own handlers. */
LG_API void GC_set_handle_fork(int on)
{
	(void)on;
}

LG_API void GC_atfork_prepare(void)
{
}

LG_API void GC_atfork_parent(void)
{
}

LG_API void GC_atfork_child(void)
{
}
