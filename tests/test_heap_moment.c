/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of the heap are of one moment while threads write.
 *
 * A bank: accounts of which every second is a leaf object, in a table.  A
 * transfer takes from one and gives to another, in place, or by a new object
 * that takes the place of the old one in the table; threads are stopped at
 * safepoints only, between transfers.  So at any moment that the world may be
 * stopped at the sum is what it was.
 *
 * And system calls that write to the heap meanwhile go on working.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <weir/embed.h>

#include "tests/heap_snapshot.h"
#include "tests/must.h"
#include "tests/short.h"

#define ACCOUNTS 20000
#define WRITERS 2
#define START 1000

struct account {
	int64_t balance; /* atomic */
	uint64_t number;
	uint64_t rest[30];
};

static struct account **table;  /* atomic entries */
static int over;                /* atomic */
static uint64_t transfers;      /* atomic */
static uint32_t busy[ACCOUNTS]; /* atomic: spin locks, by number */

static bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

static struct account *account(size_t i)
{
	return __atomic_load_n(&table[i], __ATOMIC_ACQUIRE);
}

static struct account *open_account(weir_mutator *m, size_t i, int64_t balance)
{
	struct account *a = i % 2 ? weir_alloc_leaf(m, sizeof(*a))
				  : weir_alloc(m, sizeof(*a));

	must(a);
	a->number = i;
	a->balance = balance;
	return a;
}

static bool try_lock(size_t i)
{
	return !__atomic_exchange_n(&busy[i], 1, __ATOMIC_ACQUIRE);
}

static void unlock(size_t i)
{
	__atomic_store_n(&busy[i], 0, __ATOMIC_RELEASE);
}

static void move_money(size_t from, size_t to, struct account *fresh)
{
	struct account *a = account(from), *b = account(to);
	int64_t was = __atomic_load_n(&a->balance, __ATOMIC_RELAXED);
	int64_t gets = __atomic_load_n(&b->balance, __ATOMIC_RELAXED) + 1;

	__atomic_store_n(&a->balance, was - 1, __ATOMIC_RELAXED);
	if (fresh) {
		fresh->balance = gets;
		__atomic_store_n(&table[to], fresh, __ATOMIC_RELEASE);
	} else {
		__atomic_store_n(&b->balance, gets, __ATOMIC_RELAXED);
	}
}

static void transfer(weir_mutator *m, uint64_t r)
{
	size_t from = r % ACCOUNTS, to = (r >> 20) % ACCOUNTS;
	/* Allocation may stop the thread: before the transfer. */
	struct account *fresh = r >> 61 == 0 ? open_account(m, to, 0) : NULL;

	if (from == to || !try_lock(from))
		return;
	if (try_lock(to)) {
		move_money(from, to, fresh);
		unlock(to);
	}
	unlock(from);
}

static void *transfer_main(void *arg)
{
	uint64_t state = 88172645463325252u + (uintptr_t)arg;
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	while (!is_over()) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		transfer(m, state);
		__atomic_fetch_add(&transfers, 1, __ATOMIC_RELAXED);
		weir_safepoint(m);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

struct audit {
	const weir_heap_snapshot *s;
	int64_t total;
	size_t accounts;
};

/* The table is an object of the heap: by it the accounts of the moment. */
static void audit(const weir_heap_snapshot *s, struct audit *a)
{
	struct weir_heap_object t, o;
	void *const *entry;

	*a = (struct audit){.s = s};
	must(!weir_heap_snapshot_object(s, table, &t));
	must(t.bytes >= ACCOUNTS * sizeof(void *));
	entry = t.data;
	for (size_t i = 0; i < ACCOUNTS; i++) {
		const struct account *x;

		must(!weir_heap_snapshot_object(s, entry[i], &o));
		must(o.address == entry[i] && o.bytes >= sizeof(*x));
		x = o.data;
		must(x->number == i);
		a->total += x->balance;
		a->accounts++;
	}
}

static void *take_here(void *arg)
{
	must(!weir_heap_snapshot_take(heap, arg));
	return NULL;
}

static void one_moment(const char *options, int n)
{
	char text[128];
	pthread_t thread[WRITERS];
	uint64_t before;

#ifdef __SANITIZE_THREAD__
	n /= 4; /* it sees a race the first time */
#endif
	snprintf(text, sizeof(text), "stop=safepoints%s%s", *options ? "," : "",
		 options);
	heap_open(text);
	cr_assert_eq(weir_root_add(heap, &table, sizeof(table)), 0);
	table = weir_alloc(self, ACCOUNTS * sizeof(*table));
	for (size_t i = 0; i < ACCOUNTS; i++)
		table[i] = open_account(self, i, START);
	for (uintptr_t i = 0; i < WRITERS; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, transfer_main,
					    (void *)i),
			     0);
	for (int i = 0; i < rounds(n); i++) {
		weir_heap_snapshot *s;
		struct audit a;

		/* On this thread, which is attached, or on one that is not. */
		if (i % 2)
			s = take();
		else
			run_thread(take_here, &s);
		audit(s, &a);
		cr_assert_eq(a.total, (int64_t)ACCOUNTS * START,
			     "snapshot %d: %lld too much", i,
			     (long long)(a.total - (int64_t)ACCOUNTS * START));
		weir_heap_snapshot_free(s);
	}
	before = __atomic_load_n(&transfers, __ATOMIC_RELAXED);
	while (__atomic_load_n(&transfers, __ATOMIC_RELAXED) < before + 1000)
		weir_safepoint(self);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < WRITERS; i++)
		weir_blocking_call(self, join, &thread[i]);
	heap_close();
}

