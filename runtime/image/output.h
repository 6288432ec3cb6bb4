/* SPDX-License-Identifier: MIT */
/*
 * Bytes to a descriptor of any kind: all of them, or an error with its cause.
 *
 * Short writes go on, so do EINTR and, after a wait, EAGAIN.  No signal gets
 * out: EPIPE and EFBIG are errors here, not SIGPIPE and SIGXFSZ.
 */
#ifndef WEIR_RUNTIME_IMAGE_OUTPUT_H
#define WEIR_RUNTIME_IMAGE_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* The system calls that put a file on the disk; tests replace them. */
struct wi_sys {
	ssize_t (*writev)(int fd, const struct iovec *iov, int count);
	int (*fsync)(int fd);
	int (*renameat)(int from_dir, const char *from, int to_dir,
			const char *to);
};
extern struct wi_sys wi_sys;

struct wi_output {
	int fd;           /* where to */
	bool file;        /* a file: have it written to the disk meanwhile */
	const char *name; /* of it, for messages */
	uint64_t written; /* bytes so far */
	uint64_t started; /* of them, told to the kernel to write to the disk */
};

/* A wi_output_fn; arg is a struct wi_output. */
int wi_output(void *arg, struct iovec *iov, int count);

/* "NAME: cannot DO: cause; cure" for `err`, which is returned as -err. */
int wi_output_failed(const char *name, const char *what, int err)
	__attribute__((cold));

#endif
