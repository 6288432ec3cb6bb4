/* SPDX-License-Identifier: MIT */
/*
 * Ephemerons (B. Hayes, "Ephemerons: a new finalization mechanism", OOPSLA
 * 1997): the value is alive if both the proxy and the key are.
 *
 * The program holds a proxy, an object of 16 bytes in the heap; its first
 * word is the index of an entry with key and value outside the heap, which
 * are set once and cleared in pauses only.  What the mark phase owes:
 *
 *	(E) at its end, each entry with a black proxy has a black value or a
 *	    key that is not black; the latter are then cleared.
 *
 * When a marker comes to a proxy it marks the value if the key is black, and
 * else puts the entry into `wait`, once in a cycle.  Between job and job the
 * collector goes through `wait` again.  To do so until nothing changes takes
 * time quadratic in the length of a chain of ephemerons, so before the first
 * such pass those that wait are hashed by their keys, and from then on
 * (h->ephemerons_wait) a marker looks each object up that it marks, marks the
 * values that waited for it, and hashes what it puts into `wait`.  Two markers
 * may miss each other: one marks the key and finds no entry, the other sees
 * the key not marked and then adds one.  The pass after the job finds these,
 * as well as keys that a mark-stack overflow marked without a look.  So the
 * passes make it correct, the table makes them few.
 *
 * Minor cycles.  A proxy that was black at the last pause is not marked again.
 * By (E) its entry is settled: key and value are black already, or cleared.
 * One made since is marked now, or was born black; then the program wrote its
 * word after it was black, so its page is dirty and is scanned, as for any
 * object (gc/cycle.c).
 *
 * An entry whose proxy is not black after the pause is dead.  New objects have
 * another colour until the next cycle starts, so this can be told beside the
 * program, even when the proxy's memory is in use again.  In a minor cycle
 * only those can have died that were made since the last pause (`young`).
 *
 *   create, key, value     attached threads
 *   reached, key (hook)    markers of a running job, or the collector
 *   resolve                the collector, no job running
 *   finish                 the collector in the pause
 *   reap                   the collector after it
 */
#include "gc/team.h"
#include "gc/weak_tables.h"

#include <errno.h>
#include <string.h>

static inline struct wg_ephemeron *entry(const struct wg_ephemerons *t,
					 uint32_t i)
{
	return &((struct wg_ephemeron *)(void *)t->entries.base)[i];
}

int wg_ephemerons_create(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;
	size_t most = h->extent >> WEIR_GRANULE_SHIFT;
	int err;

	if (most > (size_t)1 << 27)
		most = (size_t)1 << 27;
	t->high = 1;
	t->epoch = 1;
	err = wg_array_create(&t->entries, h->sys,
			      most * sizeof(struct wg_ephemeron));
	for (int i = 0; i < 2 && !err; i++)
		err = wg_array_create(&t->young[i], h->sys,
				      most * sizeof(uint32_t));
	if (!err)
		err = wg_array_create(&t->wait, h->sys,
				      most * sizeof(uint32_t));
	if (!err)
		err = wg_array_create(&t->bucket, h->sys,
				      2 * most * sizeof(uint32_t));
	return err;
}

void wg_ephemerons_destroy(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;

	wg_array_destroy(&t->entries, h->sys);
	wg_array_destroy(&t->young[0], h->sys);
	wg_array_destroy(&t->young[1], h->sys);
	wg_array_destroy(&t->wait, h->sys);
	wg_array_destroy(&t->bucket, h->sys);
}

/* ---- Marking ------------------------------------------------------------ */

/* Buckets for n entries: a power of two. */
static uint32_t buckets_for(uint32_t n)
{
	if (n <= WG_PAGE_GRANULES)
		return WG_PAGE_GRANULES;
	return 1u << (32 - __builtin_clz(n - 1));
}

