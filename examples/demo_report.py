#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare runs of word-index on weir and on libgc, and of programs in Guile.

Reads the JSON objects that the runs printed, in the order they ran, prints a
table and a histogram of the query latency, and writes one self-contained HTML
page.  With --guile, a file of the lines that bench-guile printed, the table is
of these, and the page has both; --guile-note says in the page why they are not
there.  --sqlite and --redis are files of the lines that sqlite-snapshot and
bench_redis.py printed, for the page; an empty one goes with a note of why.
--page-only: no table.  Ends with status 1 if the runs did not give the same
answers.

usage: demo_report.py --page FILE [--info FILE] [--remark TEXT] [--page-only]
                      [--guile FILE | --guile-note TEXT]
                      [--sqlite FILE --sqlite-note TEXT]
                      [--redis FILE --redis-note TEXT] RUN.json...
"""
import argparse
import json
import math
import os
import platform
import statistics
import sys

sys.dont_write_bytecode = True  # the directory may not be ours to write to
import demo_guile
from demo_table import (PEERS, make_row, print_table, show_rate, show_size,
                        show_time)

SAVED = ("sqlite", "redis")
HERE = os.path.dirname(os.path.abspath(__file__))


def load(names):
    runs = []
    for name in names:
        with open(name, encoding="utf-8") as f:
            runs.append(json.load(f))
    by_peer = {p: [r for r in runs if r["peer"] == p] for p in PEERS}
    for peer in PEERS:
        if not by_peer[peer]:
            sys.exit(f"demo_report: no run of {peer} among {' '.join(names)}")
    return runs, by_peer


# ---- Figures ---------------------------------------------------------------


def merged(runs):
    """The runs' latency histograms as one: {lowest ns: [width, count]}."""
    buckets = {}
    for run in runs:
        for low, width, count in run["latency_histogram"]:
            buckets.setdefault(low, [width, 0])[1] += count
    return buckets


def quantile(runs, q):
    buckets = merged(runs)
    rank = max(1, round(q * sum(c for _, c in buckets.values())))
    longest = max(r["latency_ns"]["max"] for r in runs)
    seen = 0
    for low in sorted(buckets):
        width, count = buckets[low]
        seen += count
        if seen >= rank:
            return min(low + width - 1, longest)
    return longest


def longest_hold(run):
    return max(run["pauses"]["max_ns"], run["assists"]["max_ns"])


def usual_stop(run):
    """Half of the stops of all threads in the measured part are shorter."""
    stops = [e[1] for e in run["events"] if e[4] == "pause" and e[0] >= 0]
    return statistics.median(stops) if stops else 0


def total_hold(run):
    return run["pauses"]["total_ns"] + run["assists"]["total_ns"]


def cpu(run):
    return run["cpu"]["user_ns"] + run["cpu"]["system_ns"]


def summarise(by_peer):
    """Rows of the table, each with how the runs of a peer become one."""
    rows = []

    def row(*args, **more):
        rows.append(make_row(by_peer, *args, **more))

    row("throughput: text re-indexed", show_rate,
        lambda r: r["index"]["bytes_per_s"], tile=True)
    for key, q, name, tile in (
        ("p50", 0.5, "query latency, p50", False),
        ("p99", 0.99, "query latency, p99", True),
        ("p999", 0.999, "query latency, p99.9", False),
    ):
        row(name, show_time, lambda r, k=key: r["latency_ns"][k], tile=tile,
            whole=lambda runs, q=q: quantile(runs, q))
    row("query latency, longest", show_time, lambda r: r["latency_ns"]["max"],
        over=max)
    row("longest pause, assist or handshake", show_time, longest_hold, over=max, tile=True)
    row("  of it: all threads stopped", show_time,
        lambda r: r["pauses"]["max_ns"], over=max)
    row("  all threads stopped, median", show_time, usual_stop)
    row("time in all of them", show_time, total_hold)
    row("  in the first build, longest", show_time,
        lambda r: max(r["build_pauses"]["max_ns"],
                      r["build_assists"]["max_ns"]), over=max)
    row("peak memory (resident)", show_size, lambda r: r["peak_rss"],
        over=max, tile=True)
    row("CPU time, measured part", show_time, cpu)
    row("first build", show_time, lambda r: r["build"]["seconds"] * 1e9)
    row("the machine: sampler late, p99", show_time,
        lambda r: r["noise_ns"]["p99"])
    return rows


