#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Heap dumps: python3 reads what tests/heap_dump wrote, as Chrome DevTools
# would, and holds it against what it must say.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

dump=$WEIR_BUILDDIR/tests/heap_dump
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-heap-dump.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

cat >"$work/check.py" <<'EOF'
import json, sys
from collections import Counter

path, told, mode = sys.argv[1:]
told = dict(line.split() for line in open(told))
d = json.load(open(path, encoding="utf-8"))
snap, meta = d["snapshot"], d["snapshot"]["meta"]
nf, ef = meta["node_fields"], meta["edge_fields"]
assert nf[:5] == ["type", "name", "id", "self_size", "edge_count"], nf
assert ef == ["type", "name_or_index", "to_node"], ef
types, edge_types = meta["node_types"][0], meta["edge_types"][0]
assert len(meta["node_types"]) == len(nf)
nodes, edges, strings = d["nodes"], d["edges"], d["strings"]
N, E = len(nf), len(ef)
assert len(nodes) == N * snap["node_count"]
assert len(edges) == E * snap["edge_count"]
for key in ("trace_function_infos", "trace_tree", "samples", "locations"):
    assert d[key] == [], key
for fields in ("trace_function_info_fields", "trace_node_fields",
               "sample_fields", "location_fields"):
    assert meta[fields], fields
count = snap["node_count"]
node = [nodes[i * N:i * N + N] for i in range(count)]
assert all(0 <= n[0] < len(types) and 0 <= n[1] < len(strings) for n in node)
assert sum(n[4] for n in node) == snap["edge_count"]
ids = [n[2] for n in node]
assert len(set(ids)) == count and all(0 < i < 2 ** 32 for i in ids)
name = [strings[n[1]] for n in node]
kind = [types[n[0]] for n in node]
out, at = [], 0
for n in node:
    mine = []
    for e in range(n[4]):
        t, index, to = edges[at:at + 3]
        at += 3
        assert to % N == 0 and 0 <= to // N < count
        t = edge_types[t]
        if t in ("element", "hidden"):
            assert index >= 0
        else:
            index = strings[index]
        mine.append((t, index, to // N))
    out.append(mine)
# All of it hangs on the first node, weak edges apart.
seen, todo = {0}, [0]
while todo:
    for t, _, to in out[todo.pop()]:
        if t != "weak" and to not in seen:
            seen.add(to)
            todo.append(to)
assert len(seen) == count, "%d of %d" % (len(seen), count)
assert name[0] == "" and kind[0] == "synthetic"
assert [name[to] for _, _, to in out[0]] == ["(GC roots)"]
real = [i for i in range(count) if kind[i] != "synthetic"]
assert len(real) == int(told["objects"])
assert sum(node[i][3] for i in real) == int(told["bytes"])
assert sum(node[i][3] for i in range(count)) == int(told["bytes"])
assert set(kind[i] for i in real) == {"object", "native"}
# Leaf objects refer to nothing.
assert all(not out[i] for i in real if kind[i] == "native")
assert all(ids[i] % 2 == (kind[i] == "object") for i in real)

if mode == "known":
    def one(what):
        found = [i for i in real if name[i] == what]
        assert len(found) == 1, (what, found)
        return found[0]
    top, odd, traced = one("top"), one('odd "\\\n\u00e4\ufffd name'), one("traced")
    lows = [i for i in real if name[i] == "low"]
    assert len(lows) == 2
    low, = [i for i in lows if out[i]]
    other, = [i for i in lows if not out[i]]
    eph = one("ephemeron")
    huge = [i for i in real if kind[i] == "native" and node[i][3] >= 100000]
    assert len(huge) == 1 and name[huge[0]] == "leaf, up to 128 KiB", name[huge[0]]
    assert sorted(out[top]) == sorted([("element", 1, low),
                                       ("element", 2, huge[0])]), out[top]
    assert out[low] == [("element", 0, top)]
    assert sorted(out[eph]) == sorted([("weak", "key", top),
                                       ("internal", "value", low)])
    assert out[odd] == []
    roots = {to: name[to] for _, _, to in out[1]}
    ranges = [i for i in roots if roots[i].startswith("range ")]
    assert len(ranges) == 1 and "heap_dump" in name[ranges[0]]
    assert sorted(out[ranges[0]]) == [("element", 3, top), ("element", 4, odd),
                                      ("element", 5, eph),
                                      ("element", 6, traced)]
    weak, = [i for i in roots if roots[i] == "weak references"]
    assert out[weak] == [("weak", "weak", top)]
    others, = [i for i in roots if roots[i] == "(otherwise alive)"]
    assert [to for _, _, to in out[others]] == [other]
    assert any(roots[i].startswith("stack of thread ") for i in roots)
else:
    assert len(real) > 1000
    assert Counter(kind[i] for i in real)["native"] > 100
EOF

# dumped MODE: the program ends well.
dumped()
{
	"$dump" "$1" "$work/$1.heapsnapshot" >"$work/$1.told"
}

read_back()
{
	python3 "$work/check.py" "$work/$1.heapsnapshot" "$work/$1.told" "$1"
}

# Nothing but the file and the link to it is left.
refuses()
{
	mkdir "$work/errors" && "$dump" errors "$work/errors" || return 1
	# shellcheck disable=SC2012 # names of our own
	test "$(ls -A "$work/errors" | tr '\n' ' ')" = "file link "
}

for mode in known busy; do
	tap_run "$mode: a dump is written" dumped "$mode" || continue
	if command -v python3 >/dev/null 2>&1; then
		tap_run "$mode: it says what it must" read_back "$mode"
	else
		tap_skip "$mode: it says what it must" "no python3"
	fi
done
tap_run "errors are told, and the old file stays" refuses
tap_done
