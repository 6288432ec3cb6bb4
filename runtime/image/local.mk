# SPDX-License-Identifier: MIT
# Snapshots in files: a library of its own, beside libweir, which it needs.
# One file a line, sorted, headers beside sources.
WEIR_IMAGE_SOURCES = \
	runtime/image/codec.c \
	runtime/image/codec.h \
	runtime/image/crc.h \
	runtime/image/file.c \
	runtime/image/file.h \
	runtime/image/format.c \
	runtime/image/format.h \
	runtime/image/image.h \
	runtime/image/index.c \
	runtime/image/index.h \
	runtime/image/map.c \
	runtime/image/open.c \
	runtime/image/origin.c \
	runtime/image/origin.h \
	runtime/image/output.c \
	runtime/image/output.h \
	runtime/image/read.c \
	runtime/image/scan.c \
	runtime/image/writer.c \
	runtime/image/writer.h

WEIR_IMAGE_CFLAGS = $(AM_CFLAGS) $(ISAL_CFLAGS) $(LZ4_CFLAGS) $(ZSTD_CFLAGS)
WEIR_IMAGE_LIBS = $(ISAL_LIBS) $(LZ4_LIBS) $(ZSTD_LIBS)

EXTRA_DIST += runtime/image/libweir-image.map

if WEIR_IMAGE
weirinclude_HEADERS += include/weir/image.h
pkgconfig_DATA += weir-image.pc

# heap_file.c and snapshot_file.c are what calls the engines; the rest is also in the tool and in
# the tests.
lib_LTLIBRARIES += libweir-image.la
libweir_image_la_SOURCES = $(WEIR_IMAGE_SOURCES) runtime/image/heap_file.c \
	runtime/image/snapshot_file.c
libweir_image_la_CFLAGS = $(WEIR_IMAGE_CFLAGS)
libweir_image_la_LDFLAGS = $(AM_LDFLAGS) $(WEIR_LIB_LDFLAGS) \
	-version-info 0:0:0 \
	-Wl,--version-script=$(top_srcdir)/runtime/image/libweir-image.map
libweir_image_la_LIBADD = libweir.la $(WEIR_IMAGE_LIBS)
EXTRA_libweir_image_la_DEPENDENCIES = runtime/image/libweir-image.map

noinst_LTLIBRARIES += libweir-image-internal.la
libweir_image_internal_la_SOURCES = $(WEIR_IMAGE_SOURCES)
libweir_image_internal_la_CFLAGS = $(WEIR_IMAGE_CFLAGS)
libweir_image_internal_la_LIBADD = $(WEIR_IMAGE_LIBS)
else
# In a release all the same.
EXTRA_DIST += $(WEIR_IMAGE_SOURCES) runtime/image/heap_file.c \
	runtime/image/snapshot_file.c include/weir/image.h
endif
