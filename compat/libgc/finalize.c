/* SPDX-License-Identifier: MIT */
/*
 * Finalizers and disappearing links.
 *
 * weir's table is the only one: a finalizer is weir's, with an entry of ours
 * for its argument, which has the program's function and the slot that keeps
 * the program's data alive until the finalizer ran, as libgc's table does.
 * Whoever gets an entry out of weir, by replacing, removing or running it, is
 * the only one to have it.
 *
 * Programs whose references have a tag (ECL) register and get those.  An object
 * has one finalizer, whatever its tag.
 *
 * Finalizers run where libgc runs them: in the thread that allocates, after a
 * cycle found some; in GC_gcollect(); or only in GC_invoke_finalizers() if the
 * program says "on demand", when its notifier is called once a cycle.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

struct finalizer {
	GC_finalization_proc fn; /* to be called */
	size_t slot;             /* that keeps the program's data */
	size_t offset;           /* into the object, of what fn is given */
};

static size_t count; /* atomic: entries that weir may have */

/* The entry is the caller's. */
static void drop(struct finalizer *f)
{
	/* Relaxed: only to peek at, see lg_finalize_forget(). */
	__atomic_sub_fetch(&count, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&lg_lock);
	lg_unkeep(f->slot);
	pthread_mutex_unlock(&lg_lock);
	free(f);
}

/* weir runs it: the object is alive, and so are its data, on this stack. */
static void run(void *object, void *arg)
{
	struct finalizer *f = arg;
	GC_finalization_proc fn = f->fn;
	void *volatile data = (void *)lg_kept(f->slot);
	char *volatile tagged = (char *)object + f->offset;

	drop(f);
	fn(tagged, data);
}

static struct finalizer *new_finalizer(GC_finalization_proc fn, void *data,
				       size_t offset)
{
	struct finalizer *f = malloc(sizeof(*f));

	if (!f)
		return NULL;
	pthread_mutex_lock(&lg_lock);
	*f = (struct finalizer){fn, lg_keep(data), offset};
	pthread_mutex_unlock(&lg_lock);
	if (!f->slot) {
		free(f);
		return NULL;
	}
	__atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
	return f;
}

static void set(void *object, GC_finalization_proc fn, void *data,
		GC_finalization_proc *old_fn, void **old_data, unsigned flags)
{
	struct finalizer *f = NULL, *old;
	void *replaced = NULL;
	char *base;
	int had;

	lg_mutator();
	if (lg_leak_mode())
		return; /* as in libgc: the old one is not told either */
	if (old_fn)
		*old_fn = NULL;
	if (old_data)
		*old_data = NULL;
	base = weir_object_base(lg_heap, object);
	if (!base)
		return; /* as libgc does for what is not in its heap */
	if (fn)
		f = new_finalizer(fn, data, (size_t)((char *)object - base));
	had = fn && !f ? -ENOMEM
		       : weir_finalizer_swap(lg_heap, base, fn ? run : NULL, f,
					     flags, &replaced);
	if (had < 0)
		lg_fatal("libgc on weir: no memory for a finalizer");
	if (!had)
		return;
	old = replaced;
	if (old_fn)
		*old_fn = old->fn;
	if (old_data)
		*old_data = (void *)lg_kept(old->slot);
	drop(old);
}

void lg_finalize_forget(void *object)
{
	void *old;

	/* Relaxed: an object's finalizer was set by a thread that then handed
	 * it to this one. */
	if (__atomic_load_n(&count, __ATOMIC_RELAXED) &&
	    weir_finalizer_swap(lg_heap, object, NULL, NULL, 0, &old) == 1)
		drop(old);
}

/* Objects are finalized before what they reach. */
LG_API void GC_register_finalizer(void *object, GC_finalization_proc fn,
				  void *data, GC_finalization_proc *old_fn,
				  void **old_data)
{
	set(object, fn, data, old_fn, old_data, WEIR_FINALIZE_ORDERED);
}

