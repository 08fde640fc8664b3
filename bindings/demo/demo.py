#!/usr/bin/env python3
"""One group with a member in C, one in Python and one in Go: each is killed on the way, and so is the daemon.

    demo.py [--seconds S] [--records N] [--kill NAMES] MEMBER=COMMAND…       `make demo-bindings` knows the commands

The members copy a topic to another one, each batch in one transaction with the place that was read to (member.c). At the end, what was
committed must have every record once and in order, each member must have done some of it, and each kill's partitions must have gone to
the others. $BUSWAY and $BUSWAYD name the programs."""
import argparse
import collections
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

PARTITIONS = 6
BUSWAY = os.environ.get("BUSWAY", "busway")


class Member:
    def __init__(self, name, command, arguments):
        self.name, self.words = name, shlex.split(command) + arguments + [name]
        self.parts, self.given, self.committed, self.last_commit, self.starts, self.deaths, self.quiet = set(), {}, 0, 0.0, 0, [], False
        self.begin()

    def begin(self):
        self.starts += 1
        self.parts = set()
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self.listen, args=(stream, self.process), daemon=True).start()

    def listen(self, stream, process):
        for line in stream:
            words = line.split()
            if process is not self.process or not words:
                continue
            if words[0] in ("assigned", "revoked", "lost") and len(words) in (2, 3):
                parts = {int(p) for p in words[1].split(",")} if len(words) == 3 else set()
                if words[0] == "assigned":
                    self.parts |= parts
                    self.given.update({p: int(words[-1]) for p in parts})
                else:
                    self.parts -= parts
            elif words[0] == "committed":
                self.committed += int(words[1])
                self.last_commit = time.time()
            else:
                say(f"      {self.name}: {line.rstrip()}")

    def tend(self):
        """One that ends by itself is a failure."""
        if not self.quiet and self.process.poll() is not None:
            self.deaths.append(self.process.returncode)
            say(f"FAIL  the member in {self.name} ended by itself: {self.process.returncode}")
            self.begin()

    def kill(self):
        self.quiet = True
        self.process.kill()
        self.process.wait()
        parts, self.parts = self.parts, set()
        return parts

    def again(self):
        self.begin()
        self.quiet = False


def say(text):
    print(text, flush=True)


