/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The first process of a guest: runs the programs of /plan one after the other
 * and powers off.
 *
 * A line of the plan is
 *
 *   SECONDS [@UID] [NAME=VALUE...] PROGRAM [ARGUMENT...]
 *
 * in words without blanks.  A program that takes longer than that is killed
 * with its process group.  Everything goes to the console in whole lines:
 *
 *   guest: run PROGRAM [ARGUMENT...]
 *   > a line of its standard output
 *   | a line of its standard error
 *   guest: exit STATUS MILLISECONDS PROGRAM [ARGUMENT...]
 *
 * STATUS is 128 plus the signal for one that was killed.  The last line is
 * "guest: end"; without it the guest broke down.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "setup.h"

#define WORDS 64

struct stream {
	char mark; /* before each line */
	size_t length;
	char line[4096];
};

struct job {
	long seconds;
	long uid;
	char *word[WORDS + 1]; /* of the program */
	char *environment[WORDS + 1];
};

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void show(struct stream *s)
{
	printf("%c %.*s\n", s->mark, (int)s->length, s->line);
	s->length = 0;
}

/* Take what there is.  False at the end of it. */
static bool take(struct stream *s, int fd)
{
	char text[4096];
	ssize_t n = read(fd, text, sizeof(text));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	for (ssize_t i = 0; i < n; i++) {
		if (text[i] == '\n')
			show(s);
		else
			s->line[s->length++] = text[i];
		if (s->length == sizeof(s->line))
			show(s);
	}
	if (!n && s->length)
		show(s);
	return n > 0;
}

/* What is there already, when its writer has ended. */
static void drain(struct stream *s, int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		struct pollfd p = {fd, POLLIN, 0};

		if (poll(&p, 1, 0) <= 0 || !take(s, fd))
			break;
	}
	if (s->length)
		show(s);
}

static void become(const struct job *j, const int out[2], const int err[2])
{
	setpgid(0, 0);
	dup2(out[1], 1);
	dup2(err[1], 2);
	if (j->uid && (setgroups(0, NULL) || setgid((gid_t)j->uid) ||
		       setuid((uid_t)j->uid)))
		perror("guest: user");
	else
		execve(j->word[0], j->word, j->environment);
	perror(j->word[0]);
	_exit(127);
}

/* Wait for it, showing what it says.  Returns its wait status. */
static int attend(pid_t pid, int out, int err, long long deadline)
{
	static struct stream stream[2];
	struct pollfd p[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
	int status;

	stream[0].mark = '>';
	stream[1].mark = '|';
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (now_ms() > deadline) {
			printf("guest: took too long\n");
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			break;
		}
		/* Also a look for the end now and then: a child that it left
		 * behind may hold the pipes open. */
		if (poll(p, 2, 20) <= 0)
			continue;
		for (int i = 0; i < 2; i++)
			if (p[i].revents && !take(&stream[i], p[i].fd))
				p[i].fd = -1;
	}
	drain(&stream[0], out);
	drain(&stream[1], err);
	kill(-pid, SIGKILL);
	/* Orphans are ours. */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return status;
}

static int run(const struct job *j)
{
	long long from = now_ms();
	int out[2], err[2], status;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) ||
	    (pid = fork()) < 0) {
		perror("guest");
		guest_end();
	}
	if (!pid)
		become(j, out, err);
	close(out[1]);
	close(err[1]);
	status = attend(pid, out[0], err[0], from + j->seconds * 1000);
	close(out[0]);
	close(err[0]);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status)
				   : WEXITSTATUS(status);
}

/* Split a line of the plan.  False if there is no program in it. */
static bool read_job(struct job *j, char *line)
{
	static char path[] = "PATH=/bin", tmp[] = "TMPDIR=/tmp";
	size_t words = 0, variables = 0;
	char *save = NULL;

	memset(j, 0, sizeof(*j));
	j->environment[variables++] = path;
	j->environment[variables++] = tmp;
	for (char *w = strtok_r(line, " \n", &save); w && words < WORDS;
	     w = strtok_r(NULL, " \n", &save)) {
		if (!j->seconds)
			j->seconds = atol(w);
		else if (!words && *w == '@')
			j->uid = atol(w + 1);
		else if (!words && strchr(w, '=') && variables < WORDS)
			j->environment[variables++] = w;
		else
			j->word[words++] = w;
	}
	return j->seconds > 0 && words;
}

int main(void)
{
	FILE *plan;
	char line[4096], words[4096];
	struct job j;

	if (getpid() != 1) {
		fprintf(stderr, "guest-init: this is for the first process of "
				"a guest\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* Firmware may have left its cursor within a line. */
	printf("\n");
	guest_begin();
	plan = fopen("/plan", "re");
	if (!plan)
		perror("/plan");
	while (plan && fgets(line, sizeof(line), plan)) {
		long long from = now_ms();
		int status;

		strcpy(words, strchr(line, ' ') ? strchr(line, ' ') + 1 : "\n");
		words[strcspn(words, "\n")] = 0;
		if (!read_job(&j, line))
			continue;
		printf("guest: run %s\n", words);
		status = run(&j);
		printf("guest: exit %d %lld %s\n", status, now_ms() - from,
		       words);
	}
	printf("guest: end\n");
	guest_end();
}
