#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The torture program on every back end.  In `make check` two seeds each, one for
# those without userfaultfd, six seconds long; with TORTURE_SECONDS=3600 (make
# torture) new seeds, 20 seconds each, until the time is over.  TORTURE_SEED is
# the first seed.
#
# A failure shows the program's report, with the command that replays it.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

torture=$WEIR_BUILDDIR/tests/torture/torture
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-torture.XXXXXX")
trap 'rm -rf "$work"' EXIT

# one BACK-END SEED SECONDS
one()
{
	what="$1: $3 seconds from seed $2"
	timeout -k 10 $(($3 + 210)) "$torture" --barrier "$1" --seed "$2" \
		--seconds "$3" >"$work/log" 2>&1
	case $? in
	0)
		tap_ok "$what"
		;;
	77)
		tap_skip "$what" "$(sed -n 's/^torture: SKIP: //p' "$work/log")"
		;;
	*)
		tap_not_ok "$what"
		# The last line is for a run that could not say it itself.
		tail -n 300 "$work/log" >&2
		echo "replay: $torture --barrier $1 --seed $2 --seconds $3" >&2
		;;
	esac
}

seed=${TORTURE_SEED:-1}
if [ -n "${TORTURE_SECONDS:-}" ]; then
	end=$(($(date +%s) + TORTURE_SECONDS))
	while [ "$(date +%s)" -lt "$end" ]; do
		for barrier in async sync sigbus mprotect none; do
			one "$barrier" "$seed" 20
			seed=$((seed + 1))
		done
	done
else
	for barrier in async async sync sync sigbus sigbus mprotect none; do
		one "$barrier" "$seed" 6
		seed=$((seed + 1))
	done
fi
tap_done
echo "$((tap_count - tap_failed)) passed, $tap_failed failed"
# By hand the status tells; in `make check` the lines do.
[ -z "${TORTURE_SECONDS:-}" ] || [ "$tap_failed" -eq 0 ]
