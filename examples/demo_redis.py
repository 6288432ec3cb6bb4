#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A table of how Redis was saved: bench_redis.py --json on standard input.
Medians of the runs; fails if one of the two is missing.
"""
import json
import statistics
import sys

KINDS = [("weir", "under weir-redis"), ("plain", "by itself")]


def median(runs, get):
    return statistics.median(get(r) for r in runs)


def row(name, runs):
    return (
        f"  {name:<18}"
        f"{median(runs, lambda r: r['fork_us'] / 1000):>10.2f}"
        f"{median(runs, lambda r: r['save']['p99_us'] / 1000):>10.2f}"
        f"{median(runs, lambda r: r['save']['p999_us'] / 1000):>10.2f}"
        f"{median(runs, lambda r: r['save']['max_us'] / 1000):>10.2f}"
        f"{median(runs, lambda r: r['quiet']['max_us'] / 1000):>10.2f}"
        f"{median(runs, lambda r: r['save_s']):>8.2f}"
        f"{median(runs, lambda r: r['extra'] / 2**20):>7.0f}")


def main():
    runs = [json.loads(line) for line in sys.stdin if line.strip()]
    of = {kind: [r for r in runs if r["kind"] == kind] for kind, _ in KINDS}
    missing = [name for kind, name in KINDS if not of[kind]]
    if missing:
        print("demo: no run of Redis " + ", ".join(missing), file=sys.stderr)
        return 1
    print(f"  {'':<18}{'fork':>10}{'wait, ms:':>10}{'':>10}{'':>10}"
          f"{'longest':>10}{'save':>8}{'more':>7}")
    print(f"  {'':<18}{'ms':>10}{'p99':>10}{'p99.9':>10}{'longest':>10}"
          f"{'no save':>10}{'s':>8}{'MiB':>7}")
    for kind, name in KINDS:
        print(row(name, of[kind]))
    print(f"\n  {runs[0]['gib']:g} GiB of values, medians of "
          f"{len(of['weir'])} runs each in alternation, BGSAVE under an "
          "open-loop client; a wait\n  counts from when the request was due.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
