#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench_redis.py: redis-server with and without weir-redis, in alternation.

In each run a server is filled, an open-loop client (redis-load) writes to it
for SECONDS without a save, which is the noise, and again for as long with a
BGSAVE in it.  Latency is that of all requests of these SECONDS.  Memory is what
the system has in AnonPages and Shmem, page tables besides, so that nothing else
may run; extra is its peak from the save's beginning on, less what it was then.

With --closed N, redis-benchmark on loopback as well, N SETs of keys of its own
without a save and N with one: a closed loop, as fast as it goes.

The whole table: bench_redis.py --gib 1,4 --pages small,huge --closed 500000
"""
import argparse
import csv
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BEFORE = 0.5  # seconds of load until the save
THP = "/sys/kernel/mm/transparent_hugepage/"


def die(text):
    sys.exit("bench_redis: " + text)


def memory():
    """Bytes of the system's data, and of its page tables."""
    with open("/proc/meminfo") as f:
        fields = dict(line.split(":") for line in f)
    kib = {k: int(fields[k].split()[0])
           for k in ("AnonPages", "Shmem", "PageTables")}
    return ((kib["AnonPages"] + kib["Shmem"]) * 1024,
            kib["PageTables"] * 1024)


def children_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return f.read().split()


def check_pages():
    for name, wanted in (("enabled", ("always", "madvise")),
                         ("shmem_enabled", ("always", "advise"))):
        with open(THP + name) as f:
            text = f.read()
        if not any("[%s]" % w in text for w in wanted):
            die("huge pages are off: echo %s >%s%s would allow them" % (
                wanted[1], THP, name))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A redis-server; ends with the `with` that it is made in."""

    def __init__(self, args, weir, huge):
        self.directory = tempfile.mkdtemp(prefix="weir-redis-bench.")
        self.path = os.path.join(self.directory, "socket")
        self.log = os.path.join(self.directory, "log")
        self.port = free_port()
        command = ["redis-server", "--port", str(self.port), "--bind",
                   "127.0.0.1", "--unixsocket", self.path,
                   "--dir", self.directory, "--save", "", "--disable-thp",
                   "no", "--enable-debug-command", "yes"]
        env = dict(os.environ, WEIR_REDIS_LOG="1", WEIR_REDIS_DIR=os.path.join(
            args.build, "compat/redis/.libs"))
        if weir:
            command.insert(0, os.path.join(args.build, "weir-redis"))
            env["WEIR_REDIS_HUGE"] = "1" if huge else "0"
        elif huge:
            env["MALLOC_CONF"] = "thp:always"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log,
                                            stderr=log)

    def __enter__(self):
        for _ in range(200):
            if self.ask("PING", check=False) == "PONG":
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        text = self.text()
        self.__exit__()
        die("no server:\n" + text)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory)

    def text(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def ask(self, *words, check=True):
        done = subprocess.run(["redis-cli", "-s", self.path] + list(words),
                              stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=check)
        return done.stdout.decode().strip()

    def info(self, section, field):
        for line in self.ask("INFO", section).splitlines():
            if line.startswith(field + ":"):
                return line.split(":", 1)[1].strip()
        raise KeyError(field)


class Load:
    """redis-load; the figures are its results."""

    def __init__(self, args, server, keys, seconds):
        command = [os.path.join(args.build, "benchmarks/redis-load"),
                   server.path, str(args.rate), str(seconds), str(keys),
                   str(args.value)]
        if args.windows:
            command.append(str(args.windows))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def result(self):
        out = self.process.communicate()[0]
        if self.process.returncode:
            die("redis-load failed")
        return json.loads(out)


def save(args, server, keys, seconds):
    """A load with a save in it."""
    pid = server.process.pid
    with Load(args, server, keys, seconds) as load:
        time.sleep(BEFORE)
        before = peak = memory()
        begin = time.monotonic_ns()
        server.ask("BGSAVE")
        end = None
        while load.process.poll() is None or end is None:
            if end is None and not children_of(pid):
                end = time.monotonic_ns()
            peak = tuple(map(max, zip(peak, memory())))
            time.sleep(0.02)
        latency = load.result()
    if server.info("persistence", "rdb_last_bgsave_status") != "ok":
        die("the save failed")
    start = latency.pop("start_ns")
    return {"save": latency, "save_s": (end - begin) / 1e9,
            "save_at_s": (begin - start) / 1e9,
            "extra": peak[0] - before[0], "extra_tables": peak[1] - before[1],
            "fork_us": int(server.info("stats", "latest_fork_usec"))}


def closed_loop(args, server, then):
    """redis-benchmark's figures, with `then` called while it runs."""
    process = subprocess.Popen(
        ["redis-benchmark", "-p", str(server.port), "-t", "set", "-n",
         str(args.closed), "-r", "100000", "-d", str(args.value), "--csv"],
        stdout=subprocess.PIPE)
    try:
        time.sleep(BEFORE)
        then()
        rows = list(csv.DictReader(
            process.communicate()[0].decode().splitlines()))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode or len(rows) != 1:
        die("redis-benchmark failed")
    return {"rps": float(rows[0]["rps"]),
            "p99_us": float(rows[0]["p99_latency_ms"]) * 1e3,
            "max_us": float(rows[0]["max_latency_ms"]) * 1e3}


