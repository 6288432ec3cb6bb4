#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What the libraries put into a program's name space: libweir.so exports the
# functions of the public headers, versioned, and nothing else; libweir.a
# defines no global symbol without a prefix of ours.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

shared=$WEIR_BUILDDIR/.libs/libweir.so
static=$WEIR_BUILDDIR/.libs/libweir.a
[ -f "$static" ] || static=$WEIR_BUILDDIR/libweir.a
work=$WEIR_BUILDDIR/tests/symbols.work
rm -rf "$work"
mkdir -p "$work"

# Fail, and say what it holds, if the file is not empty.
none_in()
{
	[ ! -s "$1" ] || {
		cat "$1"
		return 1
	}
}

# Names of the functions that the public headers declare.
sed -n 's/^WEIR_API .*[ *]\(weir_[a-z_0-9]*\)(.*/\1/p' \
	"$WEIR_SRCDIR"/include/weir/*.h | sort -u >"$work/declared"
tap_run "the headers declare functions" test -s "$work/declared"
# Each WEIR_API is one declaration; a form that the pattern above does not
# know must not pass unseen.
cat "$WEIR_SRCDIR"/include/weir/*.h | grep -c '^WEIR_API ' >"$work/count"
tap_run "every declaration is read" \
	test "$(cat "$work/count")" -eq "$(wc -l <"$work/declared")"

if [ -f "$shared" ]; then
	$NM -D --defined-only --with-symbol-versions "$shared" |
		awk '$2 != "A" { print $NF }' >"$work/exported"
	grep -v '^weir_[a-z_0-9]*@@WEIR_[0-9.]*$' "$work/exported" \
		>"$work/strange"
	tap_run "libweir.so exports versioned weir_* symbols only" \
		none_in "$work/strange"
	sed 's/@.*//' "$work/exported" | sort -u >"$work/names"
	comm -23 "$work/declared" "$work/names" >"$work/lacking"
	tap_run "libweir.so has every function of the headers" \
		none_in "$work/lacking"
	comm -13 "$work/declared" "$work/names" >"$work/undeclared"
	tap_run "libweir.so exports no function that no header declares" \
		none_in "$work/undeclared"
else
	tap_skip "symbols of libweir.so" "configured with --disable-shared"
fi

redis=$WEIR_BUILDDIR/compat/redis/.libs/libweir-redis.so
if [ -f "$redis" ]; then
	$NM -D --defined-only "$redis" | awk '{ print $NF }' | sort |
		tr '\n' ' ' >"$work/redis"
	tap_run "libweir-redis.so puts fork() and setsid() in place, no more" \
		test "$(cat "$work/redis")" = "fork setsid "
else
	tap_skip "symbols of libweir-redis.so" "it was not built"
fi

if [ -f "$static" ]; then
	$NM -g --defined-only "$static" | awk 'NF == 3 { print $3 }' |
		sort -u >"$work/global"
	tap_run "libweir.a has symbols" test -s "$work/global"
	# _.stapsdt.base is weak, hidden and part of every USDT probe.
	grep -Ev '^(weir|wr|wg)_|^_\.stapsdt\.base$' "$work/global" \
		>"$work/strange"
	tap_run "libweir.a defines weir_, wr_ and wg_ symbols only" \
		none_in "$work/strange"
else
	tap_skip "symbols of libweir.a" "configured with --disable-static"
fi
tap_done
