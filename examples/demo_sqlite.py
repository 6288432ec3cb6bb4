#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A table of how SQLite was saved: sqlite-snapshot --compare N --json on
standard input.  Medians of the rounds; fails if a save was not right, or if
one of the ways is missing.
"""
import json
import statistics
import sys

WAYS = [  # method, huge, small units; what it is called
    ("weir", False, False, "weir"),
    ("weir", True, False, "weir, 2 MiB pages"),
    ("weir", True, True, "weir, 2 MiB pages, 4 KiB units"),
    ("fork", False, False, "fork"),
    ("fork", True, False, "fork, 2 MiB pages"),
    ("serialize", False, False, "sqlite3_serialize"),
    ("backup", False, False, "sqlite3_backup, at once"),
    ("backup-steps", False, False, "sqlite3_backup, in steps"),
]


def median(runs, get):
    return statistics.median(get(r) for r in runs)


def row(name, runs):
    return (
        f"  {name:<32}"
        f"{median(runs, lambda r: r['held_ms']):>9.3f}"
        f"{median(runs, lambda r: r['save']['longest_ms']):>10.1f}"
        f"{median(runs, lambda r: r['noise']['longest_ms']):>9.1f}"
        f"{median(runs, lambda r: share(r)):>9.0f} %"
        f"{median(runs, lambda r: r['save_ms'] / 1000):>8.2f}"
        f"{median(runs, lambda r: r['memory_mib']):>9.0f}")


def share(run):
    return 100 * run["save"]["per_second"] / run["before"]["per_second"]


def main():
    runs = [json.loads(line) for line in sys.stdin if line.strip()]
    wrong = [r for r in runs if not r["ok"]]
    for r in wrong:
        print(f"demo: saved by {r['method']}: {r['why']}", file=sys.stderr)
    print(f"  {'':<32}{'writers':>9}{'longest':>10}{'without':>9}"
          f"{'work done':>11}{'save':>8}{'more':>9}")
    print(f"  {'':<32}{'held, ms':>9}{'wait, ms':>10}{'a save':>9}"
          f"{'meanwhile':>11}{'s':>8}{'MiB':>9}")
    missing = []
    for method, huge, small, name in WAYS:
        of = [r for r in runs if (r["method"], r["huge"], r["small_units"])
              == (method, huge, small)]
        if of:
            print(row(name, of))
        else:
            missing.append(name)
    if missing:
        print("demo: not saved by " + ", ".join(missing), file=sys.stderr)
    if wrong or missing:
        return 1
    print(f"\n  All {len(runs)} files had exactly the transactions of their "
          "moment, and pass SQLite's integrity check.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
