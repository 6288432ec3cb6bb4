/* SPDX-License-Identifier: MIT */
/*
 * The core that owns userfaultfd descriptors.
 *
 * A mapping belongs to one descriptor, and a descriptor's manner (async,
 * sync, SIGBUS) is fixed when it is opened.  So descriptors are opened here
 * and nowhere else, with the ranges registered on them in a table: a child of
 * fork() has no registration (its memory is ordinary memory) and gets them
 * back by wr_uffd_reopen().
 *
 *   who may call               beside whom
 *   open, close, reopen        nothing else on the same wr_uffd
 *   add_range, remove_range    protect and unprotect; the owner's lock keeps
 *                              them from each other
 *   protect, unprotect         anything
 */
#ifndef WEIR_RUNTIME_UFFD_H
#define WEIR_RUNTIME_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* When this machine's kernels got the write-protect bit, and the kernel that
 * has all that weir uses. */
#if defined(__aarch64__)
#define WR_UFFD_WP_SINCE                                                    \
	"on arm64 it came with Linux 6.10, and weir's kernel-support/ has " \
	"patches for 6.1"
#define WR_UFFD_CURE "run Linux 6.10 or later"
#elif defined(__riscv)
#define WR_UFFD_WP_SINCE                                                      \
	"riscv64 kernels up to 6.12 lack it, and weir's kernel-support/ has " \
	"patches for 6.12"
#define WR_UFFD_CURE                                                       \
	"run Linux 6.12 with the patches of weir's kernel-support/, or a " \
	"kernel that selects HAVE_ARCH_USERFAULTFD_WP for riscv64"
#else
#define WR_UFFD_WP_SINCE "it came with Linux 5.7"
#define WR_UFFD_CURE "run Linux 6.7 or later"
#endif

/* Ways to a descriptor, each with its own permission. */
enum wr_uffd_way {
	WR_UFFD_SYSCALL,   /* userfaultfd(2), kernel-mode faults too */
	WR_UFFD_DEVICE,    /* /dev/userfaultfd, kernel-mode faults too */
	WR_UFFD_USER_ONLY, /* userfaultfd(2) with UFFD_USER_MODE_ONLY */
	WR_UFFD_WAYS
};

struct wr_uffd_range {
	uintptr_t start; /* first byte */
	uintptr_t end;   /* one past the last byte */
};

struct wr_uffd {
	int fd;               /* non-blocking, close-on-exec; -1: closed */
	enum wr_uffd_way way; /* how it was opened */
	uint64_t features;    /* asked for in the handshake */
	bool want_kernel;     /* open prefers a way with kernel faults */
	struct wr_uffd_range *ranges; /* registered, malloc'd, unordered */
	size_t count;                 /* entries in use */
	size_t capacity;              /* entries allocated */
};

/* Open a descriptor one way, without handshake.  A negative errno; no text. */
int wr_uffd_open_way(enum wr_uffd_way way);
const char *wr_uffd_way_name(enum wr_uffd_way way);
/* What a failure of wr_uffd_open_way() means and what cures it. */
void wr_uffd_explain(enum wr_uffd_way way, int err, const char **cause,
		     const char **cure);

/* Handshake on a new descriptor.  -EINVAL: the kernel lacks one of the bits.
 * *all, if not NULL, becomes every feature that the kernel has. */
int wr_uffd_handshake(int fd, uint64_t features, uint64_t *all);

/* The features that the kernel offers to whoever can open a descriptor; 0 if
 * none could be opened. */
uint64_t wr_uffd_offered(void);

/* Read every page of [start, end), which is read-write: where there was none
 * is the zero page then.  Returns the number of system calls, or a negative
 * errno: -EINVAL before Linux 5.14.  errno is left as it was. */
int wr_uffd_populate(uintptr_t start, uintptr_t end);

/* For tests: features that the kernel is taken not to have. */
extern uint64_t wr_uffd_hidden;

/* Can kernel-mode faults (read(2) into a protected page) be served? */
static inline bool wr_uffd_serves_kernel(const struct wr_uffd *u)
{
	return u->way != WR_UFFD_USER_ONLY;
}

/*
 * Open with `features`.  want_kernel: first the ways that serve kernel-mode
 * faults, then user-only; otherwise least privilege first.  -ENOTSUP with
 * error text when every way is barred or the kernel lacks a feature.
 */
int wr_uffd_open(struct wr_uffd *u, uint64_t features, bool want_kernel);
/* Closing unregisters every range and wakes all who wait. */
void wr_uffd_close(struct wr_uffd *u);

/* Register for write-protection.  -EBUSY, -EINVAL, -ENOMEM with text. */
int wr_uffd_add_range(struct wr_uffd *u, uintptr_t start, uintptr_t end);
/* Unregister: every bit in the range is cleared.  -ENOENT: not in the table. */
int wr_uffd_remove_range(struct wr_uffd *u, uintptr_t start, uintptr_t end);

/* In a child of fork(): close the parent's descriptor, open one of the same
 * kind, register the ranges of the table.  On failure *u is closed. */
int wr_uffd_reopen(struct wr_uffd *u);

/* Set or clear the protection of [start, end), waking the faults that wait
 * there.  Retries while the kernel says EAGAIN (a mapping is just changing).
 * Returns the number of system calls, or a negative errno.  Callable from a
 * signal handler; errno is left as it was. */
int wr_uffd_protect(int fd, uintptr_t start, uintptr_t end);
int wr_uffd_unprotect(int fd, uintptr_t start, uintptr_t end);
/* The same in one attempt, for the reader of the events: where the kernel says
 * EAGAIN because of an event that it has yet to read, -EAGAIN. */
int wr_uffd_try_unprotect(int fd, uintptr_t start, uintptr_t end);

#endif
