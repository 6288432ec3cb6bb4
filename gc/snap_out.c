/* SPDX-License-Identifier: MIT */
/* JSON to a descriptor, through a buffer; snap_out.h says what holds. */
#define _GNU_SOURCE
#include "gc/snap_out.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define ROOM 512 /* more than a line of numbers, or a character */

/* 0 or an errno.  SIGPIPE is not raised: it is pending now, was not before, and
 * is this thread's. */
static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);

		if (done > 0) {
			p += done;
			n -= (size_t)done;
		} else if (done == 0) {
			return EIO;
		} else if (errno == EAGAIN) {
			struct pollfd wait = {.fd = fd, .events = POLLOUT};

			if (poll(&wait, 1, -1) < 0 && errno != EINTR)
				return errno;
		} else if (errno != EINTR) {
			return errno;
		}
	}
	return 0;
}

void wg_out_flush(struct wg_snap_out *o)
{
	static const struct timespec now;
	sigset_t ours, mask, waiting;

	if (o->err)
		return;
	sigemptyset(&ours);
	sigaddset(&ours, SIGPIPE);
	sigaddset(&ours, SIGXFSZ);
	sigpending(&waiting);
	pthread_sigmask(SIG_BLOCK, &ours, &mask);
	o->err = write_all(o->fd, o->buffer, o->used);
	o->used = 0;
	if (o->err == EPIPE || o->err == EFBIG) {
		for (int sig = 1; sig < NSIG; sig++)
			if (sigismember(&waiting, sig) > 0)
				sigdelset(&ours, sig);
		while (sigtimedwait(&ours, NULL, &now) < 0 && errno == EINTR)
			;
	}
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static void room(struct wg_snap_out *o)
{
	if (o->used > WG_OUT_BUFFER - ROOM)
		wg_out_flush(o);
	if (o->err)
		o->used = 0;
}

static void put_char(struct wg_snap_out *o, char c)
{
	o->buffer[o->used++] = c;
}

static void digits_of(struct wg_snap_out *o, uint64_t n)
{
	char digits[20];
	unsigned i = 0;

	do
		digits[i++] = (char)('0' + n % 10);
	while (n /= 10);
	while (i)
		put_char(o, digits[--i]);
}

void wg_out_text(struct wg_snap_out *o, const char *text)
{
	for (; *text; text++) {
		room(o);
		put_char(o, *text);
	}
}

/* A line of numbers of the array under way. */
void wg_out_line(struct wg_snap_out *o, const uint64_t *n, unsigned count)
{
	room(o);
	if (o->begun)
		put_char(o, ',');
	o->begun = true;
	for (unsigned i = 0; i < count; i++) {
		if (i)
			put_char(o, ',');
		digits_of(o, n[i]);
	}
	put_char(o, '\n');
}

/* Bytes of the character of UTF-8 at p, or 0. */
static unsigned utf8(const unsigned char *p)
{
	unsigned n = p[0] < 0x80                   ? 1
		     : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
		     : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
		     : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
						   : 0;

	for (unsigned i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong, surrogates, beyond the last. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

void wg_out_string(struct wg_snap_out *o, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char code[8];

	wg_out_text(o, o->begun ? ",\n\"" : "\"");
	o->begun = true;
	while (*p) {
		unsigned n = utf8(p);

		room(o);
		if (!n) {
			wg_out_text(o, "\xef\xbf\xbd");
			p++;
		} else if (*p < 0x20 || *p == 0x7f) {
			snprintf(code, sizeof(code), "\\u%04x", *p++);
			wg_out_text(o, code);
		} else {
			if (*p == '"' || *p == '\\')
				put_char(o, '\\');
			while (n--)
				put_char(o, (char)*p++);
		}
	}
	put_char(o, '"');
}

void wg_out_array(struct wg_snap_out *o, const char *key)
{
	wg_out_text(o, key);
	o->begun = false;
}

void wg_out_number(struct wg_snap_out *o, uint64_t n)
{
	room(o);
	digits_of(o, n);
}
