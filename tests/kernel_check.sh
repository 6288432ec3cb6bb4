#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What weir-kernel-check says of this kernel: each of its checks is one here.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

check=$WEIR_BUILDDIR/kernel-support/check/weir-kernel-check
if [ ! -x "$check" ]; then
	tap_skip "the kernel check" "it is not built in this configuration"
	tap_done
	exit 0
fi
log=$(mktemp "${TMPDIR:-/tmp}/weir-kernel-check.XXXXXX")
trap 'rm -f "$log"' EXIT

# who COMMAND...: its checks, under that name.
as()
{
	who=$1
	shift
	"$@" >"$log" 2>&1
	status=$?
	tap_take "$log" "$who: "
	tap_run "$who: all were made" grep -q "^1\.\.[1-9]" "$log"
	[ "$status" -le 1 ] || tap_not_ok "$who: exit status $status"
}

as "root or whoever this is" "$check"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	cp "$check" "$log.program" && chmod 755 "$log.program"
	as "an unprivileged user" setpriv --reuid 65534 --regid 65534 \
		--clear-groups "$log.program"
	rm -f "$log.program"
fi

# Only pages with the bit report, and each once, though all are copied.
counted()
{
	"$check" --count 512 64 | tee /dev/stderr |
		grep -q "^pages 512 protected 64 events 64 spurious 0 "
}
if grep -q "^ok 1 - .*# SKIP" "$log"; then
	tap_skip "events of 512 pages, 64 of them protected" "no userfaultfd"
else
	tap_run "events of 512 pages, 64 of them protected: 64" counted
fi

refused()
{
	"$@" 2>"$log"
	[ $? = 2 ] && [ -s "$log" ]
}
tap_run "more protected pages than pages are refused" \
	refused "$check" --count 1 2
tap_run "what is no number is refused" refused "$check" --count 1 x
tap_run "a check that is none is refused" refused "$check" --only nonsense
tap_done
