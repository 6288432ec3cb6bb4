# SPDX-License-Identifier: MIT
# Tools.  An installed one: bin_PROGRAMS += weir-x, with
# weir_x_SOURCES = tools/weir_x.c and weir_x_LDADD = libweir.la.
EXTRA_DIST += tools/check-fresh.sh

# It reads the library's internals: the probe table, the options.
bin_PROGRAMS += weir-info
noinst_LTLIBRARIES += libweir-tools.la
libweir_tools_la_SOURCES = $(WEIR_SOURCES)
weir_info_SOURCES = tools/weir-info.c tools/quote.h
weir_info_LDADD = libweir-tools.la

# It reads what snapshot files say of themselves, and writes files as the
# library does.
WEIR_SNAP_SOURCES = tools/snap_diff.c tools/snap_restore.c tools/weir-snap.c \
	tools/quote.h tools/weir-snap.h
if WEIR_IMAGE
bin_PROGRAMS += weir-snap
weir_snap_SOURCES = $(WEIR_SNAP_SOURCES)
weir_snap_LDADD = libweir-image-internal.la libweir-tools.la
else
EXTRA_DIST += $(WEIR_SNAP_SOURCES)
endif
