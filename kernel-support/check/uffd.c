/* SPDX-License-Identifier: GPL-2.0-only */
/* See uffd.h. */
#define _GNU_SOURCE
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static int raw_open(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && errno == EPERM)
		fd = (int)syscall(SYS_userfaultfd,
				  O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	return fd;
}

static int handshake(int fd, uint64_t features, uint64_t *offered)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	if (ioctl(fd, UFFDIO_API, &api))
		return -errno;
	if (offered)
		*offered = api.features;
	return 0;
}

uint64_t uffd_features(const char **why)
{
	static char text[128];
	uint64_t offered = 0;
	int fd = raw_open(), err;

	*why = text;
	if (fd < 0) {
		snprintf(text, sizeof(text), "userfaultfd: %s",
			 strerror(errno));
		return 0;
	}
	err = handshake(fd, 0, &offered);
	close(fd);
	if (err)
		snprintf(text, sizeof(text), "UFFDIO_API: %s", strerror(-err));
	else if (!(offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		snprintf(text, sizeof(text),
			 "the kernel lacks UFFD_FEATURE_PAGEFAULT_FLAG_WP "
			 "(it has %#llx)",
			 (unsigned long long)offered);
	else
		return offered;
	return 0;
}

/* The last that came names the kernel that is needed. */
static const char *newest_of(uint64_t f)
{
	if (f & FEATURE_WP_ASYNC)
		return "UFFD_FEATURE_WP_ASYNC (Linux 6.7)";
	if (f & FEATURE_WP_UNPOPULATED)
		return "UFFD_FEATURE_WP_UNPOPULATED (Linux 6.4)";
	if (f & FEATURE_WP_HUGETLBFS_SHMEM)
		return "UFFD_FEATURE_WP_HUGETLBFS_SHMEM (Linux 5.19, and "
		       "CONFIG_PTE_MARKER_UFFD_WP)";
	if (f & UFFD_FEATURE_EVENT_FORK)
		return "UFFD_FEATURE_EVENT_FORK (Linux 4.11)";
	if (f & UFFD_FEATURE_PAGEFAULT_FLAG_WP)
		return "UFFD_FEATURE_PAGEFAULT_FLAG_WP";
	return "a feature";
}

int uffd_open(uint64_t features)
{
	const char *why;
	uint64_t offered = uffd_features(&why), lacking = features & ~offered;
	int fd, err;

	if (!offered) {
		skip("%s", why);
		return -1;
	}
	if (lacking) {
		skip("the kernel lacks %s", newest_of(lacking));
		return -1;
	}
	fd = raw_open();
	if (fd < 0) {
		fail("userfaultfd: %s", strerror(errno));
		return -1;
	}
	err = handshake(fd, features, NULL);
	if (err == -EPERM && (features & UFFD_FEATURE_EVENT_FORK))
		skip("UFFD_FEATURE_EVENT_FORK needs CAP_SYS_PTRACE");
	else if (err)
		fail("UFFDIO_API, features %#llx: %s",
		     (unsigned long long)features, strerror(-err));
	if (!err)
		return fd;
	close(fd);
	return -1;
}

static size_t huge_size(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
			"r");
	unsigned long n = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%lu", &n) != 1)
		n = 0;
	fclose(f);
	return n;
}

static size_t hugetlb_size(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	unsigned long kib = 0;
	char line[128];

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Hugepagesize: %lu kB", &kib) == 1)
			break;
	fclose(f);
	return kib << 10;
}

bool area_map(struct area *a, enum backing backing, size_t pages)
{
	size_t base = (size_t)sysconf(_SC_PAGESIZE), size, huge = 0;
	int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;

	*a = (struct area){.page = base, .pages = pages};
	if (backing == SHMEM) {
		fd = (int)syscall(SYS_memfd_create, "weir-kernel-check", 0);
		if (fd < 0 || ftruncate(fd, (off_t)(pages * base)))
			return skip("memfd_create: %s", strerror(errno));
		flags = MAP_SHARED;
	} else if (backing == HUGETLB) {
		a->page = hugetlb_size();
		if (!a->page)
			return skip("the kernel has no hugetlb pages");
		flags |= MAP_HUGETLB;
	} else if (backing == ANON_HUGE) {
		huge = huge_size();
		if (!huge)
			return skip("the kernel has no transparent huge pages");
		a->pages = huge / base;
	}
	size = a->page * a->pages;
	a->mem = mmap(NULL, size + huge, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (fd >= 0)
		close(fd);
	if (a->mem == MAP_FAILED && backing == HUGETLB)
		return skip("no hugetlb pages are set aside "
			    "(vm.nr_hugepages): %s",
			    strerror(errno));
	if (a->mem == MAP_FAILED)
		return fail("mmap: %s", strerror(errno));
	if (huge) {
		a->mem = (char *)(((uintptr_t)a->mem + huge - 1) &
				  ~(uintptr_t)(huge - 1));
		madvise(a->mem, size, MADV_HUGEPAGE);
	} else if (backing == ANON) {
		madvise(a->mem, size, MADV_NOHUGEPAGE);
	}
	return true;
}

/* What alignment cost stays mapped until the end. */
void area_unmap(struct area *a)
{
	munmap(a->mem, a->page * a->pages);
}

volatile uint64_t *area_word(const struct area *a, size_t i)
{
	return (volatile uint64_t *)(void *)(a->mem + i * a->page + 64);
}

void area_fill(struct area *a, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		*area_word(a, i) = i + 1;
}

bool area_register(const struct area *a, int fd)
{
	struct uffdio_register r = {
		.range = {(uintptr_t)a->mem, a->page * a->pages},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (!ioctl(fd, UFFDIO_REGISTER, &r))
		return true;
	if (errno == EINVAL)
		return skip("this kind of memory cannot be registered");
	return fail("UFFDIO_REGISTER: %s", strerror(errno));
}

int area_protect(const struct area *a, int fd, size_t from, size_t n, bool on)
{
	struct uffdio_writeprotect w = {
		.range = {(uintptr_t)a->mem + from * a->page, n * a->page},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	/* EAGAIN: a mapping of the process is changing. */
	while (ioctl(fd, UFFDIO_WRITEPROTECT, &w))
		if (errno != EAGAIN)
			return errno;
	return 0;
}

static void on_event(struct watcher *w, const struct uffd_msg *msg)
{
	size_t i;

	if (msg->event == UFFD_EVENT_FORK) {
		__atomic_store_n(&w->child_fd, (int)msg->arg.fork.ufd,
				 __ATOMIC_RELEASE);
		return;
	}
	if (msg->event != UFFD_EVENT_PAGEFAULT ||
	    !(msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)) {
		__atomic_add_fetch(&w->other, 1, __ATOMIC_RELAXED);
		return;
	}
	i = ((uintptr_t)msg->arg.pagefault.address - (uintptr_t)w->area->mem) /
	    w->area->page;
	__atomic_add_fetch(&w->events, 1, __ATOMIC_RELAXED);
	if (i < w->area->pages && i < sizeof(w->seen))
		w->seen[i]++;
	if (w->on_fault)
		w->on_fault(w, i);
	area_protect(w->area, w->fd, i, 1, false);
}

static void *watcher_main(void *arg)
{
	struct watcher *w = arg;

	for (;;) {
		struct pollfd p[2] = {{.fd = w->fd, .events = POLLIN},
				      {.fd = w->stop[0], .events = POLLIN}};
		struct uffd_msg msg;

		if (poll(p, 2, -1) < 0)
			continue;
		while (read(w->fd, &msg, sizeof(msg)) == sizeof(msg))
			on_event(w, &msg);
		if (p[1].revents)
			return NULL;
	}
}

void watch(struct watcher *w, const struct area *a, int fd)
{
	w->fd = fd;
	w->area = a;
	w->child_fd = -1;
	if (pipe2(w->stop, O_CLOEXEC) ||
	    pthread_create(&w->thread, NULL, watcher_main, w)) {
		perror("weir-kernel-check: a thread that reads events");
		exit(2);
	}
}

int watch_child(struct watcher *w)
{
	int fd = -1;

	/* fork returns once the event was read, which may be a moment before
	 * the reader notes it. */
	for (int i = 0; i < 5000 && fd < 0; i++) {
		fd = __atomic_load_n(&w->child_fd, __ATOMIC_ACQUIRE);
		if (fd < 0)
			usleep(1000);
	}
	return fd;
}

void watch_end(struct watcher *w)
{
	close(w->stop[1]);
	pthread_join(w->thread, NULL);
	close(w->stop[0]);
}

/* Opened each time: a child of fork has a map of its own. */
uint64_t pagemap_of(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t entry = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, 8, (off_t)((uintptr_t)p / page * 8)) != 8)
		entry = 0;
	close(fd);
	return entry;
}

uint64_t frame_of(const void *p)
{
	return pagemap_of(p) & ((1ull << 55) - 1);
}
