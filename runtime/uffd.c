/* SPDX-License-Identifier: MIT */
/*
 * userfaultfd descriptors: opening, registering, protecting.  See uffd.h.
 *
 * Invariant: the table holds exactly the ranges registered on u->fd.
 */
#include "runtime/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/kernel_abi.h"
#include "runtime/patience.h"

#define DEVICE "/dev/userfaultfd"

/* Unprotecting holds the kernel's mmap lock (for reading) throughout, about
 * 30 ms a GiB with 4 KiB pages; in pieces, so that mmap() gets in between. */
#define PIECE ((uintptr_t)64 << 20)

static int open_device(void)
{
	int dev = open(DEVICE, O_RDWR | O_CLOEXEC);
	int fd;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

int wr_uffd_open_way(enum wr_uffd_way way)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd;

	if (way == WR_UFFD_DEVICE)
		return open_device();
	if (way == WR_UFFD_USER_ONLY)
		flags |= UFFD_USER_MODE_ONLY;
	fd = (int)syscall(SYS_userfaultfd, flags);
	return fd < 0 ? -errno : fd;
}

const char *wr_uffd_way_name(enum wr_uffd_way way)
{
	static const char *const names[WR_UFFD_WAYS] = {
		[WR_UFFD_SYSCALL] = "userfaultfd(2)",
		[WR_UFFD_DEVICE] = DEVICE,
		[WR_UFFD_USER_ONLY] = "userfaultfd(2) for user-mode faults",
	};

	return names[way];
}

void wr_uffd_explain(enum wr_uffd_way way, int err, const char **cause,
		     const char **cure)
{
	*cause = strerror(err);
	*cure = "see userfaultfd(2)";
	switch (err) {
	case EMFILE:
	case ENFILE:
		*cause = "no file descriptor is left";
		*cure = "raise RLIMIT_NOFILE (ulimit -n)";
		return;
	case ENOMEM:
		*cause = "the kernel is out of memory";
		*cure = "free memory or raise the cgroup's limit";
		return;
	case ENOSYS:
		*cause = "the system call is not there: the kernel was built "
			 "without CONFIG_USERFAULTFD, or a seccomp filter "
			 "hides it";
		*cure = "run a kernel with CONFIG_USERFAULTFD=y; in a "
			"container, allow userfaultfd in its seccomp profile";
		return;
	}
	switch (way) {
	case WR_UFFD_DEVICE:
		if (err == ENOENT || err == ENXIO || err == ENODEV) {
			*cause = "there is no " DEVICE " (kernel older than "
				 "6.1, or a container without the device)";
			*cure = "give the container the device "
				"(--device " DEVICE ")";
		} else if (err == EACCES || err == EPERM) {
			*cause = "no permission to open " DEVICE;
			*cure = "let this user read and write the device "
				"(chgrp and chmod, or a udev rule)";
		}
		break;
	case WR_UFFD_SYSCALL:
		if (err == EPERM || err == EACCES) {
			*cause = "without privilege (CAP_SYS_PTRACE, or "
				 "vm.unprivileged_userfaultfd=1) kernel-mode "
				 "faults are not to be had, or a seccomp "
				 "filter denies the call";
			*cure = "sysctl vm.unprivileged_userfaultfd=1, or "
				"CAP_SYS_PTRACE, or access to " DEVICE;
		}
		break;
	case WR_UFFD_USER_ONLY:
		if (err == EPERM || err == EACCES) {
			*cause = "the system call is denied by a seccomp "
				 "filter or a security module (usual in "
				 "containers)";
			*cure = "allow userfaultfd in the container's seccomp "
				"profile, or give it " DEVICE;
		} else if (err == EINVAL) {
			*cause = "the kernel (older than 5.11) does not know "
				 "UFFD_USER_MODE_ONLY";
			*cure = WR_UFFD_CURE;
		}
		break;
	case WR_UFFD_WAYS:
		break;
	}
}

uint64_t wr_uffd_hidden;

int wr_uffd_handshake(int fd, uint64_t features, uint64_t *all)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	if (ioctl(fd, UFFDIO_API, &api))
		return -errno;
	api.features &= ~wr_uffd_hidden;
	if (all)
		*all = api.features;
	return (api.features & features) == features ? 0 : -EINVAL;
}

/* What the kernel offers by a new descriptor, which is closed; fd may be an
 * error. */
