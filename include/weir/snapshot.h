/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of memory without fork: what a region of memory held at one
 * moment, read while its program goes on writing to it.
 *
 *	struct weir_region_options how = {.size = sizeof(how)};
 *	weir_region_reserve(1 << 30, 0, &how, &region);   // at the start
 *	...
 *	// on a saver's thread:
 *	weir_snapshot_create(&region, 1, NULL, &snapshot);
 *	weir_snapshot_prepare(snapshot, 0);  // protects, program running
 *	   (no thread writes to the region)
 *	weir_snapshot_begin(snapshot);       // the moment
 *	   (they go on)
 *	weir_snapshot_read(snapshot, sink, arg); // every page as it was then
 *	weir_snapshot_end(snapshot);
 *
 * weir/image.h writes files and reads them back.  The conventions are those
 * of weir.h.
 *
 *   who may call                  beside whom
 *   weir_region_*                 any thread; not beside another call for the
 *                                 same region, nor while it is in a snapshot,
 *                                 where it is not said to be allowed
 *   prepare, begin, read, end     one thread at a time for one snapshot
 *   abort, progress               any thread, beside all but end
 *   writes to a region            at any time but during begin; they are what
 *                                 snapshots are there for
 *
 * How a write is noticed.  Pages are write-protected by userfaultfd, one of
 * three ways for a region, chosen when it is made:
 *
 *   sync    a thread of the library reads each fault, keeps what the page
 *           held and lets the writer go on.  System calls that write to the
 *           region (read(2), recv(2), ...) work.  Takes privilege: root,
 *           CAP_SYS_PTRACE, access to /dev/userfaultfd or the sysctl
 *           vm.unprivileged_userfaultfd=1.
 *   sigbus  the writing thread keeps the page itself, in a SIGBUS handler.
 *           Any user may; but a system call that writes to a protected page
 *           fails with EFAULT, so the program must promise that none does
 *           (WEIR_REGION_USER_WRITES).  A thread that writes must not have
 *           SIGBUS blocked: the kernel would end the process; and while it
 *           waits for room in the pool all its signals are.
 *   async   the kernel notes the page and lets the writer go on.  Any user
 *           may, system calls work (Linux 6.7); but what the page held is
 *           gone, so only end-consistent snapshots can be had.
 *
 * What loses a page's content behind the library's back: MADV_DONTNEED and
 * MADV_REMOVE of a part of a region, and MADV_FREE under memory pressure.
 * weir_region_discard() does the first properly.  Where one of the first two
 * happens during a snapshot all the same the snapshot fails (-ESTALE) if a page
 * not yet saved was lost, and never silently holds something else.  (Under
 *async a page of a shared region that MADV_REMOVE took, and that was then only
 *read, passes for unchanged in the next delta.)  A part of a region must not be
 *unmapped, moved, mapped over or made inaccessible: the library reads it.
 *Writes by devices and by io_uring to buffers that were registered (pinned)
 *before cannot be noticed by anyone: name them in `pinned`.
 *
 * fork(): a child has the memory, and the regions for it; snapshots that were
 * under way are the parent's (-ESTALE in the child, but for weir_snapshot_end()
 * and weir_snapshot_abort()).
 */
#ifndef WEIR_SNAPSHOT_H
#define WEIR_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include <weir/weir.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_region weir_region;
typedef struct weir_snapshot weir_snapshot;

/* ---- Regions ------------------------------------------------------------ */

#define WEIR_REGION_HUGE                                            \
	1u /* transparent huge pages, and 2 MiB the unit of saving. \
	    * Before Linux 6.4 the unit only: under sync and sigbus \
	    * private memory has no huge pages there */
#define WEIR_REGION_USER_WRITES                                   \
	2u /* no system call writes to it while a snapshot is on; \
	    * reading from it is no matter */
#define WEIR_REGION_SHARED                                         \
	4u /* reserve: a memfd mapped shared: children of fork()   \
	    * see the memory itself, and fork() does not copy it.  \
	    * What they write, or anybody through another mapping, \
	    * is not noticed */
#define WEIR_REGION_TRACK                                            \
	8u /* know what changed since the last snapshot, for deltas: \
	    * pages stay protected after they were saved */
#define WEIR_REGION_PAGES                                                   \
	16u /* with HUGE: huge pages, of which each 4 KiB page is protected \
	     * and saved by itself.  The first write to a protected huge    \
	     * page splits it; then a write keeps a page, not 2 MiB */

