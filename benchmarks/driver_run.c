/* SPDX-License-Identifier: MIT */
/*
 * One run of one peer: a child process, its standard output
 * read through a pipe, its standard error passed on.  What other processes
 * take of the machine meanwhile is measured too, and what a hypervisor takes,
 * since both disturb figures.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "benchmarks/driver.h"

const char *run_directory = ".";
unsigned run_timeout_s = 900;

/* CPU time of all processors, in seconds: spent by processes and the system,
 * given to other machines by the hypervisor, and all there was. */
struct machine {
	double busy;
	double stolen;
	double all;
};

static void machine_read(struct machine *m)
{
	unsigned long long v[8] = {0};
	double tick = (double)sysconf(_SC_CLK_TCK);
	FILE *f = fopen("/proc/stat", "r");
	int i;

	m->busy = m->stolen = m->all = 0;
	if (!f)
		return;
	/* user nice system idle iowait irq softirq steal */
	if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0],
		   &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) == 8) {
		for (i = 0; i < 8; i++) {
			m->all += (double)v[i] / tick;
			if (i != 3 && i != 4 && i != 7)
				m->busy += (double)v[i] / tick;
		}
		m->stolen = (double)v[7] / tick;
	}
	fclose(f);
}

double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void failed(struct outcome *out, const struct peer *peer,
		   const char *what, const char *detail)
{
	out->kind = OUTCOME_FAILED;
	snprintf(out->why, sizeof(out->why), "%s: %s%s", peer->name, what,
		 detail);
}

/* In the child: become the peer. */
static void become(const struct peer *peer, const char *const *args, int output)
{
	const char *argv[64];
	char path[4096], *name;
	const char *eq;
	size_t n = 0, i, k;

	dup2(output, STDOUT_FILENO);
	for (i = 0; i < PEER_WORDS && peer->env[i]; i++) {
		eq = strchr(peer->env[i], '=');
		name = strndup(peer->env[i], (size_t)(eq - peer->env[i]));
		if (!name || setenv(name, eq + 1, 1))
			_exit(126);
	}
	snprintf(path, sizeof(path), "%s/%s", run_directory, peer->program);
	argv[n++] = path;
	for (i = 0; i < PEER_WORDS && peer->word[i]; i++)
		argv[n++] = peer->word[i];
	for (i = 0; args[i] && n < 63; i++)
		argv[n++] = args[i];
	for (k = 0; k < PEER_WORDS && peer->arg[k] && n < 63; k++)
		argv[n++] = peer->arg[k];
	argv[n] = NULL;
	if (n == 63) {
		fprintf(stderr, "weir-bench: too many parameters\n");
		_exit(126);
	}
	execv(path, (char *const *)argv);
	fprintf(stderr, "weir-bench: cannot run %s: %s\n", path,
		strerror(errno));
	_exit(127);
}

/* All that the child prints, NUL-terminated; NULL when it took too long. */
static char *read_all(int fd, double deadline)
{
	size_t size = 0, capacity = 1 << 16;
	char *text = malloc(capacity), *grown;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	double left;
	ssize_t n;

	for (;;) {
		if (!text)
			abort();
		left = deadline - seconds();
		if (left <= 0) {
			free(text);
			return NULL;
		}
		if (poll(&p, 1, (int)(left * 1000) + 1) <= 0)
			continue;
		n = read(fd, text + size, capacity - size - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		size += (size_t)n;
		if (size + 1 == capacity) {
			capacity *= 2;
			grown = realloc(text, capacity);
			if (!grown)
				free(text);
			text = grown;
		}
	}
	text[size] = '\0';
	return text;
}

static bool parse_all(char *text, struct outcome *out)
{
	struct record r, *grown;
	char *line, *rest = text;

	while ((line = strsep(&rest, "\n"))) {
		if (!*line)
			continue;
		if (!record_parse(line, &r))
			return false;
		grown = reallocarray(out->record, out->records + 1, sizeof(r));
		if (!grown)
			abort();
		out->record = grown;
		out->record[out->records++] = r;
	}
	return out->records > 0;
}

void run_peer(const struct peer *peer, const char *const *args,
	      struct outcome *out)
{
	struct machine before, after;
	struct rusage use;
	double own;
	char number[32], *text;
	int fd[2], status;
	pid_t pid;

	memset(out, 0, sizeof(*out));
	if (pipe(fd)) {
		failed(out, peer, "pipe: ", strerror(errno));
		return;
	}
	machine_read(&before);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(fd[0]);
		become(peer, args, fd[1]);
	}
	close(fd[1]);
	if (pid < 0) {
		close(fd[0]);
		failed(out, peer, "fork: ", strerror(errno));
		return;
	}
	text = read_all(fd[0], seconds() + run_timeout_s);
	close(fd[0]);
	if (!text)
		kill(pid, SIGKILL);
	while (wait4(pid, &status, 0, &use) < 0 && errno == EINTR)
		;
	machine_read(&after);
	own = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
	      (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
	if (after.all > before.all)
		out->foreign = (after.busy - before.busy - own) /
			       (after.all - before.all);
	if (out->foreign < 0)
		out->foreign = 0;
	out->stolen_ms = 1000 * (after.stolen - before.stolen);

	if (!text) {
		snprintf(number, sizeof(number), "%u s", run_timeout_s);
		failed(out, peer, "did not end within ", number);
	} else if (WIFSIGNALED(status) && peer->may_abort) {
		out->kind = OUTCOME_ABORTED;
		out->signal = WTERMSIG(status);
	} else if (WIFSIGNALED(status)) {
		failed(out, peer, "died: ", strsignal(WTERMSIG(status)));
	} else if (WEXITSTATUS(status)) {
		snprintf(number, sizeof(number), "%d", WEXITSTATUS(status));
		failed(out, peer, "could not be run: exit status ", number);
	} else if (!parse_all(text, out)) {
		failed(out, peer, "printed no result", "");
	}
	free(text);
}
