/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of the heap (weir/heap_snapshot.h): what is in them, where there
 * are none, and what they are taken beside.  tests/test_heap_moment.c has that
 * they are of one moment.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weir/embed.h>
#include <weir/heap_snapshot.h>

#include "gc/heap.h"
#include "tests/heap_snapshot.h"
#include "tests/heap_util.h"
#include "tests/must.h"

static struct weir_heap_snapshot_info info_of(const weir_heap_snapshot *s)
{
	struct weir_heap_snapshot_info i = {.size = sizeof(i)};

	must(!weir_heap_snapshot_info(s, &i));
	return i;
}

/* ---- What is in one ------------------------------------------------------ */

struct refs {
	const void *to[16];
	enum weir_heap_reference how[16];
	size_t word[16];
	unsigned n;
};

static int note_ref(const void *to, enum weir_heap_reference how, size_t word,
		    void *arg)
{
	struct refs *r = arg;

	must(r->n < 16);
	r->to[r->n] = to;
	r->how[r->n] = how;
	r->word[r->n++] = word;
	return 0;
}

static struct refs refs_of(const weir_heap_snapshot *s, const void *p)
{
	struct refs r = {.n = 0};

	cr_assert_eq(weir_heap_snapshot_refs(s, p, note_ref, &r), 0, "%s",
		     weir_error_text());
	return r;
}

static struct weir_heap_object object_at(const weir_heap_snapshot *s,
					 const void *p)
{
	struct weir_heap_object o;

	cr_assert_eq(weir_heap_snapshot_object(s, p, &o), 0, "%s",
		     weir_error_text());
	return o;
}

struct sum {
	uint64_t objects, bytes;
	const char *last;
};

static int add(const struct weir_heap_object *o, void *arg)
{
	struct sum *s = arg;

	s->objects++;
	s->bytes += o->bytes;
	must((const char *)o->address >= s->last);
	s->last = (const char *)o->address + o->bytes;
	return 0;
}

struct wanted {
	const void *to;           /* the reference */
	enum weir_heap_root kind; /* and where it is to be */
	const void *where;        /* likewise, or NULL */
	unsigned found;
};

static int find_root(const void *to, enum weir_heap_root kind, const char *name,
		     const void *where, void *arg)
{
	struct wanted *w = arg;

	must(*name);
	w->found += to == w->to && kind == w->kind &&
		    (!w->where || w->where == where);
	return 0;
}

static unsigned roots_to(const weir_heap_snapshot *s, const void *to,
			 enum weir_heap_root kind, const void *where)
{
	struct wanted w = {to, kind, where, 0};

	cr_assert_eq(weir_heap_snapshot_roots(s, find_root, &w), 0);
	return w.found;
}

static void *cell[16];               /* registered as roots */
static void *odd_place[4];           /* from its second byte on likewise */
static void *called;                 /* reported by a callback */
static const uint64_t odd[] = {0x2}; /* of two words the second */

static void report(weir_visitor *v, void *arg)
{
	(void)arg;
	weir_visit(v, called);
}

static void trace_none(void *object, size_t size, weir_visitor *v, void *arg)
{
	(void)object, (void)size, (void)v, (void)arg;
}

