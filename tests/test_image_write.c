/* SPDX-License-Identifier: MIT */
/*
 * Snapshots to files and descriptors, from an engine that is a fake: the old
 * file or the new one whatever fails, also by SIGKILL; pipes.
 */
#define _GNU_SOURCE
#include "tests/fake_snapshot.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/image/codec.h"
#include "runtime/image/output.h"
#include "tests/image_make.h"
#include "tests/must.h"

static char directory[PATH_MAX], path[PATH_MAX + 8];
static struct model model;
static struct fake_snapshot fake;

static weir_snapshot *snapshot(void)
{
	fake.calls = 0;
	fake.aborted = false;
	return (weir_snapshot *)&fake;
}

static void begin(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(directory, sizeof directory, "%s/weir-image-XXXXXX",
		 tmp && strlen(tmp) < 1000 ? tmp : "/tmp");
	cr_assert(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/image", directory);
	model_make(&model, 1, (size_t[]){700, 30}, 2);
	fake = (struct fake_snapshot){.model = &model, .run = 100};
}

static void end(void)
{
	unlink(path);
	rmdir(directory);
	model_free(&model);
}

TestSuite(image_write, .init = begin, .fini = end);

/* What is in the directory, but for `path`. */
static size_t others(void)
{
	DIR *d = opendir(directory);
	struct dirent *e;
	size_t n = 0;

	cr_assert(d);
	while ((e = readdir(d)))
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..") &&
		     strcmp(e->d_name, "image");
	closedir(d);
	return n;
}

static void holds_model(const char *name)
{
	weir_image *image;
	const char *what;

	cr_assert_eq(weir_image_open(&name, 1, &image), 0, "%s",
		     weir_error_text());
	what = model_differs(&model, image);
	cr_assert_null(what, "%s", what);
	weir_image_close(image);
}

static void put_old(void)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	cr_assert_eq(write(fd, "old", 3), 3);
	close(fd);
}

static bool is_old(void)
{
	char text[8];
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, sizeof text);

	close(fd);
	return n == 3 && !memcmp(text, "old", 3);
}

/* Writing fails so, the old file stays, nothing is left beside it. */
static void fails(int err, const char *text)
{
	put_old();
	cr_expect_eq(weir_image_write_file(snapshot(), path, NULL), -err, "%s",
		     text);
	cr_expect(strstr(weir_error_text(), text), "\"%s\" is not in \"%s\"",
		  text, weir_error_text());
	cr_expect(strstr(weir_error_text(), directory) ||
		  strstr(weir_error_text(), "planted"));
	cr_expect(is_old());
	cr_expect_eq(others(), 0);
	cr_expect(fake.aborted);
}

/* ---- It works ------------------------------------------------------------ */

Test(image_write, every_codec)
{
	for (unsigned codec = 0; codec < 3; codec++) {
		struct weir_image_options o = {.size = sizeof o,
					       .codec = codec};

		if (!wi_codec_present(codec))
			continue;
		cr_assert_eq(weir_image_write_file(snapshot(), path, &o), 0,
			     "%s", weir_error_text());
		cr_assert(!fake.aborted);
		holds_model(path);
		cr_assert_eq(others(), 0);
	}
}

