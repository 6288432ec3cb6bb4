/* SPDX-License-Identifier: MIT */
/*
 * Which pages of a range are read-write, from /proc/self/maps: for the back
 * ends that can protect no others, see wr_protector.learn.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runtime/barrier_map.h"
#include "runtime/check.h"

#define MAPS "/proc/self/maps"

/* /proc/self/maps through a buffer on the stack: no stdio, no malloc, for this
 * may run while threads are stopped that hold malloc's locks. */
struct reader {
	int fd;        /* of the file */
	size_t at;     /* next byte of text */
	size_t length; /* bytes in text */
	char text[4096];
};

static int next_char(struct reader *m)
{
	ssize_t n;

	if (m->at == m->length) {
		do
			n = read(m->fd, m->text, sizeof(m->text));
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return -1;
		m->at = 0;
		m->length = (size_t)n;
	}
	return (unsigned char)m->text[m->at++];
}

/* A hexadecimal number and the character after it. */
static uintptr_t next_hex(struct reader *m, int *after)
{
	uintptr_t v = 0;
	int c;

	for (;;) {
		c = next_char(m);
		if (c >= '0' && c <= '9')
			v = v << 4 | (uintptr_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uintptr_t)(c - 'a' + 10);
		else
			break;
	}
	*after = c;
	return v;
}

int wr_map_can_learn(const char *who)
{
	if (!access(MAPS, R_OK))
		return 0;
	return wr_error(ENOTSUP,
			"%s reads " MAPS
			", which is not there: %s; mount /proc",
			who, strerror(errno));
}

int wr_map_learn(struct wr_barrier *b, struct wr_range *r, uintptr_t start,
		 uintptr_t end)
{
	struct reader m = {.fd = open(MAPS, O_RDONLY | O_CLOEXEC)};
	uintptr_t from, to;
	int c, writable;

	if (m.fd < 0)
		return wr_error(errno,
				MAPS ": %s; mount /proc, or raise "
				     "RLIMIT_NOFILE",
				strerror(errno));
	for (;;) {
		from = next_hex(&m, &c);
		if (c != '-')
			break;
		to = next_hex(&m, &c);
		next_char(&m); /* 'r' */
		writable = next_char(&m) == 'w';
		if (from < start)
			from = start;
		if (to > end)
			to = end;
		if (writable && from < to)
			wr_map_set_usable(r->state, wr_map_index(b, r, from),
					  wr_map_index(b, r, to));
		if (from >= end)
			break;
		do
			c = next_char(&m);
		while (c >= 0 && c != '\n');
	}
	close(m.fd);
	return 0;
}