static void known(const char *options)
{
	weir_kind pair, many = 0, traced;
	weir_heap_snapshot *s;
	struct weir_heap_snapshot_info i;
	struct sum sum = {0};
	void **list, **p, **precise, **big, *slot;
	unsigned char *leaf, *huge;
	struct refs r;
	weir_weak *weak;
	struct weir_heap_object o;

	heap_open(options);
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	cr_assert_eq(weir_root_add(heap, (char *)odd_place + 1,
				   sizeof(odd_place) - 1),
		     0);
	cr_assert_eq(weir_root_add_callback(heap, report, NULL, 0), 0);
	cr_assert_eq(weir_kind_bitmap(heap, odd, 2, &pair), 0);
	cr_assert_eq(weir_kind_name(heap, pair, "other"), 0);
	cr_assert_eq(weir_kind_name(heap, pair, "pair"), 0);
	cr_assert_eq(weir_kind_trace(heap, trace_none, NULL, 0, &traced), 0);
	/* Beyond those whose number is in the granule byte. */
	while (many < 40)
		cr_assert_eq(weir_kind_bitmap(heap, odd, 2, &many), 0);
	cell[0] = list = weir_alloc(self, 64);
	cell[1] = leaf = weir_alloc_leaf(self, 100);
	cell[2] = precise = weir_alloc_kind(self, 4 * sizeof(void *), pair);
	cell[3] = big = weir_alloc(self, 200000);
	cell[4] = huge = weir_alloc_leaf(self, 300000);
	cell[5] = weir_alloc_kind(self, 32, many);
	cell[6] = weir_alloc_kind(self, 32, traced);
	odd_place[2] = called = weir_alloc(self, 16);
	list[0] = leaf + 50; /* interior */
	list[3] = list;
	list[4] = leaf + 200; /* past its end */
	precise[0] = list;    /* not looked at */
	precise[1] = big;
	precise[2] = list;
	precise[3] = (char *)big + 150000;
	big[20000] = huge;
	*(void **)cell[6] = list;
	for (int k = 0; k < 100; k++)
		leaf[k] = (unsigned char)k;
	for (int k = 0; k < 300000; k++)
		huge[k] = (unsigned char)(k * 7);
	cell[7] = weir_ephemeron_create(self, list, leaf);
	cr_assert_eq(weir_weak_create(heap, big, &weak), 0);
	cell[8] = p = weir_alloc_kind(self, 4 * sizeof(void *), pair);
	cr_assert_eq(weir_link_add(heap, &p[2], list, WEIR_LINK_SHORT), 0);
	cr_assert_eq(weir_link_add(heap, &slot, list, WEIR_LINK_LONG), 0);

	s = take();
	i = info_of(s);
	cr_assert_eq(weir_heap_snapshot_each(s, add, &sum), 0);
	cr_assert_eq(sum.objects, i.objects);
	cr_assert_geq(i.bytes, sum.bytes);
	cr_assert_leq(i.bytes, sum.bytes + 16 * sum.objects);
	/* What changes now is not in it. */
	memset(leaf, 0xff, 100);
	memset(huge, 0xff, 300000);
	list[0] = NULL;

	r = refs_of(s, list);
	cr_assert_eq(r.n, 2);
	cr_assert(r.to[0] == leaf && r.word[0] == 0);
	cr_assert(r.to[1] == list && r.word[1] == 3);
	r = refs_of(s, precise);
	cr_assert_eq(r.n, 2);
	cr_assert(r.to[0] == big && r.word[0] == 1);
	cr_assert(r.to[1] == big && r.word[1] == 3);
	r = refs_of(s, big);
	cr_assert(r.n == 1 && r.to[0] == huge && r.word[0] == 20000);
	r = refs_of(s, cell[6]);
	cr_assert(r.n == 1 && r.to[0] == list);
	cr_assert_eq(refs_of(s, leaf).n, 0);
	r = refs_of(s, cell[7]);
	cr_assert_eq(r.n, 2);
	cr_assert(r.to[0] == list && r.how[0] == WEIR_REFERENCE_KEY);
	cr_assert(r.to[1] == leaf && r.how[1] == WEIR_REFERENCE_VALUE);
	r = refs_of(s, p);
	cr_assert(r.n == 1 && r.to[0] == list && r.word[0] == 2 &&
		  r.how[0] == WEIR_REFERENCE_LINK);

	o = object_at(s, leaf + 99);
	cr_assert(o.address == leaf && o.kind == WEIR_KIND_LEAF && !o.name);
	for (int k = 0; k < 100; k++)
		cr_assert_eq(((const unsigned char *)o.data)[k], k);
	o = object_at(s, huge);
	cr_assert_geq(o.bytes, 300000);
	for (int k = 0; k < 300000; k++)
		cr_assert_eq(((const unsigned char *)o.data)[k],
			     (unsigned char)(k * 7));
	o = object_at(s, precise);
	cr_assert(o.kind == pair && !strcmp(o.name, "pair"));
	o = object_at(s, cell[5]);
	cr_assert(o.kind == many && !o.name && o.bytes >= 32);
	cr_assert_eq(object_at(s, cell[6]).kind, traced);
	cr_assert_eq(weir_heap_snapshot_object(s, &s, &o), -ENOENT);

	cr_assert_eq(roots_to(s, list, WEIR_ROOT_RANGE, &cell[0]), 1);
	cr_assert_eq(roots_to(s, called, WEIR_ROOT_RANGE, &odd_place[2]), 1);
	cr_assert_eq(roots_to(s, called, WEIR_ROOT_CALLBACK, NULL), 1);
	cr_assert_eq(roots_to(s, big, WEIR_ROOT_WEAK, NULL), 1);
	cr_assert_eq(roots_to(s, list, WEIR_ROOT_LINK, NULL), 1);
	cr_assert_geq(roots_to(s, list, WEIR_ROOT_STACK, NULL) +
			      roots_to(s, list, WEIR_ROOT_REGISTERS, NULL),
		      1);
	weir_link_remove(heap, &slot, WEIR_LINK_LONG);
	/* It does without the heap. */
	heap_close();
	cr_assert_eq(refs_of(s, list).n, 2);
	weir_heap_snapshot_free(s);
}