Test(image_write, mode)
{
	struct weir_image_options o = {.size = sizeof o, .mode = 0640};
	struct stat st;

	umask(022);
	cr_assert_eq(weir_image_write_file(snapshot(), path, NULL), 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
	cr_assert_eq(weir_image_write_file(snapshot(), path, &o), 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0640);
	o.mode = 04755;
	cr_assert_eq(weir_image_write_file(snapshot(), path, &o), -EINVAL);
	o.mode = 0;
	o.size = 2;
	cr_assert_eq(weir_image_write_file(snapshot(), path, &o), -EINVAL);
	o.size = sizeof o + 1;
	cr_assert_eq(weir_image_write_file(snapshot(), path, &o), -EINVAL);
	cr_assert(fake.aborted);
	/* A caller of an older version. */
	o.size = offsetof(struct weir_image_options, level);
	cr_assert_eq(weir_image_write_file(snapshot(), path, &o), 0);
}

Test(image_write, the_moment_of_end_is_at_the_end)
{
	struct weir_image_info info = {.size = sizeof info};
	const char *name = path;
	weir_image *image;

	model.identity.kind = WEIR_SNAPSHOT_END;
	cr_assert_eq(weir_image_write_file(snapshot(), path, NULL), 0);
	cr_assert_eq(weir_image_open(&name, 1, &image), 0);
	cr_assert_eq(weir_image_info(image, &info), 0);
	cr_assert_eq(info.time_ns, 1234567890);
	cr_assert_eq(info.kind, WEIR_SNAPSHOT_END);
	weir_image_close(image);
}

Test(image_write, through_a_link)
{
	char link[PATH_MAX + 16];
	struct stat st;

	snprintf(link, sizeof link, "%s/link", directory);
	put_old();
	cr_assert_eq(symlink("image", link), 0);
	cr_assert_eq(weir_image_write_file(snapshot(), link, NULL), 0);
	cr_assert_eq(lstat(link, &st), 0);
	cr_assert(S_ISLNK(st.st_mode));
	holds_model(path);
	unlink(path);
	cr_assert_eq(weir_image_write_file(snapshot(), link, NULL), -ENOENT);
	unlink(link);
}

Test(image_write, in_the_current_directory)
{
	cr_assert_eq(chdir(directory), 0);
	cr_assert_eq(weir_image_write_file(snapshot(), "image", NULL), 0, "%s",
		     weir_error_text());
	holds_model(path);
	cr_assert_eq(chdir("/"), 0);
}

Test(image_write, what_is_no_file)
{
	static const char *const bad[] = {"/dev/null", "/tmp", "/tmp/",
					  "/",         ".",    ""};
	char long_name[300];

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int err = weir_image_write_file(snapshot(), bad[i], NULL);

		cr_expect(err == -EINVAL || (!*bad[i] && err == -ENOENT),
			  "\"%s\": %d", bad[i], err);
		cr_expect(fake.aborted);
	}
	cr_expect_eq(weir_image_write_file(snapshot(), "/none/x", NULL),
		     -ENOENT);
	memset(long_name, 'x', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	cr_expect_eq(weir_image_write_file(snapshot(), long_name, NULL),
		     -ENAMETOOLONG);
}

/* ---- It fails ------------------------------------------------------------ */

Test(image_write, full_file_system)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", directory, "tmpfs", 0, "size=1m"))
		cr_skip("no file system can be mounted here");
	fails(ENOSPC, "make room on its file system");
	/* And goes once there is room. */
	cr_assert_eq(mount(NULL, directory, NULL, MS_REMOUNT, "size=16m"), 0);
	cr_assert_eq(weir_image_write_file(snapshot(), path, NULL), 0);
	holds_model(path);
	cr_assert_eq(umount(directory), 0);
}

Test(image_write, limit_of_file_sizes)
{
	struct rlimit limit = {1 << 20, RLIM_INFINITY};

	/* No SIGXFSZ, whose default ends the process. */
	signal(SIGXFSZ, SIG_DFL);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	fails(EFBIG, "ulimit -f");
}

static int countdown, planted;

static ssize_t failing_writev(int fd, const struct iovec *iov, int count)
{
	if (countdown-- <= 0) {
		errno = planted;
		return -1;
	}
	return writev(fd, iov, count);
}

Test(image_write, every_write_fails)
{
	int n;

	wi_sys.writev = failing_writev;
	for (n = 0;; n++) {
		planted = n % 2 ? EIO : EDQUOT;
		countdown = n;
		put_old();
		if (!weir_image_write_file(snapshot(), path, NULL))
			break;
		countdown = n;
		fails(planted, planted == EIO ? "kernel's log" : "quota");
	}
	cr_assert_gt(n, 4);
	holds_model(path);
}

static int failing_fsync(int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && S_ISDIR(st.st_mode) == (planted == ENOLINK)) {
		errno = planted;
		return -1;
	}
	return fsync(fd);
}

Test(image_write, syncs_fail)
{
	wi_sys.fsync = failing_fsync;
	planted = EIO;
	fails(EIO, "cannot write to the disk");
	/* The directory's: the new file is there, but who knows for how long.
	 */
	planted = ENOLINK;
	put_old();
	cr_assert_eq(weir_image_write_file(snapshot(), path, NULL), -ENOLINK);
	cr_assert(strstr(weir_error_text(), "was replaced"));
	cr_assert(fake.aborted);
	cr_assert_eq(others(), 0);
	holds_model(path);
}

static int failing_renameat(int from_dir, const char *from, int to_dir,
			    const char *to)
{
	(void)from_dir, (void)from, (void)to_dir, (void)to;
	errno = EACCES;
	return -1;
}

Test(image_write, rename_fails)
{
	wi_sys.renameat = failing_renameat;
	fails(EACCES, "cannot rename to it");
}

Test(image_write, the_engine_fails)
{
	for (size_t n = 1; n < 9; n++) {
		fake.failing = n;
		fake.err = n % 2 ? ENOBUFS : ECANCELED;
		fails(fake.err, "planted");
	}
}

/* ---- Killed -------------------------------------------------------------- */

static int told;

static void tell_and_wait(struct fake_snapshot *f)
{
	/* In the midst of it. */
	if (f->calls == 5) {
		if (write(told, "x", 1) == 1)
			while (1)
				pause();
		_exit(1);
	}
}

