# SPDX-License-Identifier: MIT
# The demo on a small text of its own, a few seconds long: the same answers on
# weir and on libgc, whole reports, and a page that can be read.
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
assert "drawPercentiles" in page
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

# The tour, and what its table and histogram must have.
tour()
{
	WEIR_DEMO_PAIRS=1 \
		WEIR_DEMO_ARGS="--seconds 1 --rate 200 --text 2m $work/text" \
		"$WEIR_SRCDIR/examples/demo.sh" "$WEIR_BUILDDIR" \
		"$work/demo.html" >"$work/demo.txt" || return
	cat "$work/demo.txt"
	for row in 'throughput' 'query latency, p50' 'query latency, p99' \
		'query latency, p99.9' 'query latency, longest' \
		'longest pause, assist or handshake' 'peak memory'; do
		grep -q "^  $row.* [0-9].* [0-9]" "$work/demo.txt" || {
			echo "no row $row"
			return 1
		}
	done
	sed '1,/latency below/d' "$work/demo.txt" >"$work/bars.txt"
	grep -Eq '^ +[0-9]+ (ns|us|ms|s) +[^ .0-9]+ [0-9]+' \
		"$work/bars.txt" || {
		echo "no bar in the histogram"
		return 1
	}
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
tap_run "the whole tour, with its table and histogram" tour
tap_run "assists and handshakes are among the pauses" longest_counts_all
tap_run "its page is whole" page_is_whole "$work/demo.html"
tap_done
