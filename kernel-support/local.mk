# SPDX-License-Identifier: GPL-2.0-only
# What concerns the kernel.  GPL-2.0-only, apart from the library: but for
# fork-load, which measures it, nothing here is linked with it.
EXTRA_DIST += kernel-support/LICENSE kernel-support/README.md \
	kernel-support/check-all.sh kernel-support/configs \
	kernel-support/kernels kernel-support/measure/README.md \
	kernel-support/measure/x86-6.12 kernel-support/mutants \
	kernel-support/patches kernel-support/trials.sh

# Static, so that it runs as the first process of a guest that has nothing else.
# A sanitizer's library could not be linked statically.
if !WEIR_SANITIZED
bin_PROGRAMS += kernel-support/check/weir-kernel-check
noinst_PROGRAMS += kernel-support/guest/guest-init \
	kernel-support/measure/fork-load
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
	kernel-support/check/uffd.h \
	kernel-support/guest/setup.c \
	kernel-support/guest/setup.h
kernel_support_check_weir_kernel_check_CPPFLAGS =
kernel_support_check_weir_kernel_check_LDADD =
kernel_support_check_weir_kernel_check_LDFLAGS = $(AM_LDFLAGS) -all-static

kernel_support_guest_guest_init_SOURCES = \
	kernel-support/guest/init.c \
	kernel-support/guest/setup.c \
	kernel-support/guest/setup.h
kernel_support_guest_guest_init_CPPFLAGS =
kernel_support_guest_guest_init_LDADD =
kernel_support_guest_guest_init_LDFLAGS = $(AM_LDFLAGS) -all-static

# It counts the events where the library reads them.
kernel_support_measure_fork_load_SOURCES = kernel-support/measure/fork_load.c
kernel_support_measure_fork_load_LDADD = libweir.la
kernel_support_measure_fork_load_LDFLAGS = $(AM_LDFLAGS) -all-static \
	-Wl,--wrap=read
EXTRA_kernel_support_measure_fork_load_DEPENDENCIES = libweir.la

# All that `make check` leaves out, an hour or two of it: kernels are built and
# booted.  What they printed is in guest/logs.
.PHONY: kernel-check
kernel-check:
	WEIR_BUILDDIR='$(abs_top_builddir)' \
		$(SHELL) $(top_srcdir)/kernel-support/check-all.sh
