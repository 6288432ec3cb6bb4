/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * weir-kernel-check: is the bit there that marks a page-table entry as
 * write-protected by userfaultfd, and does it do what it must?
 *
 * Runs on any system, and as the first process of a guest: then it mounts what
 * it needs, makes swap space of /dev/ram0, and powers the machine off.  Every
 * check runs in a process of its own.  Exit status: 0 all passed or were
 * skipped, 1 some failed, 2 could not run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"
#include "uffd.h"

#define SECONDS 30 /* for a check */

/* ---- The check that runs here ----------------------------------------------
 */

static struct verdict {
	char kind; /* 0: nothing was said; 'f', 's' */
	char text[256];
} verdict;

static void say(char kind, const char *format, va_list args)
{
	/* A failure is stronger than a skip; else what was said first counts.
	 */
	if (verdict.kind && !(kind == 'f' && verdict.kind == 's'))
		return;
	verdict.kind = kind;
	vsnprintf(verdict.text, sizeof(verdict.text), format, args);
}

bool fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say('f', format, args);
	va_end(args);
	return false;
}

bool skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say('s', format, args);
	va_end(args);
	return false;
}

bool over(void)
{
	return verdict.kind;
}

/* ---- All of them
 * ------------------------------------------------------------- */

/* Run one in a process of its own. */
static struct verdict run(const struct check *c)
{
	struct verdict v = {0};
	int pipes[2], status;
	pid_t pid;

	if (pipe(pipes) || (fflush(stdout), pid = fork()) < 0) {
		perror("weir-kernel-check");
		exit(2);
	}
	if (!pid) {
		alarm(SECONDS);
		c->fn();
		if (write(pipes[1], &verdict, sizeof(verdict)) < 0)
			_exit(2);
		_exit(0);
	}
	close(pipes[1]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (read(pipes[0], &v, sizeof(v)) != sizeof(v)) {
		v.kind = 'f';
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
			snprintf(v.text, sizeof(v.text),
				 "hung for %d seconds: a writer was not woken, "
				 "or faults for ever",
				 SECONDS);
		else
			snprintf(v.text, sizeof(v.text), "died, status %#x",
				 (unsigned)status);
	}
	close(pipes[0]);
	return v;
}

static int run_all(const char *only)
{
	unsigned n = 0, failed = 0, skipped = 0, passed = 0;

	for (const struct check *c = checks; c->name; c++) {
		struct verdict v;

		if (only && !strstr(c->name, only))
			continue;
		v = run(c);
		n++;
		printf("%sok %u - %s", v.kind == 'f' ? "not " : "", n, c->name);
		if (v.kind == 's')
			printf(" # SKIP %s", v.text);
		printf("\n");
		if (v.kind == 'f')
			printf("# %s\n", v.text);
		failed += v.kind == 'f';
		skipped += v.kind == 's';
		passed += !v.kind;
	}
	printf("1..%u\n# %u passed, %u failed, %u skipped\n", n, passed, failed,
	       skipped);
	if (!n)
		fprintf(stderr,
			"weir-kernel-check: no check is named like "
			"\"%s\"\n",
			only);
	return !n ? 2 : failed != 0;
}

/* ---- Counting
 * ---------------------------------------------------------------- */

/* N pages of which M are protected; after a fork, so that all are shared copy
 * on write, all are written: how many events? */
static int count(size_t n, size_t m)
{
	struct watcher w = {0};
	struct timespec from, to;
	struct area a;
	int fd, pipes[2];
	char byte;
	pid_t pid;

	fd = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	if (fd < 0 || !area_map(&a, ANON, n) || pipe(pipes))
		goto cannot;
	area_fill(&a, 0, n);
	if (!area_register(&a, fd))
		goto cannot;
	watch(&w, &a, fd);
	if (m && area_protect(&a, fd, 0, m, true))
		goto cannot;
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		goto cannot;
	if (!pid) {
		close(pipes[1]);
		_exit(read(pipes[0], &byte, 1) != 0);
	}
	close(pipes[0]);
	clock_gettime(CLOCK_MONOTONIC, &from);
	area_fill(&a, 0, n);
	clock_gettime(CLOCK_MONOTONIC, &to);
	close(pipes[1]);
	waitpid(pid, NULL, 0);
	watch_end(&w);
	printf("pages %zu protected %zu events %llu spurious %lld time_us "
	       "%lld\n",
	       n, m, (unsigned long long)w.events,
	       (long long)w.events - (long long)m,
	       (long long)((to.tv_sec - from.tv_sec) * 1000000 +
			   (to.tv_nsec - from.tv_nsec) / 1000));
	return 0;
cannot:
	fprintf(stderr, "weir-kernel-check: cannot count: %s\n",
		verdict.kind ? verdict.text : strerror(errno));
	return 2;
}

/* ---- As the first process
 * ----------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (write(fd, text, strlen(text)) < 0)
			fprintf(stderr, "# %s: %s\n", path, strerror(errno));
		close(fd);
	}
}

/* The header that mkswap(8) writes: version 1, last page, signature. */
static void make_swap(const char *device)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *header = calloc(1, page);
	int fd = open(device, O_RDWR | O_CLOEXEC);
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	uint32_t info[2] = {1, 0};

