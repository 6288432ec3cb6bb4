/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fork_load: the `sync` barrier under a program that forks.
 *
 * A heap of linked objects is written at random places while collections run
 * beside the writes.  Every few thousand writes the program forks; the children
 * live on for a while, so that most of the heap is shared copy-on-write.  At
 * the end one line says how many events of write faults the barrier had to
 * serve, and how many of them came of pages that were not protected: those are
 * spurious, nothing but the kernel's copying was to be done for them.
 *
 * The library counts the events but publishes no sum, so they are counted here
 * on their way in: this is linked with --wrap=read.  Whether the page of an
 * event was protected is bit 57 of its entry in /proc/self/pagemap.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <weir/weir.h>

#define OBJECTS (512u << 10) /* of 64 bytes: 32 MiB */
#define FORKS 32u
#define WRITES 4096u     /* between two forks */
#define CYCLE_EVERY 8u   /* forks */
#define CHILDREN 3u      /* at a time */
#define REPLACE_EVERY 8u /* writes: a new object in place of an old one */

struct object {
	struct object *ref[4];
	uint64_t id;
	uint64_t value; /* writes to this object */
	uint64_t unused[2];
};

static struct object **table; /* a root; an object of the heap itself */
static weir_heap *heap;
static weir_mutator *self;

static void die(const char *what, int err)
{
	fprintf(stderr, "fork_load: %s: %s: %s\n", what, strerror(err),
		weir_error_text());
	exit(2);
}

/* ---- Events, on their way to the library --------------------------------- */

static bool look = true;    /* at the entries */
static pid_t parent;        /* children are not counted */
static uint64_t events;     /* atomic: write-protect faults */
static uint64_t of_armed;   /* atomic: of them, those of protected pages */
static int pagemap = -1;    /* /proc/self/pagemap */
static int64_t page_size;   /* bytes */
static signed char is[256]; /* by descriptor: 1 userfaultfd, -1 not, 0 new */

ssize_t __real_read(int fd, void *buffer, size_t size);
ssize_t __wrap_read(int fd, void *buffer, size_t size);

static bool is_userfaultfd(int fd)
{
	char path[32], link[64] = "";

	if (fd < 0 || fd >= (int)sizeof(is))
		return false;
	if (!is[fd]) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		is[fd] = readlink(path, link, sizeof(link) - 1) > 0 &&
					 strstr(link, "[userfaultfd]")
				 ? 1
				 : -1;
	}
	return is[fd] > 0;
}

/* The writer stands still, and the library has not resolved anything. */
static void count(const struct uffd_msg *msg)
{
	uint64_t entry = 0, page = msg->arg.pagefault.address;

	if (msg->event != UFFD_EVENT_PAGEFAULT ||
	    !(msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP))
		return;
	__atomic_add_fetch(&events, 1, __ATOMIC_RELAXED);
	if (!look)
		return;
	if (pread(pagemap, &entry, 8, (off_t)page / page_size * 8) != 8)
		die("pagemap", errno);
	__atomic_add_fetch(&of_armed, entry >> 57 & 1, __ATOMIC_RELAXED);
}

ssize_t __wrap_read(int fd, void *buffer, size_t size)
{
	ssize_t n = __real_read(fd, buffer, size);
	int saved = errno;

	if (n > 0 && getpid() == parent && is_userfaultfd(fd))
		for (size_t i = 0; i < (size_t)n / sizeof(struct uffd_msg); i++)
			count((const struct uffd_msg *)buffer + i);
	errno = saved;
	return n;
}

/* ---- The heap ------------------------------------------------------------ */

static uint64_t random_state = 88172645463325252u;

static uint64_t below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % n;
}

static struct object *new_object(uint64_t id)
{
	struct object *o = weir_alloc(self, sizeof(*o));

	if (!o)
		die("allocating", errno);
	o->id = id;
	return o;
}

static void build(void)
{
	struct object *o;

	table = weir_alloc(self, OBJECTS * sizeof(*table));
	if (!table)
		die("allocating", errno);
	for (uint64_t i = 0; i < OBJECTS; i++) {
		o = new_object(i);
		for (int k = 0; k < 4 && i; k++)
			o->ref[k] = table[below(i)];
		table[i] = o;
	}
}

static void write_one(uint64_t n)
{
	uint64_t i = below(OBJECTS);
	struct object *o = table[i], *fresh;

	if (n % REPLACE_EVERY == 0) {
		fresh = new_object(i);
		memcpy(fresh->ref, o->ref, sizeof(o->ref));
		fresh->value = o->value;
		table[i] = o = fresh;
	}
	o->ref[below(4)] = table[below(OBJECTS)];
	o->value++;
}

/* Whether the heap is as `writes` writes leave it. */
static bool whole(uint64_t writes)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < OBJECTS; i++) {
		if (table[i]->id != i)
			return false;
		sum += table[i]->value;
	}
	return sum == writes;
}

