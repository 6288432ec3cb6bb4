#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Is the C code formatted by .clang-format?  Versions of clang-format differ,
# so this needs the one of Debian 12, 14.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

version=$(clang-format --version 2>/dev/null |
	sed -n 's/.*version \([0-9]*\)\..*/\1/p')
if [ "$version" != 14 ]; then
	tap_skip "the code's format" "clang-format 14 is not installed"
	tap_done
	exit 0
fi

formatted()
{
	find "$WEIR_SRCDIR/gc" "$WEIR_SRCDIR/runtime" "$WEIR_SRCDIR/include" \
		"$WEIR_SRCDIR/tests" "$WEIR_SRCDIR/tools" \
		"$WEIR_SRCDIR/examples" "$WEIR_SRCDIR/benchmarks" \
		"$WEIR_SRCDIR/kernel-support" \
		-name '*.[ch]' ! -path '*.work/*' >"$1" &&
		test -s "$1" &&
		xargs clang-format --dry-run -Werror <"$1"
}

list=$(mktemp "${TMPDIR:-/tmp}/weir-style.XXXXXX")
trap 'rm -f "$list"' EXIT
tap_run "the code has .clang-format's format" formatted "$list"
tap_done