class Demo:
    def __init__(self, args, folder):
        self.args, self.failures, self.fed, self.stop = args, [], 0, threading.Event()
        self.folder, self.bus = folder, f"dir:{folder}?idle-exit=10s"
        self.busway("topic", "create", "in", "--partitions", str(PARTITIONS))
        self.busway("topic", "create", "out", "--partitions", str(PARTITIONS))
        arguments = [self.bus, "copiers", "in", "out"]
        self.members = {n: Member(n, c, arguments) for n, c in (m.split("=", 1) for m in args.member)}
        self.feeder = threading.Thread(target=self.feed, daemon=True)

    def busway(self, *words):
        return subprocess.run([BUSWAY, "-b", self.bus, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def feed(self):
        """Numbered records, by key over all partitions."""
        pipe = subprocess.Popen([BUSWAY, "-b", self.bus, "produce", "in", "-q", "-K", " "], stdin=subprocess.PIPE, text=True)
        while not self.stop.is_set() and self.fed < self.args.records:
            for _ in range(20):
                pipe.stdin.write(f"k{self.fed % 97} {self.fed}\n")
                self.fed += 1
            pipe.stdin.flush()
            self.stop.wait(20 * self.args.seconds * 0.9 / self.args.records)
        pipe.stdin.close()
        if pipe.wait() != 0:
            self.fail("busway produce ended with an error")

    def fail(self, text):
        self.failures.append(text)
        say(f"FAIL  {text}")

    def show(self):
        columns = [f"{m.name} {','.join(map(str, sorted(m.parts))) or '-':<11} {m.committed:>6}" for m in self.members.values()]
        say(f"      {self.fed:>6} sent   " + "   ".join(columns))

    def until(self, what, condition, limit):
        begun = shown = time.monotonic()
        while not condition():
            for m in self.members.values():
                m.tend()
            if time.monotonic() - shown > 1:
                self.show()
                shown = time.monotonic()
            if time.monotonic() - begun > limit:
                self.fail(f"{what}: not within {limit} s")
                return False
            time.sleep(0.002)
        return True

    def divided(self):
        """Each partition is one member's, and each member has some."""
        owners = collections.Counter(p for m in self.members.values() for p in m.parts)
        live = [m for m in self.members.values() if not m.quiet]
        return sorted(owners) == list(range(PARTITIONS)) and set(owners.values()) == {1} and all(m.parts for m in live)

    def kill_member(self, name):
        victim = self.members[name]
        at = time.time_ns()
        parts = victim.kill()
        others = [m for m in self.members.values() if m is not victim]
        taken = lambda: all(any(p in m.parts for m in others) for p in parts)
        if self.until(f"the partitions of {name} go to the others", taken, 15):
            ms = [(m.given[p] - at) / 1e6 for p in parts for m in others if p in m.parts]
            say(f"ok    {name} was killed; its {len(parts)} partitions went to the others within {max(ms, default=0):.1f} ms")
        if not parts:
            self.fail(f"{name} had no partitions to take over")
        self.until("the others go on committing", lambda: all(m.last_commit * 1e9 > at for m in others), 15)
        time.sleep(0.3)
        victim.again()
        self.until(f"{name} has partitions again", self.divided, 30)

    def daemon(self):
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"buswayd" in words[0] and any(str(self.folder).encode() in w for w in words):
                return int(entry.parent.name)
        return None

    def kill_daemon(self):
        pid, at = self.daemon(), time.time()
        if pid is None:
            return self.fail("there is no daemon to be killed")
        os.kill(pid, signal.SIGKILL)
        if self.until("all members commit behind the daemon's death", lambda: all(m.last_commit > at for m in self.members.values()), 30):
            say(f"ok    the daemon was killed; all three had committed again within {(time.time() - at) * 1000:.0f} ms, daemon {self.daemon()}")
        self.until("the group is divided again", self.divided, 30)

    def committed(self):
        text = self.busway("consume", "out", "--isolation", "committed", "-e", "-q", "-f", "%p %k %s\\n")
        return [line.split(" ") for line in text.splitlines()]

    def judge(self):
        wanted = {}
        for line in self.busway("consume", "in", "-e", "-q", "-f", "%p %s\\n").splitlines():
            partition, value = line.split(" ")
            wanted.setdefault(partition, []).append(value)
        got, by = {}, collections.Counter()
        for partition, name, value in self.committed():
            got.setdefault(partition, []).append(value)
            by[name] += 1
        sent = sum(map(len, wanted.values()))
        if sent != self.fed:
            self.fail(f"{self.fed} records were sent, {sent} are there")
        values = collections.Counter(v for vs in got.values() for v in vs)
        lost, twice = [v for vs in wanted.values() for v in vs if v not in values], [v for v, n in values.items() if n > 1]
        if lost:
            self.fail(f"{len(lost)} records were lost: {lost[:5]}")
        if twice:
            self.fail(f"{len(twice)} records were done twice: {twice[:5]}")
        if not lost and not twice and got != wanted:
            self.fail("the order within a partition is not that of the input")
        for name, m in self.members.items():
            if not by[name]:
                self.fail(f"{name} did nothing of it")
        if not self.failures:
            say(f"ok    {sent} records, each once and in order: " + ", ".join(f"{n} by {name}" for name, n in sorted(by.items())))

    def run(self):
        begun = time.monotonic()
        self.feeder.start()
        if self.until("each member has partitions", self.divided, 30):
            self.show()
            victims = [n for n in self.args.kill.split(",") if n]
            steps = [lambda n=n: self.kill_member(n) for n in victims] + [self.kill_daemon]
            for i, step in enumerate(steps):
                self.until("time passes", lambda: time.monotonic() - begun > self.args.seconds * (i + 1) / (len(steps) + 1), self.args.seconds * 2 + 30)
                step()
        self.feeder.join(self.args.seconds + 60)
        self.until("everything is done", lambda: len(self.committed()) >= self.fed, 30)
        self.show()
        for m in self.members.values():
            m.quiet = True
            m.process.terminate()
        for m in self.members.values():
            m.process.wait(10)
            if m.deaths:
                self.fail(f"{m.name} ended by itself {len(m.deaths)} times")
        self.judge()
        pid = self.daemon()
        if pid:
            os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            if not self.daemon():
                break
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--records", type=int, default=20000)
    parser.add_argument("--kill", help="members, by name, with commas; default: all, one after the other")
    parser.add_argument("member", nargs="+", metavar="MEMBER=COMMAND")
    args = parser.parse_args()
    if args.kill is None:
        args.kill = ",".join(m.split("=")[0] for m in args.member)
    folder = tempfile.mkdtemp(prefix="busway-bindings.")
    demo = None
    try:
        demo = Demo(args, folder)
        demo.run()
        failures = demo.failures
    finally:
        for m in demo.members.values() if demo else []:
            m.quiet = True
            if m.process.poll() is None:
                m.process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    say("DEMO PASSED" if not failures else f"DEMO FAILED: {failures[0]}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
