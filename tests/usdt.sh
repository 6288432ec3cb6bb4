#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The USDT probes of the library: a begin and an end of every phase in
# runtime/events.def, and no other.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

library=$WEIR_BUILDDIR/.libs/libweir.so
[ -f "$library" ] || library=$WEIR_BUILDDIR/.libs/libweir.a
[ -f "$library" ] || library=$WEIR_BUILDDIR/libweir.a
work=$WEIR_BUILDDIR/tests/usdt.work
rm -rf "$work"
mkdir -p "$work"

if ! grep -q '^#define WEIR_USDT 1' "$WEIR_BUILDDIR/config.h"; then
	tap_skip "the probes" "configured without <sys/sdt.h>"
	tap_done
	exit 0
fi

sed -n 's/^X(\([a-z_]*\),.*/\1_begin\n\1_end/p' \
	"$WEIR_SRCDIR/runtime/events.def" | sort >"$work/wanted"
tap_run "events.def lists phases" test -s "$work/wanted"
tap_run "readelf reads the notes" sh -c \
	"readelf -n '$library' >'$work/notes'"
awk '$1 == "Provider:" { weir = $2 == "weir" }
	weir && $1 == "Name:" { print $2 }' "$work/notes" | sort \
	>"$work/found"
tap_run "each phase has its two probes, and nothing else has" \
	diff "$work/wanted" "$work/found"
tap_done
