# SPDX-License-Identifier: GPL-2.0-only
# What concerns the kernel.  GPL-2.0-only, apart from the library: nothing here
# is linked with it.
EXTRA_DIST += kernel-support/LICENSE kernel-support/README.md \
	kernel-support/configs kernel-support/mutants kernel-support/patches

# Static, so that it runs as the first process of a guest that has nothing else.
# A sanitizer's library could not be linked statically.
if !WEIR_SANITIZED
noinst_PROGRAMS += kernel-support/check/weir-kernel-check
endif
kernel_support_check_weir_kernel_check_SOURCES = \
	kernel-support/check/checks.c \
	kernel-support/check/checks.h \
	kernel-support/check/checks_async.c \
	kernel-support/check/checks_fork.c \
	kernel-support/check/checks_keep.c \
	kernel-support/check/checks_pages.c \
	kernel-support/check/main.c \
	kernel-support/check/tap.h \
	kernel-support/check/uffd.c \
	kernel-support/check/uffd.h
kernel_support_check_weir_kernel_check_CPPFLAGS =
kernel_support_check_weir_kernel_check_LDADD =
kernel_support_check_weir_kernel_check_LDFLAGS = $(AM_LDFLAGS) -all-static
