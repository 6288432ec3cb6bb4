# SPDX-License-Identifier: MIT
"""What tests/redis.sh runs: redis.py LAUNCHER DIRECTORY ROUNDS, prints TAP.

A server's digest (DEBUG DIGEST) is taken in the same pause of its writers in
which the save begins; that of a plain redis-server that loads what was saved
must equal it.  Meanwhile a writer changes data of every type.
"""
import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

LAUNCHER, WORK, ROUNDS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 120  # seconds, for anything
count = 0
refused = ""  # why weir-redis does not run, once it is known


class Failed(Exception):
    """What was expected did not happen."""


class Skipped(Exception):
    """It cannot be tried here."""


class Client:
    """A connection that speaks RESP2."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def read(self):
        line = self.file.readline()
        if not line:
            raise Failed("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Failed(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            n = int(rest)
            return None if n < 0 else self.file.read(n + 2)[:-2]
        return [self.read() for _ in range(int(rest))]

    def pipeline(self, commands):
        out = []
        for command in commands:
            words = [w if isinstance(w, bytes) else str(w).encode()
                     for w in command]
            out.append(b"*%d\r\n" % len(words))
            out += [b"$%d\r\n%s\r\n" % (len(w), w) for w in words]
        self.socket.sendall(b"".join(out))
        return [self.read() for _ in commands]

    def call(self, *command):
        answer = self.pipeline([command])[0]
        if isinstance(answer, Failed):
            raise answer
        return answer

    def info(self, section, field):
        text = self.call("INFO", section).decode()
        return re.search(r"^%s:(.*?)\r?$" % field, text, re.M).group(1)


def wait_until(what, condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed("waited in vain: " + what)
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A redis-server in a directory of its own."""

    number = 0

    def __init__(self, *options, weir=True, port=0, directory=None, user=()):
        Server.number += 1
        self.directory = directory or os.path.join(WORK, str(Server.number))
        os.makedirs(self.directory, exist_ok=True)
        self.path = os.path.join(self.directory, "socket")
        self.log = os.path.join(self.directory, "log")
        self.port = port
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1",
                   "--unixsocket", self.path, "--dir", self.directory,
                   "--save", "", "--enable-debug-command", "yes",
                   "--repl-diskless-sync-delay", "0"] + list(options)
        if weir:
            command = list(user) + [LAUNCHER] + command
        if user:
            os.chmod(self.directory, 0o777)
        env = dict(os.environ, WEIR_REDIS_LOG="1")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=env, stdout=log, stderr=log)
        self.client = None
        wait_until("a server", self.is_up)

    def is_up(self):
        if self.process.poll():
            raise Failed("the server ended:\n" + self.text())
        try:
            self.client = Client(self.path)
            self.client.call("PING")
            return True
        except (OSError, Failed):
            return False

    def text(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def stop(self):
        try:
            self.client.pipeline([["SHUTDOWN", "NOSAVE"]])
        except (OSError, Failed):
            pass
        self.client.close()
        if self.process.wait(PATIENCE):
            raise Failed("the server ended unhappily:\n" + self.text())

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def busy(self):
        text = self.client.call("INFO", "persistence").decode()
        return ("rdb_bgsave_in_progress:1" in text or
                "aof_rewrite_in_progress:1" in text or
                "aof_rewrite_scheduled:1" in text)

    def moment(self, *command):
        """The digest at the moment of a command that forks."""
        answers = self.client.pipeline(
            [["CLIENT", "PAUSE", "60000", "WRITE"], ["DEBUG", "DIGEST"],
             list(command), ["CLIENT", "UNPAUSE"]])
        for a in answers:
            if isinstance(a, Failed):
                raise a
        return answers[1]

    def memory(self):
        """What there is in memory of its own, in the file too."""
        with open("/proc/%d/smaps_rollup" % self.process.pid) as f:
            return sum(int(line.split()[1]) * 1024 for line in f
                       if line.startswith(("Pss_Anon:", "Pss_Shmem:")))

    def file_bytes(self):
        """What the memory's file takes."""
        directory = "/proc/%d/fd" % self.process.pid
        for fd in os.listdir(directory):
            path = os.path.join(directory, fd)
            if "memfd:weir-redis" in os.readlink(path):
                return os.stat(path).st_blocks * 512
        raise Failed("there is no file")

    def is_split(self):
        with open("/proc/%d/maps" % self.process.pid) as f:
            return any("memfd:weir-redis" in line and " rw-p " in line
                       for line in f)

    def child(self):
        return int(re.findall(r"saving started by pid (\d+)", self.text())[-1])

    def status(self):
        return self.client.info("persistence", "rdb_last_bgsave_status")


def some_writes(dice, n):
    """Commands that change data of all types."""
    out = []
    for _ in range(n):
        k, v = dice.randrange(600), dice.getrandbits(48)
        big = b"%d" % v * dice.choice([1, 3, 30, 300])
        out.append(dice.choice([
            ["SET", "string:%d" % k, big],
            ["SET", "expires:%d" % k, v, "EX", 100000 + k],
            ["APPEND", "string:%d" % k, v],
            ["DEL", "string:%d" % dice.randrange(600)],
            ["UNLINK", "list:%d" % (k % 100)],
            ["RPUSH", "list:%d" % (k % 100), v, big, k],
            ["LPOP", "list:%d" % (k % 100)],
            ["SADD", "set:%d" % (k % 50), v, k],
            ["SADD", "ints:%d" % (k % 50), k],
            ["SPOP", "set:%d" % (k % 50)],
            ["ZADD", "zset:%d" % (k % 50), v % 1000, k, v % 99, big[:40]],
            ["ZREMRANGEBYRANK", "zset:%d" % (k % 50), 0, 0],
            ["HSET", "hash:%d" % (k % 80), k, big, v % 500, v],
            ["HDEL", "hash:%d" % (k % 80), v % 500],
            ["XADD", "stream:%d" % (k % 20), "*", k, big],
            ["XTRIM", "stream:%d" % (k % 20), "MAXLEN", "500"],
            ["SETRANGE", "big:%d" % (k % 4), v % 3000000, big],
            ["INCR", "counter"]]))
    return out


class Load:
    """Writes from a thread until it is stopped; what broke it is kept."""

    def __init__(self, server, seed=1):
        self.client, self.dice = Client(server.path), random.Random(seed)
        self.end, self.error, self.writes = threading.Event(), None, 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.end.is_set():
                self.client.pipeline(some_writes(self.dice, 50))
                self.writes += 50
        except (OSError, Failed) as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        self.client.close()

    def goes_on(self, n=200):
        start = self.writes
        wait_until("writes", lambda: self.error or self.writes > start + n)
        if self.error:
            raise self.error


def loaded(directory, *options):
    """The digest of a plain server that loads what is there."""
    server = Server(*options, weir=False, directory=directory)
    try:
        digest = server.client.call("DEBUG", "DIGEST")
    finally:
        server.stop()
    return digest


def rdb_alone(server, name):
    """A directory with a copy of the server's dump."""
    directory = os.path.join(WORK, name)
    os.makedirs(directory)
    shutil.copy(os.path.join(server.directory, "dump.rdb"), directory)
    return directory


def same(one, other):
    if one != other:
        raise Failed("the digests differ: %s, %s" % (one, other))


def fill(server, n=6000):
    dice = random.Random(4711)
    for _ in range(n // 200):
        server.client.pipeline(some_writes(dice, 200))


# ---- Tests ------------------------------------------------------------------

def saves(server, rounds):
    with Load(server) as load:
        for i in range(rounds):
            wait_until("an idle server", lambda: not server.busy())
            load.goes_on()
            digest = server.moment("BGSAVE")
            load.goes_on()
            # At once after one another, too: what was split is not folded.
            wait_until("the save", lambda: not server.busy())
            if server.status() != "ok":
                raise Failed("the save failed")
            same(digest, loaded(rdb_alone(server, "rdb%s-%d" % (
                os.path.basename(server.directory), i))))
        forks = server.text().count("weir-redis: fork: split")
        if forks < rounds:
            raise Failed("%d of %d forks were split" % (forks, rounds))


def one_after_another(server):
    with Load(server, 2) as load:
        for _ in range(10):
            wait_until("an idle server", lambda: not server.busy())
            digest = server.moment("BGSAVE")
        load.goes_on()
        wait_until("the save", lambda: not server.busy())
    same(digest, loaded(rdb_alone(server, "rdb-last")))
    # Nothing of the server's own was lost, either.
    digest = server.client.call("DEBUG", "DIGEST")
    server.client.call("SAVE")
    same(digest, loaded(rdb_alone(server, "rdb-own")))


def memory_stays(server):
    """However many saves, it is what it was after a few."""
    sizes = []
    with Load(server, 7) as load:
        for i in range(16):
            wait_until("an idle server", lambda: not server.busy())
            server.client.call("BGSAVE")
            load.goes_on(400)
            wait_until("the save", lambda: not server.busy())
            if i % 4 == 3:
                wait_until("the fold", lambda: len(re.findall(
                    "fold: ", server.text())) and not server.is_split())
                server.client.call("MEMORY", "PURGE")
                sizes.append(server.memory())
    if sizes[-1] > sizes[0] * 1.3 + (16 << 20):
        raise Failed("bytes after 4, 8, 12 and 16 saves: %r" % sizes)


def rewrite(server):
    server.client.call("CONFIG", "SET", "appendonly", "yes")
    wait_until("the first rewrite", lambda: not server.busy())
    with Load(server, 3) as load:
        load.goes_on()
        # It begins when the save ends: what was split for that is not folded.
        server.client.pipeline([["BGSAVE"], ["BGREWRITEAOF"]])
        load.goes_on()
        wait_until("the rewrite", lambda: not server.busy())
        if server.client.info("persistence", "aof_last_bgrewrite_status") \
                != "ok":
            raise Failed("the rewrite failed")
        load.goes_on()
    digest = server.client.call("DEBUG", "DIGEST")
    server.stop()
    same(digest, loaded(server.directory, "--appendonly", "yes"))


def replica(diskless):
    server = Server("--repl-diskless-sync", diskless, port=free_port())
    copy = None
    try:
        fill(server)
        with Load(server, 4) as load:
            load.goes_on()
            copy = Server("--replicaof", "127.0.0.1 %d" % server.port,
                          port=free_port())
            wait_until("the replica", lambda: copy.client.info(
                "replication", "master_link_status") == "up")
            load.goes_on()
        wait_until("the same offset", lambda: server.client.info(
            "replication", "master_repl_offset") == copy.client.info(
                "replication", "master_repl_offset"))
        same(server.client.call("DEBUG", "DIGEST"),
             copy.client.call("DEBUG", "DIGEST"))
        if "weir-redis: fork: split" not in server.text():
            raise Failed("it was not forked")
        copy.stop()
        server.stop()
    finally:
        server.kill()
        if copy:
            copy.kill()


def slow_save(server):
    """A save that is under way and takes long."""
    server.client.call("CONFIG", "SET", "rdb-key-save-delay", "20000")
    digest = server.moment("BGSAVE")
    wait_until("its child", lambda: "saving started" in server.text())
    return digest


def kill_both(server, child):
    server.kill()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)  # to whom it is left


def killed_in_rewrite():
    """What was acknowledged is in the log (appendfsync always)."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    try:
        fill(server, 2000)
        wait_until("the first rewrite", lambda: not server.busy())
        server.client.call("CONFIG", "SET", "rdb-key-save-delay", "20000")
        server.client.call("BGREWRITEAOF")
        for _ in range(300):
            acknowledged = server.client.call("INCR", "acknowledged")
        if not server.busy():
            raise Failed("the rewrite has ended")
        kill_both(server, int(re.findall(
            r"rewriting started by pid (\d+)", server.text())[-1]))
        again = Server("--appendonly", "yes", weir=False,
                       directory=server.directory)
        try:
            kept = int(again.client.call("GET", "acknowledged"))
        finally:
            again.stop()
        if kept < acknowledged:
            raise Failed("%d of %d" % (kept, acknowledged))
    finally:
        server.kill()


def killed_server():
    server = Server()
    try:
        fill(server, 2000)
        server.client.call("SAVE")
        dump = os.path.join(server.directory, "dump.rdb")
        with open(dump, "rb") as f:
            before = f.read()
        fill(server, 2000)
        slow_save(server)
        time.sleep(0.2)
        kill_both(server, server.child())
        with open(dump, "rb") as f:
            if f.read() != before:
                raise Failed("the dump has changed")
    finally:
        server.kill()


def killed_child():
    server = Server()
    try:
        fill(server, 2000)
        with Load(server, 5) as load:
            slow_save(server)
            load.goes_on()
            os.kill(server.child(), signal.SIGKILL)
            wait_until("the end of the save", lambda: not server.busy())
            if server.status() != "err":
                raise Failed("the save did not fail")
            load.goes_on()
            server.client.call("CONFIG", "SET", "rdb-key-save-delay", "0")
            digest = server.moment("BGSAVE")
            load.goes_on()
            wait_until("the save", lambda: not server.busy())
        same(digest, loaded(rdb_alone(server, "rdb-again")))
        server.stop()
    finally:
        server.kill()


def in_background():
    server = Server("--daemonize", "yes", "--logfile",
                    os.path.join(WORK, "background.log"), "--pidfile",
                    os.path.join(WORK, "pid"))
    pid = server.client.info("server", "process_id")
    try:
        if server.process.wait(PATIENCE):
            raise Failed("the parent ended unhappily")
        fill(server)
        with open("/proc/%s/smaps" % pid) as f:
            maps = f.read()
        if "memfd:weir-redis" not in maps:
            raise Failed("its data are in ordinary memory")
        with Load(server, 6) as load:
            load.goes_on()
            digest = server.moment("BGSAVE")
            load.goes_on()
            wait_until("the save", lambda: not server.busy())
        same(digest, loaded(rdb_alone(server, "rdb-background")))
    finally:
        try:
            server.client.pipeline([["SHUTDOWN", "NOSAVE"]])
        except (OSError, Failed):
            os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)  # to whom it is left


def memory_comes_back(server):
    """What is deleted during a save is given back after it."""
    client = server.client
    client.call("CONFIG", "SET", "rdb-key-save-delay", "0")
    client.pipeline([["SET", "heap:%d" % i, b"x" * 100000]
                     for i in range(600)])
    client.call("CONFIG", "SET", "rdb-key-save-delay", "1000")
    before = server.file_bytes()
    digest = server.moment("BGSAVE")
    client.pipeline([["UNLINK", "heap:%d" % i] for i in range(600)])
    client.call("MEMORY", "PURGE")
    wait_until("the save", lambda: not server.busy())
    same(digest, loaded(rdb_alone(server, "rdb-unlinked")))

    def less():
        client.call("MEMORY", "PURGE")
        return server.file_bytes() < before - 40000000
    wait_until("less memory", less, 20)


def without_privilege():
    if os.geteuid():
        user = []
    else:
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        user + [LAUNCHER, "redis-server", "--port", "0"],
        env=dict(os.environ, WEIR_REDIS_CHECK="1"), timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/")
    text = done.stdout.decode()
    allowed = "it runs" in text and not done.returncode
    named = "unprivileged_userfaultfd" in text and done.returncode == 1
    if not allowed and not named:
        raise Failed("status %d: %s" % (done.returncode, text))


def as_root(what):
    if os.geteuid():
        raise Skipped("only root may " + what)


def with_one_capability():
    """A save by a user who has nothing but CAP_SYS_PTRACE."""
    as_root("become another user")
    server = Server(user=[
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        "--inh-caps=-all,+sys_ptrace", "--ambient-caps=-all,+sys_ptrace",
        "--bounding-set=-all,+sys_ptrace"])
    try:
        fill(server)
        saves(server, 1)
        server.stop()
    finally:
        server.kill()


def refused_where(change, cure):
    """`change` is a command for sh in namespaces of its own; with a cure in the
    message, or, if that is None, it runs all the same."""
    as_root("make namespaces")
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c",
         change + " || exit 77; exec \"$@\"", "sh", LAUNCHER, "redis-server",
         "--port", "0"], env=dict(os.environ, WEIR_REDIS_CHECK="1"),
        timeout=PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=WORK)
    text = done.stdout.decode()
    if done.returncode == 77 or "unshare" in text:
        raise Skipped("not to be had here: " + text.strip())
    if cure and (done.returncode != 1 or cure not in text):
        raise Failed("status %d: %s" % (done.returncode, text))
    if not cure and (done.returncode or "it runs" not in text):
        raise Failed("status %d: %s" % (done.returncode, text))


def nothing_is_left():
    """Neither of the servers nor of their children."""
    left = []
    try:
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            left.append(pid)
            if not pid:
                break
    except ChildProcessError:
        pass
    if left:
        raise Failed("processes are left (0: one that runs): %r" % left)


def other_programs():
    done = subprocess.run([LAUNCHER, "true"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=PATIENCE)
    if done.returncode != 127 or b"jemalloc" not in done.stdout:
        raise Failed(done.stdout.decode())


def why_not():
    """What the system lacks for weir-redis to run; "" if nothing, or if it is
    not what it may lack."""
    done = subprocess.run(
        [LAUNCHER, "redis-server", "--port", "0"],
        env=dict(os.environ, WEIR_REDIS_CHECK="1"), timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/")
    text = done.stdout.decode().strip()
    known = any(word in text for word in (
        "userfaultfd", "overcommit_memory", "it takes Linux"))
    return text if done.returncode and known else ""


def with_server(tests):
    """Tests of one server; it need not be if it cannot."""
    server = None
    for what, function, arguments in tests:
        def run():
            nonlocal server
            if not server:
                # Other threads write to the memory, too.
                server = Server("--io-threads", "2", "--io-threads-do-reads",
                                "yes")
                fill(server)
            function(server, *arguments)
        test(what, run)
    if server:
        server.kill()


def test(what, function, *arguments):
    global count
    count += 1
    try:
        if refused and function != nothing_is_left:
            raise Skipped(refused)
        function(*arguments)
        print("ok %d - %s" % (count, what), flush=True)
    except Skipped as why:
        print("ok %d - %s # SKIP %s" % (
            count, what, " ".join(str(why).split())), flush=True)
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print("not ok %d - %s" % (count, what), flush=True)
        print("%s: %s" % (type(error).__name__, error), file=sys.stderr)


def main():
    global refused
    os.environ["TZ"] = "UTC"
    # Whose parent is killed is left to this process (PR_SET_CHILD_SUBREAPER).
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    test("a program without jemalloc is refused", other_programs)
    test("without privilege it runs, or is refused with the cure",
         without_privilege)
    test("strict account of memory is refused with the cure", refused_where,
         "echo 2 >strict && "
         "mount --bind strict /proc/sys/vm/overcommit_memory",
         "vm.overcommit_memory=1")
    test("memory files that are not to be executed are enough", refused_where,
         "echo 2 >/proc/sys/vm/memfd_noexec", None)
    test("a file size limit is refused with the cure", refused_where,
         "ulimit -f 1000", "RLIMIT_FSIZE")
    test("a lack of address space is refused with the cure", refused_where,
         "ulimit -v 1000000", "RLIMIT_AS")
    test("huge pages that are off are refused with the cure", refused_where,
         "echo 'always [never]' >off && mount --bind off "
         "/sys/kernel/mm/transparent_hugepage/shmem_enabled && "
         "export WEIR_REDIS_HUGE=1", "echo advise >")
    test("a switch is 0 or 1", refused_where, "export WEIR_REDIS_LOG=yes",
         "neither 0 nor 1")
    refused = why_not()
    with_server([
        ("a save is what was there, under load", saves, (ROUNDS,)),
        ("saves one after another", one_after_another, ()),
        ("memory comes back after the save", memory_comes_back, ()),
        ("memory does not grow with saves", memory_stays, ()),
        ("the log is rewritten under load", rewrite, ())])
    test("a replica, without disk", replica, "yes")
    test("a replica, by disk", replica, "no")
    test("a killed server leaves the old dump", killed_server)
    test("a server that is killed in a rewrite keeps what it acknowledged",
         killed_in_rewrite)
    test("a killed child fails the save and nothing else", killed_child)
    test("in the background", in_background)
    test("with one capability", with_one_capability)
    test("nothing is left behind", nothing_is_left)
    print("1..%d" % count)


main()