def remarks(runs):
    """What the reader must know; and whether the answers agree."""
    said, agree = [], True
    if len({r["corpus"]["crc32"] for r in runs}) > 1:
        said.append("The files changed between the runs: their answers "
                    "cannot be compared.")
    elif len({(r["corpus"]["copies"], r["queries"]["rate"],
               r["queries"]["count"], r["queries"]["seed"])
              for r in runs}) > 1:
        said.append("The runs had different settings: their answers cannot "
                    "be compared.")
    elif len({r["queries"]["checksum"] for r in runs}) > 1:
        said.append("THE ANSWERS DIFFER between runs on the same text.")
        agree = False
    else:
        said.append(f"All {len(runs)} runs gave the same answers (checksum "
                    f"{runs[0]['queries']['checksum']}).")
    for peer in PEERS:
        late = [r for r in runs if r["peer"] == peer
                and r["seconds"] > 1.05 * r["queries"]["count"]
                / r["queries"]["rate"]]
        if late:
            said.append(f"{peer} could not keep up in {len(late)} of its "
                        "runs: they took longer than planned.")
    said.append("Percentiles are of all runs of a peer together, \"longest\" "
                "and memory are the largest, the rest medians; the last "
                "column is the ratio weir/libgc in each pair.")
    return said, agree


# ---- The terminal ----------------------------------------------------------


def bins(runs, edges):
    """Counts between neighbouring edges; a bucket goes where its middle is."""
    counts = [0] * (len(edges) - 1)
    for low, (width, count) in merged(runs).items():
        middle = low + width / 2
        for i in range(len(counts)):
            if edges[i] <= middle < edges[i + 1]:
                counts[i] += count
    return counts


