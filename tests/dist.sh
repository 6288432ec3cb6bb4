#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Is every file of the repository in a release?  A header that no local.mk
# names compiles here and is missing there.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

if [ ! -e "$WEIR_SRCDIR/.git" ] || ! command -v git >/dev/null; then
	tap_skip "files of a release" "not a git checkout"
	tap_done
	exit 0
fi

unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
work=$WEIR_BUILDDIR/tests/dist.work
rm -rf "$work"
mkdir -p "$work"

# What only the repository needs.
repository_only='^(\.ci/|\.git|m4/\.gitkeep$)'

none_in()
{
	[ ! -s "$1" ] || {
		cat "$1"
		return 1
	}
}

if tap_run "make distdir" $MAKE -C "$WEIR_BUILDDIR" distdir \
	distdir=tests/dist.work/release; then
	(cd "$work/release" && find . -type f | sed 's|^\./||' | sort) \
		>"$work/released"
	# The checkout may belong to another user than the one who tests.
	git -c safe.directory='*' -C "$WEIR_SRCDIR" ls-files |
		grep -Ev "$repository_only" | sort >"$work/tracked"
	tap_run "the repository's files are known" test -s "$work/tracked"
	comm -23 "$work/tracked" "$work/released" >"$work/lacking"
	tap_run "every file of the repository is released" \
		none_in "$work/lacking"
	rm -rf "$work/release"
fi
tap_done
