/* SPDX-License-Identifier: MIT */
/*
 * The page map behind sync, sigbus and mprotect.  See barrier_map.h for what
 * the bits mean and who holds which lock.
 */
#include "runtime/barrier_map.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/futex_lock.h"

_Static_assert(sizeof(struct wr_stripe) == 64, "one cache line");
_Static_assert(WR_CHUNK_PAGES % 64 == 0, "chunks share no word");

/* ---- Stripe locks ------------------------------------------------------- */

static uint32_t *stripe_of(struct wr_barrier *b, uintptr_t p)
{
	uintptr_t chunk = p >> b->page_shift >> 9;

	_Static_assert(1u << 9 == WR_CHUNK_PAGES, "shift");
	return &b->maps->stripe[chunk % WR_STRIPES].word;
}

static void lock_all(struct wr_barrier *b)
{
	for (unsigned i = 0; i < WR_STRIPES; i++)
		wr_futex_lock(&b->maps->stripe[i].word);
}

static void unlock_all(struct wr_barrier *b)
{
	for (unsigned i = 0; i < WR_STRIPES; i++)
		wr_futex_unlock(&b->maps->stripe[i].word);
}

/* ---- Bits --------------------------------------------------------------- */

static uint64_t word_mask(size_t word, size_t from, size_t to)
{
	uint64_t mask = ~0ull;

	if (from > word * 64)
		mask &= ~0ull << (from - word * 64);
	if (to < (word + 1) * 64)
		mask &= ~0ull >> ((word + 1) * 64 - to);
	return mask;
}

/* Release: pairs with the acquire in next_run(); a fetch that sees a page
 * CLEAN sees what was written to it before it was protected. */
static void set_bits(uint64_t *map, size_t from, size_t to)
{
	for (size_t w = from / 64; w * 64 < to; w++)
		__atomic_fetch_or(&map[w], word_mask(w, from, to),
				  __ATOMIC_RELEASE);
}

/* The cleared bit is out before the kernel changes the entry.  The release does
 * not see to that, it orders nothing behind it: the system call does, with the
 * full barrier of taking a reference to the address space (userfaultfd) or its
 * lock (mprotect). */
static void clear_bits(uint64_t *map, size_t from, size_t to)
{
	for (size_t w = from / 64; w * 64 < to; w++) {
		uint64_t mask = word_mask(w, from, to);

		/* Relaxed: bits are set under the lock that the caller holds.
		 * The look spares memory: an all-DIRTY map is unpopulated. */
		if (__atomic_load_n(&map[w], __ATOMIC_RELAXED) & mask)
			__atomic_fetch_and(&map[w], ~mask, __ATOMIC_RELEASE);
	}
}

/* The first bit in [i, to) that is not that of `flip`, or one beyond. */
static inline size_t next_bit(const uint64_t *map, uint64_t flip, size_t i,
			      size_t to)
{
	size_t k = i / 64, n = (to + 63) / 64;
	uint64_t w;

	if (i >= to)
		return to;
	w = (__atomic_load_n(&map[k], __ATOMIC_ACQUIRE) ^ flip) &
	    (~0ull << (i % 64));
	while (!w) {
		if (++k >= n)
			return to;
		w = __atomic_load_n(&map[k], __ATOMIC_ACQUIRE) ^ flip;
	}
	return k * 64 + (size_t)__builtin_ctzll(w);
}

/* The first run of bits equal to `value` in [from, to): sets *from and *end. */
static bool next_run(const uint64_t *map, bool value, size_t *from, size_t *end,
		     size_t to)
{
	uint64_t flip = value ? 0 : ~0ull;
	size_t i = next_bit(map, flip, *from, to);

	if (i >= to)
		return false;
	*from = i;
	i = next_bit(map, ~flip, i, to);
	*end = i < to ? i : to;
	return true;
}

static uintptr_t address(const struct wr_barrier *b, const struct wr_range *r,
			 size_t i)
{
	const struct wr_map *m = r->state;

	return r->start + ((i - m->bias) << b->page_shift);
}

/* The end of the chunk that bit i is in, or `to` if that comes first. */
static size_t chunk_end(size_t i, size_t to)
{
	size_t end = (i / WR_CHUNK_PAGES + 1) * WR_CHUNK_PAGES;

	return end < to ? end : to;
}

