# SPDX-License-Identifier: MIT
"""Rows that compare weir with libgc, as the demo's reports show them: figures
as text, how the runs of a peer become one, and the table on the terminal."""
import statistics

PEERS = ("weir", "libgc")


def digits(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def show_time(ns):
    for unit, scale in (("s", 1e9), ("ms", 1e6)):
        if ns >= scale:
            return f"{digits(ns / scale)} {unit}"
    return f"{digits(ns / 1e3)} us"


def show_size(b):
    return f"{b / 2**20:.0f} MiB"


def show_rate(b):
    return f"{digits(b / 2**20)} MiB/s"


def show_count(n):
    return f"{n:.0f}"


def times(weir, libgc):
    """How weir compares, in words: "3.1x lower"."""
    if not weir or not libgc:
        return ""
    ratio = weir / libgc
    if 0.995 < ratio < 1.005:
        return "the same"
    if ratio > 1:
        return f"{digits(ratio)}x higher"
    return f"{digits(1 / ratio)}x lower"


def spread(by_peer, value):
    """Smallest and largest ratio weir / libgc over the pairs."""
    ratios = []
    for weir, libgc in zip(by_peer["weir"], by_peer["libgc"]):
        if value(libgc):
            ratios.append(value(weir) / value(libgc))
    if not ratios:
        return ""
    return f"{min(ratios):.3g} to {max(ratios):.3g}"


def make_row(by_peer, name, show, value, over=statistics.median, tile=False,
             whole=None):
    """whole: from all runs at once, where single figures do not add up."""
    got = {
        p: whole(by_peer[p]) if whole else over([value(r) for r in by_peer[p]])
        for p in PEERS
    }
    return {
        "name": name,
        "weir": show(got["weir"]),
        "libgc": show(got["libgc"]),
        "comparison": times(got["weir"], got["libgc"]),
        "spread": spread(by_peer, value),
        "tile": tile,
    }


def print_table(rows, out):
    head = {"name": "", "weir": "weir", "libgc": "libgc",
            "comparison": "weir is", "spread": "weir/libgc by pair"}
    columns = list(head)
    width = {c: max(len(r[c]) for r in rows + [head]) for c in columns}
    for r in [head] + rows:
        out.write("  " + r["name"].ljust(width["name"]))
        for c in columns[1:]:
            out.write("  " + r[c].rjust(width[c]))
        out.write("\n")
