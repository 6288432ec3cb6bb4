#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The benchmarks at tiny sizes: every workload runs on every peer, all peers
# do the same work, the JSON holds every peer and every ratio.  And the driver
# itself on peers that are scripts, whose figures are known: medians, ratios,
# a peer that dies, that is not there, that does other work.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"
. "$WEIR_SRCDIR/tests/bench.sh"

bin=$WEIR_BUILDDIR/benchmarks
work=$WEIR_BUILDDIR/tests/bench_smoke.work
rm -rf "$work"
mkdir -p "$work/fake"

# ---- The driver, on peers that are scripts -------------------------------

# fake NAME WALL...: bench-NAME prints these wall times, one a run.
fake()
{
	name=$1
	shift
	printf '%s\n' "$@" >"$work/fake/$name.walls"
	cat >"$work/fake/bench-$name" <<-END
		#!/bin/sh
		wall=\$(sed -n 1p "$work/fake/$name.walls")
		sed -i 1d "$work/fake/$name.walls"
		echo '{"workload":"gcbench","peer":"$name","params":"",' \\
			'"wall_s":'\$wall',"throughput":8,"peak_rss":4096,' \\
			'"pause_max_ns":null,"checksum":"aa"}' | tr -d ' '
	END
	chmod +x "$work/fake/bench-$name"
}

drive()
{
	"$bin/weir-bench" --bin "$work/fake" --no-choose "$@"
}

drive_to()
{
	out=$1
	shift
	drive "$@" >"$out"
}

fake weir 1 2 9
fake gc 2 8 9
tap_run "three rounds of two scripts" drive_to "$work/fake.json" \
	--json --pairs 3 --peers weir,libgc gcbench
# Ratios of the rounds: 0.5, 0.25, 1.
tap_run "the ratio's median, minimum and maximum" holds "$work/fake.json" \
	'd["ratios"]["weir/libgc"]["wall_s"] == {"median": 0.5, "min": 0.25, "max": 1}'
tap_run "a ratio that cannot be is null" holds "$work/fake.json" \
	'd["ratios"]["weir/libgc"]["pause_max_ns"] is None'
tap_run "every run is in the JSON" holds "$work/fake.json" \
	'[len(d["runs"][p]) for p in ("weir", "libgc")] == [3, 3]'

# libgc: default 5 s, incremental dies, markers=1 3 s, the others slower.
cat >"$work/fake/bench-gc" <<'END'
#!/bin/sh
wall=5
[ -z "${GC_ENABLE_INCREMENTAL:-}" ] || kill -ABRT $$
[ "${GC_MARKERS:-}" != 1 ] || wall=3
case $* in
*--no-interior*) wall=1 ;;
esac
echo '{"params":"","wall_s":'$wall',"checksum":"aa"}'
END
fake weir 1
tap_run "libgc's configurations are tried" drive_to "$work/choose.json" \
	--choose --json --pairs 1 --peers weir,libgc gcbench
tap_run "the fastest of them that keeps libgc's promises is taken" \
	holds "$work/choose.json" '"libgc-markers=1" in d["runs"]'
tap_run "one that dies is told with its signal" holds "$work/choose.json" \
	'd["trials"]["libgc-incremental"] == [{"aborted": 6}] * 3'

# One lucky run does not make a configuration the best: markers=1 has walls 1,
# 9, 9 and the others 5.
cat >"$work/fake/bench-gc" <<END
#!/bin/sh
wall=5
if [ "\${GC_MARKERS:-}" = 1 ]; then
	wall=\$(sed -n 1p "$work/fake/lucky")
	sed -i 1d "$work/fake/lucky"
fi
[ -z "\${GC_NPROCS:-}" ] || wall=4
echo '{"params":"","wall_s":'\$wall',"checksum":"aa"}'
END
printf '%s\n' 1 9 9 >"$work/fake/lucky"
fake weir 1
tap_run "each is tried three times" drive_to "$work/median.json" \
	--choose --json --pairs 1 --peers weir,libgc gcbench
tap_run "and the best median is taken" holds "$work/median.json" \
	'"libgc-nprocs=1" in d["runs"] and
	len(d["trials"]["libgc-markers=1"]) == 3'

# targets write-storm, with these longest pauses, in nanoseconds.
storm_with()
{
	for pair in weir:$1 gc:$2; do
		cat >"$work/fake/bench-${pair%%:*}" <<-END
			#!/bin/sh
			case "\${GC_ENABLE_INCREMENTAL:-}" in 1) kill -ABRT \$\$ ;; esac
			echo '{"params":"","throughput":8,"pause_max_ns":${pair##*:},"checksum":"aa"}'
		END
		chmod +x "$work/fake/bench-${pair%%:*}"
	done
	"$bin/weir-bench" --bin "$work/fake" --json --pairs 2 \
		targets write-storm >"$work/storm.json"
}

tap_run "write-storm: a short pause meets the target" \
	status 0 storm_with 900000 500000000
tap_run "write-storm: pauses are judged against libgc's best" holds \
	"$work/storm.json" '[t["value"] for t in d["targets"]
	if "longest pause" in t["what"]] == [0.0018]'
tap_run "write-storm: a long pause misses it" \
	status 1 storm_with 2000000 500000000
tap_run "write-storm: no figure of libgc's misses it" \
	status 1 storm_with 900000 null

cat >"$work/fake/bench-gc" <<'END'
#!/bin/sh
echo '{"params":"","wall_s":5,"checksum":"aa"}'
END
echo 'kill -SEGV $$' >>"$work/fake/bench-gc"
fake weir 1
tap_run "a peer that crashes fails the benchmark" \
	status 2 drive --pairs 1 --peers weir,libgc gcbench
