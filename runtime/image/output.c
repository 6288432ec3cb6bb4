/* SPDX-License-Identifier: MIT */
/* Bytes to a descriptor; see output.h. */
#define _GNU_SOURCE
#include "runtime/image/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <weir/embed.h>

/* Have the disk begin when so much is new, so that fsync() at the end does not
 * find it all. */
#define STARTED_STEP ((uint64_t)16 << 20)

struct wi_sys wi_sys = {
	.writev = writev,
	.fsync = fsync,
	.renameat = renameat,
};

static const char *cure(int err)
{
	switch (err) {
	case ENOSPC:
		return "make room on its file system";
	case EDQUOT:
		return "make room in the user's quota";
	case EFBIG:
		return "raise the limit of file sizes (ulimit -f), or take "
		       "another file system";
	case EIO:
		return "see the kernel's log for what the disk said";
	case EPIPE:
		return "whoever reads it has gone";
	case EROFS:
	case EACCES:
	case EPERM:
		return "take a directory that may be written to";
	case ENOENT:
	case ENOTDIR:
		return "make its directory first";
	case EMFILE:
	case ENFILE:
		return "raise the limit of open files (ulimit -n)";
	case ENAMETOOLONG:
		return "take a shorter name";
	default:
		return "nothing of it is to be used";
	}
}

int wi_output_failed(const char *name, const char *what, int err)
{
	char text[128];

	return weir_error_set(err, "%.200s: cannot %s: %s; %s", name, what,
			      strerror_r(err, text, sizeof text), cure(err));
}

/* ---- Signals ------------------------------------------------------------- */

/* What was blocked and what waited before. */
struct hush {
	sigset_t mask;    /* of the thread */
	sigset_t waiting; /* signals that were pending already */
};

static void hush_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGPIPE);
	sigaddset(set, SIGXFSZ);
}

static void hush_begin(struct hush *h)
{
	sigset_t ours;

	hush_signals(&ours);
	sigpending(&h->waiting);
	pthread_sigmask(SIG_BLOCK, &ours, &h->mask);
}

/* Both signals go to the thread that wrote: what is pending now and was not
 * before is taken away. */
static void hush_end(const struct hush *h, int err)
{
	static const struct timespec now;
	sigset_t ours;

	if (err == EPIPE || err == EFBIG) {
		hush_signals(&ours);
		if (sigismember(&h->waiting, SIGPIPE))
			sigdelset(&ours, SIGPIPE);
		if (sigismember(&h->waiting, SIGXFSZ))
			sigdelset(&ours, SIGXFSZ);
		while (sigtimedwait(&ours, NULL, &now) < 0 && errno == EINTR)
			;
	}
	pthread_sigmask(SIG_SETMASK, &h->mask, NULL);
}

/* ---- Writing ------------------------------------------------------------- */

/* Take `n` bytes off the front. */
static void advance(struct iovec **iov, int *count, size_t n)
{
	while (*count && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (n) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

/* 0 or an errno. */
static int write_all(struct wi_output *o, struct iovec *iov, int count)
{
	advance(&iov, &count, 0);
	while (count) {
		ssize_t n = wi_sys.writev(o->fd, iov, count);

		if (n > 0) {
			o->written += (uint64_t)n;
			advance(&iov, &count, (size_t)n);
		} else if (n == 0) {
			return EIO;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			struct pollfd p = {.fd = o->fd, .events = POLLOUT};

			if (poll(&p, 1, -1) < 0 && errno != EINTR)
				return errno;
		} else if (errno != EINTR) {
			return errno;
		}
	}
	return 0;
}

int wi_output(void *arg, struct iovec *iov, int count)
{
	struct wi_output *o = arg;
	struct hush hush;
	int err;

	hush_begin(&hush);
	err = write_all(o, iov, count);
	hush_end(&hush, err);
	if (err)
		return wi_output_failed(o->name, "write", err);
	if (o->file && o->written - o->started >= STARTED_STEP) {
		/* Only a hint: fsync() tells of errors. */
		sync_file_range(o->fd, (off_t)o->started,
				(off_t)(o->written - o->started),
				SYNC_FILE_RANGE_WRITE);
		o->started = o->written;
	}
	return 0;
}
