/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of a heap: all that was alive at one moment, with the roots, to be
 * read while the program goes on; and heap dumps for Chrome DevTools.
 *
 *	weir_heap_dump(heap, "/tmp/app.heapsnapshot");	// that is all
 *
 *	weir_heap_snapshot *s;
 *	weir_heap_snapshot_take(heap, &s);		// runs a full cycle
 *	weir_heap_snapshot_each(s, fn, arg);		// objects as they were
 *	weir_heap_snapshot_free(s);
 *
 * The conventions are those of weir.h.
 *
 * The moment is the end of the pause of a full cycle that the call runs.  The
 * heap is copied beside the program, to memory of the snapshot's own: when
 * marking is done the pages that something alive is on, then again what was
 * written meanwhile, and the last of it in the pause.  So the pause grows with
 * what is written while the last pages are copied, not with the heap; but for
 * the time to look through the page tables once more, 0.25 to 0.35 ms a GiB,
 * and for roots, which are read a second time.  A program that allocates fast
 * waits for the cycle as for any, and this one lasts longer.
 *
 * That takes a barrier under which pages can be watched without harm.  Under
 * async, and sync with privilege, all of the heap is copied beside the program.
 * Under sync without privilege, sigbus and mprotect leaf objects are copied in
 * the pause: system calls may write to them at any time, and would fail where
 * they are watched.  Under none (or where weir_collect() with
 * WEIR_COLLECT_STOPPED would be needed) all of the heap is.
 * weir_heap_snapshot_info() says what was; the cure is another barrier
 * (weir-info tells which there are).
 *
 * Memory: about as much as is alive, a sixteenth for where objects are, and
 * addresses as the heap has them.  It does not count against heap-max.
 *
 * What is in it: each object that the pause found alive, those that finalizers
 * wait for among them; its bytes, kind and size.  Threads in blocking regions
 * that write to the heap through system calls go on doing so: of what these
 * write a part may be in it.  The weak references (weir_weak) are those shortly
 * after the pause.
 *
 * A device that writes to a leaf object while it is copied (O_DIRECT, fixed
 * buffers of io_uring) is not noticed.
 *
 * A finished snapshot does not need the heap any more: it may be read and freed
 * by any thread, also when the heap was destroyed.  Several threads may read
 * one.  fork(): the child has it too.
 */
#ifndef WEIR_HEAP_SNAPSHOT_H
#define WEIR_HEAP_SNAPSHOT_H

#include <weir/snapshot.h>
#include <weir/weir.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_heap_snapshot weir_heap_snapshot;

struct weir_heap_snapshot_info {
	size_t size;      /* sizeof(struct weir_heap_snapshot_info) of the
			   * caller */
	uint64_t time_ns; /* the moment, CLOCK_REALTIME */
	uint64_t objects; /* alive */
	uint64_t bytes;   /* of them */
	uint64_t pages;   /* copied beside the program, each time counted */
	uint64_t pages_stopped; /* copied in the pause */
	unsigned passes;        /* over what was written, ahead of it */
	unsigned roots;         /* references from roots */
	uint64_t stopped_ns;    /* of the pause, for the snapshot */
	uint64_t elapsed_ns;    /* the whole cycle, until it was swept */
	uint64_t memory;        /* bytes that it occupies */
};

/*
 * Take one: runs a full cycle, and returns when that is swept.  If another one
 * is being taken that is waited for.  The same threads and places as
 * weir_collect(): an attached caller counts as blocked.  -EBUSY:
 * cycles are disabled or held; -ENOMEM; -EDEADLK as weir_collect(); or what the
 * barrier says when the leaf space cannot be watched.
 */
WEIR_API int weir_heap_snapshot_take(weir_heap *heap,
				     weir_heap_snapshot **snapshot);

/* NULL is allowed.  Nobody uses it.  An attached caller counts as blocked. */
WEIR_API void weir_heap_snapshot_free(weir_heap_snapshot *snapshot);

/* `size` of *info is set by the caller. */
WEIR_API int weir_heap_snapshot_info(const weir_heap_snapshot *snapshot,
				     struct weir_heap_snapshot_info *info);

/* ---- Objects ------------------------------------------------------------- */

struct weir_heap_object {
	const void *address; /* where it was */
	const void *data;    /* what it held, until the snapshot is freed */
	size_t bytes;        /* as weir_object_size() */
	weir_kind kind;      /* as allocated */
	const char *name;    /* of the kind, or NULL; as long as the snapshot */
};

typedef int weir_heap_object_fn(const struct weir_heap_object *object,
				void *arg);
/* fn(object, arg) for each object, by address, until it returns something else
 * than 0, which is returned then. */
WEIR_API int weir_heap_snapshot_each(const weir_heap_snapshot *snapshot,
				     weir_heap_object_fn *fn, void *arg);

/* The object that `p`, an address of the time, points into; -ENOENT: none. */
WEIR_API int weir_heap_snapshot_object(const weir_heap_snapshot *snapshot,
				       const void *p,
				       struct weir_heap_object *object);

