# SPDX-License-Identifier: MIT
# Sourced by the scripts that run Debian's programs on weir's libgc.so.1: once
# on Debian's, once by the launcher, in the directory $work.
#
#   libgc_start NAME         the directory, empty; ends the script under a
#                            sanitizer
#   weir COMMAND...          on weir's library
#   expect COMMAND...        on Debian's: `expected`, output and status
#   got_it WHAT COMMAND...   on weir's; the same as `expected`?
#   same WHAT COMMAND...     both
#   verified WHAT COMMAND... both, weir's with every pause verified and what
#                            was freed poisoned
#   have PROGRAM WHAT        whether it is installed; if not, WHAT is skipped
#
# Whoever prints nothing, and is not said to leave files, is not taken for good.
# What a program says on standard error is shown if it fails, not compared.

libgc_start()
{
	[ "${WEIR_SANITIZER:-no}" = no ] || {
		tap_skip "programs on weir's libgc" "not under a sanitizer"
		tap_done
		exit 0
	}
	work=$WEIR_BUILDDIR/tests/$1.work
	WEIR_LIBGC_DIR=$WEIR_BUILDDIR/compat/libgc/.libs
	GUILE_AUTO_COMPILE=0
	HOME=$work # no cache, no settings
	export WEIR_LIBGC_DIR GUILE_AUTO_COMPILE HOME
	rm -rf "$work"
	mkdir -p "$work"
	cd "$work" || exit 1
}

weir()
{
	timeout 300 "$WEIR_BUILDDIR/weir-libgc" "$@"
}

expect()
{
	timeout 300 "$@" >expected 2>expected.err
	printf '\nstatus %s\n' $? >>expected
}

printed()
{
	[ "$(head -c 8 expected)" != "
status " ] || tap_not_ok "$1: it prints something"
}

got_it()
{
	what=$1
	shift
	weir "$@" >got 2>got.err
	printf '\nstatus %s\n' $? >>got
	tap_run "$what" sh -c 'tail -n 20 got.err; cmp expected got'
}

same()
{
	what=$1
	shift
	expect "$@"
	printed "$what"
	got_it "$what" "$@"
}

verified()
{
	what=$1
	shift
	expect "$@"
	printed "$what"
	WEIR_OPTIONS=verify=on,poison=on
	export WEIR_OPTIONS
	got_it "$what, verified" "$@"
	unset WEIR_OPTIONS
}

have()
{
	command -v "$1" >/dev/null || {
		tap_skip "$2" "$1 is not installed"
		return 1
	}
}
