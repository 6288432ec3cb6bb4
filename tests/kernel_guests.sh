#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Debian's own kernels for Debian 12, as they are, in guests: the kernel check,
# the back ends' and the snapshots' tests and both torture programs on 6.1,
# which has no WP_ASYNC, and on 6.12.  Skipped where the means are lacking;
# `make kernel-check` tries all of the tests on more kernels.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

kernels=$WEIR_SRCDIR/kernel-support/kernels
stock="stock-6.1 stock-6.12"
log=$(mktemp "${TMPDIR:-/tmp}/weir-guests.XXXXXX")
trap 'rm -f "$log" "$log".*' EXIT

skip_all()
{
	for k in $stock; do
		tap_skip "$k in a guest" "$1"
	done
	tap_done
	exit 0
}

[ "${WEIR_SANITIZER:-no}" = no ] || skip_all "not under a sanitizer"
[ "$(uname -m)" = x86_64 ] || skip_all "the guests are x86-64"
for program in qemu-system-x86_64 cpio xz apt-get dpkg-deb; do
	command -v "$program" >/dev/null ||
		skip_all "$program is not installed; see the file packages"
done
# shellcheck disable=SC2086 # a list
"$kernels" fetch $stock >"$log" 2>&1 ||
	skip_all "Debian's kernel packages: $(tail -n 1 "$log")"
cat "$log" >&2

# At once: a guest has one processor.
for k in $stock; do
	{
		TRY=short "$kernels" try "$k" >"$log.$k"
		echo $? >"$log.$k.status"
	} &
done
wait
for k in $stock; do
	tap_take "$log.$k"
	tap_run "$k: the trial ended well" \
		test "$(cat "$log.$k.status")" = 0
	# So that a guest in which all is skipped does not count as tried.
	tap_run "$k: kernel check, torture under sync and of snapshots were made" \
		sh -c "grep -q '^ok [0-9]* - $k: weir-kernel-check: .*[^#]* copy\$' \
			'$log.$k' &&
			grep -q '^ok .* torture --barrier sync\$' '$log.$k' &&
			grep -q '^ok .* torture of snapshots\$' '$log.$k'"
done
tap_done
