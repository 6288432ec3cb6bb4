#!/bin/sh
# SPDX-License-Identifier: MIT
#
# weir-snap: what it prints, its exit status, what it leaves behind.  A reader
# of the format in Python, written by docs/SNAPSHOT-FORMAT.md, must agree with
# what it restores.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

snap=$WEIR_BUILDDIR/weir-snap
work=$WEIR_BUILDDIR/tests/weir_snap.work
rm -rf "$work"
mkdir -p "$work"
if ! "$WEIR_BUILDDIR/tests/fuzz_image" --seeds "$work"; then
	tap_not_ok "snapshot files for the test"
	tap_done
	exit 0
fi
cd "$work" || exit 1
# 0: whole; 1 and 2: deltas that follow it; the others follow nothing.

# status WANTED ARGUMENT...: exit status; output in out and err.
status()
{
	wanted=$1
	shift
	"$snap" "$@" >out 2>err
	got=$?
	[ "$got" -eq "$wanted" ] || {
		echo "weir-snap $*: exit status $got, not $wanted"
		cat err
		return 1
	}
}

quiet()
{
	status 0 "$@" && [ ! -s err ] && [ -s out ]
}

refused()
{
	status 2 "$@" && [ ! -s out ] && grep -q '^usage:' err
}

# fails WANTED TEXT ARGUMENT...: and says so.
fails()
{
	want=$1
	text=$2
	shift 2
	status "$want" "$@" && grep "^weir-snap: .*$text" err || {
		cat err
		return 1
	}
}

# ---- Arguments

tap_run "--version" quiet --version
tap_run "--help" quiet --help
tap_run "no command" refused
tap_run "an unknown command" refused frob seed-0
tap_run "no file" refused info
tap_run "an option of another command" refused info --each seed-0
tap_run "an unknown option" refused diff --frob seed-0 seed-0
tap_run "an option without its argument" refused restore -o
tap_run "diff of three" refused diff seed-0 seed-0 seed-0

# ---- info and verify

tap_run "info" quiet info seed-0
tap_run "info names the regions" grep -q 'region 1 "region 1": 12288 bytes' out
tap_run "info of a delta" quiet info seed-1
tap_run "info says what it follows" grep -q '^  follows [0-9a-f]*$' out
tap_run "info of some, one is none" \
	fails 1 'this is not a regular file' info seed-0 /dev/null seed-1
tap_run "verify a chain" quiet verify seed-0 seed-1
tap_run "verify a delta alone" fails 1 'the first file is a delta' \
	verify seed-1
tap_run "verify each" quiet verify --each seed-1 seed-0 seed-2
tap_run "verify in the wrong order" fails 1 'not a chain' verify seed-1 seed-0
tap_run "verify with one left out" fails 1 'that follows snapshot' \
	verify seed-0 seed-1 seed-2
tap_run "a file that is not there" fails 2 'none: cannot open' verify none

size=$(wc -c <seed-0)
head -c $((size - 1)) seed-0 >torn
tap_run "a torn file, and where" \
	fails 1 "torn: at byte $((size - 1)): the file ends in the middle" \
	verify torn
cp seed-0 changed
printf 'x' | dd of=changed bs=1 seek=9000 conv=notrunc 2>dd.log
tap_run "a changed file, and what to do" \
	fails 1 'changed: at byte [0-9]*: the checksum .*; .*copy' \
	verify --each seed-0 changed
full()
{
	"$snap" info seed-0 >/dev/full 2>err
	[ $? -eq 2 ] && grep -q 'cannot write' err
}
tap_run "a full disk" full

# ---- diff

tap_run "diff of the same" status 0 diff seed-0 seed-0
tap_run "diff with a delta" status 1 diff seed-0 seed-0,seed-1
tap_run "diff tells ranges" grep -q '^  0x1[0-9a-f]* + [0-9]*$' out
tap_run "diff counts pages" grep -q '^  [1-9] pages of 9 differ$' out
pages=$(awk '/ pages of / { n += $1 } END { print n }' out)
"$snap" diff --pages seed-0 seed-0,seed-1 >out
tap_run "diff --pages has a line a page" \
	test "$(grep -c ' + 4096$' out)" -eq "$pages"
tap_run "diff of what is damaged" fails 2 'torn: at byte' diff seed-0 torn
tap_run "diff of other regions" status 1 diff seed-0 seed-7

