# SPDX-License-Identifier: MIT
# libgc.so.1: weir with libgc's interface, whole in itself.  It is installed
# beside the system's, not in place of it: weir-libgc sets the path.
weirlibgcdir = $(pkglibdir)
weirlibgc_LTLIBRARIES = compat/libgc/libgc.la

compat_libgc_libgc_la_SOURCES = $(WEIR_SOURCES) \
	compat/libgc/alloc.c compat/libgc/control.c compat/libgc/debug.c \
	compat/libgc/events.c compat/libgc/finalize.c compat/libgc/init.c \
	compat/libgc/internal.h compat/libgc/kinds.c compat/libgc/leak.c \
	compat/libgc/reuse.c compat/libgc/roots.c compat/libgc/threads.c \
	compat/libgc/toggle.c compat/libgc/uncollectable.c \
	compat/libgc/unsupported.c compat/libgc/vars.c
compat_libgc_libgc_la_CPPFLAGS = $(AM_CPPFLAGS) \
	-I$(top_srcdir)/compat/libgc/include
compat_libgc_libgc_la_LDFLAGS = $(AM_LDFLAGS) $(WEIR_LIB_LDFLAGS) \
	-version-info 1:0:0 \
	-Wl,--version-script=$(top_srcdir)/compat/libgc/libgc.map
EXTRA_compat_libgc_libgc_la_DEPENDENCIES = compat/libgc/libgc.map
EXTRA_DIST += compat/libgc/libgc.map

include compat/jemalloc/local.mk

# The launcher.
bin_SCRIPTS = weir-libgc
weir-libgc: tools/weir-libgc.sh Makefile
	$(AM_V_GEN)sed 's|@pkglibdir[@]|$(pkglibdir)|' \
		'$(srcdir)/tools/weir-libgc.sh' >$@.new && \
	chmod +x $@.new && mv $@.new $@
CLEANFILES += weir-libgc
EXTRA_DIST += tools/weir-libgc.sh

weirlibgcincludedir = $(includedir)/weir/libgc
weirlibgcinclude_HEADERS = compat/libgc/include/gc.h
weirlibgcgcdir = $(weirlibgcincludedir)/gc
weirlibgcgc_HEADERS = compat/libgc/include/gc/gc.h \
	compat/libgc/include/gc/gc_disclaim.h \
	compat/libgc/include/gc/gc_gcj.h \
	compat/libgc/include/gc/gc_inline.h \
	compat/libgc/include/gc/gc_mark.h \
	compat/libgc/include/gc/gc_pthread_redirects.h \
	compat/libgc/include/gc/gc_tiny_fl.h \
	compat/libgc/include/gc/gc_typed.h \
	compat/libgc/include/gc/gc_version.h \
	compat/libgc/include/gc/javaxfc.h

# libweir-redis.so: preloaded into redis-server by weir-redis.
if WEIR_SHARED
weirredisdir = $(pkglibdir)
weirredis_LTLIBRARIES = compat/redis/libweir-redis.la
compat_redis_libweir_redis_la_SOURCES = \
	compat/redis/extent_hooks.h compat/redis/hooks.c \
	compat/redis/internal.h compat/redis/keeper.c \
	compat/redis/memory.c compat/redis/memory.h \
	compat/redis/memory_copy.h compat/redis/memory_life.c \
	compat/redis/start.c \
	runtime/check.h runtime/error.c runtime/futex_lock.h \
	runtime/kernel_abi.h runtime/uffd.c runtime/uffd.h
compat_redis_libweir_redis_la_CPPFLAGS = $(AM_CPPFLAGS)
compat_redis_libweir_redis_la_LDFLAGS = $(AM_LDFLAGS) $(WEIR_LIB_LDFLAGS) \
	-module -avoid-version -shared \
	-Wl,--version-script=$(top_srcdir)/compat/redis/redis.map
EXTRA_compat_redis_libweir_redis_la_DEPENDENCIES = compat/redis/redis.map
bin_SCRIPTS += weir-redis
endif
EXTRA_DIST += compat/redis/redis.map

weir-redis: tools/weir-redis.sh Makefile
	$(AM_V_GEN)sed 's|@pkglibdir[@]|$(pkglibdir)|' \
		'$(srcdir)/tools/weir-redis.sh' >$@.new && \
	chmod +x $@.new && mv $@.new $@
CLEANFILES += weir-redis
EXTRA_DIST += tools/weir-redis.sh
