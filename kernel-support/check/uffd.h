/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the checks share: a userfaultfd with the features that are asked for, a
 * thread that reads its events, and areas of memory to try things on.
 */
#ifndef WEIR_KERNEL_CHECK_UFFD_H
#define WEIR_KERNEL_CHECK_UFFD_H

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Later than the headers of Debian 12. */
#define FEATURE_WP_HUGETLBFS_SHMEM (1ull << 12)
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_WP_ASYNC (1ull << 15)

/* PAGEMAP_SCAN, Linux 6.7. */
struct scan_region {
	uint64_t start, end, categories;
};
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask;
	uint64_t return_mask;
};
#define PAGEMAP_SCAN_IOCTL 0xc0606610u
#define SCAN_WP_MATCHING 1u
#define SCAN_CHECK_WPASYNC 2u
#define SCAN_WRITTEN 2u /* a category: written since it was protected */
_Static_assert(sizeof(struct scan_arg) == 96, "as the kernel has it");

/* What this kernel offers; 0: no userfaultfd.  *why: the reason. */
uint64_t uffd_features(const char **why);
/* A descriptor with these features, or -1; the check has been skipped then. */
int uffd_open(uint64_t features);

/* An area of `pages` pages of size `page`. */
struct area {
	char *mem;
	size_t page, pages;
};

enum backing { ANON, ANON_HUGE, SHMEM, HUGETLB };

/* Map an area, or skip the check and say why; memory is not touched. */
bool area_map(struct area *a, enum backing backing, size_t pages);
void area_unmap(struct area *a);
/* Write a value that tells the pages apart into each of [from, to). */
void area_fill(struct area *a, size_t from, size_t to);
volatile uint64_t *area_word(const struct area *a, size_t i);

/* Register the area with fd for write-protection; false: skipped. */
bool area_register(const struct area *a, int fd);
/* Protect, or not, pages [from, from + n); 0 or an errno. */
int area_protect(const struct area *a, int fd, size_t from, size_t n, bool on);

/* A thread that reads events and resolves write faults page by page. */
struct watcher {
	int fd;
	const struct area *area;
	pthread_t thread;
	int stop[2];        /* pipe: its end is the end */
	uint64_t events;    /* atomic: write-protect faults */
	uint64_t other;     /* atomic: any other events */
	uint8_t seen[4096]; /* by page: events */
	void (*on_fault)(struct watcher *w, size_t page); /* before resolving */
	uint64_t note[4];                                 /* on_fault's */
	int child_fd; /* atomic: of EVENT_FORK; -1: none came */
};

void watch(struct watcher *w, const struct area *a, int fd);
void watch_end(struct watcher *w);
/* The descriptor that EVENT_FORK brought, or -1: none within 5 seconds. */
int watch_child(struct watcher *w);

/* The frame of a page by /proc/self/pagemap; 0: not to be known. */
uint64_t frame_of(const void *p);
/* Its bits 62 (swapped) and 63 (present). */
uint64_t pagemap_of(const void *p);

#endif
