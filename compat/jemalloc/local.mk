# SPDX-License-Identifier: MIT
# libweir-jemalloc: malloc() in a region, by an arena of the system's jemalloc.
EXTRA_DIST += compat/jemalloc/libweir-jemalloc.map
if WEIR_JEMALLOC
lib_LTLIBRARIES += libweir-jemalloc.la
weirinclude_HEADERS += include/weir/jemalloc.h
pkgconfig_DATA += weir-jemalloc.pc

libweir_jemalloc_la_SOURCES = compat/jemalloc/arena.c
libweir_jemalloc_la_CPPFLAGS = $(AM_CPPFLAGS) $(JEMALLOC_CFLAGS)
libweir_jemalloc_la_LIBADD = libweir.la $(JEMALLOC_LIBS)
libweir_jemalloc_la_LDFLAGS = $(AM_LDFLAGS) $(WEIR_LIB_LDFLAGS) \
	-version-info 0:0:0 \
	-Wl,--version-script=$(top_srcdir)/compat/jemalloc/libweir-jemalloc.map
EXTRA_libweir_jemalloc_la_DEPENDENCIES = compat/jemalloc/libweir-jemalloc.map
else
EXTRA_DIST += compat/jemalloc/arena.c include/weir/jemalloc.h
endif
