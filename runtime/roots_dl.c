/* SPDX-License-Identifier: MIT */
/*
 * Data segments of the program and its shared objects.
 *
 * What is scanned: the writable PT_LOAD segments that dl_iterate_phdr()
 * reports, less PT_GNU_RELRO (read-only once relocated) and less the segments
 * of libweir.so itself, which hold no reference into a heap.  A program that
 * has this library linked in statically has its own data scanned whole.  Left
 * out by nature: thread-local variables, and namespaces of dlmopen().
 *
 * What must not happen: reading a segment that dlclose() has unmapped, and in
 * a pause missing one that dlopen() has just mapped.  The C library changes
 * its list of objects, and unmaps an object that it takes from the list,
 * under one lock, and dl_iterate_phdr() holds that lock while it runs its
 * callback.  So everything here happens within such a callback:
 *
 *  - A scan beside the program scans one piece a callback, and starts by
 *    bringing the list up to date, so no program thread waits long for
 *    dlopen().
 *  - A pause needs the lock from before the stop (a thread stopped in the
 *    middle of dlclose() would keep it for ever) until after the scan.  No
 *    function returns with the lock held, so a thread of our own, the keeper,
 *    goes into a callback and stays there until the pause is over.
 *
 * The list is exact while the lock is held, and dlpi_adds and dlpi_subs tell
 * whether it has changed since it was made.  An object that dlopen() has
 * mapped but not yet listed has run no code and holds no reference.
 *
 *   create, destroy     one thread, before and after all others
 *   switch, filter      any thread, but not within a callback as above
 *   scan, hold, fork_*  any thread of the collector; s->lock makes all these
 *                       wait for one another, and is taken before the loader's
 *
 * Consequences.  Under WR_STOP_SAFEPOINTS a mutator calls dlopen(), dlclose()
 * and dl_iterate_phdr() in a blocking region, or the pause that holds the
 * lock waits for it in vain.  Memory of a data segment that the program has
 * made unreadable ends the scan with a fault.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/lock.h"
#include "runtime/roots_private.h"

/* Bytes scanned beside the program before the loader's lock is let go. */
#define PIECE ((size_t)1 << 20)
#define KEEPER_STACK ((size_t)256 << 10)

/* What the keeper is at.  Changed by whoever holds s->lock. */
enum keeper_state {
	KEEPER_NONE,   /* there is none (never on, or a forked child) */
	KEEPER_IDLE,   /* waits for `want` */
	KEEPER_HOLDS,  /* is in the callback */
	KEEPER_LEAVES, /* was told to leave it, will post `idle` */
};

struct wr_segments {
	struct wr_mutex lock;       /* guards all below */
	bool on;                    /* segments are roots */
	struct wr_root_range *list; /* sorted by address */
	size_t count;               /* entries in use */
	size_t room;                /* entries allocated */
	unsigned long long adds;    /* dlpi_adds when the list was made */
	unsigned long long subs;    /* dlpi_subs, the same */
	bool made;                  /* the list was made */
	bool failed;                /* no memory to make it */
	wr_segment_fn *filter;      /* whether to scan one, NULL: all */
	void *filter_arg;           /* its argument */
	bool quit;                  /* the keeper is to end */
	enum keeper_state state;    /* see above */
	pthread_t keeper;           /* the thread, unless KEEPER_NONE */
	sem_t want;                 /* to the keeper: take the lock */
	sem_t held; /* from it: the lock is held, the list right */
	sem_t drop; /* to it: let go of the lock */
	sem_t idle; /* from it: the lock is free */
};

/* Not cancelled meanwhile, with a lock in its hands. */
static void down(sem_t *sem)
{
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	while (sem_wait(sem) < 0)
		wr_require(errno == EINTR, "sem_wait: %s", strerror(errno));
	pthread_setcancelstate(cancel, NULL);
}

/* ---- The list; callers are within a callback ---------------------------- */

