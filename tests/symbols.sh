#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What the libraries put into a program's name space: libweir.so exports the
# functions of the public headers, versioned, and nothing else; libweir.a
# defines no global symbol without a prefix of ours.  Likewise libweir-image for
# weir/image.h, and libweir-jemalloc for weir/jemalloc.h.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

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

# declared_in HEADER...: names of the functions that they declare.
declared_in()
{
	sed -n 's/^WEIR_API .*[ *]\(weir_[a-z_0-9]*\)(.*/\1/p' "$@" | sort -u
}

# exports NAME: lib$1.so has what $work/declared says, and no more.
exports()
{
	shared=$WEIR_BUILDDIR/.libs/lib$1.so
	if [ ! -f "$shared" ]; then
		tap_skip "symbols of lib$1.so" "configured with --disable-shared"
		return
	fi
	$NM -D --defined-only --with-symbol-versions "$shared" |
		awk '$2 != "A" { print $NF }' >"$work/exported"
	grep -v '^weir_[a-z_0-9]*@@WEIR_[0-9.]*$' "$work/exported" \
		>"$work/strange"
	tap_run "lib$1.so exports versioned weir_* symbols only" \
		none_in "$work/strange"
	sed 's/@.*//' "$work/exported" | sort -u >"$work/names"
	comm -23 "$work/declared" "$work/names" >"$work/lacking"
	tap_run "lib$1.so has every function of its headers" \
		none_in "$work/lacking"
	comm -13 "$work/declared" "$work/names" >"$work/undeclared"
	tap_run "lib$1.so exports no function that no header declares" \
		none_in "$work/undeclared"
}

# defines NAME PREFIXES: lib$1.a has no other symbols.
defines()
{
	static=$WEIR_BUILDDIR/.libs/lib$1.a
	[ -f "$static" ] || static=$WEIR_BUILDDIR/lib$1.a
	if [ ! -f "$static" ]; then
		tap_skip "symbols of lib$1.a" "configured with --disable-static"
		return
	fi
	$NM -g --defined-only "$static" | awk 'NF == 3 { print $3 }' |
		sort -u >"$work/global"
	tap_run "lib$1.a has symbols" test -s "$work/global"
	# _.stapsdt.base is weak, hidden and part of every USDT probe.
	grep -Ev "^($2)_|^_\.stapsdt\.base\$" "$work/global" >"$work/strange"
	tap_run "lib$1.a defines symbols with our prefixes only: $2" \
		none_in "$work/strange"
}

# Each WEIR_API is one declaration; a form that the pattern above does not
# know must not pass unseen.
declared_in "$WEIR_SRCDIR"/include/weir/*.h >"$work/declared"
tap_run "the headers declare functions" test -s "$work/declared"
cat "$WEIR_SRCDIR"/include/weir/*.h | grep -c '^WEIR_API ' >"$work/count"
tap_run "every declaration is read" \
	test "$(cat "$work/count")" -eq "$(wc -l <"$work/declared")"

find "$WEIR_SRCDIR/include/weir" -name '*.h' ! -name image.h \
	! -name jemalloc.h -exec cat {} + >"$work/weir.h"
declared_in "$work/weir.h" >"$work/declared"
exports weir
defines weir "weir|wr|wg"
# part NAME PREFIXES: likewise lib weir-$1, of weir/$1.h.
part()
{
	if [ ! -f "$WEIR_BUILDDIR/libweir-$1.la" ]; then
		tap_skip "symbols of libweir-$1" "it is not built here"
		return
	fi
	declared_in "$WEIR_SRCDIR/include/weir/$1.h" >"$work/declared"
	exports "weir-$1"
	defines "weir-$1" "$2"
}
part image "weir_image|wi"
part jemalloc weir_arena
redis=$WEIR_BUILDDIR/compat/redis/.libs/libweir-redis.so
if [ -f "$redis" ]; then
	$NM -D --defined-only "$redis" | awk '{ print $NF }' | sort |
		tr '\n' ' ' >"$work/redis"
	tap_run "libweir-redis.so puts fork() and setsid() in place, no more" \
		test "$(cat "$work/redis")" = "fork setsid "
else
	tap_skip "symbols of libweir-redis.so" "it was not built"
fi

tap_done
