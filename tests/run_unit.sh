#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: run_unit.sh PROGRAM
#
# Run one Criterion binary for the TAP driver: the report goes to standard
# output, all that the tests print to standard error, so that no test can
# forge or break a result line.  A binary may take WEIR_TEST_TIMEOUT seconds
# (600; under the thread sanitizer, which is ten times slower, 900), which only
# one that hangs or a machine that is overrun needs.  Criterion 2.4.1 enforces
# the limits of single tests, but not its --timeout, so it is asked to log each
# test as it starts, for one that hangs to be found in the log; the runner that
# takes its place under the thread sanitizer ends a test after 240 seconds.
# The exit status is the binary's, but 0 where a failed test of the report
# accounts for it (the driver would count it twice).
set -u

program=$1
report=$program.tap

rm -f "$report"
# ThreadSanitizer cannot place its shadow under some address randomizations.
prefix=
limit=${WEIR_TEST_TIMEOUT:-600}
options=--verbose
if [ "${WEIR_SANITIZER:-no}" = thread ]; then
	limit=${WEIR_TEST_TIMEOUT:-900}
	options="--timeout 240"
	if setarch -R true 2>/dev/null; then
		prefix="setarch -R"
	fi
fi
case ${WEIR_SANITIZER:-no} in
address*)
	LSAN_OPTIONS=suppressions=$WEIR_SRCDIR/tests/leaks.supp:print_suppressions=0
	export LSAN_OPTIONS
	;;
esac
# shellcheck disable=SC2086 # $prefix and $options are words
timeout -k 10 "$limit" $prefix "$program" $options --tap="$report" >&2
rc=$?
if [ -f "$report" ]; then
	cat "$report"
	if [ "$rc" -eq 1 ] && grep -q '^not ok' "$report"; then
		rc=0
	fi
fi
exit "$rc"
