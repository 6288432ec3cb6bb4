# SPDX-License-Identifier: MIT
"""The demo's second comparison: programs in Guile on Debian's libgc and on
weir's libgc.so.1, from the lines of JSON that bench-guile printed."""
import json
import sys

from demo_table import PEERS, make_row, show_count, show_size, show_time

WORKLOADS = ("guile-trees", "guile-http")

# The page says it beside the plot, in more words.
WRK = ("wrk is a closed loop, it sends the next request when the last was "
       "answered; its percentiles count, beside a late response, those that "
       "would have been late meanwhile.")


def load(name):
    """All runs, with the library for the peer, and by workload and peer."""
    with open(name, encoding="utf-8") as f:
        runs = [json.loads(line) for line in f if line.strip()]
    for r in runs:
        r["peer"] = r["peer"].removeprefix("guile-")
    sets = {w: {p: [r for r in runs if (r["workload"], r["peer"]) == (w, p)]
                for p in PEERS} for w in WORKLOADS}
    for w in WORKLOADS:
        for p in PEERS:
            if not sets[w][p]:
                sys.exit(f"demo_report: no run of {w} on {p} in {name}")
    return runs, sets


def summarise(sets):
    rows = []

    def row(workload, name, show, value, **more):
        short = workload.removeprefix("guile-")
        rows.append(make_row(sets[workload], f"{short}: {name}", show, value,
                             **more))

    def common(workload):
        row(workload, "longest pause", show_time,
            lambda r: r["pause_max_ns"], over=max)
        row(workload, "collections", show_count, lambda r: r["cycles"])
        row(workload, "peak memory (resident)", show_size,
            lambda r: r["peak_rss"], over=max)
        row(workload, "CPU time", show_time, lambda r: r["cpu_s"] * 1e9)

    row("guile-trees", "wall time", show_time, lambda r: r["wall_s"] * 1e9)
    common("guile-trees")
    row("guile-http", "requests a second", show_count,
        lambda r: r["throughput"])
    for key, name in (("p50_ns", "response, p50"), ("p99_ns", "response, p99"),
                      ("p999_ns", "response, p99.9")):
        row("guile-http", name, show_time, lambda r, k=key: r[k])
    row("guile-http", "response, longest", show_time, lambda r: r["max_ns"],
        over=max)
    common("guile-http")
    return rows


def remarks(sets):
    """What the reader must know; and whether the programs did the same."""
    said, agree = [], True
    trees = [r for p in PEERS for r in sets["guile-trees"][p]]
    if len({r["params"] for r in trees}) > 1:
        said.append("The runs of trees had different settings: they cannot "
                    "be compared.")
    elif len({r["checksum"] for r in trees}) > 1:
        said.append("THE CHECKSUMS DIFFER between runs of trees.")
        agree = False
    else:
        said.append(f"All {len(trees)} runs of trees had the same checksum, "
                    f"{trees[0]['checksum']}.")
    said.append("\"Longest\" and memory are the largest of all runs of a "
                "library, the rest medians. Pauses are the libraries' own "
                "figures: libgc's marking with all threads stopped; weir's "
                "stops, and what a thread was held for: to help, to wait, or "
                "for a collection that it asked for, as Guile does now and "
                "then when much of its memory is from malloc().")
    return said, agree