Test(heap_moment, one_moment, .timeout = 180)
{
	one_moment("", 20);
}

Test(heap_moment, one_moment_verified, .timeout = 180)
{
	one_moment("verify=on,heap-min=1m", 8);
}

Test(heap_moment, one_moment_with_delays, .timeout = 180)
{
	one_moment("delay=300", 8);
}

Test(heap_moment, one_moment_born_black, .timeout = 180)
{
	one_moment("born-black=on", 8);
}

Test(heap_moment, one_moment_small_pages, .timeout = 180)
{
	one_moment("thp=off,heap-max=64m", 8);
}

Test(heap_moment, one_moment_sync, .timeout = 180)
{
	need_kind("sync");
	one_moment("barrier=sync", 8);
}

Test(heap_moment, one_moment_sigbus, .timeout = 180)
{
	need_kind("sigbus");
	one_moment("barrier=sigbus", 8);
}

Test(heap_moment, one_moment_mprotect, .timeout = 180)
{
	one_moment("barrier=mprotect", 8);
}

Test(heap_moment, one_moment_none, .timeout = 180)
{
	one_moment("barrier=none", 8);
}

/* ---- Beside system calls ------------------------------------------------- */

static void *kept[2]; /* registered as roots */

#define TARGET ((size_t)4 << 20)

static void *read_into(void *target)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	weir_mutator *m;
	size_t page = 0;

	must(fd >= 0 && !weir_thread_attach(heap, &m));
	while (!is_over()) {
		ssize_t n = read(fd, (char *)target + page * 4096, 4096);

		cr_assert_eq(n, 4096, "read: %s", strerror(errno));
		page = (page + 1) % (TARGET / 4096);
		weir_safepoint(m);
	}
	close(fd);
	must(!weir_thread_detach(m));
	return NULL;
}

static void system_calls_write(const char *options)
{
	pthread_t thread;

	heap_open(options);
	cr_assert_eq(weir_root_add(heap, kept, sizeof(kept)), 0);
	kept[0] = weir_alloc_leaf(self, TARGET);
	for (int i = 0; i < 50000; i++) {
		void **p = weir_alloc(self, 64);

		p[0] = kept[1];
		kept[1] = p;
	}
	cr_assert_eq(pthread_create(&thread, NULL, read_into, kept[0]), 0);
	for (int i = 0; i < 5; i++)
		weir_heap_snapshot_free(take());
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	weir_blocking_call(self, join, &thread);
	heap_close();
}

Test(heap_moment, beside_system_calls, .timeout = 60)
{
	system_calls_write(NULL);
}

Test(heap_moment, beside_system_calls_mprotect, .timeout = 60)
{
	system_calls_write("barrier=mprotect");
}

/* Without privilege faults of system calls are not to be had. */
Test(heap_moment, beside_system_calls_sync, .timeout = 60)
{
	if (!getuid())
		cr_assert_eq(setresuid(65534, 65534, 65534), 0);
	cr_assert_eq(prctl(PR_SET_DUMPABLE, 1), 0);
	need_kind("sync");
	system_calls_write("barrier=sync");
}