def bar(count, most, width, glyphs):
    """Its length goes with the logarithm: one query has a visible bar."""
    if not count:
        return ""
    eighths = round(8 * width * (1 + math.log10(count))
                    / (1 + math.log10(most)))
    text = glyphs[8] * (eighths // 8)
    if eighths % 8 and len(glyphs[eighths % 8]):
        text += glyphs[eighths % 8]
    return text


def print_histogram(by_peer, out):
    unicode = "utf" in (out.encoding or "").lower()
    glyphs = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"] if unicode else \
        [""] * 8 + ["#"]
    colour = out.isatty() and "NO_COLOR" not in os.environ
    paint = {"weir": "\033[34m", "libgc": "\033[33m"} if colour else \
        {"weir": "", "libgc": ""}
    plain = "\033[0m" if colour else ""
    lows = [low for p in PEERS for low in merged(by_peer[p])]
    longest = max(r["latency_ns"]["max"] for p in PEERS for r in by_peer[p])
    first = math.floor(math.log10(max(min(lows), 1)))
    edges = [m * 10**d for d in range(first, 12) for m in (1, 2, 5)]
    while len(edges) > 2 and edges[1] <= min(lows):
        edges.pop(0)
    while len(edges) > 2 and edges[-2] > longest:
        edges.pop()
    edges[0] = min(edges[0], min(lows))
    counts = {p: bins(by_peer[p], edges) for p in PEERS}
    most = max(max(counts[p]) for p in PEERS)
    width = 22
    out.write("  latency below" + "  " + "weir".ljust(width + 9) + "libgc\n")
    for i in range(len(edges) - 1):
        line = "  " + show_edge(edges[i + 1]).rjust(13) + "  "
        for p in PEERS:
            n = counts[p][i]
            drawn = bar(n, most, width, glyphs)
            number = str(n) if n else "."
            pad = " " * max(width + 8 - len(drawn) - len(number), 0)
            line += f"{paint[p]}{drawn}{plain} {number}{pad}"
        out.write(line.rstrip() + "\n")
    out.write("  queries in each range; the bars' lengths are logarithmic\n")


def show_edge(ns):
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= scale:
            return f"{ns // scale} {unit}"
    return f"{ns} ns"


def print_remarks(said):
    for sentence in said:
        print("  " + sentence)


# ---- The page --------------------------------------------------------------


def machine():
    model, memory = platform.machine(), ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("model name"):
                    model = line.split(":", 1)[1].strip()
                    break
        with open("/proc/meminfo", encoding="utf-8") as f:
            memory = f"{int(f.readline().split()[1]) / 2**20:.0f} GiB, "
    except (OSError, ValueError, IndexError):
        pass
    count = len(os.sched_getaffinity(0))
    noun = "processor" if count == 1 else "processors"
    return (f"Measured on {count} {noun} ({model}), {memory}"
            f"Linux {platform.release()}.")


def saves(args):
    """Of each database: its runs, and why there are none."""
    out = {}
    for name in SAVED:
        runs = []
        if getattr(args, name):
            with open(getattr(args, name), encoding="utf-8") as f:
                runs = [json.loads(line) for line in f if line.strip()]
        out[name] = {"runs": runs, "note": getattr(args, name + "_note")}
    return out


def write_page(name, **contents):
    def read(part):
        with open(os.path.join(HERE, part), encoding="utf-8") as f:
            return f.read()

    data = json.dumps({**contents, "machine": machine()},
                      separators=(",", ":"))
    # In a script element only "</" and "<!--" could end the data early.
    data = data.replace("<", "\\u003c")
    page = read("demo_page.html")
    script = "".join(map(read, ("demo_page.js", "demo_guile.js",
                                "demo_saves.js")))
    page = page.replace("@SCRIPT@", script.rstrip())
    page = page.replace("@DATA@", data)
    with open(name, "w", encoding="utf-8") as f:
        f.write(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--page", required=True, help="HTML file to write")
    parser.add_argument("--info", help="file with what weir-info printed")
    parser.add_argument("--remark", help="what the reader must know besides")
    parser.add_argument("--guile", help="file of what bench-guile printed")
    parser.add_argument("--guile-note", default="",
                        help="why there is nothing of bench-guile")
    for name in SAVED:
        parser.add_argument("--" + name, help="file of the runs' lines")
        parser.add_argument(f"--{name}-note", default="",
                            help="why there are none")
    parser.add_argument("--page-only", action="store_true",
                        help="print no table")
    parser.add_argument("run", nargs="+", help="JSON file of a run")
    args = parser.parse_args()
    runs, by_peer = load(args.run)
    rows = summarise(by_peer)
    said, agree = remarks(runs)
    guile = {"runs": [], "summary": [], "remarks": [], "note": args.guile_note}
    info = ""
    if args.info:
        with open(args.info, encoding="utf-8", errors="replace") as f:
            info = f.read()
    if args.guile:
        guile["runs"], sets = demo_guile.load(args.guile)
        guile["summary"] = demo_guile.summarise(sets)
        guile["remarks"], same = demo_guile.remarks(sets)
        agree = agree and same
    if args.page_only:
        pass
    elif args.guile:
        print_table(guile["summary"], sys.stdout)
        print()
        print_remarks(guile["remarks"] + [demo_guile.WRK])
    elif not args.guile_note:
        print_table(rows, sys.stdout)
        print()
        print_histogram(by_peer, sys.stdout)
        print()
        print_remarks([args.remark] * bool(args.remark) + said)
    write_page(args.page, runs=runs, summary=rows, remarks=said, guile=guile,
               saves=saves(args), info=info, warning=args.remark or "")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
