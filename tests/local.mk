# SPDX-License-Identifier: MIT
# Tests.  To add
#
#   a unit test   tests/test_x.c:  one line in WEIR_UNIT_TESTS (if it has one
#                 thread, WEIR_SEQUENTIAL_TESTS).  It is compiled
#                 from tests/test_x.c and linked with libweir-internal and
#                 Criterion.  Only if it has more sources than that:
#                 tests_test_x_SOURCES = tests/test_x.c tests/fake.c
#   a script      tests/x.sh:  one line in WEIR_SCRIPT_TESTS.  It prints TAP
#                 ("ok 1 - what", "not ok 2 - what", "ok 3 - what # SKIP why",
#                 "1..3"), which is what is counted; see tests/tap.sh.
#
# Every test of a Criterion binary counts as one.  A binary or script that
# crashes, hangs or exits unhappily without naming a failed test counts as a
# failure of its own.
WEIR_UNIT_TESTS += \
	tests/test_alloc \
	tests/test_ahead \
	tests/test_always \
	tests/test_barrier \
	tests/test_barrier_signal \
	tests/test_big \
	tests/test_block \
	tests/test_cycle \
	tests/test_deque \
	tests/test_dirty \
	tests/test_disable \
	tests/test_disable_limit \
	tests/test_disclaim \
	tests/test_ephemeron \
	tests/test_ephemeron_chain \
	tests/test_error \
	tests/test_event \
	tests/test_events \
	tests/test_events_heap \
	tests/test_fiber \
	tests/test_fiber_watch \
	tests/test_finalize \
	tests/test_finalize_run \
	tests/test_fork \
	tests/test_heap \
	tests/test_heap_dump \
	tests/test_heap_moment \
	tests/test_heap_snapshot \
	tests/test_heap_system \
	tests/test_histogram \
	tests/test_hold \
	tests/test_invariants \
	tests/test_kind \
	tests/test_limits \
	tests/test_link \
	tests/test_link_race \
	tests/test_lock \
	tests/test_locked \
	tests/test_lost \
	tests/test_mark \
	tests/test_mutator \
	tests/test_object_kind \
	tests/test_poison \
	tests/test_preclean \
	tests/test_read \
	tests/test_redis_hooks \
	tests/test_redis_memory \
	tests/test_roots \
	tests/test_rootscan \
	tests/test_scan \
	tests/test_segments \
	tests/test_snapshot \
	tests/test_snapshot_delta \
	tests/test_snapshot_end \
	tests/test_snapshot_life \
	tests/test_snapshot_memory \
	tests/test_snapshot_threads \
	tests/test_snapshot_wait \
	tests/test_stats \
	tests/test_suspend \
	tests/test_sweep \
	tests/test_sys \
	tests/test_team \
	tests/test_thread \
	tests/test_trace \
	tests/test_trim \
	tests/test_verify \
	tests/test_walk \
	tests/test_weak

# In these one thread does everything: there is nothing in them for the thread
# sanitizer, which takes long.
WEIR_SEQUENTIAL_TESTS = \
	tests/test_cgroup \
	tests/test_input \
	tests/test_json \
	tests/test_latency \
	tests/test_meta \
	tests/test_options \
	tests/test_pace \
	tests/test_probe \
	tests/test_redis_refused
if !WEIR_THREAD_SANITIZED
WEIR_UNIT_TESTS += $(WEIR_SEQUENTIAL_TESTS)
endif

tests_test_barrier_SOURCES = \
	tests/test_barrier.c tests/test_barrier.h tests/memory.h \
	tests/test_barrier_kinds.c tests/test_barrier_race.c
tests_test_events_SOURCES = tests/test_events.c tests/json.c tests/json.h
tests_test_events_heap_SOURCES = \
	tests/test_events_heap.c tests/json.c tests/json.h
tests_test_ephemeron_SOURCES = \
	tests/test_ephemeron.c tests/ephemeron.h tests/hidden.h
tests_test_ephemeron_chain_SOURCES = \
	tests/test_ephemeron_chain.c tests/ephemeron.h tests/hidden.h
tests_test_finalize_SOURCES = \
	tests/test_finalize.c tests/finalize.h tests/hidden.h
tests_test_finalize_run_SOURCES = \
	tests/test_finalize_run.c tests/finalize.h tests/hidden.h
tests_test_input_SOURCES = \
	tests/test_input.c tests/input_acts.h tests/input_cases.def
tests_test_input_CPPFLAGS = $(AM_CPPFLAGS) \
	-DWEIR_HEADERS='"$(abs_top_srcdir)/include/weir"'
