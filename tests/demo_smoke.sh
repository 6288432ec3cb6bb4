# SPDX-License-Identifier: MIT
# The demo on a small text of its own, a few seconds long: the same answers on
# weir and on libgc, whole reports, a page that can be read, and its parts about
# Guile, SQLite and Redis, which are left out where these are missing.
. "$WEIR_SRCDIR/tests/tap.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/weir-demo-smoke.XXXXXX")
trap 'rm -rf "$work"' EXIT
weir=$WEIR_BUILDDIR/examples/word-index-weir
libgc=$WEIR_BUILDDIR/examples/word-index-gc

# A text of about 600 KiB in 25 files, one of them packed, one no text; words
# are numbers in letters, so that common and rare ones occur.
make_text()
{
	mkdir -p "$work/text/sub"
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24
	do
		awk -v seed="$i" 'BEGIN {
			srand(seed)
			for (line = 0; line < 300; line++) {
				text = ""
				for (w = 0; w < 10; w++) {
					n = int(40 * exp(6 * rand()))
					word = "word"
					for (; n; n = int(n / 26))
						word = word sprintf("%c",
							97 + n % 26)
					text = text word " "
				}
				print text
			}
		}' >"$work/text/file$i" || return 1
	done
	mv "$work/text/file23" "$work/text/file24" "$work/text/sub" || return 1
	gzip "$work/text/sub/file24" || return 1
	printf 'no\000text' >"$work/text/binary"
}

# field EXPRESSION FILE: of the JSON object in FILE, called d.
field()
{
	python3 -c 'import json, sys
with open(sys.argv[2], encoding="utf-8") as f:
    d = json.load(f)
print(eval("(" + sys.argv[1] + ")"))' "$1" "$2"
}

# same EXPRESSION: it has one value, and not an empty one, in both reports.
same()
{
	one=$(field "$1" "$work/weir.json") &&
		two=$(field "$1" "$work/libgc.json") &&
		test -n "$one" && test "$one" = "$two" && return
	echo "weir: $one" "libgc: $two"
	return 1
}

# true_in FILE EXPRESSION
true_in()
{
	test "$(field "$2" "$1")" = True
}

# index PROGRAM NAME ARGUMENT...
index()
{
	program=$1
	name=$2
	shift 2
	"$program" --json --seconds 1 --rate 500 --copies 3 --seed 7 \
		--text 16m "$@" "$work/text" >"$work/$name.json"
}

# The data in the page is JSON and holds both runs; nothing is fetched.
page_is_whole()
{
	python3 - "$1" <<'EOF'
import json
import re
import sys

with open(sys.argv[1], encoding="utf-8") as f:
    page = f.read()
data = re.search(r'<script type="application/json" id="data">(.*?)</script>',
                 page, re.S)
runs = json.loads(data.group(1))["runs"]
peers = sorted(r["peer"] for r in runs)
assert peers == ["libgc", "weir"], peers
for r in runs:
    assert r["timeline"] and r["latency_windows"]["max_ns"], r["peer"]
assert "drawPercentiles" in page and "drawGuile" in page
loads = re.findall(r'(?:src|href)\s*=|url\(|import\s*\(|fetch\s*\(', page)
assert not loads, loads
EOF
}

# With one checksum changed the comparison must fail.
notices_difference()
{
	sed 's/"checksum":"./"checksum":"x/' "$work/weir.json" \
		>"$work/wrong.json"
	if python3 "$WEIR_SRCDIR/examples/demo_report.py" \
		--page "$work/wrong.html" "$work/wrong.json" \
		"$work/libgc.json" >"$work/wrong.txt"; then
		return 1
	fi
	grep -q 'THE ANSWERS DIFFER' "$work/wrong.txt"
}