# ---- restore

tap_run "restore" quiet restore seed-0
tap_run "restore makes a file for each region" \
	test -f seed-0.raw.0 -a -f seed-0.raw.1 -a ! -e seed-0.raw
tap_run "restore as long as the region" \
	test "$(wc -c <seed-0.raw.0)" -eq 36864
tap_run "restore of a chain, elsewhere" quiet restore -o chain seed-0 seed-1
tap_run "which differs" eval '! cmp -s seed-0.raw.0 chain.0'
tap_run "restore of one region" quiet restore -o one seed-7
tap_run "is one file" test -f one -a ! -e one.0
echo old >kept
tap_run "restore of what is damaged" fails 1 'torn: at byte' \
	restore -o kept torn
tap_run "leaves what was there" test "$(cat kept)" = old
tap_run "restore to where nothing can be written" \
	fails 2 'cannot open its directory' restore -o none/out seed-0
tap_run "restore to a device" fails 2 'not a regular file' \
	restore -o /dev/null seed-7
tap_run "nothing else is left" \
	test -z "$(find . -name '.weir-*')"

# ---- JSON, and the format by its description

if ! command -v python3 >/dev/null; then
	tap_skip "JSON" "no python3"
	tap_skip "the format by its description" "no python3"
	tap_done
	exit 0
fi

json()
{
	"$snap" info --json seed-0 seed-1 >info.json &&
		{ "$snap" diff --json seed-0 seed-0,seed-1 >diff.json
		[ $? -eq 1 ]; } &&
		"$snap" diff --json seed-0 seed-0 >same.json &&
		python3 - <<'END'
import json
whole, delta = json.load(open("info.json"))
assert whole["base"] is None and delta["base"] == whole["id"]
assert [r["bytes"] for r in whole["regions"]] == [36864, 12288]
assert whole["regions"][0]["name"] == "region 0"
diff = json.load(open("diff.json"))
assert diff["differ"] and len(diff["regions"]) == 2
for r in diff["regions"]:
    assert r["bytes"] == sum(x["bytes"] for x in r["ranges"])
same = json.load(open("same.json"))
assert not same["differ"] and not any(r["bytes"] for r in same["regions"])
END
}
tap_run "JSON" json

by_description()
{
	python3 - <<'END'
import struct

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff

def without(data, at):
    return crc32c(data[:at] + bytes(4) + data[at + 4:])

f = open("seed-0", "rb").read()
magic, version, length, page, kind, flags, count, ident, base, zero, crc = \
    struct.unpack_from("<8s6I16s16s12sI", f)
assert magic == b"\x89WEIR\r\x1a\n" and version == 1
assert crc == without(f[:length], 76)
regions = []
for i in range(count):
    address, size, unit, rflags, zero, name = \
        struct.unpack_from("<QQQII32s", f, 80 + 64 * i)
    regions.append(bytearray(size))
at, sequence, chain = length, 0, struct.pack("<I", crc)
pages = [0, 0]
while f[at:at + 4] == b"WCHK":
    kind, codec, number, offset, runs, head, stored, raw, crc, hcrc, owner = \
        struct.unpack_from("<HHQQIIIIII16s", f, at + 4)
    assert (kind, codec, number, offset, owner) == (1, 0, sequence, at, ident)
    assert hcrc == without(f[at:at + head], 44)
    payload = f[at + head:at + head + stored]
    assert crc == crc32c(payload) if stored else crc == 0
    taken = 0
    for i in range(runs):
        first, n, region, rflags = \
            struct.unpack_from("<QIHH", f, at + 64 + 16 * i)
        pages[rflags] += n
        if not rflags:
            regions[region][first * page:(first + n) * page] = \
                payload[taken:taken + n * page]
            taken += n * page
    assert taken == raw == stored
    chain += struct.pack("<I", hcrc)
    at += head + stored
    sequence += 1
assert f[at:at + 4] == b"WEND" and len(f) == at + 104
data, none, size, when, check, zero = struct.unpack_from("<QQQQII", f, at + 64)
assert [data, none] == pages and size == len(f) and check == crc32c(chain)
for i, r in enumerate(regions):
    assert bytes(r) == open("seed-0.raw.%d" % i, "rb").read(), i
END
}
tap_run "the format by its description" by_description
tap_done
