#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The benchmark of snapshots at tiny sizes: each method, with small pages and
# huge ones, one writer and two, a file and none; each verifies its image.  And
# that a wrong one would be found: a byte that differs, a write too late, a page
# that is lost.  Then the driver: tables and JSON, and what it makes of figures
# that are known.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"
. "$WEIR_SRCDIR/tests/bench.sh"

bin=$WEIR_BUILDDIR/benchmarks
work=$WEIR_BUILDDIR/tests/bench_snapshot.work
rm -rf "$work"
mkdir -p "$work/fake"

if [ "${WEIR_SANITIZER:-no}" != no ]; then
	tap_skip "snapshots against fork" "fork's child and $WEIR_SANITIZER"
	tap_done
	exit 0
fi

small()
{
	"$bin/bench-snapshot" --size 32m --before 20 "$@"
}

# one METHOD EXPRESSION [PARAMETER...]: the run is right, and its record.
one()
{
	method=$1
	expression=$2
	shift 2
	small --method "$method" "$@" >"$work/one.json" &&
		holds "$work/one.json" "d['verified'] and $expression"
}

# A barrier that this user or kernel has not is no failure of the benchmark.
methods="fork"
for method in sync sigbus end; do
	if small --method $method --rate 1000 >/dev/null 2>"$work/why"; then
		methods="$methods $method"
	elif grep -q "^bench-snapshot: region: " "$work/why"; then
		tap_skip "$method" "$(head -n 1 "$work/why")"
	else
		tap_not_ok "$method"
		cat "$work/why" >&2
	fi
done
if [ "$methods" = fork ]; then
	tap_skip "snapshots against fork" "there is no barrier to be had here"
	tap_done
	exit 0
fi
tap_run "weir: whichever may be had" one weir "d['barrier'] in '$methods'"

# The whole rate of writes at every page: each method meets some faults, or has
# pages to hand over again.
for method in $methods; do
	tap_run "$method: small pages" one $method \
		"d['begin_ns'] > 0 and d['save_ns'] > 0 and d['max_ns'] > 0"
	tap_run "$method: two writers, as fast as they can, whole lines" \
		one $method "d['faults'] > 0 or d['again_bytes'] > 0" \
		--writers 2 --rate 0 --where uniform --store 64
	tap_run "$method: huge pages" one $method "d['begin_ns'] > 0" \
		--pages huge
	tap_run "$method: a file" one $method "d['save_ns'] > 0" \
		--file "$work/image"
	tap_run "$method: a slow sink" one $method \
		"d['save_ns'] > 150000000" --sink-rate 200m
	for plant in byte late lost; do
		tap_run "$method: an error is found: $plant" \
			status 1 small --method $method --plant $plant
	done
done
tap_run "no file is left" test ! -e "$work/image"
# The sink is slower than writers are where a fault takes 100 us.
tap_run "a small pool is waited for" one weir \
	"d['waits'] > 0 and d['pool_peak'] <= 1 << 20" \
	--pool 1m --rate 0 --where uniform --sink-rate 20m
tap_run "a file that cannot be made is an error" \
	status 2 small --file "$work/nonesuch/image"
tap_run "a size that does not fit is an error" status 2 small --size 4096g
tap_run "a bad parameter is an error" status 2 small --nonesuch 1
tap_run "a bad number is an error" status 2 small --rate many

# ---- The driver ----------------------------------------------------------

drive()
{
	out=$1
	shift
	"$bin/weir-bench" --pairs 1 "$@" >"$work/$out"
}

tap_run "weir against fork" drive pair.json --json \
	snapshot --size 32m --before 20
tap_run "the JSON has both and their ratio" holds "$work/pair.json" \
	'd["ratios"]["snapshot-weir/snapshot-fork"]["begin_ns"]["median"] > 0'
tap_run "the table" drive table snapshot --size 32m --before 20
for head in 'begin ms' 'max ms, prepare' 'before: p50 us' 'extra MiB'; do
	tap_run "it has a column $head" grep -q "$head" "$work/table"
done
tap_run "a wrong image fails the benchmark" status 2 drive wrong \
	snapshot --size 32m --before 20 --plant byte

# The driver on a script, whose figures are known: weir's begin takes $1, its
# longest response $2, its memory $3; fork's all 1000000000.
known()
{
	cat >"$work/fake/bench-snapshot" <<-END
		#!/bin/sh
		begin=1000000000 longest=1000000000 extra=1000000000
		case "\$*" in
		*fork*) ;;
		*) begin=$1 longest=$2 extra=$3 ;;
		esac
		echo '{"params":"","checksum":"verified","begin_ns":'\$begin',' \\
			'"longest_ns":'\$longest',"p999_ns":'\$longest',' \\
			'"throughput":1,"extra_bytes":'\$extra'}' | tr -d ' '
	END
	chmod +x "$work/fake/bench-snapshot"
	"$bin/weir-bench" --bin "$work/fake" --pairs 2 --json \
		targets snapshot >"$work/known.json"
}

tap_run "targets: what meets them" status 0 known 50000000 100000000 67108864
tap_run "targets: as many as there are" holds "$work/known.json" \
	'len(d["targets"]) == 7 and all(t["met"] for t in d["targets"])'
tap_run "targets: a begin too long" status 1 known 51000000 1 67108864
tap_run "targets: a response too long" status 1 known 1 101000000 67108864
tap_run "targets: too much memory" status 1 known 1 1 100000000

rates()
{
	known 1 "$1" 1
	"$bin/weir-bench" --bin "$work/fake" --pairs 1 --peers snapshot-end \
		snapshot-rates >"$work/rates"
	grep "p99.9: $2" "$work/rates"
}

tap_run "rates: fork is better" rates 2000000000 \
	"fork's is the better one from 10000 writes/s on"
tap_run "rates: only of snapshots" status 2 "$bin/weir-bench" --pairs 1 \
	--peers libgc snapshot-rates
tap_run "rates: weir is better" rates 500000000 "weir's is the better one"
tap_done