enum weir_region_barrier {
	WEIR_REGION_AUTO,   /* sigbus if USER_WRITES, else sync */
	WEIR_REGION_SYNC,   /* see above */
	WEIR_REGION_SIGBUS, /* see above; takes USER_WRITES */
	WEIR_REGION_ASYNC,  /* see above */
};

struct weir_region_options {
	size_t size;      /* sizeof(struct weir_region_options) of the caller */
	unsigned flags;   /* WEIR_REGION_* */
	unsigned barrier; /* enum weir_region_barrier */
	void *address;    /* reserve: exactly there; NULL: anywhere */
	const char *name; /* for people, up to 31 bytes, copied; or NULL */
};

struct weir_region_info {
	size_t size;      /* sizeof(struct weir_region_info) of the caller */
	void *address;    /* first byte */
	size_t bytes;     /* in use, from there */
	size_t limit;     /* to which it may grow */
	size_t unit;      /* what is protected and saved at once, in bytes */
	unsigned flags;   /* WEIR_REGION_* */
	unsigned barrier; /* enum weir_region_barrier, never AUTO */
	int memfd;        /* SHARED: the file, the library's; else -1 */
	char name[32];    /* as given, "" if none was */
	const char *why;  /* why this barrier; valid as long as the region */
};

/*
 * New memory of `bytes` bytes, zeroed, which may grow to `limit` (0: bytes)
 * without moving.  Both are rounded up to whole pages (huge ones with
 * WEIR_REGION_HUGE, to which the memory is aligned then).  -ENOTSUP: no barrier
 * that is safe for this program is to be had here; the text names the cause and
 * the cure.  -EEXIST: something is mapped at `address`.  -EINVAL, -ENOMEM.
 */
WEIR_API int weir_region_reserve(size_t bytes, size_t limit,
				 const struct weir_region_options *options,
				 weir_region **region);

/*
 * Memory that is there already, [start, start + bytes), whole units (pages, or
 * with WEIR_REGION_HUGE without PAGES huge ones): private anonymous memory or a
 * shared mapping of a memfd, read-write, in one mapping or several.  It stays
 * the caller's and must stay mapped until weir_region_release().  -EINVAL: it
 * is something else, as a private mapping of a file; -EBUSY: another
 * userfaultfd has a part of it; -EEXIST: another region has.
 */
WEIR_API int weir_region_adopt(void *start, size_t bytes,
			       const struct weir_region_options *options,
			       weir_region **region);

/* Make it `bytes` long, no less than it is, no more than its limit; what is
 * new is zero.  Allowed during a snapshot: what is new is not in it.  -EINVAL
 * for less, and for adopted memory; -ENOMEM beyond the limit. */
WEIR_API int weir_region_grow(weir_region *region, size_t bytes);

/* Give whole pages back to the system: they read as zero.  Allowed during a
 * snapshot: there it is like a write to each of them (the pool keeps what they
 * held), and may wait like one.  -EINVAL: not whole units of the region (see
 * weir_region_info()). */
WEIR_API int weir_region_discard(weir_region *region, void *start,
				 size_t bytes);

/* End it; the memory goes too unless it was adopted.  -EBUSY while it is in a
 * snapshot.  NULL is allowed. */
WEIR_API int weir_region_release(weir_region *region);

/* `size` of *info is set by the caller. */
WEIR_API int weir_region_info(const weir_region *region,
			      struct weir_region_info *info);

/* 1 if it is in a snapshot now, from create to end, 0 if not.  Any thread, also
 * beside create and end: old when it is looked at. */
WEIR_API int weir_region_in_snapshot(const weir_region *region);

/* ---- Snapshots ---------------------------------------------------------- */

enum weir_snapshot_kind {
	/* What the regions held when weir_snapshot_begin() was called.  Takes
	 * sync or sigbus. */
	WEIR_SNAPSHOT_BEGIN,
	/* What they hold at a moment towards the end of weir_snapshot_read():
	 * everything is read while the program runs, then again what it wrote
	 * meanwhile, until little is left; for that, and that only, the writers
	 * must be quiet: `stop` is called.  That takes a walk over the regions'
	 * page tables, which grows with them: some 0.9 ms a GiB of 4 KiB pages.
	 * Takes async. */
	WEIR_SNAPSHOT_END,
};

/* What happens to a write that needs room in the pool when there is none. */
enum weir_snapshot_full {
	/* It waits until the sink has taken something out of the pool. */
	WEIR_FULL_STALL,
	/* Its page is handed to the sink next, ahead of the pool: it waits for
	 * what the sink is doing just now. */
	WEIR_FULL_WRITE_THROUGH,
	/* It goes on at once, and the snapshot fails with -ENOBUFS. */
	WEIR_FULL_FAIL,
};

