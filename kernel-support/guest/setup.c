/* SPDX-License-Identifier: GPL-2.0-only */
/* See setup.h. */
#define _GNU_SOURCE
#include "setup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SWAP_DEVICE "/dev/ram0"
#define NR_HUGEPAGES "/proc/sys/vm/nr_hugepages"
#define HUGE_PAGES 8

static void complain(const char *what)
{
	printf("# %s: %s\n", what, strerror(errno));
}

/* A file that this kernel does not have is no error. */
static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		complain(path);
	close(fd);
}

static void mount_on(const char *kind, const char *where)
{
	mkdir(where, 0755);
	if (mount(kind, where, kind, 0, NULL) && errno != EBUSY)
		complain(where);
}

static void load_modules(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		char path[512];
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", names[i]->d_name);
		fd = names[i]->d_name[0] == '.'
			     ? -1
			     : open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0))
			complain(path);
		if (fd >= 0)
			close(fd);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
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
			complain("no swap on " SWAP_DEVICE);
	}
	if (fd >= 0)
		close(fd);
	free(header);
}

/* hugepages= of the kernel's command line may have more. */
static void set_huge_pages_aside(void)
{
	char text[32] = "";
	int fd = open(NR_HUGEPAGES, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) < 0)
		complain(NR_HUGEPAGES);
	close(fd);
	snprintf(text, sizeof(text), "%d",
		 atoi(text) > HUGE_PAGES ? atoi(text) : HUGE_PAGES);
	write_file(NR_HUGEPAGES, text);
}

void guest_begin(void)
{
	mount_on("proc", "/proc");
	mount_on("sysfs", "/sys");
	mount_on("devtmpfs", "/dev");
	mount_on("tmpfs", "/tmp");
	chmod("/tmp", 01777);
	/* Only what the kernel cannot do without is said between our lines. */
	write_file("/proc/sys/kernel/printk", "1");
	load_modules();
	set_huge_pages_aside();
	write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	make_swap(SWAP_DEVICE);
}

void guest_end(void)
{
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	/* Without means to power off: a restart, which QEMU turns into an end
	 * by -no-reboot. */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