static void add_segment(struct wr_segments *s, uintptr_t start, uintptr_t end)
{
	struct wr_root_range *list;
	size_t i;

	start = (start + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
	end &= ~(sizeof(void *) - 1);
	if (start >= end)
		return;
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 64;

		list = realloc(s->list, room * sizeof(*list));
		if (!list) {
			s->failed = true;
			return;
		}
		s->list = list;
		s->room = room;
	}
	for (i = s->count++; i > 0 && s->list[i - 1].start > start; i--)
		s->list[i] = s->list[i - 1];
	s->list[i] = (struct wr_root_range){start, end};
}

/* Whether the object is libweir.so: it holds this function, and it is not a
 * program or another library that has it linked in. */
static bool is_ourselves(const struct dl_phdr_info *info)
{
	uintptr_t here = (uintptr_t)is_ourselves;
	const char *name;
	int i;

	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + p->p_vaddr;

		if (p->p_type == PT_LOAD && here >= start &&
		    here < start + p->p_memsz)
			break;
	}
	if (i == info->dlpi_phnum)
		return false;
	name = strrchr(info->dlpi_name, '/');
	name = name ? name + 1 : info->dlpi_name;
	return strncmp(name, "libweir.so", 10) == 0;
}

static int add_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct wr_segments *s = arg;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t relro = 0, relro_end = 0;

	(void)size;
	if (is_ourselves(info))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type != PT_GNU_RELRO)
			continue;
		relro = info->dlpi_addr + p->p_vaddr;
		/* The loader protects whole pages and rounds the end down. */
		relro_end = (relro + p->p_memsz) & ~(page - 1);
	}
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + p->p_vaddr;
		uintptr_t end = start + p->p_memsz;

		if (p->p_type != PT_LOAD ||
		    (p->p_flags & (PF_R | PF_W)) != (PF_R | PF_W))
			continue;
		if (s->filter && !s->filter(info->dlpi_name, (void *)start,
					    p->p_memsz, s->filter_arg))
			continue;
		if (relro < relro_end && relro < end && relro_end > start) {
			add_segment(s, start, relro);
			start = relro_end;
		}
		add_segment(s, start, end);
	}
	return 0;
}

/* Make the list anew if objects came or went.  False: no memory for it. */
static bool refresh(struct wr_segments *s, const struct dl_phdr_info *info)
{
	if (s->made && s->adds == info->dlpi_adds && s->subs == info->dlpi_subs)
		return true;
	s->count = 0;
	s->failed = false;
	/* The loader's lock is recursive. */
	dl_iterate_phdr(add_object, s);
	s->made = !s->failed;
	s->adds = info->dlpi_adds;
	s->subs = info->dlpi_subs;
	return s->made;
}

/* ---- The keeper ---------------------------------------------------------- */

static int keep(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct wr_segments *s = arg;

	(void)size;
	wr_require(refresh(s, info), "no memory for the list of data segments");
	sem_post(&s->held);
	down(&s->drop);
	return 1;
}

static void *keeper_main(void *arg)
{
	struct wr_segments *s = arg;

	pthread_setname_np(pthread_self(), "weir-roots");
	for (;;) {
		down(&s->want);
		if (s->quit)
			return NULL;
		dl_iterate_phdr(keep, s);
		sem_post(&s->idle);
	}
}

static int keeper_start(struct wr_segments *s)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int err;

	sem_init(&s->want, 0, 0);
	sem_init(&s->held, 0, 0);
	sem_init(&s->drop, 0, 0);
	sem_init(&s->idle, 0, 0);
	err = pthread_attr_init(&attr);
	if (err)
		return err;
	pthread_attr_setstacksize(&attr, KEEPER_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&s->keeper, &attr, keeper_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!err)
		s->state = KEEPER_IDLE;
	return err;
}

/* s->lock held: wait until the keeper has let go of the loader's lock. */
static void keeper_settle(struct wr_segments *s)
{
	wr_mutex_assert_held(&s->lock);
	if (s->state != KEEPER_LEAVES)
		return;
	down(&s->idle);
	s->state = KEEPER_IDLE;
}

void wr_segments_hold(struct wr_segments *s)
{
	int err;

	wr_mutex_lock(&s->lock);
	if (!s->on)
		return;
	keeper_settle(s);
	if (s->state == KEEPER_NONE) {
		err = keeper_start(s);
		wr_require(!err,
			   "cannot start the thread that watches data "
			   "segments in a forked child: %s",
			   strerror(err));
	}
	sem_post(&s->want);
	down(&s->held);
	s->state = KEEPER_HOLDS;
}