Test(heap_snapshot, known_graph, .timeout = 60)
{
	known("verify=on");
}

Test(heap_snapshot, known_graph_sync, .timeout = 60)
{
	need_kind("sync");
	known("verify=on,barrier=sync");
}

Test(heap_snapshot, known_graph_sigbus, .timeout = 60)
{
	need_kind("sigbus");
	known("verify=on,barrier=sigbus");
}

Test(heap_snapshot, known_graph_mprotect, .timeout = 60)
{
	known("verify=on,barrier=mprotect");
}

Test(heap_snapshot, known_graph_none, .timeout = 60)
{
	known("verify=on,barrier=none");
}

Test(heap_snapshot, known_graph_born_black, .timeout = 60)
{
	known("verify=on,born-black=on");
}

/* The dead are not in it, and their memory is not. */
Test(heap_snapshot, garbage_is_not_in_it, .timeout = 60)
{
	weir_heap_snapshot *s;
	struct weir_heap_snapshot_info i;

	heap_open("generational=off,heap-min=256m");
	for (int k = 0; k < 1 << 20; k++)
		weir_alloc(self, 64);
	cell[0] = weir_alloc(self, 64);
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	s = take();
	i = info_of(s);
	cr_assert_lt(i.objects, 1000);
	cr_assert_lt(i.pages + i.pages_stopped, 1000);
	weir_heap_snapshot_free(s);
	heap_close();
}

/* What was never written takes nothing. */
Test(heap_snapshot, memory_is_what_it_occupies, .timeout = 60)
{
	weir_heap_snapshot *s;

	heap_open("heap-max=1g");
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	cell[0] = weir_alloc_leaf(self, 256 << 20);
	s = take();
	cr_assert_geq(info_of(s).bytes, 256u << 20);
	cr_assert_lt(info_of(s).memory, 2u << 20);
	weir_heap_snapshot_free(s);
	heap_close();
}

/* ---- Where it cannot be had, and beside other things --------------------- */

Test(heap_snapshot, not_without_cycles, .timeout = 60)
{
	weir_heap_snapshot *s = NULL;

	heap_open(NULL);
	cr_assert_eq(weir_collect_disable(heap), 0);
	cr_assert_eq(weir_heap_snapshot_take(heap, &s), -EBUSY);
	cr_assert_eq(weir_collect_enable(heap), 0);
	cr_assert_eq(weir_collect_hold(heap), 0);
	cr_assert_eq(weir_heap_snapshot_take(heap, &s), -EBUSY);
	cr_assert_eq(weir_collect_release(heap), 0);
	weir_heap_snapshot_free(take());
	heap_close();
}

