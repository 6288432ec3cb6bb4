/* SPDX-License-Identifier: MIT */
/*
 * The torture program: what its parts share.
 *
 *   node.c     objects that can tell whether they are still themselves
 *   bank.c     a private structure whose whole contents its thread knows
 *   graph.c    small random graphs, passed from thread to thread
 *   watch.c    weak references, finalizers, ephemerons
 *   beside.c   references outside of the heap, links
 *   dump.c     snapshots of the heap
 *   hang.c     the watchdog
 *   outside.c  the system: read(2), blocking regions, signals, fork, churn
 *   setup.c    the heap and its options, the account at the end
 *   torture.c  the command line, threads, failures
 *
 * Rules that make every check exact:
 *
 *   - An object belongs to one thread at a time; only that one writes it.
 *     Ownership goes from thread to thread through slots with a lock.
 *   - What a thread remembers about objects outside the heap it keeps
 *     encoded (hide()), so that no conservative scan can find it there.
 *   - No library function is called, and no random wait made, with one of
 *     the program's locks held.
 *   - A reference is stored beside the number of the object that it refers
 *     to; numbers are never used twice.
 */
#ifndef WEIR_TESTS_TORTURE_H
#define WEIR_TESTS_TORTURE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weir/alloc.h>
#include <weir/weir.h>

#define FEATURES(X)                                                    \
	X(leaf, "leaf objects with checked contents")                  \
	X(bitmap, "bitmap-described objects")                          \
	X(trace, "trace callbacks beside the program")                 \
	X(defer, "trace callbacks in pauses")                          \
	X(large, "objects of 100 KiB to 8 MiB")                        \
	X(interior, "interior pointers as the only reference")         \
	X(aligned, "aligned allocation")                               \
	X(graph, "random graphs as payloads")                          \
	X(share, "payloads that go from thread to thread")             \
	X(root, "references that only a root range or callback holds") \
	X(weak, "weak references")                                     \
	X(final, "finalizers")                                         \
	X(ephemeron, "ephemerons")                                     \
	X(beside, "references beside the heap, and links")             \
	X(churn, "short-lived threads")                                \
	X(block, "blocking regions")                                   \
	X(read, "read(2) into heap objects")                           \
	X(signal, "signals to the threads")                            \
	X(fork, "fork in mid-run")                                     \
	X(collect, "explicit collections")                             \
	X(snapshot, "snapshots of the heap")                           \
	X(pressure, "a small heap-max")

enum feature {
#define X(name, help) F_##name,
	FEATURES(X)
#undef X
		F_COUNT
};

enum {
	SLOTS = 64, /* where threads exchange payloads */
	/* Watched objects a thread: four threads have more than twice as many
	 * weak references as the collector filters at a time. */
	WATCHES = 512,
	STORM = 300, /* weak references made and destroyed in a row */
	ROOTS = 8,   /* private root words a thread */
	MAX_WORKERS = 64,
	NAME = 16,
};

struct config {
	uint64_t seed;
	unsigned threads;
	double seconds;
	size_t live;            /* bytes that the threads try to keep */
	const char *barrier;    /* back end */
	const char *options;    /* more options for the heap */
	bool on[F_COUNT];       /* features */
	char heap_options[640]; /* all of them, as handed to the heap */
	char command[1024];     /* what replays this run */
};

/* Counters, summed over threads at the end. */
/* Formatting never comes to rest here. */
/* clang-format off */
#define COUNTERS(X) \
	X(steps) X(nodes) X(checks) X(moves) X(audits) X(shared) \
	X(reads) X(blocks) X(collects) X(no_memory) X(weak_kept) \
	X(weak_cleared) X(storms) X(finalized) X(eph_kept) \
	X(eph_cleared) X(beside) X(links_cleared) X(threads) X(forks) \
	X(signals) X(snapshots)
/* clang-format on */

struct counters {
#define X(name) uint64_t name;
	COUNTERS(X)
#undef X
};