tests_test_heap_dump_SOURCES = \
	tests/test_heap_dump.c tests/heap_snapshot.h
tests_test_heap_moment_SOURCES = \
	tests/test_heap_moment.c tests/heap_snapshot.h
tests_test_heap_snapshot_SOURCES = \
	tests/test_heap_snapshot.c tests/heap_snapshot.h
tests_test_json_SOURCES = tests/test_json.c tests/json.c tests/json.h

tests_test_latency_SOURCES = tests/test_latency.c benchmarks/latency.c
tests_test_latency_CPPFLAGS = $(AM_CPPFLAGS) -DBENCH_MALLOC
tests_test_dirty_SOURCES = tests/test_dirty.c tests/marked.h
tests_test_mark_SOURCES = tests/test_mark.c tests/marked.h
tests_test_scan_SOURCES = tests/test_scan.c tests/marked.h
tests_test_team_SOURCES = tests/test_team.c tests/marked.h
tests_test_cgroup_SOURCES = tests/test_cgroup.c tests/remove_tree.h
tests_test_probe_SOURCES = tests/test_probe.c tests/memory.h tests/remove_tree.h
tests_test_limits_SOURCES = tests/test_limits.c tests/memory.h

tests_test_thread_SOURCES = tests/test_thread.c tests/test_thread.h \
	tests/test_thread_churn.c tests/test_thread_found.c tests/markers.h

REDIS_MEMORY = compat/redis/memory.c compat/redis/memory.h \
	compat/redis/memory_life.c compat/redis/memory_copy.h
tests_test_redis_memory_SOURCES = tests/test_redis_memory.c $(REDIS_MEMORY)
tests_test_redis_refused_SOURCES = tests/test_redis_refused.c $(REDIS_MEMORY)
tests_test_redis_hooks_SOURCES = tests/test_redis_hooks.c $(REDIS_MEMORY) \
	compat/redis/extent_hooks.h compat/redis/hooks.c \
	compat/redis/internal.h compat/redis/keeper.c

tests_test_trim_SOURCES = tests/test_trim.c tests/memory.h

tests_test_disclaim_SOURCES = \
	tests/test_disclaim.c tests/finalize.h tests/hidden.h
tests_test_disable_SOURCES = tests/test_disable.c tests/disable.h
tests_test_disable_limit_SOURCES = tests/test_disable_limit.c tests/disable.h
tests_test_link_SOURCES = \
	tests/test_link.c tests/link.h tests/finalize.h tests/hidden.h
tests_test_link_race_SOURCES = \
	tests/test_link_race.c tests/link.h tests/finalize.h tests/hidden.h
tests_test_segments_SOURCES = tests/test_segments.c tests/hidden.h

tests_test_fiber_SOURCES = \
	tests/test_fiber.c tests/fiber.h tests/hidden.h

tests_test_fiber_watch_SOURCES = \
	tests/test_fiber_watch.c tests/fiber.h tests/hidden.h

tests_test_walk_SOURCES = tests/test_walk.c tests/hidden.h
tests_test_weak_SOURCES = tests/test_weak.c tests/hidden.h

# Snapshot files.  They link the library's objects, internals reachable; the
# engine that fills them is a fake.
WEIR_IMAGE_TESTS = \
	tests/test_image_heap \
	tests/test_image_live
WEIR_SEQUENTIAL_IMAGE_TESTS = \
	tests/test_image \
	tests/test_image_fuzz \
	tests/test_image_hostile \
	tests/test_image_index \
	tests/test_image_map \
	tests/test_image_write
WEIR_IMAGE_TEST_LDADD = libweir-image-internal.la $(LDADD)

tests_test_image_SOURCES = tests/test_image.c \
	tests/image_make.c tests/image_make.h tests/image_patch.h tests/must.h
tests_test_image_LDADD = $(WEIR_IMAGE_TEST_LDADD)
tests_test_image_fuzz_SOURCES = tests/test_image_fuzz.c \
	tests/image_fuzz.c tests/image_fuzz.h \
	tests/image_make.c tests/image_make.h tests/image_patch.h tests/must.h
tests_test_image_fuzz_LDADD = $(WEIR_IMAGE_TEST_LDADD)
tests_test_image_heap_SOURCES = tests/test_image_heap.c \
	runtime/image/heap_file.c
tests_test_image_heap_LDADD = $(WEIR_IMAGE_TEST_LDADD)
tests_test_image_hostile_SOURCES = tests/test_image_hostile.c \
	tests/image_make.c tests/image_make.h tests/image_patch.h tests/must.h
