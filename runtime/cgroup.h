/* SPDX-License-Identifier: MIT */
/* The memory limit that control groups put on this process. */
#ifndef WEIR_RUNTIME_CGROUP_H
#define WEIR_RUNTIME_CGROUP_H

#include <stddef.h>

/*
 * The lowest limit of the process's group and those above it, versions 1 and
 * 2, in bytes; SIZE_MAX if there is none or it cannot be read.  `root` is put
 * before every path that is read: "" for the system, another directory in
 * tests.  Callable from any thread.
 */
size_t wr_cgroup_memory_limit(const char *root);

#endif