struct bank;
struct beside;
struct watch;

struct worker {
	uint64_t rng[2];             /* state of the random numbers */
	weir_mutator *m;             /* the thread's mutator */
	unsigned index;              /* 0: main */
	const char *volatile action; /* what it is doing, for reports */
	volatile uint64_t beat;      /* steps done, for the watchdog */
	struct counters n;           /* what it did */
	struct bank *bank;           /* private structure */
	struct watch *watch;         /* watched objects */
	struct beside *beside;       /* references beside the heap */
	/* Words of the thread's stack that hold the bank's table, the watched
	 * objects' holder, and the one of what is beside the heap. */
	void *volatile *anchor;
	/* Payloads that only a registered root range holds. */
	uintptr_t *root; /* ROOTS words, registered */
	uint64_t root_want[ROOTS];
	int pipe[2];    /* for read(2) */
	void *altstack; /* alternate signal stack, or NULL */
	bool shrink;    /* memory ran out: drop something */
	pthread_t thread;
};

extern struct config cfg;
extern weir_heap *heap;
extern bool in_child;          /* this process was forked off */
extern unsigned forked_worker; /* by this one; of the others no stack is left */
extern uint64_t deadline;      /* ns of CLOCK_MONOTONIC */
extern struct worker *workers; /* cfg.threads of them */
extern __thread struct worker *self; /* this thread's, or NULL */

uint64_t now_ns(void);
void fail(struct worker *w, const char *format, ...)
	__attribute__((noreturn, format(printf, 2, 3)));
void worker_init(struct worker *w, unsigned index, uint64_t stream);
bool over(void); /* time is up */
/* A thread's: fails if a worker makes no step; ends when the bool `arg` is. */
void *watchdog_main(void *arg);