/* Markers insert while others look up: only the head is contended. */
static void hash(struct wg_ephemerons *t, uint32_t i)
{
	struct wg_ephemeron *e = entry(t, i);
	uint32_t *b = &wg_indexes(&t->bucket)[wg_weak_hash(e->base) & t->mask];

	e->next = __atomic_load_n(b, __ATOMIC_RELAXED);
	/* Release: partner of the acquire load in wg_ephemeron_key(), which
	 * follows e->next. */
	while (!__atomic_compare_exchange_n(b, &e->next, i, true,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

void wg_ephemeron_key(struct wg_marker *m, uintptr_t base)
{
	struct wg_ephemerons *t = &m->heap->weak->eph;
	uint32_t i = __atomic_load_n(
		&wg_indexes(&t->bucket)[wg_weak_hash(base) & t->mask],
		__ATOMIC_ACQUIRE);

	while (i) {
		struct wg_ephemeron *e = entry(t, i);

		/* Later: to push may mark another key, and so on.  If there is
		 * no room the next pass over those that wait, which counts an
		 * overflow as progress, finds the key black. */
		if (e->base == base && wg_in_heap(m->heap, e->value) &&
		    !wg_push_later(m, e->value))
			m->overflows++;
		i = e->next;
	}
}

/* The entry's proxy is black. */
static void evaluate(struct wg_marker *m, uint32_t i)
{
	struct wg_ephemerons *t = &m->heap->weak->eph;
	struct wg_ephemeron *e = entry(t, i);

	/* Relaxed: an index goes to `wait` once, who puts it there is all the
	 * same; the array's contents are read after the job. */
	if (__atomic_exchange_n(&e->seen, t->epoch, __ATOMIC_RELAXED) ==
		    t->epoch ||
	    !e->key)
		return;
	if (wg_black_at(m->heap, e->base)) {
		wg_push_word(m, e->value);
		return;
	}
	wg_indexes(
		&t->wait)[__atomic_fetch_add(&t->wait_n, 1, __ATOMIC_RELAXED)] =
		i;
	if (m->heap->ephemerons_wait)
		hash(t, i);
}

void wg_ephemeron_reached(struct wg_marker *m, uintptr_t object)
{
	struct wg_ephemerons *t = &m->heap->weak->eph;
	/* Acquire: partner of the release in weir_ephemeron_create(). */
	uintptr_t i =
		__atomic_load_n((const uintptr_t *)object, __ATOMIC_ACQUIRE);

	/* 0: the program is about to fill it in; the page will be dirty. */
	if (i && i < __atomic_load_n(&t->high, __ATOMIC_RELAXED) &&
	    entry(t, (uint32_t)i)->proxy == object)
		evaluate(m, (uint32_t)i);
}

/* One pass: mark the values whose keys are black by now. */
static void pass(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;
	uint32_t *wait = wg_indexes(&t->wait);
	uint32_t kept = 0;

	if (t->wait_n && !h->ephemerons_wait) {
		/* Free of old contents since the last cycle's reap. */
		wg_weak_enter(h);
		t->mask = buckets_for(t->count) - 1;
		wg_weak_leave(h);
		for (uint32_t k = 0; k < t->wait_n; k++)
			hash(t, wait[k]);
		/* Markers see it by the start of their job. */
		__atomic_store_n(&h->ephemerons_wait, true, __ATOMIC_RELAXED);
	}
	for (uint32_t k = 0; k < t->wait_n; k++) {
		struct wg_ephemeron *e = entry(t, wait[k]);

		if (wg_black_at(h, e->base))
			wg_push_word(h->marker[0], e->value);
		else
			wait[kept++] = wait[k];
	}
	t->wait_n = kept;
}

/* Anything that was marked changes it. */
static uint64_t progress(const struct weir_heap *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < h->team->size; i++)
		n += h->marker[i]->objects + h->marker[i]->overflows;
	return n;
}

static void drain(struct weir_heap *h)
{
	const struct wg_marker *m = h->marker[0];
	unsigned workers = wg_weak_paused(h) ? h->pause_markers : h->beside;

	/* To wake others costs more than to mark a few. */
	wg_team_mark(h, m->full || m->slices > 1 ? workers : 1);
}

void wg_ephemerons_resolve(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;
	uint64_t before;

	drain(h);
	while (t->wait_n) {
		before = progress(h);
		pass(h);
		drain(h);
		if (progress(h) == before)
			break;
	}
}

/* ---- The end of a cycle ------------------------------------------------- */

void wg_ephemerons_clear(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;
	const uint32_t *wait = wg_indexes(&t->wait);

	for (uint32_t k = 0; k < t->wait_n; k++) {
		struct wg_ephemeron *e = entry(t, wait[k]);

		__atomic_store_n(&e->key, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&e->value, 0, __ATOMIC_RELAXED);
	}
	t->wait_n = 0;
}

void wg_ephemerons_finish(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;

	wg_ephemerons_clear(h);
	t->now ^= 1;
	t->young_n[t->now] = 0;
	t->epoch++;
}

static void reap_one(struct weir_heap *h, struct wg_ephemerons *t, uint32_t i)
{
	struct wg_ephemeron *e = entry(t, i);

	if (!e->proxy || e->born == t->epoch || wg_black_at(h, e->proxy))
		return;
	e->proxy = 0;
	__atomic_store_n(&e->key, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&e->value, 0, __ATOMIC_RELAXED);
	e->next = t->free;
	t->free = i;
	t->count--;
}

static void forget_waiting(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;

	if (!h->ephemerons_wait)
		return;
	__atomic_store_n(&h->ephemerons_wait, false, __ATOMIC_RELAXED);
	memset(t->bucket.base, 0, (t->mask + 1ul) * sizeof(uint32_t));
}

void wg_ephemerons_reap(struct weir_heap *h, bool full)
{
	struct wg_ephemerons *t = &h->weak->eph;
	unsigned before = t->now ^ 1;
	const uint32_t *young = wg_indexes(&t->young[before]);
	uint32_t end;

	forget_waiting(h);
	wg_weak_enter(h);
	end = full ? t->high : t->young_n[before];
	wg_weak_leave(h);
	for (uint32_t i = full ? 1 : 0, stop; i < end; i = stop) {
		stop = end - i > WG_WEAK_BATCH ? i + WG_WEAK_BATCH : end;
		wg_weak_enter(h);
		for (uint32_t k = i; k < stop; k++)
			reap_one(h, t, full ? k : young[k]);
		wg_weak_leave(h);
	}
}

/* The cycle under way is given up; what it would have reaped is found by the
 * next full one. */
void wg_ephemerons_fork_child(struct weir_heap *h)
{
	struct wg_ephemerons *t = &h->weak->eph;

	/* Whatever the flag says: the table is filled before it is set, and
	 * cleared after. */
	__atomic_store_n(&h->ephemerons_wait, false, __ATOMIC_RELAXED);
	memset(t->bucket.base, 0, t->bucket.committed);
	t->wait_n = 0;
	t->young_n[t->now ^ 1] = 0;
	t->epoch++; /* nothing was seen */
}

/* ---- The program's side ------------------------------------------------- */

/* A new entry; its index, 0: no memory.  Lock held. */
static uint32_t new_entry(struct weir_heap *h, struct wg_ephemerons *t)
{
	const struct wr_sys *sys = h->sys;
	size_t indexes = (t->high + 1ul) * sizeof(uint32_t);
	uint32_t i = t->free;

	if (!wg_array_grow(&t->young[t->now], sys,
			   (t->young_n[t->now] + 1ul) * sizeof(uint32_t)))
		return 0;
	if (i) {
		t->free = entry(t, i)->next;
	} else {
		i = t->high;
		if (!wg_array_grow(&t->entries, sys,
				   (i + 1ul) * sizeof(struct wg_ephemeron)) ||
		    !wg_array_grow(&t->wait, sys, indexes) ||
		    !wg_array_grow(&t->bucket, sys,
				   buckets_for(i) * sizeof(uint32_t)))
			return 0;
		__atomic_store_n(&t->high, i + 1, __ATOMIC_RELAXED);
	}
	t->count++;
	wg_indexes(&t->young[t->now])[t->young_n[t->now]++] = i;
	return i;
}

weir_ephemeron *weir_ephemeron_create(weir_mutator *m, void *key, void *value)
{
	struct weir_heap *h;
	uintptr_t *proxy;
	uint32_t i;
	size_t g;

	if (!wg_mutator_ok(m, __func__))
		return NULL;
	h = m->heap;
	g = wg_resolve(h, (uintptr_t)key);
	if (g == SIZE_MAX) {
		wr_invalid(__func__, "the key does not point into an object");
		return NULL;
	}
	proxy = wg_alloc(m, WEIR_GRANULE, WG_EPHEMERON, __func__);
	if (!proxy)
		return NULL;
	wg_weak_lock(h, m);
	i = new_entry(h, &h->weak->eph);
	if (i) {
		struct wg_ephemeron *e = entry(&h->weak->eph, i);

		/* Relaxed: published by the store of the proxy's word. */
		__atomic_store_n(&e->key, (uintptr_t)key, __ATOMIC_RELAXED);
		__atomic_store_n(&e->value, (uintptr_t)value, __ATOMIC_RELAXED);
		e->base = wg_granule_start(h, g);
		e->proxy = (uintptr_t)proxy;
		e->seen = 0;
		e->born = h->weak->eph.epoch;
		/* Release: a marker that reads the index finds the entry. */
		__atomic_store_n(proxy, i, __ATOMIC_RELEASE);
	}
	wg_weak_unlock(h, m);
	if (i)
		return (weir_ephemeron *)(void *)proxy;
	wr_error(ENOMEM, "weir_ephemeron_create: no memory for one more entry");
	errno = ENOMEM;
	return NULL;
}

/* The entry of a proxy; NULL: it is none, and the error is set. */
static struct wg_ephemeron *entry_of(const void *proxy, const char *function)
{
	struct weir_heap *h = __atomic_load_n(&wg_heap, __ATOMIC_ACQUIRE);
	uintptr_t p = (uintptr_t)proxy, i;
	uint8_t byte;

	if (wr_unlikely(!wg_running)) {
		wr_invalid(function, "the thread is not attached, or inside a "
				     "blocking region");
		return NULL;
	}
	if (!h || !wg_in_heap(h, p) || p % WEIR_GRANULE)
		goto none;
	byte = wg_meta_load(&h->meta[wg_granule_of(h, p)]);
	if (!(byte & WEIR_META_COLOUR) ||
	    byte >> WEIR_META_KIND_SHIFT != WG_EPHEMERON)
		goto none;
	i = __atomic_load_n((const uintptr_t *)p, __ATOMIC_ACQUIRE);
	if (i && i < __atomic_load_n(&h->weak->eph.high, __ATOMIC_RELAXED) &&
	    entry(&h->weak->eph, (uint32_t)i)->proxy == p)
		return entry(&h->weak->eph, (uint32_t)i);
none:
	wr_invalid(function, "not an ephemeron");
	return NULL;
}

void *weir_ephemeron_key(const weir_ephemeron *ephemeron)
{
	struct wg_ephemeron *e = entry_of(ephemeron, __func__);

	/* Relaxed, here and below: they are written before the proxy's word,
	 * which entry_of() acquires, and cleared in pauses, when the caller
	 * stands still. */
	return wr_likely(e) ? (void *)__atomic_load_n(&e->key, __ATOMIC_RELAXED)
			    : NULL;
}

void *weir_ephemeron_value(const weir_ephemeron *ephemeron)
{
	struct wg_ephemeron *e = entry_of(ephemeron, __func__);

	return wr_likely(e)
		       ? (void *)__atomic_load_n(&e->value, __ATOMIC_RELAXED)
		       : NULL;
}

void wg_weak_ephemeron(struct weir_heap *h, uintptr_t p, uintptr_t *key,
		       uintptr_t *value)
{
	struct wg_ephemerons *t = &h->weak->eph;
	uintptr_t i = *(const volatile uintptr_t *)p;
	bool known = i && i < t->high && entry(t, (uint32_t)i)->proxy == p;

	*key = known ? entry(t, (uint32_t)i)->key : 0;
	*value = known ? entry(t, (uint32_t)i)->value : 0;
}