static uint64_t offered_by(int fd)
{
	uint64_t all = 0;

	if (fd >= 0) {
		wr_uffd_handshake(fd, 0, &all);
		close(fd);
	}
	return all;
}

uint64_t wr_uffd_offered(void)
{
	int fd = -1;

	for (unsigned i = 0; i < WR_UFFD_WAYS && fd < 0; i++)
		fd = wr_uffd_open_way((enum wr_uffd_way)i);
	return offered_by(fd);
}

/* Why the handshake failed, as far as a second descriptor tells. */
static int explain_features(enum wr_uffd_way way, uint64_t wanted)
{
	static const struct {
		uint64_t bit;
		const char *name;
		const char *since;
	} table[] = {
		{UFFD_FEATURE_PAGEFAULT_FLAG_WP, "write protection",
		 WR_UFFD_WP_SINCE},
		{UFFD_FEATURE_SIGBUS, "SIGBUS", "it came with Linux 4.14"},
		{UFFD_FEATURE_EVENT_REMOVE, "EVENT_REMOVE",
		 "it came with Linux 4.11"},
		/* The newest first: what has it has the others. */
		{UFFD_FEATURE_WP_ASYNC, "WP_ASYNC", "it came with Linux 6.7"},
		{UFFD_FEATURE_WP_UNPOPULATED, "WP_UNPOPULATED",
		 "it came with Linux 6.4"},
	};
	uint64_t all = offered_by(wr_uffd_open_way(way));

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].bit & wanted & ~all)
			return wr_error(ENOTSUP,
					"the kernel's userfaultfd lacks %s; %s",
					table[i].name, table[i].since);
	return wr_error(ENOTSUP,
			"the kernel refused the userfaultfd features %#llx; "
			"see weir-info",
			(unsigned long long)wanted);
}

/* Open and shake hands; sets fd and way. */
static int open_best(struct wr_uffd *u)
{
	static const enum wr_uffd_way kernel_first[] = {
		WR_UFFD_SYSCALL, WR_UFFD_DEVICE, WR_UFFD_USER_ONLY};
	static const enum wr_uffd_way least_first[] = {
		WR_UFFD_USER_ONLY, WR_UFFD_DEVICE, WR_UFFD_SYSCALL};
	const enum wr_uffd_way *order =
		u->want_kernel ? kernel_first : least_first;
	const char *cause, *cure;
	int err = 0, fd;

	u->fd = -1;
	for (int i = 0; i < WR_UFFD_WAYS; i++) {
		fd = wr_uffd_open_way(order[i]);
		if (fd < 0) {
			/* The way that needs least tells most. */
			if (!err || order[i] == WR_UFFD_USER_ONLY)
				err = -fd;
			continue;
		}
		if (wr_uffd_handshake(fd, u->features, NULL)) {
			close(fd);
			return explain_features(order[i], u->features);
		}
		u->fd = fd;
		u->way = order[i];
		return 0;
	}
	wr_uffd_explain(WR_UFFD_USER_ONLY, err, &cause, &cure);
	return wr_error(ENOTSUP, "userfaultfd cannot be opened: %s; %s", cause,
			cure);
}

int wr_uffd_open(struct wr_uffd *u, uint64_t features, bool want_kernel)
{
	*u = (struct wr_uffd){
		.fd = -1, .features = features, .want_kernel = want_kernel};
	return open_best(u);
}

void wr_uffd_close(struct wr_uffd *u)
{
	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
	free(u->ranges);
	u->ranges = NULL;
	u->count = u->capacity = 0;
}