void wr_map_set_usable(struct wr_map *m, size_t from, size_t to)
{
	set_bits(m->usable, from, to);
}

/* ---- Life --------------------------------------------------------------- */

int wr_maps_open(struct wr_barrier *b, const struct wr_protector *how)
{
	struct wr_maps *maps = aligned_alloc(64, sizeof(*maps));

	if (!maps)
		return wr_error(ENOMEM, "no memory for a barrier; free some");
	memset(maps, 0, sizeof(*maps));
	maps->how = how;
	b->maps = maps;
	return 0;
}

void wr_maps_close(struct wr_barrier *b)
{
	free(b->maps);
	b->maps = NULL;
}

static uint64_t *new_bitmap(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int wr_map_add(struct wr_barrier *b, struct wr_range *r)
{
	struct wr_map *m = calloc(1, sizeof(*m));
	size_t bits;

	if (!m)
		goto fail;
	m->bias = (r->start >> b->page_shift) % WR_CHUNK_PAGES;
	bits = m->bias + ((r->end - r->start) >> b->page_shift);
	m->bytes = (bits + 63) / 64 * 8;
	m->clean = new_bitmap(m->bytes);
	if (!m->clean)
		goto fail;
	if (b->maps->how->learn) {
		m->usable = new_bitmap(m->bytes);
		if (!m->usable) {
			munmap(m->clean, m->bytes);
			goto fail;
		}
	}
	r->state = m;
	return 0;
fail:
	free(m);
	return wr_error(ENOMEM, "no memory for a page map; raise RLIMIT_AS or "
				"free memory");
}

void wr_map_remove(struct wr_barrier *b, struct wr_range *r)
{
	struct wr_map *m = r->state;

	(void)b;
	munmap(m->clean, m->bytes);
	if (m->usable)
		munmap(m->usable, m->bytes);
	free(m);
	r->state = NULL;
}

void wr_maps_drop(struct wr_barrier *b)
{
	for (struct wr_range *r = b->ranges; r; r = r->next)
		if (r->end)
			wr_map_remove(b, r);
	wr_maps_close(b);
}

/* ---- arm, fetch, forget ------------------------------------------------- */

/* Signals are blocked while a stripe is held: see the head of barrier_map.h. */
static uint32_t *enter(struct wr_barrier *b, uintptr_t p, sigset_t *saved)
{
	uint32_t *word = stripe_of(b, p);

	wr_futex_enter(word, saved);
	return word;
}

/* Stripe held: protect what can be of bits [from, to), within one chunk. */
static int protect_bits(struct wr_barrier *b, struct wr_range *r, size_t from,
			size_t to)
{
	struct wr_map *m = r->state;
	size_t end = to;
	int calls = 0, n;

	for (; from < to; from = end) {
		if (m->usable && !next_run(m->usable, true, &from, &end, to))
			break;
		n = b->maps->how->protect(b, address(b, r, from),
					  address(b, r, end));
		if (n < 0)
			return n;
		calls += n;
		set_bits(m->clean, from, end);
	}
	return calls;
}

/* Ask the system about pages that were not read-write when last asked. */
static int learn(struct wr_barrier *b, struct wr_range *r, size_t from,
		 size_t to)
{
	struct wr_map *m = r->state;
	size_t end;

	if (!m->usable || !next_run(m->usable, false, &from, &end, to))
		return 0;
	return b->maps->how->learn(b, r, address(b, r, from),
				   address(b, r, to));
}

static int failed(const char *what, int err)
{
	return wr_error(err, "pages cannot be %s: %s; %s", what, strerror(err),
			err == ENOMEM ? "raise vm.max_map_count"
				      : "see weir-info");
}

static void settle(struct wr_barrier *b)
{
	if (b->maps->how->settle)
		b->maps->how->settle(b);
}

int wr_map_arm(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	struct wr_range *r = wr_barrier_find(b, start);
	size_t i = wr_map_index(b, r, start), to = wr_map_index(b, r, end);
	int err = learn(b, r, i, to), n;
	uint64_t calls = 0;
	sigset_t saved;

	if (err)
		return err;
	settle(b);
	/* What fails in one chunk (a poisoned page, one that the program made
	 * inaccessible) is no reason to leave the others; lack of memory is. */
	for (size_t stop; err != -ENOMEM && i < to; i = stop) {
		uint32_t *word = enter(b, address(b, r, i), &saved);

		stop = chunk_end(i, to);
		n = protect_bits(b, r, i, stop);
		wr_futex_leave(word, &saved);
		if (n < 0)
			err = failed("protected", -n);
		else
			calls += (uint64_t)n;
	}
	wr_barrier_count_calls(b, calls);
	return err;
}

/* Runs on their way to the caller. */
struct outbox {
	wr_run_fn *fn;                              /* the caller's */
	void *arg;                                  /* the caller's */
	size_t count;                               /* runs waiting */
	struct wr_run runs[WR_CHUNK_PAGES / 2 + 1]; /* a chunk's worst + 1 */
};

static void send(struct outbox *o)
{
	if (o->count)
		o->fn(o->arg, o->runs, o->count);
	o->count = 0;
}

static void post(struct outbox *o, uintptr_t start, uintptr_t end)
{
	if (o->count && o->runs[o->count - 1].end == start)
		o->runs[o->count - 1].end = end;
	else
		o->runs[o->count++] = (struct wr_run){start, end};
}

/* Note the dirty runs of bits [i, stop), one chunk; REARM: under its lock. */
static int take_chunk(struct wr_barrier *b, struct wr_range *r, size_t i,
		      size_t stop, bool rearm, struct outbox *o)
{
	struct wr_map *m = r->state;
	int calls = 0, n;
	size_t end;

	for (; next_run(m->clean, false, &i, &end, stop); i = end) {
		post(o, address(b, r, i), address(b, r, end));
		if (!rearm || calls < 0)
			continue;
		n = protect_bits(b, r, i, end);
		calls = n < 0 ? n : calls + n;
	}
	return calls;
}

/* Go on to the first page that is not CLEAN: without the lock, as fetch without
 * REARM looks.  One that is written just now is for the next fetch. */
static bool skip_clean(const struct wr_map *m, size_t *i, size_t to)
{
	size_t end;

	return next_run(m->clean, false, i, &end, to);
}

int wr_map_fetch(struct wr_barrier *b, uintptr_t start, uintptr_t end,
		 unsigned flags, wr_run_fn *fn, void *arg)
{
	struct wr_range *r = wr_barrier_find(b, start);
	size_t i = wr_map_index(b, r, start), to = wr_map_index(b, r, end);
	struct outbox o = {.fn = fn, .arg = arg};
	bool rearm = flags & WR_FETCH_REARM;
	bool learned = false, none = false; /* none can be armed */
	uint64_t calls = 0;
	sigset_t saved;
	int err = 0;

	settle(b);
	for (size_t stop; skip_clean(r->state, &i, to); i = stop) {
		uint32_t *word = NULL;
		int n;

		stop = chunk_end(i, to);
		if (rearm && !learned) {
			err = learn(b, r, i, to);
			none = err;
		}
		learned = true;
		if (rearm && !none)
			word = enter(b, address(b, r, i), &saved);
		n = take_chunk(b, r, i, stop, word != NULL, &o);
		if (word)
			wr_futex_leave(word, &saved);
		if (n < 0) {
			err = failed("protected", -n);
			none = n == -ENOMEM;
		} else {
			calls += (uint64_t)n;
		}
		/* Keep the last run open, the next chunk may go on with it. */
		if (o.count > 1) {
			struct wr_run last = o.runs[--o.count];

			send(&o);
			o.runs[o.count++] = last;
		}
	}
	send(&o);
	wr_barrier_count_calls(b, calls);
	return err;
}

/* Stripe held. */
static int open_bits(struct wr_barrier *b, struct wr_range *r, size_t i,
		     size_t stop)
{
	struct wr_map *m = r->state;
	int calls = 0, n;
	size_t end;

	for (; next_run(m->clean, true, &i, &end, stop); i = end) {
		clear_bits(m->clean, i, end);
		n = b->maps->how->unprotect(b, address(b, r, i),
					    address(b, r, end));
		if (n < 0)
			return n;
		calls += n;
	}
	return calls;
}

int wr_map_forget(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	struct wr_range *r = wr_barrier_find(b, start);
	size_t i = wr_map_index(b, r, start), to = wr_map_index(b, r, end);
	uint64_t calls = 0;
	sigset_t saved;
	int err = 0, n;

	for (size_t stop; i < to; i = stop) {
		uint32_t *word = enter(b, address(b, r, i), &saved);

		stop = chunk_end(i, to);
		n = open_bits(b, r, i, stop);
		wr_futex_leave(word, &saved);
		/* The rest of the chunk is cleared by its faults. */
		if (n < 0)
			err = failed("unprotected", -n);
		else
			calls += (uint64_t)n;
	}
	wr_barrier_count_calls(b, calls);
	return err;
}

/* ---- Faults ------------------------------------------------------------- */

int wr_map_resolve(struct wr_barrier *b, struct wr_range *r, uintptr_t p)
{
	uintptr_t page = p & ~(((uintptr_t)1 << b->page_shift) - 1);
	size_t i = wr_map_index(b, r, page);
	struct wr_map *m = r->state;
	uint32_t *word = stripe_of(b, page);
	int n;

	wr_futex_lock(word);
	clear_bits(m->clean, i, i + 1);
	n = b->maps->how->unprotect(b, page,
				    page + ((uintptr_t)1 << b->page_shift));
	wr_futex_unlock(word);
	return n < 0 ? n : 0;
}

int wr_map_open_up(struct wr_barrier *b, struct wr_range *r)
{
	struct wr_map *m = r->state;
	size_t i = m->bias, end, to = wr_map_index(b, r, r->end);
	sigset_t all, saved;
	int n = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	lock_all(b);
	clear_bits(m->clean, i, to);
	for (end = to; i < to && n >= 0; i = end) {
		if (m->usable && !next_run(m->usable, true, &i, &end, to))
			break;
		n = b->maps->how->unprotect(b, address(b, r, i),
					    address(b, r, end));
	}
	unlock_all(b);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return n < 0 ? n : 0;
}

int wr_map_try_resolve(struct wr_barrier *b, struct wr_range *r, uintptr_t p)
{
	uintptr_t page = p & ~(((uintptr_t)1 << b->page_shift) - 1);
	size_t i = wr_map_index(b, r, page);
	struct wr_map *m = r->state;
	uint32_t *word = stripe_of(b, page);
	int n;

	if (!wr_futex_trylock(word))
		return -EAGAIN;
	clear_bits(m->clean, i, i + 1);
	n = b->maps->how->try_unprotect(b, page,
					page + ((uintptr_t)1 << b->page_shift));
	wr_futex_unlock(word);
	return n < 0 ? n : 0;
}

bool wr_map_try_discarded(struct wr_barrier *b, uintptr_t start, uintptr_t end)
{
	uintptr_t page = (uintptr_t)1 << b->page_shift;

	while (start < end) {
		struct wr_range *r = wr_barrier_find(b, start);
		/* Relaxed: it is found again, and once, for it becomes 0 where
		 * the range is being removed just now.  Its map stays until
		 * this grace period ends. */
		uintptr_t r_end =
			r ? __atomic_load_n(&r->end, __ATOMIC_RELAXED) : 0;
		uint32_t *word;
		struct wr_map *m;
		size_t i, stop;

		if (!r_end) {
			start += page;
			continue;
		}
		m = r->state;
		i = wr_map_index(b, r, start);
		stop = chunk_end(i,
				 wr_map_index(b, r, end < r_end ? end : r_end));
		word = stripe_of(b, start);
		if (!wr_futex_trylock(word))
			return false;
		clear_bits(m->clean, i, stop);
		wr_futex_unlock(word);
		start = address(b, r, stop);
	}
	return true;
}

/* ---- fork --------------------------------------------------------------- */

void wr_maps_fork_prepare(struct wr_barrier *b)
{
	lock_all(b);
}

void wr_maps_fork_parent(struct wr_barrier *b)
{
	unlock_all(b);
}

void wr_maps_fork_child(struct wr_barrier *b)
{
	/* Waiters were threads of the parent. */
	for (unsigned i = 0; i < WR_STRIPES; i++)
		b->maps->stripe[i].word = 0;
	for (struct wr_range *r = b->ranges; r; r = r->next) {
		struct wr_map *m = r->state;

		if (r->end)
			clear_bits(m->clean, m->bias,
				   wr_map_index(b, r, r->end));
	}
}
