# SPDX-License-Identifier: MIT
# Sourced by the tests of the benchmarks' programs.

# status N CMD...: the command exits with status N.
status()
{
	wanted=$1
	shift
	"$@"
	got=$?
	[ "$got" -eq "$wanted" ] || {
		echo "exit status $got, not $wanted"
		return 1
	}
}

# holds FILE EXPRESSION: FILE is JSON, and the expression holds of it, `d`.
holds()
{
	python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
if not eval("(" + sys.argv[2] + ")"):
    sys.exit("does not hold: " + sys.argv[2])
' "$1" "$2"
}
