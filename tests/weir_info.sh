#!/bin/sh
# SPDX-License-Identifier: MIT
# weir-info: what it prints, what it answers to bad arguments, exit status; as
# started, as an unprivileged user and where seccomp denies userfaultfd.
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

skip() {
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

# Put before weir-info: nothing, or what takes something away from it.
run=
# status WANTED ARGUMENT...: exit status; output in $work/out and $work/err.
status() {
	wanted=$1
	shift
	# shellcheck disable=SC2086 # words on purpose
	$run "$info" "$@" >"$work/out" 2>"$work/err"
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
	async | sync) $run "$info" --check ;;
	none) $run "$info" --check; [ $? -eq 3 ] ;;
	*) echo "# barrier \"$kind\""; false ;;
	esac && $run "$info" | grep -q "^barrier: $kind\$"
}

# A parser other than ours reads it, and finds every key with its type: what
# is chosen and why; how each barrier fares; each capability and its use.
json_parses() {
	python3 -m json.tool "$work/out" >/dev/null && python3 - "$work/out" \
		"$WEIR_SRCDIR/runtime/probe.def" <<'EOF'
import json, re, sys

info = json.load(open(sys.argv[1]))
known = set(re.findall(r'^X\(\w+, "([^"]+)"', open(sys.argv[2]).read(), re.M))

def keys(what, got, **types):
    assert set(got) == set(types), (what, sorted(got))
    for key, kind in types.items():
        assert type(got[key]) is kind, (what, key, got[key])

keys("object", info, version=str, kernel=str, machine=str, user=int,
     barrier=str, why=str, better=str, barriers=list, probes=list)
assert len(info["why"]) > 20 and info["better"]
for b in info["barriers"]:
    keys("barrier", b, name=str, available=bool, safe=bool, reason=str)
    assert b["safe"] == (b["reason"] == ""), b
    assert b["available"] or not b["safe"], b
assert [b["name"] for b in info["barriers"]] == [
    "async", "sync", "sigbus", "mprotect", "none"]
assert next(b for b in info["barriers"] if b["name"] == info["barrier"])["safe"]
for p in info["probes"]:
    keys("probe", p, name=str, use=str, available=bool, detail=str, cause=str,
         cure=str)
    assert len(p["use"]) > 10, p
    assert p["available"] == (p["cause"] == "") == (p["cure"] == ""), p
assert {p["name"] for p in info["probes"]} == known and len(known) > 12
EOF
}

# The barrier that the JSON names is this one.
chooses() {
	grep -q "^  \"barrier\": \"$1\",\$" "$work/out"
}

# whole HOW: both forms, and that they agree.
whole() {
	check "prints the table, $1" quiet 0
	check "every line fits 80 columns, $1" awk 'length > 80 { exit 1 }' \
		"$work/out"
	check "prints JSON, $1" quiet 0 --json
	if command -v python3 >/dev/null; then
		check "the JSON parses and has every key, $1" json_parses
	else
		skip "the JSON parses and has every key, $1" "no python3"
	fi
	check "the JSON names the barrier that is chosen, $1" json_agrees
}

whole "as started"

deny=$WEIR_BUILDDIR/tests/deny
if [ "$(id -u)" -ne 0 ]; then
	# All there is to take away.
	user=
	whole "unprivileged"
elif setpriv --reuid 65534 --regid 65534 --clear-groups \
	test -x "$info" 2>/dev/null; then
	user="setpriv --reuid 65534 --regid 65534 --clear-groups"
	run=$user
	whole "unprivileged"
	check "the user is the unprivileged one" \
		grep -q '"user": 65534,' "$work/out"
else
	user=skip
	skip "unprivileged" "no setpriv, or the build is not everybody's to read"
fi
if [ "$user" = skip ] || { [ -w /dev/userfaultfd ] && [ -z "$user" ]; }; then
	skip "without userfaultfd" "it cannot be taken away here"
elif ! "$deny" EPERM true 2>/dev/null; then
	skip "without userfaultfd" "no seccomp filter can be set"
else
	for how in EPERM ENOSYS; do
		run="$user $deny $how"
		whole "userfaultfd gives $how"
		check "the barrier is none, userfaultfd gives $how" chooses none
		check "seccomp is named, userfaultfd gives $how" \
			grep -q seccomp "$work/out"
	done
fi
run=
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