Test(image_write, killed_in_the_middle)
{
	int fds[2], status, probe;
	char c;
	pid_t pid;

	put_old();
	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		told = fds[1];
		fake.before = tell_and_wait;
		_exit(weir_image_write_file(snapshot(), path, NULL) ? 2 : 3);
	}
	close(fds[1]);
	cr_assert_eq(read(fds[0], &c, 1), 1);
	close(fds[0]);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status));
	cr_assert(is_old());
	probe = open(directory, O_TMPFILE | O_WRONLY, 0600);
	if (probe >= 0) {
		cr_assert_eq(others(), 0);
		close(probe);
	}
	cr_assert_eq(weir_image_write_file(snapshot(), path, NULL), 0);
	holds_model(path);
}

/* ---- Descriptors --------------------------------------------------------- */

struct copy {
	int from;  /* read end of a pipe */
	int to;    /* file */
	long rest; /* microseconds between reads */
};

static void *copy(void *arg)
{
	struct copy *c = arg;
	char buffer[10000];
	ssize_t n;

	while ((n = read(c->from, buffer, sizeof buffer)) > 0) {
		must(write(c->to, buffer, (size_t)n) == n);
		if (c->rest)
			usleep((unsigned)c->rest);
	}
	must(!n);
	return NULL;
}

static void through_pipe(int flags, long rest)
{
	struct copy c = {.rest = rest};
	pthread_t thread;
	int fds[2];

	c.to = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
	cr_assert_eq(pipe2(fds, 0), 0);
	c.from = fds[0];
	if (flags)
		cr_assert_eq(fcntl(fds[1], F_SETFL, flags), 0);
	cr_assert_eq(pthread_create(&thread, NULL, copy, &c), 0);
	cr_assert_eq(weir_image_write_fd(snapshot(), fds[1], NULL), 0, "%s",
		     weir_error_text());
	close(fds[1]);
	pthread_join(thread, NULL);
	close(fds[0]);
	close(c.to);
	holds_model(path);
}

Test(image_write, pipe)
{
	through_pipe(0, 0);
}

Test(image_write, pipe_that_does_not_block)
{
	through_pipe(O_NONBLOCK, 100);
}

Test(image_write, pipe_nobody_reads)
{
	sigset_t set;
	int fds[2];

	signal(SIGPIPE, SIG_DFL);
	cr_assert_eq(pipe(fds), 0);
	close(fds[0]);
	cr_assert_eq(weir_image_write_fd(snapshot(), fds[1], NULL), -EPIPE);
	cr_assert(strstr(weir_error_text(), "whoever reads it has gone"));
	cr_assert(fake.aborted);
	cr_assert_eq(sigpending(&set), 0);
	cr_assert(!sigismember(&set, SIGPIPE));
	cr_assert_eq(pthread_sigmask(SIG_BLOCK, NULL, &set), 0);
	cr_assert(!sigismember(&set, SIGPIPE));
	/* One that the program had pending stays. */
	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	cr_assert_eq(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	cr_assert_eq(pthread_kill(pthread_self(), SIGPIPE), 0);
	cr_assert_eq(weir_image_write_fd(snapshot(), fds[1], NULL), -EPIPE);
	cr_assert_eq(sigpending(&set), 0);
	cr_assert(sigismember(&set, SIGPIPE));
	signal(SIGPIPE, SIG_IGN);
	close(fds[1]);
}

Test(image_write, bad_descriptors)
{
	int full = open("/dev/full", O_WRONLY);

	cr_assert_eq(weir_image_write_fd(snapshot(), full, NULL), -ENOSPC);
	close(full);
	cr_assert_eq(weir_image_write_fd(snapshot(), -1, NULL), -EBADF);
	cr_assert(strstr(weir_error_text(), "descriptor -1"));
}

static uint64_t random_state = 5;

/* Takes a few bytes, is interrupted, would block. */
static ssize_t reluctant_writev(int fd, const struct iovec *iov, int count)
{
	uint64_t r = random_next(&random_state);
	size_t n = iov->iov_len;

	(void)count;
	if (r % 4 == 0) {
		errno = r & 16 ? EINTR : EAGAIN;
		return -1;
	}
	if (r % 4 == 1)
		return writev(fd, iov, count);
	if (n > 5000)
		n = 1 + (r >> 8) % 5000;
	return write(fd, iov->iov_base, n);
}

Test(image_write, short_writes)
{
	wi_sys.writev = reluctant_writev;
	cr_assert_eq(weir_image_write_file(snapshot(), path, NULL), 0, "%s",
		     weir_error_text());
	holds_model(path);
	fake.run = 1;
	cr_assert_eq(weir_image_write_file(snapshot(), path, NULL), 0, "%s",
		     weir_error_text());
	holds_model(path);
}