/* Nor where there is no memory for it; the heap goes on. */
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
Test(heap_snapshot, no_memory, .timeout = 60)
{
	struct rlimit limit, small;
	weir_heap_snapshot *s = NULL;
	size_t used = 0, unused;
	FILE *f = fopen("/proc/self/statm", "re");

	heap_open("heap-max=1g");
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	for (int i = 0; i < 16; i++) {
		cell[i] = weir_alloc_leaf(self, 4 << 20);
		memset(cell[i], i, 4 << 20);
	}
	/* What is there already, data and stack, and a little more. */
	cr_assert(f && fscanf(f, "%zu %zu %zu %zu %zu %zu", &unused, &unused,
			      &unused, &unused, &unused, &used) == 6);
	fclose(f);
	cr_assert_eq(getrlimit(RLIMIT_DATA, &limit), 0);
	small = limit;
	small.rlim_cur = used * (size_t)getpagesize() + (24 << 20);
	cr_assert_eq(setrlimit(RLIMIT_DATA, &small), 0);
	cr_assert_eq(weir_heap_snapshot_take(heap, &s), -ENOMEM);
	cr_assert(strstr(weir_error_text(), "ulimit"), "%s", weir_error_text());
	cr_assert_eq(setrlimit(RLIMIT_DATA, &limit), 0);
	cr_assert_eq(weir_collect(heap, 0), 0);
	s = take();
	cr_assert_eq(object_at(s, cell[5]).address, cell[5]);
	cr_assert(!memcmp(object_at(s, cell[5]).data, cell[5], 4 << 20));
	weir_heap_snapshot_free(s);
	heap_close();
}
#endif

static void *take_and_free(void *arg)
{
	weir_heap_snapshot *s;

	for (int i = 0; i < 10; i++) {
		int err = weir_heap_snapshot_take(heap, &s);

		/* Given up for a hold. */
		must(!err || (err == -EBUSY && arg));
		if (!err)
			weir_heap_snapshot_free(s);
	}
	return NULL;
}

static void beside(void *arg, void (*what)(void))
{
	pthread_t thread[3];

	for (int i = 0; i < 3; i++)
		cr_assert_eq(
			pthread_create(&thread[i], NULL, take_and_free, arg),
			0);
	for (int i = 0; i < 30; i++)
		what();
	for (int i = 0; i < 3; i++)
		weir_blocking_call(self, join, &thread[i]);
}

static void collect_somehow(void)
{
	static unsigned n;

	cr_assert_eq(weir_collect(heap, n++ % 2 ? WEIR_COLLECT_STOPPED
						: WEIR_COLLECT_MINOR),
		     0);
	cell[n % 16] = weir_alloc(self, 100000);
}

Test(heap_snapshot, several_at_once_beside_cycles, .timeout = 120)
{
	heap_open("verify=on");
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	beside(NULL, collect_somehow);
	heap_close();
}

static void hold_for_a_while(void)
{
	cr_assert_eq(weir_collect_hold(heap), 0);
	usleep(2000);
	cr_assert_eq(weir_collect_release(heap), 0);
	usleep(1000);
}

Test(heap_snapshot, held_cycles_give_it_up, .timeout = 120)
{
	weir_heap_snapshot *s;

	heap_open("verify=on,delay=500");
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	for (int i = 0; i < 16; i++)
		cell[i] = weir_alloc(self, 100000);
	beside(heap, hold_for_a_while);
	s = take();
	cr_assert_eq(object_at(s, cell[7]).address, cell[7]);
	weir_heap_snapshot_free(s);
	heap_close();
}

