/* SPDX-License-Identifier: MIT */
/*
 * Bare write tracking by each mechanism; bare_barrier.h says what for.
 *
 * Where faults reach user space (sync, SIGBUS, SIGSEGV), each is noted in
 * `dirty` before the page is made writable.  Under sync the handler thread
 * does so and the unprotecting ioctl wakes the writer, which orders the two;
 * under the others it is the writer's own signal handler.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "benchmarks/bare_barrier.h"
#include "runtime/kernel_abi.h"

#define PAGE 4096u

static struct {
	enum wr_barrier_kind kind;
	uintptr_t start, end; /* the range */
	int uffd;             /* -1: mprotect */
	int pagemap;          /* async: /proc/self/pagemap, else -1 */
	int stop;             /* sync: eventfd that ends the handler */
	pthread_t handler;    /* sync */
	struct sigaction old; /* sigbus, mprotect: what was there */
	uintptr_t *dirty;     /* pages written since armed, one each */
	size_t dirties;       /* entries of `dirty` */
} bare;

static void die(const char *what)
{
	fprintf(stderr, "bench-barrier: bare loop: %s: %s\n", what,
		strerror(errno));
	exit(2);
}

static void protect(uintptr_t start, uintptr_t end, uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = start, .len = end - start},
		.mode = mode,
	};

	if (ioctl(bare.uffd, UFFDIO_WRITEPROTECT, &wp))
		die("UFFDIO_WRITEPROTECT");
}

static void *handle(void *arg)
{
	struct pollfd p[2] = {{.fd = bare.uffd, .events = POLLIN},
			      {.fd = bare.stop, .events = POLLIN}};
	struct uffd_msg msg[16];
	uintptr_t page;
	ssize_t n, i;

	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			return arg;
		n = read(bare.uffd, msg, sizeof(msg));
		for (i = 0; i < n / (ssize_t)sizeof(msg[0]); i++) {
			page = msg[i].arg.pagefault.address &
			       ~(uintptr_t)(PAGE - 1);
			bare.dirty[bare.dirties++] = page;
			protect(page, page + PAGE, 0);
		}
	}
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);

	(void)signal;
	(void)context;
	if (page < bare.start || page >= bare.end)
		_exit(2);
	bare.dirty[bare.dirties++] = page;
	if (bare.kind == WR_BARRIER_SIGBUS)
		protect(page, page + PAGE, 0);
	else if (mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE))
		_exit(2);
}

static void open_uffd(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	struct uffdio_register r = {
		.range = {.start = bare.start, .len = bare.end - bare.start},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int flags = O_CLOEXEC | O_NONBLOCK;

	/* Not privileged: user-mode faults are all that are made here. */
	bare.uffd = (int)syscall(SYS_userfaultfd, flags);
	if (bare.uffd < 0)
		bare.uffd = (int)syscall(SYS_userfaultfd,
					 flags | UFFD_USER_MODE_ONLY);
	if (bare.uffd < 0)
		die("userfaultfd");
	if (ioctl(bare.uffd, UFFDIO_API, &api))
		die("UFFDIO_API");
	if (ioctl(bare.uffd, UFFDIO_REGISTER, &r))
		die("UFFDIO_REGISTER");
}

static void open_signal(int signal)
{
	struct sigaction sa = {.sa_sigaction = on_signal,
			       .sa_flags = SA_SIGINFO};

	if (sigaction(signal, &sa, &bare.old))
		die("sigaction");
}

void bare_open(enum wr_barrier_kind kind, void *start, size_t size)
{
	memset(&bare, 0, sizeof(bare));
	bare.kind = kind;
	bare.start = (uintptr_t)start;
	bare.end = bare.start + size;
	bare.uffd = bare.pagemap = bare.stop = -1;
	bare.dirty = calloc(size / PAGE, sizeof(*bare.dirty));
	if (!bare.dirty)
		die("calloc");
	/* Not to be charged to the first faults. */
	memset(bare.dirty, 1, size / PAGE * sizeof(*bare.dirty));
	switch (kind) {
	case WR_BARRIER_ASYNC:
		open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			  UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC);
		bare.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		if (bare.pagemap < 0)
			die("/proc/self/pagemap");
		break;
	case WR_BARRIER_SYNC:
		open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			  UFFD_FEATURE_WP_UNPOPULATED);
		bare.stop = eventfd(0, EFD_CLOEXEC);
		errno = pthread_create(&bare.handler, NULL, handle, NULL);
		if (bare.stop < 0 || errno)
			die("handler thread");
		break;
	case WR_BARRIER_SIGBUS:
		open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			  UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_SIGBUS);
		open_signal(SIGBUS);
		break;
	default:
		open_signal(SIGSEGV);
		break;
	}
}