tests_test_image_hostile_LDADD = $(WEIR_IMAGE_TEST_LDADD)
tests_test_image_index_LDADD = $(WEIR_IMAGE_TEST_LDADD)
tests_test_image_live_SOURCES = tests/test_image_live.c \
	tests/remove_tree.h tests/snapshot_util.h tests/test_snapshot.h \
	runtime/image/snapshot_file.c
tests_test_image_live_LDADD = $(WEIR_IMAGE_TEST_LDADD)
tests_test_image_map_SOURCES = tests/test_image_map.c \
	tests/image_make.c tests/image_make.h tests/image_patch.h tests/must.h
tests_test_image_map_LDADD = $(WEIR_IMAGE_TEST_LDADD)
# The engine's functions have other names there: those of the fake.
tests_test_image_write_SOURCES = tests/test_image_write.c \
	runtime/image/snapshot_file.c \
	tests/fake_snapshot.c tests/fake_snapshot.h \
	tests/image_make.c tests/image_make.h tests/image_patch.h tests/must.h
tests_test_image_write_CPPFLAGS = $(AM_CPPFLAGS) \
	-Dweir_snapshot_identity=fake_snapshot_identity \
	-Dweir_snapshot_region=fake_snapshot_region \
	-Dweir_snapshot_read=fake_snapshot_read \
	-Dweir_snapshot_abort=fake_snapshot_abort
tests_test_image_write_LDADD = $(WEIR_IMAGE_TEST_LDADD)

if WEIR_IMAGE
WEIR_UNIT_TESTS += $(WEIR_IMAGE_TESTS)
if !WEIR_THREAD_SANITIZED
WEIR_UNIT_TESTS += $(WEIR_SEQUENTIAL_IMAGE_TESTS)
endif
WEIR_SCRIPT_TESTS += tests/weir_snap.sh

# The fuzzer without an end; docs/SNAPSHOT-FORMAT.md.
check_PROGRAMS += tests/fuzz_image
tests_fuzz_image_SOURCES = tests/fuzz_image.c \
	tests/image_fuzz.c tests/image_fuzz.h \
	tests/image_make.c tests/image_make.h tests/image_patch.h tests/must.h
tests_fuzz_image_LDADD = libweir-image-internal.la libweir-tools.la

FUZZ_SECONDS = 600
fuzz-image: tests/fuzz_image
	@$(AM_TESTS_ENVIRONMENT) FUZZ_SECONDS='$(FUZZ_SECONDS)' \
		$(SHELL) $(top_srcdir)/tests/fuzz_image.sh
else
EXTRA_DIST += tests/fake_snapshot.c tests/fake_snapshot.h \
	tests/fuzz_image.c tests/image_fuzz.c tests/image_fuzz.h \
	tests/image_make.c tests/image_make.h tests/test_image.c \
	tests/test_image_fuzz.c tests/test_image_heap.c \
	tests/test_image_hostile.c \
	tests/test_image_index.c tests/test_image_live.c \
	tests/test_image_map.c \
	tests/test_image_write.c tests/weir_snap.sh
endif
.PHONY: fuzz-image
EXTRA_DIST += tests/fuzz_image.sh

# What test_roots and test_heap_system load and unload.
EXTRA_DIST += tests/rootmodule.c
CLEANFILES += tests/rootmodule.so
tests/rootmodule.so: $(srcdir)/tests/rootmodule.c
	$(AM_V_CCLD)$(MKDIR_P) tests && \
	$(CC) $(CFLAGS) -shared -fPIC -o $@ $(srcdir)/tests/rootmodule.c
if WEIR_TESTS
check_DATA = tests/rootmodule.so
endif

WEIR_SCRIPT_TESTS += \
	tests/bench_smoke.sh \
	tests/bench_snapshot.sh \
	tests/demo_smoke.sh \
	tests/dist.sh \
	tests/docs.sh \
	tests/heap_dump.sh \
	tests/install.sh \
	tests/kernel_check.sh \
	tests/kernel_guests.sh \
	tests/large.sh \
	tests/libgc.sh \
	tests/libgc_programs.sh \
	tests/model/check.sh \
	tests/mutants.sh \
	tests/redis.sh \
	tests/sanitizers.sh \
	tests/sqlite_snapshot.sh \
	tests/style.sh \
	tests/symbols.sh \
	tests/torture.sh \
	tests/usdt.sh \
	tests/weir_info.sh

# Threads that mutate self-checking graphs; `make torture TORTURE_SECONDS=3600`
# for an hour of it.
check_PROGRAMS += tests/torture/torture
tests_torture_torture_SOURCES = \
	tests/torture/bank.c \
	tests/torture/beside.c \
	tests/torture/dump.c \
	tests/torture/graph.c \
	tests/torture/hang.c \
	tests/torture/node.c \
	tests/torture/outside.c \
	tests/torture/setup.c \
	tests/torture/torture.c \
	tests/torture/torture.h \
	tests/torture/watch.c