LG_API void GC_register_finalizer_ignore_self(void *object,
					      GC_finalization_proc fn,
					      void *data,
					      GC_finalization_proc *old_fn,
					      void **old_data)
{
	set(object, fn, data, old_fn, old_data,
	    WEIR_FINALIZE_ORDERED | WEIR_FINALIZE_IGNORE_SELF);
}

LG_API void GC_register_finalizer_no_order(void *object,
					   GC_finalization_proc fn, void *data,
					   GC_finalization_proc *old_fn,
					   void **old_data)
{
	set(object, fn, data, old_fn, old_data, WEIR_FINALIZE_UNORDERED);
}

/* Only once nothing else that is finalizable reaches it. */
LG_API void GC_register_finalizer_unreachable(void *object,
					      GC_finalization_proc fn,
					      void *data,
					      GC_finalization_proc *old_fn,
					      void **old_data)
{
	set(object, fn, data, old_fn, old_data, WEIR_FINALIZE_ORDERED);
}

/* ---- Running them ------------------------------------------------------- */

/* How deep finalizers run that allocation started; and how often it was put
 * off since.  As in libgc: one that is left by longjmp() or an exception does
 * not end finalization for ever. */
static __thread unsigned depth __attribute__((tls_model("initial-exec")));
static __thread unsigned put_off __attribute__((tls_model("initial-exec")));

LG_API int GC_should_invoke_finalizers(void)
{
	return lg_heap && weir_finalizers_queued(lg_heap) != 0;
}

LG_API int GC_invoke_finalizers(void)
{
	long n = weir_finalizers_run(lg_mutator(), 0);

	return n > 0 ? (int)n : 0;
}

void lg_finalize_due(void)
{
	static uint64_t told; /* atomic: cycles by the last call */
	GC_finalizer_notifier_proc notify;

	if (!GC_finalize_on_demand) {
		/* A finalizer that allocates does not run others at once. */
		if (depth && ++put_off < 1u << (depth < 20 ? depth : 20))
			return;
		put_off = 0;
		depth++;
		GC_invoke_finalizers();
		depth--;
		return;
	}
	notify = GC_finalizer_notifier;
	if (notify && lg_first(&told, lg_cycles()))
		notify();
}

LG_API void GC_finalize_all(void);
LG_API void GC_finalize_all(void)
{
	weir_finalizers_run_all(lg_mutator());
}

LG_API void GC_set_finalize_on_demand(int on)
{
	GC_finalize_on_demand = on;
}

LG_API int GC_get_finalize_on_demand(void)
{
	return GC_finalize_on_demand;
}

LG_API void GC_set_java_finalization(int on)
{
	GC_java_finalization = on;
}

LG_API int GC_get_java_finalization(void)
{
	return GC_java_finalization;
}

LG_API void GC_set_finalizer_notifier(GC_finalizer_notifier_proc fn)
{
	GC_finalizer_notifier = fn;
}

LG_API GC_finalizer_notifier_proc GC_get_finalizer_notifier(void)
{
	return GC_finalizer_notifier;
}

static GC_await_finalize_proc await_proc; /* atomic */

static void await(void *object, void *arg)
{
	GC_await_finalize_proc fn =
		__atomic_load_n(&await_proc, __ATOMIC_ACQUIRE);

	(void)arg;
	if (fn)
		fn(object);
}

LG_API void GC_set_await_finalize_proc(GC_await_finalize_proc fn)
{
	lg_mutator();
	__atomic_store_n(&await_proc, fn, __ATOMIC_RELEASE);
	weir_finalizers_on_queued(lg_heap, fn ? await : NULL, NULL);
}

LG_API GC_await_finalize_proc GC_get_await_finalize_proc(void)
{
	return __atomic_load_n(&await_proc, __ATOMIC_ACQUIRE);
}

/* ---- Objects that come with one ------------------------------------------ */

