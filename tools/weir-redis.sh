#!/bin/sh
# SPDX-License-Identifier: MIT
#
# weir-redis PROGRAM ARGS...: run a redis-server that is linked to libjemalloc
# so that fork() does not copy its data.  WEIR_REDIS_DIR is where
# libweir-redis.so is, if not where it was installed.
dir=${WEIR_REDIS_DIR:-@pkglibdir@}

refuse()
{
	echo "weir-redis: $*" >&2
	exit 127
}

case ${1:-} in
"" | -h | --help)
	cat <<-EOF
	usage: weir-redis PROGRAM ARGS...
	Run PROGRAM, a redis-server, so that saving does not stop it: its data
	are in memory that fork() does not copy.  It takes Linux 5.19, a program
	that is linked to libjemalloc.so.2, and root, CAP_SYS_PTRACE,
	permission to open /dev/userfaultfd or
	vm.unprivileged_userfaultfd=1.
	    WEIR_REDIS_LIMIT=64g  address space for the data; four times the
	                          machine's memory unless given
	    WEIR_REDIS_HUGE=1     in pages of 2 MiB
	    WEIR_REDIS_LOG=1      a line on standard error for every fork()
	    WEIR_REDIS_CHECK=1    only say whether it would run
	EOF
	[ $# -gt 0 ]
	exit ;;
esac
lib=$dir/libweir-redis.so
[ -e "$lib" ] || refuse "there is no $lib; install weir, or set WEIR_REDIS_DIR"
program=$(command -v -- "$1") || refuse "there is no program $1"
if ! ldd "$program" 2>/dev/null | grep -q libjemalloc; then
	refuse "$program is not linked to libjemalloc.so, whose memory it is" \
		"about; Debian's redis-server is"
fi
# One arena, whose extents are the library's; what is not used any more is kept
# as address space.  jemalloc's own tables, which fork() does copy, in huge
# pages, which is a tenth of the time.
MALLOC_CONF=metadata_thp:always${MALLOC_CONF:+,$MALLOC_CONF}
MALLOC_CONF=$MALLOC_CONF,percpu_arena:disabled,narenas:1,oversize_threshold:0,retain:true
LD_PRELOAD=$lib${LD_PRELOAD:+:$LD_PRELOAD}
export MALLOC_CONF LD_PRELOAD
exec "$@"