#define WEIR_SNAPSHOT_DELTA                                            \
	1u /* only what changed since the last snapshot of the regions \
	    * (WEIR_REGION_TRACK); the first is whole */

/* Where a snapshot stands.  Each figure is current to itself. */
struct weir_snapshot_progress {
	size_t size;            /* sizeof of the caller's */
	uint64_t bytes_total;   /* of the regions, from begin on; a delta
				 * saves less of them */
	uint64_t bytes_saved;   /* of them, handed to the sink */
	uint64_t bytes_zero;    /* of those, elided: all zero */
	uint64_t bytes_again;   /* END: handed over more than once */
	uint64_t faults;        /* writes that met a protected page, since
				 * prepare */
	uint64_t kept;          /* units copied because they were written */
	uint64_t hot;           /* of them, copied in begin */
	uint64_t hot_protected; /* units that were written before begin and
				 * protected in it */
	uint64_t waits;         /* writes that found the pool full */
	size_t pool_bytes;      /* size of the pool */
	size_t pool_used;       /* of it, in use now */
	size_t pool_peak;       /* the most so far */
	uint64_t begin_ns;      /* how long begin (END: the stop) took, from
				 * the return of `stop` to the call of
				 * `resume` */
	uint64_t stop_ns;       /* how long `stop` took to return */
	uint64_t elapsed_ns;    /* since begin */
	uint64_t remaining_ns;  /* estimated, at the rate so far; 0 unknown */
};

struct weir_snapshot_options {
	size_t size;    /* sizeof(struct weir_snapshot_options) of the
			 * caller */
	unsigned flags; /* WEIR_SNAPSHOT_DELTA */
	unsigned kind;  /* enum weir_snapshot_kind */
	unsigned full;  /* enum weir_snapshot_full */
	size_t pool;    /* bytes for pages that are written before they
			 * are saved; 0: 64 MiB.  Allocated and touched by
			 * prepare. */
	uint64_t rate;  /* bytes a second that the saver reads at most; 0:
			 * as fast as the sink takes them */
	/* Make the writers quiet, and let them go.  NULL: the caller has seen
	 * to it (BEGIN).  `stop` returns 0 or a negative errno, with which
	 * begin fails.  Called on the thread that called begin or read.  The
	 * writers need not be stopped as threads: not to write is enough. */
	int (*stop)(void *arg);
	void (*resume)(void *arg);
	void *stop_arg;
	/* Called on the saver's thread, at most every `progress_ns` (0: 100
	 * ms), in read; non-zero aborts. */
	int (*progress)(const struct weir_snapshot_progress *progress,
			void *arg);
	void *progress_arg;
	uint64_t progress_ns;
	/* Memory of the regions that is written by what cannot be noticed
	 * (devices, pinned buffers of io_uring): copied in begin. */
	const struct weir_snapshot_range *pinned;
	size_t pinned_count;
};

struct weir_snapshot_range {
	const void *start; /* anywhere in a region; whole units are copied */
	size_t bytes;
};

/*
 * A `stop` and a `resume` for programs whose writers are threads attached to a
 * heap (weir_thread_attach()); `stop_arg` is the heap.  No protocol of their
 * own is needed: each is stopped wherever it is, as the collector stops it (at
 * a safepoint with stop=safepoints), and threads that attach meanwhile wait.
 * Cycles may be under way; a pause comes before or after.  So between any two
 * writes of a thread the snapshot has either the first alone, or both, or none.
 *
 * - Threads in blocking regions go on in there: they must not write to the
 *   snapshot's regions from inside; nor may threads that are not attached, but
 *   for who is quiet by other means.
 * - The caller of begin or read may be attached or not, in a blocking region
 *   or not; not within weir_locked_call() of another thread that waits for it.
 *   Who reads for long and is attached does it in a blocking region, as all
 *   that takes long; under sigbus it must, or not be attached: a writer that
 *   waits for room in the pool cannot be stopped, and so a stop, the
 *   collector's too, would wait for a saver that it has stopped itself.
 * - They may be stopped in malloc().  With END the sink is called in the stop
 *   when the pool is full, and must not allocate there: take WEIR_FULL_FAIL,
 *   or a pool large enough for what is written in one pass.
 * - No fork() in between: it waits for locks that a stopped thread may have.
 *
 * stop: 0; -EINVAL: no such heap; -EDEADLK in a callback of the collector.
 */
