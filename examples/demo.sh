#!/bin/sh
# SPDX-License-Identifier: MIT
# A tour of about a minute: what weir runs on here, then a search engine with
# its whole index on a collected heap, on weir and on libgc in alternation, and
# a comparison as a table, a histogram and a page.
set -eu

usage()
{
	cat <<'EOF'
usage: demo.sh [BUILDDIR [PAGE]]

  BUILDDIR   where weir was built (WEIR_BUILDDIR, or the current directory)
  PAGE       HTML file to write (BUILDDIR/demo.html)

Environment: WEIR_DEMO_PAIRS  runs of each library (2)
             WEIR_DEMO_ARGS   arguments for each run, see word-index-weir
                              --help ("--seconds 30 --text 1g", a path, ...)
EOF
}

die()
{
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# Programs that the build leaves out when their libraries are missing.
need()
{
	test -x "$build/$1" || die "$build/$1 is not there: $2"
}

# one_run PEER PAIR: its report goes to a file in $work whose name sorts by
# when it ran; its text to the terminal if it is the first of that peer.
one_run()
{
	case $1 in
	weir) program=$build/examples/word-index-weir ;;
	libgc) program=$build/examples/word-index-gc ;;
	esac
	runs=$((runs + 1))
	quiet=
	test "$2" -eq 1 || quiet=--quiet
	begin=$(date +%s)
	# shellcheck disable=SC2086 # arguments are words
	"$program" --json $quiet ${WEIR_DEMO_ARGS-} \
		>"$work/$(printf 'run%03d' "$runs").json" ||
		die "the run on $1 failed"
	end=$(date +%s)
	printf '%-5s  run %d of %d took %d s\n' "$1" "$2" "$pairs" \
		$((end - begin))
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:-${WEIR_BUILDDIR:-.}}" && pwd)
page=${2:-$build/demo.html}
pairs=${WEIR_DEMO_PAIRS:-2}
case $pairs in
'' | *[!0-9]* | 0) die "WEIR_DEMO_PAIRS=$pairs is not a number above 0" ;;
esac
need weir-info "run make first"
need examples/word-index-weir \
	"zlib was missing (Debian: zlib1g-dev); configure and make again"
need examples/word-index-gc \
	"libgc was missing (Debian: libgc-dev); configure and make again"
command -v python3 >/dev/null 2>&1 ||
	die "python3, which compares the runs, was not found (Debian: python3)"
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# busy LOAD PROCESSORS: succeeds if other programs take half of the machine.
busy()
{
	awk -v load="$1" -v n="$2" 'BEGIN { exit !(load > n / 2) }'
}

read -r load rest </proc/loadavg
processors=$(nproc)
remark=
if busy "$load" "$processors"; then
	remark="Other programs kept this machine busy when the runs began (load\
 $load on $processors processors): latencies include waiting for them."
	printf 'demo: %s\n\n' "$remark" >&2
fi

printf '== What weir runs on here\n\n'
if ! "$build/weir-info" >"$work/info.txt"; then
	cat "$work/info.txt"
	die "weir-info failed"
fi
# Its summary; the tables that follow are in the page.
sed '/^barriers$/,$d' "$work/info.txt"
printf '(all of it: %s)\n' "$build/weir-info"

printf '\n== A search engine on weir and on libgc, %d times each\n\n' "$pairs"
runs=0
pair=1
while [ "$pair" -le "$pairs" ]; do
	# The order changes from pair to pair, so that what the machine does
	# meanwhile favours neither.
	if [ $((pair % 2)) -eq 1 ]; then
		one_run weir "$pair"
		one_run libgc "$pair"
	else
		one_run libgc "$pair"
		one_run weir "$pair"
	fi
	pair=$((pair + 1))
done

printf '\n== Compared\n\n'
python3 "$here/demo_report.py" --page "$page" --info "$work/info.txt" \
	--remark "$remark" "$work"/run*.json || die "the comparison failed"
printf '\nThe plots: %s\n' "$page"
