/* SPDX-License-Identifier: GPL-2.0-only */
/* The checks, and what several of them need. */
#ifndef WEIR_KERNEL_CHECK_CHECKS_H
#define WEIR_KERNEL_CHECK_CHECKS_H

#include "tap.h"
#include "uffd.h"

#define WP UFFD_FEATURE_PAGEFAULT_FLAG_WP
#define PAGES 64

/* An area, its descriptor, and who reads the events. */
struct bench {
	struct area a;
	struct watcher w;
	int fd;
};

/* Memory and a descriptor; false: the check is over. */
bool begin(struct bench *b, enum backing backing, size_t pages,
	   uint64_t features);
/* Register the memory and read events; likewise. */
bool attach(struct bench *b);
/* Both, with PAGES small pages that hold what area_fill() writes. */
bool begin_filled(struct bench *b, uint64_t features);
void end(struct bench *b);

/* Protect pages [from, from + n), n may be 0; false: it failed. */
bool arm(struct bench *b, size_t from, size_t n);
/* Write to pages [from, to) and look at them. */
void write_pages(struct bench *b, size_t from, size_t to);
/* The events must be those of [from, to), one a page. */
void expect_events(struct bench *b, size_t from, size_t to);

/* A child that waits until it is told to go on, and whose exit status is what
 * fn returns. */
struct child {
	pid_t pid;
	int go; /* closing it lets the child go on */
};
bool start_child(struct child *c, int (*fn)(struct bench *), struct bench *b);
/* Let it go on; its exit status, 128 if a signal ended it. */
int end_child(struct child *c);
/* For a child: 1 if it does not see what area_fill() wrote. */
int sees_old_values(struct bench *b);

void small_pages(void);
void reads_do_not_report(void);
void zero_page(void);
void unpopulated_without(void);
void unpopulated_with(void);
void after_unregister(void);
void shmem_pages(void);
void hugetlb_pages(void);
void shmem_holes(void);
void hugetlb_holes(void);
void huge_page(void);
void huge_page_split(void);
void huge_page_whole(void);
void mprotect_read(void);
void mprotect_none(void);
void resolve_under_mprotect(void);
void swapped_out(void);
void migrated(void);
void migrated_huge(void);
void cow_order(void);
void cow_alone(void);
void cow_armed_later(void);
void cow_disarmed(void);
void fork_drops(void);
void fork_keeps(void);
void async_mode(void);
void async_cow(void);

#endif
