# SPDX-License-Identifier: MIT
# What touches the system.  One file a line, sorted, headers beside sources.
WEIR_SOURCES += \
	runtime/barrier.c \
	runtime/barrier.h \
	runtime/barrier_async.c \
	runtime/barrier_grace.h \
	runtime/barrier_learn.c \
	runtime/barrier_map.c \
	runtime/barrier_map.h \
	runtime/barrier_mprotect.c \
	runtime/barrier_none.c \
	runtime/barrier_ops.h \
	runtime/barrier_sigbus.c \
	runtime/barrier_signal.c \
	runtime/barrier_signal.h \
	runtime/barrier_sync.c \
	runtime/barrier_wp.h \
	runtime/cgroup.c \
	runtime/cgroup.h \
	runtime/check.h \
	runtime/sized.h \
	runtime/error.c \
	runtime/events.c \
	runtime/events.def \
	runtime/events.h \
	runtime/futex_lock.h \
	runtime/histogram.c \
	runtime/histogram.h \
	runtime/kernel_abi.h \
	runtime/lock.c \
	runtime/lock.h \
	runtime/old_handles.c \
	runtime/old_handles.h \
	runtime/options.c \
	runtime/options.def \
	runtime/options.h \
	runtime/probe.c \
	runtime/probe.def \
	runtime/probe.h \
	runtime/probe_impl.h \
	runtime/probe_system.c \
	runtime/probe_uffd.c \
	runtime/procmaps.c \
	runtime/procmaps.h \
	runtime/roots.c \
	runtime/roots.h \
	runtime/roots_dl.c \
	runtime/roots_private.h \
	runtime/sys.h \
	runtime/sys_linux.c \
	runtime/thread.h \
	runtime/thread_block.c \
	runtime/thread_park.c \
	runtime/thread_private.h \
	runtime/thread_registry.c \
	runtime/thread_stack.c \
	runtime/thread_stop.c \
	runtime/trace.c \
	runtime/trace.h \
	runtime/uffd.c \
	runtime/uffd.h

# Regions and snapshots.
WEIR_SNAPSHOT_SOURCES += \
	runtime/own_memory.h \
	runtime/patience.h \
	runtime/region.c \
	runtime/region.h \
	runtime/region_fork.c \
	runtime/region_memory.c \
	runtime/region_watch.c \
	runtime/regions.h \
	runtime/snap_arm.c \
	runtime/snap_end.c \
	runtime/snap_handle.c \
	runtime/snap_keep.c \
	runtime/snap_point.c \
	runtime/snap_point.h \
	runtime/snap_pool.c \
	runtime/snap_pool.h \
	runtime/snap_read.c \
	runtime/snapshot.c \
	runtime/watch.c \
	runtime/watch.h \
	runtime/watch_fault.c \
	runtime/watch_listen.c \
	runtime/watch_private.h
