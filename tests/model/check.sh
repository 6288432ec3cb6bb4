#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Checks the model of the collector's cycle, weir.pml, with Spin: the correct
# model must verify exhaustively with every step of it reached, and each
# mutant must violate an assertion.  Prints one line for each run and at last
# "N passed, N failed"; exits non-zero if any run did not end as it must.
#
# Needs spin (Debian package spin) and a C compiler ($CC, else cc).  Without
# them it says so in a TAP skip line and exits with 77; under the test driver,
# which reads that line and counts a skip, with 0.
# Takes about a minute of processor time and, for each run, below 1 GiB.

set -u
model=$(cd "$(dirname "$0")" && pwd)/weir.pml
cc=${CC:-cc}
limit=600 # seconds after which a search is given up as a failure

for tool in spin "${cc%% *}"; do
	if ! command -v "$tool" >/dev/null 2>&1; then
		echo "1..0 # SKIP $tool not found (needs spin and a C compiler)"
		[ -n "${WEIR_BUILDDIR:-}" ]
		exit $(($? * 77))
	fi
done

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$dir/mutants" "$dir/verify" || exit 1

# result 0|1 text: one line of the report, not numbered yet
result()
{
	if [ "$1" -eq 0 ]; then
		echo "ok - $2"
	else
		echo "not ok - $2"
		tail -n 40 out | sed 's/^/# /'
	fi
}

# search macros...: build the verifier and run it; its report is in ./out.
# No partial order reduction: each step touches shared variables, so there is
# nothing to reduce.  No COLLAPSE: a state is 44 bytes; it only costs time.
search()
{
	rm -f pan pan.* ./*.trail out
	spin -a "$@" "$model" >out 2>&1 || return 1
	# $cc may be a command with options
	$cc -O2 -w -DSAFETY -DNOREDUCE -DMEMLIM=2000 -o pan pan.c \
		>out 2>&1 || return 1
	timeout "$limit" ./pan -m2000000 -w24 >out 2>&1
}

# The figures of ./out in one line.
figures()
{
	awk '/depth reached/ { gsub(",", ""); depth = $6 }
	     /states, stored/ { states = $1 }
	     /total actual memory/ { memory = $1 }
	     /elapsed time/ { time = $4 }
	     END { printf "%d states, depth %d, %.0f MiB, %s s",
		   states, depth, memory, time }' out
}

# verify name macros...: must complete without an error.  A search that was
# cut short says so; a step never reached means that the model proves less
# than it says (only the end of each process, which never ends, may be so).
verify()
{
	name=$1
	shift
	search "$@" &&
		grep -q 'errors: 0$' out &&
		! grep -Eq 'not completed|too small|out of memory' out &&
		[ "$(grep -c '^unreached in proctype' out)" -eq 3 ] &&
		[ "$(grep -Ec ', state [0-9]+, ' out)" -eq 3 ] &&
		[ "$(grep -c '"-end-"' out)" -eq 3 ]
	result $? "$name: $(figures)"
}

# mutant name macros...: must violate an assertion
mutant()
{
	name=$1
	shift
	search "$@" && grep -q 'assertion violated' out &&
		grep -q 'errors: 1$' out
	result $? "mutant $name is caught: $(figures)"
}

verify_all()
{
	cd "$dir/verify" || return 1
	verify "full cycles, 3 objects" -DOBJECTS=3
	verify "full cycles with slices, 2 objects of 2 fields, 2+2 slots" \
		-DOBJECTS=2 -DSPLIT=1 -DTWO=2 -DSLOTS1=2 -DSLICES
	verify "full and minor cycles, 3 objects, born white" -DMINOR -DWHITE
}

mutants_all()
{
	cd "$dir/mutants" || return 1
	mutant SKIP_DIRTY_PAGE -DSKIP_DIRTY_PAGE
	mutant FORGET_STACK -DFORGET_STACK
	mutant NO_REARM -DNO_REARM
	mutant "SKIP_DIRTY_PAGE, born white" -DWHITE -DSKIP_DIRTY_PAGE
	mutant "FORGET_STACK, born white" -DWHITE -DFORGET_STACK
	mutant "NO_REARM, born white" -DWHITE -DNO_REARM
	mutant BORN_WHITE -DBORN_WHITE
	mutant EARLY_FRESH -DEARLY_FRESH
	mutant NO_PROTECT -DNO_PROTECT
	mutant MINOR_ARM -DMINOR -DMINOR_ARM
	mutant NO_NOTE -DNO_NOTE
	mutant "NO_NOTE, born white" -DWHITE -DNO_NOTE
}

# Each takes one processor.
(verify_all) >"$dir/verified" &
(mutants_all) >"$dir/mutated"
wait
# Those of both, numbered; 15, or something broke off.
cat "$dir/verified" "$dir/mutated" | awk '
	/^(not )?ok / {
		n++
		sub("ok", "ok " n)
		failed += /^not/
	}
	{ print }
	END {
		print "1.." n
		print n - failed " passed, " failed " failed"
		exit failed || n != 15
	}'
