/* SPDX-License-Identifier: MIT */
/* The process's mappings: see procmaps.h. */
#include "runtime/procmaps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int wr_procmaps_open(struct wr_procmaps *m)
{
	m->at = m->length = 0;
	m->fd = open(WR_PROCMAPS, O_RDONLY | O_CLOEXEC);
	return m->fd < 0 ? -errno : 0;
}

void wr_procmaps_close(struct wr_procmaps *m)
{
	close(m->fd);
}

/* The next character, -1 at the end. */
static int next_char(struct wr_procmaps *m)
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

/* A hexadecimal number and the character after it, which is returned. */
static int next_hex(struct wr_procmaps *m, uintptr_t *out)
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
	*out = v;
	return c;
}

/* Past the next blank, and those that follow; returns what is there. */
static int next_word(struct wr_procmaps *m)
{
	int c;

	do
		c = next_char(m);
	while (c >= 0 && c != ' ' && c != '\n');
	while (c == ' ')
		c = next_char(m);
	return c;
}

/* Whether the rest of the line, from the blank before the offset, names a
 * file. */
static bool names_file(struct wr_procmaps *m)
{
	static const char *const not [] = {"/dev/zero", "/anon_hugepage"};
	bool file = false, like[2] = {true, true};
	size_t at = 0;
	int c;

	next_word(m);               /* the offset */
	next_word(m);               /* the device */
	file = next_word(m) != '0'; /* the inode */
	for (c = next_word(m); c >= 0 && c != '\n'; c = next_char(m), at++)
		for (size_t i = 0; i < 2; i++)
			if (at < strlen(not [i]) && not [i][at] != c)
				like[i] = false;
	for (size_t i = 0; i < 2; i++)
		if (like[i] && at >= strlen(not [i]))
			file = false;
	return file;
}

bool wr_procmaps_next(struct wr_procmaps *m, struct wr_mapping *out)
{
	if (next_hex(m, &out->start) != '-' || next_hex(m, &out->end) != ' ')
		return false;
	out->readable = next_char(m) == 'r';
	out->writable = next_char(m) == 'w';
	next_char(m); /* x */
	out->shared = next_char(m) == 's';
	out->file = names_file(m);
	return true;
}