/* Not with the sanitizers: a child of theirs hangs where another thread was in
 * malloc(). */
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
static void fork_somewhere(void)
{
	pid_t pid = fork();
	int status;

	cr_assert_geq(pid, 0);
	if (!pid) {
		weir_heap_snapshot *s;
		struct weir_heap_object o;

		CHILD(!weir_heap_snapshot_take(heap, &s));
		CHILD(!weir_heap_snapshot_object(s, cell[3], &o));
		CHILD(!memcmp(o.data, cell[3], 1000));
		weir_heap_snapshot_free(s);
		CHILD(!weir_collect(heap, 0));
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	usleep(500);
}

Test(heap_snapshot, beside_fork, .timeout = 120)
{
	heap_open("verify=on");
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	for (int i = 0; i < 16; i++)
		cell[i] = weir_alloc_leaf(self, 100000);
	memset(cell[3], 3, 1000);
	beside(NULL, fork_somewhere);
	heap_close();
}
#endif

/* ---- Pages --------------------------------------------------------------- */

struct image {
	struct weir_region_info region[2];
	char *data[2];
};

static int sink(void *arg, const struct weir_snapshot_run *runs, size_t count)
{
	struct image *image = arg;
	size_t sum = 0;

	must(count);
	for (size_t i = 0; i < count; i++) {
		const struct weir_snapshot_run *r = &runs[i];

		must(r->region < 2);
		must(r->offset + r->bytes <= image->region[r->region].bytes);
		if (r->data)
			memcpy(image->data[r->region] + r->offset, r->data,
			       r->bytes);
		else
			memset(image->data[r->region] + r->offset, 0, r->bytes);
		sum += r->data ? r->bytes : 0;
	}
	must(sum <= 2u << 20);
	return 0;
}

static int same(const struct weir_heap_object *o, void *arg)
{
	struct image *image = arg;

	for (int i = 0; i < 2; i++) {
		size_t at = (size_t)((const char *)o->address -
				     (const char *)image->region[i].address);

		if (at < image->region[i].bytes)
			return memcmp(image->data[i] + at, o->data, o->bytes);
	}
	return 1;
}

static int refuse(void *arg, const struct weir_snapshot_run *runs, size_t count)
{
	(void)runs, (void)count;
	++*(int *)arg;
	return -EIO;
}

Test(heap_snapshot, pages, .timeout = 60)
{
	struct weir_snapshot_identity id = {.size = sizeof(id)};
	weir_heap_snapshot *s;
	struct image image;
	int calls = 0;

	heap_open(NULL);
	cr_assert_eq(weir_root_add(heap, cell, sizeof(cell)), 0);
	for (int i = 0; i < 20000; i++) {
		void **p = i % 2 ? weir_alloc(self, 256)
				 : weir_alloc_leaf(self, 5000);

		memset(p, i, 256);
		if (i % 2) {
			memset(p, 0, 16);
			p[0] = cell[0];
			p[1] = cell[1];
			cell[0] = p;
		} else {
			cell[1] = p;
		}
	}
	s = take();
	cr_assert_eq(weir_heap_snapshot_identity(s, &id), 0);
	cr_assert(id.count == 2 && id.kind == WEIR_SNAPSHOT_END && id.time_ns);
	for (int i = 0; i < 2; i++) {
		image.region[i].size = sizeof(image.region[i]);
		cr_assert_eq(weir_heap_snapshot_region(s, (size_t)i,
						       &image.region[i]),
			     0);
		image.data[i] = malloc(image.region[i].bytes);
		memset(image.data[i], 0xa5, image.region[i].bytes);
	}
	cr_assert_eq(weir_heap_snapshot_read(s, sink, &image), 0);
	cr_assert_eq(weir_heap_snapshot_each(s, same, &image), 0);
	cr_assert_eq(weir_heap_snapshot_read(s, refuse, &calls), -EIO);
	cr_assert_eq(calls, 1);
	for (int i = 0; i < 2; i++)
		free(image.data[i]);
	weir_heap_snapshot_free(s);
	heap_close();
}
