/* SPDX-License-Identifier: MIT */
/*
 * Protecting holes where the kernel lacks WP_UNPOPULATED (before Linux 6.4):
 * they are read first, so that the zero page is there to be protected.
 */
#ifndef WEIR_RUNTIME_BARRIER_POPULATE_H
#define WEIR_RUNTIME_BARRIER_POPULATE_H

#include <stdint.h>

/* Read every page of [start, end), which is read-write.  The number of system
 * calls made or a negative errno; no error text; errno is left as it was. */
int wr_populate(uintptr_t start, uintptr_t end);

/* Whether that works here, huge zero pages included.  0, or -ENOTSUP with
 * text. */
int wr_populate_try(void);

#endif