	if (header && size > (off_t)(16 * page)) {
		info[1] = (uint32_t)((size_t)size / page - 1);
		memcpy(header + 1024, info, sizeof(info));
		memcpy(header + page - 10, "SWAPSPACE2", 10);
		if (pwrite(fd, header, page, 0) != (ssize_t)page || fsync(fd) ||
		    swapon(device, 0))
			printf("# no swap on %s: %s\n", device,
			       strerror(errno));
	}
	if (fd >= 0)
		close(fd);
	free(header);
}

static void mount_at(const char *type, const char *where)
{
	if ((mkdir(where, 0755) && errno != EEXIST) ||
	    mount(type, where, type, 0, NULL))
		printf("# no %s on %s: %s\n", type, where, strerror(errno));
}

static void be_init(void)
{
	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
	mount_at("devtmpfs", "/dev");
	write_file("/proc/sys/vm/nr_hugepages", "8");
	write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	make_swap("/dev/ram0");
}

static size_t number(const char *text)
{
	char *rest;
	unsigned long n = text ? strtoul(text, &rest, 10) : 0;

	if (!text || !*text || *rest || n > 1000000) {
		fprintf(stderr, "weir-kernel-check: --count takes two numbers "
				"up to 1000000: pages, protected pages\n");
		exit(2);
	}
	return n;
}

static int usage(FILE *f, int status)
{
	fputs("usage: weir-kernel-check [--only TEXT] | --count PAGES "
	      "PROTECTED | --list\n\n"
	      "Checks what this kernel makes of write-protection by "
	      "userfaultfd.\n\n"
	      "  --only TEXT   the checks whose names contain TEXT\n"
	      "  --count N M   N pages of which M are protected, shared with a "
	      "child, all\n"
	      "                written: how many events come\n"
	      "  --list        the checks' names\n",
	      f);
	return status;
}

static int main_of(int argc, char **argv)
{
	struct utsname u;

	if (argc > 1 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (const struct check *c = checks; c->name; c++)
			puts(c->name);
		return 0;
	}
	if (argc == 4 && !strcmp(argv[1], "--count")) {
		size_t n = number(argv[2]), m = number(argv[3]);

		if (!n || m > n)
			return usage(stderr, 2);
		return count(n, m);
	}
	if (argc != 1 && !(argc == 3 && !strcmp(argv[1], "--only")))
		return usage(stderr, 2);
	if (!uname(&u))
		printf("# %s %s %s, pages of %ld bytes\n", u.sysname, u.release,
		       u.machine, sysconf(_SC_PAGESIZE));
	return run_all(argc == 3 ? argv[2] : NULL);
}

int main(int argc, char **argv)
{
	bool init = getpid() == 1;
	int status;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (init)
		be_init();
	status = main_of(argc, argv);
	if (init) {
		printf("weir-kernel-check: exit status %d\n", status);
		sync();
		reboot(RB_POWER_OFF);
	}
	return status;
}
