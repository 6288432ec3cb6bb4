#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench-guile (libgc|weir) WORKLOAD [--live-mib N] [--make-mib N] ...

Runs a program in Guile, on Debian's libgc or on weir's libgc.so.1, and prints
one line of JSON as the other peers of weir-bench do.  Defaults on both sides.

  guile-trees    benchmarks/guile/trees.scm, after gcbench
  guile-table    benchmarks/guile/table.scm
  guile-lists    benchmarks/guile/lists.scm
  guile-compile  Guile's compiler at its largest module, psyntax-pp.scm
  guile-http     benchmarks/guile/server.scm under wrk, --seconds S (10)
                 --connections N (4)

Pauses are the collectors' own figures: libgc's "World-stopped marking" of
GC_PRINT_STATS, which leaves out what stopping takes; of weir's log=gc the
longest of its stops and of the waits of the program: assists, handshakes, and
collections that it asked for.
Memory and time are the whole process's, from wait4().
"""
import argparse
import glob
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = "@guiledir@"  # set when it is built into benchmarks/bench-guile
BUILD = os.path.dirname(HERE)
LIBGC_DIR = os.environ.get("WEIR_LIBGC_DIR", os.path.join(BUILD, "compat/libgc/.libs"))


def die(text):
    sys.exit("bench-guile: " + text)


def environment(peer, log):
    env = dict(os.environ, GUILE_AUTO_COMPILE="0")
    if peer == "weir":
        if not os.path.exists(os.path.join(LIBGC_DIR, "libgc.so.1")):
            die(f"no libgc.so.1 in {LIBGC_DIR}; build weir, or set WEIR_LIBGC_DIR")
        env["LD_LIBRARY_PATH"] = LIBGC_DIR
        mine = f"log=gc,log-file={log}"
        env["WEIR_OPTIONS"] = ",".join(filter(None, [env.get("WEIR_OPTIONS"), mine]))
    else:
        env.pop("WEIR_OPTIONS", None)
        env["GC_PRINT_STATS"] = "1"
        env["GC_LOG_FILE"] = log
    return env


def pauses(peer, log):
    """Number of collections, longest pause, of it waits, in nanoseconds."""
    with open(log, errors="replace") as f:
        text = f.read()
    if peer == "weir":
        stops = re.findall(r"gc \d+ (?:full|minor).*?longest ([\d.]+) ms", text)
        waits = re.findall(r"waits so far \d+, longest ([\d.]+) ms", text)
        waited = max(map(float, waits), default=0)
        longest = max(map(float, stops), default=0)
    else:
        found = re.findall(r"World-stopped marking took (\d+) ms (\d+) ns", text)
        stops = [int(ms) + int(ns) / 1e6 for ms, ns in found]
        waited = 0
        longest = max(stops, default=0)
    if not stops:
        die(f"{peer} never collected: the figures would mean nothing")
    return len(stops), int(max(longest, waited) * 1e6), int(waited * 1e6)


def compiled(name):
    """The program as bytecode, made by Debian's Guile if it is not there."""
    source = os.path.join(SOURCE, name + ".scm")
    target = os.path.join(HERE, "guile-" + name + ".go")
    if not os.path.exists(target) or os.path.getmtime(target) < os.path.getmtime(source):
        part = f"{target}.{os.getpid()}"
        subprocess.run(
            ["guile", "--no-auto-compile", "-c",
             "(use-modules (system base compile))"
             f'(compile-file "{source}" #:output-file "{part}")'],
            check=True, stdout=subprocess.DEVNULL)
        os.rename(part, target)
    return target


def guile(name, *args):
    return ["guile", "--no-auto-compile", "-c", f'(load-compiled "{compiled(name)}")',
            *map(str, args)]


