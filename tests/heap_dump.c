/* SPDX-License-Identifier: MIT */
/*
 * Heap dumps for tests/heap_dump.sh to look at.
 *
 *   heap_dump known FILE   a small graph, each part of it of a kind with a name
 *   heap_dump busy FILE    a large one, while threads change it
 *   heap_dump errors DIR   what is refused, and that the old file stays
 *
 * Prints what the file must say: "objects N", "bytes N".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/embed.h>
#include <weir/heap_snapshot.h>

#include "tests/must.h"

static weir_heap *heap;
static weir_mutator *self;

static void *root[8];

static void dump(const char *path)
{
	struct weir_heap_snapshot_info i = {.size = sizeof(i)};
	weir_heap_snapshot *s;

	must(!weir_heap_snapshot_take(heap, &s));
	must(!weir_heap_snapshot_info(s, &i));
	must(!weir_heap_snapshot_dump_file(s, path));
	printf("objects %llu\nbytes %llu\n", (unsigned long long)i.objects,
	       (unsigned long long)i.bytes);
	weir_heap_snapshot_free(s);
}

/* ---- known --------------------------------------------------------------- */

static weir_kind kind_of(const char *name, uint64_t bits)
{
	weir_kind k;

	must(!weir_kind_bitmap(heap, &bits, 8, &k));
	must(!weir_kind_name(heap, k, name));
	return k;
}

static void *hidden_target; /* only a trace function leads to it */

static void trace(void *object, size_t size, weir_visitor *v, void *arg)
{
	(void)object, (void)size, (void)arg;
	weir_visit(v, (void *)~(uintptr_t)hidden_target);
}

static void known(const char *path)
{
	weir_kind top = kind_of("top", 0x6), low = kind_of("low", 0x1),
		  odd = kind_of("odd \"\\\n\xc3\xa4\xff name", 0x1), traced;
	weir_weak *weak;
	void **t, **l;

	must(!weir_kind_trace(heap, trace, NULL, 0, &traced));
	must(!weir_kind_name(heap, traced, "traced"));
	must(!weir_root_add(heap, root, sizeof(root)));
	root[3] = t = weir_alloc_kind(self, 64, top);
	t[1] = l = weir_alloc_kind(self, 64, low);
	t[2] = weir_alloc_leaf(self, 100000);
	t[0] = weir_alloc(self, 48); /* the kind says: no reference */
	l[0] = t;
	root[4] = weir_alloc_kind(self, 64, odd);
	root[5] = weir_ephemeron_create(self, t, l);
	root[6] = weir_alloc_kind(self, 64, traced);
	hidden_target = (void *)~(uintptr_t)weir_alloc_kind(self, 64, low);
	must(!weir_weak_create(heap, t, &weak));
	dump(path);
}

/* ---- busy ---------------------------------------------------------------- */

#define NODES 100000

static int over; /* atomic */

/* Random graphs that hang together. */
static void *churn(void *arg)
{
	uint64_t r = (uintptr_t)arg * 2 + 88172645463325253u;
	void **table = root[0];
	weir_mutator *m;

	must(!weir_thread_attach(heap, &m));
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
		void **p;

		r ^= r << 13;
		r ^= r >> 7;
		r ^= r << 17;
		p = r >> 62 ? weir_alloc(m, 16 + r % 300)
			    : weir_alloc_leaf(m, r % 5000);
		must(p);
		if (r >> 62) {
			p[0] = __atomic_load_n(&table[r % NODES],
					       __ATOMIC_ACQUIRE);
			p[1] = p;
			if (r >> 62 == 2)
				p[0] = NULL; /* or chains never end */
		}
		__atomic_store_n(&table[(r >> 20) % NODES], p,
				 __ATOMIC_RELEASE);
	}
	must(!weir_thread_detach(m));
	return NULL;
}

static void *join(void *thread)
{
	pthread_join(*(pthread_t *)thread, NULL);
	return NULL;
}

static void busy(const char *path)
{
	pthread_t thread[2];

	must(!weir_root_add(heap, root, sizeof(root)));
	root[0] = weir_alloc(self, NODES * sizeof(void *));
	for (uintptr_t i = 0; i < 2; i++)
		must(!pthread_create(&thread[i], NULL, churn, (void *)i));
	for (int i = 0; i < 3; i++) {
		usleep(100000);
		must(!weir_heap_dump(heap, path));
	}
	dump(path);
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		weir_blocking_call(self, join, &thread[i]);
}

/* ---- errors -------------------------------------------------------------- */

static void errors(const char *dir)
{
	struct rlimit small = {4096, RLIM_INFINITY};
	char path[512], link[512], text[16] = "";
	weir_heap_snapshot *s;
	struct stat st;
	int fd, ends[2];

	must(!weir_root_add(heap, root, sizeof(root)));
	for (int i = 0; i < 10000; i++) {
		void **p = weir_alloc(self, 64);

		p[0] = root[0];
		root[0] = p;
	}
	must(!weir_heap_snapshot_take(heap, &s));
	must(weir_heap_dump(heap, dir) == -EINVAL);
	snprintf(path, sizeof(path), "%s/none/file", dir);
	must(weir_heap_dump(heap, path) == -ENOENT);
	fd = open("/dev/full", O_WRONLY);
	must(fd >= 0);
	must(weir_heap_snapshot_dump_fd(s, fd) == -ENOSPC);
	must(strstr(weir_error_text(), "make room"));
	close(fd);
	must(!pipe(ends));
	close(ends[0]);
	must(weir_heap_snapshot_dump_fd(s, ends[1]) == -EPIPE);
	close(ends[1]);
	must(weir_heap_snapshot_dump_fd(s, -1) == -EBADF);

	/* The old file stays, and nothing beside it. */
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0 && write(fd, "old", 3) == 3);
	close(fd);
	must(!setrlimit(RLIMIT_FSIZE, &small));
	must(weir_heap_snapshot_dump_file(s, path) == -EFBIG);
	small.rlim_cur = RLIM_INFINITY;
	must(!setrlimit(RLIMIT_FSIZE, &small));
	fd = open(path, O_RDONLY);
	must(fd >= 0 && read(fd, text, sizeof(text)) == 3);
	must(!strcmp(text, "old"));
	close(fd);

	/* A link stays one. */
	snprintf(link, sizeof(link), "%s/link", dir);
	must(!symlink("file", link));
	must(!weir_heap_snapshot_dump_file(s, link));
	must(!lstat(link, &st) && S_ISLNK(st.st_mode));
	must(!lstat(path, &st) && st.st_size > 10000);
	weir_heap_snapshot_free(s);
}

int main(int argc, char **argv)
{
	struct weir_heap_options o = {.size = sizeof(o),
				      .options = "heap-min=4m"};

	if (argc != 3)
		return 2;
	must(!weir_heap_create(&o, &heap));
	must(!weir_thread_attach(heap, &self));
	if (!strcmp(argv[1], "known"))
		known(argv[2]);
	else if (!strcmp(argv[1], "busy"))
		busy(argv[2]);
	else if (!strcmp(argv[1], "errors"))
		errors(argv[2]);
	else
		return 2;
	must(!weir_heap_destroy(heap));
	return 0;
}