/* ---- Random numbers: xoroshiro128+ (Blackman and Vigna, 2018) ----------- */

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static inline uint64_t rnd(struct worker *w)
{
	uint64_t a = w->rng[0], b = w->rng[1], sum = a + b;

	b ^= a;
	w->rng[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	w->rng[1] = b << 37 | b >> 27;
	return sum;
}

/* 0 .. n - 1 */
static inline uint64_t below(struct worker *w, uint64_t n)
{
	return (rnd(w) >> 11) % n;
}

static inline bool one_in(struct worker *w, uint64_t n)
{
	return below(w, n) == 0;
}

/* ---- node.c ------------------------------------------------------------- */

enum node_kind {
	N_CONS,   /* conservative */
	N_LEAF,   /* no references, checked contents */
	N_BITMAP, /* records of 8 words */
	N_WIDE,   /* records of 96 words */
	N_TRACE,  /* callback beside the program, encoded references */
	N_DEFER,  /* callback in pauses, encoded references */
	N_KINDS
};

struct node {
	uint64_t id;     /* number of the object */
	uint32_t size;   /* bytes asked for */
	uint16_t kind;   /* enum node_kind */
	uint16_t edges;  /* reference fields; written last */
	uint32_t stride; /* bytes from one field to the next */
	uint32_t tail;   /* where the contents begin */
	uint64_t seed;   /* of the contents */
	uint64_t sum;    /* over all of the above but the seed */
};
_Static_assert(sizeof(struct node) == 40, "five words before the first edge");

void nodes_init(void);
/* A node of at least `edges` fields, or NULL: no memory. */
struct node *node_new(struct worker *w, enum node_kind kind, size_t size,
		      unsigned edges);
/* One of a random kind and size; big: up to 8 MiB. */
struct node *node_random(struct worker *w, unsigned edges, bool big);
/* Abort unless p is the intact node `id`. */
void node_check(struct worker *w, const struct node *p, uint64_t id,
		const char *how);
void node_contents(struct worker *w, const struct node *p);
/* Fill the contents anew (the owner does). */
void node_fill(struct node *p, uint64_t seed);
uint64_t node_word(uint64_t seed, size_t index);

/* Field i.  `offset` is how far into the target the pointer goes. */
void edge_set(struct node *p, unsigned i, struct node *to, size_t offset);
/* The target, checked against what was stored; NULL if none. */
struct node *edge_get(struct worker *w, struct node *p, unsigned i);
/* The word that is stored, decoded, and what it should be: for holding on to
 * an interior pointer only. */
char *edge_raw(struct worker *w, struct node *p, unsigned i, uint64_t *want);
/* The same of a copy, unchecked; whether that is a node, and whole. */
char *edge_in(const struct node *p, unsigned i, uint64_t *want);
bool node_whole(const struct node *p);
void edge_clear(struct node *p, unsigned i);
size_t random_offset(struct worker *w, const struct node *to);

/* What a reference must be: bit 63, 40 bits of id, 23 bits of offset. */
#define WANT(id, offset) (1ull << 63 | (uint64_t)(id) << 23 | (offset))
#define WANT_ID(want) ((want) >> 23 & ((1ull << 40) - 1))
#define WANT_OFFSET(want) ((size_t)((want) & ((1u << 23) - 1)))

/* Encode a reference that must not count as one. */
static inline uintptr_t hide(const void *p)
{
	return ~(uintptr_t)p;
}

static inline void *show(uintptr_t hidden)
{
	return (void *)~hidden;
}

/* ---- bank.c ------------------------------------------------------------- */

bool bank_create(struct worker *w, size_t bytes);
void bank_step(struct worker *w);
void bank_audit(struct worker *w); /* all of it */
/* Give all up; the memory outside the heap is freed. */
void bank_destroy(struct worker *w);
/* Take a random payload out (NULL: none there), put one in (the former one is
 * dropped). */
char *bank_take(struct worker *w, uint64_t *want);
void bank_put(struct worker *w, struct node *p);
void bank_shrink(struct worker *w); /* drop a lot */
/* Do something that takes a random time, a reference in the caller's hand. */
void hold(struct worker *w);

/* ---- graph.c ------------------------------------------------------------ */

/* A payload: a graph of a few nodes, or a single one.  NULL: no memory. */
struct node *graph_new(struct worker *w);
void graph_check(struct worker *w, struct node *top, uint64_t id);
void graph_mutate(struct worker *w, struct node *top);
void share_init(void);
void share_step(struct worker *w);
void share_lock_all(bool lock);
void root_step(struct worker *w);
void roots_init(struct worker *w);
void roots_check(struct worker *w);
void roots_fini(struct worker *w);

/* ---- watch.c ------------------------------------------------------------ */

bool watch_create(struct worker *w);
void watch_step(struct worker *w);
void watch_audit(struct worker *w);
void watch_destroy(struct worker *w);

/* ---- beside.c ----------------------------------------------------------- */

void beside_init(void);
bool beside_create(struct worker *w); /* false: no memory */
void beside_step(struct worker *w);
void beside_audit(struct worker *w);
void beside_destroy(struct worker *w);

/* ---- dump.c ------------------------------------------------------------- */

void dump_step(struct worker *w); /* any thread */

/* ---- outside.c ---------------------------------------------------------- */

void outside_init(void);
void outside_fini(void);
void outside_enter(struct worker *w);
void outside_leave(struct worker *w);
void read_step(struct worker *w);
void block_step(struct worker *w);
void collect_step(struct worker *w);
void fork_step(struct worker *w);
void churn_step(struct worker *w); /* from a thread that is not attached */
void pest_signal(struct worker *w, struct worker *victim);

/* ---- setup.c ------------------------------------------------------------ */

void choose_options(void);
void create_heap(void);
/* Whether one that is on was not used yet. */
bool features_are_missing(const struct worker *pest);
/* What the run did; what it should have done and did not is a failure. */
void run_report(uint64_t began);

/* ---- torture.c: one random step; all checks there are ------------------- */

void worker_step(struct worker *w);
void worker_final_check(struct worker *w);

#endif