enum weir_heap_reference {
	WEIR_REFERENCE_WORD,  /* a word of the object, `word` counted from 0 */
	WEIR_REFERENCE_KEY,   /* an ephemeron's key: does not keep it alive */
	WEIR_REFERENCE_VALUE, /* its value: alive while the key is */
	WEIR_REFERENCE_LINK,  /* weir_link_add(), in word `word`: likewise weak
			       */
};

typedef int weir_heap_reference_fn(const void *to, enum weir_heap_reference how,
				   size_t word, void *arg);
/*
 * fn for each reference of the object that starts at `address` to another, or
 * to itself: those that the collector follows, and weak ones.  Of objects with
 * a trace function these are the words that look like references, since what
 * that would say of the moment cannot be known any more.  Otherwise as each.
 * -ENOENT: no object starts there.
 */
WEIR_API int weir_heap_snapshot_refs(const weir_heap_snapshot *snapshot,
				     const void *address,
				     weir_heap_reference_fn *fn, void *arg);

enum weir_heap_root {
	WEIR_ROOT_STACK,     /* a thread's stack */
	WEIR_ROOT_REGISTERS, /* its registers, or another stack of its */
	WEIR_ROOT_RANGE,     /* weir_root_add(), or a data segment */
	WEIR_ROOT_CALLBACK,  /* reported by root callbacks */
	WEIR_ROOT_QUEUED,    /* finalizers, and objects to be asked, that are
			      * queued */
	WEIR_ROOT_WEAK,      /* a weir_weak: does not keep it alive */
	WEIR_ROOT_LINK,      /* a link outside of the heap: likewise */
};

typedef int weir_heap_root_fn(const void *to, enum weir_heap_root kind,
			      const char *name, const void *where, void *arg);
/* fn for each reference from a root; `name` says which in words, `where` is the
 * address that it was at, or NULL.  Otherwise as each. */
WEIR_API int weir_heap_snapshot_roots(const weir_heap_snapshot *snapshot,
				      weir_heap_root_fn *fn, void *arg);

/* ---- Memory, page by page ------------------------------------------------ */

/* As the functions of a snapshot of two regions: objects with references, and
 * leaf objects, each as far as it was in use.  Pages that nothing alive was on
 * are zero.  weir_image_write_heap() of weir/image.h makes a file of them. */

/* As weir_snapshot_identity(). */
WEIR_API int weir_heap_snapshot_identity(const weir_heap_snapshot *snapshot,
					 struct weir_snapshot_identity *id);
/* As weir_snapshot_region(); i is 0 or 1. */
WEIR_API int weir_heap_snapshot_region(const weir_heap_snapshot *snapshot,
				       size_t i, struct weir_region_info *info);
/* As weir_snapshot_read(). */
WEIR_API int weir_heap_snapshot_read(const weir_heap_snapshot *snapshot,
				     weir_snapshot_sink_fn *sink, void *arg);

/* ---- Heap dumps ---------------------------------------------------------- */

/*
 * Write it in the format that Chrome DevTools load (Memory, Load profile; the
 * file's name has to end in .heapsnapshot).  Objects are nodes of the type
 * "object", leaf ones "native"; their ids are the same in every dump of a heap
 * as long as they are at the same address, so that two dumps can be compared.
 * They are named by their kinds (weir_kind_name()), or by how they are traced
 * and their size.  Roots are under "(GC roots)", a node for each stack, range
 * and so on, that the edges are counted in words from the start of; what only
 * trace functions lead to is under "(otherwise alive)".  Weak references,
 * ephemeron keys and links are weak edges.
 *
 * To a descriptor: not synced, not closed; or to a file: under a temporary name
 * in the same directory, synced, and renamed when it is whole, so that `path`
 * is the old file or the new.  The new one is its user's alone (0600), whatever
 * the old one was; a symbolic link stays, and one to nothing is -ENOENT.  An
 * attached caller counts as blocked.  No cancellation points.  Beside the
 * snapshot it takes a bit for each 8 bytes of it, and at worst 8 bytes an
 * object.  -ENOSPC, -EIO and what else opening and writing return; -EINVAL:
 * path is there and not a regular file; -ENOMEM.
 */
WEIR_API int weir_heap_snapshot_dump_fd(const weir_heap_snapshot *snapshot,
					int fd);
/* To a file, as above. */
WEIR_API int weir_heap_snapshot_dump_file(const weir_heap_snapshot *snapshot,
					  const char *path);

/* Take a snapshot, dump it to the file, free it.  The errors of all three. */
WEIR_API int weir_heap_dump(weir_heap *heap, const char *path);

/* What objects of this kind are called in snapshots from now on: up to 127
 * bytes of UTF-8, copied.  Any thread; -EINVAL: no such kind, name NULL, empty
 * or too long; -ENOMEM; -EDEADLK in a callback of the collector. */
WEIR_API int weir_kind_name(weir_heap *heap, weir_kind kind, const char *name);

#ifdef __cplusplus
}
#endif
#endif
