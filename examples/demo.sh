#!/bin/sh
# SPDX-License-Identifier: MIT
# A tour of two minutes: what weir runs on here, then a search engine
# with its whole index on a collected heap, on weir and on libgc in alternation,
# and a comparison as a table, a histogram and a page; then programs in Guile,
# which know nothing of weir, compared likewise; and SQLite and Redis, saved while
# they are written to.
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
             WEIR_DEMO_TREES  arguments for each run of guile-trees and of
             WEIR_DEMO_HTTP   guile-http, see benchmarks/bench-guile --help
                              ("--live-mib 200 --make-mib 2048" and
                              "--live-mib 200 --seconds 6")
             WEIR_DEMO_SQLITE arguments of sqlite-snapshot, see its --help
                              ("--compare 2 --mb 128 --seconds 1")
             WEIR_DEMO_REDIS  arguments of benchmarks/bench_redis.py, see its
                              --help ("--gib 0.25 --pairs 2 --seconds 2
                              --rate 5000")
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

# guile_run WORKLOAD PEER PAIR: its report is a line of $work/guile.
guile_run()
{
	case $1 in
	guile-trees) args=$trees ;;
	guile-http) args=$http ;;
	esac
	begin=$(date +%s)
	# Its errors count if it fails: to the server wrk's end is one.
	# shellcheck disable=SC2086 # arguments are words
	if ! "$build/benchmarks/bench-guile" "$2" "$1" $args \
		>>"$work/guile" 2>"$work/guile.err"; then
		cat "$work/guile.err" >&2
		return 1
	fi
	end=$(date +%s)
	printf '%-5s  %-11s  run %d of %d took %d s\n' "$2" "$1" "$3" \
		"$pairs" $((end - begin))
}

# What the programs in Guile lack here, in one line; nothing if nothing.
guile_lacks()
{
	for package in guile:guile-3.0 wrk:wrk; do
		command -v "${package%:*}" >/dev/null 2>&1 ||
			printf '%s is not installed (Debian: %s). ' \
				"${package%:*}" "${package#*:}"
	done
}

# Likewise what Redis lacks: the programs, or what weir-redis wants of the system.
redis_lacks()
{
	for program in redis-server redis-cli; do
		if ! command -v "$program" >/dev/null 2>&1; then
			printf '%s is not installed (Debian: redis-server, redis-tools).' \
				"$program"
			return
		fi
	done
	if [ ! -x "$build/weir-redis" ]; then
		printf 'weir-redis was not built (configured with --disable-shared).'
		return
	fi
	said=$(WEIR_REDIS_CHECK=1 WEIR_REDIS_DIR=$build/compat/redis/.libs \
		"$build/weir-redis" redis-server --port 0 2>&1) ||
		printf '%s' "$said"
}

# in_pairs COMMAND...: COMMAND PEER PAIR for each run.  The order changes from
# pair to pair, so that what the machine does meanwhile favours neither.
in_pairs()
{
	pair=1
	while [ "$pair" -le "$pairs" ]; do
		order="weir libgc"
		test $((pair % 2)) -eq 1 || order="libgc weir"
		for peer in $order; do
			"$@" "$peer" "$pair" || return
		done
		pair=$((pair + 1))
	done
}

report()
{
	python3 "$here/demo_report.py" --page "$page" \
		--info "$work/info.txt" --remark "$remark" "$@" \
		"$work"/run*.json
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
trees=${WEIR_DEMO_TREES:---live-mib 200 --make-mib 2048}
http=${WEIR_DEMO_HTTP:---live-mib 200 --seconds 6}
sqlite=${WEIR_DEMO_SQLITE:---compare 2 --mb 128 --seconds 1}
redis=${WEIR_DEMO_REDIS:---gib 0.25 --pairs 2 --seconds 2 --rate 5000}
case $pairs in
'' | *[!0-9]* | 0) die "WEIR_DEMO_PAIRS=$pairs is not a number above 0" ;;
esac
need weir-info "run make first"
need examples/word-index-weir \
	"zlib was missing (Debian: zlib1g-dev); configure and make again"
need examples/word-index-gc \
	"libgc was missing (Debian: libgc-dev); configure and make again"
need benchmarks/bench-guile "run make first"
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
in_pairs one_run

printf '\n== Compared\n\n'
report || die "the comparison failed"

printf '\n== Guile, unmodified, on Debian'\''s libgc and on weir'\''s libgc.so.1\n\n'
lacks=$(guile_lacks)
if [ -n "$lacks" ]; then
	lacks="Left out: ${lacks% }"
	printf '%s\n' "$lacks"
	guile=--guile-note
	of_guile=$lacks
	report "$guile" "$of_guile" || die "the page could not be written"
elif in_pairs guile_run guile-trees && in_pairs guile_run guile-http; then
	printf '\n'
	guile=--guile
	of_guile=$work/guile
	report "$guile" "$of_guile" || die "the comparison of Guile failed"
else
	report --guile-note "Left out: a run on $peer failed." || :
	die "a run of Guile on $peer failed"
fi

printf '\n== SQLite in memory, saved while it is written to: snapshots, fork, its own ways\n\n'
sqlite_note=
: >"$work/sqlite"
: >"$work/redis"
if [ -x "$build/examples/sqlite-snapshot" ]; then
	# shellcheck disable=SC2086 # arguments are words
	"$build/examples/sqlite-snapshot" --out "$work/sqlite.db" --json \
		$sqlite >"$work/sqlite" || die "a run of SQLite failed"
	python3 "$here/demo_sqlite.py" <"$work/sqlite" ||
		die "SQLite was not saved as it should be"
else
	sqlite_note="Left out: SQLite was missing (Debian: libsqlite3-dev);\
 configure and make again."
	printf '%s\n' "$sqlite_note"
fi

printf '\n== Redis, unmodified, saved while it is written to: by itself and under weir-redis\n\n'
redis_note=$(redis_lacks)
if [ -n "$redis_note" ]; then
	redis_note="Left out: $redis_note"
	printf '%s\n' "$redis_note"
else
	# shellcheck disable=SC2086 # arguments are words
	python3 "$here/../benchmarks/bench_redis.py" --build "$build" --json \
		--windows 10 $redis >"$work/redis" || die "a run of Redis failed"
	python3 "$here/demo_redis.py" <"$work/redis" ||
		die "Redis was not saved as it should be"
fi

report "$guile" "$of_guile" --page-only --sqlite "$work/sqlite" \
	--sqlite-note "$sqlite_note" --redis "$work/redis" \
	--redis-note "$redis_note" || die "the page could not be written"
printf '\nThe plots: %s\n' "$page"