def finish(process):
    """Wait for it; its resource usage."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def common(peer, log, usage):
    cycles, longest, waited = pauses(peer, log)
    return {"cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
            "peak_rss": usage.ru_maxrss * 1024, "cycles": cycles,
            "pause_max_ns": longest, "assist_max_ns": waited if peer == "weir" else None}


def run_program(peer, workload, opt, log):
    command = {
        "guile-trees": lambda: guile("trees", opt.live_mib, opt.make_mib),
        "guile-table": lambda: guile("table", opt.live_mib, opt.make_mib),
        "guile-lists": lambda: guile("lists", opt.live_mib, opt.make_mib),
        "guile-compile": compile_command,
    }[workload]()
    begin = time.monotonic()
    p = subprocess.Popen(command, env=environment(peer, log), stdout=subprocess.PIPE, text=True)
    out = p.stdout.read()
    usage = finish(p)
    wall = time.monotonic() - begin
    if p.returncode:
        die(f"guile on {peer} ended with status {p.returncode}")
    if workload == "guile-compile":
        with open(opt.target, "rb") as f:
            checksum = hashlib.sha256(f.read()).hexdigest()[:16]
    else:
        checksum = out.split()[0]
    return {"wall_s": round(wall, 6), "checksum": checksum, **common(peer, log, usage)}


def compile_command():
    found = glob.glob("/usr/share/guile/3.0/ice-9/psyntax-pp.scm")
    if not found:
        die("psyntax-pp.scm of Guile 3.0 is not installed; install guile-3.0-libs")
    return ["guile", "--no-auto-compile", "-c",
            "(use-modules (system base compile))"
            f'(compile-file "{found[0]}" #:output-file "{opt.target}")']


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_http(peer, opt, log):
    port = free_port()
    p = subprocess.Popen(guile("server", port, opt.live_mib), env=environment(peer, log),
                         stdout=subprocess.PIPE, text=True)
    try:
        if p.stdout.readline().strip() != "ready":
            die(f"the server on {peer} did not start")
        begin = time.monotonic()
        try:
            wrk = subprocess.run(
                ["wrk", "-t1", f"-c{opt.connections}", f"-d{opt.seconds}s", "--timeout", "60s",
                 "-s", os.path.join(SOURCE, "latency.lua"), f"http://127.0.0.1:{port}/"],
                stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            die("wrk is not installed: apt-get install wrk")
        wall = time.monotonic() - begin
    finally:
        os.kill(p.pid, signal.SIGTERM)
        usage = finish(p)
    figures = dict(re.findall(r"^(requests|duration|errors|max) (\d+)$", wrk.stdout, re.M))
    quantiles = dict(re.findall(r"^quantile ([\d.]+) (\d+)$", wrk.stdout, re.M))
    if wrk.returncode or not int(figures.get("requests", 0)) or int(figures["errors"]):
        die(f"wrk against {peer} failed: {wrk.stdout}")
    ns = {q: int(us) * 1000 for q, us in quantiles.items()}
    return {"wall_s": round(wall, 6), "checksum": "http",
            "throughput": int(figures["requests"]) / (int(figures["duration"]) / 1e6),
            "p50_ns": ns["50"], "p99_ns": ns["99"], "p999_ns": ns["99.9"],
            "max_ns": int(figures["max"]) * 1000,
            "quantiles": " ".join(f"{q}:{v}" for q, v in ns.items()),
            **common(peer, log, usage)}


parser = argparse.ArgumentParser(prog="bench-guile", description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("peer", choices=["libgc", "weir"])
parser.add_argument("workload", choices=["guile-trees", "guile-table", "guile-lists", "guile-compile",
                                         "guile-http"])
parser.add_argument("--live-mib", type=int, default=50)
parser.add_argument("--make-mib", type=int, default=4096)
parser.add_argument("--seconds", type=int, default=10)
parser.add_argument("--connections", type=int, default=4)
opt = parser.parse_args()

with tempfile.TemporaryDirectory(prefix="bench-guile.") as work:
    log = os.path.join(work, "log")
    opt.target = os.path.join(work, "target.go")
    if opt.workload == "guile-http":
        result = run_http(opt.peer, opt, log)
    else:
        result = run_program(opt.peer, opt.workload, opt, log)
params = f"live_mib={opt.live_mib} make_mib={opt.make_mib}"
if opt.workload == "guile-http":
    params = f"live_mib={opt.live_mib} seconds={opt.seconds} connections={opt.connections}"
if opt.workload == "guile-compile":
    params = ""
print(json.dumps({"workload": opt.workload, "peer": "guile-" + opt.peer, "params": params,
                  **result}, separators=(",", ":")))