void wr_segments_visit(struct wr_segments *s, wr_root_range_fn *range,
		       void *arg)
{
	if (!s->on)
		return;
	for (size_t i = 0; i < s->count; i++)
		range(arg, s->list[i].start, s->list[i].end);
}

/* Does not wait for the keeper: the world may still be stopped. */
void wr_segments_drop(struct wr_segments *s)
{
	if (s->on) {
		sem_post(&s->drop);
		s->state = KEEPER_LEAVES;
	}
	wr_mutex_unlock(&s->lock);
}

/* ---- Beside the program -------------------------------------------------- */

struct piece {
	struct wr_segments *s;   /* whose */
	wr_root_range_fn *range; /* whom to call */
	void *arg;               /* for range */
	uintptr_t from;          /* all below this address was scanned */
	bool more;               /* something is left */
};

static int scan_piece(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct piece *piece = arg;
	struct wr_segments *s = piece->s;
	size_t left = PIECE;

	(void)size;
	piece->more = false;
	if (!refresh(s, info))
		return 1; /* the pause scans it */
	for (size_t i = 0; i < s->count; i++) {
		uintptr_t start = s->list[i].start;
		uintptr_t end = s->list[i].end;

		if (start < piece->from)
			start = piece->from;
		if (start >= end)
			continue;
		if (left == 0) {
			piece->more = true;
			break;
		}
		if (end - start > left)
			end = start + left;
		piece->range(piece->arg, start, end);
		left -= end - start;
		piece->from = end;
		piece->more = end != s->list[i].end;
		if (piece->more)
			break;
	}
	return 1;
}

void wr_segments_scan(struct wr_segments *s, wr_root_range_fn *range, void *arg)
{
	struct piece piece = {.s = s, .range = range, .arg = arg};

	do {
		wr_mutex_lock(&s->lock);
		piece.more = false;
		if (s->on) {
			keeper_settle(s);
			dl_iterate_phdr(scan_piece, &piece);
		}
		wr_mutex_unlock(&s->lock);
	} while (piece.more);
}

/* ---- Life ---------------------------------------------------------------- */

int wr_segments_create(struct wr_segments **out)
{
	struct wr_segments *s = calloc(1, sizeof(*s));

	if (!s)
		return wr_error(ENOMEM, "no memory for the data segments");
	wr_mutex_init(&s->lock, WR_RANK_loader);
	*out = s;
	return 0;
}

int wr_segments_switch(struct wr_segments *s, bool on)
{
	int err = 0;

	wr_mutex_lock(&s->lock);
	if (on && s->state == KEEPER_NONE)
		err = keeper_start(s);
	if (!err)
		s->on = on;
	wr_mutex_unlock(&s->lock);
	return err ? wr_error(err,
			      "cannot start the thread that watches data "
			      "segments: %s",
			      strerror(err))
		   : 0;
}

void wr_segments_filter(struct wr_segments *s, wr_segment_fn *fn, void *arg)
{
	wr_mutex_lock(&s->lock);
	s->filter = fn;
	s->filter_arg = arg;
	s->made = false;
	wr_mutex_unlock(&s->lock);
}

void wr_segments_destroy(struct wr_segments *s)
{
	wr_mutex_lock(&s->lock);
	keeper_settle(s);
	wr_mutex_unlock(&s->lock);
	if (s->state != KEEPER_NONE) {
		s->quit = true;
		sem_post(&s->want);
		pthread_join(s->keeper, NULL);
		sem_destroy(&s->want);
		sem_destroy(&s->held);
		sem_destroy(&s->drop);
		sem_destroy(&s->idle);
	}
	wr_mutex_destroy(&s->lock);
	free(s->list);
	free(s);
}

void wr_segments_fork_prepare(struct wr_segments *s)
{
	wr_mutex_lock(&s->lock);
	keeper_settle(s);
}

void wr_segments_fork_done(struct wr_segments *s, bool child)
{
	if (child)
		s->state = KEEPER_NONE;
	wr_mutex_unlock(&s->lock);
}