tests_torture_torture_LDADD = libweir.la

# Heap dumps, for tests/heap_dump.sh.
check_PROGRAMS += tests/heap_dump
tests_heap_dump_SOURCES = tests/heap_dump.c tests/must.h
tests_heap_dump_LDADD = libweir.la

# The same for snapshots.  With the objects themselves: bugs are planted in
# them (--enable-mutants).
check_PROGRAMS += tests/torture/snapshots
noinst_LTLIBRARIES += libweir-snapshots.la
libweir_snapshots_la_SOURCES = $(WEIR_SOURCES) $(WEIR_SNAPSHOT_SOURCES)
tests_torture_snapshots_SOURCES = tests/snapshot_util.h \
	tests/torture/snapshots.c
tests_torture_snapshots_LDADD = libweir-snapshots.la

# Larger programs of Debian's on weir's libgc.so.1; docs/LIBGC.md.
.PHONY: libgc-check
libgc-check: all
	@$(AM_TESTS_ENVIRONMENT) $(SHELL) $(top_srcdir)/tests/libgc_more.sh

# What runs weir-info as a container would.
check_PROGRAMS += tests/deny
tests_deny_SOURCES = tests/deny.c tests/seccomp.h
tests_deny_LDADD =

TORTURE_SECONDS = 600
.PHONY: torture
torture: tests/torture/torture
	@$(AM_TESTS_ENVIRONMENT) TORTURE_SECONDS='$(TORTURE_SECONDS)' \
		$(SHELL) $(top_srcdir)/tests/torture.sh

WEIR_TEST_TOOLS = tests/bench.sh tests/heap_util.h tests/leaks.supp tests/libgc_more.sh \
	tests/libgc_run.sh tests/must.h tests/need.h \
	tests/quiet.h tests/run_unit.sh tests/seccomp.h \
	tests/summary.sh tests/take_away.h tests/tap.sh

EXTRA_DIST += $(WEIR_SCRIPT_TESTS) $(WEIR_TEST_TOOLS) tests/model/weir.pml \
	tests/redis.py \
	tests/libgc_suite

TEST_EXTENSIONS = .sh
LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) \
	$(top_srcdir)/build-aux/tap-driver.sh
LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/run_unit.sh
SH_LOG_DRIVER = $(LOG_DRIVER)
SH_LOG_COMPILER = timeout -k 10 6000 $(SHELL)
AM_TESTS_ENVIRONMENT = \
	WEIR_SRCDIR='$(abs_top_srcdir)' WEIR_BUILDDIR='$(abs_top_builddir)' \
	WEIR_SANITIZER='$(WEIR_SANITIZER)' \
	CC='$(CC)' CXX='$(CXX)' MAKE='$(MAKE)' NM='$(NM)' AWK='$(AWK)' \
	PKG_CONFIG='$(PKG_CONFIG)'; \
	export WEIR_SRCDIR WEIR_BUILDDIR WEIR_SANITIZER CC CXX MAKE NM AWK \
	PKG_CONFIG;

# What sanitizers.sh builds: no more than it runs.
.PHONY: unit-tests
unit-tests: $(WEIR_UNIT_TESTS) $(check_DATA)

# Reports of unit tests, and what scripts leave for whoever looks into a
# failure.
MOSTLYCLEANFILES += tests/*.tap
mostlyclean-local:
	-rm -rf mutants sanitize tests/*.work

# Not under a sanitizer, whose malloc() is the program's.
EXTRA_DIST += tests/test_jemalloc.c tests/snapshot_scene.h \
	tests/snapshot_util.h tests/test_snapshot.h tests/short.h
if WEIR_JEMALLOC
if !WEIR_SANITIZED
WEIR_UNIT_TESTS += tests/test_jemalloc
tests_test_jemalloc_SOURCES = tests/test_jemalloc.c
tests_test_jemalloc_CPPFLAGS = $(AM_CPPFLAGS) $(JEMALLOC_CFLAGS)
tests_test_jemalloc_LDADD = libweir-jemalloc.la libweir.la $(JEMALLOC_LIBS) \
	$(WEIR_TEST_RUNNER)
endif
endif

if WEIR_TESTS
check_PROGRAMS += $(WEIR_UNIT_TESTS)
TESTS = $(WEIR_UNIT_TESTS) $(WEIR_SCRIPT_TESTS)
else
check-local:
	@echo "configured --without-criterion: there is nothing to check" >&2
	@exit 1
endif
