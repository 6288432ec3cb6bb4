#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: summary.sh TEST-SUITE-LOG
#
# Print "N passed, N failed" (", N skipped" if some were) from the counts at
# the head of Automake's test-suite.log.  Fails if something failed, if
# nothing passed or if the counts are not there.
exec "${AWK:-awk}" '
	/^# (TOTAL|PASS|SKIP|XFAIL|FAIL|XPASS|ERROR): +[0-9]+$/ {
		sub(":", "", $2)
		n[$2] += $3
		seen[$2] = 1
	}
	END {
		if (!seen["TOTAL"] || !seen["PASS"] || !seen["FAIL"]) {
			print "summary: no counts in the log" > "/dev/stderr"
			exit 2
		}
		failed = n["FAIL"] + n["XPASS"] + n["ERROR"]
		passed = n["PASS"] + n["XFAIL"]
		line = passed " passed, " failed " failed"
		if (n["SKIP"])
			line = line ", " n["SKIP"] " skipped"
		print line
		exit failed || !passed
	}
' "$1"
