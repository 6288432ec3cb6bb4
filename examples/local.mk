# SPDX-License-Identifier: MIT
# Examples: noinst_PROGRAMS += examples/x, with
# examples_x_LDADD = libweir.la.
noinst_PROGRAMS += examples/hello
examples_hello_SOURCES = examples/hello.c
examples_hello_LDADD = libweir.la

# One program text, two collectors: see examples/heap_shim.h.
WORD_INDEX_SOURCES = \
	examples/heap_shim.h \
	examples/wi_corpus.c \
	examples/wi_corpus.h \
	examples/wi_hdr.h \
	examples/wi_index.c \
	examples/wi_index.h \
	examples/wi_query.c \
	examples/wi_query.h \
	examples/wi_report.c \
	examples/wi_report.h \
	examples/wi_run.c \
	examples/wi_run.h \
	examples/wi_word.h \
	examples/word-index.c

if WEIR_ZLIB
noinst_PROGRAMS += examples/word-index-weir
examples_word_index_weir_SOURCES = $(WORD_INDEX_SOURCES) examples/heap_weir.c
examples_word_index_weir_CPPFLAGS = $(AM_CPPFLAGS) -DHEAP_WEIR
examples_word_index_weir_CFLAGS = $(AM_CFLAGS) $(ZLIB_CFLAGS)
examples_word_index_weir_LDADD = libweir.la $(ZLIB_LIBS)

if WEIR_LIBGC
noinst_PROGRAMS += examples/word-index-gc
examples_word_index_gc_SOURCES = $(WORD_INDEX_SOURCES) examples/heap_libgc.c
examples_word_index_gc_CPPFLAGS = $(AM_CPPFLAGS) -DHEAP_LIBGC
examples_word_index_gc_CFLAGS = $(AM_CFLAGS) $(ZLIB_CFLAGS) $(LIBGC_CFLAGS)
examples_word_index_gc_LDADD = $(LIBGC_LIBS) $(ZLIB_LIBS)
endif
endif

# An SQLite database in memory, saved while it is written to.
if WEIR_SQLITE
noinst_PROGRAMS += examples/sqlite-snapshot
examples_sqlite_snapshot_SOURCES = \
	examples/sqlite-snapshot.c \
	examples/sqlite_check.c \
	examples/sqlite_check.h \
	examples/sqlite_compare.c \
	examples/sqlite_memory.c \
	examples/sqlite_memory.h \
	examples/sqlite_report.c \
	examples/sqlite_report.h \
	examples/sqlite_run.c \
	examples/sqlite_run.h \
	examples/sqlite_save.c \
	examples/sqlite_save.h \
	examples/sqlite_store.c \
	examples/sqlite_store.h \
	examples/sqlite_weir.c \
	examples/wi_hdr.h
examples_sqlite_snapshot_CFLAGS = $(AM_CFLAGS) $(SQLITE_CFLAGS)
examples_sqlite_snapshot_LDADD = libweir.la $(SQLITE_LIBS)
endif

EXTRA_DIST += \
	examples/demo.sh \
	examples/demo_guile.js \
	examples/demo_guile.py \
	examples/demo_redis.py \
	examples/demo_saves.js \
	examples/demo_sqlite.py \
	examples/demo_page.html \
	examples/demo_page.js \
	examples/demo_report.py \
	examples/demo_table.py
