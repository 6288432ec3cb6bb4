#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench_redis.py: redis-server with and without weir-redis, in alternation.

In each run a server is filled, an open-loop client (redis-load) writes to it
for SECONDS without a save, which is the noise, and again with a BGSAVE begun
at the start.  Then a second time, for the memory: Pss_Anon + Pss_Shmem of
parent and child, sampled; extra is the peak less what it was before.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def memory_of(pid):
    """Bytes; 0 if it is gone."""
    total = 0
    try:
        with open("/proc/%d/smaps_rollup" % pid) as f:
            for line in f:
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return total


def children_of(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(word) for word in f.read().split()]
    except OSError:
        return []


class Server:
    def __init__(self, args, weir):
        self.directory = tempfile.mkdtemp(prefix="weir-redis-bench.")
        self.path = os.path.join(self.directory, "socket")
        command = ["redis-server", "--port", "0", "--unixsocket", self.path,
                   "--dir", self.directory, "--save", "",
                   "--enable-debug-command", "yes"]
        env = dict(os.environ, WEIR_REDIS_LOG="1", WEIR_REDIS_DIR=os.path.join(
            args.build, "compat/redis/.libs"))
        if weir:
            command.insert(0, os.path.join(args.build, "weir-redis"))
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log,
                                            stderr=log)
        for _ in range(200):
            if self.ask("PING", check=False) == "PONG":
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        with open(os.path.join(self.directory, "log")) as log:
            sys.exit("bench_redis: no server:\n" + log.read())

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

    def stop(self):
        self.ask("SHUTDOWN", "NOSAVE", check=False)
        self.process.wait()
        shutil.rmtree(self.directory)


def load(args, server, seconds):
    return subprocess.Popen(
        [os.path.join(args.build, "benchmarks/redis-load"), server.path,
         str(args.rate), str(seconds), str(args.keys), str(args.value)],
        stdout=subprocess.PIPE)


def result_of(process):
    out = process.communicate()[0]
    if process.returncode:
        sys.exit("bench_redis: redis-load failed")
    return json.loads(out)


def save(args, server, sample):
    """A load with a save in it; `sample` says how memory is looked at."""
    pid = server.process.pid
    client = load(args, server, args.seconds)
    start = time.monotonic()
    server.ask("BGSAVE")
    saved = None
    while client.poll() is None or saved is None:
        sample(pid)
        if saved is None and not children_of(pid):
            saved = time.monotonic() - start
        time.sleep(0.1)
    if server.info("persistence", "rdb_last_bgsave_status") != "ok":
        sys.exit("bench_redis: the save failed")
    return {"save": result_of(client), "save_s": saved,
            "fork_us": int(server.info("stats", "latest_fork_usec"))}


def once(args, weir):
    server = Server(args, weir)
    pid = server.process.pid
    start = time.monotonic()
    server.ask("DEBUG", "POPULATE", str(args.keys), "key", str(args.value))
    record = {"fill_s": time.monotonic() - start}
    record["quiet"] = result_of(load(args, server, args.seconds))
    record.update(save(args, server, lambda _: None))
    time.sleep(args.pause)
    # Once more for the memory: who looks at it holds the server up, for as
    # long as the kernel takes to walk its page tables.
    record["memory"] = memory_of(pid)
    seen = [record["memory"]]
    second = save(args, server, lambda parent: seen.append(
        memory_of(parent) + sum(memory_of(c) for c in children_of(parent))))
    record["extra"] = max(seen) - record["memory"]
    record["second_fork_us"] = second["fork_us"]
    if args.log:
        with open(os.path.join(server.directory, "log")) as log:
            sys.stderr.writelines(line for line in log
                                  if line.startswith("weir"))
    server.stop()
    return record


def median(records, *path):
    values = []
    for record in records:
        for key in path:
            record = record[key]
        values.append(record)
    return statistics.median(values)


ROWS = [
    ("fork, us", ("fork_us",), 1),
    ("fork of the next save, us", ("second_fork_us",), 1),
    ("save, s", ("save_s",), 1),
    ("fill, s", ("fill_s",), 1),
    ("memory before, MiB", ("memory",), 1 << 20),
    ("extra memory, MiB", ("extra",), 1 << 20),
    ("p50 in the save, us", ("save", "p50_us"), 1),
    ("p99", ("save", "p99_us"), 1),
    ("p99.9", ("save", "p999_us"), 1),
    ("max", ("save", "max_us"), 1),
    ("p50 without a save, us", ("quiet", "p50_us"), 1),
    ("p99", ("quiet", "p99_us"), 1),
    ("p99.9", ("quiet", "p999_us"), 1),
    ("max", ("quiet", "max_us"), 1),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.path.join(
        os.path.dirname(HERE), "build"), help="weir's build directory")
    parser.add_argument("--gib", type=float, default=1, help="of values")
    parser.add_argument("--value", type=int, default=1000, help="bytes each")
    parser.add_argument("--rate", type=int, default=10000, help="SETs/s")
    parser.add_argument("--seconds", type=float, default=10,
                        help="of load, without and with a save")
    parser.add_argument("--pause", type=float, default=5,
                        help="seconds before the next save")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--log", action="store_true",
                        help="what weir-redis logs, on standard error")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.keys = int(args.gib * (1 << 30) / args.value)
    for program in ("redis-server", "redis-cli"):
        if not shutil.which(program):
            sys.exit("bench_redis: there is no %s" % program)
    runs = {"plain": [], "weir": []}
    for i in range(args.pairs):
        for kind in ("plain", "weir") if i % 2 == 0 else ("weir", "plain"):
            runs[kind].append(once(args, kind == "weir"))
    if args.json:
        print(json.dumps({"gib": args.gib, "rate": args.rate,
                          "value": args.value, "runs": runs}, indent=1))
        return
    print("%g GiB of values of %d bytes, %d SETs/s, medians of %d pairs" %
          (args.gib, args.value, args.rate, args.pairs))
    print("%-28s %12s %12s" % ("", "plain", "weir"))
    for name, path, unit in ROWS:
        print("%-28s %12.6g %12.6g" % (
            name, median(runs["plain"], *path) / unit,
            median(runs["weir"], *path) / unit))


if __name__ == "__main__":
    main()
