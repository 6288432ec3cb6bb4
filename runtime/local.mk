# SPDX-License-Identifier: MIT
# What touches the system.  One file a line, sorted, headers beside sources.
WEIR_SOURCES += \
	runtime/barrier.h \
	runtime/check.h \
	runtime/error.c \
	runtime/events.def \
	runtime/events.h \
	runtime/histogram.c \
	runtime/histogram.h \
	runtime/options.def \
	runtime/options.h \
	runtime/roots.h \
	runtime/sys.h \
	runtime/thread.h