/* ---- Children ------------------------------------------------------------ */

static struct {
	pid_t pid;
	int go; /* closing it ends the child */
} child[CHILDREN];

static void start_child(unsigned slot, uint64_t writes)
{
	int pipes[2];
	char byte;

	/* Those of older children would be kept open by it. */
	if (pipe2(pipes, O_CLOEXEC))
		die("pipe", errno);
	child[slot].pid = fork();
	if (child[slot].pid < 0)
		die("fork", errno);
	if (!child[slot].pid) {
		close(pipes[1]);
		for (unsigned i = 0; i < CHILDREN; i++)
			if (i != slot && child[i].pid)
				close(child[i].go);
		while (__real_read(pipes[0], &byte, 1) < 0 && errno == EINTR)
			;
		_exit(whole(writes) ? 0 : 1);
	}
	close(pipes[0]);
	child[slot].go = pipes[1];
}

static void end_child(unsigned slot)
{
	int status = 0;

	if (!child[slot].pid)
		return;
	close(child[slot].go);
	while (waitpid(child[slot].pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid", errno);
	child[slot].pid = 0;
	if (!status)
		return;
	fprintf(stderr, "fork_load: a child saw what was written after it was "
			"forked, or died\n");
	exit(1);
}

/* ---- The run ------------------------------------------------------------- */

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static struct weir_stats stats_now(void)
{
	struct weir_stats s = {.size = sizeof(s)};
	int err = weir_heap_stats(heap, &s);

	if (err)
		die("statistics", -err);
	return s;
}

/* A cycle that is asked for while another one runs could be one with it: all
 * runs are to have as many. */
static void wait_for_cycles(uint64_t n)
{
	while (stats_now().cycles_full < n)
		usleep(1000);
}

static void start_cycle(void)
{
	int err = weir_collect(heap, WEIR_COLLECT_FULL | WEIR_COLLECT_NOWAIT);

	if (err)
		die("collecting", -err);
}

/* `cycles`: before the run. */
static uint64_t run(uint64_t cycles)
{
	uint64_t writes = 0;

	for (unsigned i = 0; i < FORKS; i++) {
		if (i % CYCLE_EVERY == 0) {
			wait_for_cycles(cycles + i / CYCLE_EVERY);
			start_cycle();
		}
		end_child(i % CHILDREN);
		start_child(i % CHILDREN, writes);
		for (unsigned k = 0; k < WRITES; k++)
			write_one(writes++);
	}
	for (unsigned i = 0; i < CHILDREN; i++)
		end_child(i);
	wait_for_cycles(cycles + FORKS / CYCLE_EVERY);
	return writes;
}

static void open_heap(void)
{
	struct weir_heap_options o = {.size = sizeof(o),
				      .options = "barrier=sync,heap-max=256m"};
	int err = weir_heap_create(&o, &heap);

	if (!err)
		err = weir_thread_attach(heap, &self);
	if (!err)
		err = weir_root_add(heap, &table, sizeof(table));
	if (err)
		die("creating the heap", -err);
}

int main(int argc, char **argv)
{
	struct weir_stats before, after;
	uint64_t from, to, writes, first;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--no-look"))) {
		fputs("usage: fork_load [--no-look]\n\n"
		      "  --no-look  count events only, do not look whether "
		      "their pages are protected\n",
		      stderr);
		return 2;
	}
	look = argc == 1;
	parent = getpid();
	page_size = sysconf(_SC_PAGESIZE);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		die("/proc/self/pagemap", errno);
	open_heap();
	build();
	weir_collect(heap, WEIR_COLLECT_FULL);
	before = stats_now();
	first = __atomic_load_n(&events, __ATOMIC_RELAXED);
	__atomic_store_n(&of_armed, 0, __ATOMIC_RELAXED);
	from = now_us();
	writes = run(before.cycles_full);
	to = now_us();
	first = __atomic_load_n(&events, __ATOMIC_RELAXED) - first;
	after = stats_now();
	if (!whole(writes)) {
		fputs("fork_load: the heap is not what was written\n", stderr);
		return 1;
	}
	printf("objects %u pages %" PRIu64 " forks %u writes %" PRIu64
	       " full %" PRIu64 " minor %" PRIu64 " dirty %" PRIu64
	       " events %" PRIu64,
	       OBJECTS, after.heap_used / (uint64_t)page_size, FORKS, writes,
	       after.cycles_full - before.cycles_full,
	       after.cycles_minor - before.cycles_minor,
	       after.dirty_pages - before.dirty_pages, first);
	if (look)
		printf(" spurious %" PRIu64, first - of_armed);
	printf(" time_us %" PRIu64 "\n", to - from);
	weir_thread_detach(self);
	weir_heap_destroy(heap);
	return 0;
}