/*
 * As in libgc: the first word has the closure and a flag, the program gets what
 * comes after it.  An object on a list of GC_generic_malloc_many() has a link
 * there, without the flag.
 */
#define FLAG 1u

static int finalized_kind; /* atomic: 0 before it is made */

static int finalized(void *object)
{
	uintptr_t *word = object;
	const struct GC_finalizer_closure *c;

	if (word[0] & FLAG) {
		c = (const struct GC_finalizer_closure *)(word[0] - FLAG);
		c->proc(word + 1, c->cd);
	}
	return 0;
}

static void make_finalized_kind(void)
{
	int kind = (int)GC_new_kind(GC_new_free_list(), GC_DS_LENGTH, 1, 1);

	GC_register_disclaim_proc(kind, finalized, 1);
	__atomic_store_n(&finalized_kind, kind, __ATOMIC_RELEASE);
}

LG_API void GC_init_finalized_malloc(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	lg_mutator();
	pthread_once(&once, make_finalized_kind);
}

LG_API void *GC_finalized_malloc(size_t n,
				 const struct GC_finalizer_closure *closure)
{
	int kind = __atomic_load_n(&finalized_kind, __ATOMIC_ACQUIRE);
	uintptr_t *word;

	if (!kind)
		lg_fatal("GC_finalized_malloc: GC_init_finalized_malloc() was "
			 "not called");
	word = GC_malloc_kind(n < SIZE_MAX / 2 ? n + sizeof(*word) : n, kind);
	if (!word)
		return NULL;
	word[0] = (uintptr_t)closure | FLAG;
	return word + 1;
}

/* ---- Disappearing links ------------------------------------------------- */

static int link_add(void **link, const void *object, unsigned flags,
		    const char *function)
{
	int err;

	lg_mutator();
	if ((uintptr_t)link % sizeof(*link))
		lg_fatal("%s: the link %p is not aligned", function,
			 (void *)link);
	if (lg_leak_mode())
		return GC_UNIMPLEMENTED;
	/* What is not in the heap does not die. */
	if (!weir_object_base(lg_heap, object))
		return GC_SUCCESS;
	err = weir_link_add(lg_heap, link, object, flags);
	if (err == -ENOMEM)
		return GC_NO_MEMORY;
	return err == 1 ? GC_DUPLICATE : GC_SUCCESS;
}

static int link_move(void **from, void **to, unsigned flags)
{
	int err;

	lg_mutator();
	if (from == to)
		return GC_SUCCESS;
	err = weir_link_move(lg_heap, from, to, flags);
	return err == -EEXIST ? GC_DUPLICATE : err ? GC_NOT_FOUND : GC_SUCCESS;
}

LG_API int GC_general_register_disappearing_link(void **link,
						 const void *object)
{
	return link_add(link, object, WEIR_LINK_SHORT, __func__);
}

LG_API int GC_register_disappearing_link(void **link)
{
	void *base = GC_base(link);

	if (!base)
		lg_fatal("GC_register_disappearing_link: %p is not in an "
			 "object",
			 (void *)link);
	return link_add(link, base, WEIR_LINK_SHORT, __func__);
}

LG_API int GC_register_long_link(void **link, const void *object)
{
	return link_add(link, object, WEIR_LINK_LONG, __func__);
}

LG_API int GC_move_disappearing_link(void **from, void **to)
{
	return link_move(from, to, WEIR_LINK_SHORT);
}

LG_API int GC_move_long_link(void **from, void **to)
{
	return link_move(from, to, WEIR_LINK_LONG);
}

LG_API int GC_unregister_disappearing_link(void **link)
{
	return lg_heap && !weir_link_remove(lg_heap, link, WEIR_LINK_SHORT);
}

LG_API int GC_unregister_long_link(void **link)
{
	return lg_heap && !weir_link_remove(lg_heap, link, WEIR_LINK_LONG);
}