static int do_register(int fd, uintptr_t start, uintptr_t end)
{
	struct uffdio_register r = {
		.range = {.start = start, .len = end - start},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(fd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

static int explain_register(int err, uintptr_t start, uintptr_t end)
{
	const char *text;

	switch (err) {
	case EBUSY:
		text = "a part of it belongs to another userfaultfd; remove "
		       "it there first";
		break;
	case EINVAL:
		text = "a part of it is not mapped, or cannot be "
		       "write-protected; map it as private anonymous memory";
		break;
	case ENOMEM:
		text = "the kernel has no mapping or no memory for it; raise "
		       "vm.max_map_count or free memory";
		break;
	default:
		text = strerror(err);
		break;
	}
	return wr_error(err, "range [%#lx, %#lx) cannot be registered: %s",
			(unsigned long)start, (unsigned long)end, text);
}

int wr_uffd_add_range(struct wr_uffd *u, uintptr_t start, uintptr_t end)
{
	int err = 0;

	if (u->count == u->capacity) {
		size_t n = u->capacity ? 2 * u->capacity : 8;
		struct wr_uffd_range *p = realloc(u->ranges, n * sizeof(*p));

		if (p) {
			u->ranges = p;
			u->capacity = n;
		} else {
			err = wr_error(ENOMEM, "no memory for the table of "
					       "ranges; free some");
		}
	}
	if (!err) {
		err = do_register(u->fd, start, end);
		if (!err)
			u->ranges[u->count++] =
				(struct wr_uffd_range){start, end};
		else
			err = explain_register(-err, start, end);
	}
	return err;
}

int wr_uffd_remove_range(struct wr_uffd *u, uintptr_t start, uintptr_t end)
{
	struct uffdio_range r = {.start = start, .len = end - start};
	int err = -ENOENT;

	for (size_t i = 0; i < u->count; i++) {
		if (u->ranges[i].start != start || u->ranges[i].end != end)
			continue;
		u->ranges[i] = u->ranges[--u->count];
		/* Fails if the owner unmapped it already: nothing to undo. */
		ioctl(u->fd, UFFDIO_UNREGISTER, &r);
		err = 0;
		break;
	}
	return err;
}

int wr_uffd_reopen(struct wr_uffd *u)
{
	int err;

	if (u->fd >= 0)
		close(u->fd);
	err = open_best(u);
	for (size_t i = 0; !err && i < u->count; i++) {
		const struct wr_uffd_range *r = &u->ranges[i];

		err = do_register(u->fd, r->start, r->end);
		if (err)
			explain_register(-err, r->start, r->end);
	}
	if (err)
		wr_uffd_close(u);
	return err;
}

static int set_protection(int fd, uintptr_t start, uintptr_t end, uint64_t mode)
{
	int saved = errno;
	unsigned tries = 0;
	int calls = 0;

	while (start < end) {
		uintptr_t stop = end - start > PIECE ? start + PIECE : end;
		struct uffdio_writeprotect wp = {
			.range = {.start = start, .len = stop - start},
			.mode = mode,
		};

		calls++;
		if (!ioctl(fd, UFFDIO_WRITEPROTECT, &wp)) {
			start = stop;
		} else if (errno == EAGAIN) {
			/* An event of another mapping change is unread; its
			 * reader needs the processor. */
			wr_wait_a_bit(&tries);
		} else if (errno != EINTR) {
			calls = -errno;
			break;
		}
	}
	errno = saved;
	return calls;
}

int wr_uffd_populate(uintptr_t start, uintptr_t end)
{
	int saved = errno, n = 1;

	if (madvise((void *)start, end - start, MADV_POPULATE_READ)) {
		n = -errno;
		errno = saved;
	}
	return n;
}

/* Older kernels (6.1, not 6.12) take the range only if it lies in one mapping,
 * and say ENOENT: then by halves, down to a page. */
static int set_pieces(int fd, uintptr_t start, uintptr_t end, uint64_t mode)
{
	int n = set_protection(fd, start, end, mode), more;
	uintptr_t page, middle;

	if (n != -ENOENT)
		return n;
	page = (uintptr_t)sysconf(_SC_PAGESIZE);
	middle = start + ((end - start) / 2 & ~(page - 1));
	if (middle == start)
		return n;
	n = set_pieces(fd, start, middle, mode);
	if (n < 0)
		return n;
	more = set_pieces(fd, middle, end, mode);
	return more < 0 ? more : n + more;
}

int wr_uffd_protect(int fd, uintptr_t start, uintptr_t end)
{
	return set_pieces(fd, start, end, UFFDIO_WRITEPROTECT_MODE_WP);
}

int wr_uffd_unprotect(int fd, uintptr_t start, uintptr_t end)
{
	return set_pieces(fd, start, end, 0);
}

int wr_uffd_try_unprotect(int fd, uintptr_t start, uintptr_t end)
{
	int saved = errno, err = 1;
	struct uffdio_writeprotect wp = {
		.range = {.start = start, .len = end - start},
	};

	if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp))
		err = errno == EINTR ? -EAGAIN : -errno;
	errno = saved;
	return err;
}