# The programs of PATH in one directory, but for Guile, wrk and Redis.
make_path()
{
	mkdir -p "$work/bin"
	(
		IFS=:
		for directory in $PATH; do
			ln -s "$directory"/* "$work/bin" 2>/dev/null
		done
	)
	rm -f "$work/bin/guile" "$work/bin/wrk" "$work/bin/redis-server"
}

# demo NAME: the tour, its text in NAME.txt, its page in NAME.html.
demo()
{
	WEIR_DEMO_PAIRS=1 \
		WEIR_DEMO_ARGS="--seconds 1 --rate 200 --text 2m $work/text" \
		WEIR_DEMO_TREES="--live-mib 10 --make-mib 64" \
		WEIR_DEMO_HTTP="--live-mib 10 --seconds 1" \
		WEIR_DEMO_SQLITE="--compare 1 --mb 4 --seconds 1" \
		WEIR_DEMO_REDIS="--gib 0.02 --pairs 1 --seconds 2" \
		"$WEIR_SRCDIR/examples/demo.sh" "$WEIR_BUILDDIR" \
		"$work/$1.html" >"$work/$1.txt"
	status=$?
	cat "$work/$1.txt"
	return "$status"
}

sqlite_table()
{
	grep -q '^  All 8 files had exactly' "$work/demo.txt" &&
		test "$(grep -c '^  .* [0-9.]* *[0-9.]* *[0-9.]* *[0-9]* % ' \
			"$work/demo.txt")" -ge 8
}

redis_table()
{
	for name in 'under weir-redis' 'by itself'; do
		grep -Eq "^  $name( +[0-9.]+){6} +-?[0-9]+\$" "$work/demo.txt" ||
			return
	done
}

# saves_in_page NAME: the page has runs of NAME, each with waits before, in and
# after its save.
saves_in_page()
{
	python3 - "$work/demo.html" "$1" <<'EOF'
import json
import re
import sys

with open(sys.argv[1], encoding="utf-8") as f:
    page = f.read()
data = re.search(r'<script type="application/json" id="data">(.*?)</script>',
                 page, re.S)
of = json.loads(data.group(1))["saves"][sys.argv[2]]
assert not of["note"] and "drawSaves" in page
kinds = set()
for r in of["runs"]:
    if sys.argv[2] == "sqlite":
        kinds.add(r["method"])
        windows, width = r["windows_us"], r["window_ms"]
        begin, end = r["save_at_ms"], r["save_at_ms"] + r["save_ms"]
        longest = r["save"]["longest_ms"] * 1e3
    else:
        kinds.add(r["kind"])
        windows, width = r["save"]["windows_us"], r["save"]["window_us"] / 1e3
        begin, end = r["save_at_s"] * 1e3, r["save_at_s"] * 1e3
        longest = r["save"]["max_us"]
    assert 0 < begin < end + width < width * len(windows), r
    assert any(windows[:int(begin / width)]), r
    # What is told of the save is among what is drawn.
    assert max(windows) >= longest * 0.98, (max(windows), longest)
print(kinds)
assert kinds == ({"plain", "weir"} if sys.argv[2] == "redis" else
                 {"weir", "fork", "serialize", "backup", "backup-steps"})
EOF
}

# rows NAME...: figures of both libraries in the table of the tour.
rows()
{
	for row; do
		grep -q "^  $row  .* [0-9].* [0-9]" "$work/demo.txt" || {
			cat "$work/demo.txt"
			echo "no row $row"
			return 1
		}
	done
}

has_bars()
{
	sed '1,/latency below/d' "$work/demo.txt" >"$work/bars.txt"
	grep -Eq '^ +[0-9]+ (ns|us|ms|s) +[^ .0-9]+ [0-9]+' "$work/bars.txt"
}

# guile_in_page PAGE FILE: the page has the runs of Guile, which go to FILE, a
# line each.
guile_in_page()
{
	python3 - "$@" <<'EOF'
import json
import re
import sys

with open(sys.argv[1], encoding="utf-8") as f:
    page = f.read()
data = re.search(r'<script type="application/json" id="data">(.*?)</script>',
                 page, re.S)
guile = json.loads(data.group(1))["guile"]
kinds = sorted((r["workload"], r["peer"]) for r in guile["runs"])
assert kinds == [(w, p) for w in ("guile-http", "guile-trees")
                 for p in ("libgc", "weir")], kinds
assert all("99.9:" in r["quantiles"] for r in guile["runs"]
           if r["workload"] == "guile-http")
assert guile["summary"] and not guile["note"]
with open(sys.argv[2], "w", encoding="utf-8") as f:
    for r in guile["runs"]:
        print(json.dumps(r), file=f)
EOF
}

# With one checksum changed the comparison of Guile must fail.
notices_guile_difference()
{
	sed '/"guile-trees", "peer": "weir"/s/"checksum": "./&x/' \
		"$work/guile" >"$work/guile.wrong"
	! cmp -s "$work/guile" "$work/guile.wrong" &&
		report_guile "$work/guile" &&
		! report_guile "$work/guile.wrong" &&
		grep -q 'THE CHECKSUMS DIFFER' "$work/wrong.txt"
}

report_guile()
{
	python3 "$WEIR_SRCDIR/examples/demo_report.py" --guile "$1" \
		--page "$work/wrong.html" "$work/weir.json" \
		"$work/libgc.json" >"$work/wrong.txt"
}

# What is missing is said in one line and in the page, and is no failure.
says_what_is_missing()
{
	said='Left out: guile is not installed (Debian: guile-3.0). '
	said=$said'wrk is not installed (Debian: wrk).'
	(PATH=$work/bin && demo bare) || return
	grep -qxF "$said" "$work/bare.txt" &&
		! grep -q 'guile-trees' "$work/bare.txt" &&
		grep -q '^Left out: redis-server is not inst' "$work/bare.txt" &&
		grep -qF '"note":"Left out: redis-server' "$work/bare.html" &&
		grep -qF "\"note\":\"$said\"" "$work/bare.html"
}

# What holds one thread counts too, and no table leaves it out.
longest_counts_all()
{
	python3 - "$WEIR_SRCDIR/examples" <<'EOF'
import sys

sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import demo_report

run = {"pauses": {"max_ns": 5, "total_ns": 7},
       "assists": {"max_ns": 9, "total_ns": 10}}
assert demo_report.longest_hold(run) == 9
assert demo_report.total_hold(run) == 17
EOF
}

hello()
{
	"$WEIR_BUILDDIR/examples/hello" >"$work/hello.txt" || return
	cat "$work/hello.txt"
	grep -q '^the list has 1000 nodes; the first says "number 999999"$' \
		"$work/hello.txt" &&
		grep -q '^[1-9][0-9]* full' "$work/hello.txt" &&
		grep -q 'alive after the collection [1-9]' "$work/hello.txt"
}

no_text()
{
	mkdir -p "$work/empty"
	"$weir" "$work/empty" 2>"$work/empty.err" && return 1
	grep -q 'no text' "$work/empty.err"
}

if [ ! -x "$weir" ]; then
	tap_skip "the demo" "built without zlib"
	tap_done
	exit 0
fi
tap_run "hello keeps its list and counts its collection" hello
tap_run "a small text is made" make_text
tap_run "word-index runs on weir" index "$weir" weir
tap_run "all text files were read, the binary one was not" \
	true_in "$work/weir.json" \
	'd["corpus"]["files"] == 24 and d["corpus"]["skipped"] == 1'
tap_run "every query was answered and the index was built anew" \
	true_in "$work/weir.json" 'd["queries"]["count"] == 500
	and d["latency_ns"]["count"] == 500 and d["index"]["segments"] > 0
	and d["queries"]["matches"] >= 500'
tap_run "the histogram has every query" true_in "$work/weir.json" \
	'sum(b[2] for b in d["latency_histogram"]) == 500'
tap_run "no text is an error" no_text
if [ ! -x "$libgc" ]; then
	tap_skip "the comparison with libgc" "built without libgc"
	tap_done
	exit 0
fi
tap_run "word-index runs on libgc" index "$libgc" libgc
tap_run "both read the same text" same 'd["corpus"]'
tap_run "both built the same index" \
	same '(d["build"]["terms"], d["build"]["postings"])'
tap_run "both gave the same answers" same 'd["queries"]'
tap_run "weir with one builder and a cache of three runs" \
	index "$weir" weir --builders 1 --cache 3
tap_run "weir with one builder gives the same answers" same '(d["queries"]["checksum"], d["queries"]["matches"])'
# heap-min: collect often, however slow the machine is.
for options in verify=on barrier=none generational=off,thp=off
do
	WEIR_OPTIONS=$options,heap-min=1m
	export WEIR_OPTIONS
	tap_run "weir with $options runs" index "$weir" weir
	tap_run "weir with $options collected" true_in "$work/weir.json" \
		'd["index"]["collections"] > 0'
	tap_run "weir with $options gives the same answers" same 'd["queries"]'
	unset WEIR_OPTIONS
done
tap_run "weir with another seed runs" index "$weir" other --seed 8
tap_run "other queries give another checksum" true_in "$work/other.json" \
	"d['queries']['checksum'] != '$(field 'd["queries"]["checksum"]' \
		"$work/weir.json")'"
tap_run "a difference is noticed" notices_difference
tap_run "a PATH without Guile is made" make_path
with_guile=yes
for program in guile wrk; do
	command -v "$program" >/dev/null || with_guile="no $program"
done
if [ "${WEIR_SANITIZER:-no}" != no ]; then
	with_guile="Guile and $WEIR_SANITIZER exclude each other"
	PATH=$work/bin
fi
tap_run "the whole tour" demo demo
tap_run "the table of the search engine" rows 'throughput: text re-indexed' \
	'query latency, p50' 'query latency, p99' 'query latency, p99.9' \
	'query latency, longest' 'longest pause, assist or handshake' \
	'peak memory (resident)'
tap_run "the histogram has bars" has_bars
tap_run "assists and handshakes are among the pauses" longest_counts_all
tap_run "its page is whole" page_is_whole "$work/demo.html"
if [ -x "$WEIR_BUILDDIR/examples/sqlite-snapshot" ]; then
	tap_run "SQLite was saved in every way, rightly" sqlite_table
	tap_run "the page has the saves of SQLite" saves_in_page sqlite
else
	tap_skip "the table of SQLite" "built without SQLite"
fi
if grep -q '^Left out: .*redis' "$work/demo.txt"; then
	tap_skip "the table of Redis" \
		"$(grep '^Left out: .*redis' "$work/demo.txt")"
else
	tap_run "the table of Redis" redis_table
	tap_run "the page has the saves of Redis" saves_in_page redis
fi
if [ "$with_guile" = yes ]; then
	tap_run "the table of Guile" rows 'trees: wall time' \
		'trees: longest pause' 'trees: peak memory (resident)' \
		'http: requests a second' 'http: response, p50' \
		'http: response, p99' 'http: response, p99.9' \
		'http: response, longest' 'http: longest pause'
	tap_run "the page has the runs of Guile" guile_in_page \
		"$work/demo.html" "$work/guile"
	tap_run "another checksum of Guile is noticed" notices_guile_difference
else
	tap_skip "the tour's part about Guile" "$with_guile"
fi
tap_run "without Guile and wrk the tour says so" says_what_is_missing
tap_done
