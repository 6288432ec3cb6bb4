#!/bin/sh
# SPDX-License-Identifier: MIT
#
# weir's libgc.so.1: its names, and the conformance tests of libgc's interface
# (tests/libgc_suite), the same program on Debian's libgc, which proves the tests
# right, on weir's, and on weir's with every pause verified.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

lib=$WEIR_BUILDDIR/compat/libgc/.libs
headers=$WEIR_SRCDIR/compat/libgc/include
work=$WEIR_BUILDDIR/tests/libgc.work
rm -rf "$work"
mkdir -p "$work"

# The names that Debian's programs import, and what their ELF files ask for.
# shellcheck disable=SC2086 # NM may have options
$NM -D --defined-only "$lib/libgc.so.1" | awk '{ print $3 }' |
	sort >"$work/names"
tap_run "every name that Debian 12's packages import is there" sh -c "
	sort '$WEIR_SRCDIR/tests/libgc_suite/imports.txt' |
		comm -23 - '$work/names' >'$work/missing'
	cat '$work/missing'; ! [ -s '$work/missing' ]"
tap_run "nothing else is exported" sh -c "
	[ -s '$work/names' ] && ! grep -v '^GC_' '$work/names'"
tap_run "its name is libgc.so.1, without symbol versions" sh -c "
	readelf -d '$lib/libgc.so.1' | grep -q 'SONAME.*\[libgc\.so\.1\]' &&
	! readelf -d '$lib/libgc.so.1' | grep -q VERDEF"

# As installed programs find them: what they import beyond the list.
for f in /usr/bin/w3m /usr/bin/mmv /usr/bin/debfoster /usr/bin/ecl \
	/usr/bin/asy /usr/bin/crystal /usr/bin/nix \
	/usr/lib/*-linux-gnu/libguile-*.so.* /usr/lib/*-linux-gnu/libneko.so.* \
	/usr/lib/*-linux-gnu/libecl.so.*; do
	[ -f "$f" ] && [ ! -L "$f" ] || continue
	readelf -d "$f" 2>/dev/null | grep -q 'NEEDED.*libgc\.so\.1' || continue
	readelf -W --dyn-syms "$f" |
		awk '$7 == "UND" && $8 ~ /^GC_/ { sub("@.*", "", $8); print $8 }' |
		sort -u >"$work/wanted"
	tap_run "$f: what it imports is there" sh -c "
		[ -s '$work/wanted' ] &&
		! comm -23 '$work/wanted' '$work/names' | grep ."
done

if [ "${WEIR_SANITIZER:-no}" != no ]; then
	tap_skip "conformance" "the program is not built with the sanitizer"
	tap_done
	exit 0
fi
case $("$CC" -dumpmachine) in
"$(uname -m)"*) ;;
*)
	tap_skip "conformance" "built for another machine"
	tap_done
	exit 0 ;;
esac

# conform NAME FLAGS...: compiled with these headers.
conform()
{
	name=$1
	shift
	# shellcheck disable=SC2086 # CC may have options
	tap_run "the conformance tests compile with $name" $CC -std=gnu11 -O1 \
		-g -Wall -Wextra -Werror "$@" \
		"$WEIR_SRCDIR"/tests/libgc_suite/*.c "$lib/libgc.so.1" -pthread \
		-o "$work/conform-$name"
}

conform weir -I"$headers"
# libgc's have an attribute that this use of them does not heed.
if [ -f /usr/include/gc/gc_inline.h ]; then
	conform libgc -isystem /usr/include
else
	tap_skip "the conformance tests compile with libgc" \
		"libgc-dev is not installed"
fi

# results NAME PROGRAM: a run's lines, each a test here.
results()
{
	"$2" >"$work/out" 2>"$work/err"
	status=$?
	cat "$work/err" >&2
	tap_take "$work/out" "$1: "
	tap_run "$1: ended well" test "$status" = 0
}

if [ -x "$work/conform-libgc" ]; then
	results "Debian's libgc" "$work/conform-libgc"
fi
LD_LIBRARY_PATH=$lib
export LD_LIBRARY_PATH
results "weir" "$work/conform-weir"
if [ -x "$work/conform-libgc" ]; then
	results "weir, libgc's headers" "$work/conform-libgc"
fi
WEIR_OPTIONS=verify=on,poison=on
export WEIR_OPTIONS
results "weir, verified" "$work/conform-weir"
tap_done
