/* SPDX-License-Identifier: MIT */
/*
 * usage: deny EPERM|ENOSYS COMMAND [ARGUMENT...]
 *
 * Run a command in which userfaultfd(2) fails so, as under a container's
 * seccomp profile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/seccomp.h"

int main(int argc, char **argv)
{
	bool hide = argc > 2 && !strcmp(argv[1], "ENOSYS");

	if (argc < 3 || (!hide && strcmp(argv[1], "EPERM"))) {
		fputs("usage: deny EPERM|ENOSYS COMMAND [ARGUMENT...]\n",
		      stderr);
		return 125;
	}
	if (seccomp_deny(SYS_userfaultfd, hide ? ENOSYS : EPERM)) {
		fprintf(stderr, "deny: no seccomp filter can be set: %s\n",
			strerror(errno));
		return 125;
	}
	execvp(argv[2], argv + 2);
	fprintf(stderr, "deny: %s: %s\n", argv[2], strerror(errno));
	return 126;
}