fake weir 1
tap_run "a peer that is not there fails the benchmark" \
	status 2 drive --pairs 1 --peers weir,malloc gcbench
fake weir 1
fake gc 1
sed -i 's/"aa"/"bb"/' "$work/fake/bench-gc"
tap_run "a peer that does other work fails the benchmark" \
	status 2 drive --pairs 1 --peers weir,libgc gcbench
tap_run "an unknown workload is an error" status 2 drive nonesuch
tap_run "an unknown option is an error" status 2 drive --nonesuch gcbench

# ---- The peers -----------------------------------------------------------

peers="weir weir-idle libgc libgc-idle malloc jemalloc"
if [ "${WEIR_SANITIZER:-no}" != no ]; then
	tap_skip "the workloads on every peer" \
		"the peers' allocators and $WEIR_SANITIZER exclude each other"
	tap_done
	exit 0
fi

# The first cycle soon, so that small runs have some.
WEIR_OPTIONS=${WEIR_OPTIONS:+$WEIR_OPTIONS,}heap-min=1m
export WEIR_OPTIONS

# small WORKLOAD [PARAMETER...]: all peers, one round.
small()
{
	tap_run "$*: weir against all peers" all_peers "$@"
	for only in $peers; do
		tap_run "$1 on $only" holds "$work/all.json" \
			"d['runs']['$only'][0]['ops'] > 0"
	done
}

all_peers()
{
	rm -f "$work/all.json"
	"$bin/weir-bench" --json --pairs 1 --no-choose \
		--peers "$(echo "$peers" | tr ' ' ',')" "$@" \
		>"$work/all.json" &&
		holds "$work/all.json" \
			'all(d["ratios"]["weir/" + p]["wall_s"]["median"] > 0
			for p in d["runs"] if p != "weir") and len(d["runs"]) == 6'
}

small gcbench --max 12 --long 10 --rounds 1 --array 1000
small binary-trees --max 13
small mt-trees --max 13 --mutators 2
small graph-latency --live 4m --ops 40000 --shape wide
small graph-latency --live 4m --ops 40000 --shape hot --rate 400000
small churn --entries 2000 --keys 8000 --ops 40000
small write-storm --live 4m --ms 150

# What the collector says that it held the one mutator for is seen from outside
# too: with every cycle one stop, and a little less than the pause for what the
# mutator did before the stop reached it.  Five chances: the two clocks are read
# by threads that may have to wait for a processor.
pauses_are_seen()
{
	for try in 1 2 3 4 5; do
		WEIR_OPTIONS=barrier=none "$bin/bench-weir" graph-latency \
			--live 48m --ops 200000 >"$work/seen.json" || return
		if holds "$work/seen.json" 'd["pause_max_ns"] > 2000000 and
			d["stall_max_ns"] >= d["pause_max_ns"] - 1000000'; then
			return
		fi
		cat "$work/seen.json"
	done
	return 1
}

tap_run "own pauses are seen from outside" pauses_are_seen
tap_run "the JSON has the utilisation and compares own and outside pauses" \
	holds "$work/seen.json" '0 <= d["mmu10"] < 1 and
	d["stall_over_pause_ns"] == d["stall_max_ns"] - d["pause_max_ns"] and
	d["pause_max_ns"] >= max(d["handshake_max_ns"], d["assist_max_ns"])'
tap_run "malloc has a utilisation and no pauses" holds "$work/all.json" \
	'0 <= d["runs"]["malloc"][0]["mmu10"] <= 1 and
	d["runs"]["malloc"][0]["stall_over_pause_ns"] is None'

# Guile on both libraries, with defaults but for the sizes.
guile()
{
	WEIR_OPTIONS= "$bin/weir-bench" --pairs 1 --json "$@" \
		>"$work/guile.json" && holds "$work/guile.json" \
		'sorted(d["runs"]) == ["guile-libgc", "guile-weir"]'
}

if ! command -v guile >/dev/null; then
	tap_skip "Guile on both libraries" "guile is not installed"
else
	tap_run "trees in Guile on both libraries" \
		guile guile-trees --live-mib 10 --make-mib 128
	tap_run "trees in Guile have one checksum" holds "$work/guile.json" \
		'len({r["checksum"] for p in d["runs"] for r in d["runs"][p]}) == 1
		and d["ratios"]["guile-weir/guile-libgc"]["wall_s"]["median"] > 0'
fi
if ! command -v guile >/dev/null || ! command -v wrk >/dev/null; then
	tap_skip "a web server in Guile" "guile or wrk is not installed"
else
	tap_run "a web server in Guile on both libraries" \
		guile guile-http --live-mib 10 --seconds 1
	tap_run "both have a 99.9 % of responses" holds "$work/guile.json" \
		'all(r["p999_ns"] > 0 for p in d["runs"] for r in d["runs"][p])'
fi

tap_run "a collector that never ran is an error" \
	status 3 env WEIR_OPTIONS=heap-min=1g \
	"$bin/bench-weir" gcbench --max 6 --long 6 --rounds 1 --array 1000
tap_run "a bad parameter is an error" \
	status 2 "$bin/bench-weir" gcbench --nonesuch 1
tables()
{
	"$bin/weir-bench" --pairs 2 --no-choose --peers weir,malloc \
		binary-trees --max 13 >"$work/tables.txt" || return
	for head in 'handshake' 'seen less own' 'MMU 10 ms, %' 'CPU s'; do
		grep -q "$head" "$work/tables.txt" || {
			echo "no column $head"
			return 1
		}
	done
}

tap_run "the tables" tables

tap_run "each back end of the write barrier against a bare loop" \
	"$bin/weir-bench" --pairs 2 barrier --size 4m --pages 256
tap_done
