#!/bin/sh
# SPDX-License-Identifier: MIT
# weir-info: what it prints, what it answers to bad arguments, exit status.
set -u

info=$WEIR_BUILDDIR/weir-info
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
n=0

# check WHAT COMMAND...: one result line.
check() {
	what=$1
	shift
	n=$((n + 1))
	if "$@"; then
		echo "ok $n - $what"
	else
		echo "not ok $n - $what"
	fi
}

# status WANTED ARGUMENT...: exit status; output in $work/out and $work/err.
status() {
	wanted=$1
	shift
	"$info" "$@" >"$work/out" 2>"$work/err"
	got=$?
	[ "$got" -eq "$wanted" ] || {
		echo "# weir-info $*: exit status $got, not $wanted"
		return 1
	}
}

quiet() {
	status "$@" && [ ! -s "$work/err" ] && [ -s "$work/out" ]
}

refused() {
	status 2 "$@" && [ ! -s "$work/out" ] && grep -q '^usage:' "$work/err"
}

# Every key of the table, and as many lines as keys.
options_listed() {
	keys=$(sed -n 's/^X([a-z_]*, "\([a-z-]*\)".*/\1/p' \
		"$WEIR_SRCDIR/runtime/options.def")
	[ -n "$keys" ] || return 1
	for key in $keys; do
		grep -q "^ *$key" "$work/out" || {
			echo "# $key is not listed"
			return 1
		}
	done
}

full() {
	"$info" >/dev/full 2>"$work/err"
	[ $? -eq 1 ] && grep -q 'cannot write' "$work/err"
}

# The barrier of the object is the one that the check and the table name.
json_agrees() {
	kind=$(sed -n 's/^  "barrier": "\([a-z]*\)",$/\1/p' "$work/out")
	case $kind in
	async | sync) "$info" --check ;;
	none) "$info" --check; [ $? -eq 3 ] ;;
	*) echo "# barrier \"$kind\""; false ;;
	esac && "$info" | grep -q "^barrier: $kind\$"
}

check "prints the table" quiet 0
check "every line fits 80 columns" awk 'length > 80 { exit 1 }' "$work/out"
check "prints JSON" quiet 0 --json
check "the JSON names the barrier that is chosen" json_agrees
check "prints the options" quiet 0 --options
check "lists every option" options_listed
check "prints its version" quiet 0 --version
check "prints its usage" quiet 0 --help
check "an unknown argument is an error" refused --jsn
check "which names it" grep -q '"--jsn"' "$work/err"
check "an empty argument is an error" refused ""
check "two arguments are an error" refused --json --options
check "a full disk is an error" full
echo "1..$n"