WEIR_API int weir_snapshot_stop_threads(void *heap);
WEIR_API void weir_snapshot_resume_threads(void *heap);

/*
 * A snapshot of `count` regions (1 to 64) at one moment.  options NULL: the
 * defaults.  -EBUSY: one of the regions is in another one; -ENOTSUP: the kind
 * is not to be had with a region's barrier; -EINVAL: DELTA without TRACK, or
 * regions that were last saved by different snapshots; -ENOMEM.  END needs
 * `stop` and `resume`.
 */
WEIR_API int weir_snapshot_create(weir_region *const *regions, size_t count,
				  const struct weir_snapshot_options *options,
				  weir_snapshot **snapshot);

#define WEIR_PREPARE_NOWAIT 1u /* return at once, a thread does it */

/*
 * Protect the regions' pages while the program runs, so that begin need not;
 * first all, then those that were written meanwhile, until these are few.  To
 * be called shortly before begin: what is written in between is copied there.
 * Without it begin protects all, in the stop.  Does nothing for END.  -ENOMEM,
 * -ECANCELED.
 */
WEIR_API int weir_snapshot_prepare(weir_snapshot *snapshot, unsigned flags);

/* The moment of a BEGIN snapshot; see `stop`.  When it returns the writers may
 * go on, and wait if the pool is full: read soon. */
WEIR_API int weir_snapshot_begin(weir_snapshot *snapshot);

/* A run of pages. */
struct weir_snapshot_run {
	size_t region;    /* number of the region in the call of create */
	uint64_t offset;  /* bytes from its start */
	size_t bytes;     /* whole pages */
	const void *data; /* what they held, valid until the sink returns; NULL:
			   * all zero */
};

/* Takes runs, in any order: with BEGIN each page once; with END the last
 * counts. It should not write to the regions, nor should `progress`: where the
 * pool is full such a write waits for the very thread that makes it, and the
 * snapshot fails (-EDEADLK).  Another thread's write must not be waited for in
 * it.  A run of data, and the data of all runs of a call, is 2 MiB at most.
 * Returns 0, or a negative errno, which fails the snapshot. */
typedef int weir_snapshot_sink_fn(void *arg,
				  const struct weir_snapshot_run *runs,
				  size_t count);

/*
 * Hand every page to `sink`, on this thread.  0 when all were taken.
 * -ECANCELED: aborted; -ENOBUFS: the pool was full (FAIL); -ESTALE: pages were
 * lost, see above; -EDEADLK: the sink wrote to a region while the pool was
 * full; or what the sink returned.  Then the snapshot has failed and nothing is
 * protected any more.
 */
WEIR_API int weir_snapshot_read(weir_snapshot *snapshot,
				weir_snapshot_sink_fn *sink, void *arg);

/* `size` of *progress is set by the caller. */
WEIR_API int weir_snapshot_progress(const weir_snapshot *snapshot,
				    struct weir_snapshot_progress *progress);

/* Fail it: what is under way returns -ECANCELED soon.  Until `end` it may be
 * called at any time, also when all was read: then the snapshot does not count
 * as one that a delta may follow. */
WEIR_API int weir_snapshot_abort(weir_snapshot *snapshot);

/* What it is a snapshot of: the regions' extents at begin, what identifies it,
 * and for a delta the one that it follows.  From begin on (END: from create).
 */
struct weir_snapshot_identity {
	size_t size;      /* sizeof of the caller's */
	uint8_t id[16];   /* random */
	uint8_t base[16]; /* of the snapshot before; zero: this is whole */
	unsigned kind;    /* enum weir_snapshot_kind */
	size_t count;     /* regions */
	uint64_t time_ns; /* of the moment, CLOCK_REALTIME; 0 before it */
};
WEIR_API int weir_snapshot_identity(const weir_snapshot *snapshot,
				    struct weir_snapshot_identity *identity);
/* Region `i`, with `bytes` as they were at begin. */
WEIR_API int weir_snapshot_region(const weir_snapshot *snapshot, size_t i,
				  struct weir_region_info *info);

/* The end of the handle, in any state; protection comes off.  0 if everything
 * was read; what it failed with; -ECANCELED if it was not read.  NULL is
 * allowed.  A handle that has ended is refused with -EINVAL, until eight more
 * have: then another snapshot may have it. */
WEIR_API int weir_snapshot_end(weir_snapshot *snapshot);

#ifdef __cplusplus
}
#endif
#endif
