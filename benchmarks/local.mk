# SPDX-License-Identifier: MIT
# Benchmarks: one program a peer, all of the same workloads, and weir-bench,
# which runs them.  Built by make check, run by make bench and make
# bench-targets: BENCH_ARGS="--pairs 3 --json" and the like are passed on.
WEIR_BENCH_TEXT = \
	benchmarks/bench.h \
	benchmarks/binary_trees.c \
	benchmarks/churn.c \
	benchmarks/gcbench.c \
	benchmarks/graph.c \
	benchmarks/graph.h \
	benchmarks/graph_latency.c \
	benchmarks/latency.c \
	benchmarks/latency.h \
	benchmarks/peer_main.c \
	benchmarks/shim.h \
	benchmarks/write_storm.c

WEIR_BENCHES = benchmarks/weir-bench benchmarks/bench-barrier \
	benchmarks/bench-malloc benchmarks/bench-snapshot benchmarks/bench-weir

benchmarks_bench_weir_SOURCES = $(WEIR_BENCH_TEXT) benchmarks/peer_weir.c
benchmarks_bench_weir_CPPFLAGS = $(AM_CPPFLAGS) -DBENCH_WEIR
benchmarks_bench_weir_LDADD = libweir.la

benchmarks_bench_malloc_SOURCES = $(WEIR_BENCH_TEXT) benchmarks/peer_malloc.c
benchmarks_bench_malloc_CPPFLAGS = $(AM_CPPFLAGS) -DBENCH_MALLOC
benchmarks_bench_malloc_LDADD =

# A peer that could not be built is missed by weir-bench, which says so.
if WEIR_LIBGC
WEIR_BENCHES += benchmarks/bench-gc
endif
benchmarks_bench_gc_SOURCES = $(WEIR_BENCH_TEXT) benchmarks/peer_gc.c
benchmarks_bench_gc_CPPFLAGS = $(AM_CPPFLAGS) $(LIBGC_CFLAGS) -DBENCH_GC
benchmarks_bench_gc_LDADD = $(LIBGC_LIBS)

if WEIR_JEMALLOC
WEIR_BENCHES += benchmarks/bench-jemalloc
endif
benchmarks_bench_jemalloc_SOURCES = $(WEIR_BENCH_TEXT) benchmarks/peer_malloc.c
benchmarks_bench_jemalloc_CPPFLAGS = $(AM_CPPFLAGS) $(JEMALLOC_CFLAGS) \
	-DBENCH_JEMALLOC
benchmarks_bench_jemalloc_LDADD = $(JEMALLOC_LIBS)

# Programs in Guile on weir's libgc.so.1 and on Debian's.  The demo runs it as
# well, so that it is built with everything else.
WEIR_BENCH_GUILE = benchmarks/bench-guile
noinst_SCRIPTS += $(WEIR_BENCH_GUILE)
benchmarks/bench-guile: $(srcdir)/benchmarks/bench_guile.py Makefile
	$(AM_V_GEN)$(MKDIR_P) benchmarks && \
	sed 's|@guiledir@|$(abs_top_srcdir)/benchmarks/guile|' \
		$(srcdir)/benchmarks/bench_guile.py >$@.part && \
	chmod +x $@.part && mv $@.part $@
EXTRA_DIST += benchmarks/bench_guile.py benchmarks/guile/latency.lua \
	benchmarks/guile/lists.scm benchmarks/guile/server.scm \
	benchmarks/guile/table.scm \
	benchmarks/guile/trees.scm
CLEANFILES += benchmarks/bench-guile benchmarks/guile-server.go \
	benchmarks/guile-lists.go benchmarks/guile-table.go \
	benchmarks/guile-trees.go

# redis-server with and without weir-redis: benchmarks/bench_redis.py.  The demo
# runs it as well, so that its client is built with everything else.
noinst_PROGRAMS += benchmarks/redis-load
benchmarks_redis_load_SOURCES = benchmarks/redis_load.c
benchmarks_redis_load_LDADD =
EXTRA_DIST += benchmarks/bench_redis.py

# The write barrier's own cost: reaches the library's internals.
benchmarks_bench_barrier_SOURCES = benchmarks/bare_barrier.c \
	benchmarks/bare_barrier.h benchmarks/bench_barrier.c
benchmarks_bench_barrier_LDADD = libweir-internal.la

# Snapshots against fork().
benchmarks_bench_snapshot_SOURCES = \
	benchmarks/bench.h \
	benchmarks/bench_snapshot.c \
	benchmarks/latency.c \
	benchmarks/latency.h \
	benchmarks/snapshot_bench.h \
	benchmarks/snapshot_memory.c \
	benchmarks/snapshot_methods.c \
	benchmarks/snapshot_sink.c \
	benchmarks/snapshot_stream.c \
	benchmarks/snapshot_writers.c
benchmarks_bench_snapshot_CPPFLAGS = $(AM_CPPFLAGS) -DBENCH_MALLOC
benchmarks_bench_snapshot_LDADD = libweir.la -lm

benchmarks_weir_bench_SOURCES = \
	benchmarks/driver.h \
	benchmarks/driver_barrier.c \
	benchmarks/driver_record.c \
	benchmarks/driver_run.c \
	benchmarks/driver_series.c \
	benchmarks/driver_snapshot.c \
	benchmarks/driver_table.c \
	benchmarks/driver_targets.c \
	benchmarks/weir_bench.c
benchmarks_weir_bench_LDADD = -lm

if WEIR_TESTS
check_PROGRAMS += $(WEIR_BENCHES)
endif

BENCH_ARGS =
BENCH_TARGETS =

.PHONY: bench bench-targets
bench: $(WEIR_BENCHES) $(WEIR_BENCH_GUILE)
	benchmarks/weir-bench $(BENCH_ARGS) all
bench-targets: $(WEIR_BENCHES) $(WEIR_BENCH_GUILE)
	benchmarks/weir-bench $(BENCH_ARGS) targets $(BENCH_TARGETS)
