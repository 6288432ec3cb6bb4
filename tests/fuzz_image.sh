#!/bin/sh
# SPDX-License-Identifier: MIT
#
# `make fuzz-image FUZZ_SECONDS=3600`: the readers of snapshot files under
# AFL++ if it is installed (Debian: afl++), else under the loop of
# tests/image_fuzz.c with a seed of the moment, which it prints.  Inputs that
# break something are kept in the build directory's tests/fuzz_image.work.
set -eu

work=$WEIR_BUILDDIR/tests/fuzz_image.work
mkdir -p "$work/seeds"
seconds=${FUZZ_SECONDS:-600}

if ! command -v afl-fuzz >/dev/null || ! command -v afl-cc >/dev/null; then
	seed=$(date +%s)
	echo "fuzz-image: AFL++ is not installed: $seconds seconds of our own" \
		"mutations, tests/fuzz_image $seconds $seed"
	exec "$WEIR_BUILDDIR/tests/fuzz_image" "$seconds" "$seed"
fi

"$WEIR_BUILDDIR/tests/fuzz_image" --seeds "$work/seeds"
sources=$(find "$WEIR_SRCDIR/runtime/image" -name '*.c' \
	! -name snapshot_file.c)
# shellcheck disable=SC2046,SC2086 # words on purpose
afl-cc -std=gnu11 -g -O1 -fsanitize=address,undefined \
	-fno-sanitize-recover=undefined -include "$WEIR_BUILDDIR/config.h" \
	-I"$WEIR_SRCDIR/include" -I"$WEIR_SRCDIR" -o "$work/fuzz_image" \
	"$WEIR_SRCDIR/tests/fuzz_image.c" "$WEIR_SRCDIR/tests/image_fuzz.c" \
	"$WEIR_SRCDIR/tests/image_make.c" $sources \
	"$WEIR_SRCDIR/runtime/error.c" \
	$($PKG_CONFIG --cflags --libs libisal) \
	$($PKG_CONFIG --libs liblz4 2>/dev/null || :) \
	$($PKG_CONFIG --libs libzstd 2>/dev/null || :) -pthread
AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 \
	afl-fuzz -m none -V "$seconds" -i "$work/seeds" -o "$work/found" -- \
	"$work/fuzz_image" @@
if find "$work/found" -path '*/crashes/id*' | grep .; then
	echo "fuzz-image: the files above break something" >&2
	exit 1
fi