void bare_close(void)
{
	uint64_t one = 1;

	if (bare.kind == WR_BARRIER_SYNC) {
		if (write(bare.stop, &one, sizeof(one)) != sizeof(one))
			die("eventfd");
		pthread_join(bare.handler, NULL);
		close(bare.stop);
	}
	if (bare.uffd >= 0)
		close(bare.uffd);
	if (bare.pagemap >= 0)
		close(bare.pagemap);
	if (bare.kind == WR_BARRIER_SIGBUS)
		sigaction(SIGBUS, &bare.old, NULL);
	if (bare.kind == WR_BARRIER_MPROTECT) {
		sigaction(SIGSEGV, &bare.old, NULL);
		mprotect((void *)bare.start, bare.end - bare.start,
			 PROT_READ | PROT_WRITE);
	}
	free(bare.dirty);
}

/* async: one ioctl finds, reports and protects. */
static size_t scan(void)
{
	struct wr_page_region regions[512];
	struct wr_pm_scan_arg a = {
		.size = sizeof(a),
		.flags = WR_PM_SCAN_WP_MATCHING | WR_PM_SCAN_CHECK_WPASYNC,
		.start = bare.start,
		.end = bare.end,
		.vec = (uintptr_t)regions,
		.vec_len = 512,
		.category_mask = WR_PAGE_IS_WRITTEN,
		.category_anyof_mask = WR_PAGE_IS_PRESENT | WR_PAGE_IS_SWAPPED,
		.return_mask = WR_PAGE_IS_WRITTEN,
	};
	size_t pages = 0;
	long n, i;

	while (a.start < a.end) {
		n = ioctl(bare.pagemap, WR_PAGEMAP_SCAN, &a);
		if (n < 0)
			die("PAGEMAP_SCAN");
		for (i = 0; i < n; i++)
			pages += (regions[i].end - regions[i].start) / PAGE;
		a.start = a.walk_end;
	}
	return pages;
}

void bare_arm(void)
{
	switch (bare.kind) {
	case WR_BARRIER_ASYNC:
		scan();
		break;
	case WR_BARRIER_MPROTECT:
		if (mprotect((void *)bare.start, bare.end - bare.start,
			     PROT_READ))
			die("mprotect");
		break;
	default:
		protect(bare.start, bare.end, UFFDIO_WRITEPROTECT_MODE_WP);
		break;
	}
	bare.dirties = 0;
}

/* Who is asked for pages in order of their address sorts them, by bits. */
static size_t for_each_run(void (*again)(uintptr_t start, uintptr_t end))
{
	size_t pages = (bare.end - bare.start) / PAGE, n = bare.dirties, i, k;
	static uint64_t *bits;
	static size_t words;
	uintptr_t run;

	if (words < pages / 64 + 1) {
		words = pages / 64 + 1;
		free(bits);
		bits = calloc(words, sizeof(*bits));
		if (!bits)
			die("calloc");
	}
	for (i = 0; i < n; i++) {
		k = (bare.dirty[i] - bare.start) / PAGE;
		bits[k / 64] |= 1ull << k % 64;
	}
	for (i = 0; i < pages; i++) {
		if (i % 64 == 0 && bits[i / 64] == 0) {
			i += 63;
			continue;
		}
		if (!(bits[i / 64] >> i % 64 & 1))
			continue;
		run = i;
		while (i < pages && bits[i / 64] >> i % 64 & 1)
			i++;
		again(bare.start + run * PAGE, bare.start + i * PAGE);
	}
	memset(bits, 0, words * sizeof(*bits));
	bare.dirties = 0;
	return n;
}

static void protect_run(uintptr_t start, uintptr_t end)
{
	if (bare.kind != WR_BARRIER_MPROTECT)
		protect(start, end, UFFDIO_WRITEPROTECT_MODE_WP);
	else if (mprotect((void *)start, end - start, PROT_READ))
		die("mprotect");
}

size_t bare_fetch(void)
{
	if (bare.kind == WR_BARRIER_ASYNC)
		return scan();
	return for_each_run(protect_run);
}
