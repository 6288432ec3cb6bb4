#!/bin/sh
# SPDX-License-Identifier: MIT
# Graphs that would fill a mark stack: a list of 100 million links and an array
# of 30 million references, in a gigabyte or two.  Where less than 6 GiB of
# memory are to be had they are smaller, and the line says how much; also in
# sanitizer builds, which are many times slower.
set -u

. "${WEIR_SRCDIR:-.}/tests/tap.sh"

test=${WEIR_BUILDDIR:-.}/tests/test_cycle
list=100000000
wide=30000000
why=

# KiB available: of the machine, and of the control group if it has a limit.
free=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
group=$(cat /sys/fs/cgroup/memory.max 2>/dev/null)
case $group in
'' | *[!0-9]*) ;;
*) [ $((group / 1024)) -lt "$free" ] && free=$((group / 1024)) ;;
esac
if [ "${WEIR_SANITIZER:-no}" != no ]; then
	list=1000000 wide=1000000 why=" (sanitizer build: not more)"
elif [ "$free" -lt $((6 << 20)) ]; then
	list=$((free * 15)) wide=$((free * 4))
	why=" ($((free >> 10)) MiB free: not more)"
fi

# One test, which must have been there to pass.
one()
{
	one_out=$("$test" --timeout 600 --filter "$1" 2>&1) || {
		printf '%s\n' "$one_out"
		return 1
	}
	printf '%s\n' "$one_out"
	printf '%s\n' "$one_out" | grep -q 'Passing: [^0-9]*1 '
}

WEIR_TEST_LIST=$list WEIR_TEST_WIDE=$wide
export WEIR_TEST_LIST WEIR_TEST_WIDE
tap_run "a list of $list links$why" one 'cycle/a_long_list'
tap_run "an array of $wide references$why" one 'cycle/a_wide_array'
tap_done
