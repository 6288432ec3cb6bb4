/* SPDX-License-Identifier: MIT */
/*
 * The watchdog: tells a hang from slowness, since every thread must make steps,
 * and says where all of them are.
 *
 * Nothing here waits for the program: no lock of it, nor of the C library's
 * fork(), is taken; whoever hangs may have them.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/torture/torture.h"

enum {
	HANG_SECONDS = 60,
	DEBUGGER_SECONDS = 60,
};

static void say_workers(const uint64_t *since, uint64_t now)
{
	for (unsigned i = 0; i < cfg.threads; i++)
		fprintf(stderr,
			"torture: thread %u: step %llu, %s, for %.1f s\n", i,
			(unsigned long long)workers[i].beat, workers[i].action,
			(double)(now - since[i]) / 1e9);
}

/* The first line of /proc/self/task/TASK/NAME, "?" if there is none. */
static void task_line(const char *task, const char *name, char *text,
		      size_t size)
{
	char path[128];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%s/%s", task, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, size - 1);
		close(fd);
	}
	if (n <= 0) {
		snprintf(text, size, "?");
		return;
	}
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

/* What the kernel says of each thread. */
static void say_tasks(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char comm[64], wchan[128], call[256];

		if (e->d_name[0] == '.')
			continue;
		task_line(e->d_name, "comm", comm, sizeof(comm));
		task_line(e->d_name, "wchan", wchan, sizeof(wchan));
		task_line(e->d_name, "syscall", call, sizeof(call));
		fprintf(stderr, "torture: task %s (%s) in %s, system call %s\n",
			e->d_name, comm, wchan, call);
	}
	if (d)
		closedir(d);
}

/* The stacks, where there is a debugger.  Not by fork(): its handlers wait for
 * what hangs. */
static void say_stacks(void)
{
	char self_pid[16], seconds[16];
	char *const argv[] = {
		"timeout", seconds,  "gdb",
		"-nx",     "-batch", "-p",
		self_pid,  "-ex",    "thread apply all backtrace 24",
		NULL};
	posix_spawn_file_actions_t to_stderr;
	pid_t pid;

	snprintf(self_pid, sizeof(self_pid), "%d", (int)getpid());
	snprintf(seconds, sizeof(seconds), "%d", DEBUGGER_SECONDS);
	if (posix_spawn_file_actions_init(&to_stderr))
		return;
	posix_spawn_file_actions_adddup2(&to_stderr, STDERR_FILENO,
					 STDOUT_FILENO);
	if (!posix_spawnp(&pid, "timeout", &to_stderr, NULL, argv, environ))
		waitpid(pid, NULL, 0);
	posix_spawn_file_actions_destroy(&to_stderr);
}

/* Time as far as it went by for the program: where the machine stood still, as
 * a virtual one may, it is a second and no more. */
static uint64_t time_run(uint64_t *last)
{
	uint64_t now = now_ns(), ns = now - *last;

	*last = now;
	return ns < 1000000000u ? ns : 1000000000u;
}

void *watchdog_main(void *arg)
{
	const bool *done = arg;
	uint64_t beat[MAX_WORKERS] = {0}, since[MAX_WORKERS] = {0};
	uint64_t now = 0, last = now_ns();
	const struct timespec t = {0, 250000000};

	while (!__atomic_load_n(done, __ATOMIC_RELAXED)) {
		nanosleep(&t, NULL);
		now += time_run(&last);
		for (unsigned i = 0; i < cfg.threads; i++) {
			if (beat[i] != workers[i].beat) {
				beat[i] = workers[i].beat;
				since[i] = now;
			}
			if (now - since[i] <= HANG_SECONDS * 1000000000ull ||
			    !strcmp(workers[i].action, "end"))
				continue;
			say_workers(since, now);
			say_tasks();
			say_stacks();
			fail(&workers[i], "no step in %d seconds",
			     HANG_SECONDS);
		}
	}
	return NULL;
}
