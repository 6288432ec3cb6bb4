#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: run_unit.sh PROGRAM
#
# Run one Criterion binary for the TAP driver: the report goes to standard
# output, all that the tests print to standard error, so that no test can
# forge or break a result line.  A test may take WEIR_TEST_TIMEOUT seconds
# (300), which only a test that hangs or a machine that is overrun needs; a
# binary three times that.
# The exit status is the binary's, but 0 where a failed test of the report
# accounts for it (the driver would count it twice).
set -u

program=$1
report=$program.tap

rm -f "$report"
# ThreadSanitizer cannot place its shadow under some address randomizations.
prefix=
if [ "${WEIR_SANITIZER:-no}" = thread ] && setarch -R true 2>/dev/null; then
	prefix="setarch -R"
fi
limit=${WEIR_TEST_TIMEOUT:-300}
# shellcheck disable=SC2086 # $prefix is two words or none
timeout -k 10 $((3 * limit)) $prefix "$program" --timeout "$limit" \
	--tap="$report" >&2
rc=$?
if [ -f "$report" ]; then
	cat "$report"
	if [ "$rc" -eq 1 ] && grep -q '^not ok' "$report"; then
		rc=0
	fi
fi
exit "$rc"