def once(args, gib, huge, weir):
    keys = int(gib * (1 << 30) / args.value)
    seconds = args.seconds or 3 + 3 * gib
    nothing = memory()[0]
    with Server(args, weir, huge) as server:
        start = time.monotonic()
        server.ask("DEBUG", "POPULATE", str(keys), "key", str(args.value))
        record = {"kind": "weir" if weir else "plain", "gib": gib,
                  "pages": "huge" if huge else "small",
                  "fill_s": time.monotonic() - start}
        with Load(args, server, keys, seconds) as load:
            record["quiet"] = load.result()
        record["memory"] = memory()[0] - nothing
        record.update(save(args, server, keys, seconds))
        if args.closed:
            while "weir-redis: fold:" not in server.text() and weir:
                time.sleep(0.05)
            record["closed_quiet"] = closed_loop(args, server, lambda: None)
            record["closed_save"] = closed_loop(
                args, server, lambda: server.ask("BGSAVE"))
        log = [line for line in server.text().splitlines()
               if line.startswith("weir-redis:")]
        if args.log:
            print("\n".join(log), file=sys.stderr)
    return record


COLUMNS = [  # title, where it is in a record, unit
    ("fork", ("fork_us",), 1),
    ("p50", ("save", "p50_us"), 1),
    ("p99", ("save", "p99_us"), 1),
    ("p99.9", ("save", "p999_us"), 1),
    ("longest", ("save", "max_us"), 1),
    ("p99.9*", ("quiet", "p999_us"), 1),
    ("longest*", ("quiet", "max_us"), 1),
    ("save s", ("save_s",), 1),
    ("extra MiB", ("extra",), 1 << 20),
    ("tables MiB", ("extra_tables",), 1 << 20),
    ("data MiB", ("memory",), 1 << 20),
    ("fill s", ("fill_s",), 1),
]


CLOSED_COLUMNS = [
    ("closed SETs/s", ("closed_save", "rps"), 1),
    ("p99", ("closed_save", "p99_us"), 1),
    ("longest", ("closed_save", "max_us"), 1),
    ("SETs/s*", ("closed_quiet", "rps"), 1),
    ("p99*", ("closed_quiet", "p99_us"), 1),
    ("longest*", ("closed_quiet", "max_us"), 1),
]


def cell(records, path, unit):
    """The median, and the extremes where there are some."""
    values = []
    for record in records:
        for key in path:
            record = record[key]
        values.append(record / unit)
    form = "%.0f" if max(values) >= 20 else "%.2f"
    text = form % statistics.median(values)
    if len(values) > 1:
        text += " (" + form % min(values) + "-" + form % max(values) + ")"
    return text


def print_table(args, runs):
    print("Values of %d bytes, %d SETs/s at random, a save in the middle; "
          "medians of %d pairs (extremes).\nLatency in microseconds, *: of as "
          "long without a save.\n" % (args.value, args.rate, args.pairs))
    print_rows(args, runs, COLUMNS)
    if args.closed:
        print("\nredis-benchmark, 50 connections on loopback, %d SETs:\n" %
              args.closed)
        print_rows(args, runs, CLOSED_COLUMNS)


def print_rows(args, runs, columns):
    print("| | " + " | ".join(title for title, _, _ in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for gib in args.gib:
        for pages in args.pages:
            for kind in ("plain", "weir"):
                of = [r for r in runs if (r["gib"], r["pages"], r["kind"]) ==
                      (gib, pages, kind)]
                print("| %g GiB, %s pages, %s | " % (gib, pages, kind) +
                      " | ".join(cell(of, path, unit)
                                 for _, path, unit in columns) + " |")


def list_of(kind):
    return lambda text: [kind(word) for word in text.split(",")]


def page_size(text):
    if text not in ("small", "huge"):
        raise ValueError(text)
    return text


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=os.path.join(
        os.path.dirname(HERE), "build"), help="weir's build directory")
    parser.add_argument("--gib", type=list_of(float), default=[1.0],
                        help="of values, or several")
    parser.add_argument("--pages", type=list_of(page_size),
                        default=["small"], help="small, huge or both")
    parser.add_argument("--value", type=int, default=1000, help="bytes each")
    parser.add_argument("--rate", type=int, default=10000, help="SETs/s")
    parser.add_argument("--seconds", type=float,
                        help="of load, without and with a save "
                        "(3, and 3 a GiB)")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--closed", type=int, default=0, metavar="N",
                        help="redis-benchmark, too, with N SETs each time")
    parser.add_argument("--windows", type=int, default=0, metavar="MS",
                        help="in the JSON, the longest latency of every MS")
    parser.add_argument("--log", action="store_true",
                        help="what weir-redis logs, on standard error")
    parser.add_argument("--json", action="store_true",
                        help="an object a line for each run")
    args = parser.parse_args()
    for program in ["redis-server", "redis-cli"] + \
            ["redis-benchmark"] * bool(args.closed):
        if not shutil.which(program):
            die("there is no " + program)
    if "huge" in args.pages:
        check_pages()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs = []
    for gib in args.gib:
        for i in range(args.pairs):
            for pages in args.pages:
                for weir in (False, True) if i % 2 == 0 else (True, False):
                    runs.append(once(args, gib, pages == "huge", weir))
                    if args.json:
                        print(json.dumps(runs[-1]), flush=True)
    if not args.json:
        print_table(args, runs)


if __name__ == "__main__":
    main()
